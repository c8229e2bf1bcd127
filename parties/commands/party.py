"""``tessera party``: serve as one of the parties."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from mpc.errors import ConfigurationError, UsageError
from parties.commands.serving import serve, server_arguments
from parties.members.cluster import Cluster

if TYPE_CHECKING:
    from parties.servers.crew import Workforce

MAX_WORKERS = 4096


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of ``tessera party``."""
    parser.add_argument(
        "party", metavar="PARTY", help="which one: its name in the cluster file, or 0 for the first [[party]] there"
    )
    server_arguments(parser)
    group = parser.add_argument_group("on several machines")
    group.add_argument(
        "--engine", choices=("local", "ray"), default="local",
        help="where runs are computed: in this process, or on workers, which Ray starts (default: local)",
    )  # fmt: skip
    group.add_argument("--workers", type=_workers, metavar="N", help="how many workers (with --engine ray; default: 1)")
    group.add_argument(
        "--address",
        metavar="HOST:PORT",
        help="of the party's Ray, or auto on one of its nodes (default: one is started here)",
    )
    group.add_argument(
        "--worker-ports", type=_ports, metavar="FIRST-LAST",
        help="where workers listen for other parties' workers, on each machine (default: any port)",
    )  # fmt: skip


def _workers(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= MAX_WORKERS:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of workers from 1 to {MAX_WORKERS}")
    return int(text)


def _ports(text: str) -> tuple[int, ...]:
    first, _, last = text.partition("-")
    if not (first.isdecimal() and last.isdecimal() and 1 <= int(first) <= int(last) <= 65535):
        raise argparse.ArgumentTypeError(f"{text!r} is not a range of ports: write it like 20000-20063")
    return tuple(range(int(first), int(last) + 1))


def run(options: argparse.Namespace) -> int:
    """Serves until it is asked to stop."""
    cluster = Cluster.load(options.cluster)
    for party in cluster.parties:
        if options.party in (str(party.index), party.name):
            if options.engine == "local":
                _check_unused(options)
                return serve(options, cluster, party)
            return serve(options, cluster, party, lambda: _on_ray(options, cluster))
    listed = ", ".join(f"{party.index} ({party.name})" for party in cluster.parties)
    raise ConfigurationError(f"there is no party {options.party}: the cluster file lists {listed}")


def _check_unused(options: argparse.Namespace) -> None:
    for name in ("workers", "address", "worker_ports"):
        if getattr(options, name) is not None:
            raise UsageError(f"--{name.replace('_', '-')} is for --engine ray")


def _on_ray(options: argparse.Namespace, cluster: Cluster) -> Workforce:
    # Imported here: who computes here needs none of it.
    from parties.worker.ray_workforce import LOCAL, RayWorkforce

    return RayWorkforce(
        options.workers or 1,
        options.address or LOCAL,
        cpus=options.threads or cluster.settings.threads or 1,
        ports=options.worker_ports or (0,),
        device=options.device,
    )
