"""``tessera bench soak`` on the command line; the soak itself is in ``benchmarks.soak.bench``.

Imported by every ``tessera`` command, the servers' too: nothing here loads kernels or tables.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from benchmarks.options import add_cluster_kind_arguments, add_record_arguments, positive, seconds

FAULTS = ("kill", "freeze", "stop")


def add_soak(benches: Any) -> None:
    """Add ``soak`` to the benchmarks."""
    parser = benches.add_parser("soak", help="predictions while servers and clients are killed and started again")
    parser.add_argument(
        "--predictions", type=positive, default=1000, metavar="N", help="to be answered, in all (default: 1000)"
    )
    parser.add_argument("--clients", type=positive, default=8, metavar="C", help="processes that ask (default: 8)")
    add_cluster_kind_arguments(parser)
    parser.add_argument(
        "--faults", type=faults, default=FAULTS, metavar="F,...", help=f"some of {', '.join(FAULTS)} (default: all)"
    )
    parser.add_argument(
        "--every", type=pause, default=1.0, metavar="S",
        help="seconds from a server's return to the next fault, on average (default: 1)",
    )  # fmt: skip
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the choice of faults (default: 0)")
    parser.add_argument(
        "--timeout", type=seconds, default=120.0, metavar="S",
        help="seconds within which a server must start (default: 120)",
    )  # fmt: skip
    parser.add_argument("--logs", type=Path, metavar="DIR", help="keep the logs of all processes in this new folder")
    add_record_arguments(parser)
    parser.set_defaults(run=_soak)


def faults(text: str) -> tuple[str, ...]:
    """Names of faults with commas between them, each once."""
    names = tuple(text.split(","))
    if len(set(names)) < len(names) or not set(names) <= set(FAULTS):
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of some of {', '.join(FAULTS)}, with commas")
    return names


def pause(text: str) -> float:
    """A time from 0.1 seconds to an hour."""
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds") from None
    if not 0.1 <= value <= 3600:
        raise argparse.ArgumentTypeError(f"{text} is not between 0.1 and 3600 seconds")
    return value


def _soak(options: argparse.Namespace) -> int:
    from benchmarks.soak.bench import run

    return run(options)
