"""How weights become tensors that the parties store: fraction bits, and bounds that are public.

**What an upload reveals.**  Parties and everybody who runs the model learn the architecture, the shapes, and
for each stored tensor two powers of two: a bound on its largest magnitude, and for the weights of linear
layers a bound on the largest L1 norm of an output's weights (the *gain*, from which the planner knows that
results fit the field).  A small gain also shows in the fraction bits.  Nothing else about the weights is
revealed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping

import msgspec
import numpy as np

from mpc import fixed_point
from mpc.errors import EncodingError
from mpc.operation import Stored
from mpc.rings.field import FieldArray
from mpc.tensor_type import Form, Shape, TensorType
from nn.layer import Array, WeightArray
from protocols.trace.secret_tensor import SecretTensor, leaf

WEIGHT_BITS = 14
"""Fraction bits of model weights, unless the gain of their layer leaves room for more."""

BIAS_BITS = 22
"""Fraction bits of what is added or scales elementwise."""

GAIN_BITS = 22
"""Fraction bits of a weight and bits of its gain, together: what a Fourier activation, average-pooled by 4, leaves of
the field without a truncation."""

MOST_WEIGHT_BITS = 17
"""More, and the angle of the next Fourier activation would not fit the field; tiny weights get them all the same."""

MOST_EXTRA_BITS = 10
"""A layer whose outputs' weights add up to less than 1 gets this many more than ``WEIGHT_BITS`` at most."""


DEEP = 16
"""Layers that are products with weights, from which on these have more digits: what they are rounded by adds up."""


PART = 1 << 20
"""Elements of a large tensor that are looked at together."""


