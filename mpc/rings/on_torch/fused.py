"""Many small steps over tensors as one kernel, on devices where each step alone would be a pass over memory."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar, cast

import torch

F = TypeVar("F", bound=Callable[..., Any])

AS_THEY_ARE = {"cpu"}
"""Kinds of devices where nothing is compiled: what is computed there with torch is there to be compared with."""


def fused(function: F) -> F:
    """Compile a function of a tensor, by its first call on a device: torch writes kernels for it (Triton's, on
    a card), and keeps them on the disk.  Integers are the same either way.
    """

    @functools.cache
    def compiled() -> Any:
        # Whoever only imports this need not wait for the compiler.
        return torch.compile(function, dynamic=True)

    @functools.wraps(function)
    def chosen(x: torch.Tensor, *rest: Any) -> Any:
        if torch.compiler.is_compiling() or x.device.type in AS_THEY_ARE:
            return function(x, *rest)
        return compiled()(x, *rest)

    return cast(F, chosen)
