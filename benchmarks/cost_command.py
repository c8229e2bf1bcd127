"""``tessera cost``: what a prediction by a network will cost, and take on given links.  No process is started.

Imported by every ``tessera`` command: the work itself is in ``benchmarks.prediction``.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from benchmarks.options import add_cluster_kind_arguments, add_model_arguments, add_record_arguments, positive
from parties.commands.examples import add_examples


def command(subparsers: Any) -> None:
    """Add ``cost`` to the commands of ``tessera``."""
    parser = subparsers.add_parser(
        "cost", help="rounds and bytes of a network's prediction, and its time on given links; starts nothing"
    )
    add_model_arguments(parser)
    add_cluster_kind_arguments(parser)
    parser.add_argument("--rtt", type=float, metavar="MS", help="round-trip time of every link, in ms")
    parser.add_argument("--bandwidth", type=float, metavar="MBIT", help="of every link, each way, in Mbit/s")
    parser.add_argument(
        "--links", type=Path, metavar="FILE.json",
        help="what tessera check --json has measured: its slowest links in place of --rtt and --bandwidth, its parties",
    )  # fmt: skip
    parser.add_argument(
        "--computing", action="store_true",
        help="add what computing takes on this machine, and memory: dealer and parties compute a run in this process",
    )  # fmt: skip
    parser.add_argument(
        "--per-month", type=positive, metavar="N", help="what is sent for so many predictions, in full batches"
    )
    parser.add_argument(
        "--objective", choices=("latency", "traffic", "both"), default="latency",
        help="what comparisons are to have least of: rounds, or bytes (default: %(default)s)",
    )  # fmt: skip
    add_record_arguments(parser)
    add_examples(
        parser,
        ("tessera cost --batch 32", "the network that ships"),
        (
            "tessera cost --torch net.py:Net --shape 3,64,64 --rtt 40 --bandwidth 100 --computing --per-month 10000",
            "yours, between two cities: time, memory, traffic",
        ),
        ("tessera cost --links links.json", "on your own cluster's, after tessera check --json > links.json"),
    )
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    from benchmarks.prediction import run

    return run(options)
