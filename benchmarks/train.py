"""``tessera train``: a network learns from data that nobody may see.

Imported by every ``tessera`` command: the work itself is in ``benchmarks.hospitals``.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from benchmarks.options import add_cluster_arguments, positive
from parties.commands.examples import add_examples


def command(subparsers: Any) -> None:
    """Add ``train`` to the commands of ``tessera``."""
    parser = subparsers.add_parser("train", help="three hospitals train a network that nobody sees, on this machine")
    parser.add_argument(
        "--example", choices=("hospitals",), required=True,
        help="what is trained: the lesions of three hospitals, told apart by one layer",
    )  # fmt: skip
    parser.add_argument("--quick", action="store_true", help="each lesion once, instead of six times")
    parser.add_argument(
        "--hidden",
        type=positive,
        default=0,
        metavar="N",
        help="two layers, with so many values between (default: one layer)",
    )
    parser.add_argument(
        "--data", type=Path, metavar="FILE.npz",
        help="pictures of 28x28 pixels instead of the 7x7 that ship, in the layout of MedMNIST's DermaMNIST",
    )  # fmt: skip
    add_cluster_arguments(parser)
    parser.add_argument(
        "--json", action="store_true", help="print a JSON object after each checkpoint, and one at the end"
    )
    add_examples(
        parser,
        ("tessera train --example hospitals", "beside each hospital alone, federated, and all pictures in the clear"),
        ("tessera train --example hospitals --quick --security malicious", "once through, with MACs"),
    )
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    from benchmarks import hospitals

    return hospitals.run(options)
