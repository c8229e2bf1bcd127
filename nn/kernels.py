"""Kernels of support vector machines: how near a row is to each of some secret vectors."""

from __future__ import annotations

from typing import Final

import numpy as np

from mpc.errors import ShapeError
from mpc.tensor_type import Shape
from nn.layer import Array, Arrays, Layer, Secrets, WeightArray, check_size, check_weights
from protocols.trace.secret_tensor import SecretTensor

ABOVE: Final = 2.0**-6
"""How far above 0 rounding may take what is never above."""


class RBF(Layer, frozen=True):
    """exp(-gamma ||x - v||^2) for each row v of ``weight`` (vectors, features): both secret, as is ``gamma`` (1,)."""

    features: int
    vectors: int

    def __post_init__(self) -> None:
        check_size("features", self.features)
        check_size("vectors", self.vectors)
        check_weights((self.vectors, self.features))

    @property
    def parameters(self) -> dict[str, Shape]:
        return {"weight": (self.vectors, self.features), "gamma": (1,)}

    def tensors(self, weights: Arrays) -> dict[str, WeightArray]:
        vectors, gamma = weights["weight"], weights["gamma"]
        return {
            "weight": WeightArray(2.0 * gamma * vectors.T, contracted=(0,)),
            "bias": WeightArray(-gamma * np.square(vectors).sum(axis=1)),
            "scale": WeightArray(-gamma),
        }

    def forward(self, *inputs: SecretTensor, weights: Secrets) -> SecretTensor:
        (x,) = inputs
        self._check(x)
        own = x.square().sum(-1, keepdims=True) * weights["scale"]
        near = x @ weights["weight"] + weights["bias"] + own
        return near.within(min(near.type.low, -1.0), ABOVE).exp().within(0.0, 1.0 + 2 * ABOVE)

    def plain(self, *inputs: Array, weights: Arrays, exact: bool = False) -> Array:
        (x,) = inputs
        self._check(x)
        apart = x[:, None, :] - weights["weight"]
        return np.asarray(np.exp(-weights["gamma"] * np.square(apart).sum(axis=-1)))

    def _check(self, x: SecretTensor | Array) -> None:
        if x.ndim != 2 or x.shape[1] != self.features:
            raise ShapeError(f"RBF takes (N, {self.features}), not a tensor of shape {x.shape}")
