"""``--engine``: where a server has its work done, and the flags that go with it."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import TYPE_CHECKING

from mpc.errors import UsageError
from parties.members.cluster import Cluster

if TYPE_CHECKING:
    from parties.servers.crew import Workforce

MAX_WORKERS = 4096


def engine_arguments(parser: argparse.ArgumentParser, work: str, *, stock: bool = False) -> None:
    """``work``: what is done there; ``stock``: whether workers can keep what is dealt ahead of time."""
    group = parser.add_argument_group("on several machines")
    group.add_argument(
        "--engine", choices=("local", "ray"), default="local",
        help=f"where {work}: in this process, or on workers, which Ray starts (default: local)",
    )  # fmt: skip
    group.add_argument("--workers", type=_workers, metavar="N", help="how many workers (with --engine ray; default: 1)")
    group.add_argument(
        "--address",
        metavar="HOST:PORT",
        help="of its own Ray, or auto on one of its nodes (default: one is started here)",
    )
    group.add_argument(
        "--worker-ports", type=_ports, metavar="FIRST-LAST",
        help="where workers listen for those of others, on each machine (default: any port)",
    )  # fmt: skip
    if stock:
        group.add_argument(
            "--worker-stock", metavar="FOLDER",
            help="where workers keep what is dealt ahead of time, sealed, on each machine or all together"
            " (default: it passes this process, and lies in its data folder)",
        )  # fmt: skip


def workforce_of(options: argparse.Namespace, cluster: Cluster) -> Callable[[], Workforce] | None:
    """What makes it, if there is to be one.  Raises UsageError for flags that go with another engine."""
    if options.engine == "ray":
        return lambda: _on_ray(options, cluster)
    for name in ("workers", "address", "worker_ports", "worker_stock"):
        if getattr(options, name, None) is not None:
            raise UsageError(f"--{name.replace('_', '-')} is for --engine ray")
    return None


def _on_ray(options: argparse.Namespace, cluster: Cluster) -> Workforce:
    # Imported here: who computes here needs none of it.
    from parties.worker.ray_workforce import LOCAL, RayWorkforce

    return RayWorkforce(
        options.workers or 1,
        options.address or LOCAL,
        cpus=options.threads or cluster.settings.threads or 1,
        ports=options.worker_ports or (0,),
        device=options.device,
        stock=getattr(options, "worker_stock", None) or "",
    )


def _workers(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= MAX_WORKERS:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of workers from 1 to {MAX_WORKERS}")
    return int(text)


def _ports(text: str) -> tuple[int, ...]:
    first, _, last = text.partition("-")
    if not (first.isdecimal() and last.isdecimal() and 1 <= int(first) <= int(last) <= 65535):
        raise argparse.ArgumentTypeError(f"{text!r} is not a range of ports: write it like 20000-20063")
    return tuple(range(int(first), int(last) + 1))
