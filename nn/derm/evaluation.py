"""What the model card reports: scores, agreement, and the ranges of pre-activations and weights (torch)."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from nn.derm.augment import dihedral_views
from nn.derm.dataset import CLASS_CODES
from nn.derm.fit import logits, watch_activations
from nn.derm.metrics import accuracy, balanced_accuracy, confusion_matrix, recall

ACCURACY_FLOOR = 0.75
"""What the network must reach on validation images before balance counts; the model card says where it is from."""


def scores(answers: torch.Tensor, labels: NDArray[np.int64]) -> dict[str, Any]:
    """Accuracy, balanced accuracy, recall per class and the confusion matrix of logits ``(N, 7)``."""
    confusion = confusion_matrix(labels, answers.argmax(1).numpy(), len(CLASS_CODES))
    return {
        "accuracy": round(accuracy(confusion), 6),
        "balanced_accuracy": round(balanced_accuracy(confusion), 6),
        "recall": [round(float(value), 6) for value in recall(confusion)],
        "confusion_matrix": confusion.tolist(),
    }


def lean(log_prior: torch.Tensor) -> torch.Tensor:
    """The direction in which the last bias is adjusted: towards the commonest class alone.

    The whole log prior would take most from the rarest classes, which cost the least accuracy.
    """
    direction = torch.zeros_like(log_prior)
    direction[log_prior.argmax()] = 1.0
    return direction


def choose_adjustment(
    model: nn.Module, images: torch.Tensor, labels: NDArray[np.int64], log_prior: torch.Tensor
) -> float:
    """How far to ``lean``: the best balance above the accuracy floor.

    Measured on the images in eight orientations and smoothed over neighbouring multiples, since the rare
    classes have few images.  If no multiple reaches the floor, the most accurate one is taken.
    """
    answers = torch.cat([logits(model, view) for view in dihedral_views(images)])
    truth = np.tile(labels, 8)
    multiples = np.arange(-0.5, 3.01, 0.05)
    results = [scores(answers + float(multiple) * lean(log_prior), truth) for multiple in multiples]
    right, balanced = (_smooth([result[key] for result in results]) for key in ("accuracy", "balanced_accuracy"))
    enough = right >= min(ACCURACY_FLOOR, right.max())
    return round(float(multiples[int(np.argmax(np.where(enough, balanced, -1.0)))]), 2)


def _smooth(values: list[float]) -> NDArray[np.float64]:
    return np.convolve(np.pad(values, 2, mode="edge"), np.full(5, 0.2), mode="valid")


def pre_activations(model: nn.Sequential, images: torch.Tensor) -> dict[str, list[float]]:
    """Per activation layer, the smallest and largest input over all images."""
    inputs = watch_activations(model)
    found: dict[str, list[float]] = {}
    for part in torch.split(images, 512):
        logits(model, part)
        for name, values in inputs.items():
            low, high = found.get(name, [float("inf"), float("-inf")])
            found[name] = [min(low, float(values.min())), max(high, float(values.max()))]
    return {name: [round(value, 4) for value in bounds] for name, bounds in found.items()}


def weight_sizes(model: nn.Sequential) -> dict[str, dict[str, float]]:
    """Per layer: the largest |weight|, the largest L1 norm of an output's weights, the largest |bias|."""
    sizes = {}
    for name, layer in model.named_children():
        if name.startswith(("conv", "fc")):
            weight, bias = cast(nn.Linear, layer).weight.detach(), cast(nn.Linear, layer).bias.detach()
            sizes[name] = {
                "largest": round(float(weight.abs().max()), 4),
                "largest_l1": round(float(weight.flatten(1).abs().sum(1).max()), 4),
                "largest_bias": round(float(bias.abs().max()), 4),
                "bound": round(float((weight.flatten(1).abs().sum(1) + bias.abs()).max()), 4),
            }
    return sizes


def compare(one: torch.Tensor, other: torch.Tensor) -> dict[str, float | int]:
    """How many images two networks agree on, and the largest difference of a logit."""
    return {
        "agreement": int((one.argmax(1) == other.argmax(1)).sum()),
        "max_logit_difference": float((one - other).abs().max()),
    }
