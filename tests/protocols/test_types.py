"""Types are sound: whatever goes in, a value lies where its type says; for every operation, at random types.

`OPERATIONS` has an entry for each operation that is registered: how to make one, of operands at random types, that it
takes.  What is drawn for them is at the ends of their ranges and between; the clear reading and the parties' are both
looked at, node by node.  An operation without an entry fails `test_every_operation_is_among_them`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from mpc import fixed_point
from mpc.errors import RangeError
from mpc.objective import ANY, LATENCY, TRAFFIC, Objective
from mpc.operation import Constant, Input, Stored, registered
from mpc.program import Expression, Program
from mpc.rings import FIELD, field, known_rings
from mpc.security import Security
from mpc.tensor_type import TensorType
from protocols.lowering import comparison
from protocols.lowering.in_range import within
from protocols.lowering.planner import Planner
from protocols.operations import draw as random
from protocols.operations import (
    fourier,
    keep,
    linear,
    mask,
    one_hot,
    polynomial,
    product,
    quotient,
    shuffle,
    truncated_product,
    truncation,
)
from protocols.operations.assume import Assume
from protocols.operations.astray import Astray, Span
from protocols.operations.beyond import Beyond, Beyonds
from protocols.operations.comparison import Compare, Join
from protocols.operations.digits import EXACTLY, Digits, Tables
from protocols.operations.gate import Gate
from protocols.operations.in_range import Coefficients
from protocols.operations.nonzero import Nonzero, Zero
from protocols.readings.clear import clear_values
from protocols.readings.memory import MemoryStore, run_in_memory

ROUNDS = [range(4), pytest.param(range(4, 16), marks=pytest.mark.slow)]
"""Seeds of random types of each operation."""


class Draw:
    """Operands at random types: one sign or both, wide or all but a point, a few fraction bits or many."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)

    def whole(self, low: int, high: int) -> int:
        return int(self.rng.integers(low, high + 1))

    def shape(self, *shape: int) -> tuple[int, ...]:
        return shape or tuple(self.whole(1, 3) for _ in range(self.whole(1, 3)))

    def range(self) -> tuple[float, float]:
        size = 2.0 ** self.rng.uniform(-6, 6)
        a, b = sorted(self.rng.uniform(-size, size, 2))
        ends = [(a, b), (abs(a), abs(a) + abs(b)), (-abs(a) - abs(b), -abs(a)), (0.0, abs(b)), (-abs(a), 0.0), (a, a)]
        low, high = ends[self.whole(0, len(ends) - 1)]
        return float(low), float(high)

    def secret(self, *shape: int, bits: int | None = None, stored: bool = False) -> Expression:
        f = self.whole(3, 16) if bits is None else bits
        low, high = self.range()
        if stored:
            # Padding and such forget a gain: the weakest that is true.
            return Expression(Stored(self.shape(*shape), f, low, high, "model", f"t{self.whole(0, 10**9)}"))
        return Expression(Input(self.shape(*shape), f, low, high))

    def constant(self, *shape: int, bits: int | None = None) -> Expression:
        f = self.whole(0, 12) if bits is None else bits
        raw = fixed_point.encode(self.rng.uniform(*self.range(), self.shape(*shape)), f)
        real = fixed_point.decode(raw, f)
        return Expression(Constant(raw.shape, f, float(real.min()), float(real.max()), raw.astype("<u8").tobytes()))

    def either(self, *shape: int, bits: int | None = None) -> Expression:
        """A factor: secret, stored, or public."""
        kind = self.whole(0, 2)
        return self.constant(*shape, bits=bits) if kind == 0 else self.secret(*shape, bits=bits, stored=kind == 1)

    def shared(self) -> Expression:
        """What nobody has masked yet."""
        x = self.secret(bits=12)
        return Expression(truncation.Truncate(self.whole(1, 8)), (x,))

    def windows(self) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int]]:
        """A kernel, a stride and a padding of at most half the kernel."""
        kernel = self.whole(1, 3), self.whole(1, 3)
        return (
            kernel,
            (self.whole(1, 2), self.whole(1, 2)),
            (self.whole(0, kernel[0] // 2), self.whole(0, kernel[1] // 2)),
        )


Make = Callable[[Draw], Expression]

OPERATIONS: dict[str, Make] = {}


def of(tag: str) -> Callable[[Make], Make]:
    def entered(make: Make) -> Make:
        OPERATIONS[tag] = make
        return make

    return entered


def of_one(tag: str, operation: Callable[[Draw, TensorType], Any], *shape: int, bits: int | None = None) -> None:
    """An operation of one secret tensor."""

    def make(draw: Draw) -> Expression:
        x = draw.secret(*shape, bits=bits, stored=draw.whole(0, 1) == 1)
        return Expression(operation(draw, x.type), (x,))

    OPERATIONS[tag] = make


OPERATIONS["input"] = lambda draw: draw.secret()
OPERATIONS["stored"] = lambda draw: draw.secret(stored=True)
OPERATIONS["constant"] = lambda draw: Expression(linear.Add(), (draw.secret(2, bits=9), draw.constant(2, bits=9)))
OPERATIONS["mask"] = lambda draw: Expression(mask.Mask(), (draw.shared(),))
OPERATIONS["keep"] = lambda draw: Expression(keep.Keep("kept"), (draw.shared(),))

for _tag, _sum in (("add", linear.Add), ("subtract", linear.Subtract)):
    OPERATIONS[_tag] = lambda draw, kind=_sum: Expression(kind(), (draw.secret(2, 3, bits=8), draw.either(3, bits=8)))

of_one("negate", lambda draw, t: linear.Negate())
of_one("raise", lambda draw, t: linear.Raise(draw.whole(1, 20)))
of_one("divide", lambda draw, t: linear.Divide(-draw.whole(1, 8) if draw.whole(0, 1) else draw.whole(1, 20)), bits=8)
of_one("sum", lambda draw, t: linear.Sum((draw.whole(0, 1),), draw.whole(0, 1) == 1), 2, 3)
of_one("running_sum", lambda draw, t: linear.RunningSum(draw.whole(0, 1)), 2, 3)
of_one("sum_pool2d", lambda draw, t: linear.SumPool2d(*draw.windows()), 1, 2, 4, 3)
of_one("reshape", lambda draw, t: linear.Reshape((3, 2)), 2, 3)
of_one("transpose", lambda draw, t: linear.Transpose((1, 0)), 2, 3)
of_one("broadcast", lambda draw, t: linear.Broadcast((2, 3)), 3)
of_one("index", lambda draw, t: linear.Index(((1, -1, draw.whole(0, 2)), (0, 2, 2))), 2, 3)
of_one("take", lambda draw, t: linear.Take(1, np.array([2, 0, 0], "<u4").tobytes()), 2, 3)
of_one("pad", lambda draw, t: linear.Pad(((draw.whole(0, 1), 0), (0, draw.whole(0, 2)))), 2, 3)
of_one("truncate", lambda draw, t: truncation.Truncate(draw.whole(1, t.fraction_bits)))
of_one("quotient", lambda draw, t: quotient.Quotient(draw.whole(2, 1000)))
of_one("polynomial", lambda draw, t: polynomial.Polynomial(_coefficients(draw), 6), bits=8)
of_one("truncated_polynomial", lambda draw, t: polynomial.TruncatedPolynomial(_coefficients(draw), 6, 5), bits=11)


def _coefficients(draw: Draw) -> tuple[int, ...]:
    return tuple(draw.whole(-100, 100) for _ in range(draw.whole(2, 4)))


@of("declare")
def _declared(draw: Draw) -> Expression:
    """A promise, which is kept here: half a unit beyond what is true, at one end or at both."""
    x = draw.secret()
    width = 1.0 + x.type.high - x.type.low
    low, high = x.type.low - width * draw.whole(0, 1), x.type.high + width * draw.whole(0, 1)
    return Expression(linear.Declare(low, high), (x,))


@of("concatenate")
def _joined(draw: Draw) -> Expression:
    return Expression(linear.Concatenate(1), (draw.secret(2, 1, bits=7), draw.either(2, 3, bits=7)))


@of("multiply")
def _multiplied(draw: Draw) -> Expression:
    x = draw.secret(2, 3)
    return Expression(product.Multiply(), (x, x if draw.whole(0, 3) == 0 else draw.either(3)))


@of("truncated_multiply")
def _truncated_product(draw: Draw) -> Expression:
    x, y = draw.secret(2, 3), draw.secret(3)
    bits = draw.whole(0, x.type.fraction_bits), draw.whole(1, y.type.fraction_bits)
    return Expression(truncated_product.TruncatedMultiply(bits), (x, y))


@of("matmul")
def _matrices(draw: Draw) -> Expression:
    n = draw.whole(1, 3)
    return Expression(product.Matmul(), (draw.secret(2, n), draw.either(n, 2)))


@of("conv2d")
def _convolution(draw: Draw) -> Expression:
    groups, padding = draw.whole(1, 2), (draw.whole(0, 2), draw.whole(0, 2))
    # One product an element, or several.
    kernel = (1, 1) if draw.whole(0, 1) else (2, 3)
    weight = draw.either(2, 2 // groups, *kernel)
    return Expression(product.Conv2d((draw.whole(1, 2), 1), padding, groups), (draw.secret(1, 2, 4, 3), weight))


@of("fourier")
@of("waves")
def _series(draw: Draw) -> Expression:
    """As the planner makes them: the range that is declared is of a fit, and of what rounding adds."""
    x, terms = draw.secret(bits=16), draw.whole(1, 4)
    bits = draw.whole(8, 20)
    scale = 2.0 ** (bits + fourier.EXTRA_BITS)
    raw = [tuple(draw.whole(-1, 1) * int(scale) // draw.whole(1, 3) for _ in range(terms)) for _ in range(2)]
    gain = sum(abs(c) for c in (*raw[0], *raw[1])) / scale
    end = gain + (terms + gain) * 2.0**-bits
    operation = fourier.Fourier(draw.whole(1, 5), 18, 0, *raw, bits, bits, -end, end)
    return Expression(operation, (x, Expression(fourier.Waves(operation.multiplier, 18, terms, bits), (x,))))


def _of_both_signs(draw: Draw) -> Expression:
    return Expression(Input((2, 3), draw.whole(12, 24), -draw.rng.uniform(0.01, 9.0), draw.rng.uniform(0.01, 9.0)))


STRICT = Objective(ANY, Security.MALICIOUS)


@of("one_hot")
def _one_hot(draw: Draw) -> Expression:
    count = draw.whole(1, 9)
    return Planner().make(one_hot.OneHot(count), Expression(Input(draw.shape(), 0, 0.0, count - 1.0)))


@of("draw")
@of("bits")
def _bits(draw: Draw) -> Expression:
    return Planner().make(random.Bits(3), Expression(random.Draw(draw.shape(), 3)))


@of("order")
@of("places")
@of("shuffled")
def _shuffled(draw: Draw) -> Expression:
    x = draw.secret()
    rows, start = x.type.shape[0], draw.whole(0, x.type.shape[0] - 1)
    order = Expression(shuffle.Order(rows))
    return Expression(shuffle.Shuffled(start, rows), (x, order, Expression(shuffle.Places(start, rows), (order,))))


@of("tables")
@of("digits")
def _digits(draw: Draw) -> Expression:
    return _bit(draw, TRAFFIC)


@of("steps")
@of("weighed")
def _weighed(draw: Draw) -> Expression:
    return _bit(draw, LATENCY)


@of("factors")
@of("residue")
def _factors(draw: Draw) -> Expression:
    return _bit(draw, STRICT)


@of("compare")
def _compared(draw: Draw) -> Expression:
    """A bit, or what it lets through."""
    cut, compared = (EXACTLY, (10,) * 6, FIELD), Planner().masked(_of_both_signs(draw))
    made = Planner().make(Digits(*cut), compared, Planner().make(Tables(*cut), compared))
    passed = [compared] * draw.whole(0, 1)
    return Planner().make(Compare(EXACTLY, False, False, 0, False), compared, Planner().masked(made), *passed)


@of("join")
def _join(draw: Draw) -> Expression:
    cut, compared = (EXACTLY, (10,) * 6, FIELD), _of_both_signs(draw)
    x = Planner().masked(Planner().make(Digits(*cut), compared, Planner().make(Tables(*cut), compared)))
    joined = Planner().make(Join(((6,), (2, 1, 3), (1,) * 6)[draw.whole(0, 2)]), x)
    return Planner().make(Compare(EXACTLY, False, False, 0, False), compared, Planner().masked(joined))


@of("sign")
def _sign(draw: Draw) -> Expression:
    return _bit(draw, TRAFFIC)


@of("residuosity")
def _residuosity(draw: Draw) -> Expression:
    return _ended(draw, STRICT)


@of("sign_bits")
def _passed(draw: Draw) -> Expression:
    """By the bit of a sum of digits."""
    return comparison.passed(Planner(objective=LATENCY), _of_both_signs(draw), draw.secret(2, 3))


@of("signed")
def _signed(draw: Draw) -> Expression:
    return _ended(draw, LATENCY)


@of("lifted")
def _lifted(draw: Draw) -> Expression:
    return _ended(draw, TRAFFIC)


@of("nonzero")
def _nonzero(draw: Draw) -> Expression:
    return _scaled(draw, Nonzero())


@of("zero")
def _zero(draw: Draw) -> Expression:
    return _scaled(draw, Zero())


def _scaled(draw: Draw, operation: Nonzero | Zero) -> Expression:
    count = Expression(Input((draw.whole(1, 3),), 0, 0.0, 0.0))
    return Expression(operation, (count, Expression(Coefficients(count.type.size))))


@of("gate")
def _gated(draw: Draw) -> Expression:
    """Of counts that are 0: else there is no result."""
    y = draw.either(2, 3)
    count = Expression(Input((draw.whole(1, 2),), 0, 0.0, 0.0))
    return Expression(Gate(), (y if y.type.form else draw.secret(2, 3), count, Expression(Coefficients(6))))


@of("assume")
def _assumed(draw: Draw) -> Expression:
    """Which holds."""
    x = draw.secret()
    return Expression(Assume(x.type.low - draw.whole(0, 1), x.type.high + 1.0, 3), (x,))


@of("astray")
def _astray(draw: Draw) -> Expression:
    """Of what is where it is assumed to be, as a bit of a secret's result."""
    x, y = draw.secret(2, 3), draw.secret(2, 3)
    rows, found = draw.whole(1, 2), list[Expression]()
    for each in (x, y):
        # Of a type that could be beyond.
        end = each.type.high + (each.type.high - each.type.low) + 1.0
        span = Span.of(each.type.replace(high=end + 1.0), each.type.low - 1.0, end, draw.whole(3, 5))
        found = [Expression(Astray(rows, span), (each, Expression(Coefficients(6)), *found))]
    count = Expression(mask.Mask(), tuple(found))
    return Expression(Nonzero(), (count, Expression(Coefficients(rows))))


@of("beyond")
@of("beyonds")
def _beyond(draw: Draw) -> Expression:
    """How many are beyond what holds: none, behind others."""
    bits, sizes = list[Expression](), list[int]()
    for x in (draw.secret(2, 3), draw.secret(2, 1)):
        end = x.type.high + (x.type.high - x.type.low) + 1.0
        watch = Beyond.of(x.type.replace(high=end + 1.0), x.type.low - 1.0, end, draw.whole(3, 5))
        assert watch is not None
        bits, sizes = [Expression(watch, (x, *bits))], [*sizes, x.type.size]
    return Expression(Beyonds(tuple(sizes), draw.whole(1, 2)), (Expression(mask.Mask(), (bits[0],)),))


@of("within")
@of("ends")
@of("coefficients")
def _within(draw: Draw) -> Expression:
    return within(draw.secret(2, 3), LATENCY)


@of("decomposed")
@of("recomposed")
def _recomposed(draw: Draw) -> Expression:
    return within(draw.secret(2, 3), STRICT)


def _bit(draw: Draw, objective: Objective) -> Expression:
    kinds = {"strictly": draw.whole(0, 1) == 1, "below": draw.whole(0, 1) == 1}
    return comparison.compared(Planner(objective=objective), _of_both_signs(draw), **kinds)


def _ended(draw: Draw, objective: Objective) -> Expression:
    """A bit; or what is let through, by its own sign, of which some bits are ignored, or by something else's."""
    planner = Planner(objective=objective)
    match draw.whole(0, 2):
        case 0:
            return _bit(draw, objective)
        case 1:
            return comparison.relu(planner, _of_both_signs(draw))
    result = comparison.gated(planner, _bit(draw, objective), draw.secret(2, 3))
    assert result is not None
    return result


def at_random(draw: Draw, t: TensorType) -> Any:
    """Raw values of a type: all at one end, at both, or anything between."""
    low, high = math.ceil(t.low * 2.0**t.fraction_bits), math.floor(t.high * 2.0**t.fraction_bits)
    special = [v for v in (low, high, 0, 1, -1) if low <= v <= high] or [low]
    match draw.whole(0, 3):
        case 0:
            raw = np.full(t.shape, special[draw.whole(0, 1) % len(special)])
        case 1:
            raw = draw.rng.choice(special, t.shape)
        case 2:
            raw = draw.rng.choice([low, high], t.shape)
        case _:
            raw = draw.rng.integers(low, max(high, low) + 1, t.shape)
    return field.from_signed(np.asarray(raw, np.int64))


def outside(values: Any, t: TensorType) -> float:
    """How far, in parts of the magnitude beyond what floats lose."""
    real = fixed_point.decode(values, t.fraction_bits, known_rings()[t.ring])
    if not real.size:
        return 0.0
    return max(0.0, float(max(t.low - real.min(), real.max() - t.high)) - 2.0**-45 * t.magnitude)


def test_every_operation_is_among_them() -> None:
    ours = {tag for tag, kind in registered().items() if kind.__module__.partition(".")[0] in ("mpc", "protocols")}
    assert not ours - set(OPERATIONS), "tests/protocols/test_types.py has no entry for these"


@pytest.mark.sampled(4)
@pytest.mark.parametrize("seeds", ROUNDS, ids=str)
@pytest.mark.parametrize("tag", sorted(OPERATIONS))
def test_values_are_where_types_say(secure: Any, tag: str, seeds: range) -> None:
    made = 0
    for seed in seeds:
        draw = Draw(seed)
        try:
            x = OPERATIONS[tag](draw)
            program = Program.of([x])
        except RangeError:
            continue
        assert tag in {node.operation.name for node in program.nodes}
        made += 1
        for _ in range(3):
            inputs = [at_random(draw, program.nodes[i].type) for i in program.inputs]
            stored = {
                (node.operation.slot, node.operation.tensor): at_random(draw, node.type)
                for node in program.nodes
                if isinstance(node.operation, Stored)
            }
            drawn = [at_random(draw, program.nodes[i].type) for i in program.draws]
            for node, values in zip(program.nodes, clear_values(program, inputs, stored, drawn=drawn), strict=True):
                assert not outside(values, node.type), (seed, node)
            for parties in (2, 3):
                store = MemoryStore("model", {name: array for (_, name), array in stored.items()}, parties)
                run = run_in_memory(program, inputs, parties=parties, store=store)
                assert not outside(run.outputs[0], x.type), (seed, x)
    assert made >= len(seeds) // 2
