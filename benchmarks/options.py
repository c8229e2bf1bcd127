"""Arguments that the demo and the benchmarks have in common.

Imported by every ``tessera`` command, the servers' too: nothing here loads kernels or tables.
"""

from __future__ import annotations

import argparse
import math
from typing import Any

from mpc.security import Security


def add_cluster_arguments(command: Any) -> None:
    """``--security`` and those of ``add_party_arguments``."""
    command.add_argument(
        "--security",
        default=str(Security.SEMI_HONEST),
        metavar="S",
        help=f"{' or '.join(Security)} (default: %(default)s)",
    )
    add_party_arguments(command)


def add_party_arguments(command: Any) -> None:
    """``--parties`` and ``--timeout``; a ``LocalCluster`` refuses values that it does not have."""
    command.add_argument("--parties", type=int, default=2, metavar="N", help="how many parties (default: 2)")
    command.add_argument(
        "--timeout", type=seconds, default=120.0, metavar="S",
        help="seconds within which the processes must start, and each round must end (default: 120)",
    )  # fmt: skip


def positive(text: str) -> int:
    """A whole number from 1."""
    try:
        value = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from None
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not at least 1")
    return value


def seconds(text: str) -> float:
    """A time from 1 second to a day."""
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds") from None
    if not (math.isfinite(value) and 1 <= value <= 86400):
        raise argparse.ArgumentTypeError(f"{text} is not between 1 and 86400 seconds")
    return value
