"""A field of arrays that cannot be looked into: whoever but the ring tries fails.  See ``opaque`` in conftest."""

from __future__ import annotations

from typing import Any

from mpc.rings import BITS, FIELD, FieldRing, PackedBits, PrimeField, Ring, Rings
from mpc.rings.small import MOST_BITS, SmallNumbers, small


class LookedIntoError(AssertionError):
    """Somebody who is not the ring has looked into an array."""


class Opaque:
    """An array of another library: its shape can be read, and nothing else done with it."""

    __slots__ = ("_held",)

    def __init__(self, held: Any) -> None:
        self._held = held

    @property
    def shape(self) -> tuple[int, ...]:
        shape: tuple[int, ...] = self._held.shape
        return shape


def _looked(name: str) -> Any:
    def refuse(*_: object, **__: object) -> Any:
        raise LookedIntoError(name)

    return refuse


# Also what would be answered otherwise (an object is true, and equal to itself), and what NumPy goes by.
FORBIDDEN = """
array array_function array_ufunc array_interface bool hash eq ne lt le gt ge len iter getitem setitem contains add radd
iadd sub rsub isub mul rmul imul matmul rmatmul mod floordiv truediv pow neg pos abs invert and rand or ror xor rxor
lshift rshift index int float copy deepcopy reduce_ex getattr
"""
for _name in FORBIDDEN.split():
    setattr(Opaque, f"__{_name}__", _looked(f"__{_name}__"))


def wrapped(value: Any) -> Any:
    if isinstance(value, list):
        return [Opaque(one) for one in value]
    return value if value is None or isinstance(value, bool) else Opaque(value)


def unwrapped(value: Any) -> Any:
    if isinstance(value, Opaque):
        return value._held
    if isinstance(value, list | tuple) and any(isinstance(one, Opaque) for one in value):
        return [unwrapped(one) for one in value]
    return value


OF_THE_HOST = {"bytes_of", "buffer", "inverse", "to_signed"}
"""What does not give arrays of the ring."""

TAKEN_FROM_THE_HOST = {"read": 1, "from_signed": 1, "accumulate": 2, "accumulated": 2, "take": 2}
"""Which argument is the host's: bytes, integers, positions."""


def _behind(ring: Ring, name: str) -> Any:
    def method(_: Any, *arguments: Any, **options: Any) -> Any:
        for place, argument in enumerate(arguments, start=1):
            # A ring that is handed NumPy's arrays where its own belong has been gone around.
            assert (
                place == TAKEN_FROM_THE_HOST.get(name)
                or not hasattr(type(argument), "__array_interface__")
                or isinstance(argument, Opaque)
            )
        result = getattr(ring, name)(*map(unwrapped, arguments), **options)
        return result if name in OF_THE_HOST else wrapped(result)

    return method


def _opaque(base: type[Ring], ring: Ring, *made: int) -> Any:
    methods = [name for name in dir(ring) if not name.startswith("_") and callable(getattr(ring, name))]
    return type(f"Opaque{type(ring).__name__}", (base,), {name: _behind(ring, name) for name in methods})(*made)


RINGS: Rings = {
    FIELD: _opaque(PrimeField, FieldRing()),
    BITS: _opaque(PackedBits, PackedBits()),
    **{small(bits): _opaque(SmallNumbers, SmallNumbers(bits), bits) for bits in range(1, MOST_BITS + 1)},
}
