"""Mathematics that gradients are made of, and that says what a gradient is where the graph does not: see
``protocols/trace/gradients.py``."""

from __future__ import annotations

from dataclasses import dataclass

from protocols.approximation import Fit


@dataclass(frozen=True, slots=True)
class Called:
    """The first operand, which is this function of the second, however it was made; of others its gradient is made.

    ``factor``: a number that the function's formula takes.
    """

    function: str
    axes: tuple[int, ...] = ()
    factor: float = 1.0


@dataclass(frozen=True, slots=True)
class Sloped:
    """The first operand, whose gradient with respect to the second is the third."""


@dataclass(frozen=True, slots=True)
class Slope:
    """Of x, and of y, its function that a fit stands for: the derivative, by what is cheaper of the two: a formula of
    y, where that is opened anyway, or the fit's own derivative, of the same opening of x."""

    function: str
    fit: Fit


@dataclass(frozen=True, slots=True)
class LetThrough:
    """The first operand where `Relu` lets the second through, or where `Maximum` takes the second and not the third,
    by the very same bit; else 0."""


@dataclass(frozen=True, slots=True)
class Masked:
    """The same values, opened here under a mask, so that what is linear in them and in others that are is masked, too,
    and needs no opening of its own."""
