"""The reveal: a result is opened to the client that asked for it, and to nobody else.

Party i sends the client its share of y + o, for a mask o that the dealer made for this output and told the client only.
With MACs it sends its share of alpha y + o', o' another such mask, and alpha_i, and does so only once its own MAC check
has passed.  The client adds up, takes the masks off, and accepts y if what should be alpha y is.

Security.  Whoever lacks o learns nothing of y, since o is uniform; and whoever holds the shares of up to n - 1 parties
learns nothing that y does not say, since the shares are uniform subject to their sum.  Cheating parties add some e to
y, d to its MAC and c to alpha, without having seen alpha: the client accepts a wrong y (e not 0) only if
(alpha + c)(y + e) = alpha y + d, which one value of alpha satisfies: a chance of 1/p.  The key is told only when all
that it protects has been opened and checked, and it is used for no other run.

Cost: no round among the parties; one element per element of y from each party, with MACs twice that and one more.
Source: output to one party from authenticated shares: Damgard, Pastro, Smart and Zakarias (SPDZ), CRYPTO 2012; a mask
that the receiver knows in place of a round, as for inputs.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mpc import field
from mpc.errors import MacCheckError, ProgramError
from mpc.field import FieldArray
from mpc.program import Program
from mpc.security import Security
from mpc.tensor_type import Shape


def masked_shapes(program: Program, security: Security) -> list[Shape]:
    """Shapes of the client's masks: of each output and, malicious, of each output's MAC."""
    shapes = [program.nodes[i].type.shape for i in program.outputs]
    return shapes if security is Security.SEMI_HONEST else [*shapes, *shapes]


def revealed_shapes(program: Program, security: Security) -> list[Shape]:
    """Shapes of what each party sends the client: what is masked and, malicious, its share of the key."""
    shapes = masked_shapes(program, security)
    return shapes if security is Security.SEMI_HONEST else [*shapes, (1,)]


def reveal(
    program: Program, security: Security, sent: Sequence[Sequence[FieldArray]], masks: Sequence[FieldArray]
) -> list[FieldArray]:
    """The outputs, from what each party sent (arrays of ``revealed_shapes``) and the client's masks.

    Raises MacCheckError when what was sent does not belong together, ProgramError when it has another form.
    """
    shapes = revealed_shapes(program, security)
    for arrays in sent:
        if [array.shape for array in arrays] != shapes or not all(map(field.is_reduced, arrays)):
            raise ProgramError("a party sent outputs of other shapes than the program's, or numbers outside the field")
    totals = [field.negate(mask) for mask in masks]
    if security is Security.MALICIOUS:
        totals.append(field.zeros(1))
    for arrays in sent:
        totals = [field.add(total, array) for total, array in zip(totals, arrays, strict=True)]
    outputs = len(program.outputs)
    if security is Security.MALICIOUS:
        key = totals[-1]
        for y, mac in zip(totals[:outputs], totals[outputs:-1], strict=True):
            if not np.array_equal(field.multiply(y, key.reshape(())), mac):
                raise MacCheckError("the MAC of the result is wrong: a party cheated, and the result is not given out")
    return totals[:outputs]
