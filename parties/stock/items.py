"""Items of preprocessing: their names, what becomes of them, and the error that one is not to be had."""

from __future__ import annotations

import enum
import re
from typing import NamedTuple

from mpc.errors import MaterialError, UsageError

NOTHING_FRESH = (1 << 63) - 1
"""A position beyond every number: no item of that program, or of that session, will do here."""

_SESSION = re.compile(r"[0-9a-f]{32}\Z")
_PROGRAM = re.compile(r"[0-9a-f]{64}\Z")


class ItemId(NamedTuple):
    """An item's name: the dealer's session, 32 hexadecimal digits, and the number in it, from 1."""

    session: str
    number: int

    def __repr__(self) -> str:
        return f"{self.session[:8]}/{self.number}"


class State(enum.StrEnum):
    """What has become of an item; the last two are final."""

    PENDING = "pending"
    """At the dealer: not every party has stored its part yet."""
    FRESH = "fresh"
    """In stock."""
    USED = "used"
    DISCARDED = "discarded"


class Entry(NamedTuple):
    """A line of the ledger.  ``run`` is the run that used the item."""

    item: ItemId
    program: str
    run: str | None
    state: State


class SpentItem(MaterialError):  # noqa: N818 - says what happened
    """This ledger will not hand out, or take in, the item: it is not fresh here.

    Attributes:
        item: the one refused.
        position: the number of the next item of the program, above the refused one, that is fresh here; the dealer
            goes on from there.  Each refusal moves it up, so this ends.  `NOTHING_FRESH` where there is none.  From
            `PartyLedger.add`, the first number that it would take, `NOTHING_FRESH` in a destroyed session: a dealer
            that deals under a number that has been, or in such a session, has an old copy of its file, or missed the
            destruction.
    """

    def __init__(self, item: ItemId, reason: str, position: int) -> None:
        remedy = "deal afresh" if position == NOTHING_FRESH else f"go on from number {position}"
        super().__init__(f"preprocessing {item} {reason}: {remedy}")
        self.item = item
        self.position = position


def check_item(item: ItemId, program: str) -> None:
    if not _SESSION.match(item.session) or not 1 <= item.number < NOTHING_FRESH or not _PROGRAM.match(program):
        raise UsageError("an item has a session of 32 and a program of 64 hexadecimal digits, and a number from 1")
