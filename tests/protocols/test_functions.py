"""Named functions and fits as users call them: one round, the fit's error at most doubled, and clear refusals."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import pytest

from mpc import fixed_point
from mpc.cost import cost
from mpc.errors import RangeError, TesseraError, UnsupportedError
from protocols.approximation import FUNCTIONS, CompositeFit, FourierFit, PolynomialFit, default_fit, fit
from protocols.operations.polynomial import polynomial_range
from protocols.readings.memory import run_in_memory

TRUE = {
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "tanh": np.tanh,
    "exp": np.exp,
    "sin": np.sin,
    "cos": np.cos,
    "log": np.log,
    "reciprocal": lambda x: 1 / x,
    "sqrt": np.sqrt,
    "rsqrt": lambda x: x**-0.5,
    "silu": lambda x: x / (1 + np.exp(-x)),
    "gelu": lambda x: x * 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2))),
    "softplus": lambda x: np.log1p(np.exp(x)),
}


def evaluate(secure: Any, build: Any, x: Any, low: float, high: float, parties: int = 2) -> tuple[Any, Any]:
    result = build(secure.secret(x.shape, low, high))
    program = secure.program(result)
    run = run_in_memory(program, [fixed_point.encode(x, 16)], parties=parties)
    return fixed_point.decode(run.outputs[0], result.type.fraction_bits), program


@pytest.mark.parametrize("name", sorted(TRUE))
def test_the_default_takes_one_opening_and_twice_its_target(secure: Any, name: str) -> None:
    best = default_fit(name)
    assert isinstance(best, FourierFit)
    x = np.round(np.linspace(best.low, best.high, 4001) * 2**16) / 2**16
    x = np.clip(x, math.ceil(best.low * 2**16) / 2**16, math.floor(best.high * 2**16) / 2**16)
    got, program = evaluate(secure, lambda s: getattr(s, name)(), x, best.low, best.high)
    assert np.abs(got - TRUE[name](x)).max() <= max(best.error + FUNCTIONS[name].target, 2.0**-19)
    assert program.rounds == 0  # of an input, which comes masked
    again = secure.program(getattr(secure.secret((3,), best.low, best.high) + 0, name)())
    assert again.rounds == 0
    shared = secure.secret((3,), best.low, best.high).truncate(12).within(best.low, best.high)
    assert secure.program(getattr(shared, name)()).rounds == 1


@pytest.mark.parametrize("method", ["minimax", "taylor", "composite"])
def test_other_methods(secure: Any, method: str) -> None:
    x = secure.draw(1, (200,), -1, 1)
    chosen = default_fit("exp", method, -1.0, 1.0)
    for parties in (2, 3):
        got, _ = evaluate(secure, lambda s: s.exp(method=method, interval=(-1, 1)), x, -1, 1, parties)
        assert np.abs(got - chosen(x)).max() < 2.0**-8
        assert np.abs(got - np.exp(x)).max() < 2 * chosen.error + 2.0**-8


def test_a_function_of_ones_own(secure: Any) -> None:
    own = fit(lambda x: np.sin(x) * x, -3, 3, 1e-3)
    x = secure.draw(1, (200,), -3, 3)
    got, _ = evaluate(secure, lambda s: s.apply(own), x, -3, 3)
    assert np.abs(got - np.sin(x) * x).max() < 2.1e-3


def test_large_values_are_evaluated_in_part(secure: Any) -> None:
    """Coefficients are below 8 on the wire; a function that reaches 500 is evaluated as a fraction of itself."""
    tall = FourierFit(1, 4, 100.0, (0.0, 30.0), (400.0,), -8.0, 8.0, 0.01)
    x = secure.draw(1, (300,), -8, 8)
    got, program = evaluate(secure, lambda s: s.apply(tall), x, -8, 8)
    assert np.abs(got - tall(x)).max() < 0.02
    assert program.rounds == 0


@pytest.mark.parametrize("constant", [0.0, 0.25, -20.0])
def test_a_fit_without_waves(secure: Any, constant: float) -> None:
    flat = FourierFit(1, 4, constant, (), (0.0,), -8.0, 8.0, 0.0)
    got, _ = evaluate(secure, lambda s: s.apply(flat), np.array([1.0, -2.0]), -8, 8)
    assert np.abs(got - constant).max() < 1e-4


def test_the_interval_is_the_declared_range(secure: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for low, high in ((-100, 100), (-100, 4), (-4, 100), (0.25, 12)):
            x = np.round(np.linspace(low, high, 997) * 2**16) / 2**16
            got, _ = evaluate(secure, lambda s: s.sigmoid(), x, low, high)
            assert np.abs(got - TRUE["sigmoid"](x)).max() <= 2 * FUNCTIONS["sigmoid"].target
        x = secure.secret((2,), -100, 100)
        assert secure.program(x.within(-8, 8).sigmoid()).rounds == 0
        assert secure.program(x.sigmoid(interval=(-8.0, 8.0))).rounds == 0  # who says where, knows


@pytest.mark.parametrize("build", [lambda x: x.log(), lambda x: 1 / x, lambda x: x.sqrt(), lambda x: x**-0.5])
def test_what_may_be_zero_has_no_root_and_no_logarithm(secure: Any, build: Any) -> None:
    for low in (-4.0, 0.0):
        with pytest.raises(UnsupportedError, match=r"declare a range above 0 with within\(low, high\)"):
            build(secure.secret((2,), low, 4.0))


@pytest.mark.parametrize(("low", "high"), [(-1.0, 50.0), (-50.0, 1.0), (-1.0, 1.0), (-50.0, 50.0)])
def test_a_polynomials_fit_says_where_values_are(secure: Any, low: float, high: float) -> None:
    made = PolynomialFit((0.5, 1.0, -0.25), -2.0, 2.0, 1e-3)
    t = secure.secret((3,), low, high).apply(made).type
    bottom, top = polynomial_range(made.coefficients, max(low, -2.0), min(high, 2.0))
    assert (t.low, t.high) == pytest.approx((bottom, top), abs=0.02)


@pytest.mark.parametrize("coefficients", [[0.0, 0.0, 1.0], [100.0, 0.0, 3.0, 0.5], [5.0] + [0.1] * 8])
@pytest.mark.parametrize("size", [1.0, 50.0, 3000.0, 2.0**20])
def test_a_polynomial_and_its_negative_are_laid_out_alike(secure: Any, coefficients: list[float], size: float) -> None:
    def laid_out(sign: float) -> Any:
        try:
            result = secure.secret((3,), 0.0, size).polynomial([sign * c for c in coefficients])
        except RangeError:
            return RangeError
        return result.type.fraction_bits, secure.program(result).rounds

    assert laid_out(1.0) == laid_out(-1.0)


HIGH_DEGREE = [1.0, 0.5, -0.25, 0.0, 0.0, 0.1, 0.01, -0.02]


def test_a_polynomial_of_many_rounds_belongs_to_its_layer(secure: Any) -> None:
    x = secure.secret((3,), -1.0, 1.0).labelled("layer")
    layers = cost(secure.program(x.polynomial(HIGH_DEGREE)), 2).layers
    assert {name for name, spent in layers.items() if spent.rounds or spent.opened or spent.dealt} == {"layer"}


def test_a_polynomial_of_many_rounds_is_as_precise_as_asked(secure: Any) -> None:
    x = secure.draw(1, (500,), -1.0, 1.0)
    wanted = np.polynomial.Polynomial(HIGH_DEGREE)(x)
    errors = [
        np.abs(evaluate(secure, lambda s, b=bits: s.precise(b).polynomial(HIGH_DEGREE), x, -1.0, 1.0)[0] - wanted).max()
        for bits in (8, 16, 22)
    ]
    assert errors[0] > 4 * errors[1] > 16 * errors[2]


@pytest.mark.parametrize("options", [{"degree": 2}, {"degree": 3}, {"degree": 5}, {}])
def test_the_degree_is_the_one_that_was_asked_for(secure: Any, options: dict[str, int]) -> None:
    x = secure.draw(1, (200,), -1, 1)
    for method in ("minimax", "taylor"):
        got, _ = evaluate(secure, lambda s, m=method: s.exp(method=m, interval=(-1, 1), **options), x, -1, 1)
        assert np.abs(got - default_fit("exp", method, -1.0, 1.0, **options)(x)).max() < 2.0**-10


def test_the_terms_are_those_that_were_asked_for(secure: Any) -> None:
    x = secure.draw(1, (200,), -8, 8)
    for terms in (2, 4, 9):
        got, _ = evaluate(secure, lambda s, n=terms: s.sigmoid(terms=n), x, -8, 8)
        made = default_fit("sigmoid", terms=terms)
        assert np.abs(got - made(x)).max() < 0.25 * made.error + 2.0**-12


def test_refusals(secure: Any) -> None:
    x = secure.secret((2,))
    with pytest.raises(UnsupportedError, match="not a fit"):
        x.apply("sigmoid")
    for options in ({"method": "magic"}, {"interval": (1.0, -1.0)}, {"terms": -1}):
        with pytest.raises(TesseraError):
            x.sigmoid(**options)
    with pytest.raises(RangeError):
        secure.secret((2,), -(2.0**50), 2.0**50, 8).apply(FourierFit(1, -20, 0.5, (), (0.25,), -1e-7, 1e-7, 1e-3))


def test_division_by_a_secret(secure: Any) -> None:
    x = secure.draw(3, (100,), 0.5, 8)
    interval = default_fit("reciprocal")
    x = np.clip(x, math.ceil(interval.low * 2**16) / 2**16, interval.high)
    got, _ = evaluate(secure, lambda s: 1 / s, x, interval.low, interval.high)
    assert np.abs(got - 1 / x).max() < 2 * interval.error + 2**-14
    got, _ = evaluate(secure, lambda s: s / s, x, interval.low, interval.high)
    assert np.abs(got - 1).max() < 8 * (2 * interval.error + 2**-14)


def test_a_chain_of_polynomials(secure: Any) -> None:
    stages = (PolynomialFit((1.0, 0.5, 0.25), -1, 1, 0.0), PolynomialFit((0.0, -1.0, 1.0), 0.5, 2, 0.0))
    chain = CompositeFit(stages, -1, 1, 0.0)
    x = secure.draw(3, (100,), -1, 1)
    got, program = evaluate(secure, lambda s: s.apply(chain), x, -1, 1)
    assert np.abs(got - chain(x)).max() < 1e-3
    assert program.rounds == 1
