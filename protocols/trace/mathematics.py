"""What is written, before any protocol: a graph whose nodes are mathematics on tensors of real numbers.

A node says what is computed and under which name it is counted; it says nothing of masks, of openings, or of where
something is rounded, unless its author asked for that.  ``protocols.lowering`` has a rule for each operation here.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mpc import operation as sources
from mpc.objective import Objective
from mpc.program import PRECISION, Expression
from mpc.program_format import DATA, Keeping
from mpc.tensor_type import Shape
from protocols.approximation import Fit
from protocols.trace.author import author
from protocols.trace.calculus import Called as Called
from protocols.trace.calculus import LetThrough as LetThrough
from protocols.trace.calculus import Masked as Masked
from protocols.trace.calculus import Slope as Slope
from protocols.trace.calculus import Sloped as Sloped

Reals = npt.NDArray[np.float64]


# -- leaves ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Secret:
    """A client's secret for this run, or a stored one; the source says shape, range and fraction bits.

    ``lost``: how far it may be from what its owner has, where that is more than half a unit, or where there are no
    fraction bits, which else says that there are whole numbers.  ``weight``: of a model, which its owner chooses.
    """

    source: sources.Input | sources.Stored
    lost: float = 0.0
    weight: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Public:
    """Numbers that everybody may know; how many fraction bits they take depends on what they meet."""

    values: Reals


@dataclass(frozen=True, slots=True)
class Draw:
    """Whole numbers of ``bits`` bits, uniform, that nobody knows."""

    shape: Shape
    bits: int


@dataclass(frozen=True, slots=True)
class Order:
    """Of so many rows, uniform, which nobody knows."""

    rows: int


# -- arithmetic --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Add:
    """With broadcasting, like all arithmetic."""


@dataclass(frozen=True, slots=True)
class Subtract:
    pass


@dataclass(frozen=True, slots=True)
class Negate:
    pass


@dataclass(frozen=True, slots=True)
class Multiply:
    """``at_once``: a factor that has to be truncated is so by the opening that it is multiplied by, for two elements
    more that are dealt for each; a round less.  ``by_slope``: to the digits that are kept of a gradient, and those that
    count of the second, a slope that it goes on by; so that it can be multiplied again.  ``within``: as of `Matmul`."""

    at_once: bool = False
    by_slope: bool = False
    within: float | None = None


@dataclass(frozen=True, slots=True)
class Divide:
    """By a public whole number from 1."""

    divisor: int


@dataclass(frozen=True, slots=True)
class Matmul:
    """As ``numpy.matmul``.  ``within``: what its author promises that the result is no larger than, whatever it could
    be by the ranges of operands."""

    within: float | None = None


@dataclass(frozen=True, slots=True)
class Conv2d:
    """Cross-correlation of (N, C, H, W) with (O, C / groups, kh, kw); ``within`` as of `Matmul`."""

    stride: tuple[int, int]
    padding: tuple[int, int]
    groups: int
    within: float | None = None


# -- reductions --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Sum:
    axes: tuple[int, ...]
    keepdims: bool


@dataclass(frozen=True, slots=True)
class Mean:
    axes: tuple[int, ...]
    keepdims: bool


@dataclass(frozen=True, slots=True)
class SumOfSquares:
    """Over axes, which stay, as 1: of as many digits of each value as the sum has room for."""

    axes: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class RunningSum:
    """Sums of the first one, two, ... along an axis."""

    axis: int


@dataclass(frozen=True, slots=True)
class AveragePool2d:
    """Means over windows of (N, C, H, W), padding counted."""

    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]


# -- shape -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Reshape:
    shape: Shape


@dataclass(frozen=True, slots=True)
class Transpose:
    axes: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Broadcast:
    shape: Shape


@dataclass(frozen=True, slots=True)
class Index:
    """(start, step, count) for each axis."""

    slices: tuple[tuple[int, int, int], ...]


@dataclass(frozen=True, slots=True)
class Take:
    """What lies at public positions of an axis: 4 bytes each, little-endian."""

    axis: int
    positions: bytes


@dataclass(frozen=True, slots=True)
class Shuffle:
    """The rows of the first operand, in the order that the second one says."""


@dataclass(frozen=True, slots=True)
class Pad:
    """Zeros around: (before, after) for each axis."""

    widths: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Concatenate:
    axis: int


# -- functions ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Polynomial:
    """c0 + c1 x + c2 x^2 + ..."""

    coefficients: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Apply:
    """A fit; rounding adds at most its own error, or ``target`` where that is larger.

    ``function``: the name of what it stands for, where that has one.
    """

    fit: Fit
    target: float
    function: str = ""


# -- comparison --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Compare:
    """1 where x >= 0, else 0, ties exact; x > 0 if ``strictly``, and the other way round if ``below``.

    A product with such a bit takes no round of its own where the other factor is masked, or can be beside it.
    """

    strictly: bool
    below: bool


@dataclass(frozen=True, slots=True)
class Equal:
    """1 where x = 0, else 0, or the other way round if ``below``; its products are as those of `Compare`."""

    below: bool


@dataclass(frozen=True, slots=True)
class OneHot:
    """Of whole numbers from 0 to ``count`` - 1: a last axis more, 1 at the place that each says, else 0."""

    count: int


@dataclass(frozen=True, slots=True)
class Relu:
    """x where x >= 0, else 0: exact, or within one unit of the precision where x has more fraction bits."""


@dataclass(frozen=True, slots=True)
class Maximum:
    """The larger of two, with broadcasting: exact, or within one unit of the precision, as with `Relu`."""


@dataclass(frozen=True, slots=True)
class Ranked:
    """Of two: the former, which is made of order statistics of the latter's values (the largest, the median, all in
    order), chosen exactly.  So it lies in the latter's range, and is off by no more.
    """


@dataclass(frozen=True, slots=True)
class Reach:
    """1 where x reaches a threshold above 0, else 0; what is nearer to it than ``tolerance``, a part of it, may count
    as either.
    """

    threshold: float
    tolerance: float


@dataclass(frozen=True, slots=True)
class Normalise:
    """The first operand x divided by ``low`` step^k, both powers of two, which is between 1 and step then: the others
    are k = 1, 2, ..., whether x has reached that, give or take a ``tolerance`` as of `Reach`.  What is below ``low`` is
    divided by it.
    """

    low: float
    step: int
    tolerance: float


# -- what its author says of a value -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Declare:
    """The same values, declared to lie in [low, high]."""

    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Known:
    """The same values, which lie in [low, high] by the way in which they are made.

    ``as_it_is``: whatever is computed is what is meant, so nothing was lost on the way: what is made of it puts right
    what it is off by.
    """

    low: float
    high: float
    as_it_is: bool = False


@dataclass(frozen=True, slots=True)
class Like:
    """The first operand.  What the others are off by, it is off by so many times, at most and usually; and by ``lost``,
    or usually by ``surely``, and what it is off by itself.
    """

    factors: tuple[tuple[float, float], ...]
    lost: float
    surely: float


@dataclass(frozen=True, slots=True)
class Assume:
    """The same values, taken to lie in [low, high], and compared with both ends: a bit beside the results says whether
    some did not.  ``roughly``: what is nearer to an end than a fifth of the range may be taken for beyond, and not a
    ninth.
    """

    low: float
    high: float
    roughly: bool = False


@dataclass(frozen=True, slots=True)
class Truncate:
    """The same values with at most so many fraction bits; or a multiple of them, by the same opening."""

    fraction_bits: int
    factor: float = 1.0


@dataclass(frozen=True, slots=True)
class Keep:
    """The same values, which also stay on the parties as a stored tensor of this name."""

    tensor: str


Mathematics = (
    Secret
    | Public
    | Draw
    | Order
    | Add
    | Subtract
    | Negate
    | Multiply
    | Divide
    | Matmul
    | Conv2d
    | Sum
    | Mean
    | SumOfSquares
    | RunningSum
    | AveragePool2d
    | Reshape
    | Transpose
    | Broadcast
    | Index
    | Take
    | Shuffle
    | Pad
    | Concatenate
    | Polynomial
    | Apply
    | Compare
    | Equal
    | OneHot
    | Relu
    | Maximum
    | Ranked
    | Reach
    | Normalise
    | Declare
    | Known
    | Like
    | Assume
    | Truncate
    | Keep
    | Called
    | Sloped
    | Slope
    | LetThrough
    | Masked
)

_numbers = itertools.count()


class Node:
    """One operation of the graph: immutable, and equal to itself alone.

    ``label`` names the layer it is counted under; ``precision``, where it was said, is the number of fraction bits that
    is kept of it where it has to be truncated.  Nodes are ``number``ed as they are written, so operands come first.
    ``line``: of the source text that wrote it.
    """

    __slots__ = ("__weakref__", "inputs", "label", "line", "lowered", "number", "operation", "precision")

    def __init__(
        self, operation: Mathematics, inputs: tuple[Node, ...] = (), label: str = "", precision: int | None = None
    ) -> None:
        self.operation = operation
        self.inputs = inputs
        self.label = label
        self.precision = precision
        self.line = author()
        self.number = next(_numbers)
        self.lowered: dict[Objective, Expression] = {}
        """What it was lowered to, by objective: a node that two results share is lowered once."""

    def __repr__(self) -> str:
        return f"<{type(self.operation).__name__} {self.number}>"


@dataclass(frozen=True, slots=True)
class Graph:
    """What is to be computed: values to reveal, values to keep and as what, and the precision that is asked for."""

    outputs: tuple[Node, ...]
    kept: tuple[Node, ...] = ()
    precision: int = PRECISION
    keeping: Keeping = DATA


def written(nodes: Iterable[Node], wanted: Callable[[Node], bool] = lambda _: True) -> list[Node]:
    """All ``wanted`` nodes that ``nodes`` depend on through wanted ones, they included, in the order of writing."""
    found: dict[int, Node] = {}
    stack = list(nodes)
    while stack:
        node = stack.pop()
        if node.number not in found and wanted(node):
            found[node.number] = node
            stack.extend(node.inputs)
    return [found[number] for number in sorted(found)]
