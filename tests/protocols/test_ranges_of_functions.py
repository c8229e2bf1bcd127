"""Functions on any interval: errors against float64 over the whole of it, relative where a function spans orders."""

from __future__ import annotations

import math
import re
import time
import warnings
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpc import fixed_point
from mpc.errors import RangeError, UnsupportedError
from mpc.operation import Input
from protocols.approximation import FUNCTIONS, PiecewiseFit, RootFit, default_fit, fit
from protocols.approximation.defaults import goal_of
from protocols.approximation.fits import Reals, slope
from protocols.approximation.goal import FLOOR
from protocols.lowering.precision import PrecisionWarning
from protocols.readings.memory import run_in_memory
from protocols.trace.secret_tensor import SecretTensor, leaf

THOUSANDTH = 1e-3
"""The relative error that a function has which spans orders of magnitude, fit and rounding together."""


def computed(secure: Any, build: Any, low: float, high: float, bits: int, count: int = 240) -> tuple[Reals, Reals, Any]:
    """Points over a declared range, dense at its ends and around 0, what is computed of them, and the result."""
    steps = np.linspace(0.0, 1.0, count)
    x = np.concatenate([low + (high - low) * steps, low + (high - low) * steps**8, high - (high - low) * steps**8])
    x = np.concatenate([x, [v for v in np.linspace(-9, 9, count) if low <= v <= high]])
    raw = np.clip(np.rint(x * 2.0**bits), math.ceil(low * 2.0**bits), math.floor(high * 2.0**bits))
    x = raw * 2.0**-bits
    y = build(leaf(Input(x.shape, bits, low, high)))
    (out,) = run_in_memory(secure.program(y), [fixed_point.encode(x, bits)]).outputs
    return x, fixed_point.decode(out, y.type.fraction_bits), y


def judge(name: str, x: Reals, got: Reals, low: float, high: float) -> None:
    function = FUNCTIONS[name]
    true = function.exact(x)
    error = np.abs(got - true)
    largest = float(np.abs(function.exact(np.array([low, high, *x]))).max())
    # Within the interval of a fit that ships, its target is that of the largest value there.
    if function.low <= low and high <= function.high:
        low, high = function.low, function.high
    allowed = max(goal_of(function, low, high).absolute, function.target * largest, 2.0**-16 * largest)
    if function.tails is not None and not (function.low <= low and high <= function.high):
        allowed = max(allowed, function.target)
    if not function.relative:
        assert error.max() <= 2 * allowed
    else:
        assert (error / np.maximum(np.abs(true), 1.01 * FLOOR * largest)).max() <= 2 * THOUSANDTH


FOUND = [
    ("reciprocal", 1, 300, 16), ("exp", -8, 0, 16), ("exp", -20, 5, 20), ("tanh", -64, 64, 16), ("silu", -64, 64, 16),
    ("cos", -1000, 2000, 16),
]  # fmt: skip
FOUND_TOO = [
    ("reciprocal", 1, 1000, 16), ("reciprocal", 0.01, 2, 24), ("reciprocal", 500, 1000, 16), ("reciprocal", 1, 40, 16),
    ("sqrt", 1, 1000, 16), ("rsqrt", 0.5, 20, 16), ("rsqrt", 1, 1000, 16), ("log", 1, 1000, 16), ("log", 1, 8, 16),
    ("log", 0.001, 1, 24), ("exp", 3, 10, 16), ("exp", -16, 0, 16), ("tanh", -19, 19, 16), ("sigmoid", -64, 64, 16),
    ("sigmoid", -500, 500, 16), ("silu", -22, 22, 16), ("gelu", -64, 64, 16), ("softplus", -64, 64, 16),
    ("silu", -500, 300, 16), ("sin", -64, 64, 16), ("sigmoid", 0.25, 12, 16),
]  # fmt: skip


@pytest.mark.sampled(3)
@pytest.mark.parametrize(
    ("name", "low", "high", "bits"), [*FOUND, *(pytest.param(*case, marks=pytest.mark.slow) for case in FOUND_TOO)]
)
def test_functions_on_their_declared_ranges(secure: Any, name: str, low: float, high: float, bits: int) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        x, got, y = computed(secure, lambda s: getattr(s, name)(), low, high, bits)
    judge(name, x, got, low, high)
    assert np.abs(got - FUNCTIONS[name].exact(x)).max() <= y.error.absolute
    assert y.type.low <= got.min()
    assert got.max() <= y.type.high


