"""A version that is stored at a party, and what is read of several for a run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from mpc.operation import Value
from parties.members.cluster import Member
from parties.messages.bindings import slot_of
from parties.messages.evidence import PartsSaid, Statement
from parties.stored.record import Record
from protocols.readings.drawing import Order

WORTH = 1 << 20
"""Bytes of an upload that is made ready once it is there: with less a first run takes hardly longer than the next."""


class StoredVersion(NamedTuple):
    """A complete version."""

    record: Record
    owner: Member

    @property
    def slot(self) -> str:
        """Where programs read it; and what it is called, since each owner has names of its own."""
        return slot_of(self.owner.name, self.record.name)

    def said(self) -> Statement:
        """What its owner has said of it; of what a run has left, nobody has, and it is not signed."""
        record = self.record
        said = PartsSaid(record.circle, record.version, record.masked)
        return Statement(self.owner.name, said, record.signature)


class ReadForRun(NamedTuple):
    """What a run reads: ``tensors`` by slot and name; and by slot, in the bindings' order, what is said of them;
    and the ``order`` in which rows are drawn."""

    tensors: Mapping[tuple[str, str], Value]
    parts: tuple[Statement, ...]
    order: Order
