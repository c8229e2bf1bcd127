"""What a program tells of secrets: the reading of an owner who is asked to let it run.

Whoever is revealed a copy of a secret, or a linear map of it, can read the secret or solve for it; so an owner has to
see such a result whatever way it is written.  Two looks, and what either of them sees counts:

* *By form*, node by node: what is linear in what is linear is linear.  Of any size, and never less than the truth for
  what is written plainly; but (x + 1)^2 - x^2, or a copy beside something harmless in one tensor, pass.
* *By trial*, of programs up to `MOST_TRIED` elements: results are polynomials of the secrets over the field, once a
  truncation by f bits is the exact product with 2^-f.  On a random line u + t v an element looks affine at t = 0, 1, 2
  without being so with a chance of about degree / 2^61 (Schwartz 1980, Zippel 1979).  Trigonometric series are taken as
  they are, at angles that are uniform then.  So each *element* of a result is found out by itself.

Of few numbers, weighted sums of them are looked at too: x + q and q, neither of them linear, give x.  And a third look
is at real numbers in the ranges that are declared: x + 0.001 x^2, or a trigonometric series that was fitted to a line,
bends so little that it is as good as linear.

None of this is a proof of privacy, nor is there one of this kind.  What bounds everything is how many numbers come out.
"""

from __future__ import annotations

import contextlib
import enum
import time
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mpc.operation import Operation, Stored
from mpc.program import Program
from protocols.operations import (
    assume,
    astray,
    beyond,
    bit_comparison,
    comparison,
    decomposed,
    digits,
    draw,
    fourier,
    gate,
    in_range,
    keep,
    linear,
    mask,
    nonzero,
    polynomial,
    product,
    quotient,
    residues,
    shuffle,
    truncation,
    weighed,
)
from protocols.operations.truncated_product import TruncatedMultiply
from protocols.readings.trial import SIGNS, Trial, _Untried, results

Reals = npt.NDArray[np.float64]

MOST_TRIED = 2**23
"""Elements of a program that is tried: 64 MiB at a time, beside as many that stay as they are."""
SECONDS = 30.0
"""Of this thread, that all trials of one program may take: its author is a stranger, and it might take hours."""
MOST_COMBINED = 64
"""Numbers of all results together, of which sums are looked at."""

_KEPT_AS_THEY_ARE = (
    linear.Reshape,
    linear.Transpose,
    linear.Broadcast,
    linear.Index,
    linear.Take,
    shuffle.Shuffled,
    linear.Concatenate,
    linear.Pad,
    linear.Declare,
    assume.Assume,
    linear.Negate,
    linear.Raise,
    mask.Mask,
    keep.Keep,
    truncation.Truncate,
)
_DRAWN = (draw.Draw, draw.Bits, shuffle.Order, shuffle.Places)
"""Of nothing that anybody has."""
_OF_DIGITS = (
    astray.Astray,
    beyond.Beyond,
    beyond.Beyonds,
    digits.Tables,
    digits.Digits,
    weighed.Steps,
    fourier.Waves,
    comparison.Join,
    residues.Factors,
    residues.Residue,
    bit_comparison.Sign,
    weighed.SignBits,
    in_range.Ends,
    in_range.Within,
    decomposed.Decomposed,
    decomposed.Recomposed,
    nonzero.Nonzero,
    nonzero.Zero,
)
_ELEMENTWISE = (linear.Add, linear.Subtract, linear.Divide, quotient.Quotient, product.Multiply, TruncatedMultiply)


class Form(enum.IntEnum):
    """What a value is of the secrets, as far as its form goes; each is what is said of a tensor as a whole."""

    NOTHING = 0
    """It does not depend on them."""
    COPY = 1
    """Numbers of theirs, up to signs and rounding, and such as do not depend on them."""
    LINEAR = 2
    BENT = 3
    """Each number is a function of one number that is linear in them."""
    MIXED = 4


@dataclass(frozen=True)
class Telling:
    """What one result tells of the secrets that were asked about."""

    form: Form
    numbers: int
    """It has so many, all told."""
    copied: int
    """That are a number of the secrets, up to its sign and rounding."""
    linear: int
    """That depend on the secrets, and linearly; the copied ones among them."""
    nearly: int
    """That bend so little, over the declared ranges, that they are as good as linear; beside those that are."""
    tried: bool
    """Whether each was found out by itself; else all have the result's form."""


