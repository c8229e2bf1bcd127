"""Fixed-point encoding: exactness, rounding, and errors that name the place and not the value."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpc.errors import EncodingError
from mpc.fixed_point import decode, encode
from mpc.rings.field import P


@given(st.floats(-1e6, 1e6), st.integers(0, 38))
def test_encoding_is_the_nearest_integer_exactly(value: float, bits: int) -> None:
    assert int(encode(value, bits)) == round(Fraction(value) * 2**bits) % P


@given(st.integers(-(2**30) + 1, 2**30 - 1), st.integers(0, 29))
def test_integers_are_exact(value: int, bits: int) -> None:
    assert int(encode(value, bits)) == (value << bits) % P
    assert int(encode(np.array(value, np.int32), bits)) == (value << bits) % P


def test_integers_beyond_53_bits_are_exact() -> None:
    values = [2**59 - 1, -(2**59) + 1, 2**53 + 1]
    assert encode(values, 0).tolist() == [v % P for v in values]
    assert encode(np.array([2**58 + 1], np.uint64), 0).tolist() == [2**58 + 1]


def test_halves_round_to_even() -> None:
    assert encode([0.5, 1.5, 2.5, -0.5, -1.5], 0).tolist() == [0, 2, 2, 0, P - 2]
    assert encode([0.125, 0.375], 2).tolist() == [0, 2]


@given(st.lists(st.integers(-(2**53), 2**53), min_size=1), st.integers(0, 40))
def test_decode_undoes_encode(raw: list[int], bits: int) -> None:
    values = np.ldexp(np.array(raw, np.float64), -bits)
    assert np.array_equal(decode(encode(values, bits), bits), values)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int8, np.uint8, np.bool_])
def test_dtypes(dtype: Any) -> None:
    assert decode(encode(np.array([[0, 1]], dtype), 20), 20).tolist() == [[0.0, 1.0]]


def test_shapes() -> None:
    assert encode(3.0, 4).shape == ()
    assert encode([[1.0], [2.0]], 4).shape == (2, 1)
    assert encode(np.zeros((0, 3)), 4, low=0, high=1).shape == (0, 3)
    assert encode(np.zeros((4, 2)).T, 4).shape == (2, 4)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_named(bad: float) -> None:
    image = np.zeros((1, 4, 6))
    image[0, 3, 5] = bad
    for low, high in ((None, None), (0.0, 1.0)):
        with pytest.raises(EncodingError, match=r"^image\[0, 3, 5\] is not finite$"):
            encode(image, 16, low, high, name="image")


def test_what_is_out_of_its_range_is_named() -> None:
    with pytest.raises(EncodingError, match=r"^image\[2\] is above the declared range \[0, 1\]$"):
        encode([0.0, 1.0, 1.0625], 16, low=0, high=1, name="image")
    with pytest.raises(EncodingError, match=r"^value\[0\] is below the declared range \[0, inf\]$"):
        encode([-7, 5], 16, low=0)
    with pytest.raises(EncodingError, match=r"^value is above the declared range \[-inf, 2\]$"):
        encode(3.0, 16, high=2)


@pytest.mark.parametrize("value", [2.0**43, -(2.0**43), 1e300, 2**43, -(2**43), 2**62])
def test_what_does_not_fit_is_named(value: float) -> None:
    with pytest.raises(EncodingError, match=r"^w\[1\] does not fit"):
        encode([0, value], 16, name="w")


def test_the_limit_itself() -> None:
    assert encode(np.nextafter(2.0**43, 0), 16).tolist() < 2**59
    assert encode([2**43 - 1, 1 - 2**43], 16).tolist() == [(2**43 - 1) << 16, P - ((2**43 - 1) << 16)]
    with pytest.raises(EncodingError):
        encode(2.0**59 - 0.25, 0)


@pytest.mark.parametrize(
    ("secret", "low", "high"), [(123.4375, None, 1.0), (9.87654321e200, None, None), (-123.4375, 0.0, None)]
)
def test_messages_hold_no_value(secret: float, low: float | None, high: float | None) -> None:
    with pytest.raises(EncodingError) as caught:
        encode([secret], 16, low, high)
    assert not any(digits in str(caught.value) for digits in ("123", "4375", "987"))
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("values", [[1j], ["a"], [None], [b"1"], [object()], [2**80], [[1, 2], [3]]])
def test_what_is_not_a_real_number_is_refused(values: Any) -> None:
    with pytest.raises(EncodingError, match="image"):
        encode(values, 16, name="image")


@pytest.mark.parametrize("bits", [-1, 59, 100])
def test_fraction_bits_out_of_range(bits: int) -> None:
    with pytest.raises(EncodingError, match="fraction_bits"):
        encode(1.0, bits)


def test_decoding_beyond_53_bits_rounds() -> None:
    assert decode(np.array([2**53 + 1, P - 2**53 - 1], np.uint64), 0).tolist() == [2.0**53, -(2.0**53)]
