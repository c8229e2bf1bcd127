"""A party's preprocessing, dealt ahead of time: kept in its ledger, and handed out once."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

from mpc.errors import PeerLost, ProtocolViolation, TesseraError
from parties.host.disk import check_part, check_room
from parties.members.cluster import Cluster, Member
from parties.members.keys import KeyPair
from parties.messages.evidence import Evidence
from parties.messages.failures import fault_of
from parties.messages.runs import Dealt, Source
from parties.messages.stock import (
    MAX_LOST,
    MAX_PROGRAMS,
    Spent,
    StockDropped,
    Stocked,
    StockHeld,
    StockItem,
    StockLost,
    StockRefused,
)
from parties.messages.workers import Place
from parties.stock.collecting import Collecting
from parties.stock.items import NOTHING_FRESH, ItemId, SpentItem
from parties.stock.ledger import PartyLedger
from parties.stock.shelved import Shelved
from parties.wire.messages import Buffer, Message, Payload, payload_bytes

log = logging.getLogger(__name__)

Tell = Callable[[Message], None]
"""Sends to the dealer, if it can be reached."""

Proof = Callable[[str], Evidence | None]
"""Of a session, that a check has failed in it.  Blocks."""


class Kept(Protocol):
    """An item that one of the party's workers keeps, piece by piece."""

    item: ItemId
    key: bytes

    @property
    def where(self) -> Shelved:
        """All that is kept so far."""

    async def keep(self, ledger: PartyLedger, piece: int, source: Source, size: int) -> None:
        """The next piece; it is durable when this returns.  Raises TesseraError."""


KeptT = TypeVar("KeptT", bound=Kept)


class Shelves(Protocol[KeptT]):
    """Those of the party's workers (`parties.servers.shelving`)."""

    @property
    def here(self) -> set[str]:
        """Whose workers are there."""

    async def begin(self, item: ItemId, program: str, client: str) -> KeptT | None:
        """An item is to be kept; None if no worker does."""

    def end(self, keeping: KeptT) -> None:
        """The ledger has it, or it comes to nothing."""

    def give(self, where: Shelved, run: str) -> bool:
        """That item is about to be the run's; False if no worker has its shelf."""


