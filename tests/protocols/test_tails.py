"""Functions without an interval: right at the seams of their pieces, in the tails, and at the ends of any range."""

from __future__ import annotations

import contextlib
import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpc import fixed_point
from mpc.errors import RangeError, UnsupportedError
from mpc.objective import ANY, LATENCY, TRAFFIC, Objective
from mpc.operation import Input
from mpc.program import Program
from mpc.security import Security
from protocols.approximation import FUNCTIONS
from protocols.approximation.fits import Reals
from protocols.approximation.tails import OVERLAP, tailed
from protocols.operations.comparison import Comparison
from protocols.operations.digits import Digits
from protocols.operations.fourier import Fourier
from protocols.operations.mask import Mask
from protocols.readings.memory import run_in_memory
from protocols.trace.activations import SELU_ALPHA, SELU_SCALE
from protocols.trace.secret_tensor import leaf

TAILED = [name for name, function in FUNCTIONS.items() if function.tails is not None]
STRICT = Objective(ANY, Security.MALICIOUS)
VARIANTS = {"latency": LATENCY, "traffic": TRAFFIC, "with MACs": STRICT}
Exact = Callable[[Reals], Reals]


def elu(x: Reals, alpha: float = 1.0) -> Reals:
    return np.where(x >= 0, x, alpha * np.expm1(np.minimum(x, 0.0)))


OTHERS: dict[str, tuple[Callable[[Any], Any], Exact, float]] = {
    "elu": (lambda s: s.elu(), elu, 1e-4),
    "elu(3)": (lambda s: s.elu(3.0), lambda x: elu(x, 3.0), 3e-4),
    "selu": (lambda s: s.selu(), lambda x: SELU_SCALE * elu(x, SELU_ALPHA), 2e-4),
    "celu(2)": (lambda s: s.celu(2.0), lambda x: 2 * elu(x / 2), 2e-4),
    "logsigmoid": (lambda s: s.logsigmoid(), lambda x: -np.logaddexp(0.0, -x), 1e-4),
    "hardtanh": (lambda s: s.hardtanh(), lambda x: np.clip(x, -1, 1), 0.0),
    "relu6": (lambda s: s.relu6(), lambda x: np.clip(x, 0, 6), 0.0),
    "hardsigmoid": (lambda s: s.hardsigmoid(), lambda x: np.clip(x / 6 + 0.5, 0, 1), 2.0**-16),
    "hardswish": (lambda s: s.hardswish(), lambda x: x * np.clip(x / 6 + 0.5, 0, 1), 2.0**-16),
}
"""What is computed, what is meant, and by how much a fit may err."""
ALL = {
    **{name: (lambda s, n=name: getattr(s, n)() if n != "gelu_tanh" else s.gelu(approximate="tanh"),
              FUNCTIONS[name].exact, FUNCTIONS[name].target) for name in TAILED},
    **OTHERS,
}  # fmt: skip


def points(low: float, high: float, bits: int) -> Reals:
    """Of a range: its ends, powers of two of both signs, the middle, and each seam and its neighbours."""
    marks = [low, high, 0.0, *np.linspace(-16, 16, 257), *(s * 2.0**k for k in range(-8, 21) for s in (-1, 1))]
    seams = [end for name in TAILED for seam in tailed(name).seams for end in (*seam, sum(seam) / 2)]
    marks += [end + k * 2.0**-bits for end in (*seams, -6.0, -3.0, -1.0, 1.0, 3.0, 6.0) for k in (-1, 0, 1)]
    return np.unique(np.clip(np.rint(np.array(marks) * 2.0**bits), low * 2.0**bits, high * 2.0**bits)) * 2.0**-bits


def planned(x: Any, build: Callable[[Any], Any], secure: Any, objective: Objective) -> tuple[Any, Program]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        y = build(x)
    return y, secure.program(y, objective=objective)


def revealed(program: Program, x: Reals, bits: int, parties: int = 2) -> Reals:
    run = run_in_memory(program, [fixed_point.encode(x, bits)], parties=parties, security=program.objective.security)
    t = program.nodes[program.outputs[0]].type
    got = fixed_point.decode(run.outputs[0], t.fraction_bits)
    assert t.low <= got.min()
    assert got.max() <= t.high
    return got


