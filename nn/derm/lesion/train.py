"""Train the lesion network: ``python -m nn.derm.lesion.train --data ham10000_128_jpeg.npz --out DIR``.

Writes ``lesion.safetensors``, ``metrics.json`` and ``MODEL_CARD.md`` into ``DIR``, and after each epoch of a cycle what
it takes to go on there; what the cycles give is written to ``DIR/cycles``, and ``--cycles DIR/cycles`` does what comes
after them.  The defaults are what made the weights that ship.  Needs torch and weights from ImageNet
(``tessera-mpc[train]``).
"""

from __future__ import annotations

import argparse
import copy
import hashlib
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple, cast

from mpc.errors import ConfigurationError, UsageError
from nn.derm.dataset import Split
from nn.derm.lesion.photographs import asked, balanced, load_photographs
from nn.derm.training import METRICS, make_folder, record, report, run, write_metrics
from nn.model import Model

try:
    import torch
    from torch import nn
except ImportError:  # pragma: no cover - the tests need torch
    sys.exit("training needs PyTorch: install tessera-mpc[train]")

from nn.derm.augment import random_views
from nn.derm.lesion.card import model_card
from nn.derm.lesion.fit import CYCLES, Asked, Photographs, Tuned, answers, fine_tune, network_input
from nn.derm.lesion.importing import imported, rewritten, wider, write
from nn.derm.lesion.measure import fitted, measure, walked
from nn.derm.lesion.model import WEIGHTS, lesion_model
from nn.derm.lesion.network import folded, freeze, network, pretrained
from nn.derm.lesion.refine import REFINEMENT, refine

SHOWN = 128
"""Training images that ranges are assumed from, with those validation images that go farthest."""
SEEN = 2048
"""And views of such that statistics are made of."""


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    return run(_train, _parser().parse_args(arguments))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m nn.derm.lesion.train", description="Train the lesion network.")
    parser.add_argument("--data", type=Path, required=True, help="the .npz of 128x128 photographs")
    parser.add_argument("--out", type=Path, required=True, help="folder for weights, metrics and model card")
    parser.add_argument("--imagenet", type=Path, metavar="PTH", help="weights to start from (default: the package's)")
    parser.add_argument("--cycles", type=Path, metavar="DIR", help="begin with what cycles gave before, in this folder")
    parser.add_argument("--seed", type=int, default=1, help="seed of everything random (default: %(default)s)")
    return parser


class Images(NamedTuple):
    """What training sees, and validation images as clients ask."""

    train: Photographs
    val: Photographs
    asked: Asked


def _train(options: argparse.Namespace) -> None:
    if options.seed < 0:
        raise UsageError("the seed must be at least 0")
    torch.set_num_threads(1)  # sums in another order give other weights
    make_folder(options.out)
    read = {split: load_photographs(options.data, split) for split in ("train", "val")}
    images = Images(_photographs(read["train"]), _photographs(read["val"]), _asked(read["val"]))
    begun = options.cycles or options.out / "cycles"
    if options.cycles is None:
        _run_cycles(options, images, begun)
    torch.manual_seed(options.seed + 1)
    net, recipe = _what_cycles_gave(begun)
    found = refine(net, images.train, images.asked, REFINEMENT, options.seed, report)
    model, plain, scale = _model(found.net, images)
    # Values are smaller now, but not of all photographs: so ranges are no narrower than they were.
    model = wider(model, lesion_model(begun / WEIGHTS.name))
    write(model, options.out / WEIGHTS.name)
    refinement = asdict(REFINEMENT) | {"best_epoch": found.epoch, "val_losses": found.losses, "seed": options.seed}
    recipe |= {"began_with": _digest(begun / WEIGHTS.name), "refinement": refinement, "temperature": scale}
    clients = {"val": images.asked, "test": _asked(load_photographs(options.data, "test"))}
    metrics = measure(rewritten(plain, model), model, images.train.labels, clients)
    metrics |= {"recipe": recipe, "weights_sha256": _digest(options.out / WEIGHTS.name)}
    record(options.out, metrics, model_card)
    for split in ("val", "test"):
        score = metrics[split]["4"]
        report(f"{split}: accuracy {score['accuracy']:.4f}, balanced accuracy {score['balanced_accuracy']:.4f}")


