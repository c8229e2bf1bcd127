"""``--objective``: what the programs of a command are to have least of.

By default time, on the links that there are: those that ``tessera check --json > links.json`` has measured beside the
cluster file; or else this machine's where all servers are on it, and links between cities where they are not.  A round
counts by its way, a byte by how long it takes, whether it is dealt or opened: of a lesion image 152 MB are dealt, and
396 for ``latency``, which pays only where all is dealt ahead.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from mpc.cost import Link, Wanted
from parties.members.cluster import Cluster
from parties.operate.check.measured import read_links
from parties.pages.loopback import is_local

LINKS = "links.json"
"""Beside the cluster file: what was measured of its links."""
HERE = Link(0.3e-3, 8e9)
"""Between processes of one machine."""
CITIES = Link(10e-3, 1e9)
"""Between servers elsewhere, of which nothing was measured."""


def add_objective_argument(parser: Any) -> None:
    """Of what predicts, or deals for it."""
    parser.add_argument(
        "--objective", metavar="WHAT",
        help="what runs are to have least of: latency (rounds), traffic (bytes), or time on the links that tessera"
        f" check --json > FILE.json has measured (default: {LINKS} beside the cluster file; else traffic, but where a"
        " round more costs less time than its bytes would)",
    )  # fmt: skip


def chosen_objective(options: argparse.Namespace, cluster: Cluster) -> Wanted:
    """As the options say; rounds, for commands that have no choice.  Raises UsageError for files that are no such
    report.
    """
    match getattr(options, "objective", "latency"):
        case "latency":
            return "latency"
        case "traffic":
            return "traffic"
        case str(file):
            return read_links(Path(file)).objective
    measured = options.cluster.parent / LINKS
    if measured.is_file():
        return read_links(measured).objective
    return HERE if all(_is_here(server.address) for server in (cluster.dealer, *cluster.parties)) else CITIES


def _is_here(address: str | None) -> bool:
    return address is not None and is_local(address.rpartition(":")[0].strip("[]"))
