"""What making fits guards against: hostile functions, degenerate sizes, wide intervals, superfluous terms."""

from __future__ import annotations

import itertools
import json
import math
import subprocess
import sys
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpc.errors import UnsupportedError
from protocols.approximation import (
    FUNCTIONS,
    FourierFit,
    PolynomialFit,
    default_fit,
    fit,
    fit_fourier,
    fit_polynomial,
    taylor,
)
from protocols.approximation.catalogue import NORMAL
from protocols.approximation.defaults import goal_of, make_fourier, normal_fits, shipped_fits
from protocols.approximation.minimax import GAIN_PRICE, MAX_MULTIPLIER, admissible_periods, fewest, fourier_within

quick = settings(max_examples=12)


def error_of(made: Any, function: Callable[[Any], Any], low: float, high: float) -> float:
    x = np.linspace(low, high, 33_331)
    return float(np.abs(made(x) - function(x)).max())


# Fourier fits -------------------------------------------------------------------------------------------------------


@pytest.mark.sampled(4)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_shipped_fit_is_what_is_made_today(name: str) -> None:
    function, shipped = FUNCTIONS[name], shipped_fits()[name]
    made = make_fourier(function, function.low, function.high, function.terms)
    assert shipped.terms == function.terms
    assert made.error == pytest.approx(shipped.error, rel=0.02)
    assert error_of(shipped, function.exact, function.low, function.high) <= shipped.error * 1.001


@pytest.mark.parametrize("name", NORMAL)
def test_the_fits_of_normal_values_are_as_good_as_they_say(name: str) -> None:
    function, shipped = NORMAL[name], normal_fits()[name]
    assert (shipped.terms, shipped.low, shipped.high) == (function.terms, function.low, function.high)
    assert error_of(shipped, function.exact, function.low, function.high) <= shipped.error * 1.001
    assert shipped.error <= function.target


@pytest.mark.sampled(4)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_no_fewer_terms_reach_the_target(name: str) -> None:
    function = FUNCTIONS[name]
    goal = goal_of(function, function.low, function.high)
    assert goal.absolute == pytest.approx(function.target, rel=1e-3)
    assert goal.judge(shipped_fits()[name]) <= goal.absolute
    assert goal.judge(make_fourier(function, function.low, function.high, function.terms - 1)) > goal.absolute


@given(length=st.floats(2.0**-20, 2.0**20))
@quick
def test_admissible_periods(length: float) -> None:
    found = admissible_periods(length)
    periods = [Fraction(2) ** log2 / multiplier for multiplier, log2 in found]
    assert len(set(periods)) == len(periods) > 30
    assert all(1 <= multiplier <= MAX_MULTIPLIER for multiplier, _ in found)
    assert all(Fraction(length) < period < 3 * Fraction(length) for period in periods)


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [
        ("gelu", -16, 16),
        ("exp", -8, 2),
        *(pytest.param(*case, marks=pytest.mark.slow) for case in (("silu", -16, 16), ("softplus", -16, 16))),
        *(pytest.param(*case, marks=pytest.mark.slow) for case in (("exp", -16, 0), ("sin", -10, 10))),
    ],
)
def test_other_intervals_keep_the_target(name: str, low: float, high: float) -> None:
    made = default_fit(name, low=low, high=high)
    assert (made.low, made.high) == (low, high)
    assert error_of(made, FUNCTIONS[name].exact, low, high) <= FUNCTIONS[name].target * 1.001
    assert default_fit(name, low=low, high=high) is made


@pytest.mark.parametrize(
    ("name", "terms"),
    [
        *itertools.product(["exp", "sigmoid", "reciprocal"], [1, 2, 5]),
        ("sigmoid", 32),
        *(
            pytest.param(name, terms, marks=pytest.mark.slow)
            for name, terms in itertools.product(["exp", "sigmoid", "reciprocal"], [16, 32])
            if (name, terms) != ("sigmoid", 32)
        ),
    ],
)
def test_every_size_has_moderate_coefficients(name: str, terms: int) -> None:
    made = default_fit(name, terms=terms)
    sines = made.sines
    cosines = made.cosines or (0.0,) * terms
    assert made.terms == terms
    assert abs(made.constant) < 8
    assert all(abs(a) + abs(b) < 8 for a, b in zip(cosines, sines, strict=True))
    assert made.gain == pytest.approx(sum(map(abs, (*made.cosines, *made.sines))))


@pytest.mark.sampled(3)
@pytest.mark.parametrize("terms", [2, 5, 9])
@pytest.mark.parametrize("name", ["sigmoid", "exp", "gelu"])
def test_least_squares_rule_out_what_misses_and_nothing_else(name: str, terms: int) -> None:
    function = FUNCTIONS[name]
    options: Any = (function.exact, function.low, function.high, terms)
    made = fit_fourier(*options)
    assert fourier_within(made.error, *options) == made
    assert fourier_within(made.error / 20, *options) is None


