"""What a model takes in the place of a network's inputs, where these are several, or tokens."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from mpc.errors import ShapeError
from mpc.tensor_type import Shape
from nn.importing.samples import SPREAD, perturbed
from nn.inputs import ArrayInput, NamedInput, SeveralInputs, TokenInput
from nn.layer import Array

MOST_BITS = 1 << 25
"""Of one-hot vectors of all samples together; two samples are looked at whatever they need."""


class Takes:
    """One input, or several as parts of a row; each of numbers, or of tokens, which are one-hot vectors."""

    def __init__(self, arrays: Mapping[str, Array], tokens: Mapping[str, int], whole: frozenset[str]) -> None:
        """``arrays``: samples of each input, of one alone perhaps under no name; ``tokens``: of each how many there
        are to look up, 0 for numbers; ``whole``: which hold whole numbers."""
        self._whole = whole
        self._kinds = {name: _input(each, tokens[name]) for name, each in arrays.items()}
        several = tuple(NamedInput(name or "input", kind) for name, kind in self._kinds.items())
        self.input: TokenInput | SeveralInputs | ArrayInput = (
            several[0].input if len(several) == 1 else SeveralInputs(several)
        )
        most = max(2, MOST_BITS // max(1, math.prod(self.input.shape)))
        self._arrays = {name: each[:most] for name, each in arrays.items()}

    @property
    def samples(self) -> Array:
        """As the model takes them."""
        return self._encoded(self._arrays)

    @property
    def others(self) -> Array:
        """More inputs like them: whole numbers of the samples in other places, and others moved by a little."""
        rng = np.random.default_rng(0)
        return self._encoded(
            {
                name: rng.permutation(each.ravel()).reshape(each.shape) if name in self._whole else perturbed(each)
                for name, each in self._arrays.items()
            }
        )

    def given(self, x: Array) -> dict[str, Array]:
        """By name what the network takes, of rows that the model takes: tokens as whole numbers again."""
        rows, start, found = x.reshape(len(x), -1), 0, {}
        for name, kind in self._kinds.items():
            count = math.prod(kind.shape)
            own = rows[:, start : start + count].reshape(len(x), *kind.shape)
            found[name] = own.argmax(-1) if isinstance(kind, TokenInput) else own.copy()
            start += count
        return found

    def _encoded(self, arrays: Mapping[str, Array]) -> Array:
        if isinstance(self.input, SeveralInputs):
            return self.input.encode({name or "input": each for name, each in arrays.items()})
        (single,) = arrays.values()
        return self.input.encode(single) if isinstance(self.input, TokenInput) else single


def check_as_many(arrays: Mapping[str, Array]) -> None:
    """Raise ShapeError unless there are as many samples of each input."""
    if len({len(each) for each in arrays.values()}) != 1:
        raise ShapeError("samples of several inputs are as many of each, and one at least")


def is_whole(samples: Any) -> bool:
    """Whether they are of a type of whole numbers."""
    kind = getattr(samples, "dtype", None)
    if kind is not None and not isinstance(kind, np.dtype):
        return not kind.is_floating_point and not kind.is_complex and str(kind) != "torch.bool"
    return np.asarray(samples).dtype.kind in "iu" if kind is not None or isinstance(samples, list) else False


def _input(samples: Array, tokens: int) -> TokenInput | ArrayInput:
    """What one input is, of numbers in the range up to the next power of two."""
    shape: Shape = samples.shape[1:]
    if tokens:
        return TokenInput(shape, tokens)
    most = 2.0 ** math.ceil(math.log2(max(float(np.abs(samples).max(initial=0.0)), SPREAD)))
    return ArrayInput(shape, -most if samples.min(initial=0.0) < 0 else 0.0, most)