def _run_cycles(options: argparse.Namespace, images: Images, out: Path) -> None:
    """Into ``out``: the best of what the cycles give and the mean of their weights, and what has made it."""
    make_folder(out)
    net = pretrained(options.imagenet)
    tuned: list[Tuned] = []
    for number, cycle in enumerate(CYCLES):
        folder = options.out / f"cycle-{number + 1}"
        folder.mkdir(exist_ok=True)
        # Each goes on with a copy of what the one before has given.
        start = copy.deepcopy(tuned[-1].net if tuned else net)
        tuned.append(fine_tune(start, images.train, images.val, cycle, options.seed + number, folder, report))
    nets = {f"cycle {number}": each.net for number, each in enumerate(tuned, 1)}
    nets["their mean"] = averaged(list(nets.values()), images.train, options.seed + len(CYCLES))
    turned = {name: answers(each, images.asked.inputs).mean(0) for name, each in nets.items()}
    losses = {name: fitted(logits, images.asked.labels).loss for name, logits in turned.items()}
    report(f"cross-entropy on val: {losses}")
    # Balanced accuracy hangs on single images of the rare classes, and is another by hundredths with one of them.
    kept = min(losses, key=lambda name: losses[name])
    write(_model(nets[kept], images)[0], out / WEIGHTS.name)
    cycles = [asdict(cycle) | {"best_epoch": t.epoch} for cycle, t in zip(CYCLES, tuned, strict=True)]
    recipe = {"cycles": cycles, "val_losses": losses, "kept": kept, "seed": options.seed}
    write_metrics(out, {"recipe": recipe})


def _what_cycles_gave(folder: Path) -> tuple[nn.Sequential, dict[str, Any]]:
    """``folded`` network and recipe.  Raises ConfigurationError for a folder that has none."""
    try:
        recipe = json.loads((folder / METRICS).read_text(encoding="utf-8"))["recipe"]
        return rewritten(folded(network()), lesion_model(folder / WEIGHTS.name)).float(), dict(recipe)
    except (OSError, ValueError, LookupError, TypeError, RuntimeError) as error:
        raise ConfigurationError(f"{folder} must hold {WEIGHTS.name} and {METRICS} of training before") from error


def _model(net: nn.Sequential, images: Images) -> tuple[Model, nn.Sequential, float]:
    """What is written of a network, what it was made of, and by what its logits were divided."""
    plain, scale = calibrated(net, images.asked)
    far = torch.unique(walked(plain, images.asked.inputs)[1].argmax(0))
    some = images.train.images[:: max(1, len(images.train.images) // SHOWN)]
    return imported(plain, torch.cat([some, images.val.images[far]])), plain, scale


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def averaged(nets: Sequence[nn.Sequential], train: Photographs, seed: int) -> nn.Sequential:
    """The mean of their weights, which began as the same ones, with statistics of batches made anew.

    M. Wortsman et al., Model soups (ICML 2022); P. Izmailov et al., Averaging weights leads to wider optima and better
    generalization (UAI 2018).
    """
    states = [net.state_dict() for net in nets]
    mean = copy.deepcopy(nets[0])
    mean.load_state_dict({name: sum(state[name] for state in states) / len(states) for name in states[0]})
    norms = [layer for layer in mean.train().modules() if isinstance(layer, nn.BatchNorm2d)]
    freeze(mean, CYCLES[-1].frozen_blocks)
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        if norm.training:
            norm.reset_running_stats()
            norm.momentum = None  # the mean over all batches
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randperm(len(train.labels), generator=generator)[:SEEN]
    with torch.no_grad():
        for some in torch.split(chosen, CYCLES[-1].batch):
            mean(network_input(random_views(train.images[some].float().div_(255), generator)))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    return mean.eval()


def calibrated(net: nn.Sequential, val: Asked) -> tuple[nn.Sequential, float]:
    """``folded(net)``, logits divided by what makes their softmax right most on validation images; and by what."""
    scale = fitted(answers(net, val.inputs, 1)[0], val.labels).temperature
    last = cast(nn.Linear, net.classes)
    with torch.no_grad():
        last.weight.div_(scale)
        last.bias.div_(scale)
    return folded(net), scale


def _photographs(split: Split) -> Photographs:
    return Photographs(torch.from_numpy(balanced(split.images)), torch.from_numpy(split.labels))


def _asked(split: Split) -> Asked:
    return Asked(torch.from_numpy(asked(split.images)), torch.from_numpy(split.labels))


if __name__ == "__main__":
    sys.exit(main())