def test_the_smallest_that_will_do_is_found_and_else_the_best() -> None:
    sizes = {1: 8.0, 2: 9.0, 3: 5.0, 4: 3.0, 5: 4.0, 6: 3.0}
    asked: list[int] = []

    def make(size: int, error: float) -> Any:
        asked.append(size)
        return PolynomialFit((1.0,), 0.0, float(size), sizes[size]) if sizes[size] <= 2 * error else None

    for error, wanted in ((10.0, 1), (5.0, 3), (4.0, 4), (3.0, 4)):
        assert [fewest(make, some, error).high for some in ((1, 2, 6), tuple(sizes))] == [wanted, wanted]
    for error in (2.0, 0.1):
        assert [fewest(make, some, error).high for some in ((1, 2, 6), tuple(sizes))] == [6, 4]
    asked.clear()
    fewest(make, (1, 6), 3.0)
    assert asked == [1, 6, 2, 3, 4]


def test_more_terms_do_not_make_it_worse() -> None:
    """Up to the price on coefficients: errors below the dealt sines' rounding are not worth a large gain."""
    worst = [default_fit("exp", terms=n) for n in (2, 4, 8, 16, 32)]
    for fewer, more in itertools.pairwise(worst):
        assert more.error <= fewer.error + GAIN_PRICE * fewer.gain
    assert worst[-1].gain < 10


@given(
    amplitudes=st.lists(st.floats(-0.5, 0.5), min_size=1, max_size=4),
    constant=st.floats(-3, 3),
    multiplier=st.integers(1, MAX_MULTIPLIER),
    period_log2=st.integers(-6, 12),
)
@quick
def test_range_over_many_periods(amplitudes: list[float], constant: float, multiplier: int, period_log2: int) -> None:
    made = FourierFit(multiplier, period_log2, constant, tuple(amplitudes), tuple(amplitudes[::-1]), -1.0, 1.0, 1e-3)
    low, high = made.range()
    values = made(np.random.default_rng(3).uniform(-40 * made.period, 40 * made.period, 20_000))
    assert low <= values.min() + 1e-9
    assert values.max() - 1e-9 <= high
    assert high - low <= 2 * made.gain + 0.01


def test_odd_is_checked() -> None:
    with pytest.raises(UnsupportedError, match="symmetric"):
        fit_fourier(np.sin, -1, 2, 3, odd=True)
    with pytest.raises(UnsupportedError, match="not odd"):
        fit_fourier(np.exp, -1, 1, 3, odd=True)
    with pytest.raises(UnsupportedError, match="not odd"):
        fit_polynomial(np.cos, -1, 1, 3, odd=True)
    assert fit_polynomial(np.sin, -1, 1, 5, odd=True).coefficients[2::2] == (0.0, 0.0)


# Functions that callers bring -----------------------------------------------------------------------------------------


def test_a_function_may_write_to_its_argument() -> None:
    made = fit(lambda x: np.negative(x, out=x), -1, 1, 1e-2)
    assert error_of(made, np.negative, -1, 1) <= 1e-2
    assert error_of(fit(np.exp, -1, 1, 1e-2), np.exp, -1, 1) <= 1e-2


@pytest.mark.parametrize("method", ["fourier", "minimax"])
@pytest.mark.parametrize("constant", [0, 1.5, -7.0, 2.3e-313])
def test_constants(method: str, constant: float) -> None:
    made = fit(lambda x: constant, -1, 1, 1e-3, method=method)
    assert 0 < made.error < 1e-9
    assert made(np.array([0.3]))[0] == pytest.approx(constant, abs=1e-9)


@pytest.mark.parametrize(
    ("function", "sentence"),
    [
        (lambda x: np.exp(1j * x), "not real"),
        (lambda x: x[:3], "elementwise"),
        (lambda x: x / x.max(), "elementwise"),
        (lambda x: np.sort(-x), "elementwise"),
        (math.log, "fails on"),
        (lambda x: 1 / x, "not finite everywhere"),
        (lambda x: np.array(["a"] * len(x)), "not real"),
    ],
)
def test_functions_that_cannot_be_fitted(function: Callable[[Any], Any], sentence: str) -> None:
    with pytest.raises(UnsupportedError, match=sentence):
        fit(function, -1, 1, 1e-4)


@given(low=st.floats(-4, 3), width=st.floats(0.1, 3), phase=st.floats(0, 6), degree=st.integers(1, 8))
@quick
def test_a_polynomial_of_its_own_degree_is_found(low: float, width: float, phase: float, degree: int) -> None:
    wanted = np.cos(phase * np.arange(1, degree + 2))
    made = fit_polynomial(lambda x: np.polynomial.polynomial.polyval(x, wanted), low, low + width, degree)
    assert made.error < 1e-7 * max(1.0, float(np.abs(made(np.array([low, low + width]))).max()))


