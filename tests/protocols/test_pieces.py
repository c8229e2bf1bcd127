"""Fits by pieces: any continuous function on any interval, found at once, and right on shares."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpc import fixed_point
from mpc.errors import UnsupportedError
from mpc.operation import Input
from protocols.approximation.fits import Fit, PiecewiseFit, Reals, fine_grid, slope
from protocols.approximation.fitting import fit
from protocols.approximation.goal import FLOOR, RELATIVE, Goal
from protocols.approximation.pieces import MOST_PIECES, by_pieces, check_pieces
from protocols.readings.memory import run_in_memory
from protocols.trace.secret_tensor import leaf

FUNCTIONS: dict[str, Callable[[Reals], Reals]] = {
    "Lorentz": lambda x: 1 / (1 + x * x),
    "hypotenuse": lambda x: np.sqrt(1 + x * x),
    "atan": np.arctan,
    "log": lambda x: np.log1p(x * x),
    "wave": lambda x: x * np.exp(-x * x),
    "step": lambda x: np.tanh(50 * x),
    "abs": np.abs,
    "root": lambda x: np.sqrt(np.abs(x)),
}


def points(low: float, high: float, bits: int) -> Reals:
    """On the grid of so many fraction bits, dense at the ends and around 0."""
    steps = np.linspace(0.0, 1.0, 60)
    around = (high - low) * np.concatenate([steps**8, -(steps**8)])
    x = np.concatenate([low + (high - low) * steps, low + around, high + around, around])
    raw = np.rint(x[(x >= low) & (x <= high)] * 2.0**bits)
    return np.clip(raw, math.ceil(low * 2.0**bits), math.floor(high * 2.0**bits)) * 2.0**-bits


def judge(secure: Any, function: Callable[[Reals], Reals], made: PiecewiseFit, goal: Goal, bits: int) -> None:
    """Fit and rounding together are near to the function, nearer than is stated, and in the range of the type."""
    x = points(made.low, made.high, bits)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        y = leaf(Input(x.shape, bits, made.low, made.high)).apply(made)
    (out,) = run_in_memory(secure.program(y), [fixed_point.encode(x, bits)]).outputs
    got, true = fixed_point.decode(out, y.type.fraction_bits), function(x)
    error, largest = np.abs(got - true), float(np.abs(function(fine_grid(made.low, made.high))).max())
    # Of each value but those that are too small for a fit by relative error, which is said.
    assert bool(said) == (made.coarse > 0)
    assert goal.relative is None or said or (error <= 2e-3 * np.abs(true)).all()
    assert (error <= 1.5 * goal.allowed(true, largest)).all()
    assert error.max() <= y.error.absolute
    assert y.type.low <= got.min()
    assert got.max() <= y.type.high


@pytest.mark.sampled(3)
@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize(
    ("low", "high"), [(-100.0, 300.0), *(pytest.param(-h, h, marks=pytest.mark.slow) for h in (5.0, 1e4, 2.0**20))]
)
def test_any_function_on_any_interval(secure: Any, name: str, low: float, high: float) -> None:
    function = FUNCTIONS[name]
    began = time.process_time()
    goal = Goal(1e-4 * float(np.abs(function(fine_grid(low, high))).max()))
    made = by_pieces(function, low, high, goal)
    assert time.process_time() - began < 2
    assert made.error <= goal.absolute
    judge(secure, function, made, goal, 28)


@pytest.mark.sampled(3)
@pytest.mark.parametrize(
    ("power", "low", "high", "bits"),
    [(-1.0, 2.0**-20, 2.0**20, 36), (1.5, 1e-3, 1e3, 24), (-2.0, 1e-3, 1e3, 24), (0.3, 2.0**-20, 2.0**20, 36)],
)
def test_relative_to_each_value(secure: Any, power: float, low: float, high: float, bits: int) -> None:
    def function(x: Reals) -> Reals:
        return np.asarray(x**power)

    goal = Goal(1e-4 * max(low**power, high**power), RELATIVE)
    made = by_pieces(function, low, high, goal)
    assert made.relative is not None
    assert made.relative <= RELATIVE
    judge(secure, function, made, goal, bits)


@given(st.floats(-20, 20), st.floats(-20, 20), st.booleans(), st.floats(-3, 3), st.sampled_from(sorted(FUNCTIONS)))
@settings(max_examples=25)
def test_it_is_what_is_measured(first: float, second: float, negative: bool, shift: float, name: str) -> None:
    """What is stated of the error holds between the points at which it was measured, too."""
    low, high = sorted((-(2.0**first) if negative else 2.0**first, 2.0**second))
    if high - low < 2.0**-18:
        return

    def function(x: Reals) -> Reals:
        return FUNCTIONS[name](x - shift)

    x = fine_grid(low, high)
    largest = float(np.abs(function(x)).max())
    try:
        made = by_pieces(function, low, high, Goal(1e-3 * largest))
    except UnsupportedError:
        return
    check_pieces(made)
    between = (x[1:] + x[:-1]) / 2
    assert np.abs(made(between) - function(between)).max() <= 1.2 * made.error
    assert np.abs(np.diff(made(x)) / np.diff(x)).max() <= slope(made) + 2 * made.error / np.diff(x).min()


def test_parties_agree_with_the_clear_reading(secure: Any) -> None:
    """In both modes, and measured cost with what is predicted."""
    made = by_pieces(np.arctan, -40.0, 40.0, Goal(1e-3))
    x = np.array([-40.0, -39.5, -1.0, 0.0, 0.25, 2.0, 40.0])
    secure.check(lambda x: x.apply(made) if hasattr(x, "apply") else made(x), x, error=1e-4, low=-40.0, high=40.0)


def test_values_in_a_part_of_the_interval_meet_fewer_pieces(secure: Any) -> None:
    made = by_pieces(np.arctan, -100.0, 100.0, Goal(1e-3))
    whole, part, one = (
        len(secure.program(leaf(Input((3,), 16, *ends)).apply(made)).nodes)
        for ends in ((-100.0, 100.0), (0.0, 100.0), (90.0, 100.0))
    )
    assert one < part < whole


def test_what_is_small_is_seen_around_zero() -> None:
    """A dense grid of a long interval has one point there, or none."""
    made = fit(lambda x: x * np.exp(-x * x), -(2.0**20), 2.0**20)
    assert made(np.array([0.7])) == pytest.approx(0.7 * math.exp(-0.49), abs=1e-4)


@pytest.mark.parametrize("constant", [0.0, -2.5, 3])
def test_a_constant_is_one(secure: Any, constant: float) -> None:
    y = leaf(Input((2,), 16, -8.0, 8.0)).apply(fit(lambda x: 0 * x + constant, -8.0, 8.0))
    (out,) = run_in_memory(secure.program(y), [fixed_point.encode(np.array([1.0, -8.0]), 16)]).outputs
    assert np.abs(fixed_point.decode(out, y.type.fraction_bits) - constant).max() < 2**-16


def test_a_steep_place_is_followed() -> None:
    made = fit(np.cbrt, -8.0, 8.0)
    x = np.linspace(-1e-3, 1e-3, 777)
    assert np.abs(made(x) - np.cbrt(x)).max() <= 2e-4


def test_what_jumps_is_refused() -> None:
    with pytest.raises(UnsupportedError, match=r"no fit errs by at most .* What jumps is written with comparisons"):
        fit(np.floor, -100.0, 100.0)


def test_too_many_pieces_are_refused() -> None:
    with pytest.raises(UnsupportedError, match=f"more than {MOST_PIECES} pieces"):
        by_pieces(np.sin, -1000.0, 1000.0, Goal(1e-4))


def test_it_survives_being_sent() -> None:
    made = by_pieces(np.abs, -1.0, 1.0, Goal(1e-4))
    assert msgspec.json.decode(msgspec.json.encode(made), type=Fit) == made


@pytest.mark.parametrize(
    "change",
    [
        {"pieces": ()},
        {"low": -2.0},
        {"high": 0.0},
        {"pieces": "reversed"},
        {"piece": {"centre": 9.0}},
        {"piece": {"start": math.nan}},
        {"piece": {"log2": 2000}},
        {"piece": {"coefficients": (1.0, 2.0, 3.0)}},
        {"piece": {"coefficients": (1.0, math.inf)}},
    ],
)
def test_a_strangers_fit_is_checked(change: dict[str, Any]) -> None:
    made = by_pieces(np.abs, -1.0, 1.0, Goal(1e-4))
    check_pieces(made)
    if "piece" in change:
        last = msgspec.structs.replace(made.pieces[-1], **change["piece"])
        change = {"pieces": (*made.pieces[:-1], last)}
    elif change.get("pieces") == "reversed":
        change = {"pieces": made.pieces[::-1]}
    with pytest.raises(UnsupportedError):
        check_pieces(msgspec.structs.replace(made, **change))


def test_small_values_are_not_told_apart(secure: Any) -> None:
    """Below a millionth of the largest value, as in all fits that are judged relatively."""
    made = by_pieces(lambda x: np.exp(-x), 0.0, 30.0, Goal(1e-4, RELATIVE))
    assert made.relative is not None
    x = np.array([25.0])
    assert abs(float(made(x)[0]) - math.exp(-25)) <= RELATIVE * FLOOR
