"""Fixed point: real numbers as field elements.

A real x is stored as round(x 2^f) mod p, f its number of fraction bits; halves round to even.  An encoded
value is below 2^59 in size, which truncation relies on.  What does not fit is an error, never a wrap-around.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from mpc.errors import EncodingError, printable
from mpc.rings import Array, FieldRing, PrimeField, Ring

CAPACITY_BITS = 59

_FIELD = FieldRing()


def nearest(value: float, fraction_bits: int) -> float:
    """What ``value`` is read back as after it was encoded."""
    return float(np.rint(value * 2.0**fraction_bits)) * 2.0**-fraction_bits


def encode(
    values: npt.ArrayLike,
    fraction_bits: int,
    low: float | None = None,
    high: float | None = None,
    name: str = "value",
    field: PrimeField = _FIELD,
) -> Array:
    """Field elements of round(values 2^fraction_bits), in the shape of `values`.

    `values` are booleans, integers or floats, in any nesting NumPy understands; `low` and `high` are the
    declared range, in the units of `values`, both ends included.  The result is exact up to the rounding;
    integers never pass through a float.

    Raises `EncodingError` for a value that is not finite, out of its declared range, or 2^59 or more after
    scaling.  The message names the first such position under `name` and the bound, not the value, which may
    be secret.
    """
    if not 0 <= fraction_bits < CAPACITY_BITS:
        raise EncodingError(f"fraction_bits of {name} must be between 0 and {CAPACITY_BITS - 1}, not {fraction_bits}")
    try:
        array = np.asarray(values)
    except ValueError as error:
        raise EncodingError(f"{name} is not an array of numbers: its rows have different lengths") from error
    except (TypeError, RuntimeError) as error:
        # Of another library's arrays, and its own words say why.
        raise EncodingError(f"{name} is not an array of numbers: {printable(str(error))}") from error
    if array.dtype.kind not in "biuf":
        raise EncodingError(f"{name} must hold real numbers, not {array.dtype}")
    if np.ma.is_masked(values):
        raise EncodingError(f"{name} has masked numbers: say what stands in their place, with filled(...)")

    reals = array.astype(np.float64, copy=False)
    limit = 2.0 ** (CAPACITY_BITS - fraction_bits)
    fits: npt.NDArray[np.bool_]
    if array.dtype.kind == "f":
        with np.errstate(over="ignore", invalid="ignore"):
            scaled = np.rint(reals * 2.0**fraction_bits)
            fits = np.asarray(np.abs(scaled) < 2.0**CAPACITY_BITS)
    else:
        bound = 1 << (CAPACITY_BITS - fraction_bits)
        fits = np.asarray((array < bound) & (array > -bound))
    if low is not None:
        fits = fits & (reals >= low)
    if high is not None:
        fits = fits & (reals <= high)
    if not fits.all():
        _refuse(array, np.asarray(fits), low, high, limit, name)

    if array.dtype.kind == "f":
        return field.from_signed(scaled.astype(np.int64))
    return field.from_signed(array.astype(np.int64) << fraction_bits)


def decode(elements: Array, fraction_bits: int, ring: Ring = _FIELD) -> npt.NDArray[np.float64]:
    """The real numbers that `elements` of the ring stand for, as float64.

    Exact while the encoded value is at most 2^53 in size; beyond, rounded to the 53 bits that a float64 has.
    """
    return ring.to_signed(elements).astype(np.float64) * 2.0**-fraction_bits


def _refuse(
    array: npt.NDArray[np.generic],
    fits: npt.NDArray[np.bool_],
    low: float | None,
    high: float | None,
    limit: float,
    name: str,
) -> None:
    position = tuple(int(i) for i in np.unravel_index(int(np.argmin(fits)), fits.shape))
    value = array[position].item()
    where = f"{name}{list(position)}" if position else name
    declared = f"the declared range [{'-inf' if low is None else low}, {'inf' if high is None else high}]"
    if not np.isfinite(value):
        raise EncodingError(f"{where} is not finite")
    if low is not None and value < low:
        raise EncodingError(f"{where} is below {declared}")
    if high is not None and value > high:
        raise EncodingError(f"{where} is above {declared}")
    raise EncodingError(f"{where} does not fit the fixed-point range: its magnitude must be below {limit:g}")
