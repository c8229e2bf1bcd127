"""Declared ranges against real values: what a node's type says holds at the ends of its operands' ranges.

Ranges are not symmetric, and their ends lie between the units that a truncation leaves: where a bound is taken from the
wrong end or operand, or lacks a truncation's unit or a rounding, some value here is outside.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from mpc import fixed_point
from mpc.operation import Input, Stored
from mpc.program import Program
from mpc.rings import known_rings
from mpc.tensor_type import Form, TensorType
from protocols.approximation import FourierFit, PolynomialFit
from protocols.operations.fourier import Fourier
from protocols.operations.linear import Raise
from protocols.operations.polynomial import TruncatedPolynomial, polynomial_range
from protocols.readings.clear import clear_values
from protocols.readings.memory import run_in_memory
from protocols.trace.secret_tensor import SecretTensor, concatenate, leaf

SHAPE = (1, 2, 4, 4)
ODD = 2.0**-10
"""A quarter of the unit that a truncation to 8 bits leaves: beyond an end, the nearest one is further out."""
LEFT, RIGHT = (-3.0 - ODD, 1.0 + 3 * ODD), (-1.0 - ODD, 3.0 + 3 * ODD)
ABOVE, BELOW = (1.0 + ODD, 3.0 + 3 * ODD), (-3.0 - ODD, -1.0 - ODD)
RANGES = [(LEFT, RIGHT), (RIGHT, LEFT), (ABOVE, BELOW), (BELOW, ABOVE), (LEFT, LEFT), (ABOVE, LEFT)]
MIRRORED = [(RIGHT, LEFT), (BELOW, ABOVE)]
"""What they make wrong, the pair before each does too: at the other end."""

WAVE = FourierFit(1, 3, 0.25, (0.0, 0.125), (1.0,), -4.0, 4.0, 0.02)
"""Of so large an error that its rounding is coarse."""

OPERATIONS: dict[str, Callable[[SecretTensor, SecretTensor], SecretTensor]] = {
    "negate": lambda x, y: -x,
    "add": lambda x, y: x + y,
    "add a constant": lambda x, y: x + np.array([-0.5, 0.25, 7.0, -7.0]),
    "subtract": lambda x, y: x - y,
    "subtract from a constant": lambda x, y: 1 - x,
    "multiply": lambda x, y: x * y,
    "multiply by itself": lambda x, y: x * x,
    "multiply by a constant": lambda x, y: x * np.array([-0.3, 2.0, 0.1, -5.0]),
    "multiply what is multiplied": lambda x, y: (x * y) * (x - y) * y,
    "matmul": lambda x, y: x @ y,
    "matmul of other sides": lambda x, y: x.reshape(2, 16)[:1] @ y.reshape(16, 2),
    "matmul of vectors": lambda x, y: x.reshape(32) @ y.reshape(32),
    "matmul by a constant": lambda x, y: x @ np.array([[1.0, -2.0], [0.5, 0.25], [-3.0, 1.0], [2.0, 2.0]]),
    "conv2d": lambda x, y: x.conv2d(y.reshape(4, 2, 2, 2), padding=(1, 0)),
    "conv2d of few filters": lambda x, y: x.conv2d(y.reshape(1, 2, 4, 4)),
    "conv2d of groups": lambda x, y: x.conv2d(y.reshape(8, 1, 2, 2), groups=2),
    "conv2d of single elements, padded": lambda x, y: x.conv2d(y[:1, :1, :1, :1].broadcast_to((2, 1, 1, 1)), padding=1,
                                                                groups=2),
    "conv2d by a constant, padded": lambda x, y: x.conv2d(np.full((2, 1, 1, 1), 1.5), padding=(0, 1), groups=2),
    "sum": lambda x, y: x.sum(axis=(1, 3)),
    "cumsum": lambda x, y: x.cumsum(2),
    "take": lambda x, y: x[..., [0, 3]],
    "where": lambda x, y: np.where(np.eye(4) > 0, x, y),
    "triangles": lambda x, y: np.tril(x),
    "var": lambda x, y: x.var(axis=3),
    "mean": lambda x, y: x.mean(axis=2),
    "divide by 8": lambda x, y: x / 8,
    "divide by 6": lambda x, y: x / 6,
    "pad": lambda x, y: x.pad([(0, 0), (0, 0), (1, 0), (0, 0)]),
    "avg_pool2d": lambda x, y: x.avg_pool2d((2, 3)),
    "avg_pool2d, rows padded": lambda x, y: x.avg_pool2d(2, padding=(1, 0)),
    "avg_pool2d, columns padded": lambda x, y: x.avg_pool2d((3, 2), padding=(0, 1)),
    "concatenate": lambda x, y: concatenate([x, y]),
    "concatenate a constant": lambda x, y: concatenate([x, np.full((1, 2, 1, 4), 9.0), y], axis=2),
    "index": lambda x, y: x[:, ::-1, 1:],
    "reshape and transpose": lambda x, y: x.reshape(8, 4).T,
    "broadcast": lambda x, y: x.broadcast_to((3, 2, 4, 4)),
    "within": lambda x, y: x.within(-100.0, 100.0),
    "truncate": lambda x, y: x.truncate(8),
    "truncate a product": lambda x, y: (x * y).truncate(8) * 0.5,
    "square": lambda x, y: x.square(),
    "cube": lambda x, y: (x * y) ** 3,
    "fourth power": lambda x, y: x**4,
    "truncated polynomial": lambda x, y: (x * y).truncate(29).polynomial([0.25, -1.0, 0.5, 0.125]),
    "polynomial of high degree": lambda x, y: x.polynomial([1, 0.5, -0.25, 0, 0, 0.1, 0.01, -0.02]),
    "polynomial of a fit": lambda x, y: x.apply(PolynomialFit((0.5, 1.0, -0.25), -4.0, 4.0, 1e-3)),
    "wave": lambda x, y: x.apply(WAVE),
    "wave, coarse": lambda x, y: x.precise(6).apply(WAVE),
    "sigmoid": lambda x, y: x.sigmoid(interval=(-4, 4)),
}  # fmt: skip


def inside(values: Any, t: TensorType) -> bool:
    real = fixed_point.decode(values, t.fraction_bits, known_rings()[t.ring])
    slack = 2.0**-45 * t.magnitude  # of the floats in which bounds are computed
    return not real.size or bool(t.low - slack <= real.min() and real.max() <= t.high + slack)


def samples(program: Program) -> list[list[Any]]:
    """Inputs with all elements at one end, for every choice of ends; some with ends mixed; and whatever is between."""
    types = [program.nodes[i].type for i in program.inputs]
    chosen = [[np.full(t.shape, end) for t, end in zip(types, ends, strict=True)] for ends in itertools.product(
        *((t.low, t.high) for t in types)
    )]  # fmt: skip
    rng = np.random.default_rng(0)
    for _ in range(4):
        chosen.append([rng.choice([t.low, t.high], t.shape) for t in types])
        chosen.append([np.trunc(rng.uniform(t.low, t.high, t.shape) * 2.0**16) * 2.0**-16 for t in types])
    return [[fixed_point.encode(values, 16) for values in each] for each in chosen]


@pytest.mark.sampled(4)
@pytest.mark.parametrize(
    "ranges", [pytest.param(r, marks=pytest.mark.slow if r in MIRRORED else (), id=str(r)) for r in RANGES]
)
@pytest.mark.parametrize("name", OPERATIONS)
def test_every_value_is_where_its_type_says(secure: Any, name: str, ranges: Any) -> None:
    x, y = (secure.secret(SHAPE, *ends) for ends in ranges)
    program = secure.program(OPERATIONS[name](x, y))
    for inputs in samples(program):
        for node, values in zip(program.nodes, clear_values(program, inputs), strict=True):
            assert inside(values, node.type), node
        # What parties truncate may be the next unit up.
        for output, values in zip(program.outputs, run_in_memory(program, inputs).outputs, strict=True):
            assert inside(values, program.nodes[output].type)


@pytest.mark.parametrize("ranges", RANGES[:4], ids=str)
@pytest.mark.parametrize(
    "name",
    ["negate", "add", "subtract", "multiply", "matmul", "sum", "pad", "concatenate", "divide by 8", "conv2d of groups"],
)
def test_a_range_is_no_wider_than_it_has_to_be(secure: Any, name: str, ranges: Any) -> None:
    """Where all elements can be at the ends that make most of them, that is the bound: of sums, the larger one."""
    x, y = (secure.secret(SHAPE, *ends) for ends in ranges)
    result = OPERATIONS[name](x, y)
    program = secure.program(result)
    found = [
        fixed_point.decode(clear_values(program, inputs)[program.outputs[0]], result.type.fraction_bits)
        for inputs in samples(program)
    ]
    reached = (min(f.min() for f in found), max(f.max() for f in found))
    if name in ("matmul", "conv2d of groups"):
        assert result.type.magnitude == pytest.approx(max(map(abs, reached)))
    else:
        assert (result.type.low, result.type.high) == pytest.approx(reached)


@pytest.mark.parametrize("bits", [0, 1, 3, 16])
@pytest.mark.parametrize("ends", [(-1.5, 1.5), (0.3, 0.4), (-0.1, 2.5), (2.5, 3.5), (-2.0, 2.0), (0.0, 1e-6)])
@pytest.mark.parametrize("stored", [False, True])
def test_a_range_has_room_for_what_its_ends_are_encoded_as(ends: tuple[float, float], bits: int, stored: bool) -> None:
    low, high = ends
    source: Input | Stored = Stored((2,), bits, low, high, "o/m", "w") if stored else Input((2,), bits, low, high)
    t = source.result()
    assert inside(fixed_point.encode(np.array(ends), bits, low, high), t)
    assert t.low >= low - 2.0**-bits / 2
    assert t.high <= high + 2.0**-bits / 2
    if all(float(end * 2**bits).is_integer() for end in ends):
        assert (t.low, t.high) == ends


def test_powers_of_what_is_rounded_beyond_its_end(secure: Any) -> None:
    x = leaf(Input((1,), 0, -1.5, 1.5))
    program = secure.program(x**16)
    raw = fixed_point.encode(np.array([1.5]), 0, -1.5, 1.5)
    (value,) = clear_values(program, [raw])[program.outputs[0]]
    t = program.nodes[program.outputs[0]].type
    assert fixed_point.decode(value, t.fraction_bits) == 2.0**16 <= t.high


def test_powers_of_what_is_padded(secure: Any) -> None:
    x = secure.secret((1, 1, 1, 1), 4.0, 8.0)
    secure.check(
        lambda x: x.conv2d(np.ones((1, 1, 1, 1)), padding=1) ** 5, np.full((1, 1, 1, 1), 5.0), low=4.0, high=8.0,
        reference=lambda x: np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1))) ** 5, error=8.0,
    )  # fmt: skip
    t = x.conv2d(np.ones((1, 1, 1, 1)), padding=1).type
    assert (t.low, t.high) == (0.0, 8.0)


@pytest.mark.parametrize("bits", [6, 16, 29])
def test_waves_stay_within_their_range_at_any_precision(secure: Any, bits: int) -> None:
    """Over several periods, and where the series is largest: what rounding adds is part of the range."""
    x = np.arange(-16.0, 16.0, 2.0**-8)
    y = secure.secret(x.shape, -16.0, 16.0).precise(bits).apply(WAVE)
    program = secure.program(y)
    # What the series is of is assumed to lie in its interval; beyond it, it is another function, and no larger.
    first = next(i for i, node in enumerate(program.nodes) if isinstance(node.operation, Fourier))
    found = zip(program.nodes, clear_values(program, [fixed_point.encode(x, 16)]), strict=True)
    for node, values in itertools.islice(found, first, None):
        assert inside(values, node.type), node


@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize(("low", "high"), [(-1.0, 1.0), (0.0, 4.0), (-4.0, 0.0)])
def test_a_polynomial_may_be_largest_between_any_two_samples(low: float, high: float, sign: float) -> None:
    """sign (x - v)^2 for v halfway between two of the points at which a range is sampled, whichever those are."""
    for count in (2**k for k in range(6, 14)):
        v = low + (high - low) * (count // 3 + 0.5) / count
        bottom, top = polynomial_range((sign * v * v, -2 * sign * v, sign), low, high)
        assert bottom <= 0.0 if sign > 0 else top >= 0.0


def test_a_polynomial_of_an_interval_below_0() -> None:
    """x^2 (x + 3) is 4 at -2, halfway between two samples: its slope is large where x is, and not at 0."""
    for count in (2**k for k in range(6, 14)):
        low = -2.0 * count / (count // 2 + 0.5)
        bottom, top = polynomial_range((0.0, 0.0, 3.0, 1.0), low, 0.0)
        assert top >= 4.0
        mirrored = polynomial_range((0.0, 0.0, 3.0, -1.0), 0.0, -low)
        assert (bottom, top) == pytest.approx(mirrored)


@pytest.mark.parametrize(("low", "high"), [LEFT, RIGHT, ABOVE, BELOW])
def test_a_truncation_in_a_polynomial_may_go_beyond_either_end(low: float, high: float) -> None:
    t = TruncatedPolynomial((0, 1), 0, 8).result(TensorType((3,), 16, low, high, Form.MASKED))
    assert t.low <= np.floor(low * 2.0**8) * 2.0**-8
    assert t.high >= np.ceil(high * 2.0**8) * 2.0**-8


def test_series_may_be_largest_between_any_two_samples() -> None:
    for count in (2**k for k in range(6, 16)):
        shift = 2 * np.pi * (count // 3 + 0.5) / count
        fit = FourierFit(1, 4, 0.0, (float(np.cos(shift)),), (float(np.sin(shift)),), -8.0, 8.0, 1e-3)
        low, high = fit.range()
        assert high >= 1.0 - 2.0**-50
        assert low <= -1.0 + 2.0**-50


def weight(shape: tuple[int, ...], gain: float | None, bits: int = 10) -> SecretTensor:
    return leaf(Stored(shape, bits, -0.5, 0.5, "model", "w", gain))


def test_a_gain_is_of_the_weight_as_it_is_stored(secure: Any) -> None:
    """Of what is computed from a weight, another layout or other values, it says nothing."""
    w = weight((8, 2), 1.5)
    assert w.type.gain == 1.5
    for changed in (
        w.T,
        w.reshape(2, 8),
        w[:, :1],
        -w,
        w / 2,
        w.sum(axis=0),
        w.pad([(0, 0), (0, 1)]),
        w.broadcast_to((2, 8, 2)),
        w.within(-0.25, 0.5),
        w + w,
        w * w,
        concatenate([w, w]),
    ):
        assert changed.type.gain is None, changed
    assert Raise(3).result(w.type).gain is None
    x = secure.secret((3, 8), -1.0, 2.0)
    assert (x @ w).type.high == 3.0
    assert (x @ w.reshape(2, 8).T).type.high == 8.0
    # Where as many values as there are cannot reach it, the gain is no bound.
    assert (x @ weight((8, 2), 100.0)).type == (x @ weight((8, 2), None)).type


def test_a_gain_saves_truncations(secure: Any) -> None:
    x = secure.secret((1, 2**12), bits=30)
    assert (x @ weight((2**12, 2), 2.0, bits=17)).type.fraction_bits == 47
    assert (x @ weight((2**12, 2), None, bits=17)).type.fraction_bits < 47
    images = x.reshape(1, 1, 64, 64)
    assert images.conv2d(weight((3, 1, 60, 60), 2.0, bits=17)).type.fraction_bits == 47
    assert images.conv2d(weight((3, 1, 60, 60), None, bits=17)).type.fraction_bits < 47