@pytest.mark.parametrize("name", ["reciprocal", "log", "sqrt", "rsqrt"])
@pytest.mark.parametrize(
    ("low", "high", "bits"),
    [(1.0, 2.0**20, 16), *(pytest.param(*c, marks=pytest.mark.slow) for c in ((2.0**-20, 1, 34), (1e-3, 3e3, 26)))],
)
def test_any_number_of_orders_of_magnitude(secure: Any, name: str, low: float, high: float, bits: int) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        x = np.clip(np.rint(np.geomspace(low, high, 200) * 2.0**bits), math.ceil(low * 2.0**bits), high * 2.0**bits)
        x = np.floor(x) * 2.0**-bits
        y = getattr(leaf(Input(x.shape, bits, low, high)), name)()
    (out,) = run_in_memory(secure.program(y), [fixed_point.encode(x, bits)]).outputs
    got, true = fixed_point.decode(out, y.type.fraction_bits), FUNCTIONS[name].exact(x)
    assert np.abs(got - true).max() <= y.error.absolute <= 0.01 * y.type.magnitude
    if FUNCTIONS[name].relative:
        assert (np.abs(got - true) / true).max() <= 1e-3
    else:
        assert np.abs(got - true).max() <= 2e-3


MADE: dict[str, Any] = {
    "shared": lambda x, y: x,
    "products": lambda x, y: x * y,
    "squares": lambda x, y: x * x,
    "scaled": lambda x, y: x * 0.75,
    "sums": lambda x, y: x + y,
    "means of squares": lambda x, y: (x * x + y * y) / 3,
}


@pytest.mark.sampled(3)
@pytest.mark.parametrize("made", sorted(MADE))
def test_computed_values_over_many_orders_have_functions(secure: Any, made: str) -> None:
    """Whatever fraction bits they have got on the way: a value is refused by none, and right."""
    rng = np.random.default_rng(len(made))
    for name, low, high in (("reciprocal", 1e-3, 1e3), ("rsqrt", 1e-2, 1e2), ("sqrt", 0.1, 1e3), ("log", 1e-1, 1e2)):
        bits = 24
        real = np.exp(rng.uniform(math.log(low), math.log(high), (2, 12)))
        real = np.clip(np.rint(real * 2.0**bits), math.ceil(low * 2.0**bits), math.floor(high * 2.0**bits)) / 2.0**bits
        x, y = (leaf(Input((12,), bits, low, high)) for _ in real)
        value, true = MADE[made](x, y), MADE[made](*real)
        result = getattr(value, name)()
        program = secure.program(result)
        inputs = [fixed_point.encode(r, bits) for r in real[: len(program.inputs)]]
        got = fixed_point.decode(run_in_memory(program, inputs).outputs[0], result.type.fraction_bits)
        wanted = FUNCTIONS[name].exact(true)
        # The least of the range, of which a digit may be cut before.
        floor = 1e-9 * value.type.high / value.type.low if made in ("products", "squares", "means of squares") else 0.0
        assert np.abs(got - wanted).max() <= result.error.absolute
        assert (np.abs(got - wanted) <= (1e-4 + floor) * np.maximum(np.abs(wanted), name == "log")).all(), name


def right_or_said(secure: Any, name: str, first: float, second: float, bits: int) -> None:
    """That each value is right to a thousandth, down to a millionth of the largest, or else an error or a warning says
    where digits are lost, and what helps; and that the bound on the error holds anyway.
    """
    low, high = sorted((first, second) if name == "exp" else (2.0**first, 2.0**second))
    low = math.ceil(low * 2.0**bits) * 2.0**-bits
    x = np.linspace(low, high, 90) if name == "exp" else np.geomspace(max(low, 2.0**-bits), high, 90)
    x = np.clip(np.rint(x * 2.0**bits), low * 2.0**bits, math.floor(high * 2.0**bits)) * 2.0**-bits
    if x[-1] < low + 2.0 ** (4 - bits) * max(1.0, abs(low)) or high * 2.0**bits > 2.0**58:
        return
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        try:
            y = getattr(leaf(Input(x.shape, bits, low, high)), name)()
        except (UnsupportedError, RangeError) as error:
            assert any(word in str(error) for word in ("within(", "range", "interval"))
            return
    (out,) = run_in_memory(secure.program(y), [fixed_point.encode(x, bits)]).outputs
    true = FUNCTIONS[name].exact(x)
    error = np.abs(fixed_point.decode(out, y.type.fraction_bits) - true)
    assert error.max() <= y.error.absolute
    for each in said:
        assert issubclass(each.category, PrecisionWarning)
        large = r"the function: of values up to .* is lost .*, mostly by .*: \w+"
        small = r"\w+ on \[.*\]: where its argument is from .* to .*, less than three digits are left"
        assert re.match(f"{large}|{small}", str(each.message))
    if not said and FUNCTIONS[name].relative:
        allowed = np.maximum(THOUSANDTH * np.abs(true), 1.01 * THOUSANDTH * FLOOR * np.abs(true).max())
        # Where there are no fraction bits for so little, the last one is.
        assert (error <= np.maximum(allowed, 2.0**-y.type.fraction_bits)).all()
    elif not said:
        assert error.max() <= 2e-3 * max(1.0, np.abs(true).max())


