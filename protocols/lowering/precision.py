"""What users are told of rounding: ``SecretTensor.error``, a warning where much is lost, an error where all is.

A bound is stated of every result.  It takes the worst of everything at once, and after some layers of a network says
nothing of what is seen; so warned is of about the most that is seen, where values are spread over their ranges
(``protocols/lowering/error.py``).  Of functions that span orders of magnitude, ``protocols/trace/spans.py`` looks at
each value.
"""

from __future__ import annotations

import math
import re
import warnings
from dataclasses import dataclass

from mpc.errors import RangeError, UnsupportedError
from mpc.operation import Constant, Input, Stored
from mpc.program import PRECISION, Expression
from protocols.lowering.error import Loss, followed
from protocols.lowering.margins import apart
from protocols.operations.comparison import Comparison
from protocols.operations.fourier import Fourier
from protocols.operations.polynomial import Polynomial, TruncatedPolynomial
from protocols.operations.quotient import Quotient
from protocols.operations.truncation import Truncate
from protocols.trace import mathematics as m
from protocols.trace.author import callers

LOST = 1e-3
"""Of the largest value of the declared range: warned is where more is lost."""

NEARLY = 0.01
"""Of a value, lost before: what loses the rest of it is one more step of a chain."""

_NAMES = {
    m.Secret: "share", m.Apply: "the function", m.Normalise: "the function", m.Reach: "the function",
    m.Known: "the function", m.Like: "the norm", m.SumOfSquares: "the norm", m.Declare: "within", m.Assume: "assumed",
    m.Matmul: "@", m.Multiply: "*",
}  # fmt: skip


class PrecisionWarning(UserWarning):
    """Of what an operation results in, more than a thousandth of the range is lost; or of some of its values, more than
    two thousandths of themselves."""


@dataclass(frozen=True, slots=True)
class ErrorBound:
    """What a result is off by at most: |revealed - meant|, where values lie in the ranges that are declared.

    ``absolute`` is in the units of the values, ``relative`` to the largest magnitude in the declared range.  ``source``
    says in words what most of it comes of.  The worst case of everything at once: after many layers, far above what is
    seen.

    ``usual`` is about the most that is seen where values are spread over their ranges, in the units of the values: no
    bound (values at the ends of their ranges come to 2.5 times as much), but what a PrecisionWarning goes by.

    Values that are not quite exact may compare the other way round where they are nearly equal.  Where all that is
    compared differs by more than ``margin``, in the units of that, the result is off by ``apart`` at most.
    """

    absolute: float
    relative: float
    source: str
    usual: float
    margin: float = 0.0
    apart: float = 0.0

    def __repr__(self) -> str:
        if not self.absolute:
            return "<ErrorBound 0: exact>"
        said = f"{self.absolute:.2g}, {self.relative:.2g} of the range: mostly {self.source}"
        if self.margin:
            said += f"; {self.apart:.2g} where what is compared differs by more than {self.margin:.2g}"
        return f"<ErrorBound {said}>"


def stated(x: Expression) -> ErrorBound:
    """Of what ``x`` is revealed as.  Raises UnsupportedError where an operation does not say what it loses."""
    loss, near = followed(x), apart(x)
    width, most = x.type.high - x.type.low, loss.most
    if width or not x.type.fraction_bits:
        # In the range is what is meant, and what is found: after many layers that is all that is left to say.
        most = min(most, width)
    relative = most / x.type.magnitude if x.type.magnitude else math.inf if most else 0.0
    margin, least = (near.margin, min(near.most, most)) if near else (0.0, most)
    return ErrorBound(most, relative, _source(loss)[0], min(loss.usual, most), margin, least)


