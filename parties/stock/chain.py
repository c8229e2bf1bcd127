"""Dealing ahead along a chain of runs, each of which reads what the one before has kept: a training's, above all.

Products are dealt for the masks of what a run reads.  The masks of what it will *keep* are made from its own dealing's
seeds (`Dealing.kept`), and become those of the version that the next run reads.  So whoever has dealt for a run can
deal for the next one at once, before either has begun: a *link* is where such a dealing stands.  It takes seeds and
shapes, and nothing that is opened.

*Once each.*  Every link is dealt of fresh seeds: every value that its run opens has a mask of its own, every MAC a key
of its own.  What it takes over from the link before are masks under which nothing is opened again, as those of any
version that is stored.  An item is marked used, durably, by dealer and parties, before anything made with it leaves
(`stock.ledger`); so is one of a chain, and no run is given two.

*For that state alone.*  An item is for the state with these very masks.  It carries a digest of their seeds, and the
dealer gives it to a run only where the version that the run reads, as on its disk, has the same: not to one of as many
steps that another run has kept.  Versions and seeds are one to one, whatever becomes of ids of runs.

*A crash, and what else ends a run.*  Whatever the run was that came to nothing, its item is used, and the state that it
was to keep will never be: what was dealt beyond can be given to nobody.  The next run, from the checkpoint before,
finds that, discards all of it, here and at the parties, and is dealt for on demand.  Nothing of it has left: shares of
masks alone lie in ledgers.  If the state was kept, the version has the masks that the next item is for, and the chain
goes on, whoever was started again.  No item is entered in the middle, and none is used out of its place.

*Who could tell.*  The digest is of n seeds of 128 bits, of which any n - 1 parties lack one.  Ledgers have all items of
a chain under one name (`BoundProgram.chain_digest`): client, program, and versions of all that it reads beside.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from mpc.errors import ProgramError
from mpc.operation import Stored
from mpc.rings.prg import SEED_BYTES, Seed
from parties.messages.bindings import BoundProgram
from parties.messages.runs import Dealt
from parties.stored.data_set import kept_types
from parties.wire.messages import Buffer
from protocols.readings.dealer import StoredMasks
from protocols.readings.drawing import Order


@dataclass(frozen=True, repr=False)
class Link:
    """What is to be dealt next: ``bound`` with masks of what is stored, by slot, in an order of rows."""

    bound: BoundProgram
    stored: Mapping[str, StoredMasks]
    order: Order

    @property
    def state(self) -> bytes:
        """Of what it goes on from: which masks it has."""
        return state_of(self.stored[self.bound.own_slot])

    def fits(self, other: Link) -> bool:
        """Whether what is dealt for this is for that."""
        same = self.bound.chain_digest == other.bound.chain_digest and self.order == other.order
        return same and self.state == other.state

    def after(self, kept: Sequence[Seed], count: int = 1) -> Link:
        """The next, once this one, or so many, have been dealt, the last with these seeds of masks of what is kept."""
        shapes = {tensor: t.shape for tensor, t in kept_types(self.bound.program).items()}
        masks = {**self.stored, self.bound.own_slot: StoredMasks(tuple(kept), shapes)}
        part = self.order.part + count * bool(self.bound.program.drawn)
        return Link(self.bound, masks, replace(self.order, part=part))


def check_chain(bound: BoundProgram) -> None:
    """Each of its runs can read what the one before has kept.  Raises ProgramError."""
    kept = kept_types(bound.program)
    operations = (node.operation for node in bound.program.nodes)
    read = [o for o in operations if isinstance(o, Stored) and o.slot == bound.own_slot]
    if not read or any(o.tensor not in kept or kept[o.tensor].shape != o.whole for o in read):
        raise ProgramError(
            "a chain is dealt ahead for a program that keeps what it reads, in the place of it, as a training's does"
        )


def state_of(masks: StoredMasks) -> bytes:
    """Which masks a stored version has; whoever lacks a seed of them learns nothing by it."""
    return hashlib.sha256(b"tessera state\n" + b"".join(map(bytes, masks.seeds))).digest()


def ledger_name(bound: BoundProgram, dealt: Dealt) -> str:
    """Under which the item that a run is assigned is in ledgers."""
    return bound.chain_digest if dealt.chain else bound.digest


class ItemRecord(NamedTuple):
    """What the dealer's stock has of an item."""

    sent_bytes: int
    """To the parties, payload alone."""
    state: bytes
    """Of a chain: what it goes on from (`state_of`); else nothing."""
    kept: tuple[Seed, ...]
    """By party, the seed of the masks of what its run keeps; nothing of a program that keeps nothing."""
    client_part: Sequence[Buffer]

    @classmethod
    def read(cls, part: Sequence[memoryview]) -> ItemRecord:
        """As it was written."""
        sent, kept, *client_part = part
        seeds = (Seed(bytes(kept[i : i + SEED_BYTES])) for i in range(0, len(kept), SEED_BYTES))
        return cls(int.from_bytes(sent[:8], "little"), bytes(sent[8:]), tuple(seeds), client_part)

    def written(self) -> list[Buffer]:
        """For ``read``."""
        return [self.sent_bytes.to_bytes(8, "little") + self.state, b"".join(map(bytes, self.kept)), *self.client_part]