@pytest.mark.sampled(4)
@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize(
    ("low", "high", "bits", "variant", "parties"),
    [
        (-(2.0**10), 2.0**10, 16, "latency", 2),
        (-(2.0**20), 2.0**20, 16, "traffic", 3),
        (-64.0, 2.0**20, 16, "with MACs", 2),
        pytest.param(-20.0, 11.0, 24, "latency", 3, marks=pytest.mark.slow),
        pytest.param(-1.0, 300.0, 16, "traffic", 2, marks=pytest.mark.slow),
    ],
)
def test_right_on_the_whole_range(
    secure: Any, name: str, low: float, high: float, bits: int, variant: str, parties: int
) -> None:
    build, exact, target = ALL[name]
    x = points(low, high, bits)
    y, program = planned(leaf(Input(x.shape, bits, low, high)), build, secure, VARIANTS[variant])
    error = np.abs(revealed(program, x, bits, parties) - exact(x))
    # A fit, rounding by no more than its target, and one unit of what is kept.
    # SELU's multiple takes digits, of all values those that it takes of the largest.
    unit = 2.0**-16 + (2.0**-28 * high if name == "selu" else 0.0)
    assert error.max() <= 2 * target + unit
    assert error.max() <= y.error.absolute
    if name in TAILED:
        assert y.error.absolute <= 4 * target + 2.0**-bits


@pytest.mark.parametrize("name", sorted(ALL.keys() - {"selu"}))
def test_lines_are_exact_in_the_tails(secure: Any, name: str) -> None:
    """Not as near as the function is to its line: the line itself, to the last bit that is kept."""
    build, exact, _ = ALL[name]
    x = np.array([-(2.0**20), -777.0, -40.0, 40.0, 777.25, 2.0**20])
    _, program = planned(leaf(Input(x.shape, 16, -(2.0**20), 2.0**20)), build, secure, LATENCY)
    assert np.abs(revealed(program, x, 16) - exact(x)).max() <= 2.0**-16


@given(
    name=st.sampled_from(sorted(ALL)),
    middle=st.floats(-40, 40),
    log2=st.floats(-3, 20),
    bits=st.integers(10, 30),
    seed=st.integers(0, 2**32),
)
@settings(max_examples=15)
def test_right_on_any_range(secure: Any, name: str, middle: float, log2: float, bits: int, seed: int) -> None:
    build, exact, target = ALL[name]
    low, high = (math.floor(end * 2.0**bits) * 2.0**-bits for end in (middle - 2.0**log2, middle + 2.0**log2))
    x = np.concatenate([points(low, high, bits), secure.draw(seed, (50,), low, high, bits)])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of x that has few digits
        y = build(leaf(Input(x.shape, bits, low, high)))
    error = np.abs(revealed(secure.program(y), x, bits) - exact(x))
    assert error.max() <= y.error.absolute
    # Products of x have the digits that it leaves them: selu by a constant, hardswish by clip(x + 3).
    digits = {"selu": 2.0**-28, "hardswish": 2.0**-22}.get(name, 0.0)
    unit = 2.0**-15 + 2.0**-bits + digits * max(high, 0.0)
    assert error.max() <= 2 * target + unit


@pytest.mark.parametrize("parties", [2, 3])
@pytest.mark.parametrize("variant", VARIANTS)
def test_rounds_and_bytes_are_as_predicted(secure: Any, variant: str, parties: int) -> None:
    x, w = secure.secret((3, 7), -64, 64), secure.secret((7, 5))
    y = (x @ w).silu() + (x @ w).sigmoid()
    program = secure.program(y, objective=VARIANTS[variant])
    raw = [fixed_point.encode(secure.draw(i, s, -4, 4), 16) for i, s in enumerate(((3, 7), (7, 5)))]
    secure.as_predicted(program, raw, parties, program.objective.security)
    # One opening of each x, and one round more; where bytes count, two.
    assert program.rounds == (3 if variant == "traffic" else 2)


@pytest.mark.parametrize("name", TAILED)
def test_what_is_known_to_lie_in_the_middle_takes_one_round(secure: Any, name: str) -> None:
    function = FUNCTIONS[name]
    for low, high in ((function.low, function.high), (0.9 * function.low, function.high * 1.2)):
        program = secure.program(secure.secret((4,), low, high).apply(tailed(name)))
        assert program.rounds == 0
        assert not any(isinstance(node.operation, Comparison) for node in program.nodes)


