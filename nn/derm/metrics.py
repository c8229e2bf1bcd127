"""Scores of a classifier from integer labels; NumPy only."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def confusion_matrix(truth: NDArray[Any], predicted: NDArray[Any], classes: int) -> NDArray[np.int64]:
    """Counts as ``(classes, classes)``: the row is the true class, the column the predicted one."""
    cells = truth.astype(np.int64) * classes + predicted.astype(np.int64)
    return np.bincount(cells, minlength=classes * classes).reshape(classes, classes)


def recall(confusion: NDArray[np.int64]) -> NDArray[np.float64]:
    """Per class, the fraction of its images that were recognised; 0 for a class without images."""
    present = confusion.sum(axis=1)
    found: NDArray[np.float64] = np.diag(confusion) / np.maximum(present, 1)
    return found


def accuracy(confusion: NDArray[np.int64]) -> float:
    """The fraction of all images that were recognised."""
    return float(np.trace(confusion) / confusion.sum())


def balanced_accuracy(confusion: NDArray[np.int64]) -> float:
    """The mean of :func:`recall` over the classes that occur."""
    return float(recall(confusion)[confusion.sum(axis=1) > 0].mean())


def calibration_error(probabilities: NDArray[Any], truth: NDArray[Any], *, alike: bool, bins: int = 15) -> float:
    """By how much the probability of the likeliest class ``(N, classes)`` is off how often it is right, on average.

    Over ``bins`` of that probability (the expected calibration error); ``alike``: as if classes were equally common.
    """
    sure = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == truth
    weights = 1.0 / np.bincount(truth)[truth] if alike else np.ones(len(truth))
    places = np.minimum((sure * bins).astype(int), bins - 1)
    off = np.bincount(places, weights * (right - sure), bins)
    return float(np.abs(off).sum() / weights.sum())
