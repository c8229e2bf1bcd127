"""The arguments of ``tessera bench zoo``.  Imported by every ``tessera`` command: the work is in ``bench``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from benchmarks.options import add_record_arguments, positive

FOLDER = Path("~/.cache/tessera/zoo")


def add_zoo(benches: Any) -> None:
    """Add ``zoo`` to the benchmarks."""
    parser = benches.add_parser("zoo", help="which networks of other libraries come over, and at what cost")
    parser.add_argument(
        "--install", action="store_true", help="fetch those libraries from PyPI into the folder, and only that"
    )
    parser.add_argument(
        "--folder", type=Path, default=FOLDER, metavar="DIR", help="where those libraries are (default: %(default)s)"
    )
    parser.add_argument(
        "--networks",
        nargs="+",
        metavar="NAME",
        help="which ones, as library/name (default: all but those of full size)",
    )
    parser.add_argument("--size", type=positive, metavar="N", help="of images, instead of each network's own here")
    parser.add_argument(
        "--run", dest="among_parties", action="store_true", help="run them, too, between two parties on this machine"
    )
    parser.add_argument(
        "--inputs", type=positive, default=3, metavar="N", help="predictions of each that is run (default: %(default)s)"
    )
    add_record_arguments(parser)
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    from benchmarks.zoo.bench import run

    return run(options)
