"""The fits themselves, without shares: measured errors, known answers, periods a field element's angle can have."""

from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import erf

from mpc.errors import UnsupportedError
from protocols.approximation import FUNCTIONS, default_fit, fit, fit_fourier, fit_polynomial
from protocols.approximation.defaults import shipped_fits
from protocols.approximation.minimax import MAX_MULTIPLIER

TRUE = {
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "tanh": np.tanh,
    "exp": np.exp,
    "silu": lambda x: x / (1 + np.exp(-x)),
    "gelu": lambda x: x * (1 + erf(x / math.sqrt(2))) / 2,
    "gelu_tanh": lambda x: x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))) / 2,
    "mish": lambda x: x * np.tanh(np.log1p(np.exp(x))),
    "erf": erf,
    "softplus": lambda x: np.log1p(np.exp(x)),
    "reciprocal": lambda x: 1 / x,
    "sqrt": np.sqrt,
    "rsqrt": lambda x: x**-0.5,
    "log": np.log,
    "sin": np.sin,
    "cos": np.cos,
}


def errors(made, function, low, high):
    x = np.linspace(low, high, 54_321)
    return float(np.abs(made(x) - function(x)).max())


@pytest.mark.parametrize("name", FUNCTIONS)
def test_default_fit_has_the_error_it_states_and_meets_its_target(name):
    made = shipped_fits()[name]
    function = FUNCTIONS[name]
    assert (made.low, made.high) == (function.low, function.high)
    found = errors(made, TRUE[name], made.low, made.high)
    assert found <= made.error * 1.001
    assert found >= made.error * 0.98
    assert made.error <= function.target


@pytest.mark.parametrize(
    ("name", "low", "high", "error"),
    [("sigmoid", -8, 8, 2e-4), ("exp", -8, 0, 1e-5), ("tanh", -8, 8, 2e-4), ("gelu", -8, 8, 1e-4)],
)
def test_promised_errors(name, low, high, error):
    made = default_fit(name)
    assert made.low <= low
    assert made.high >= high
    assert errors(made, TRUE[name], low, high) <= error


def test_sigmoid_takes_nine_sines():
    made = default_fit("sigmoid")
    assert made.terms == 9
    assert made.cosines == ()


@pytest.mark.parametrize("name", FUNCTIONS)
def test_periods_are_those_of_angles(name):
    made = default_fit(name)
    assert 1 <= made.multiplier <= MAX_MULTIPLIER
    assert made.period * made.multiplier == 2.0**made.period_log2
    assert made.period >= made.high - made.low
    x = np.linspace(made.low, made.high, 1001)
    assert np.allclose(made(x), made(x + 3 * made.period), atol=1e-9)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_range_holds_everywhere(name):
    made = default_fit(name)
    low, high = made.range()
    values = made(np.random.default_rng(1).uniform(-1000, 1000, 50_000))
    assert low <= values.min()
    assert values.max() <= high


