"""What the lesion network's model card reports (torch)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from nn.derm.dataset import CLASSES
from nn.derm.evaluation import scores
from nn.derm.lesion.fit import Photographs, answers
from nn.derm.lesion.importing import inputs
from nn.derm.lesion.model import photographs
from nn.derm.lesion.photographs import INPUT
from nn.derm.metrics import calibration_error
from nn.model import Model
from nn.rectifiers import Assumed

CHUNK = 32


def temperature(logits: torch.Tensor, labels: torch.Tensor) -> float:
    """What logits (N, 7) are divided by so that their softmax is right most: the least cross-entropy, classes alike."""
    values, truth = logits.double().numpy(), labels.numpy()
    weights = 1.0 / np.bincount(truth)[truth]

    def loss(scale: float) -> float:
        chosen = CLASSES.probabilities(values / scale)[np.arange(len(truth)), truth]
        return float(-(weights * np.log(np.maximum(chosen, 1e-300))).sum())

    candidates = np.exp(np.linspace(math.log(0.25), math.log(4), 401))
    return float(candidates[int(np.argmin([loss(each) for each in candidates]))])


def measure(net: nn.Sequential, model: Model, splits: Mapping[str, Photographs]) -> dict[str, Any]:
    """``net`` is ``folded``, and ``model`` made of it; ``splits``: train, val and test."""
    train = splits["train"].labels
    log_prior = torch.log(torch.bincount(train, minlength=len(CLASSES.labels)).clamp(min=1) / len(train))
    found: dict[str, Any] = {
        "images": {name: len(split.labels) for name, split in splits.items()},
        "parameters": sum(array.size for array in model.weights.values()),
        "calibration": {},
    }
    for name in ("val", "test"):
        labels = splits[name].labels.numpy()
        turns = answers(net, splits[name].images)
        averaged = turns.mean(0)
        found[name] = {
            "1": scores(turns[0], labels), "4": scores(averaged, labels), "prior": scores(averaged + log_prior, labels),
        }  # fmt: skip
        found["calibration"][name] = _calibration(CLASSES.probabilities(turns[0].double().numpy()), labels)
    shown = photographs()
    x = torch.from_numpy(np.stack([INPUT.load(sample.path) for sample in shown]).astype(np.float32))
    with torch.no_grad():
        logits = net(x).tolist()
    found["samples"] = {
        "ids": [sample.id for sample in shown],
        "logits": [[round(value, 6) for value in row] for row in logits],
    }
    return found | ranges(model, {name: splits[name] for name in ("val", "test")})


def _calibration(probabilities: NDArray[np.float64], labels: NDArray[np.int64]) -> dict[str, float]:
    return {
        "alike": round(calibration_error(probabilities, labels, alike=True), 4),
        "mixed": round(calibration_error(probabilities, labels, alike=False), 4),
        "sure": round(float(probabilities.max(1).mean()), 4),
    }


def ranges(model: Model, splits: Mapping[str, Photographs]) -> dict[str, Any]:
    """What is assumed, and how far images go in float64: by step, and how many leave a range."""
    steps = model.architecture.steps
    assumed = {
        number: step.layer.interval[1] for number, step in enumerate(steps, 1) if isinstance(step.layer, Assumed)
    }
    tops = {split: dict.fromkeys(assumed, 0.0) for split in splits}
    out = dict.fromkeys(splits, 0)
    for split, taken in splits.items():
        for some in torch.split(taken.images, CHUNK):
            values = model.values(inputs(some))
            outside = np.zeros(len(some), bool)
            for number, end in assumed.items():
                most = np.abs(values[number]).reshape(len(some), -1).max(1)
                outside |= most >= end
                tops[split][number] = max(tops[split][number], float(most.max()))
            out[split] += int(outside.sum())
    rows = {
        steps[number - 2].name: {"assumed": end, **{split: round(tops[split][number], 4) for split in splits}}
        for number, end in assumed.items()
    }
    return {"ranges": rows, "out_of_range": out}
