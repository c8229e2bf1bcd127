"""Numbers that say how long a batch is, and write down the lengths with which somebody compares them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import CodeType, FrameType
from typing import Any

DEEPEST = 4
"""Of numbers in what a line names: of tuples in a dict that is somebody's attribute, say."""

MOST_NAMED = 64
"""Numbers that are looked at in one thing that has a name."""


class Seen:
    """Lengths of a batch that make a difference to somebody."""

    def __init__(self) -> None:
        self.compared: set[int] = set()
        self.named: set[int] = set()
        """Written where a length was asked for in a way that is not seen, as by keys of a dict."""

    def near(self, size: float) -> None:
        """It, and its neighbours: whoever compares does so on either side."""
        self.compared.update(range(math.floor(size) - 1, math.ceil(size) + 2))

    def asked(self, frame: FrameType | None, stops: Callable[[str], bool]) -> None:
        """By what runs in this frame and those that call it, up to a file that ``stops``: all whole numbers that are
        written there, and one more than each.
        """
        while frame is not None and not stops(frame.f_code.co_filename):
            for number in _written(frame):
                self.named.update((number, number + 1))
            frame = frame.f_back

    def sizes(self, largest: int, most: int) -> list[int]:
        """Up to ``most`` of them from 1 to ``largest``, those first that were compared."""
        found = [sorted(n for n in each if 0 < n <= largest) for each in (self.compared, self.named - self.compared)]
        return sorted((found[0] + found[1])[:most])


class Length(int):
    """``per`` times the batch, and ``more``."""

    def __new__(cls, value: int, per: float, more: int, seen: Seen, asked: Callable[[], None]) -> Length:
        made = super().__new__(cls, value)
        made.per, made.more, made.seen, made.asked = per, more, seen, asked
        return made

    per: float
    more: int
    seen: Seen
    asked: Callable[[], None]
    """Called where it is asked for in a way that says nothing of lengths."""

    def _note(self, other: object) -> None:
        if isinstance(other, int | float) and not isinstance(other, Length) and math.isfinite(other):
            self.seen.near((other - self.more) / self.per)

    def __hash__(self) -> int:
        self.asked()
        return super().__hash__()

    def __add__(self, other: int) -> Any:
        return self._moved(super().__add__(other), 1, other)

    def __sub__(self, other: int) -> Any:
        return self._moved(super().__sub__(other), 1, -other)

    def __mul__(self, other: int) -> Any:
        return self._moved(super().__mul__(other), other, 0)

    def __floordiv__(self, other: int) -> Any:
        return self._moved(super().__floordiv__(other), 1 / other, 0)

    def __mod__(self, other: int) -> int:
        self._note(other)
        return super().__mod__(other)

    def __and__(self, other: int) -> int:
        self._note(other)
        return super().__and__(other)

    def __bool__(self) -> bool:
        self._note(0)
        return super().__bool__()

    __radd__, __rmul__ = __add__, __mul__

    def _moved(self, value: Any, times: float, by: int) -> Any:
        if not isinstance(value, int) or isinstance(by, Length) or isinstance(times, Length) or times <= 0:
            self.asked()
            return value
        return Length(value, self.per * times, int(self.more * times) + by, self.seen, self.asked)


def _comparing(name: str) -> Callable[[Length, object], Any]:
    compare = getattr(int, name)

    def compared(self: Length, other: object) -> Any:
        self._note(other)
        return compare(self, other)

    return compared


def _asking(name: str) -> Callable[..., Any]:
    answer = getattr(int, name)

    def asked(self: Length, *others: Any) -> Any:
        self.asked()
        return answer(self, *others)

    return asked


for _name in ("__eq__", "__ne__", "__lt__", "__le__", "__gt__", "__ge__"):
    setattr(Length, _name, _comparing(_name))
for _name in (
    "__truediv__",
    "__int__", "__float__", "__str__", "__repr__", "__format__", "__pow__", "__rpow__", "__divmod__", "__rdivmod__",
    "__rsub__", "__rtruediv__", "__rfloordiv__", "__rmod__", "__rand__", "__or__", "__ror__", "__xor__", "__rxor__",
    "__lshift__", "__rlshift__", "__rshift__", "__rrshift__", "__neg__", "__invert__", "__abs__", "__round__",
    "bit_length", "bit_count", "to_bytes",
):  # fmt: skip
    setattr(Length, _name, _asking(_name))


def _written(frame: FrameType) -> Iterator[int]:
    """Written in it, or in what it names: its variables, theirs and others' attributes, and global ones."""
    code = frame.f_code
    known: dict[str, object] = {**frame.f_globals, **frame.f_locals}
    yield from _numbers(code.co_consts)
    for name in (*code.co_names, *code.co_varnames, *code.co_freevars):
        if name in known:
            yield from _numbers(known[name])
        for owner in list(frame.f_locals.values()):
            yield from _numbers(_attributes(owner).get(name))


def _attributes(owner: object) -> Mapping[str, object]:
    """By name, and those of its class: none of them is computed."""
    try:
        return {**vars(type(owner)), **vars(owner)}
    except TypeError:
        return {}


def _numbers(value: object, depth: int = 0) -> Iterator[int]:
    """Whole ones, in what people keep them in."""
    if isinstance(value, int) and not isinstance(value, bool | Length):
        yield value
    elif isinstance(value, str) and value.isdecimal() and len(value) < 8:
        yield int(value)
    elif isinstance(value, Mapping | tuple | list | set | frozenset | range) and depth < DEEPEST:
        inside: Iterable[object] = (*value.keys(), *value.values()) if isinstance(value, Mapping) else value
        for number, each in enumerate(inside):
            if number >= MOST_NAMED:
                return
            yield from _numbers(each, depth + 1)
    elif isinstance(value, CodeType) and depth < DEEPEST:
        yield from _numbers(value.co_consts, depth + 1)