SPANNING = ["exp", "log", "reciprocal", "rsqrt", "sqrt"]


@pytest.mark.parametrize(
    ("name", "first", "second", "bits"),
    [("sqrt", -12, 15, 28), ("exp", 1, 32, 16), ("rsqrt", -20, 20, 24), ("log", -12, 15, 28)],
)
def test_each_value_is_right_or_it_is_said(secure: Any, name: str, first: float, second: float, bits: int) -> None:
    right_or_said(secure, name, first, second, bits)


@pytest.mark.slow
@given(st.sampled_from(SPANNING), st.floats(-20, 20), st.floats(-20, 32), st.integers(10, 44))
@settings(max_examples=80)
def test_each_value_is_right_or_it_is_said_at_length(
    secure: Any, name: str, first: float, second: float, bits: int
) -> None:
    right_or_said(secure, name, first, min(second, 20.0) if name != "exp" else second, bits)


def test_the_exponential_of_a_long_range_errs_by_its_target(secure: Any) -> None:
    x, got, _ = computed(secure, lambda s: s.exp(), 1.0, 32.0, 16)
    assert np.abs(got - np.exp(x)).max() <= 1e-5 * math.exp(32)


def test_what_was_wrong(secure: Any) -> None:
    def values(build: Any, of: list[float], low: float, high: float) -> Any:
        y = build(leaf(Input((len(of),), 16, low, high)))
        (out,) = run_in_memory(secure.program(y), [fixed_point.encode(np.array(of), 16)]).outputs
        return fixed_point.decode(out, y.type.fraction_bits)

    assert values(lambda x: 1 / x, [2, 120], 1, 300) == pytest.approx([1 / 2, 1 / 120], rel=1e-3)
    assert values(lambda x: x.log(), [2, 4], 1, 8) == pytest.approx([0.6931, 1.3863], abs=2e-3)
    assert values(lambda x: x.reciprocal(interval=(500, 1000)), [900], 500, 1000) == pytest.approx([1 / 900], rel=1e-3)
    powers = values(lambda x: x.exp(interval=(3, 5), terms=8), [3.3, 4.4], 3, 5)
    assert powers == pytest.approx(np.exp([3.3, 4.4]), rel=1e-3)


@pytest.mark.parametrize("power", [-2.0, *(pytest.param(p, marks=pytest.mark.slow) for p in (-1, -0.5, 0.5, 1.5, 0.3))])
def test_real_powers(secure: Any, power: float) -> None:
    for low, high in ((0.5, 4.0), (1.0, 300.0)):
        x, got, _ = computed(secure, lambda s: s**power, low, high, 18)
        assert got == pytest.approx(x**power, rel=2 * THOUSANDTH)


NAMES = sorted(FUNCTIONS.keys() - {"gelu_tanh"})
exponents = st.floats(-20, 20)


def either(secure: Any, name: str, first: float, second: float, signs: tuple[bool, bool]) -> bool:
    """Whether a function of values in a range of such ends is right; what is not is refused, by an error that helps."""
    low, high = sorted((-(2.0**e) if negative else 2.0**e) for e, negative in zip((first, second), signs, strict=True))
    bits = min(40, 16 + max(0, math.ceil(-math.log2(min(abs(low), abs(high), 1.0)))))
    if high - low < 2.0 ** (4 - bits) * max(1.0, abs(low)):
        return False
    low, high = math.ceil(low * 2.0**bits) * 2.0**-bits, math.floor(high * 2.0**bits) * 2.0**-bits
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", PrecisionWarning)
            x, got, _ = computed(secure, lambda s: getattr(s, name)(), low, high, bits, 60)
    except (UnsupportedError, RangeError) as error:
        assert any(word in str(error) for word in ("within(", "range", "interval"))
        return False
    judge(name, x, got, low, high)
    return True


