"""Train the dermatology CNN: ``python -m nn.derm.train --data ham10000_28.npz --out DIR``.

Writes ``derm.safetensors``, ``metrics.json`` and ``MODEL_CARD.md`` into ``DIR``.  The defaults are what made
the weights that ship; the same seed on the same machine and torch gives the same weights.  Needs torch
(``tessera-mpc[torch]``).
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np

from mpc.errors import UsageError
from nn.derm.card import model_card
from nn.derm.dataset import Split, load_split, samples
from nn.derm.preprocess import load_image, normalise
from nn.derm.training import make_folder, record, report, run

try:
    import torch
    from safetensors.torch import save_file
    from torch import nn
except ImportError:  # pragma: no cover - the tests need torch
    sys.exit("training needs PyTorch: install tessera-mpc[torch]")

from nn.derm import evaluation, fit
from nn.derm.augment import strange_images
from nn.derm.torch_model import network
from nn.importing.torch_activation import FourierActivation

TEACHER_WIDTH = 24


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    return run(_train, _parser().parse_args(arguments))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m nn.derm.train", description="Train the dermatology CNN.")
    parser.add_argument("--data", type=Path, required=True, help="the .npz of 28x28 lesion images")
    parser.add_argument("--out", type=Path, required=True, help="folder for weights, metrics and model card")
    parser.add_argument("--seed", type=int, default=1, help="seed of everything random (default: %(default)s)")
    parser.add_argument("--epochs", type=int, default=60, help="epochs of the network (default: %(default)s)")
    parser.add_argument("--finetune-epochs", type=int, default=8, help="epochs once folded (default: %(default)s)")
    parser.add_argument("--teachers", type=int, default=2, help="teachers to average (default: %(default)s)")
    parser.add_argument("--teacher-epochs", type=int, default=25, help="epochs of each teacher (default: %(default)s)")
    parser.add_argument("--views", type=int, default=20, help="views drawn of each image (default: %(default)s)")
    return parser


def _train(options: argparse.Namespace) -> None:
    counts = ("epochs", "finetune_epochs", "teachers", "teacher_epochs", "views")
    if min(getattr(options, name) for name in counts) < 1 or options.seed < 0:
        raise UsageError("epochs, teachers and views must be at least 1, and the seed at least 0")
    torch.set_num_threads(1)  # sums in another order give other weights
    started = time.perf_counter()
    splits = {name: load_split(options.data, name) for name in ("train", "val", "test")}
    make_folder(options.out)

    train = splits["train"]
    images = torch.from_numpy(train.images).movedim(-1, 1).float().div_(255).contiguous()
    labels = torch.from_numpy(train.labels)
    log_prior = fit.prior_of(labels)

    teachers = [
        fit.train_teacher(
            images, labels, log_prior, options.teacher_epochs, TEACHER_WIDTH, options.seed + number, report
        )
        for number in range(options.teachers)
    ]
    val = splits["val"]
    opinion = torch.stack([fit.logits(model, _inputs(val)) for model in teachers]).mean(0)
    teacher_scores = evaluation.scores(opinion + 0.2 * log_prior, val.labels)
    report(f"teachers on val: {_brief(teacher_scores)}")
    pool = fit.draw_pool(teachers, images, options.views, options.seed, report)
    loss_of = fit.Distillation(labels, log_prior)
    model = fit.train_network(pool, loss_of, options.epochs, options.seed, report)
    model = fit.finetune(model, pool, loss_of, options.finetune_epochs, options.seed, report)
    adjustment = _adjust(model, splits["val"], log_prior)

    recipe = {name: getattr(options, name) for name in (*counts, "seed")} | {
        "width": TEACHER_WIDTH,
        "label_weight": loss_of.label_weight,
        "temperature": loss_of.temperature,
        "soft_limit": fit.SOFT_LIMIT,
        "adjustment": adjustment,
        "accuracy_floor": evaluation.ACCURACY_FLOOR,
        "minutes": (time.perf_counter() - started) / 60,
    }
    weights = {name: value.detach().contiguous() for name, value in model.state_dict().items()}
    save_file(weights, options.out / "derm.safetensors")
    digest = hashlib.sha256((options.out / "derm.safetensors").read_bytes()).hexdigest()
    metrics = measure(model, splits) | {"recipe": recipe, "weights_sha256": digest}
    record(options.out, metrics, model_card)
    report(f"val: {_brief(metrics['val'])}; test: {_brief(metrics['test'])}; see {options.out}")


def _inputs(split: Split) -> torch.Tensor:
    return torch.from_numpy(normalise(split.images).astype(np.float32))


def _adjust(model: nn.Sequential, val: Split, log_prior: torch.Tensor) -> float:
    """Fold the logit adjustment chosen on validation images into the last bias, and say how large it is."""
    multiple = evaluation.choose_adjustment(model, _inputs(val), val.labels, log_prior)
    with torch.no_grad():
        cast(nn.Linear, dict(model.named_children())["fc2"]).bias.add_(multiple * evaluation.lean(log_prior))
    return multiple


def measure(model: nn.Sequential, splits: dict[str, Split]) -> dict[str, Any]:
    """What the model card reports about a folded network, by the sine series and by the exact sigmoid."""
    exact = network(nn.Sigmoid)
    exact.load_state_dict(model.state_dict())
    inputs = {name: _inputs(split) for name, split in splits.items()}
    answers = {name: fit.logits(model, inputs[name]) for name in ("val", "test")}
    exactly = fit.logits(exact, inputs["test"])
    series = FourierActivation()
    grid = torch.linspace(series.low, series.high, 20001)
    shipped = samples()
    shown = torch.from_numpy(np.stack([load_image(sample.path) for sample in shipped]).astype(np.float32))
    extreme = {"extreme": strange_images(torch.Generator().manual_seed(2))}
    return {
        "images": {name: len(split.images) for name, split in splits.items()},
        "val": evaluation.scores(answers["val"], splits["val"].labels),
        "test": evaluation.scores(answers["test"], splits["test"].labels),
        "test_exact_sigmoid": evaluation.scores(exactly, splits["test"].labels)
        | evaluation.compare(answers["test"], exactly),
        "pre_activations": {n: evaluation.pre_activations(model, x) for n, x in (inputs | extreme).items()},
        "weights": evaluation.weight_sizes(model),
        "samples": {
            "ids": [sample.id for sample in shipped],
            "logits": [[round(value, 6) for value in row] for row in fit.logits(model, shown).tolist()],
        },
        "activation": {
            "terms": len(series.sines),
            "period": series.period,
            "low": series.low,
            "high": series.high,
            "error": float((series(grid) - torch.sigmoid(grid)).abs().max()),
        },
    }


def _brief(result: dict[str, Any]) -> str:
    return f"accuracy {result['accuracy']:.4f}, balanced accuracy {result['balanced_accuracy']:.4f}"


if __name__ == "__main__":
    sys.exit(main())
