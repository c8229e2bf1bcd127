"""``tessera bench``: whole networks, their growth, single operations and kernels, and other systems, measured.

Imported by every ``tessera`` command: the measurements themselves are in the modules named below.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from benchmarks.options import (
    TRAINED,
    add_cluster_arguments,
    add_model_arguments,
    add_objective_argument,
    add_party_arguments,
    add_record_arguments,
    places,
    positive,
)
from benchmarks.peers.command import add_peers
from benchmarks.peers.installing import FOLDER
from benchmarks.soak.command import add_soak
from benchmarks.strangers.command import add_strangers
from benchmarks.workers.command import add_workers
from benchmarks.zoo.command import add_zoo
from parties.commands.examples import add_examples


def command(subparsers: Any) -> None:
    """Add ``bench`` to the commands of ``tessera``."""
    parser = subparsers.add_parser("bench", help="measure inference, operations and kernels on this machine")
    add_examples(
        parser,
        ("tessera bench inference --batch 32", "the network that ships, over processes"),
        ("tessera bench inference --out old.jsonl", "kept, and later: --against old.jsonl --strict"),
        ("tessera bench peers", "beside other systems, which --install fetches"),
    )
    benches = parser.add_subparsers(title="benchmarks", required=True, metavar="BENCHMARK")
    _add_inference(benches)
    _add_security(benches)
    _add_operations(benches)
    _add_kernels(benches)
    _add_gpu(benches)
    _add_links(benches)
    _add_scale(benches)
    add_workers(benches)
    _add_network(benches)
    _add_accuracy(benches)
    _add_training(benches)
    add_strangers(benches)
    add_peers(benches)
    add_soak(benches)
    add_zoo(benches)
    _add_all(benches)
    _add_page(benches)


def _add_all(benches: Any) -> None:
    parser = benches.add_parser("all", help="all of these, into one file: about an hour on a small machine")
    parser.add_argument("--quick", action="store_true", help="smaller and fewer ones: about six minutes")
    add_record_arguments(parser)
    parser.set_defaults(run=_all, out=Path("tessera-bench.jsonl"))


def _add_inference(benches: Any) -> None:
    parser = benches.add_parser("inference", help="predictions of a whole network, over processes")
    add_model_arguments(parser)
    parser.add_argument("--repeat", type=positive, metavar="R", help="measured runs (default: 10)")
    parser.add_argument(
        "--data", type=Path, metavar="FILE.npz",
        help="predict the whole test split of this file, once, and compare with the same in float64; derm with torch,"
        " too, which it needs",
    )  # fmt: skip
    parser.add_argument(
        "--images", type=places, metavar="FIRST:END", help="of that split these alone, as in 0:100, without the last"
    )
    parser.add_argument(
        "--closest", action="store_true", help="of that split those first whose likeliest class leads least, in float64"
    )
    parser.add_argument(
        "--memory",
        action="store_true",
        help="servers in this process, without sockets: for the answers, and not for times",
    )
    add_objective_argument(parser)
    add_cluster_arguments(parser)
    add_record_arguments(parser)
    parser.set_defaults(run=_inference)


def _add_security(benches: Any) -> None:
    parser = benches.add_parser("security", help="malicious beside semi-honest, in one session")
    parser.add_argument("--batch", type=positive, default=1, metavar="B", help="images in a run (default: 1)")
    parser.add_argument(
        "--images", type=positive, default=200, metavar="N",
        help="images to predict, those that ship over and over unless --data is given (default: 200)",
    )  # fmt: skip
    parser.add_argument("--data", type=Path, metavar="FILE.npz", help="take the first images of this file's test split")
    add_party_arguments(parser)
    add_record_arguments(parser)
    parser.set_defaults(run=_security)


def _add_operations(benches: Any) -> None:
    parser = benches.add_parser("ops", help="single operations, over processes")
    parser.add_argument("names", nargs="*", metavar="OPERATION", help="which ones (default: all)")
    parser.add_argument(
        "--size", type=positive, nargs="+", default=[10_000], metavar="E",
        help="elements of each operand, about (default: 10000); several for several sizes",
    )  # fmt: skip
    parser.add_argument("--repeat", type=positive, default=10, metavar="R", help="measured runs of each (default: 10)")
    add_cluster_arguments(parser)
    add_record_arguments(parser)
    parser.set_defaults(run=_operations)


def _add_kernels(benches: Any) -> None:
    parser = benches.add_parser(
        "kernels", help="field arithmetic beside a memory copy and a float64 product, and what a ReLU takes"
    )
    parser.add_argument("--repeat", type=positive, default=7, metavar="R", help="measured rounds (default: 7)")
    add_record_arguments(parser)
    parser.set_defaults(run=_kernels)


def _add_gpu(benches: Any) -> None:
    parser = benches.add_parser(
        "gpu", help="all operations on a graphics card beside the processor's, bit for bit, and what it takes for them"
    )
    add_model_arguments(parser)
    parser.add_argument("--device", default="cuda", metavar="NAME", help="as torch calls it (default: cuda)")
    parser.add_argument(
        "--batches", type=positive, nargs="+", default=[1, 16], metavar="B",
        help="inputs of the network at once (default: 1 16)",
    )  # fmt: skip
    parser.add_argument(
        "--part", type=positive, default=1, metavar="N",
        help="of arithmetic an N-th of the usual size, to try it without a card (default: 1)",
    )  # fmt: skip
    parser.add_argument("--repeat", type=positive, default=5, metavar="R", help="measured rounds (default: 5)")
    add_record_arguments(parser)
    parser.set_defaults(run=_gpu)


def _add_links(benches: Any) -> None:
    parser = benches.add_parser("links", help="what a link moves on loopback, with and without its data channel")
    parser.add_argument("--repeat", type=positive, default=5, metavar="R", help="measured rounds (default: 5)")
    add_record_arguments(parser)
    parser.set_defaults(run=_links)


def _add_scale(benches: Any) -> None:
    parser = benches.add_parser("scale", help="growth of time, bytes and memory with the batch and the image's side")
    parser.add_argument(
        "--batches", type=positive, nargs="*", default=[1, 4, 16, 64, 256, 1024], metavar="B",
        help="batches of images of side 28 (default: 1 4 16 64 256 1024)",
    )  # fmt: skip
    parser.add_argument(
        "--sides", type=positive, nargs="*", default=[28, 64, 128, 224], metavar="S",
        help="sides of single images (default: 28 64 128 224)",
    )  # fmt: skip
    parser.add_argument("--chunk", type=positive, metavar="C", help="images in a run (default: as many as fit)")
    parser.add_argument("--repeat", type=positive, default=5, metavar="R", help="measurements of each (default: 5)")
    add_cluster_arguments(parser)
    add_record_arguments(parser)
    parser.set_defaults(run=_scale)


def _add_network(benches: Any) -> None:
    parser = benches.add_parser("network", help="predictions over emulated networks, processes on hosts of their own")
    parser.add_argument(
        "networks", nargs="*", metavar="NETWORK", help="LAN, metro, WAN, 'mobile client' (default: all)"
    )
    parser.add_argument("--rtt", type=float, nargs="+", default=[], metavar="MS", help="other networks, by round trip")
    parser.add_argument("--bandwidth", type=float, default=1000.0, metavar="MBIT", help="of these (default: 1000)")
    add_model_arguments(parser)
    parser.add_argument("--repeat", type=positive, default=10, metavar="R", help="measured runs in each (default: 10)")
    parser.add_argument(
        "--warm-up", type=positive, default=5, metavar="W",
        help="runs before these: kernels are loaded by then, and TCP knows the path (default: 5)",
    )  # fmt: skip
    add_objective_argument(parser)
    add_cluster_arguments(parser)
    add_record_arguments(parser)
    parser.set_defaults(run=_network)


def _add_accuracy(benches: Any) -> None:
    parser = benches.add_parser("accuracy", help="errors of approximations, and of a whole network by fraction bits")
    parser.add_argument(
        "--bits", type=positive, nargs="+", default=[8, 10, 12, 14, 16, 18, 20], metavar="F",
        help="numbers of fraction bits of the network (default: 8 10 12 14 16 18 20)",
    )  # fmt: skip
    parser.add_argument("--data", type=Path, metavar="FILE.npz", help="predict this file's test split")
    parser.add_argument(
        "--images", type=positive, metavar="N",
        help="only so many images; without --data those that ship, over and over (default: each once)",
    )  # fmt: skip
    add_record_arguments(parser)
    parser.set_defaults(run=_accuracy)


def _add_training(benches: Any) -> None:
    parser = benches.add_parser("training", help="steps of training on shares, over processes")
    parser.add_argument("names", nargs="*", metavar="CASE", help=f"{', '.join(TRAINED)} (default: all)")
    parser.add_argument(
        "--steps", type=positive, default=4, metavar="K", help="from one checkpoint to the next (default: 4)"
    )
    parser.add_argument("--repeat", type=positive, default=5, metavar="R", help="measured checkpoints (default: 5)")
    parser.add_argument(
        "--beside", action="store_true", help="steps by CrypTen as well (tessera bench peers --install)"
    )
    parser.add_argument(
        "--folder", type=Path, default=FOLDER, metavar="DIR", help="where CrypTen is installed (default: %(default)s)"
    )
    add_cluster_arguments(parser)
    add_record_arguments(parser)
    parser.set_defaults(run=_training)


def _training(options: argparse.Namespace) -> int:
    from benchmarks.training import run

    return run(options)


def _network(options: argparse.Namespace) -> int:
    from benchmarks.network.bench import run

    return run(options)


def _accuracy(options: argparse.Namespace) -> int:
    from benchmarks.accuracy import run

    return run(options)


def _add_page(benches: Any) -> None:
    parser = benches.add_parser("page", help="a page of tables and pictures from files of measurements")
    parser.add_argument("records", type=Path, nargs="+", metavar="FILE.jsonl", help="as --out writes them")
    parser.add_argument(
        "--page", type=Path, default=Path("docs/benchmarks.md"), metavar="FILE.md", help="default: %(default)s"
    )
    parser.add_argument("--pictures", type=Path, metavar="DIR", help="for them (default: benchmarks/ beside the page)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=_page)


def _page(options: argparse.Namespace) -> int:
    from benchmarks.page.writing import run

    return run(options)


def _all(options: argparse.Namespace) -> int:
    from benchmarks.everything import run

    return run(options)


def _inference(options: argparse.Namespace) -> int:
    from benchmarks.inference import run

    return run(options)


def _security(options: argparse.Namespace) -> int:
    from benchmarks.security_modes import run

    return run(options)


def _operations(options: argparse.Namespace) -> int:
    from benchmarks.operations import run

    return run(options)


def _kernels(options: argparse.Namespace) -> int:
    from benchmarks.field_kernels import run

    return run(options)


def _gpu(options: argparse.Namespace) -> int:
    from benchmarks.devices import run

    return run(options)


def _links(options: argparse.Namespace) -> int:
    from benchmarks.links import run

    return run(options)


def _scale(options: argparse.Namespace) -> int:
    from benchmarks.scale import run

    return run(options)
