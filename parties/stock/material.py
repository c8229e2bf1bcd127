"""A party's preprocessing, dealt ahead of time: kept in its ledger, and handed out once."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Sequence

from mpc.errors import ProtocolViolation, TesseraError
from parties.host.disk import check_part, check_room
from parties.members.cluster import Cluster, Member
from parties.members.keys import KeyPair
from parties.messages.evidence import Evidence
from parties.messages.failures import fault_of
from parties.messages.runs import Dealt
from parties.messages.stock import MAX_PROGRAMS, Spent, StockDropped, Stocked, StockHeld, StockItem, StockRefused
from parties.stock.collecting import Collecting
from parties.stock.items import NOTHING_FRESH, ItemId, SpentItem
from parties.stock.ledger import PartyLedger
from parties.wire.messages import Message, Payload, payload_bytes

log = logging.getLogger(__name__)

Tell = Callable[[Message], None]
"""Sends to the dealer, if it can be reached."""

Proof = Callable[[str], Evidence | None]
"""Of a session, that a check has failed in it.  Blocks."""


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

    async def add(self, message: StockItem, payload: Payload) -> None:
        """Keep an item, durably, and then say so; or say why not."""
        item = ItemId(message.session, message.number)
        try:
            async with self._adding:
                if item.session != self._session:
                    # The dealer begins a session when it has destroyed the one before.
                    await asyncio.to_thread(self.ledger.destroy_others, item.session)
                    self._session = item.session
                await asyncio.to_thread(self._check_room, message, payload)
                whole = [*payload, *await self._collected(message)]
                await asyncio.to_thread(self._add, item, message, whole)
        except TesseraError as error:
            log.warning("preprocessing %s refused: %s", item, error)
            position = error.position if isinstance(error, SpentItem) else 0
            proof = await asyncio.to_thread(self._proof, item.session) if position == NOTHING_FRESH else None
            self._tell(
                StockRefused(
                    session=item.session, number=item.number, fault=fault_of(error), position=position, evidence=proof
                )
            )
        else:
            self._tell(Stocked(session=message.session, number=message.number, piece=message.piece))

    def _check_room(self, message: StockItem, payload: Payload) -> None:
        size = payload_bytes(payload) + message.collected
        check_room(self._folder, self._name, size)
        check_part(self._folder, self._name, size, message.client, self.ledger.held_by(message.client))

    async def _collected(self, message: StockItem) -> Payload:
        """Of this piece, what a worker of the dealer's has of it.  Raises PeerLost, ProtocolViolation."""
        collecting, source = self._collecting, message.source
        if collecting is not None and collecting.source != source:
            collecting.close()
            self._collecting = collecting = None
        if source is None:
            return []
        if self._name != self._cluster.parties[-1].name:
            raise ProtocolViolation(self._cluster.dealer.name, "has something collected that is not this party's")
        if collecting is None:
            self._collecting = collecting = Collecting(self._cluster, source, "this stock")
        return await collecting.part(message.collected)

    def _add(self, item: ItemId, message: StockItem, payload: Payload) -> None:
        if message.piece:
            last = message.piece == message.pieces - 1
            self.ledger.add_later(item, message.program, message.piece, payload, last=last)
        else:
            self.ledger.add(item, message.program, payload, message.client, more=message.pieces > 1)

    async def what_is_here(self) -> tuple[StockHeld, Sequence[bytes]]:
        """For the dealer.  Raises VaultError."""
        programs = await asyncio.to_thread(self.ledger.stock)
        return StockHeld(programs=tuple(programs)[:MAX_PROGRAMS]), ()

    async def drop(self, message: StockDropped) -> None:
        """Forget what no run will ask for: of what has been added by now."""
        async with self._adding:
            await asyncio.to_thread(self.ledger.discard_program, message.program)

    def take(self, message: Dealt, program: str) -> list[memoryview]:
        """The item, of that bound program, for a run: marked used before this returns.

        Raises MaterialError when it is not fresh here.
        """
        return self.ledger.take(ItemId(message.session, message.number), program, message.run)

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

    def destroy(self, session: str) -> None:
        """A check has failed: nothing that was dealt in that session is ever handed out."""
        log.warning("a MAC check has failed: %d items of preprocessing destroyed", self.ledger.destroy(session))