class Examined:
    """A program that is looked at in these ways, by the thread that has made this; ``seconds`` are for all trials."""

    def __init__(self, program: Program, seconds: float = SECONDS) -> None:
        self._program = program
        self._trial = Trial(program, time.thread_time() + seconds) if program.elements <= MOST_TRIED else None

    def telling(self, slots: Collection[str]) -> tuple[Telling, ...]:
        """What each of the ``results`` tells of what lies in ``slots``, to who knows everything else that goes in."""
        forms, tried, near = _forms(self._program, slots), None, None
        if self._trial is not None:
            with contextlib.suppress(_Untried):
                tried = self._trial.line(slots)
                near = self._trial.nearly(slots)
        found = []
        for n, i in enumerate(results(self._program)):
            form, size = forms[i], self._program.nodes[i].type.size
            copied, linear_ones = (0, 0) if tried is None else tried[n]
            nearly = 0 if near is None else max(0, near[n] - linear_ones)
            if form is Form.COPY:
                copied = copied or size
            if Form.NOTHING < form <= Form.LINEAR:
                linear_ones = linear_ones or size
            found.append(Telling(form, size, copied, linear_ones, nearly, near is not None))
        return tuple(found)

    def combined(self, slots: Collection[str]) -> int | None:
        """How many weighted sums of all numbers are linear in what lies in ``slots``, beside those that are themselves.

        So many that are independent.  None for more than `MOST_COMBINED` numbers, or if it takes too long.
        """
        numbers = sum(self._program.nodes[i].type.size for i in results(self._program))
        if self._trial is not None and numbers <= MOST_COMBINED:
            with contextlib.suppress(_Untried):
                return self._trial.combined(slots)
        return None

    def astray(self) -> int | None:
        """How many numbers on the way leave the range that they are declared to lie in: what is computed of them is
        something else than it says.  None if it is too large, or takes too long.
        """
        if self._trial is not None:
            with contextlib.suppress(_Untried):
                return self._trial.astray()
        return None

    def crowds(self, slot: str, rows: int) -> tuple[int | None, ...] | None:
        """Of each of the ``results``: of about how few rows one of its numbers is, of what has so many in ``slot``.

        None for more than `SMALL` rows, or none at all; and for all of it, if the program is too large to be tried.
        Rows are moved at random, a share of them at a time: a number of k rows stays where it is when all k are spared.
        """
        if self._trial is not None:
            with contextlib.suppress(_Untried):
                return tuple(self._trial.crowds(slot, rows))
        return None


# -- by form -----------------------------------------------------------------------------------------------------------


def _forms(program: Program, slots: Collection[str]) -> list[Form]:
    forms: list[Form] = []
    for node in program.nodes:
        operation, inputs = node.operation, [forms[j] for j in node.inputs]
        if isinstance(operation, gate.Gate):
            # Of what is given, if it is given: that it is tells one bit besides.
            forms.append(inputs[0])
        elif isinstance(operation, Stored):
            forms.append(Form.COPY if operation.slot in slots else Form.NOTHING)
        elif not any(inputs):
            forms.append(Form.NOTHING)
        else:
            # The same operand twice is one number still: x * x is a function of x.  So are a sign's digits.
            counted = node.inputs if not isinstance(operation, SIGNS) else (node.inputs[0], *node.inputs[2:])
            distinct = {j for j in counted if forms[j]}
            forms.append(_form(operation, max(inputs), alone=len(distinct) == 1, both=all(inputs)))
    return forms


def _form(operation: Operation, form: Form, *, alone: bool, both: bool) -> Form:
    """Of the result, when ``form`` is the most mixed one of the operands.

    ``alone``: one of them depends on secrets.  ``both``: none is known.
    """
    if isinstance(operation, _KEPT_AS_THEY_ARE):
        return form
    if isinstance(operation, polynomial.Polynomial | polynomial.TruncatedPolynomial):
        return max(form, Form.BENT if any(operation.coefficients[2:]) else Form.LINEAR)
    if isinstance(operation, (fourier.Fourier, *_OF_DIGITS)):
        return max(form, Form.BENT)
    if isinstance(operation, SIGNS):
        return max(form, Form.BENT) if alone else Form.MIXED
    if isinstance(operation, product.Product | TruncatedMultiply) and both:
        each = isinstance(operation, product.Multiply | TruncatedMultiply)
        return max(form, Form.BENT) if each and alone else Form.MIXED
    if form <= Form.LINEAR:
        # What is not known here is taken for linear, too: better a line too many than one too few.
        return Form.LINEAR
    return form if isinstance(operation, _ELEMENTWISE) and alone else Form.MIXED
