"""Train the lesion network: ``python -m nn.derm.lesion.train --data ham10000_128_jpeg.npz --out DIR``.

Writes ``lesion.safetensors``, ``metrics.json`` and ``MODEL_CARD.md`` into ``DIR``, and after each epoch what it takes
to go on there.  The defaults are what made the weights that ship.  Needs torch and weights from ImageNet
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
from typing import cast

from mpc.errors import UsageError
from nn.derm.dataset import Split
from nn.derm.lesion.photographs import balanced, load_photographs
from nn.derm.training import make_folder, report, run

try:
    import torch
    from torch import nn
except ImportError:  # pragma: no cover - the tests need torch
    sys.exit("training needs PyTorch: install tessera-mpc[train]")

from nn.derm.lesion.card import model_card
from nn.derm.lesion.fit import CYCLES, Photographs, Tuned, answers, fine_tune, score
from nn.derm.lesion.importing import imported, write
from nn.derm.lesion.measure import measure, temperature
from nn.derm.lesion.network import folded, pretrained

SHOWN = 128
"""Training images that ranges are assumed from."""


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    return run(_train, _parser().parse_args(arguments))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m nn.derm.lesion.train", description="Train the lesion network.")
    parser.add_argument("--data", type=Path, required=True, help="the .npz of 128x128 photographs")
    parser.add_argument("--out", type=Path, required=True, help="folder for weights, metrics and model card")
    parser.add_argument("--imagenet", type=Path, metavar="PTH", help="weights to start from (default: the package's)")
    parser.add_argument("--seed", type=int, default=1, help="seed of everything random (default: %(default)s)")
    return parser


def _train(options: argparse.Namespace) -> None:
    if options.seed < 0:
        raise UsageError("the seed must be at least 0")
    torch.set_num_threads(1)  # sums in another order give other weights
    make_folder(options.out)
    train, val = (_photographs(load_photographs(options.data, split)) for split in ("train", "val"))
    net = pretrained(options.imagenet)
    tuned: list[Tuned] = []
    for number, recipe in enumerate(CYCLES):
        folder = options.out / f"cycle-{number + 1}"
        folder.mkdir(exist_ok=True)
        # Each goes on with a copy of what the one before has given.
        start = copy.deepcopy(tuned[-1].net if tuned else net)
        tuned.append(fine_tune(start, train, val, recipe, options.seed + number, folder, report))
    mean = averaged([each.net for each in tuned])
    scores = {**{f"cycle {n}": each.score for n, each in enumerate(tuned, 1)}, "their mean": score(mean, val)}
    report(f"balanced accuracy on val: {scores}")
    kept = max(scores, key=lambda name: scores[name])
    plain, scale = calibrated(dict(zip(scores, [*(each.net for each in tuned), mean], strict=True))[kept], val)
    model = imported(plain, train.images[:: max(1, len(train.images) // SHOWN)])
    write(model, options.out / "lesion.safetensors")
    test = _photographs(load_photographs(options.data, "test"))
    recorded = {
        "cycles": [asdict(cycle) | {"best_epoch": t.epoch} for cycle, t in zip(CYCLES, tuned, strict=True)],
        "val_scores": scores, "kept": kept, "seed": options.seed, "temperature": scale,
    }  # fmt: skip
    metrics = measure(plain, model, {"train": train, "val": val, "test": test}) | {"recipe": recorded}
    digest = hashlib.sha256((options.out / "lesion.safetensors").read_bytes()).hexdigest()
    (options.out / "metrics.json").write_text(json.dumps(metrics | {"weights_sha256": digest}, indent=1) + "\n")
    (options.out / "MODEL_CARD.md").write_text(model_card(metrics), encoding="utf-8")
    for split in ("val", "test"):
        found = metrics[split]["4"]
        report(f"{split}: accuracy {found['accuracy']:.4f}, balanced accuracy {found['balanced_accuracy']:.4f}")


def averaged(nets: Sequence[nn.Sequential]) -> nn.Sequential:
    """The mean of their weights, which began as the same ones."""
    states = [net.state_dict() for net in nets]
    mean = copy.deepcopy(nets[0])
    mean.load_state_dict({name: sum(state[name] for state in states) / len(states) for name in states[0]})
    return mean


def calibrated(net: nn.Sequential, val: Photographs) -> tuple[nn.Sequential, float]:
    """``folded(net)``, logits divided by what makes their softmax right most on validation images; and by what."""
    scale = temperature(answers(net, val.images, 1)[0], val.labels)
    last = cast(nn.Linear, net.classes)
    with torch.no_grad():
        last.weight.div_(scale)
        last.bias.div_(scale)
    return folded(net), scale


def _photographs(split: Split) -> Photographs:
    return Photographs(torch.from_numpy(balanced(split.images)), torch.from_numpy(split.labels))


if __name__ == "__main__":
    sys.exit(main())
