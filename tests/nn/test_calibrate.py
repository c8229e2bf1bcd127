"""Calibration: intervals cover what samples show, fits keep their error, and absurd ranges are refused."""

from __future__ import annotations

import numpy as np
import pytest

from mpc.errors import RangeError
from mpc.tensor_type import Form, TensorType
from nn import (
    GELU,
    Activation,
    Affine,
    Architecture,
    Function,
    Linear,
    Model,
    Polynomial,
    Sequential,
    Sigmoid,
    SiLU,
    Softplus,
    Step,
    Tanh,
    calibrate,
    check_ranges,
)
from protocols.approximation import FUNCTIONS, default_fit
from protocols.lowering.intervals import ASSUMED, fineness
from protocols.operations.astray import Span


def scaled(layer, factor):
    """x -> layer(factor x) on one feature."""
    return Model(Sequential({"fc": Linear(1, 1, bias=False), "act": layer}), {"fc.weight": [[factor]]})


def slow(*values):
    return pytest.param(*values, marks=pytest.mark.slow)


@pytest.mark.sampled(4)
@pytest.mark.parametrize("margin", [0.0, 0.02, 0.25])
@pytest.mark.parametrize("ends", [(-3.0, 3.0), (-20.0, 0.1), (0.3, 11.0), (7.9, 8.1), (0.0, 0.0), (1.0, 3.2)])
@pytest.mark.parametrize("kind", ["sigmoid", "log", "polynomial"])
def test_all_samples_are_answered(kind, ends, margin):
    """However little margin there is: parties watch whether values stay in an interval by a few bits."""
    if kind == "log" and ends[0] <= 0:
        ends = ends[1] + 0.01, 4.0 * ends[1] + 1.0
    layer = {"sigmoid": Sigmoid(), "log": Function("log"), "polynomial": Polynomial((0.0, 1.0))}[kind]
    model, _ = calibrate(scaled(layer, 1.0), np.reshape(ends, (-1, 1)), margin=margin, error=0.5)
    low, high = model.architecture.steps[-1].layer.bounds
    bits = ASSUMED if kind == "polynomial" else fineness(low, high)
    if bits:
        first, last = Span.of(TensorType((1,), 24, -1e6, 1e6, Form.MASKED), low, high, bits).inside()
        assert first <= ends[0] * 2**24
        assert last >= ends[1] * 2**24


SAMPLES = np.linspace(-1, 1, 101).reshape(-1, 1)


def test_check_ranges_measures():
    known = Sigmoid(interval=(-8.0, 8.0))
    found = check_ranges(scaled(known, 10.0), SAMPLES)["act"]
    assert (found.low, found.high) == (-10.0, 10.0)
    assert found.interval == (-8.0, 8.0)
    assert not found.inside
    assert "OUTSIDE" in str(found)
    assert check_ranges(scaled(known, 2.0), SAMPLES)["act"].inside
    anywhere = check_ranges(scaled(Sigmoid(), 1000.0), SAMPLES)["act"]
    assert anywhere.inside
    assert "anywhere" in str(anywhere)


@pytest.mark.parametrize(
    ("layer", "factor"), [(Sigmoid(), 3.0), slow(Sigmoid(), 12.0), slow(Tanh(), 2.0), (SiLU(), 5.0)]
)
def test_intervals_cover_samples_and_margin(layer, factor, evaluate):
    model, report = calibrate(scaled(layer, factor), SAMPLES)
    chosen = report["act"]
    assert chosen.inside
    assert chosen.interval[0] <= -1.25 * factor
    assert chosen.interval[1] >= 1.25 * factor
    assert chosen.error <= 1.01 * FUNCTIONS[layer.function].target
    assert np.abs(model.plain(SAMPLES) - model.plain(SAMPLES, exact=True)).max() <= chosen.error * 1.01
    run = evaluate(model, SAMPLES)
    assert np.abs(run.result - model.plain(SAMPLES, exact=True)).max() <= 3 * chosen.error


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_samples_on_one_side(sign):
    """An interval is symmetric for an odd function, and covers the side on which the samples are."""
    samples = sign * np.linspace(-0.1, 1, 101).reshape(-1, 1)
    model, report = calibrate(scaled(Sigmoid(), 5.0), samples)
    assert report["act"].inside
    low, high = report["act"].interval
    assert low == -high
    assert high >= 6.25
    assert np.abs(model.plain(samples) - model.plain(samples, exact=True)).max() <= report["act"].error * 1.01
    found = check_ranges(scaled(Sigmoid(interval=(-8.0, 8.0)), 10.0), samples)["act"]
    assert not found.inside
    assert (found.high > 8) == (sign > 0)
    with pytest.raises(RangeError, match="beyond"):
        calibrate(scaled(Sigmoid(), 1e6), samples)