def test_the_objective_weighs_one_long_fit_against_a_middle_and_a_round(secure: Any) -> None:
    def terms(objective: Objective, end: float = 20.0) -> list[int]:
        program = secure.program(secure.secret((100,), -end, end).sigmoid(), objective=objective)
        return [node.operation.terms for node in program.nodes if isinstance(node.operation, Fourier)]

    (middle,) = (piece.terms for piece in tailed("sigmoid").pieces if hasattr(piece, "terms"))
    (long,) = terms(LATENCY)
    assert long > middle
    assert terms(TRAFFIC) == [middle]
    assert terms(Objective(10**6)) == [long]
    assert terms(LATENCY, 21.0) == [middle]


def test_a_threshold_between_overlapping_pieces_is_rough(secure: Any) -> None:
    """Half an overlap is as near as it has to be found: 7 bits for a range of +-64, where a sign takes 24."""
    program = secure.program(secure.secret((4,), -64, 64).silu())
    found = [node.operation for node in program.nodes if isinstance(node.operation, Digits)]
    assert [sum(each.widths) for each in found] == [7, 7]
    assert {each.ignored for each in found} == {17 + math.floor(math.log2(OVERLAP / 2))}


def test_a_function_opens_x_once_and_its_middle(secure: Any) -> None:
    x = secure.secret((4,), -64, 64)
    program = secure.program((x + x * 0.5).gelu())
    opened = [node for node in program.nodes if isinstance(node.operation, Mask) and node.type.ring == "field"]
    assert len([node for node in opened if node.type.shape == (4,)]) <= 2


@pytest.mark.parametrize(("low", "high"), [(-5, 25), (-100, 0), (-30, 12), (-20, 8), (-60, 30), (3, 25)])
def test_exp_is_right_by_relative_error(secure: Any, low: float, high: float) -> None:
    """A thousandth of each value, down to 2^-20 or a millionth of the largest, whichever is less, 0 below; or to one
    unit, where the field has no digits for less."""
    x = np.linspace(low, high, 1001)
    x = np.rint(x * 2.0**16) * 2.0**-16
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        y = leaf(Input(x.shape, 16, low, high)).exp()
    program = secure.program(y)
    got, true = revealed(program, x, 16), np.exp(x)
    unit = 2.0 ** -program.nodes[program.outputs[0]].type.fraction_bits
    error = np.abs(got - true)
    assert (error <= np.maximum(1e-3 * true, max(2 * unit, min(1.0, math.exp(high)) * 2.0**-20))).all()
    assert error.max() <= 1e-5 * math.exp(high)
    assert error.max() <= y.error.absolute
    assert bool(said) == (error > 2e-3 * true).any()
    assert program.rounds <= 3
    # [-5, 25] leaves 19 digits behind the point: of what was 0 once, a thousandth.
    if (low, high) == (-5, 25):
        assert (error / true).max() <= 1e-3


def test_softsign(secure: Any) -> None:
    x = points(-(2.0**10), 2.0**10, 16)
    y, program = planned(leaf(Input(x.shape, 16, -(2.0**10), 2.0**10)), lambda s: s.softsign(), secure, LATENCY)
    error = np.abs(revealed(program, x, 16) - x / (1 + np.abs(x)))
    assert error.max() <= 1e-3
    assert error.max() <= y.error.absolute


@pytest.mark.parametrize("name", [name for name in OTHERS if "elu" in name])
@pytest.mark.parametrize("largest", [2.0**-20, 1e-3, 2.0**-4, 0.1, 0.7, 3.0])
def test_elu_of_small_values_is_as_near_as_it_says(secure: Any, name: str, largest: float) -> None:
    """One side was taken for the other, and what that takes was in no bound: all there was of values of 1e-6."""
    build, exact, target = ALL[name]
    bits = 16 + max(0, math.ceil(-math.log2(largest)))
    x = np.rint(np.linspace(-largest, largest, 41) * 2.0**bits) * 2.0**-bits
    x = x[np.abs(x) <= largest]
    y, program = planned(leaf(Input(x.shape, bits, -largest, largest)), build, secure, LATENCY)
    error = np.abs(revealed(program, x, bits) - exact(x)).max()
    assert error <= y.error.absolute
    assert error <= 2 * target * min(1.0, 4 * largest) + 2.0**-bits


@pytest.mark.parametrize("largest", [8.0, 2.0**15, 1e6, 2.0**24])
def test_softsign_is_right_on_any_range(secure: Any, largest: float) -> None:
    x = np.concatenate([np.linspace(-largest, largest, 17), np.linspace(-4, 4, 33)])
    x = np.rint(x * 2.0**14) * 2.0**-14
    y, program = planned(leaf(Input(x.shape, 14, -largest, largest)), lambda s: s.softsign(), secure, LATENCY)
    assert np.abs(revealed(program, x, 14) - x / (1 + np.abs(x))).max() <= min(1e-3, y.error.absolute)


