"""The arguments of ``tessera bench peers``.  Imported by every ``tessera`` command: the work is in ``bench``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from benchmarks.options import add_record_arguments, positive, seconds
from benchmarks.peers.installing import FOLDER, PEERS


def add_peers(benches: Any) -> None:
    """Add ``peers`` to the benchmarks."""
    parser = benches.add_parser("peers", help="beside CrypTen, SPU, MPyC and TenSEAL, taking turns")
    parser.add_argument(
        "--install", nargs="*", metavar="PEER",
        help=f"make the peers' virtual environments from PyPI, and only that: of {', '.join(PEERS)} (default: all)",
    )  # fmt: skip
    parser.add_argument(
        "--folder", type=Path, default=FOLDER, metavar="DIR", help="where those environments are (default: %(default)s)"
    )
    parser.add_argument(
        "--python", default=sys.executable, metavar="PATH",
        help="interpreter to make them with (default: this one); not every peer has wheels for every version",
    )  # fmt: skip
    parser.add_argument("--cases", nargs="+", metavar="CASE", help="which ones (default: all)")
    parser.add_argument("--systems", nargs="+", metavar="SYSTEM", help="which ones (default: all)")
    parser.add_argument("--repeat", type=positive, default=10, metavar="R", help="measured runs at most (default: 10)")
    parser.add_argument(
        "--limit", type=seconds, default=120.0, metavar="S",
        help="seconds until a system must have prepared and run a case, and for each run of it (default: 120)",
    )  # fmt: skip
    parser.add_argument(
        "--budget", type=seconds, default=15.0, metavar="S",
        help="seconds of measured runs of a system and case after which no more are started (default: 15)",
    )  # fmt: skip
    add_record_arguments(parser)
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    from benchmarks.peers.bench import run

    return run(options)
