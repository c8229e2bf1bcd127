"""Attention as a layer: softmax of q k^T times v, of which all three may be secret."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from mpc.errors import ShapeError, UnsupportedError
from mpc.tensor_type import Shape
from nn.functional import mixing
from nn.layer import Array, Arrays, Layer, Secrets, check_finite
from nn.softmax import check_reach
from protocols.trace.secret_tensor import SecretTensor


class ScaledDotProductAttention(Layer, frozen=True):
    """softmax(q k^T ``scale``) v of (N, ..., L, E), (N, ..., S, E) and (N, ..., S, V); ``scale`` None: 1 / sqrt(E).

    ``is_causal``: query i sees keys up to i alone, which is public.  ``reach`` as of a ``Softmax``, of what is seen.
    Costs the openings of q, k and v, and a softmax.
    """

    operands: ClassVar[int] = 3

    is_causal: bool = False
    scale: float | None = None
    reach: float | None = None

    def __post_init__(self) -> None:
        check_reach(self.reach)
        if self.scale is not None:
            check_finite("scale", self.scale)
            if self.scale <= 0:
                raise UnsupportedError("scale is above 0")

    def check_batch(self, shapes: Sequence[Shape], batched: Sequence[bool]) -> None:
        """Matrices of each image alone, or the same for all."""
        ndim = max(map(len, shapes))
        for shape, own in zip(shapes, batched, strict=True):
            if (len(shape) < max(ndim, 3)) if own else (len(shape) == ndim and shape[0] != 1):
                raise mixing(self, shapes)

    def _scores(self, q: Any, k: Any, *, relative: bool = False) -> tuple[Any, Array | None]:
        """Of queries with keys, less those with the first key if ``relative``, and which keys each query sees, None for
        all: the first one in any case.  Raises ShapeError."""
        if q.ndim < 2 or k.ndim < 2 or q.shape[-1] != k.shape[-1]:
            raise ShapeError(f"attention of queries of shape {q.shape} to keys of shape {k.shape}")
        k = k - k[..., :1, :] if relative else k
        scores = (q @ k.swapaxes(-1, -2)) * (1.0 / math.sqrt(q.shape[-1]) if self.scale is None else self.scale)
        # The product has refused what is too large.
        return scores, np.tri(q.shape[-2], k.shape[-2]) if self.is_causal else None

    def forward(self, *inputs: SecretTensor, weights: Secrets) -> SecretTensor:
        q, k, v = inputs
        near = self.reach is not None
        # What is less the same number everywhere has the same softmax.
        scores, seen = self._scores(q, k, relative=near)
        y: SecretTensor = scores.softmax(-1, where=seen, reach=self.reach, relative=near) @ v
        return y

    def plain(self, *inputs: Array, weights: Arrays, exact: bool = False) -> Array:
        q, k, v = inputs
        scores, seen = self._scores(q, k)
        if seen is not None:
            scores = np.where(seen > 0, scores, -np.inf)
        parts = np.exp(scores - scores.max(axis=-1, keepdims=True))
        return np.asarray((parts / parts.sum(axis=-1, keepdims=True)) @ v)

    def from_mean(self, *inputs: Array) -> float:
        """How far scores are from the mean of those that are seen at most."""
        scores, seen = self._scores(*inputs[:2])
        seen = np.ones(scores.shape[-2:]) if seen is None else seen
        mean = (scores * seen).sum(-1, keepdims=True) / seen.sum(-1, keepdims=True)
        return float(np.abs((scores - mean) * seen).max(initial=0.0))
