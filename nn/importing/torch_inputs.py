"""Samples of tokens, and of several inputs: as a network takes them, and as a model does.  Needs torch."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from mpc.errors import ShapeError, UsageError
from mpc.tensor_type import Shape
from nn.importing.samples import SPREAD, Samples, perturbed, read_samples
from nn.inputs import ArrayInput, NamedInput, SeveralInputs, TokenInput
from nn.layer import Array

MOST_BITS = 1 << 25
"""Of one-hot vectors of all samples together; two samples are looked at whatever they need."""


class Given(NamedTuple):
    """Samples by the name of the input; a single one may have none."""

    arrays: dict[str, Array]
    whole: frozenset[str]
    """Which are of whole numbers, and stay so."""

    @classmethod
    def of(cls, samples: Samples | Mapping[str, Samples], network: nn.Module) -> Given:
        """Read them.  Raises ShapeError, EncodingError, UsageError for names that forward does not have."""
        by_name = dict(samples) if isinstance(samples, Mapping) else {"": samples}
        if isinstance(samples, Mapping):
            known = inspect.signature(network.forward).parameters
            if strangers := [name for name in by_name if name not in known]:
                raise UsageError(f"samples are by the names of forward's inputs, which has no {strangers[0]!r}")
            by_name = {name: by_name[name] for name in known if name in by_name}
        looks_up = any(isinstance(module, nn.Embedding | nn.EmbeddingBag) for module in network.modules())
        arrays = {name: read_samples(each) for name, each in by_name.items()}
        if len({len(each) for each in arrays.values()}) != 1:
            raise ShapeError("samples of several inputs are as many of each, and one at least")
        whole = frozenset(name for name, each in by_name.items() if looks_up and _is_whole(each))
        return cls(arrays, whole)

    def example(self, dtype: torch.dtype) -> torch.Tensor | dict[str, torch.Tensor]:
        """Two of them, or as many as there are."""
        found = {
            name: torch.from_numpy(each[:2]).to(torch.int64 if name in self.whole else dtype)
            for name, each in self.arrays.items()
        }
        return found[""] if list(found) == [""] else found


class Takes:
    """What a model takes in the place of a network's inputs."""

    def __init__(self, given: Given, tokens: Mapping[str, int]) -> None:
        """``tokens``: of each input, in order, how many there are to look up; 0 for numbers."""
        self._names = list(given.arrays)
        self._whole = given.whole
        counts = dict(zip(self._names, tokens.values(), strict=True))
        kinds = [_input(given.arrays[name], counts[name]) for name in self._names]
        several = tuple(NamedInput(name or "input", kind) for name, kind in zip(self._names, kinds, strict=True))
        self.input: TokenInput | SeveralInputs | ArrayInput = kinds[0] if len(kinds) == 1 else SeveralInputs(several)
        self._kinds = kinds
        most = max(2, MOST_BITS // max(1, math.prod(self.input.shape)))
        self._arrays = {name: each[:most] for name, each in given.arrays.items()}

    @property
    def samples(self) -> Array:
        """As the model takes them."""
        return self._encoded(self._arrays)

    @property
    def others(self) -> Array:
        """More inputs like them: tokens of the samples in other places, and numbers moved by a little."""
        rng = np.random.default_rng(0)
        return self._encoded(
            {
                name: rng.permutation(each.ravel()).reshape(each.shape) if name in self._whole else perturbed(each)
                for name, each in self._arrays.items()
            }
        )

    def tensors(self, x: Array, dtype: torch.dtype) -> tuple[list[torch.Tensor], dict[str, torch.Tensor]]:
        """What forward takes: without names, and by name."""
        rows, start, found = x.reshape(len(x), -1), 0, {}
        for name, kind in zip(self._names, self._kinds, strict=True):
            count = math.prod(kind.shape)
            own = rows[:, start : start + count].reshape(len(x), *kind.shape)
            own, start = own.argmax(-1) if isinstance(kind, TokenInput) else own, start + count
            found[name] = torch.from_numpy(own.copy()).to(torch.int64 if name in self._whole else dtype)
        single = found.pop("", None)
        return ([] if single is None else [single]), found

    def _encoded(self, arrays: Mapping[str, Array]) -> Array:
        if isinstance(self.input, SeveralInputs):
            return self.input.encode({name or "input": each for name, each in arrays.items()})
        (single,) = arrays.values()
        return self.input.encode(single) if isinstance(self.input, TokenInput) else single


def _input(samples: Array, tokens: int) -> TokenInput | ArrayInput:
    """What one input is, of numbers in the range up to the next power of two."""
    shape: Shape = samples.shape[1:]
    if tokens:
        return TokenInput(shape, tokens)
    most = 2.0 ** math.ceil(math.log2(max(float(np.abs(samples).max(initial=0.0)), SPREAD)))
    return ArrayInput(shape, -most if samples.min(initial=0.0) < 0 else 0.0, most)


def _is_whole(samples: Any) -> bool:
    kind = getattr(samples, "dtype", None)
    if isinstance(kind, torch.dtype):
        return not kind.is_floating_point and not kind.is_complex and kind != torch.bool
    return np.asarray(samples).dtype.kind in "iu" if kind is not None or isinstance(samples, list) else False
