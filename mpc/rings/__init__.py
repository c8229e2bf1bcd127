"""Algebras that the elements of tensors live in: what one must offer, and the field p = 2^61 - 1 with its kernels."""

from mpc.rings.field_ring import FIELD, FieldRing
from mpc.rings.ring import Array, Ring, Rings, known_rings, register_ring, ring_called

__all__ = ["FIELD", "Array", "FieldRing", "Ring", "Rings", "known_rings", "register_ring", "ring_called"]
