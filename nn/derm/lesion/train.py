"""Train the lesion network: ``python -m nn.derm.lesion.train --data ham10000_128_jpeg.npz --out DIR``.

Writes ``lesion.safetensors``, ``metrics.json`` and ``MODEL_CARD.md`` into ``DIR``, and after each epoch what it takes
to go on there.  The defaults are what made the weights that ship.  Needs torch and weights from ImageNet
(``tessera-mpc[train]``).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import cast

from mpc.errors import ConfigurationError, TesseraError, UsageError
from nn.derm.dataset import Split
from nn.derm.lesion.photographs import balanced, load_photographs

try:
    import torch
    from torch import nn
except ImportError:  # pragma: no cover - the tests need torch
    sys.exit("training needs PyTorch: install tessera-mpc[train]")

from nn.derm.lesion.card import model_card
from nn.derm.lesion.fit import Photographs, Recipe, answers, fine_tune
from nn.derm.lesion.importing import imported, write
from nn.derm.lesion.measure import measure, temperature
from nn.derm.lesion.network import folded, pretrained

SHOWN = 512
"""Training images that ranges are assumed from."""


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    options = _parser().parse_args(arguments)
    try:
        _train(options)
    except TesseraError as error:
        print(f"train: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m nn.derm.lesion.train", description="Train the lesion network.")
    parser.add_argument("--data", type=Path, required=True, help="the .npz of 128x128 photographs")
    parser.add_argument("--out", type=Path, required=True, help="folder for weights, metrics and model card")
    parser.add_argument("--imagenet", type=Path, metavar="PTH", help="weights to start from (default: the package's)")
    parser.add_argument("--seed", type=int, default=1, help="seed of everything random (default: %(default)s)")
    parser.add_argument("--epochs", type=int, default=Recipe.epochs, help="epochs (default: %(default)s)")
    return parser


def _train(options: argparse.Namespace) -> None:
    if options.epochs < 1 or options.seed < 0:
        raise UsageError("epochs must be at least 1, and the seed at least 0")
    torch.set_num_threads(1)  # sums in another order give other weights
    try:
        options.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(f"cannot write to {options.out}: name a folder of your own") from error
    started = time.perf_counter()
    train, val = (_photographs(load_photographs(options.data, split)) for split in ("train", "val"))
    net = pretrained(options.imagenet)
    recipe = Recipe(epochs=options.epochs)
    net, best = fine_tune(net, train, val, recipe, options.seed, options.out, _report)
    minutes = (time.perf_counter() - started) / 60
    plain, scale = calibrated(net, val)
    model = imported(plain, train.images[:: max(1, len(train.images) // SHOWN)])
    write(model, options.out / "lesion.safetensors")
    test = _photographs(load_photographs(options.data, "test"))
    recorded = {**asdict(recipe), "seed": options.seed, "best_epoch": best, "temperature": scale, "minutes": minutes}
    metrics = measure(plain, model, {"train": train, "val": val, "test": test}) | {"recipe": recorded}
    digest = hashlib.sha256((options.out / "lesion.safetensors").read_bytes()).hexdigest()
    (options.out / "metrics.json").write_text(json.dumps(metrics | {"weights_sha256": digest}, indent=1) + "\n")
    (options.out / "MODEL_CARD.md").write_text(model_card(metrics), encoding="utf-8")
    for split in ("val", "test"):
        found = metrics[split]["4"]
        _report(f"{split}: accuracy {found['accuracy']:.4f}, balanced accuracy {found['balanced_accuracy']:.4f}")


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


def _report(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