def watch(node: m.Node, x: Expression) -> None:
    """Of ``node``, lowered to ``x``: warn where more than `LOST` is lost, and was not before; RangeError for all of it.

    Not of a leaf, nor of a truncation that was written, whose bits somebody has chosen.  Who computes with few is told
    of less than those leave.
    """
    if not node.inputs or _is_zero(node):
        return
    chosen = isinstance(node.operation, m.Truncate)
    # A truncation widens the range by what it loses.
    magnitude = min([x.type.magnitude, *(_magnitude(y) for y in node.inputs if chosen)])
    try:
        loss = followed(x)
    except UnsupportedError:
        # Nothing is known of it, so there is nothing to warn of; ``error`` says so.
        return
    asked = PRECISION if node.precision is None else node.precision
    allowed = max(LOST, 4 * 2.0**-asked) * magnitude
    if loss.usual < allowed or not magnitude:
        return
    before = max((_lost(y) for y in node.inputs), default=0.0)
    source, remedy = _source(loss)
    name = node.label or _NAMES.get(type(node.operation)) or _words(type(node.operation).__name__)
    # In long chains of secrets, and in networks, what is followed grows step by step beyond what is seen.
    if loss.usual >= magnitude and before < NEARLY and not node.label:
        raise RangeError(
            f"{name}: nothing is left of values up to {magnitude:g}, which may be off by {loss.usual:.2g}, mostly by"
            f" {source}: {remedy}"
        )
    if not chosen and before < allowed / magnitude:
        warnings.warn(
            f"{name}: of values up to {magnitude:g}, {loss.usual:.2g} is lost ({loss.usual / magnitude:.1g} of them),"
            f" mostly by {source}: {remedy}",
            PrecisionWarning,
            stacklevel=callers(),
        )


def watch_layers(node: m.Node) -> None:
    """As ``watch``, of all layers of a network that ``node`` is the result of: nobody did when they were written."""
    for each in m.written([node]):
        if each.label:
            for x in each.lowered.values():
                watch(each, x)


def _is_zero(node: m.Node) -> bool:
    """Whether it is a product with what is known to be 0: of that no digit can be lost."""
    return isinstance(node.operation, m.Multiply | m.Matmul | m.Conv2d) and not all(map(_magnitude, node.inputs))


def _magnitude(node: m.Node) -> float:
    return max((x.type.magnitude for x in node.lowered.values()), default=math.inf)


def _lost(node: m.Node) -> float:
    """The part of a value that was lost before; 1 would be all."""
    found = [followed(x).usual / x.type.magnitude for x in node.lowered.values() if x.type.magnitude]
    return max(found, default=0.0)


def _source(loss: Loss) -> tuple[str, str]:
    """What most of it comes of, and what helps."""
    x = loss.source
    if x is None:
        return "nothing", ""
    bits = x.type.fraction_bits
    more = "keep more fraction bits (x.precise(24)), declare the range that values have, or scale small ones up"
    fit = "ask for a better fit (terms, degree), or for one on a shorter interval"
    match x.operation:
        case Input():
            said = f"what was shared with {bits} fraction bits"
            remedy = "share with more fraction_bits, or with the range that the values have"
        case Stored(tensor=tensor):
            said, remedy = f"{tensor}, stored with {bits} fraction bits", "store it with more fraction bits"
        case Constant():
            said, remedy = f"a public number that is rounded to {bits} fraction bits", more
        case Truncate():
            said, remedy = f"a truncation to {bits} fraction bits", more
        case Quotient():
            said, remedy = f"a division, rounded to {bits} fraction bits", more
        case Comparison(dropped=dropped) if dropped and x.inputs[2] is x.inputs[0]:
            said, remedy = f"a truncation to {bits} fraction bits", more
        case Comparison():
            said, remedy = "a comparison of what is not exact", "compare whole numbers, or what is shared exactly"
        case Fourier() if x.lost < loss.part / 4:
            said, remedy = "the rounding of a series", more
        case Polynomial() | TruncatedPolynomial() if x.lost < loss.part / 4:
            said, remedy = "the truncation before a polynomial", more
        case _:
            said, remedy = "the fit of a function", fit
    return said + (f", in {x.label}" if x.label else ""), remedy


def _words(name: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z0-9])", " ", name).lower()
