"""Additive secret sharing among n >= 2 parties.

x is the sum mod p of n shares, of which n - 1 are uniform and independent of x: any n - 1 of them together
are uniform whatever x is, so nobody short of all parties learns anything (perfect security, up to the PRG
that expands the seed).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mpc.errors import ShapeError, UsageError
from mpc.rings.field import FieldArray, accumulate, is_reduced, subtract
from mpc.rings.prg import Seed, fresh_seed


def share(x: FieldArray, parties: int, seed: Seed | None = None) -> list[FieldArray]:
    """Shares of x, one for each party, in its shape.

    Party i < n - 1 gets the expansion of ``seed.derive(f"share {i}")``, the last party x minus those.
    Without a seed a fresh one is drawn from the operating system; a seed that is given shares one tensor
    only.
    """
    if parties < 2:
        raise UsageError(f"sharing needs at least 2 parties, not {parties}")
    if x.dtype != np.uint64 or not is_reduced(x):
        raise UsageError("only field elements can be shared: uint64 values below 2^61 - 1")
    root = Seed(fresh_seed()) if seed is None else seed
    shares = [root.derive(f"share {party}").elements(x.shape) for party in range(parties - 1)]
    last = x
    for one in shares:
        last = subtract(last, one)
    return [*shares, last]


def reconstruct(shares: Sequence[FieldArray]) -> FieldArray:
    """The sum of all shares mod p.

    Raises `UsageError` for fewer than 2 shares or a share with values outside the field, `ShapeError` for
    shapes that differ.
    """
    if len(shares) < 2:
        raise UsageError(f"reconstruction needs the shares of at least 2 parties, not {len(shares)}")
    for party, one in enumerate(shares):
        if one.shape != shares[0].shape:
            raise ShapeError(f"share {party} has the shape {one.shape}, share 0 has {shares[0].shape}")
        if one.dtype != np.uint64:
            raise UsageError(f"share {party} holds {one.dtype}, not field elements")
    x = np.zeros(shares[0].shape, np.uint64)
    for party, one in enumerate(shares):
        if not accumulate(x, one):
            raise UsageError(f"share {party} has a value outside the field")
    return x
