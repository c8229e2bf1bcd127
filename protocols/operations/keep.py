"""Keeping a value: what is computed stays on the parties as shares, and later programs read it as a stored tensor.

A stored tensor w is ``w - b``, which all parties have, beside a share of b that each expands from a seed.  Opening
``x - b``, with b from the stream that a stored tensor of this name would have, makes x just that: nothing is left to do
but to write down the opening and the seed, at each party its own and at the dealer all of them (``kept_stream``).

Security: this is the opening of ``mask``.  b is uniform, fresh for this run, and masks this one tensor here and for as
long as it is stored, as an upload's does.  Malicious: the opening is checked like any other before anything is kept, so
all honest parties keep the same ``x - b``, and of the x that was computed.  Nobody learns x, its owner included.

*Dealt ahead of time* (``parties.stock``), b is as fresh: it expands from seeds that are an item's own, and masks one
tensor of one run.  For,

1. an item goes to one run.  The dealer marks it used and takes the seeds of b out of its stock in one durable step, and
   only then remembers them as those of what the run is to keep; each party marks its part used before it opens
   anything.  Whoever of them has an old copy of its file finds that the others refuse the item.
2. A run opens ``x - b`` of each kept tensor once: a program keeps no two under one name, and b of another name comes of
   another stream.
3. Afterwards b is a version's, or nobody's.  A run that fails has spent its item, whenever it fails: the dealer forgets
   the seeds, the parties drop what they have, and no later run, of this client or another, is dealt them.  If
   ``x - b`` had been opened by then, it stays all that was ever seen of b.

MACs change nothing in this: alpha b is dealt with the item, under the run's own alpha; runs that read the version are
dealt theirs under keys of their own.

Cost: one round (shared with other openings at its depth), one element sent to each other party per element of x.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from mpc.operation import MAX_NAME, Operation, register, require
from mpc.rings import FIELD, Array, Rings
from mpc.tensor_type import Form, TensorType


@register
class Keep(Operation, frozen=True, tag="keep"):
    """Open ``x - b`` under the mask of a stored tensor called ``tensor``."""

    opens: ClassVar[bool] = True
    hides: ClassVar[bool] = True
    tensor: str

    @property
    def kept_as(self) -> str:
        return self.tensor

    def result(self, *types: TensorType) -> TensorType:
        require(len(types) == 1 and types[0].form is not Form.PUBLIC, "keep takes one secret tensor")
        require(types[0].ring == FIELD, "what is stored lives in the field")
        require(
            0 < len(self.tensor) <= MAX_NAME and self.tensor.isprintable(),
            "names of stored tensors are short and printable",
        )
        return types[0].replace(form=Form.MASKED)

    def clear(self, rings: Rings, types: Sequence[TensorType], inputs: Sequence[Array]) -> Array:
        return inputs[0]