def test_large_values_do_not_trouble_a_polynomial() -> None:
    made = fit_polynomial(np.exp, 0, 20, 20)
    assert made.error < 1e-5 * math.exp(20)
    assert isinstance(fit(np.exp, 0, 10, 1.0, method="minimax"), PolynomialFit)


# Known answers --------------------------------------------------------------------------------------------------------


def test_best_approximation_of_the_absolute_value() -> None:
    """Bernstein: n E_n(|x|) tends to 0.2801..., from even degrees 2 (1/8) and 4 (0.0676) on."""
    assert fit_polynomial(np.abs, -1, 1, 2).error == pytest.approx(1 / 8, rel=1e-3)
    assert fit_polynomial(np.abs, -1, 1, 4).error == pytest.approx(0.067621, rel=1e-3)
    assert 20 * fit_polynomial(np.abs, -1, 1, 20).error == pytest.approx(0.2802, rel=5e-3)


def test_best_approximation_of_a_reciprocal() -> None:
    """Chebyshev: E_n of 1 / (a - x) on [-1, 1] is (a - sqrt(a^2 - 1))^n / (a^2 - 1)."""
    for n in (1, 3, 6, 10):
        known = (2 - math.sqrt(3)) ** n / 3
        assert fit_polynomial(lambda x: 1 / (2 - x), -1, 1, n).error == pytest.approx(known, rel=2e-3)


def test_taylor_coefficients() -> None:
    assert [taylor.bernoulli(n) for n in range(9)] == [
        1, Fraction(-1, 2), Fraction(1, 6), 0, Fraction(-1, 30), 0, Fraction(1, 42), 0, Fraction(-1, 30),
    ]  # fmt: skip
    assert [taylor.tanh(k) for k in (1, 3, 5, 7, 9)] == [
        1, Fraction(-1, 3), Fraction(2, 15), Fraction(-17, 315), Fraction(62, 2835),
    ]  # fmt: skip
    assert default_fit("softplus", "taylor", degree=4).coefficients == pytest.approx(
        (math.log(2), 1 / 2, 1 / 8, 0, -1 / 192), abs=1e-16
    )
    assert default_fit("silu", "taylor", degree=4).coefficients == (0, 1 / 2, 1 / 4, 0, -1 / 48)
    assert default_fit("reciprocal", "taylor", degree=3).coefficients == (4, -6, 4, -1)


@pytest.mark.parametrize("name", [n for n, f in FUNCTIONS.items() if f.taylor is not None])
def test_taylor_polynomials_are_close_where_they_should_be(name: str) -> None:
    function = FUNCTIONS[name]
    made = default_fit(name, "taylor", function.about - 0.25, function.about + 0.25, degree=12)
    assert made.error < 1e-7
    with pytest.raises(UnsupportedError, match="degree 1 to 31"):
        default_fit(name, "taylor", degree=32)


def test_the_exponential_by_fourth_powers_beats_the_textbooks_limit() -> None:
    x = np.linspace(-8, 0, 10_001)
    textbook = np.abs((1 + x / 64) ** 64 - np.exp(x)).max()
    made = default_fit("exp", "composite")
    assert made.error < textbook / 500
    # Three squarings reach degree 8, the stages' three rounds more accuracy.
    assert made.error < default_fit("exp", "minimax", degree=8).error / 5
    for stage, after in itertools.pairwise(made.stages):
        values = stage(np.linspace(stage.low, stage.high, 101))
        assert after.low < values.max() <= after.high * 1.01


@pytest.mark.parametrize("name", ["sigmoid", "tanh"])
def test_three_cubics_beat_a_polynomial_of_three_squarings(name: str) -> None:
    assert default_fit(name, "composite").error < default_fit(name, "minimax", degree=8).error / 2


@pytest.mark.parametrize("name", ["sigmoid", "silu", "gelu", "gelu_tanh", "softplus"])
def test_true_functions_far_out(name: str) -> None:
    exact = FUNCTIONS[name].exact
    with np.errstate(all="raise", under="ignore"):
        far = exact(np.array([-700.0, -30.0, 30.0, 700.0]))
    assert np.isfinite(far).all()
    assert far[2:] == pytest.approx([1, 1] if name == "sigmoid" else [30, 700], rel=1e-12)
    assert np.abs(far[:2]).max() < 1e-10


@pytest.mark.slow
def test_the_table() -> None:
    command = [sys.executable, "-m", "protocols.approximation"]
    table = json.loads(subprocess.run([*command, "--json"], check=True, capture_output=True, text=True).stdout)
    assert {row["function"] for row in table} == set(FUNCTIONS)
    assert all(row["outside"] and row["error"] > 0 for row in table)
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert len(text.splitlines()) == len(table)
