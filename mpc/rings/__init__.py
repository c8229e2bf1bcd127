"""Algebras that the elements of tensors live in: what one must offer, and the field p = 2^61 - 1 with its kernels."""

from mpc.rings.bits import BITS, PackedBits, bits_of
from mpc.rings.field_ring import FieldRing
from mpc.rings.prime_field import FIELD, PrimeField, Turn, field_of
from mpc.rings.ring import Array, Buffer, Ring, Rings, known_rings, register_ring, ring_called

__all__ = [
    "BITS",
    "FIELD",
    "Array",
    "Buffer",
    "FieldRing",
    "PackedBits",
    "PrimeField",
    "Ring",
    "Rings",
    "Turn",
    "bits_of",
    "field_of",
    "known_rings",
    "register_ring",
    "ring_called",
]
