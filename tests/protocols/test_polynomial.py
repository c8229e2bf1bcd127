"""Polynomials: exact in the field against Python's integers, with and without truncation, in one round."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpc.errors import RangeError, TesseraError, UnsupportedError
from mpc.operation import PartyContext, Value
from mpc.rings import FieldRing, field, known_rings
from mpc.tensor_type import Form, TensorType
from protocols.operations.polynomial import (
    MAX_DEGREE,
    Polynomial,
    TruncatedPolynomial,
    horner,
    polynomial_range,
    polynomial_slope,
)

MASKED = TensorType((4,), 16, -1.0, 1.0, Form.MASKED)
quick = settings(max_examples=40)
elements = st.integers(0, field.P - 1) | st.sampled_from([0, 1, field.P - 1, 2**60, 2**60 - 1])


def evaluate(operation: Any, types: tuple[TensorType, ...], x: Any, mask: Any) -> list[int]:
    opened = field.subtract(x, mask)
    (correlation,) = operation.correlations(*types)
    dealt = correlation.make(known_rings(), [mask])
    assert [d.shape for d in dealt] == [part.shape for part in correlation.parts]
    rng = np.random.default_rng(0)
    total = field.zeros(x.shape)
    own = rng.integers(0, field.P, x.shape, dtype=np.uint64)
    shares = [rng.integers(0, field.P, d.shape, dtype=np.uint64) for d in dealt]
    rest = [field.subtract(d, s) for d, s in zip(dealt, shares, strict=True)]
    for index, (share, prepared) in enumerate([(own, shares), (field.subtract(mask, own), rest)]):
        context = PartyContext(index, 2)
        value = operation.evaluate(context, types, [Value(opened, share)], prepared)
        total = field.add(total, context.fold(value, types[0]))
    return [int(v) for v in total]


@quick
@given(st.lists(elements, min_size=4, max_size=4), st.lists(elements, min_size=4, max_size=4), st.data())
def test_exact_for_any_element_and_any_mask(xs: list[int], masks: list[int], data: st.DataObject) -> None:
    degree, bits = data.draw(st.integers(1, 5)), data.draw(st.integers(0, 9))
    coefficients = tuple(data.draw(st.integers(-(2**40), 2**40)) for _ in range(degree + 1))
    types = (MASKED.replace(fraction_bits=bits),)
    result = evaluate(Polynomial(coefficients, 3), types, np.array(xs, np.uint64), np.array(masks, np.uint64))
    assert result == [
        sum(c * 2 ** (bits * (degree - k)) * x**k for k, c in enumerate(coefficients)) % field.P for x in xs
    ]


@quick
@given(
    st.lists(st.integers(-(2**59) + 1, 2**59 - 1) | st.sampled_from([0, 2**59 - 1, 1 - 2**59]), min_size=4, max_size=4),
    st.lists(elements, min_size=4, max_size=4),
    st.data(),
)
def test_truncation_and_polynomial_in_one(xs: list[int], masks: list[int], data: st.DataObject) -> None:
    """The polynomial of the truncated value, which is one of two neighbours: exactly, not just nearly."""
    degree, bits = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 16))
    coefficients = tuple(data.draw(st.integers(-(2**20), 2**20)) for _ in range(degree + 1))
    x, mask = field.from_signed(np.array(xs)), np.array(masks, np.uint64)
    result = evaluate(TruncatedPolynomial(coefficients, 3, bits), (MASKED,), x, mask)
    left = 16 - bits
    for value, out in zip(xs, result, strict=True):
        assert out in {
            sum(c * 2 ** (left * (degree - k)) * q**k for k, c in enumerate(coefficients)) % field.P
            for q in (value >> bits, (value >> bits) + 1)
        }


@pytest.mark.parametrize("degree", [1, 2, 3, 4, 5, 7])
@pytest.mark.parametrize("high", [0.5, 1.0, 4.0])
def test_powers(secure: Any, degree: int, high: float) -> None:
    x = secure.draw(degree, (5, 3), -high, high)
    program = secure.check(lambda x: x**degree, x, low=-high, high=high, error=max(1.0, high**degree) * 2.0**-11)
    if degree <= 3:
        assert program.rounds == 0  # the input came masked


@pytest.mark.parametrize("coefficients", [[0.0], [3.5], [1.0, 2.0], [0.25, 0.0, -1.5], [1, -1, 0.5, 0, 0], [0, 1]])
def test_any_coefficients(secure: Any, coefficients: list[float]) -> None:
    x = secure.draw(1, (7,), -2, 2)
    secure.check(
        lambda x: x.polynomial(coefficients), x, low=-2, high=2, error=2.0**-10,
        reference=lambda x: np.polynomial.Polynomial(coefficients)(x),
    )  # fmt: skip


@pytest.mark.parametrize("shape", [(), (0,), (2, 0, 3)])
def test_scalars_and_empty_tensors(secure: Any, shape: tuple[int, ...]) -> None:
    x = secure.draw(2, shape)
    secure.check(lambda x: x**2 + 1, x)
    secure.check(lambda x: (x * x) ** 3, x, error=4.0**6 * 2.0**-11)
    secure.check(lambda x: x**0, x)


def test_small_coefficients_keep_their_worth(secure: Any) -> None:
    x = secure.draw(2, (50,), -900, 900)
    secure.check(
        lambda x: x.polynomial([0, 0.0009997]), x, low=-900, high=900, error=900 * 0.001 * 2.0**-13,
        reference=lambda x: 0.0009997 * x,
    )  # fmt: skip


@pytest.mark.parametrize(("high", "power"), [(2.0**30, 40), (2.0**40, 2), (3.0, 400), (1e9, 3)])
def test_powers_too_large_for_the_field(secure: Any, high: float, power: int) -> None:
    with pytest.raises(RangeError):
        secure.secret((2,), -high, high, 8) ** power


def test_powers_that_are_refused(secure: Any) -> None:
    x = secure.secret((2,))
    for power in (-1, 10**12, 0.5, "2"):
        with pytest.raises(UnsupportedError):
            x**power
    for coefficients in ([], [float("nan")], [1.0, float("inf")]):
        with pytest.raises(UnsupportedError):
            x.polynomial(coefficients)
    with pytest.raises(RangeError):
        x.polynomial([0.0, 0.0, 1e300])


@pytest.mark.parametrize(
    "operation",
    [
        Polynomial((1,), 0),
        Polynomial((), 0),
        Polynomial((1,) * (MAX_DEGREE + 2), 0),
        Polynomial((0, 0, 1), 61),
        Polynomial((0, 0, 1), -1),
        Polynomial((0, 0, 2**61), 0),
        Polynomial((0, 0, 0, 0, 1), 0),  # 64 fraction bits
        Polynomial((0, 2**60), 0),
        TruncatedPolynomial((0, 0, 1), 0, 0),
        TruncatedPolynomial((0, 0, 1), 0, 17),
    ],
)
def test_what_does_not_fit_is_refused(operation: Any) -> None:
    with pytest.raises(TesseraError):
        operation.result(MASKED).check()
    with pytest.raises(TesseraError):
        operation.result(MASKED.replace(form=Form.SHARED)).check()


def test_a_huge_range_is_refused_quietly(recwarn: pytest.WarningsRecorder) -> None:
    t = TensorType((1,), 0, -(2.0**58), 2.0**58, Form.MASKED)
    with pytest.raises(TesseraError):
        Polynomial((1,) * (MAX_DEGREE + 1), 0).result(t).check()
    assert not recwarn.list


@quick
@given(
    st.lists(st.floats(-4, 4), min_size=1, max_size=7),
    st.floats(-8, 8),
    st.floats(0, 8),
    st.floats(0, 1),
)
def test_ranges_are_bounds(coefficients: list[float], low: float, width: float, place: float) -> None:
    high = low + width
    bottom, top = polynomial_range(tuple(coefficients), low, high)
    x = Fraction(min(max(low + place * width, low), high))
    value = sum(Fraction(c) * x**k for k, c in enumerate(coefficients))
    size = sum(abs(c) * max(abs(low), abs(high), 1) ** k for k, c in enumerate(coefficients))
    assert bottom - size * 1e-13 <= value <= top + size * 1e-13
    slope = sum(k * Fraction(c) * x ** (k - 1) for k, c in enumerate(coefficients) if k)
    assert abs(slope) <= polynomial_slope(coefficients, low, high) + 10 * size * 1e-12


def test_horner_keeps_the_shape() -> None:
    assert horner(FieldRing(), [1, 2], np.array(3, np.uint64)).tolist() == 7
    assert horner(FieldRing(), [-1, 2, 0, 1], np.array([[2, 3]], np.uint64)).tolist() == [[11, 32]]
