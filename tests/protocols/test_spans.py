"""Functions of many orders of magnitude: warned is where a value of the range comes out with less than three digits,
and nowhere else."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tessera as ts
from mpc import fixed_point
from mpc.errors import EncodingError, RangeError, UnsupportedError
from mpc.operation import Input
from protocols.readings.memory import run_in_memory
from protocols.trace.secret_tensor import leaf

Of = tuple[Callable[[Any], Any], Callable[[Any], Any]]

FUNCTIONS: dict[str, Of] = {
    "exp": (lambda x: x.exp(), np.exp),
    "two to it": (lambda x: 2.0**x, np.exp2),
    "reciprocal": (lambda x: 1 / x, np.reciprocal),
    "of negative ones": (lambda x: 1 / -x, lambda x: -1 / x),
    "sqrt": (lambda x: x.sqrt(), np.sqrt),
    "rsqrt": (lambda x: x.rsqrt(), lambda x: x**-0.5),
    "to the 1.5": (lambda x: x**1.5, lambda x: x**1.5),
    "cube": (lambda x: x**3, lambda x: x**3),
    "sixth power": (lambda x: x**6, lambda x: x**6),
    "a quotient": (lambda x: (0.75 * x + 0.01) / 3, lambda x: (0.75 * x + 0.01) / 3),
}


def worst_of(secure: Any, name: str, low: float, high: float, bits: int) -> tuple[float, list[str]]:
    """By which part of itself a value is off at most, anywhere on the range, and what is warned of.

    What was shared is as far from its encoding as it can be.
    """
    build, of = FUNCTIONS[name]
    least = math.ceil(low * 2.0**bits)
    x = [np.linspace(low, high, 300), *([np.geomspace(low, high, 300)] if low > 0 else [])]
    raw = np.clip(np.rint(np.concatenate(x) * 2.0**bits), least, math.floor(high * 2.0**bits))
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        y = build(leaf(Input(raw.shape, bits, low, high)))
    (out,) = run_in_memory(secure.program(y), [fixed_point.encode(raw * 2.0**-bits, bits)]).outputs
    got = fixed_point.decode(out, y.type.fraction_bits)
    off = np.zeros(raw.shape)
    for beside in (-0.5, 0.0, 0.5):
        true = of(np.clip((raw + beside) * 2.0**-bits, low, high))
        off = np.maximum(off, np.abs(got - true) / np.abs(true))
    assert all(issubclass(each.category, ts.PrecisionWarning) for each in said)
    return float(off.max()), [str(each.message) for each in said]


def check(secure: Any, name: str, low: float, high: float, bits: int) -> None:
    try:
        worst, said = worst_of(secure, name, low, high, bits)
    except (EncodingError, RangeError, UnsupportedError):
        return
    # Between the two, a point more or less decides.
    assert said or worst <= 3e-3, worst
    # What is lost of the range is followed, and may be less than that.
    assert worst > 1e-3 or not [each for each in said if "three digits" in each], worst


@pytest.mark.sampled(3)
@pytest.mark.parametrize(
    ("name", "low", "high", "bits"),
    [
        ("exp", -20.0, 20.0, 16), ("exp", -5.0, 25.0, 16), ("exp", -60.0, 0.0, 16), ("exp", -8.0, 0.0, 16),
        ("two to it", -30.0, 20.0, 16), ("two to it", -4.0, 4.0, 16), ("reciprocal", 0.001, 1000.0, 16),
        ("reciprocal", 0.001, 1000.0, 26), ("of negative ones", 0.5, 100.0, 16),
        ("reciprocal", 1.0, 1000.0, 16), ("sqrt", 0.01, 1e4, 16),
        ("rsqrt", 1e-3, 10.0, 14), ("to the 1.5", 1.0, 300.0, 18), ("sixth power", 0.01, 10.0, 16),
        ("sixth power", 0.5, 2.0, 18), ("cube", 1.0, 8.0, 18), ("a quotient", 1.0, 8.0, 16),
    ],
)  # fmt: skip
def test_warned_is_of_what_is_worse(secure: Any, name: str, low: float, high: float, bits: int) -> None:
    check(secure, name, low, high, bits)


@pytest.mark.slow
@given(st.sampled_from(sorted(FUNCTIONS)), st.floats(-14, 10), st.floats(0.5, 24), st.integers(12, 34))
@settings(max_examples=150)
def test_warned_is_of_what_is_worse_at_length(secure: Any, name: str, first: float, orders: float, bits: int) -> None:
    if name in ("exp", "two to it"):
        check(secure, name, first * 3, first * 3 + 2 * orders, bits)
    elif 2.0**first > 2.0 ** (2 - bits):
        check(secure, name, 2.0**first, 2.0 ** min(first + orders, 20.0), bits)


def test_a_fit_says_of_which_values_it_is_not(secure: Any) -> None:
    made = ts.fit(lambda x: 1 / x**2, 0.01, 100.0)
    x = np.geomspace(0.01, 100.0, 1000)
    off = np.abs(made(x) - x**-2) * x**2
    assert made.coarse >= (x**-2)[off > 2e-3].max(initial=0.0)
    secret = leaf(Input((3,), 24, 0.01, 100.0))
    with pytest.warns(
        ts.PrecisionWarning, match=r"the function on \[0\.01, 100\]: where its argument is from .* to 100"
    ):
        secret.apply(made)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # Of values that are not so small, there is nothing to say.
        leaf(Input((3,), 24, 0.01, 1.0)).apply(made)


@pytest.mark.parametrize("build", [lambda x: x.softmax(), lambda x: x.sigmoid(), lambda x: x.log_softmax()])
def test_what_is_made_of_exponentials_is_right(secure: Any, build: Callable[[Any], Any]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        build(secure.secret((2, 3), -100.0, 100.0))


def test_it_names_the_line_and_what_helps(secure: Any) -> None:
    x = secure.secret((3,), -30.0, 20.0)
    with pytest.warns(ts.PrecisionWarning, match=r"exp on \[-30, 20\].*within\(low, high\).*logarithms") as said:
        x.exp()
    assert [each.filename for each in said] == [__file__]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        x.clip(-8.0, 8.0).exp()
        x.labelled("a layer's").exp()


@pytest.mark.parametrize("build", [lambda x: 1 / x, lambda x: x**-1, lambda x: x.reciprocal()])
def test_values_below_0_have_a_reciprocal(secure: Any, build: Callable[[Any], Any]) -> None:
    real = np.array([-1.0, -3.0, -50.0])
    y = build(leaf(Input((3,), 16, -100.0, -0.5)))
    (out,) = run_in_memory(secure.program(y), [fixed_point.encode(real, 16)]).outputs
    assert fixed_point.decode(out, y.type.fraction_bits) == pytest.approx(1 / real, rel=1e-3)