class StoredType(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Shape, encoding and public bounds of one stored tensor."""

    shape: Shape
    fraction_bits: int
    low: float
    high: float
    gain: float | None = None

    def __post_init__(self) -> None:
        TensorType(self.shape, self.fraction_bits, self.low, self.high, Form.MASKED, self.gain).check()

    @classmethod
    def of(cls, array: WeightArray, name: str, more: int = 0) -> StoredType:
        """The type ``array`` is stored with, ``more`` fraction bits of a linear layer's weights than usual.

        Raises EncodingError, naming the tensor, if it cannot be encoded.
        """
        bits = bits_of(array, more)
        largest, norm = 0.0, 0.0
        for where in _parts(array):
            part = array.values[where]
            # Bounds hold for what is stored, so they are taken after rounding.
            stored = fixed_point.decode(_encoded(array, part, bits, name), bits)
            if array.exact and not np.array_equal(stored, part):
                raise EncodingError(f"{name} has values that are not multiples of 2^-{bits}")
            largest = max(largest, float(np.abs(stored).max(initial=0.0)))
            norm = max(norm, _l1_norm(WeightArray(stored, array.contracted)))
        bound = 2.0 ** _exponent(largest, bits)
        gain = None if array.contracted is None else 2.0 ** _exponent(norm, bits)
        return cls(array.values.shape, bits, -bound, bound, gain)

    def holds(self, other: StoredType) -> bool:
        """Whether what is of the other type is of this one, too."""
        alike = (other.shape, other.fraction_bits, self.gain) == (self.shape, self.fraction_bits, None)
        return alike and self.low <= other.low <= other.high <= self.high

    def encode(self, array: WeightArray, name: str) -> FieldArray:
        """Field elements of a tensor of this type.  Raises EncodingError if it is not of this type."""
        if array.values.shape != self.shape:
            raise EncodingError(f"{name} has shape {array.values.shape}, not {self.shape}")
        elements: FieldArray = np.empty(self.shape, np.uint64)
        for where in _parts(array):
            elements[where] = _encoded(array, array.values[where], self.fraction_bits, name)
            # After rounding: that is what `of` took the bounds from.
            stored = fixed_point.decode(elements[where], self.fraction_bits)
            if stored.size and not self.low <= stored.min() <= stored.max() <= self.high:
                raise EncodingError(f"{name} has values outside [{self.low:g}, {self.high:g}]")
        return elements

    def source(self, slot: str, tensor: str, *, weight: bool = False) -> SecretTensor:
        """The tensor as a leaf of expressions, of whatever is bound to ``slot``; ``weight``: of a model."""
        return leaf(self.leaf(slot, tensor), weight=weight)

    def leaf(self, slot: str, tensor: str) -> Stored:
        """What a program has for it."""
        return Stored(self.shape, self.fraction_bits, self.low, self.high, slot, tensor, self.gain)


def bits_of(array: WeightArray, more: int = 0) -> int:
    """The fraction bits that an array is stored with, ``more`` of a linear layer's weights than usual."""
    if array.contracted is None or array.bits is not None:
        return BIAS_BITS if array.bits is None else array.bits
    gain_bits = gain_bits_of(array)
    tiny = WEIGHT_BITS + min(MOST_EXTRA_BITS, max(0, -gain_bits))
    return max(tiny, min(MOST_WEIGHT_BITS, GAIN_BITS - gain_bits)) + more


def gain_bits_of(array: WeightArray) -> int:
    """Of the largest sum of magnitudes along the contracted axes, a power of two."""
    norms = (_l1_norm(WeightArray(array.values[where], array.contracted)) for where in _parts(array))
    return _exponent(max(norms, default=0.0), WEIGHT_BITS)


def bits_for_depth(products: int) -> int:
    """More fraction bits of weights, where so many products with them follow each other.

    Roundings are independent, so that their squares add up: half a bit for each doubling.  Of fewer than `DEEP` layers
    the usual bits are plenty.
    """
    return round(math.log2(products) / 2) if products >= DEEP else 0


def _parts(array: WeightArray) -> Iterator[tuple[slice, ...]]:
    """What a large tensor is looked at by, so that little more than itself is in memory: rows, of an axis that is not
    summed over."""
    values = array.values
    summed = {axis % values.ndim for axis in array.contracted or ()}
    axis = next((axis for axis in range(values.ndim) if axis not in summed), None)
    if axis is None or values.size <= PART:
        yield ()
        return
    step = max(1, PART * values.shape[axis] // values.size)
    for first in range(0, values.shape[axis], step):
        yield (*(slice(None),) * axis, slice(first, first + step))


def _encoded(whole: WeightArray, part: Array, bits: int, name: str) -> FieldArray:
    """A part of a tensor; errors name the place in the whole."""
    try:
        return fixed_point.encode(part, bits, name=name)
    except EncodingError:
        fixed_point.encode(whole.values, bits, name=name)
        raise


def _l1_norm(array: WeightArray) -> float:
    """The largest sum of magnitudes along the contracted axes; 0 if there are none."""
    if array.contracted is None:
        return 0.0
    return float(np.abs(array.values).sum(axis=array.contracted).max(initial=0.0))


def _exponent(value: float, fraction_bits: int) -> int:
    """The smallest e with value <= 2^e, and not below one unit of the last place."""
    if not math.isfinite(value):
        return 0  # `encode` names the element
    return max(-fraction_bits, math.ceil(math.log2(value))) if value > 0 else -fraction_bits


class Encoded(Mapping[str, FieldArray]):
    """The tensors of a model as field elements, by name: secret, and each made when it is asked for, so that of a large
    model there is one at a time.

    ``of`` gives a tensor by its name.
    """

    def __init__(self, of: Callable[[str], WeightArray], types: Mapping[str, StoredType]) -> None:
        self._of, self._types = of, types

    def __getitem__(self, name: str) -> FieldArray:
        """Raises EncodingError, naming the tensor."""
        return self._types[name].encode(self._of(name), name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._types)

    def __len__(self) -> int:
        return len(self._types)

    def __repr__(self) -> str:
        return f"<Encoded: {len(self)} tensors>"
