"""Digits follow values: results are judged against the real numbers, relative to what they can be.

A product by a public number, of values up to M in all, is right to 2^-16 of min(1, M), what is kept of it, or to
2^-27 M, what the field has room for; whichever is more.  Of very small products that room is for 60 fraction bits:
2^-29 of the root of M.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpc import fixed_point
from mpc.operation import Input
from protocols.lowering.planner import usual_bits
from protocols.readings.memory import run_in_memory
from protocols.trace.secret_tensor import SecretTensor, leaf

sizes = st.floats(-6, 6).map(lambda e: 10.0**e)


def shared(value: Any, low: float, high: float) -> tuple[SecretTensor, Any]:
    """A secret with the usual fraction bits, and its elements."""
    bits = usual_bits(low, high)
    array = np.asarray(value, np.float64)
    return leaf(Input(array.shape, bits, low, high)), fixed_point.encode(array, bits, low, high)


def revealed(secure: Any, y: SecretTensor, *raw: Any) -> Any:
    (out,) = run_in_memory(secure.program(y), list(raw)).outputs
    return fixed_point.decode(out, y.type.fraction_bits)


@pytest.mark.parametrize(("factor", "wanted"), [(1.0, 5.55), (1e-3, 5.55e-3), (1e-4, 5.55e-4), (1e-5, 5.55e-5)])
def test_a_product_times_small_factors(secure: Any, factor: float, wanted: float) -> None:
    (x, a), (y, b) = shared(3.0, 0, 8), shared(5.0, 0, 8)
    assert revealed(secure, x * y * 0.37 * factor, a, b) == pytest.approx(wanted, rel=1e-5)


@settings(max_examples=200)
@given(sizes, sizes, st.floats(-1, 1), st.booleans())
def test_public_factors(secure: Any, size: float, factor: float, part: float, divided: bool) -> None:
    x, raw = shared([part * size, size, -size], -size, size)
    values = fixed_point.decode(raw, x.type.fraction_bits)
    y, wanted = (x / factor, values / factor) if divided else (x * factor, values * factor)
    most = float(np.abs(wanted).max())
    allowed = 2.0**-16 * min(1.0, most) + 2.0**-27 * most + 2.0**-29 * most**0.5
    assert np.abs(revealed(secure, y, raw) - wanted).max() <= allowed


@settings(max_examples=100)
@given(sizes, st.integers(1, 40), st.integers(0, 2**32 - 1))
def test_public_matrices(secure: Any, size: float, count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, raw = shared(rng.uniform(-1, 1, (3, count)), -1, 1)
    values, matrix = fixed_point.decode(raw, 16), rng.uniform(-size, size, (count, 2))
    allowed = count * (2.0**-16 * min(1.0, size) + 2.0**-27 * size)
    assert np.abs(revealed(secure, x @ matrix, raw) - values @ matrix).max() <= allowed


@settings(max_examples=100)
@given(sizes, st.floats(-1e3, 1e3))
def test_public_terms(secure: Any, size: float, term: float) -> None:
    x, raw = shared([size, 0.0], -size, size)
    values = fixed_point.decode(raw, x.type.fraction_bits)
    assert np.abs(revealed(secure, x + term, raw) - (values + term)).max() <= 2.0**-17


@settings(max_examples=100)
@given(sizes, st.floats(0.5, 1))
def test_a_secret_has_digits_for_its_range(secure: Any, size: float, part: float) -> None:
    x, raw = shared(part * size, 0, size)
    assert abs(revealed(secure, x + 0, raw) - part * size) <= 2.0**-16 * min(1.0, size)


@pytest.mark.parametrize(
    ("bound", "values"), [(64, [0.1, 0.5, 2.0, -1.25]), (4, [0.1, 2.0, -3.0]), (1, [0.5, -1, 0.25])]
)
@pytest.mark.parametrize("exponent", [2, 3, 4, 5, 6, 7])
def test_powers_are_no_worse_than_repeated_products(secure: Any, bound: float, values: Any, exponent: int) -> None:
    x, raw = shared(values, -bound, bound)
    exact = fixed_point.decode(raw, 16)
    product = x
    for _ in range(exponent - 1):
        product = product * x
    by_products = np.abs(revealed(secure, product, raw) - exact**exponent)
    error = np.abs(revealed(secure, x**exponent, raw) - exact**exponent)
    # Both are rounded at random: no worse, up to a few of the units that these products are cut to.
    unit = np.abs(exact) ** (exponent - 1) * exponent * 2.0**-16 + 2.0 ** -min(16, (x**exponent).type.fraction_bits)
    assert (error <= by_products + 8 * unit).all()


def test_a_power_of_a_wide_range(secure: Any) -> None:
    x, raw = shared([0.1, 0.5, 2.0], -64, 64)
    # Of what fits 59 bits with 7e10, 1e-6 is four units.
    assert (x**6).error.relative < 1e-6
    assert revealed(secure, x**6, raw)[0] == pytest.approx(1e-6, abs=2**-18)
    assert revealed(secure, x**6, raw)[1:] == pytest.approx([0.015625, 64.0], rel=1e-3)


def test_a_small_variance_of_large_values(secure: Any) -> None:
    s = np.resize(np.arange(1000.0, 1010.0), 3000)
    x, raw = shared(s, 1000, 1009)
    assert revealed(secure, (x**2).mean() - x.mean() ** 2, raw) == pytest.approx(8.25, abs=0.02)
    assert revealed(secure, x.var(), raw) == pytest.approx(8.25, abs=1e-3)


def test_functions_of_small_and_of_large_values(secure: Any) -> None:
    x, raw = shared(900.0, 500, 1000)
    for options in ({}, {"terms": 8}):
        y = x.reciprocal(interval=(500, 1000), **options)
        assert revealed(secure, y, raw) == pytest.approx(1 / 900, rel=2e-4)
    x, raw = shared([3.3, 4.4], 3, 5)
    for options in ({}, {"terms": 8}):
        assert revealed(secure, x.exp(interval=(3, 5), **options), raw) == pytest.approx(np.exp([3.3, 4.4]), rel=1e-5)


@pytest.mark.parametrize(
    ("build", "values", "wanted"),
    [
        (lambda x: x / 25, [(595839, 0, 1e6)], 23833.56),
        (lambda x: x * 1.1, [(595839, 0, 1e6)], 655422.9),
        (lambda x: x.mean(), [([1e6] * 3, 0, 1e6)], 1e6),
        (lambda x, y: (x + y) / 5, [(7614, 0, 1e4), (1191, 0, 1e4)], 1761),
        (lambda x: x * 1e-3 * 1e-3 * 1e-3 * 1e9, [(0.75, -1, 1)], 0.75),
        (lambda x, y, z: x * y * z, [(1e5, 0, 1e6), (2e5, 0, 1e6), (1e-6, 0, 1e-5)], 2e4),
        (lambda x, y, z: x * (y * z), [(1e5, 0, 1e6), (2e-5, 0, 1e-4), (1e-6, 0, 1e-5)], 2e-6),
        (lambda x, y: x @ y, [([1e5, 3e5], 0, 1e6), ([1e-6, 2e-6], 0, 1e-5)], 0.7),
    ],
)
def test_of_any_size(secure: Any, build: Any, values: Any, wanted: float) -> None:
    given, raw = zip(*(shared(*each) for each in values), strict=True)
    y = build(*given)
    off = abs(revealed(secure, y, *raw) - wanted)
    # What is not whole in an encoding of it is off by half a unit: of values a tenth of their range, 2^-14 of them.
    assert off <= 1e-3 * wanted
    assert off <= y.error.absolute <= 3e-4 * y.type.magnitude
    if len(values) == 1:
        assert off <= 1e-4 * wanted


def test_nothing_is_refused_beside_zeros(secure: Any) -> None:
    """What is known to be 0 has no digits, and as many bits as it may be cut to."""
    x, zero = leaf(Input((2,), 40, -1.0, 1.0)), leaf(Input((2,), 40, 0.0, 0.0))
    assert (x * zero).type.magnitude < 1e-6


def test_a_learning_rate(secure: Any) -> None:
    """A thousand steps of 1e-6 each are a step of 1e-3, to a hundredth of it."""
    (w, raw), (step, of_step) = shared([1.0, -2.0], -4, 4), shared([0.75, 0.5], -1, 1)
    program = secure.program(w - step * 1e-6 * 1000, w - step * 1e-6)
    large, small = (
        fixed_point.decode(out, program.nodes[i].type.fraction_bits)
        for out, i in zip(run_in_memory(program, [raw, of_step]).outputs, program.outputs, strict=True)
    )
    assert np.array([1.0, -2.0]) - large == pytest.approx([7.5e-4, 5e-4], rel=0.01)
    assert np.array([1.0, -2.0]) - small == pytest.approx([7.5e-7, 5e-7], rel=0.01)


@pytest.mark.parametrize("ends", [(-1, 1), (0, 0.1), (-8, 8)])
@pytest.mark.parametrize("degree", [2, 3, 5, 8])
def test_polynomials_of_small_and_of_large_results(ends: tuple[float, float], degree: int) -> None:
    x = leaf(Input((3,), 16, *ends))
    largest = max(map(abs, ends))
    for size in 10.0 ** np.arange(-8, 5, 3.0):
        y = x.polynomial([(0.7 + 0.1 * k) * (-1) ** k * size / largest**k for k in range(degree + 1)])
        assert y.error.relative < 1e-3
