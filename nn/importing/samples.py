"""Example inputs, in whatever they come: an array, a tensor, or batches one after the other."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from mpc.errors import EncodingError, ShapeError
from nn.layer import Array

MOST_SAMPLES = 1024
"""That are looked at: no more batches are asked for then."""

Samples = npt.ArrayLike | Iterable[object]
"""An array or a tensor (N, ...), or an iterable of such, or of pairs that begin with one (a DataLoader)."""

SPREAD = 0.02
"""Of the samples' range, or, of rows, of each column's: how far perturbed copies are from them."""


def read_samples(samples: Samples) -> Array:
    """All of them, (N, ...), float64, N at most ``MOST_SAMPLES``; a copy.  Raises ShapeError or EncodingError."""
    if _is_array(samples) or not isinstance(samples, Iterable):
        return _array(samples)[:MOST_SAMPLES]
    batches: list[Array] = []
    for given in samples:
        batches.append(_array(given[0] if isinstance(given, tuple | list) and _is_array(given[0]) else given))
        if batches[-1].shape[1:] != batches[0].shape[1:]:
            raise ShapeError(f"samples of shapes {batches[0].shape} and {batches[-1].shape} are not of one network")
        if sum(map(len, batches)) >= MOST_SAMPLES:
            break
    if not batches:
        raise ShapeError("there are no samples: give a batch of inputs, (N, ...), or several")
    return np.concatenate(batches)[:MOST_SAMPLES]


def perturbed(samples: Array) -> Array:
    """Copies in the opposite order, each number moved by up to ``SPREAD`` of its range and kept within the samples'.

    Its range is its column's, of rows (N, columns), since their units differ, unless the column is constant.
    """
    low, high = float(samples.min()), float(samples.max())
    noise = np.random.default_rng(0).uniform(-1.0, 1.0, samples.shape)
    if low == high:
        return samples + SPREAD * max(abs(low), 1.0) * noise
    width = np.ptp(samples, axis=0) if samples.ndim == 2 else np.zeros(())
    width = np.where(width > 0, width, high - low)
    moved: Array = np.clip(samples[::-1] + SPREAD * width * noise, low, high)
    return moved


def _is_array(value: object) -> bool:
    """A tensor has this too; a list of numbers is one array."""
    if isinstance(value, list | tuple):
        return bool(value) and (np.isscalar(value[0]) or (isinstance(value[0], list | tuple) and _is_array(value[0])))
    return hasattr(value, "__array__")


def _array(given: Any) -> Array:
    detach = getattr(given, "detach", None)
    values = np.asarray(given if detach is None else detach().cpu().double())
    if values.dtype.kind not in "biuf":
        raise EncodingError(f"samples must hold real numbers, not {values.dtype}")
    if values.ndim < 1 or not values.size:
        raise ShapeError(f"samples are a batch of inputs, (N, ...), not of shape {values.shape}")
    reals = np.array(values, np.float64)
    if not np.isfinite(reals).all():
        raise EncodingError("samples hold values that are not finite")
    return reals