@given(st.sampled_from(NAMES), exponents, exponents, st.tuples(st.booleans(), st.booleans()))
@settings(max_examples=4)
def test_any_range_is_right_or_refused(
    secure: Any, name: str, first: float, second: float, signs: tuple[bool, bool]
) -> None:
    either(secure, name, first, second, signs)


@pytest.mark.slow
@given(st.sampled_from(NAMES), exponents, exponents, st.tuples(st.booleans(), st.booleans()))
@settings(max_examples=100)
def test_any_range_is_right_or_refused_at_length(
    secure: Any, name: str, first: float, second: float, signs: tuple[bool, bool]
) -> None:
    either(secure, name, first, second, signs)


@pytest.mark.slow
@given(st.sampled_from(["reciprocal", "rsqrt", "sqrt", "log"]), exponents, st.floats(0.1, 10))
@settings(max_examples=100)
def test_three_orders_of_magnitude_are_found_anywhere(secure: Any, name: str, first: float, orders: float) -> None:
    assert either(secure, name, first, first + orders, (False, False)) or first + orders > 20 or first < -16


@pytest.mark.parametrize(
    ("function", "low", "high"),
    [
        (lambda x: 1 / x, 1, 1000),
        (math.erf, -100, 100),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in (
                (lambda x: x / (1 + np.exp(-x)), -22, 22),
                (lambda x: 1 / np.sqrt(x), 0.5, 20),
                (np.tanh, -19, 19),
                (lambda x: 3.0 / x**2, 0.25, 64),
                (lambda x: np.log1p(np.exp(x)), -300, 300),
                (lambda x: np.exp(-x), 0.0, 3.0),
            )
        ),
    ],
)
def test_fit_needs_no_error_and_little_time(function: Any, low: float, high: float) -> None:
    began = time.process_time()
    made = fit(function, low, high)
    assert time.process_time() - began < 4  # on a machine that does other things
    x = np.linspace(low, high, 4321)
    true = np.array([function(v) for v in x.tolist()])
    assert np.abs(made(x) - true).max() <= min(1.001 * made.error, 1.1e-4 * np.abs(true).max())
    if made.relative is not None:
        told_apart = np.maximum(np.abs(true), FLOOR * np.abs(true).max())
        assert (np.abs(made(x) - true) / told_apart).max() <= 1.001 * made.relative
        assert made.relative <= THOUSANDTH


@pytest.mark.slow
def test_what_no_terms_fit_says_what_helps() -> None:
    with pytest.raises(UnsupportedError, match=r"within\(low, high\).*interval=\(low, high\).*terms=32"):
        fit(lambda x: np.sin(x * x), 0, 100)


def test_what_cannot_be_found_says_what_helps() -> None:
    with pytest.raises(UnsupportedError, match=r"reciprocal on \[1, 1e\+06\].*within\(low, high\)"):
        default_fit("reciprocal", low=1.0, high=1e6)


def test_the_slope_of_a_fit() -> None:
    for name, low, high, steepest in (
        ("tanh", -64, 64, 1.0),
        ("reciprocal", 1, 300, 1.0),
        ("exp", -20, 5, math.exp(5)),
    ):
        assert slope(default_fit(name, low=low, high=high)) == pytest.approx(steepest, rel=0.1)


def test_what_is_taken_apart_is_a_fit_like_any_other() -> None:
    assert isinstance(default_fit("tanh", low=-64, high=64), PiecewiseFit)
    assert isinstance(default_fit("rsqrt", low=1, high=1000), RootFit)


def test_progress_is_shown_on_a_terminal_alone(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    def slow(x: Reals) -> Reals:
        time.sleep(0.05)
        return np.exp(x)

    monkeypatch.setattr("protocols.approximation.search.SLOW", 0.02)
    fit(slow, 0, 1, 1e-2)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    fit(slow, 0, 1.5, 1e-2)
    assert "fitting the function on [0, 1.5]" in capsys.readouterr().err


def test_a_tensor_takes_each_kind_of_fit(secure: Any) -> None:
    x: SecretTensor = secure.secret((3,), 1.0, 300.0)
    assert x.apply(default_fit("rsqrt", low=1, high=1000)).type.high == pytest.approx(1, abs=0.01)
