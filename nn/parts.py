"""Parts of a tensor: what slicing, splitting and selecting at public places come to.  All local."""

from __future__ import annotations

import numpy as np

from mpc.errors import ShapeError, UnsupportedError
from mpc.tensor_type import MAX_DIMENSIONS
from nn.layer import Array, Arrays, Layer, Secrets, check_size
from protocols.trace.secret_tensor import SecretTensor


class Part(Layer, frozen=True):
    """``count`` of the elements of each dimension but the batch's, from ``start`` on, every ``step``-th:
    ``(start, step, count)`` for each, of as many dimensions as the tensor has; a step may be negative."""

    slices: tuple[tuple[int, int, int], ...]

    def __post_init__(self) -> None:
        if not 0 < len(self.slices) < MAX_DIMENSIONS:
            raise UnsupportedError(f"a part of a tensor of {len(self.slices) + 1} dimensions")
        for start, step, count in self.slices:
            check_size("a part's start", start, 0)
            check_size("a part's step", abs(step))
            check_size("a part's size", count)

    def _key(self, shape: tuple[int, ...]) -> tuple[slice, ...]:
        if len(shape) != len(self.slices) + 1:
            raise ShapeError(f"a part of {len(self.slices) + 1} dimensions, of a tensor of {len(shape)}")
        key = [slice(None)]
        for (start, step, count), size in zip(self.slices, shape[1:], strict=True):
            end = start + step * count
            if start >= size or not 0 <= start + step * (count - 1) < size:
                raise ShapeError(f"{shape} has no part {self.slices}")
            key.append(slice(start, end if end >= 0 else None, step))
        return tuple(key)

    def forward(self, *inputs: SecretTensor, weights: Secrets) -> SecretTensor:
        return inputs[0][self._key(inputs[0].shape)]

    def plain(self, *inputs: Array, weights: Arrays, exact: bool = False) -> Array:
        return np.asarray(inputs[0][self._key(inputs[0].shape)])
