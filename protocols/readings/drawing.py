"""Which rows of a stored tensor a program reads that draws some of them (``mpc.operation.Stored.rows``).

A data set's rows are laid out epoch after epoch, each in a random order of its own; a run reads as many as its program
says, from where the run before has ended.  So each row comes as often as the others, and a chain of runs goes through
all of them with one program, which has one digest: no row is named in it.

The order is public, and nobody's choice but the owner's: it follows from the id of the version that rows are drawn of,
which its owner has uploaded, and from how many parts have been drawn before.  All members work it out for themselves,
each from what it holds; whoever takes other rows than the others has other masks, as if it held another version.  Which
*part* comes is not kept from who runs a chain: it may begin anew, or go on from a chain of its own.

Security: rows are taken of what is opened already, w - b, of shares of b, and at the dealer of b: nothing is opened,
and a mask stays that of one value.
Cost: none.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from mpc.operation import Stored


@dataclass(frozen=True)
class Order:
    """``versions``: by slot, what rows are drawn of; ``part``: how many parts have been drawn before."""

    versions: Mapping[str, str] = field(default_factory=dict)
    part: int = 0

    def positions(self, operation: Stored) -> npt.NDArray[np.int64]:
        """Rows of the tensor, in the order in which the program reads them."""
        count, rows = operation.shape[0], operation.rows
        epoch, first = divmod(self.part * count, rows)
        found = self._epoch(operation, epoch)[first : first + count]
        if len(found) < count:
            # No more are drawn than there are, so the next epoch has the rest.
            found = np.concatenate([found, self._epoch(operation, epoch + 1)[: count - len(found)]])
        return found

    def _epoch(self, operation: Stored, epoch: int) -> npt.NDArray[np.int64]:
        # Neither a slot nor an id holds a line break.  Tensors of one data set have their rows in one order.
        # Of other slots nothing goes in: their owners would choose among orders of these rows.
        version = self.versions.get(operation.slot, "")
        seed = "\n".join(("tessera", "rows", version, operation.slot, str(operation.rows), str(epoch)))
        keys = np.frombuffer(hashlib.shake_256(seed.encode()).digest(8 * operation.rows), "<u8")
        return np.argsort(keys, kind="stable").astype(np.int64)


AS_IT_IS = Order()
"""Of what was uploaded without anything drawn of it before."""
