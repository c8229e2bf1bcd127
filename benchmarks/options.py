"""Arguments that the demo and the benchmarks have in common.

Imported by every ``tessera`` command, the servers' too: nothing here loads kernels or tables.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import Any

from mpc.security import Security

TRAINED = ("softmax", "sigmoid", "mlp", "cnn-sigmoid", "cnn-sigmoid-pooled", "cnn-relu", "cnn-relu-pooled")
"""What ``tessera bench training`` trains (`benchmarks.training.CASES`, which takes long to import)."""


def add_cluster_arguments(command: Any) -> None:
    """``--security``, ``--parties`` and ``--timeout``."""
    _add_security(command)
    add_party_arguments(command)


def add_cluster_kind_arguments(command: Any) -> None:
    """``--security`` and ``--parties``, for what has no ``--timeout``."""
    _add_security(command)
    _add_parties(command)


def add_party_arguments(command: Any) -> None:
    """``--parties`` and ``--timeout``; a ``LocalCluster`` refuses values that it does not have."""
    _add_parties(command)
    command.add_argument(
        "--timeout", type=seconds, default=120.0, metavar="S",
        help="seconds within which the processes must start, and each round must end (default: 120)",
    )  # fmt: skip


def _add_security(command: Any) -> None:
    command.add_argument(
        "--security",
        default=str(Security.SEMI_HONEST),
        metavar="S",
        help=f"{' or '.join(Security)} (default: %(default)s)",
    )


def _add_parties(command: Any) -> None:
    command.add_argument("--parties", type=int, default=2, metavar="N", help="how many parties (default: 2)")


def add_model_arguments(command: Any) -> None:
    """Which network, and how many inputs at once; see ``benchmarks.models``."""
    model = command.add_mutually_exclusive_group()
    model.add_argument(
        "--model", default="derm",
        help="which network that ships: derm (the default), derm-tails, whose sigmoids are right on any input, or"
        " lesion, EfficientNet-Lite0 on 128x128 pixels",
    )  # fmt: skip
    model.add_argument(
        "--torch", metavar="FILE.py:NAME",
        help="a torch module of yours, or a callable that makes it; the file is executed here, and never at a party",
    )  # fmt: skip
    command.add_argument("--shape", type=shape, metavar="C,H,W", help="of one input, with --torch")
    command.add_argument(
        "--samples", type=Path, metavar="FILE.npy",
        help="inputs like those to come, with --torch: numbers, or tokens as whole numbers; what a deep network assumes"
        " of its values goes by them (default: by random numbers, where it has to)",
    )  # fmt: skip
    command.add_argument(
        "--range", type=float, nargs=2, metavar=("LOW", "HIGH"), help="of inputs, with --torch (default: -1 1)"
    )
    command.add_argument(
        "--side", type=positive, metavar="S",
        help="of the images, with --model derm (default: 28); for others the first dense layer has random weights",
    )  # fmt: skip
    command.add_argument("--batch", type=positive, default=1, metavar="B", help="inputs in a run (default: 1)")


def add_objective_argument(command: Any) -> None:
    """``--objective``, of a client."""
    command.add_argument(
        "--objective", choices=("latency", "traffic"), default="latency",
        help="what comparisons are to have least of: rounds, or bytes (default: %(default)s)",
    )  # fmt: skip


def add_record_arguments(command: Any) -> None:
    """``--json``, and what ``records.Recorder`` needs: ``--out``, ``--against``, ``--strict``."""
    command.add_argument("--json", action="store_true", help="print one JSON object")
    command.add_argument("--out", type=Path, metavar="FILE.jsonl", help="append the measurements to this file")
    command.add_argument(
        "--against", type=Path, metavar="OLD.jsonl", help="say what got worse, beyond noise, than in this file"
    )
    command.add_argument("--strict", action="store_true", help="exit with 1 if something got worse")


def positive(text: str) -> int:
    """A whole number from 1."""
    try:
        value = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from None
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not at least 1")
    return value


def shape(text: str) -> tuple[int, ...]:
    """Whole numbers from 1, with commas between them."""
    return tuple(positive(part) for part in text.split(","))


def places(text: str) -> slice:
    """FIRST:END, whole numbers, of which the second is larger."""
    first, colon, end = text.partition(":")
    try:
        found = slice(int(first), int(end))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not FIRST:END, as in 0:100") from None
    if not colon or not 0 <= found.start < found.stop:
        raise argparse.ArgumentTypeError(f"{text} are no images: FIRST is 0 or more, and END is larger")
    return found


def seconds(text: str) -> float:
    """A time from 1 second to a day."""
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds") from None
    if not (math.isfinite(value) and 1 <= value <= 86400):
        raise argparse.ArgumentTypeError(f"{text} is not between 1 and 86400 seconds")
    return value
