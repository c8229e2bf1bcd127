"""What ``tessera dealer`` and ``tessera party`` have in common."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from parties.commands.arguments import cluster_argument
from parties.host import logs
from parties.members.cluster import Cluster, Member
from parties.members.cluster_file import MAX_THREADS
from parties.members.keys import KeyPair
from parties.operate.cluster.signed import steps_beside
from parties.operate.metrics.serving import parse_address

if TYPE_CHECKING:
    from parties.servers.crew import Workforce


def server_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of both."""
    cluster_argument(parser)
    parser.add_argument("--key", type=Path, help="its key file (default: NAME.key beside the cluster file)")
    parser.add_argument("--data", type=Path, help="its data folder (default: NAME.data beside the key file)")
    parser.add_argument("--json", action="store_true", help="if it fails, print one JSON object")
    parser.add_argument(
        "--observable", dest="opaque", action="store_false",
        help="let debuggers and measurements of the same user look into it (never where it matters)",
    )  # fmt: skip
    parser.add_argument(
        "--threads",
        type=_count,
        default=0,
        metavar="N",
        help="to compute with (default: as the cluster file says)",
    )
    parser.add_argument(
        "--device", default="", metavar="NAME",
        help="compute on what torch calls so, as cuda or cuda:1 (default: the processor, without torch)",
    )  # fmt: skip
    parser.add_argument("--until-stdin-closes", action="store_true", help="end when stdin does (for launchers)")
    parser.add_argument(
        "--metrics",
        metavar="HOST:PORT",
        help="let Prometheus scrape here; whoever can connect can read it (default: not)",
    )
    parser.add_argument(
        "--log-format", choices=logs.FORMATS, default="text", help="json: one object a line (default: text)"
    )
    parser.add_argument(
        "--grace", type=_seconds, default=10.0, metavar="SECONDS",
        help="asked to stop (SIGTERM), give runs in progress so long to end, then fail them (default: 10)",
    )  # fmt: skip


def _count(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= MAX_THREADS:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of threads from 1 to {MAX_THREADS}")
    return int(text)


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 86_400:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds from 0 to 86400")
    return value


def serve(
    options: argparse.Namespace,
    cluster: Cluster,
    member: Member,
    workforce: Callable[[], Workforce] | None = None,
    **others: Any,
) -> int:
    """Serves as ``member`` until it is asked to stop.  ``workforce`` makes who starts its workers, if it has such.

    ``others``: of ``run_server``.
    """
    path: Path = options.key or options.cluster.parent / f"{member.name}.key"
    keys = KeyPair.load(path)
    metrics = None if options.metrics is None else parse_address(options.metrics)
    logs.configure(options.log_format, member.name)
    # Imported here: whoever asks for help needs no kernels.
    from parties.servers.process import run_server

    force = None if workforce is None else workforce()
    try:
        run_server(
            cluster,
            member,
            keys,
            options.data or path.parent / f"{member.name}.data",
            until_stdin_closes=options.until_stdin_closes,
            grace=options.grace,
            metrics=metrics,
            following=steps_beside(options.cluster),
            count=options.threads,
            device="" if force is not None else options.device,
            workforce=force,
            **others,
        )
    finally:
        if force is not None:
            force.close()
    return 0