@pytest.mark.parametrize(("low", "high"), [(0.5, 0.5), (-0.1, 0.3), (-1.0, 2.5), (7.5, 9.0), (-40.0, 40.0)])
def test_whole_numbers_are_clipped_exactly(secure: Any, low: float, high: float) -> None:
    x = np.arange(-9.0, 10.0)
    program = secure.program(leaf(Input(x.shape, 0, -9, 9)).clip(low, high))
    assert np.abs(revealed(program, x, 0) - np.clip(x, low, high)).max() <= 2.0**-17
    assert program.rounds <= 1


def test_an_interval_is_one_round_and_its_own_risk(secure: Any) -> None:
    x = secure.secret((3,), -100, 100)
    for made in (x.sigmoid(interval=(-8, 8)), x.mish(interval=(-8, 8)), x.erf(interval=(-4, 4))):
        assert secure.program(made).rounds == 0
    assert secure.program(x.sigmoid(terms=9)).rounds == 0
    backwards = secure.program(x.logsigmoid(interval=(-8.0, 4.0)))
    values = np.array([-7.9, -1.0, 3.9])
    assert np.abs(revealed(backwards, values, 16) + np.logaddexp(0, -values)).max() <= 2e-4


def test_what_makes_no_sense_is_said(secure: Any) -> None:
    x = secure.secret((3,), -100, 100)
    for alpha in (0.0, -1.0, math.nan, math.inf, 1e6):
        with pytest.raises(UnsupportedError, match="alpha"):
            x.elu(alpha)
    with pytest.raises(UnsupportedError, match="approximate"):
        x.gelu(approximate="erf")
    with pytest.raises(RangeError, match=r"within\("):
        x.exp()
    with pytest.raises(UnsupportedError, match="a line nowhere"):
        tailed("log")


@pytest.mark.parametrize(("bits", "limit"), [(14, 7.0), (29, 1.0), (44, 7.0)])
def test_values_without_room_for_a_threshold_are_cut_once(secure: Any, bits: int, limit: float) -> None:
    """Products with so many digits that x - t would not fit the field."""
    x, made = leaf(Input((4,), bits, -limit, limit)), 0
    for weight in (16, 24, 36):
        with contextlib.suppress(RangeError):
            y = (x * leaf(Input((4,), weight, -1.0, 1.0))).clip(-0.5, 0.5)
            assert secure.program(y).rounds <= 5
            made += 1
    assert made


@pytest.mark.sampled(3)
@pytest.mark.parametrize(
    ("name", "low", "high"),
    [
        ("sigmoid", -12, -9),
        ("sigmoid", -900, -9),
        ("silu", -15, -12),
        ("gelu", -90, -5),
        ("softplus", -20, -10),
        ("mish", -20, -15),
    ],
)
def test_where_all_is_nearly_0_it_is_as_right_as_elsewhere(secure: Any, name: str, low: float, high: float) -> None:
    """The tail would be 0: of no value a digit right, and less than what is said to be lost of values up to 1."""
    x = np.round(np.linspace(max(low, high - 4), high, 97) * 2**16) / 2**16
    y = getattr(leaf(Input(x.shape, 16, low, high)), name)()
    exact = FUNCTIONS[name].exact(x)
    error = np.abs(revealed(secure.program(y), x, 16) - exact).max()
    assert error <= y.error.absolute
    assert error <= 1e-3 * np.abs(exact).max()


@pytest.mark.parametrize("name", ["silu", "gelu", "mish"])
def test_what_is_0_at_both_ends_alone_has_its_tails(secure: Any, name: str) -> None:
    x = getattr(leaf(Input((4,), 16, -1000.0, 0.0)), name)()
    assert x.node.operation.fit is tailed(name)


def test_what_no_digit_is_left_of_is_0(secure: Any) -> None:
    x = np.linspace(-80, -60, 5)
    y = leaf(Input(x.shape, 16, -80, -60)).sigmoid()
    assert not revealed(secure.program(y), x, 16).any()
    assert y.error.relative == math.inf


def test_a_hardsigmoid_of_what_is_below_it_is_0(secure: Any) -> None:
    x = np.linspace(-5, -3, 9)
    assert not revealed(secure.program(leaf(Input(x.shape, 10, -5, -3)).hardsigmoid()), x, 10).any()
