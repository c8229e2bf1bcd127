"""Support vector machines: how near a row is to each of some secret vectors, and votes of pairs of classes."""

from __future__ import annotations

import itertools
from typing import Final

import numpy as np

from mpc.errors import ShapeError, UnsupportedError
from mpc.tensor_type import Shape
from nn.layer import Array, Arrays, Layer, Secrets, WeightArray, check_size, check_weights
from protocols.trace.secret_tensor import SecretTensor

ABOVE: Final = 2.0**-6
"""How far above 0 rounding may take what is never above."""

MOST_CLASSES: Final = 128


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
        vectors = weights["weight"]
        apart = np.square(x).sum(axis=1, keepdims=True) - 2.0 * (x @ vectors.T) + np.square(vectors).sum(axis=1)
        return np.asarray(np.exp(-weights["gamma"] * np.maximum(apart, 0.0)))

    def _check(self, x: SecretTensor | Array) -> None:
        if x.ndim != 2 or x.shape[1] != self.features:
            raise ShapeError(f"RBF takes (N, {self.features}), not a tensor of shape {x.shape}")


class OneAgainstOne(Layer, frozen=True):
    """Of (N, pairs): votes of pairs of classes, in order, the first of which gets it where the number is at least 0;
    and a third of the softsign of what speaks for each class, which decides among equals, as in scikit-learn's ``SVC``.
    """

    classes: int

    def __post_init__(self) -> None:
        check_size("classes", self.classes, least=2)
        if self.classes > MOST_CLASSES:
            raise UnsupportedError(f"{self.classes} classes, each pair apart: at most {MOST_CLASSES}")

    @property
    def _signs(self) -> Array:
        """(pairs, classes): 1 for the first of each pair, -1 for the second."""
        pairs = list(itertools.combinations(range(self.classes), 2))
        signs = np.zeros((len(pairs), self.classes))
        for row, (first, second) in zip(signs, pairs, strict=True):
            row[first], row[second] = 1.0, -1.0
        return signs

    def forward(self, *inputs: SecretTensor, weights: Secrets) -> SecretTensor:
        (x,), signs = inputs, self._checked(inputs[0])
        votes: SecretTensor = (x >= 0) @ signs + (signs < 0).sum(axis=0)
        return votes + (x @ signs).softsign() * (1 / 3)

    def plain(self, *inputs: Array, weights: Arrays, exact: bool = False) -> Array:
        (x,), signs = inputs, self._checked(inputs[0])
        speaks = x @ signs
        return np.asarray((x >= 0) @ signs + (signs < 0).sum(axis=0) + speaks / (3 * (np.abs(speaks) + 1)))

    def _checked(self, x: SecretTensor | Array) -> Array:
        pairs = self.classes * (self.classes - 1) // 2
        if x.ndim != 2 or x.shape[1] != pairs:
            raise ShapeError(f"OneAgainstOne takes (N, {pairs}), not a tensor of shape {x.shape}")
        return self._signs
