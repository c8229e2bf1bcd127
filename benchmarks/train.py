"""``tessera train``: a network learns from data that nobody may see; an example of it on this machine.

Imported by every ``tessera`` command: the work itself is in ``parties.commands.training`` and ``benchmarks.hospitals``.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from benchmarks.options import add_cluster_kind_arguments, positive
from mpc.errors import UsageError
from parties.commands.arguments import client_arguments
from parties.commands.examples import add_examples

LOSSES = ("cross-entropy", "mse", "bce")


def command(subparsers: Any) -> None:
    """Add ``train`` to the commands of ``tessera``."""
    parser = subparsers.add_parser("train", help="have a network learn from data sets that are stored on the parties")
    _add_own(parser)
    client_arguments(parser)
    parser.add_argument(
        "--json", action="store_true", help="print a JSON object after each checkpoint, and one at the end"
    )
    example = parser.add_argument_group("an example, on this machine alone")
    example.add_argument(
        "--example", choices=("hospitals", "cnn"),
        help="instead: the lesions of three hospitals, told apart by one layer; or by a small convolutional network,"
        " trained whole beside the same steps in the clear",
    )  # fmt: skip
    example.add_argument(
        "--quick", action="store_true", help="each lesion once, instead of six times; cnn: 320 of them, twice"
    )
    example.add_argument(
        "--hidden", type=positive, default=0, metavar="N", help="two layers, with so many values between (default: one)"
    )
    example.add_argument(
        "--data", type=Path, metavar="FILE.npz",
        help="pictures of 28x28 pixels instead of the 7x7 that ship, in the layout of MedMNIST's DermaMNIST",
    )  # fmt: skip
    example.add_argument(
        "--photographs", type=Path, metavar="FILE.npz",
        help="of 128x128 pixels, and what EfficientNet-Lite0, as trained on ImageNet, makes of them (extra train)",
    )  # fmt: skip
    add_cluster_kind_arguments(example)
    add_examples(
        parser,
        ("tessera train --example hospitals", "beside each hospital alone, federated, and all pictures in the clear"),
        ("tessera train --example hospitals --quick --security malicious", "once through, with MACs"),
        (
            "tessera train net.safetensors --learn north/data --learn south/data --epochs 5 --why 'the yearly study'",
            "a network of yours: both owners are asked, and it goes on when they have said yes",
        ),
    )
    parser.set_defaults(run=_run)


def _add_own(parser: Any) -> None:
    """The flags of a network of one's own."""
    parser.add_argument(
        "network",
        nargs="?",
        type=Path,
        metavar="NET.safetensors",
        help="what it begins with, as model.save() writes it",
    )
    parser.add_argument(
        "--begin", metavar="OWNER/NAME", help="instead of a file: a network that is stored, which is trained on unseen"
    )
    parser.add_argument(
        "--learn", action="append", default=[], metavar="OWNER/NAME",
        help="a data set with tensors x and y to learn from; several times for several",
    )  # fmt: skip
    parser.add_argument(
        "--check", action="append", default=[], metavar="OWNER/NAME",
        help="a data set of whose rows it is revealed at each checkpoint how many are right; as often",
    )  # fmt: skip
    parser.add_argument(
        "--name", metavar="NAME", help="what the network is called on the parties (default: the file's, or NAME-tuned)"
    )
    parser.add_argument(
        "--epochs", type=float, default=1.0, metavar="E", help="how often each row is drawn (default: 1)"
    )
    parser.add_argument(
        "--order", choices=("public", "secret"), default="public",
        help="of rows: a public one, or one that nobody knows, in which all are stored beforehand (default: public)",
    )  # fmt: skip
    parser.add_argument("--batch", type=int, default=32, metavar="B", help="rows in a step (default: 32)")
    parser.add_argument("--lr", type=float, default=0.01, metavar="R", help="the learning rate (default: 0.01)")
    parser.add_argument("--momentum", type=float, default=0.9, metavar="M", help="(default: 0.9)")
    parser.add_argument("--loss", choices=LOSSES, default="cross-entropy", help="(default: cross-entropy)")
    parser.add_argument(
        "--only", action="append", default=[], metavar="LAYER",
        help="a layer that is trained, where the others stay as they are; as often (default: all)",
    )  # fmt: skip
    parser.add_argument("--steps", type=int, metavar="K", help="between checkpoints (default: as many as fit)")
    parser.add_argument("--losses", action="store_true", help="the mean loss is revealed at each checkpoint")
    parser.add_argument(
        "--ahead", type=positive, metavar="N",
        help="instead: have so many checkpoints dealt for ahead of time, for the same command without it to use",
    )  # fmt: skip
    parser.add_argument("--leave", action="store_true", help="return once it has begun: `tessera jobs` follows it")
    parser.add_argument("--stop", metavar="NAME", help="instead: have a training end, with what it has come to")
    parser.add_argument("--why", metavar="TEXT", help="ask the data's owners for leave, and wait for it")


def _run(options: argparse.Namespace) -> int:
    if options.example is None:
        from parties.commands.training import run

        return run(options)
    if options.network is not None or options.learn:
        raise UsageError("an example has a network and data of its own: give --example alone")
    from benchmarks import hospitals, whole_network

    return hospitals.run(options) if options.example == "hospitals" else whole_network.run(options)
