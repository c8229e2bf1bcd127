"""What the lesion network's model card reports (torch)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from nn.derm.dataset import CLASSES
from nn.derm.evaluation import scores
from nn.derm.fit import prior_of
from nn.derm.lesion.fit import ROTATIONS, Asked
from nn.derm.lesion.model import shown
from nn.derm.lesion.photographs import INPUT
from nn.derm.metrics import calibration_error
from nn.model import Model
from nn.rectifiers import Assumed

CHUNK = 64
NEAR = 2 / 9
"""Of the way from 0 to an end: a ninth of a range (``protocols.lowering.intervals``)."""


class Fit(NamedTuple):
    """What logits are divided by so that their softmax is right most, and its cross-entropy then, classes alike."""

    temperature: float
    loss: float


def fitted(logits: torch.Tensor, labels: torch.Tensor) -> Fit:
    """Of logits (N, 7)."""
    values, truth = logits.double().numpy(), labels.numpy()
    weights = 1.0 / np.bincount(truth)[truth]
    weights /= weights.sum()

    def loss(scale: float) -> float:
        chosen = CLASSES.probabilities(values / scale)[np.arange(len(truth)), truth]
        return float(-(weights * np.log(np.maximum(chosen, 1e-300))).sum())

    candidates = np.exp(np.linspace(math.log(0.25), math.log(4), 401)).tolist()
    best = min(candidates, key=loss)
    return Fit(best, loss(best))


def measure(net: nn.Sequential, model: Model, train: torch.Tensor, splits: Mapping[str, Asked]) -> dict[str, Any]:
    """``net`` is ``folded``, and ``model`` made of it; ``train``: labels; ``splits``: val and test, as clients ask."""
    log_prior = prior_of(train)
    found: dict[str, Any] = {
        "images": {"train": len(train)} | {name: len(split.labels) for name, split in splits.items()},
        "parameters": sum(array.size for array in model.weights.values()),
        "calibration": {},
    }
    farthest = {}
    for name in ("val", "test"):
        labels = splits[name].labels.numpy()
        turns, farthest[name] = walked(net, splits[name].inputs)
        averaged = turns.mean(0)
        found[name] = {
            "1": scores(turns[0], labels), "4": scores(averaged, labels), "prior": scores(averaged + log_prior, labels),
        }  # fmt: skip
        found["calibration"][name] = _calibration(CLASSES.probabilities(turns[0].double().numpy()), labels)
    images = shown()
    x = torch.from_numpy(np.stack([INPUT.load(sample.path) for sample in images]).astype(np.float32))
    with torch.no_grad():
        logits = net(x).tolist()
    found["samples"] = {
        "ids": [sample.id for sample in images],
        "logits": [[round(value, 6) for value in row] for row in logits],
    }
    return found | ranges(model, farthest)


def _calibration(probabilities: NDArray[np.float64], labels: NDArray[np.int64]) -> dict[str, float]:
    return {
        "alike": round(calibration_error(probabilities, labels, alike=True), 4),
        "mixed": round(calibration_error(probabilities, labels, alike=False), 4),
        "sure": round(float(probabilities.max(1).mean()), 4),
    }


def ranges(model: Model, farthest: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    """What ``model`` assumes, and how far images go, by step; and how many images leave a range.

    ``farthest``: by split, as ``walked`` gives it.  As parties watch ranges, nearer to an end than `NEAR` is beyond it.
    """
    steps = model.architecture.steps
    places = {steps[step.inputs[0] - 1].name: step.layer for step in steps if isinstance(step.layer, Assumed)}
    ends = torch.tensor([layer.interval[1] for layer in places.values()])
    rows = {
        name: {
            "assumed": layer.interval[1],
            **{split: round(float(most[:, i].max()), 4) for split, most in farthest.items()},
        }
        for i, (name, layer) in enumerate(places.items())
    }
    return {
        "ranges": rows,
        "out_of_range": {k: int((v >= (1 - NEAR) * ends).any(1).sum()) for k, v in farthest.items()},
    }


def walked(net: nn.Sequential, inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits (4, N, 7) as ``fit.answers`` gives them; and the largest magnitude of what each block gives, and of the
    features, (N, 17), over the four turns.
    """
    logits, farthest = [], []
    stem, blocks, *between, last = net.children()
    with torch.no_grad():
        for part in torch.split(inputs, CHUNK):
            turns, tops = [], []
            for turn in range(ROTATIONS):
                x = stem(torch.rot90(part, turn, (2, 3)))
                reached = []
                for block in cast(nn.Sequential, blocks):
                    x = block(x)
                    reached.append(x.abs().flatten(1).amax(1))
                for layer in between:
                    x = layer(x)
                turns.append(last(x))
                tops.append(torch.stack([*reached, x.abs().amax(1)], 1))
            logits.append(torch.stack(turns))
            farthest.append(torch.stack(tops).amax(0))
    return torch.cat(logits, 1), torch.cat(farthest)
