"""Comparisons of secret tensors: results are secret tensors of 0 and 1, exact, ties included."""

from __future__ import annotations

import math
from typing import Any, Self

import numpy as np

from mpc.errors import UnsupportedError
from mpc.tensor_type import TensorType
from protocols.trace import mathematics as m
from protocols.trace.arguments import numbers
from protocols.trace.unknown import Unknown


class Comparisons(Unknown):
    """Base of ``SecretTensor``.

    Each takes two rounds, one where what is compared is opened anyway.  A product of the result, and so ``where``,
    takes no round more.
    """

    __slots__ = ()

    type: TensorType

    def _new(self, operation: m.Mathematics) -> Self:
        raise NotImplementedError

    def __sub__(self, other: object) -> Self:
        raise NotImplementedError

    def __add__(self, other: object) -> Self:
        raise NotImplementedError

    def __mul__(self, other: object) -> Self:
        raise NotImplementedError

    def __ge__(self, other: object) -> Self:
        return self._less(other, np.ceil)._new(m.Compare(strictly=False, below=False))

    def __lt__(self, other: object) -> Self:
        return self._less(other, np.ceil)._new(m.Compare(strictly=False, below=True))

    def __gt__(self, other: object) -> Self:
        return self._less(other, np.floor)._new(m.Compare(strictly=True, below=False))

    def __le__(self, other: object) -> Self:
        return self._less(other, np.floor)._new(m.Compare(strictly=True, below=True))

    def __eq__(self, other: object) -> Any:
        return self._apart(other)._new(m.Equal(below=False))

    def __ne__(self, other: object) -> Any:
        return self._apart(other)._new(m.Equal(below=True))

    __hash__ = object.__hash__

    def relu(self) -> Self:
        """x where x >= 0, else 0: exact, or within one unit of the precision; a round besides the opening of x."""
        return self._new(m.Relu())

    def where(self, x: object, y: object) -> Self:
        """``x`` where this is 1, ``y`` where it is 0; raises UnsupportedError for a tensor that may be anything else.

        No round of its own where this is a comparison.
        """
        check_bits("where()", self)
        if not isinstance(x, Comparisons) and not isinstance(y, Comparisons):
            return self * (numbers(x) - numbers(y)) + y
        chosen: Self = self * (x - y) + y  # type: ignore[operator]
        return chosen

    def sign(self) -> Self:
        """-1, 0 or 1, by the sign: exact."""
        return ((self > 0) - (self < 0))._new(m.Declare(-1.0, 1.0))

    def __and__(self, other: object) -> Self:
        """Of tensors of 0 and 1 alone, as `|`, `^` and `~`: the product; a round besides the openings of both."""
        return self * _bits("&", self, other)

    def __or__(self, other: object) -> Self:
        both: Any = _bits("|", self, other)
        either: Self = (self + both - self * both)._new(m.Declare(0.0, 1.0))
        return either

    def __xor__(self, other: object) -> Self:
        both: Any = _bits("^", self, other)
        one: Self = (self + both - self * both * 2)._new(m.Declare(0.0, 1.0))
        return one

    __rand__, __ror__, __rxor__ = __and__, __or__, __xor__

    def __invert__(self) -> Self:
        check_bits("~", self)
        return self * -1 + 1

    def _less(self, other: object, rounded: np.ufunc) -> Self:
        """What is to be compared with 0.

        Public numbers are moved by ``rounded`` to where values can lie, and no further beyond the range than is needed.
        """
        if isinstance(other, Comparisons):
            return self - other
        unit = 2.0**-self.type.fraction_bits
        threshold = np.clip(numbers(other), self.type.low - unit, self.type.high + unit)
        return self - rounded(threshold / unit) * unit if threshold.any() or threshold.ndim else self

    def _apart(self, other: object) -> Self:
        """What is 0 where they are equal; a public number that no value can be is moved just below all of them."""
        if isinstance(other, Comparisons):
            return self - other
        unit = 2.0**-self.type.fraction_bits
        wanted = numbers(other)
        possible = (wanted >= self.type.low) & (wanted <= self.type.high) & (np.rint(wanted / unit) * unit == wanted)
        lowest = (math.floor(self.type.low / unit) - 1) * unit
        wanted = np.where(possible, wanted, lowest)
        return self - wanted if wanted.any() or wanted.ndim else self


def check_bits(what: str, *operands: object) -> None:
    """Raises UnsupportedError unless all are of 0 and 1, by their types or, if public, by their values."""
    for x in operands:
        if isinstance(x, Comparisons):
            fits = x.type.low >= 0.0 and x.type.high <= 1.0 and x.type.fraction_bits == 0
        else:
            fits = bool(np.isin(numbers(x), (0.0, 1.0)).all())
        if not fits:
            raise UnsupportedError(f"{what} takes tensors of 0 and 1, such as comparisons are")


def _bits(what: str, one: Comparisons, other: object) -> object:
    """The other, once both are of 0 and 1."""
    check_bits(what, one, other)
    return other if isinstance(other, Comparisons) else numbers(other)
