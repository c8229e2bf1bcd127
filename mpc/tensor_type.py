"""What is known of a tensor before anything runs: shape, fraction bits, value range, and who knows which part."""

from __future__ import annotations

import enum
import math
import operator
from typing import Annotated

import msgspec

from mpc.errors import ProgramError, RangeError, ShapeError
from mpc.rings import FIELD, ring_called

MAX_DIMENSIONS = 16

MAX_SIZE = 2**31
"""Elements of one tensor, empty axes not counted: what a party agrees to allocate."""

Shape = Annotated[tuple[int, ...], msgspec.Meta(max_length=MAX_DIMENSIONS)]

RingName = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9]{1,32}\Z")]
"""As it stands in a program; what is not one may come from a stranger, and is never printed."""

TRUNCATION_BITS = 59
"""A raw value that is truncated must lie in (-2^59, 2^59): see ``protocols/operations/truncation.py``."""

FIELD_BITS = 60
"""A raw value must lie in (-2^60, 2^60) to be read back with its sign."""

SLACK = 1.0 - 2.0**-20
"""Range bounds are floats, and each truncation may add one unit: leave a millionth of the range unused."""
_SLACK_BITS = math.log2(SLACK)


class Form(enum.IntEnum):
    """Who knows what of a value ``x = public + sum of shares``.

    ``PUBLIC``: there is no shared part.  ``MASKED``: everyone knows ``E = x - a`` and the *dealer* knows the shared
    part ``a``, so that everything non-linear is local from here on.  ``SHARED``: nobody knows the shared part; it must
    be masked and opened (one round) before anything non-linear.
    """

    PUBLIC = 0
    MASKED = 1
    SHARED = 2


class TensorType(msgspec.Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    """Shape, fixed-point encoding and range of one tensor of a program.

    ``low`` and ``high`` bound the real values; ``gain``, where known, bounds the sum of magnitudes along the
    contracted axes of a weight (its L1 norm per output), which bounds a linear layer more tightly than ``high``.
    """

    shape: Shape
    fraction_bits: int
    low: float
    high: float
    form: Form
    gain: float | None = None
    ring: RingName = FIELD
    """The algebra of its elements, by name (`mpc.rings`)."""

    def __post_init__(self) -> None:
        # Numbers of other kinds (an int, NumPy's) would be encoded as something else than what they are read back as.
        exactly(self, "low", "high", "gain")

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def bytes(self) -> int:
        """That its elements take on a wire."""
        ring = ring_called(self.ring)
        return 0 if ring is None else ring.bytes_of(self.size)

    @property
    def magnitude(self) -> float:
        """Largest absolute real value."""
        return max(abs(self.low), abs(self.high))

    @property
    def bits(self) -> float:
        """log2 of the largest raw magnitude; -inf for a tensor that is zero."""
        magnitude = self.magnitude
        return self.fraction_bits + (math.log2(magnitude) if magnitude > 0 else -math.inf)

    def fits(self, bits: int, extra: float = 0.0) -> bool:
        """Whether raw magnitudes, times 2^extra, stay below 2^bits."""
        return self.bits + extra <= bits + _SLACK_BITS

    def replace(self, **changes: object) -> TensorType:
        return msgspec.structs.replace(self, **changes)

    def check(self) -> TensorType:
        """Raise unless the type is one that a program may have; return it."""
        if len(self.shape) > MAX_DIMENSIONS or min(self.shape, default=0) < 0:
            raise ProgramError(f"shape {self.shape} is not one a tensor can have")
        # Without the empty axes, since NumPy counts them neither.
        if math.prod(filter(None, self.shape)) > MAX_SIZE:
            raise ShapeError(
                f"a tensor of shape {self.shape} has more than {MAX_SIZE:,} elements, empty axes not counted:"
                " work on parts of it"
            )
        ring = ring_called(self.ring)
        if ring is None:
            raise ProgramError(f"{self.ring[:32]!r} is not an algebra known here")
        if not 0 <= self.fraction_bits <= ring.value_bits:
            raise RangeError(
                f"{self.fraction_bits} fraction bits do not fit the field: use fewer, or truncate in between"
            )
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low <= self.high):
            raise ProgramError(f"[{self.low}, {self.high}] is not a range")
        if self.gain is not None and not (math.isfinite(self.gain) and self.gain >= 0):
            raise ProgramError(f"{self.gain} is not a gain")
        if not self.fits(ring.value_bits):
            raise RangeError(
                f"values up to {self.magnitude:g} with {self.fraction_bits} fraction bits need {self.bits:.1f} bits,"
                f" and the {ring.name} has {ring.value_bits}: declare a tighter range, or use fewer fraction bits"
            )
        return self

    def __str__(self) -> str:
        shape = "x".join(map(str, self.shape)) or "scalar"
        ring = "" if self.ring == FIELD else f", {self.ring}"
        return (
            f"{shape} in [{self.low:g}, {self.high:g}], {self.fraction_bits} fraction bits,"
            f" {self.form.name.lower()}{ring}"
        )


def exactly(struct: msgspec.Struct, *floats: str) -> None:
    """Make these fields of a frozen struct floats and its ``shape`` a tuple of ints, whatever numbers they were."""
    for name in floats:
        value = getattr(struct, name)
        if value is not None and type(value) is not float:
            msgspec.structs.force_setattr(struct, name, float(value))
    shape = getattr(struct, "shape", ())
    if type(shape) is not tuple or not {int}.issuperset(map(type, shape)):
        msgspec.structs.force_setattr(struct, "shape", tuple(operator.index(n) for n in shape))
