"""``tessera demo``: lesion photographs that only their owner sees, classified by parties on this machine.

Imported by every ``tessera`` command: the work itself is in ``benchmarks.demonstration``.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from benchmarks.options import add_cluster_arguments, positive
from parties.commands.examples import add_examples

PICTURE = Path("tessera-demo.png")


def command(subparsers: Any) -> None:
    """Add ``demo`` to the commands of ``tessera``."""
    parser = subparsers.add_parser("demo", help="classify the shipped lesion photographs, as shares, on this machine")
    add_cluster_arguments(parser)
    parser.add_argument(
        "--model", choices=("lesion", "small"),
        help="EfficientNet-Lite0 on 128x128 pixels, or the small CNN on 28x28 (default: lesion; small with MACs)",
    )  # fmt: skip
    parser.add_argument(
        "--images", type=positive, metavar="N",
        help="how many of the 14 shipped images (default: one of each class for lesion, all for small)",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print one JSON object; figures are per image")
    picture = parser.add_mutually_exclusive_group()
    picture.add_argument(
        "--picture", type=Path, default=PICTURE, metavar="PATH",
        help="where to draw what each party saw, as PNG (default: %(default)s)",
    )  # fmt: skip
    picture.add_argument("--no-picture", dest="picture", action="store_const", const=None, help="draw nothing")
    parser.add_argument(
        "--save-images", type=Path, metavar="FOLDER",
        help="put the shipped images there, to predict from, with their licence; run nothing",
    )  # fmt: skip
    add_examples(
        parser,
        ("tessera demo", "every photograph that ships, and a picture of what each party saw"),
        ("tessera demo --images 2 --security malicious --no-picture", "two of them, with MACs"),
    )
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    from benchmarks.demonstration import demonstrate

    return demonstrate(options)
