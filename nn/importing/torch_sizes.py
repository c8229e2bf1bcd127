"""Of which batch sizes a forward is another function: those with which it compares its own.  Needs torch."""

from __future__ import annotations

import builtins
import contextlib
import sys
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from nn.importing.lengths import Length, Seen
from nn.importing.torch_inputs import TorchTakes
from nn.importing.torch_trace import OWN_FOLDERS
from nn.layer import Array

PRIME = 13
"""A batch of so many: a length that it divides has the batch in it, or is taken to have it."""

MOST_NUMBERS = 1 << 24
"""Of a batch that is tried."""

MOST_SIZES = 32
"""That are tried."""


def told_apart(network: nn.Module, x: Array, dtype: torch.dtype, takes: TorchTakes | None) -> list[int]:
    """Batch sizes beside those that lengths are compared with where a batch runs through, whatever comes of it.

    Seen are comparisons, sums and multiples of ``len(x)``, ``x.shape[0]``, ``x.size(0)`` and ``x.numel()``, of the
    input or of what is computed from it.  Where a length is asked for otherwise, as a key of a dict, or as text, all
    whole numbers that the function names which asks are tried.  Not seen is ``x.shape.numel()``, torch's own.
    """
    rows = x[[i % len(x) for i in range(PRIME)]]
    args, named = ([torch.from_numpy(rows).to(dtype)], {}) if takes is None else takes.tensors(rows, dtype)
    seen = Seen()
    kind = _watched(seen)
    # A subclass may be more than forward takes, or a length that is none of torch's.
    with torch.no_grad(), _counting(kind, seen), contextlib.suppress(Exception):
        network(*(each.as_subclass(kind) for each in args), **{k: v.as_subclass(kind) for k, v in named.items()})
    most = min(MOST_NUMBERS // max(1, x[0].size), 1 << 16)
    return seen.sizes(most, MOST_SIZES)


def _watched(seen: Seen) -> type[torch.Tensor]:
    """A tensor whose lengths write down what they are compared with."""

    class Watched(torch.Tensor):
        @classmethod
        def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            result = super().__torch_function__(func, types, args, kwargs or {})  # type: ignore[no-untyped-call]
            if func is torch.Tensor.__len__:
                # By a name of its own for ``len``, which makes an ordinary number of it.
                _asked(seen)
            if func not in _LENGTHS:
                return result
            if isinstance(result, tuple):
                return torch.Size([_length(n, seen) for n in result])
            return _length(result, seen)

    return Watched


@contextlib.contextmanager
def _counting(kind: type[torch.Tensor], seen: Seen) -> Iterator[None]:
    """Whoever asks for a while how long such a tensor is, or a list of such, is told by a number that sees what it is
    compared with: Python's own ``len`` makes an ordinary one of whatever a class answers.
    """
    count = builtins.len

    def answer(value: Any, /) -> int:
        if isinstance(value, kind):
            return value.shape[0] if value.ndim else count(value)
        n = count(value)
        rows = isinstance(value, list | tuple) and n and n % PRIME == 0 and all(isinstance(v, kind) for v in value)
        return _length(n, seen) if rows else n

    builtins.len = answer
    try:
        yield
    finally:
        builtins.len = count


_LENGTHS: tuple[Any, ...] = (
    torch.Tensor.shape.__get__,  # type: ignore[attr-defined]
    torch.Tensor.nbytes.__get__,  # type: ignore[attr-defined]
    torch.Tensor.size,
    torch.Tensor.numel,
    torch.Tensor.nelement,
    torch.numel,
)


def _length(n: int, seen: Seen) -> int:
    return n if n % PRIME or not n else Length(n, n // PRIME, 0, seen, lambda: _asked(seen))


def _asked(seen: Seen) -> None:
    """By the frames of forward that are on the way."""
    frame = sys._getframe(1)
    while frame is not None and frame.f_code.co_filename.startswith(OWN_FOLDERS):
        frame = frame.f_back  # type: ignore[assignment]
    seen.asked(frame, lambda file: file.startswith(OWN_FOLDERS))
