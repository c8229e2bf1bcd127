"""The dealer's stock of preprocessing: what clients order, what parties say of items, and which runs are given any."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Any

from mpc.errors import ProtocolViolation, ServerBusy, TesseraError
from mpc.program import Program
from mpc.rings import Array
from parties.members.cluster import Member
from parties.messages.bindings import BoundProgram
from parties.messages.evidence import session_failed
from parties.messages.stock import Spent, Stock, Stocked, StockHeld, StockLost, StockRefused
from parties.operate.audit.quota import size_of
from parties.servers.auditing import stock_order
from parties.servers.server import Server
from parties.stock.chain import ItemRecord, Link, check_chain, state_of
from parties.stock.dealer_stock import DealerStock
from parties.stock.items import ItemId
from parties.stock.stocker import Made, Stocker
from parties.stock.waste import Waste
from parties.stored import policy
from parties.stored.decided_versions import DecidedVersions
from parties.wire.messages import Payload
from protocols.randomness.dealt import TrustedDealer
from protocols.readings.dealer import Dealing, StoredMasks
from protocols.readings.drawing import Order

log = logging.getLogger(__name__)

READ_AHEAD = 8
"""Bytes of memory for each of an encoded program, at most, once it is decoded."""

Dealer = Callable[[str, BoundProgram, Mapping[str, StoredMasks], Order, bool, bool], Made]
"""For a client's run of a bound program, of masks by slot, in an order; patiently or not, chained or not.  Blocks."""


