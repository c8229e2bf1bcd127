"""Of which batch sizes a forward is another function: those with which it compares its own.  Needs torch."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from nn.importing.torch_inputs import Takes
from nn.layer import Array

PRIME = 13
"""A batch of so many: a length that it divides has the batch in it, or is taken to have it."""

MOST_NUMBERS = 1 << 24
"""Of a batch that is tried."""

MOST_SIZES = 24
"""That are tried."""


def told_apart(network: nn.Module, x: Array, dtype: torch.dtype, takes: Takes | None) -> list[int]:
    """Batch sizes beside those that lengths are compared with where a batch runs through, whatever comes of it.

    Seen are comparisons, sums and multiples of ``x.shape[0]``, ``x.size(0)`` and ``x.numel()``, of the input or of what
    is computed from it; not of ``len(x)``, which Python makes an ordinary number, nor the keys of a dict.
    """
    rows = x[[i % len(x) for i in range(PRIME)]]
    args, named = ([torch.from_numpy(rows).to(dtype)], {}) if takes is None else takes.tensors(rows, dtype)
    seen: set[int] = set()
    kind = _watched(seen)
    # A subclass may be more than forward takes, or a length that is none of torch's.
    with torch.no_grad(), contextlib.suppress(Exception):
        network(*(each.as_subclass(kind) for each in args), **{k: v.as_subclass(kind) for k, v in named.items()})
    most = min(MOST_NUMBERS // max(1, x[0].size), 1 << 16)
    return sorted(n for n in seen if 0 < n <= most)[:MOST_SIZES]


def _watched(seen: set[int]) -> type[torch.Tensor]:
    """A tensor whose lengths write down what they are compared with."""

    class Watched(torch.Tensor):
        @classmethod
        def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            result = super().__torch_function__(func, types, args, kwargs or {})  # type: ignore[no-untyped-call]
            if func not in _LENGTHS:
                return result
            if isinstance(result, tuple):
                return torch.Size([_length(n, seen) for n in result])
            return _length(result, seen)

    return Watched


_LENGTHS: tuple[Any, ...] = (
    torch.Tensor.shape.__get__,  # type: ignore[attr-defined]
    torch.Tensor.size,
    torch.Tensor.numel,
    torch.Tensor.nelement,
)


def _length(n: int, seen: set[int]) -> int:
    return n if n % PRIME or not n else Length(n, n // PRIME, 0, seen)


class Length(int):
    """``per`` times the batch, and ``more``."""

    def __new__(cls, value: int, per: float, more: int, seen: set[int]) -> Length:
        made = super().__new__(cls, value)
        made.per, made.more, made.seen = per, more, seen
        return made

    per: float
    more: int
    seen: set[int]

    def _note(self, other: object) -> None:
        if isinstance(other, int | float) and not isinstance(other, Length) and math.isfinite(other):
            at = (other - self.more) / self.per
            self.seen.update(range(math.floor(at) - 1, math.ceil(at) + 2))

    __hash__ = int.__hash__

    def __add__(self, other: int) -> Any:
        return self._moved(int(self) + other, 1, other)

    def __sub__(self, other: int) -> Any:
        return self._moved(int(self) - other, 1, -other)

    def __mul__(self, other: int) -> Any:
        return self._moved(int(self) * other, other, 0)

    def __floordiv__(self, other: int) -> Any:
        return self._moved(int(self) // other, 1 / other, 0)

    def __mod__(self, other: int) -> int:
        self._note(other)
        return int(self) % other

    __radd__, __rmul__ = __add__, __mul__

    def _moved(self, value: Any, times: float, by: int) -> Any:
        if not isinstance(value, int) or isinstance(by, Length) or isinstance(times, Length) or times <= 0:
            return value
        return Length(value, self.per * times, int(self.more * times) + by, self.seen)


def _comparing(name: str) -> Callable[[Length, object], Any]:
    compare = getattr(int, name)

    def compared(self: Length, other: object) -> Any:
        self._note(other)
        return compare(self, other)

    return compared


for _name in ("__eq__", "__ne__", "__lt__", "__le__", "__gt__", "__ge__"):
    setattr(Length, _name, _comparing(_name))