class Material:
    """The ledger, and what it tells the dealer.  What takes or drops blocks: call it from a thread."""

    def __init__(
        self, cluster: Cluster, member: Member, keys: KeyPair, folder: str | os.PathLike[str], tell: Tell, proof: Proof
    ) -> None:
        self.ledger = PartyLedger(folder, keys, member.name, cluster.bond)
        self._cluster, self._folder, self._name = cluster, folder, member.name
        self._collecting: Collecting | None = None
        """Of the item that is on its way, if it does not come through the dealer."""
        self._tell, self._proof = tell, proof
        # Items are added, and programs dropped, in the order in which they come.
        self._adding = asyncio.Lock()
        self._session = ""

        self.shelves: Shelves[Any] | None = None
        """Of its workers, if it has such."""
        self._kept: Kept | None = None
        """The item that is on its way to one."""

    async def add(self, message: StockItem, payload: Payload) -> None:
        """Keep an item, durably, and then say so; or say why not."""
        item = ItemId(message.session, message.number)
        try:
            async with self._adding:
                if item.session != self._session:
                    # The dealer begins a session when it has destroyed the one before.
                    await asyncio.to_thread(self.ledger.destroy_others, item.session)
                    self._session = item.session
                kept = await self._shelf_for(item, message)
                await asyncio.to_thread(self._check_room, message, payload, kept)
                if kept is None:
                    await asyncio.to_thread(self._add, item, message, [*payload, *await self._collected(message)])
                elif message.source is None:
                    raise ProtocolViolation(self._cluster.dealer.name, "has not dealt all of an item in the same way")
                else:
                    await self._keep(kept, message.piece, message.source, message.collected)
                    part: list[Buffer] = [*payload, *([] if message.piece else [kept.key])]
                    await asyncio.to_thread(self._add, item, message, part, kept.where)
                    if message.piece + 1 >= message.pieces:
                        self._let_go()
        except TesseraError as error:
            log.warning("preprocessing %s refused: %s", item, error)
            self._let_go()
            position = error.position if isinstance(error, SpentItem) else 0
            proof = await asyncio.to_thread(self._proof, item.session) if position == NOTHING_FRESH else None
            self._tell(
                StockRefused(
                    session=item.session, number=item.number, fault=fault_of(error), position=position, evidence=proof
                )
            )
        else:
            self._tell(Stocked(session=message.session, number=message.number, piece=message.piece))

    async def _shelf_for(self, item: ItemId, message: StockItem) -> Kept | None:
        """Where all pieces of the item are to be kept; None if that is here."""
        if message.piece == 0:
            self._let_go()
            if self.shelves is not None and message.source is not None and self._is_last:
                self._kept = await self.shelves.begin(item, message.program, message.client)
        elif self._kept is not None and self._kept.item != item:
            self._let_go()
        return self._kept

    async def _keep(self, kept: Kept, piece: int, source: Source, size: int) -> None:
        """A disk of a worker's may hang, and other items wait for this one.  Raises TesseraError."""
        patience = self._cluster.settings.round_timeout
        try:
            async with asyncio.timeout(patience):
                await kept.keep(self.ledger, piece, source, size)
        except TimeoutError:
            raise PeerLost(self._name, f"has a worker that kept no preprocessing within {patience:g} s") from None

    def _let_go(self) -> None:
        if self._kept is not None and self.shelves is not None:
            self.shelves.end(self._kept)
        self._kept = None

    def _check_room(self, message: StockItem, payload: Payload, kept: Kept | None) -> None:
        """Here; a worker looks at its shelf itself."""
        size = payload_bytes(payload) + (message.collected if kept is None else 0)
        held = self.ledger.held_by(message.client) - self.ledger.shelved.bytes_of(message.client)
        check_room(self._folder, self._name, size)
        check_part(self._folder, self._name, size, message.client, held)

    @property
    def _is_last(self) -> bool:
        return self._name == self._cluster.parties[-1].name

    async def _collected(self, message: StockItem) -> Payload:
        """Of this piece, what a worker of the dealer's has of it.  Raises PeerLost, ProtocolViolation."""
        collecting, source = self._collecting, message.source
        if collecting is not None and collecting.source != source:
            collecting.close()
            self._collecting = collecting = None
        if source is None:
            return []
        if not self._is_last:
            raise ProtocolViolation(self._cluster.dealer.name, "has something collected that is not this party's")
        if collecting is None:
            self._collecting = collecting = Collecting(self._cluster, source, "this stock")
        return await collecting.part(message.collected)

    def _add(self, item: ItemId, message: StockItem, payload: Sequence[Buffer], shelved: Shelved | None = None) -> None:
        if message.piece:
            last = message.piece == message.pieces - 1
            self.ledger.add_later(item, message.program, message.piece, payload, last=last, shelved=shelved)
        else:
            more = message.pieces > 1
            self.ledger.add(item, message.program, payload, message.client, more=more, shelved=shelved)

    async def what_is_here(self) -> tuple[StockHeld, Sequence[bytes]]:
        """For the dealer.  Raises VaultError."""
        programs = await asyncio.to_thread(self.ledger.stock)
        return StockHeld(programs=tuple(programs)[:MAX_PROGRAMS]), ()

    async def drop(self, message: StockDropped) -> None:
        """Forget what no run will ask for: of what has been added by now."""
        async with self._adding:
            await asyncio.to_thread(self.ledger.discard_program, message.program)

    def take(self, message: Dealt, program: str) -> tuple[list[memoryview], Place | None]:
        """The item, of that bound program, for a run, and where the rest of it lies: marked used before this returns.

        Raises MaterialError when it is not fresh here.
        """
        item = ItemId(message.session, message.number)
        where = self.ledger.shelved.where(item)
        if where is None:
            return self.ledger.take(item, program, message.run), None
        if self.shelves is None or not self.shelves.give(where, message.run):
            raise self.ledger.miss(item, program, set() if self.shelves is None else self.shelves.here)
        *part, key = self.ledger.take(item, program, message.run)
        return part, self.ledger.place(item, program, where, bytes(key))

    def take_later(self, message: Dealt, program: str, piece: int) -> list[memoryview]:
        """One more piece of the item that a run has taken.  Raises MaterialError."""
        return self.ledger.take_later(ItemId(message.session, message.number), program, piece, message.run)

    def drop_later(self, message: Dealt) -> None:
        """The run is over: what it has not read is of no use."""
        self.ledger.drop_later(ItemId(message.session, message.number))

    def spent(self, error: SpentItem, program: str) -> None:
        """Tell the dealer that an item it assigned, of that bound program, is not fresh here, and where to go on."""
        item = error.item
        self._tell(Spent(session=item.session, number=item.number, program=program, position=error.position))

    def lost(self, items: Sequence[ItemId]) -> None:
        """Tell the dealer that these are not in stock here any more, which nobody has asked for."""
        for session in {item.session for item in items}:
            numbers = [item.number for item in items if item.session == session]
            for start in range(0, len(numbers), MAX_LOST):
                self._tell(StockLost(session=session, numbers=tuple(numbers[start : start + MAX_LOST])))

    def destroy(self, session: str) -> None:
        """A check has failed: nothing that was dealt in that session is ever handed out."""
        log.warning("a MAC check has failed: %d items of preprocessing destroyed", self.ledger.destroy(session))
