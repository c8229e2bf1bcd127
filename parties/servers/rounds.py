"""One step of a run's online phase, wherever it is computed: at the party itself, or on one of its workers."""

from __future__ import annotations

from collections.abc import Sequence

from mpc.errors import InputOutOfRange, ProtocolViolation
from mpc.operation import Stored
from mpc.program import Program
from mpc.rings.ring import as_array
from parties.members.cluster import Member
from parties.messages.runs import Opening
from parties.servers.governor import evaluating_seconds, longest_step_seconds
from parties.servers.pace import LONG
from parties.servers.party_job import Heard
from parties.servers.testimony import Testimony
from protocols.lowering.in_range import owner_of
from protocols.readings.mac_check import Round
from protocols.readings.party import Exchange, OutOfRange, UnreducedOpening

THREAD_SECONDS = 12e-3
"""Runs that take longer than this between two rounds, or are long in all, compute in a thread, so that others are
answered meanwhile."""


def is_long(program: Program) -> bool:
    """Whether its steps are a thread's."""
    return longest_step_seconds(program) > THREAD_SECONDS or evaluating_seconds(program) > LONG


def heard(
    peer: Member, number: int, message: Opening, buffers: Sequence[memoryview], outgoing: Round, testimony: Testimony
) -> Heard:
    """What a peer opens in round ``number``, checked but for its numbers.  Raises ProtocolViolation."""
    expected, sizes = [vector.nbytes for vector in outgoing], [len(buffer) for buffer in buffers]
    if sizes != expected:
        raise ProtocolViolation(peer.name, f"sent an opening of {sizes} bytes instead of {expected}")
    if number == 0:
        testimony.compare(peer, message)
    return Heard(peer.name, message, [as_array(b, mine.dtype) for b, mine in zip(buffers, outgoing, strict=True)])


def next_round(
    exchange: Exchange, testimony: Testimony, peers: Sequence[Member], number: int, received: Sequence[Heard] | None
) -> tuple[Opening | None, Round]:
    """What is to be opened in round ``number``, or the outputs, from what the ``peers`` have sent in the one before.

    Raises ProtocolViolation for a number outside the field.
    """
    for peer, message, vectors in received or ():
        testimony.heard(peer, number - 1, vectors, message.signature)
    try:
        outgoing = next(exchange) if received is None else exchange.send([each.vectors for each in received])
    except StopIteration as end:
        return None, end.value
    except UnreducedOpening as error:
        peer = peers[error.position].name
        raise ProtocolViolation(peer, "sent an opening with numbers outside the field") from None
    return testimony.opening(number, outgoing), outgoing


def out_of_range(error: OutOfRange, client: str) -> InputOutOfRange:
    """Whose values these were, in a run of that client's."""
    sender = owner_of(error.source.slot) if isinstance(error.source, Stored) else client
    return InputOutOfRange(sender, "sent values outside of the range that it has said: nothing was revealed")
