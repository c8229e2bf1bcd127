"""The messages of preprocessing: dealt ahead of time, and used exactly once.

Stocking:   client --Stock--> dealer                   program, what is bound to its slots, how many runs of it
            dealer --StockItem--> party                session and number of one item; its part, or a piece of that
            party  --Stocked--> dealer                 that is in the party's ledger
            dealer --StockProgress--> client           how many every party has
            party  --StockRefused--> dealer, dealer --RequestFailed--> client
            party  --StockHeld--> dealer               which programs it has fresh items of
            dealer --StockDropped--> party             no run will ask for this program again

A run of a program that is in stock:

            dealer --Dealt--> party                    which item, instead of a payload
            party  --Agreed--> parties, dealer         the item it has marked as used for this run
            dealer --ClientMasks--> client             only when all parties have: its masks, too, are for one run
            party  --Spent--> dealer                   the item is not fresh here: where its ledger stands

Items are of *bound* programs (`parties.messages.bindings`): ``program`` is the digest of one, but in ``Agreed``, where
it is the program's own.
"""

from __future__ import annotations

from typing import Annotated, ClassVar

import msgspec

from parties.members.cluster import Role
from parties.messages.bindings import Bindings
from parties.messages.conversation import RequestMessage
from parties.messages.evidence import Evidence, Signature
from parties.messages.failures import Fault
from parties.messages.fields import FROM_CLIENT, FROM_DEALER, FROM_PARTY, NAME, Count, Digest, Id, Name, Seconds
from parties.messages.runs import Dealt, RunMessage, Source
from parties.wire.messages import Message

Number = Annotated[int, msgspec.Meta(ge=1, lt=1 << 62)]
MAX_COUNT = 1_000_000
MAX_LOST = 10_000
"""Items that one message says are lost."""
MAX_PROGRAMS = 10_000
"""In one message: what a party has stock of."""


class Stock(RequestMessage, frozen=True):
    """Deal for ``count`` runs of a program; from now on too, when less than ``low_water`` is left.  Payload: it.

    ``chain``: for so many in a row, each from what the one before has kept under that name.
    """

    senders: ClassVar[frozenset[Role]] = FROM_CLIENT
    count: Annotated[int, msgspec.Meta(ge=1, le=MAX_COUNT)]
    low_water: Annotated[int, msgspec.Meta(ge=0, le=MAX_COUNT)]
    bindings: Bindings = ()
    chain: Annotated[str, msgspec.Meta(pattern=rf"^({NAME})?\Z")] = ""


class StockProgress(RequestMessage, frozen=True):
    """``done`` of the items asked for are in stock; ``stock`` items of the program in all."""

    senders: ClassVar[frozenset[Role]] = FROM_DEALER
    done: Count
    stock: Count
    sent_bytes: Count
    seconds: Seconds


class ItemMessage(Message, frozen=True):
    """Base of what is about one item of the stock."""

    session: Id
    number: Number


Piece = Annotated[int, msgspec.Meta(ge=0, lt=1 << 31)]


class StockItem(ItemMessage, frozen=True):
    """A party's part of one item, for a run of ``client``'s to come.  Payload: as of ``Dealt``.

    Of a large program the last party's comes in so many ``pieces``, each for a part of the program: as of
    ``DealtPart``, and when it has stored the one before.  With ``source`` the last party collects its corrections from
    there, so many bytes (``collected``) for this piece.
    """

    senders: ClassVar[frozenset[Role]] = FROM_DEALER
    program: Digest
    client: Name
    piece: Piece = 0
    pieces: Annotated[int, msgspec.Meta(ge=1, lt=1 << 31)] = 1
    source: Source | None = None
    collected: Count = 0


class Stocked(ItemMessage, frozen=True):
    """The item, or this piece of it, is in this party's ledger, durably."""

    senders: ClassVar[frozenset[Role]] = FROM_PARTY
    piece: Piece = 0


class StockRefused(ItemMessage, frozen=True):
    """The item could not be stored.

    If it is for what the party's ledger says: ``position`` is the first number that it would take in that session, and
    ``evidence`` shows why it takes none, if there is a reason that it can prove.
    """

    senders: ClassVar[frozenset[Role]] = FROM_PARTY
    fault: Fault
    position: Count = 0
    evidence: Evidence | None = None


class StockHeld(Message, frozen=True):
    """What the party has fresh items of, when it or the dealer has been started; answered with ``StockDropped``."""

    senders: ClassVar[frozenset[Role]] = FROM_PARTY
    programs: Annotated[tuple[Digest, ...], msgspec.Meta(max_length=MAX_PROGRAMS)]


class StockDropped(Message, frozen=True):
    """Items of this program are of no use any more."""

    senders: ClassVar[frozenset[Role]] = FROM_DEALER
    program: Digest


class Spent(ItemMessage, frozen=True):
    """The item that was assigned is not fresh in this party's ledger, in which ``position`` numbers are gone."""

    senders: ClassVar[frozenset[Role]] = FROM_PARTY
    program: Digest
    position: Count


class StockLost(Message, frozen=True):
    """The party has lost these items of its stock: they are not to be assigned."""

    senders: ClassVar[frozenset[Role]] = FROM_PARTY
    session: Id
    numbers: Annotated[tuple[Number, ...], msgspec.Meta(max_length=MAX_LOST)]


class Agreed(RunMessage, frozen=True):
    """The sender has marked this item as used for this run, which is of this program and these bindings."""

    senders: ClassVar[frozenset[Role]] = FROM_PARTY
    program: Digest
    bindings: Digest
    session: Id
    number: Number
    signature: Signature
    """Of ``ItemSaid``."""


def agreement(message: Dealt | Agreed) -> tuple[str, str, str, int]:
    """What all members must take alike for a run: program, what is bound to its slots, and the item of the stock."""
    return message.program, message.bindings, message.session, message.number