@pytest.mark.parametrize("order", [(1.0, 6.0), (6.0, 1.0), (-6.0, 1.0), (1.0, -6.0)])
def test_a_layer_that_is_used_twice_covers_both(order):
    steps = (
        Step("a", Affine(order[0]), (0,)),
        Step("act", Polynomial((0.0, 1.0, 0.01)), (1,)),
        Step("b", Affine(order[1]), (0,)),
        Step("act", Polynomial((0.0, 1.0, 0.01)), (3,)),
    )
    samples = np.linspace(0, 1, 11).reshape(-1, 1)
    model, report = calibrate(Model(Architecture(steps, (1,)), {}), samples)
    assert (report["act"].low, report["act"].high) == (min(0.0, *order), max(*order))
    assert report["act"].inside
    assert model.architecture.input_shape == (1,)


def test_ranges_are_those_of_the_true_functions():
    """The second layer's inputs are what a sigmoid gives, not what its poor approximation runs away to."""
    net = Sequential({"rough": Sigmoid(method="minimax", degree=3, interval=(-1.0, 1.0)), "act": Sigmoid()})
    found = check_ranges(Model(net, {}), 8 * SAMPLES)["act"]
    assert 0 <= found.low < found.high <= 1


def test_error_chooses_terms():
    coarse, report = calibrate(scaled(Sigmoid(), 4.0), SAMPLES, error=1e-2)
    fine, finer_report = calibrate(scaled(Sigmoid(), 4.0), SAMPLES, error=1e-4)
    assert report["act"].error <= 1e-2
    assert finer_report["act"].error <= 1e-4
    assert coarse.architecture.layers["act"].terms < fine.architecture.layers["act"].terms
    _, long_report = calibrate(scaled(Sigmoid(), 150.0), SAMPLES, error=1e-6)
    assert long_report["act"].error <= 1e-6


def test_polynomials_are_declared(evaluate):
    model, report = calibrate(scaled(Polynomial((0.0, 0.5, 0.2)), 2.0), SAMPLES)
    assert report["act"].interval == (-2.75, 2.75)
    assert np.abs(evaluate(model, SAMPLES).result - model.plain(SAMPLES)).max() < 1e-2


def test_functions_with_a_pole():
    samples = np.linspace(0.5, 2, 50).reshape(-1, 1)
    _, report = calibrate(scaled(Function("log"), 1.0), samples)
    assert 0 < report["act"].interval[0] <= 0.4
    with pytest.raises(RangeError, match="log"):
        calibrate(scaled(Function("log"), 1.0), SAMPLES)


def test_absurd_ranges_are_refused():
    with pytest.raises(RangeError, match=r"layer 'act': inputs from -1e\+06 to 1e\+06 are beyond"):
        calibrate(scaled(Sigmoid(), 1e6), SAMPLES)
    with pytest.raises(RangeError, match="margin"):
        calibrate(scaled(Sigmoid(), 1.0), SAMPLES, margin=-1)


def test_a_fixed_fit_is_checked():
    fixed = Activation(default_fit("sigmoid"))
    assert calibrate(scaled(fixed, 7.0), SAMPLES)[0].architecture.layers["act"] == fixed
    with pytest.raises(RangeError, match="leave its fit"):
        calibrate(scaled(fixed, 9.0), SAMPLES)


@pytest.mark.parametrize(
    ("layer", "factor"),
    [(SiLU(), 17.0), pytest.param(GELU("tanh"), 60.0, marks=pytest.mark.slow), (Softplus(beta=2.0), 40.0)],
)
def test_wide_inputs_take_more_rounds_and_no_guess(layer, factor, evaluate):
    model, report = calibrate(scaled(layer, factor), SAMPLES)
    assert report["act"].inside
    assert report["act"].error <= 2e-4 * factor / 8
    off = np.abs(evaluate(model, SAMPLES).result - model.plain(SAMPLES, exact=True)).max()
    assert off <= 2 * report["act"].error + factor * 2.0**-16  # of the samples' own rounding
