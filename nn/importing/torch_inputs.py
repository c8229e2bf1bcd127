"""Samples of tokens, and of several inputs: as a network takes them, and as a model does.  Needs torch."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import nn

from mpc.errors import UsageError
from nn.importing.samples import Samples, read_samples
from nn.importing.takes import Takes, check_as_many, is_whole
from nn.layer import Array


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
        check_as_many(arrays)
        whole = frozenset(name for name, each in by_name.items() if looks_up and is_whole(each))
        return cls(arrays, whole)

    def example(self, dtype: torch.dtype) -> torch.Tensor | dict[str, torch.Tensor]:
        """Two of them, or as many as there are."""
        found = {
            name: torch.from_numpy(each[:2]).to(torch.int64 if name in self.whole else dtype)
            for name, each in self.arrays.items()
        }
        return found[""] if list(found) == [""] else found


class TorchTakes(Takes):
    """With tensors for what forward takes."""

    def __init__(self, given: Given, tokens: Mapping[str, int]) -> None:
        """``tokens``: of each input, in order, how many there are to look up; 0 for numbers."""
        super().__init__(given.arrays, dict(zip(given.arrays, tokens.values(), strict=True)), given.whole)

    def tensors(self, x: Array, dtype: torch.dtype) -> tuple[list[torch.Tensor], dict[str, torch.Tensor]]:
        """What forward takes: without names, and by name."""
        found = {
            name: torch.from_numpy(each).to(torch.int64 if name in self._whole else dtype)
            for name, each in self.given(x).items()
        }
        single = found.pop("", None)
        return ([] if single is None else [single]), found