class StockDesk:
    """Fills the stock, and gives of it."""

    def __init__(
        self,
        server: Server[Any],
        source: TrustedDealer,
        stock: DealerStock,
        versions: DecidedVersions,
        deal: Dealer,
        being_kept: Callable[[str], bool],
        width: int,
    ) -> None:
        """``being_kept``: whether a run is under way that keeps something in a slot.  ``width``: how many items are
        dealt at a time.
        """
        self._server, self._source, self._stock, self._make = server, source, stock, deal
        self._being_kept = being_kept
        self.waste = Waste()
        self.left_by = ""
        """The party that has used another item than it was assigned: nobody is assigned any from then on."""
        cluster, turn = server.cluster, server.governor.disk.turn
        self.stocker = Stocker(
            cluster, server.endpoint, stock, versions, self._deal, self._deal_part, self._read, self._link,
            lambda slot: server.gate.look_up(slot) is not None, turn, width,
        )  # fmt: skip
        server.on(Stock, self._on_stock)
        # The last item of a program may be on its way to a run.
        server.on(
            StockHeld,
            lambda party, message, _: server.spawn(self.stocker.answer(party, message, lambda: bool(server.jobs))),
        )
        server.on(Stocked, lambda party, message, _: self.stocker.stored(party, message))
        server.on(StockRefused, self._on_refused)
        server.on(StockLost, lambda party, message, _: server.spawn(self.stocker.lose(party, message)))
        server.on(Spent, lambda party, message, _: server.spawn(self.stocker.doubt(party, message)))

    def assign(self, bound: BoundProgram, client: str, run: str) -> tuple[ItemId, ItemRecord] | None:
        """An item for that client's run, which nothing else is given from now on; None if it is given none.  Blocks."""
        if self.left_by or self.waste.rests(client):
            return None
        assigned = self._stock.assign(bound.digest, run)
        if assigned is None:
            return None
        item, record = assigned
        return item, ItemRecord.read(record)

    def assign_next(
        self, bound: BoundProgram, client: str, run: str, stored: Mapping[str, StoredMasks]
    ) -> tuple[ItemId, ItemRecord] | None:
        """Likewise the next one of a chain, for a run that goes on from what is stored.  Blocks.

        Raises BrokenChain, as ``DealerStock.assign_next``.
        """
        state = stored.get(bound.own_slot) if bound.keep else None
        if state is None or self.left_by or self.waste.rests(client):
            return None
        assigned = self._stock.assign_next(bound.chain_digest, state_of(state), run)
        return None if assigned is None else (assigned[0], ItemRecord.read(assigned[1]))

    def leave(self, party: str) -> None:
        """Give nothing more of it: that party has used another item than it was assigned."""
        if not self.left_by:
            self.left_by = party
            log.warning("%s: nothing is taken from the stock until this dealer is started again", party)

    # -- orders ----------------------------------------------------------------------------------------------------

    def _on_stock(self, client: Member, message: Stock, payload: Payload) -> None:
        server = self._server

        def read() -> BoundProgram:
            bound = BoundProgram(Program.decode(payload[0]), message.bindings, client.name, message.chain)
            server.gate.check(bound, client.name)
            if message.chain:
                check_chain(bound)
            self._source.check(bound.program, server.cluster.settings.security)
            server.governor.learn(bound.program)
            return bound.derive()

        async def order() -> None:
            charge = None
            try:
                server.check_staying()
                if self.left_by:
                    raise ProtocolViolation(self.left_by, "has used other items of the stock than it was assigned")
                if len(payload) != 1:
                    raise ProtocolViolation(client.name, "asked for preprocessing without the program")
                charge, seconds = server.governor.charge_program(client.name, payload[0])
                bound = await server.governor.desk.run(client.name, read, seconds=seconds)
                server.governor.admission.check_size(bound.program)
                ordered = stock_order(client, message, bound)
                server.audit.charge(client.name, size_of([ordered]))
                await self.stocker.order(client, message, bound, charge.release)
                server.audit.record(ordered)
            except TesseraError as error:
                if charge is not None:
                    charge.release()
                server.refuse_request(client, message, error)

        server.spawn(order())

    async def _link(self, bound: BoundProgram) -> tuple[Link, int]:
        """Where a chain is dealt on: behind so many items that are in stock of it, or from what is stored now."""

        def work() -> tuple[Link, int]:
            link = self._here(bound)
            count, kept = self._stock.begin_chain(bound.chain_digest, bound.own_slot, link.state)
            return (link.after(kept, count) if count else link), count

        if self._being_kept(bound.own_slot):
            raise ServerBusy(
                self._server.member.name,
                f"a run that goes on from {bound.keep!r} is under way: have more dealt when that training is over",
            )
        return await asyncio.to_thread(work)

    def _here(self, bound: BoundProgram) -> Link:
        """What is stored now.  Raises ProgramError."""
        found = policy.found(bound.bindings, self._server.gate.look_up)
        return Link(bound, {slot: in_use.held for slot, in_use in found.items()}, policy.order_of(bound, found))

    async def _deal(self, client: str, bound: BoundProgram, link: Link | None) -> Made:
        """In that client's turn, however long it takes to come.

        Whoever asked was allowed to run it then; who may not any more has no use for the stock.
        """

        def work() -> Made:
            what = link or self._here(bound)
            return self._make(client, bound, what.stored, what.order, True, link is not None)

        governor = self._server.governor
        seconds = governor.part_seconds(bound.program)
        return await governor.offline.run(client, work, seconds=seconds, patient=True)

    async def _deal_part(self, client: str, bound: BoundProgram, dealing: Dealing) -> tuple[Array, ...]:
        """Likewise."""
        governor = self._server.governor
        seconds = governor.part_seconds(bound.program)
        return await governor.offline.run(client, lambda: next(dealing.parts), seconds=seconds, patient=True)

    async def _read(self, client: str, encoded: bytes) -> tuple[BoundProgram, Callable[[], None]]:
        """A program that the client has asked for before; and what gives back the memory for it."""
        governor = self._server.governor
        charge = governor.charge(client, READ_AHEAD * len(encoded), "the program of its stock")
        try:
            bound = await governor.desk.run(client, lambda: BoundProgram.decode(encoded), patient=True)
        except BaseException:
            charge.release()
            raise
        return bound, charge.release

    # -- what parties say ------------------------------------------------------------------------------------------

    def _on_refused(self, party: Member, message: StockRefused, _: Payload) -> None:
        evidence = message.evidence
        proven = evidence is not None and session_failed(evidence) == message.session
        self.stocker.refused(party, message, proven=self._server.proofs.take(evidence, party) and proven)