def test_shipped_fits_load_no_solver():
    code = (
        "import sys; from protocols.approximation import default_fit; default_fit('gelu');"
        "sys.exit('scipy.optimize' in sys.modules or 'scipy.special' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_default_fits_are_reproducible():
    made = default_fit("sigmoid", low=-8.0, high=8.0, terms=8)
    again = fit_fourier(TRUE["sigmoid"], -8, 8, 8, odd=True)
    assert made.period == again.period
    assert np.allclose(made.sines, again.sines, atol=1e-5)


# Polynomials ------------------------------------------------------------------------------------------------------


def test_minimax_of_the_exponential_has_the_known_error():
    # Best approximation of exp on [-1, 1] by a line: slope sinh 1, error from equioscillation at -1, log(sinh 1), 1.
    made = fit_polynomial(np.exp, -1, 1, 1)
    slope = math.sinh(1)
    known = (math.exp(1) - slope - (slope - slope * math.log(slope))) / 2
    assert made.coefficients[1] == pytest.approx(slope, abs=1e-4)
    assert made.error == pytest.approx(known, rel=1e-3)


def test_minimax_of_a_monomial_is_chebyshevs():
    # x^5 minus its best approximation of degree 4 is T_5 / 16.
    made = fit_polynomial(lambda x: x**5, -1, 1, 4)
    assert made.error == pytest.approx(1 / 16, rel=1e-3)
    assert made.coefficients == pytest.approx((0, -5 / 16, 0, 20 / 16, 0), abs=1e-3)


@given(degree=st.integers(2, 9), low=st.floats(-4, 0), width=st.floats(0.5, 4))
@settings(max_examples=15)
def test_minimax_errors_alternate(degree, low, width):
    """De la Vallee-Poussin: a best approximation of degree d attains its error with alternating signs d + 2 times."""
    made = fit_polynomial(np.exp, low, low + width, degree)
    x = low + width / 2 - width / 2 * np.cos(np.linspace(0, math.pi, 20_001))
    error = made(x) - np.exp(x)
    extreme = np.sign(error[np.abs(error) > 0.9 * made.error])
    if made.error > 1e-8:  # below, it is the solver's own rounding
        assert 1 + np.count_nonzero(np.diff(extreme)) >= degree + 2


TAYLOR = {
    "sigmoid": (1 / 2, 1 / 4, 0, -1 / 48, 0, 1 / 480),
    "tanh": (0, 1, 0, -1 / 3, 0, 2 / 15),
    "exp": (1, 1, 1 / 2, 1 / 6, 1 / 24, 1 / 120),
    "sin": (0, 1, 0, -1 / 6, 0, 1 / 120),
    "cos": (1, 0, -1 / 2, 0, 1 / 24, 0),
}


@pytest.mark.parametrize("name", TAYLOR)
def test_taylor_coefficients_are_the_textbooks(name):
    assert default_fit(name, "taylor", degree=5).coefficients == pytest.approx(TAYLOR[name], abs=1e-15)


@pytest.mark.parametrize(("name", "at"), [("log", 0.9), ("reciprocal", 1.1)])
def test_taylor_around_one(name, at):
    made = default_fit(name, "taylor", degree=9)
    assert float(made(at)) == pytest.approx(float(TRUE[name](at)), abs=1e-9)


@pytest.mark.parametrize("name", ["sigmoid", "tanh", "sin"])
def test_odd_functions_have_odd_polynomials(name):
    for degree, end in ((3, 3.0), (5, 3.0), (3, 8.0), (5, 8.0)):
        made = default_fit(name, "minimax", -end, end, degree=degree)
        assert all(c == 0 for c in made.coefficients[2::2])  # none, and not just small ones
        assert len(made.coefficients) == degree + 1
    assert any(c != 0 for c in default_fit(name, "minimax", -1.0, 3.0).coefficients[2::2])


@pytest.mark.parametrize("name", ["sigmoid", "tanh", "exp"])
def test_each_stage_of_a_composite_has_room_for_what_reaches_it(name):
    """Values that were rounded on the way may be a little beyond those of the stage before."""
    made = default_fit(name, "composite")
    assert errors(made, TRUE[name], made.low, made.high) == pytest.approx(made.error, rel=0.01)
    values = np.linspace(made.low, made.high, 10_001)
    for before, after in zip(made.stages, made.stages[1:], strict=False):
        values = before(values)
        room = 2.0**-12 * np.ptp(values)
        assert after.low <= values.min() - room
        assert after.high >= values.max() + room


@pytest.mark.parametrize("method", ["minimax", "taylor", "fourier"])
def test_one_function_with_other_options_is_another_fit(method):
    """Fits are kept once they are made: by all that they depend on."""
    option = "terms" if method == "fourier" else "degree"
    made = [default_fit("sigmoid", method, -h, h, **{option: n}) for h in (2.0, 3.0) for n in (2, 3, 5)]
    again = [default_fit("sigmoid", method, -h, h, **{option: n}) for h in (2.0, 3.0) for n in (2, 3, 5)]
    assert made == again
    assert len({(fit.low, fit.terms if option == "terms" else fit.degree) for fit in made}) == 6


@pytest.mark.parametrize("name", ["sigmoid", "tanh", "exp"])
def test_composites_beat_one_polynomial_in_as_many_rounds(name):
    made = default_fit(name, "composite")
    assert errors(made, TRUE[name], made.low, made.high) == pytest.approx(made.error, rel=0.01)
    # One round leaves room for degree 3; the chain takes a round a stage.
    assert made.error < default_fit(name, "minimax", degree=3).error / 5
    assert made.degree >= 27


# Any function -----------------------------------------------------------------------------------------------------


@given(
    a=st.floats(-2, 2),
    b=st.floats(0.2, 1.5),
    c=st.floats(-1, 1),
    low=st.floats(-3, 0),
    width=st.floats(0.5, 5),
)
@settings(max_examples=10)
def test_any_smooth_function(a, b, c, low, width):
    def f(x):
        return a * np.sin(b * x) + c * np.exp(-x * x / 8)

    made = fit(f, low, low + width, 1e-3)
    assert errors(made, f, low, low + width) <= 1e-3 * 1.01


def test_a_function_of_one_number_will_do():
    made = fit(math.erf, -2, 2, 1e-3, method="minimax")
    assert errors(made, erf, -2, 2) <= 1e-3


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((np.log, -1.0, 1.0, 1e-3), "not finite"),
        ((np.exp, 1.0, 1.0, 1e-3), "not an interval"),
        ((np.exp, 0.0, math.inf, 1e-3), "not an interval"),
        ((np.exp, 0.0, 1.0, 0.0), "must be positive"),
        ((np.sign, -1.0, 1.0, 1e-3), "reach "),
    ],
)
@pytest.mark.filterwarnings("ignore:invalid value")
@pytest.mark.filterwarnings("ignore:divide by zero")
def test_what_cannot_be_fitted(arguments, sentence):
    with pytest.raises(UnsupportedError, match=sentence):
        fit(*arguments, method="minimax")


@pytest.mark.parametrize(
    ("arguments", "options", "sentence"),
    [
        (("relu",), {}, "there is no function 'relu'"),
        (("sigmoid", "magic"), {}, "method 'magic'"),
        (("gelu", "taylor"), {}, "no Taylor polynomial"),
        (("gelu", "composite"), {}, "'composite' is for"),
        (("sigmoid",), {"degree": 3}, "`terms` goes with"),
        (("sigmoid", "minimax"), {"terms": 3}, "`terms` goes with"),
        (("sigmoid",), {"low": -1.0}, "two ends"),
        pytest.param(("log",), {"low": 1e-6, "high": 1e6}, r"within\(low, high\)", marks=pytest.mark.slow),
    ],
)
def test_options_that_make_no_sense(arguments, options, sentence):
    with pytest.raises(UnsupportedError, match=sentence):
        default_fit(*arguments, **options)
