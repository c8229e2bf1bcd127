"""``tessera bench workers`` on the command line; the simulation itself is in ``benchmarks.workers.bench``.

Imported by every ``tessera`` command, the servers' too: nothing here loads kernels or tables.
"""

from __future__ import annotations

import argparse
from typing import Any

from benchmarks.options import (
    add_model_arguments,
    add_objective_argument,
    add_party_arguments,
    add_record_arguments,
    positive,
)


def add_workers(benches: Any) -> None:
    """Add ``workers`` to the benchmarks."""
    parser = benches.add_parser(
        "workers", help="what more workers a party are worth: by simulation, where computing is waited for"
    )
    add_model_arguments(parser)
    parser.add_argument(
        "--workers", type=positive, nargs="+", default=[1, 2, 4, 8, 16, 32, 64], metavar="W",
        help="of each party (default: 1 2 4 8 16 32 64)",
    )  # fmt: skip
    parser.add_argument(
        "--rounds", type=positive, default=6, metavar="R", help="measured runs of each worker (default: 6)"
    )
    parser.add_argument(
        "--stretch", type=float, metavar="K",
        help="wait K times as long as computing was measured to take (default: as much longer as this one machine needs"
        " for what all of the others' machines would send)",
    )  # fmt: skip
    add_objective_argument(parser)
    add_party_arguments(parser)
    add_record_arguments(parser)
    parser.set_defaults(run=_workers)


def _workers(options: argparse.Namespace) -> int:
    from benchmarks.workers.bench import run

    return run(options)
