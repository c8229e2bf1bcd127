"""Columns of a table brought to one size, by ranges that are public."""

from __future__ import annotations

import numpy as np

from mpc.errors import ShapeError, UnsupportedError
from nn.layer import Array, Arrays, Layer, Secrets, check_finite, check_size
from protocols.trace.secret_tensor import SecretTensor

MOST_EXPONENT = 40


class Columns(Layer, frozen=True):
    """(N, columns), each over 2^exponent, of which no magnitude of its values is above, as the model's table says.

    Results are declared to lie in [-1, 1], which keeps what follows in range; local.
    """

    exponents: tuple[int, ...]

    def __post_init__(self) -> None:
        check_size("the number of columns", len(self.exponents))
        check_finite("exponents", *self.exponents)
        if any(abs(e) > MOST_EXPONENT for e in self.exponents):
            raise UnsupportedError(f"exponents of columns are from -{MOST_EXPONENT} to {MOST_EXPONENT}")

    def forward(self, *inputs: SecretTensor, weights: Secrets) -> SecretTensor:
        self._check(inputs[0])
        return (inputs[0] * self._scale).within(-1.0, 1.0)

    def plain(self, *inputs: Array, weights: Arrays, exact: bool = False) -> Array:
        self._check(inputs[0])
        return np.asarray(inputs[0] * self._scale)

    @property
    def _scale(self) -> Array:
        return np.asarray(np.exp2(-np.array(self.exponents, float)))

    def _check(self, x: SecretTensor | Array) -> None:
        if x.ndim != 2 or x.shape[1] != len(self.exponents):
            raise ShapeError(f"Columns take (N, {len(self.exponents)}), not a tensor of shape {x.shape}")
