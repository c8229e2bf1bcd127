"""The reveal: a result is opened to the client that asked for it, and to nobody else.

Party i sends the client its share of y + o, for a mask o that the dealer made for this output and told the client only.
With MACs it sends its share of alpha y + o', o' another such mask, and the seed of alpha_i, and does so only once its
own MAC check has passed.  The client has the dealer's commitments to those seeds.  It adds up, takes the masks off, and
accepts y if every seed is the committed one and what should be alpha y is.

Security.  Whoever lacks o learns nothing of y, since o is uniform; and whoever holds the shares of up to n - 1 parties
learns nothing that y does not say, since the shares are uniform subject to their sum.  Cheating parties add some e to y
and d to its MAC, without having seen alpha: the client accepts if alpha e = d, for a wrong y with a chance of 1/p.
Whether it accepts does not depend on y, so that a failure tells the cheaters nothing: this is what the commitments are
for.  Without them, alpha + c in place of alpha and c g on the MAC would be accepted exactly when y = g.  The key is
told only when all that it protects has been opened and checked, and it is used for no other run.

Cost: no round among the parties; one element per element of y from each party, with MACs twice that and four more.
Source: output to one party from authenticated shares: Damgard, Pastro, Smart and Zakarias (SPDZ), CRYPTO 2012; a mask
that the receiver knows in place of a round, as for inputs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from mpc.correlation import Part
from mpc.cost import KEY_WORDS
from mpc.errors import MacCheckError, ProgramError
from mpc.program import Program
from mpc.rings import Array, Buffer, Rings, field_of, known_rings
from mpc.rings.prg import Seed
from mpc.security import Security
from mpc.tensor_type import TensorType
from protocols.randomness.streams import key_share
from protocols.readings.mac_check import from_words


def key_commitment(party: int, stream: Seed) -> bytes:
    """The dealer's commitment to the stream of a party's key share: hiding, since a stream has 128 random bits."""
    return hashlib.sha256(b"tessera key share" + party.to_bytes(4, "little") + bytes(stream)).digest()


def masked_types(program: Program, security: Security) -> list[TensorType]:
    """What the client has masks of: each output and, malicious, each output's MAC."""
    types = [program.nodes[i].type for i in program.outputs]
    return types if security is Security.SEMI_HONEST else [*types, *types]


def revealed_parts(program: Program, security: Security) -> list[Part]:
    """What each party sends the client: what is masked and, malicious, the seed of its share of the key."""
    parts = [Part(t.shape, t.ring) for t in masked_types(program, security)]
    return parts if security is Security.SEMI_HONEST else [*parts, Part((KEY_WORDS,))]


def reveal(
    program: Program,
    security: Security,
    sent: Sequence[Sequence[Array]],
    masks: Sequence[Array],
    key_commitments: Sequence[bytes],
    rings: Rings | None = None,
) -> list[Array]:
    """The outputs, from what each party sent (arrays of ``revealed_parts``) and the client's part of the randomness.

    Raises MacCheckError when what was sent does not belong together, ProgramError when it has another form.
    """
    rings = known_rings() if rings is None else rings
    parts = revealed_parts(program, security)
    for arrays in sent:
        if len(arrays) != len(parts) or not all(
            rings[part.ring].holds(array, part.shape) for array, part in zip(arrays, parts, strict=True)
        ):
            raise ProgramError("a party sent outputs of other shapes than the program's, or numbers outside the field")
    totals = [rings[part.ring].negate(mask) for mask, part in zip(masks, parts, strict=False)]
    for arrays in sent:
        # The key's seed, if there is one, comes after what is masked.
        summands = zip(totals, arrays, parts, strict=False)
        totals = [rings[part.ring].add(total, array) for total, array, part in summands]
    if security is Security.SEMI_HONEST:
        return totals
    outputs = len(program.outputs)
    seeds = [field_of(rings).buffer(arrays[-1]) for arrays in sent]
    key = sum(_committed_share(party, words, key_commitments) for party, words in enumerate(seeds))
    for y, mac, part in zip(totals[:outputs], totals[outputs:], parts, strict=False):
        ring = rings[part.ring]
        if not ring.is_zero(ring.subtract(ring.scale(y, key), mac)):
            raise MacCheckError("the MAC of the result is wrong: a party cheated, and the result is not given out")
    return totals[:outputs]


def _committed_share(party: int, words: Buffer, commitments: Sequence[bytes]) -> int:
    data = from_words(words)
    if not data or key_commitment(party, Seed(data)) != commitments[party]:
        raise MacCheckError(f"party {party} sent another share of the MAC key than was dealt: no result is given out")
    return key_share(Seed(data))
