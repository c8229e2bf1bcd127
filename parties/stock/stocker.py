"""The dealer's stock of preprocessing: filled ahead of time, one item after the other, and kept above a low-water mark.

An item goes to every party, each stores its part durably and says so, and only then is the item in stock.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import time
from collections import Counter, deque
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from typing import Any, NamedTuple

from msgspec.structs import replace

from mpc.errors import MaterialError, PeerError, PeerLost, ProtocolViolation, ServerBusy, TesseraError
from mpc.rings import Array
from mpc.rings.prg import SEED_BYTES
from parties.members.cluster import DEALER, Cluster, Member
from parties.messages.bindings import BoundProgram
from parties.messages.conversation import RequestFailed
from parties.messages.failures import error_of, fault_of
from parties.messages.runs import Source
from parties.messages.stock import (
    Spent,
    Stock,
    StockDropped,
    Stocked,
    StockHeld,
    StockItem,
    StockLost,
    StockProgress,
    StockRefused,
)
from parties.stock.chain import ItemRecord, Link
from parties.stock.dealer_stock import MAX_ITEMS, DealerStock
from parties.stock.items import NOTHING_FRESH, ItemId
from parties.stock.orders import Request, Requests
from parties.stored.decided_versions import DecidedVersions
from parties.wire.messages import Buffer
from parties.wire.transport import Endpoint
from protocols.readings.dealer import Dealing

log = logging.getLogger(__name__)

MAX_REQUESTS = 8
"""Of one client, not dealt for yet; beyond it a new one is refused as busy."""


SLICE = 8
"""Items dealt for a request before it is another client's turn."""

TRIES = 3
"""Dealings that are made for one use, each of seeds of its own, if workers are lost with them."""


class OldStock(MaterialError):  # noqa: N818 - says what is known
    """All parties' ledgers are ahead of this stock, or a check has failed in its session."""


class AheadOfOthers(MaterialError):  # noqa: N818 - likewise
    """One party's ledger is, by its own word: it would take numbers from ``position``."""

    def __init__(self, sentence: str, position: int) -> None:
        super().__init__(sentence)
        self.position = position


class DealingLost(PeerLost):
    """With a worker of this dealer's, before a party had all of it: nothing else was ever made of its seeds."""


class Made(NamedTuple):
    """A dealing, and the first of its parts; ``source``: where parts are to be collected, which are empty here then."""

    dealing: Dealing
    first: tuple[Array, ...]
    source: Source | None = None

    def __repr__(self) -> str:
        return "Made(...)"


class Stocker:
    """Fills a ``DealerStock``.

    ``deal`` begins one dealing of a bound program, ``deal_part`` makes the next of its parts, and ``read`` decodes one
    that was asked for before, in the turn of a client; they may raise TesseraError.  What ``read`` returns with it is
    called when the program is not needed any more.  ``link`` is where a chain is dealt on, behind so many items, and
    ``is_there`` says whether anything is stored in a slot.  ``turn`` is a client's at the disk.  ``width``: so many are
    dealt at a time, beside the one that is being stored.
    """

    def __init__(
        self,
        cluster: Cluster,
        endpoint: Endpoint,
        stock: DealerStock,
        versions: DecidedVersions,
        deal: Callable[[str, BoundProgram, Link | None], Coroutine[Any, Any, Made]],
        deal_part: Callable[[str, BoundProgram, Dealing], Coroutine[Any, Any, tuple[Array, ...]]],
        read: Callable[[str, bytes], Coroutine[Any, Any, tuple[BoundProgram, Callable[[], None]]]],
        link: Callable[[BoundProgram], Coroutine[Any, Any, tuple[Link, int]]],
        is_there: Callable[[str], bool],
        turn: Callable[[str], contextlib.AbstractAsyncContextManager[None]],
        width: int = 1,
    ) -> None:
        self.stock = stock
        self._versions = versions
        self._cluster = cluster
        self._endpoint = endpoint
        self._deal = deal
        self._deal_part = deal_part
        self._read, self._link, self._is_there = read, link, is_there
        self._turn = turn
        self._width = min(width, SLICE)
        self._parties = [party.name for party in cluster.parties]
        self._requests = Requests()
        self._current: list[Request] = []
        """At which it is."""
        self._noting: Counter[str] = Counter()
        """Orders on their way there, by client."""
        self._refilling: set[str] = set()
        self._doubts: set[asyncio.Task[bool]] = set()
        """Of parties, on their way to the disk."""
        self._item: ItemId | None = None
        self._piece = 0
        """Of it."""
        self._missing: set[str] = set()
        self._refusals: list[AheadOfOthers] = []
        """Of the item that is on its way, for what ledgers say."""
        self._stored: asyncio.Future[None] | None = None

    # -- what is asked for -----------------------------------------------------------------------------------------

    async def order(self, client: Member, message: Stock, bound: BoundProgram, over: Callable[[], None]) -> None:
        """A client's request, to be dealt in its turn; ``over`` is called in the end.  Raises TesseraError."""
        if message.chain and message.low_water:
            raise ProtocolViolation(client.name, "asked for a low-water mark of a chain, which is dealt once")
        if message.low_water > message.count:
            raise ProtocolViolation(client.name, "asked for a low-water mark above the number to deal up to")
        if message.count > MAX_ITEMS:
            raise ServerBusy(DEALER, f"{client.name} may have {MAX_ITEMS} items in stock: order fewer")
        if self._requests.of(client.name) + self._noting[client.name] >= MAX_REQUESTS:
            raise ServerBusy(DEALER, f"{MAX_REQUESTS} requests of {client.name} wait to be dealt for: try again later")
        request = Request(bound, message.count, client, message.request, over, chained=bool(message.chain))

        def note() -> None:
            # What is in doubt is its own to give up.
            self.stock.drop_doubted(request.program)
            if message.low_water:
                self.stock.set_target(bound.encode(), bound.digest, message.low_water, message.count, client.name)
            request.in_stock = self.stock.stock_of(request.program)

        self._noting[client.name] += 1
        try:
            async with self._turn(client.name):
                await asyncio.to_thread(note)
        finally:
            self._noting[client.name] -= 1
        self._requests.put(request)

    async def refill(self, program: str = "") -> None:
        """Order what has fallen below its low-water mark, of all programs or of that one."""
        wanted = await asyncio.to_thread(self.stock.wanted, program)
        for digest, count in wanted.items():
            if digest in self._refilling:
                continue
            # Before anything is awaited: another run may be asking for the same.
            self._refilling.add(digest)
            try:
                target = await asyncio.to_thread(self.stock.target, digest)
                found = None if target is None else await self._read(target.client, target.program)
            except TesseraError as error:
                # Of one client; the others' stock is filled up all the same.
                log.warning("the stock of program %s cannot be filled up: %s", digest[:8], error)
                found = None
            if found is None:
                self._refilling.discard(digest)
            else:
                self._requests.put(Request(found[0], count, over=found[1]))

    async def sweep(self) -> None:
        """Models that are gone take along what was dealt for them; a crash in the middle is made good at the start."""
        for program in await asyncio.to_thread(self._versions.abandoned):
            await self._drop(program)
        for program, slot in (await asyncio.to_thread(self.stock.chains)).items():
            if not self._is_there(slot):
                await self._drop(program)

    async def _drop(self, program: str) -> None:
        await asyncio.to_thread(self.stock.drop_target, program)
        await asyncio.to_thread(self.stock.discard_program, program)
        self.broken(program)
        await asyncio.to_thread(self._versions.forget_program, program)

    def broken(self, program: str) -> None:
        """Nothing of it is in stock here, nor is of use."""
        # A party that is down asks when it is back: see ``answer``.
        self._tell_dropped(self._parties, program)
        for request in (*self._requests, *self._current):
            request.broken = request.broken or (request.chained and request.program == program)

    async def answer(self, party: Member, message: StockHeld, busy: Callable[[], bool]) -> None:
        """Tell a party of which programs, that it has fresh items of, nobody will ask it for one.

        Not when ``busy``: an item that was just assigned is on its way to a run.
        """
        await asyncio.to_thread(self.stock.trust, party.name)
        dealt = await asyncio.to_thread(self.stock.programs)
        if busy():
            return
        for program in sorted(set(message.programs) - dealt):
            self._tell_dropped([party.name], program)

    def _tell_dropped(self, parties: Collection[str], program: str) -> None:
        for party in parties:
            with contextlib.suppress(TesseraError):
                self._endpoint.send(party, StockDropped(program=program))

    def doubt(self, party: Member, message: Spent) -> Coroutine[Any, Any, None]:
        """A party says that it has not got what it was assigned: go on with what it should have.

        Nothing is discarded, since it proves nothing: whoever has lost nothing may say so too.  It is under way before
        this returns: see ``settled``.
        """
        item = ItemId(message.session, message.number)
        noting = asyncio.to_thread(self.stock.doubt, party.name, item, message.program, message.position)
        noted = asyncio.get_running_loop().create_task(noting)
        self._doubts.add(noted)
        noted.add_done_callback(self._doubts.discard)

        async def passed_over() -> None:
            if await noted:
                log.warning("%s says that it has not got preprocessing %s: it is passed over", party.name, item)
                await self.refill(message.program)

        return passed_over()

    async def lose(self, party: Member, message: StockLost) -> None:
        """A party says that it has lost items: what is in doubt by its word, likewise."""
        numbers = message.numbers
        programs = await asyncio.to_thread(self.stock.lose, party.name, message.session, numbers)
        if programs:
            log.warning("%s says that it has lost items of preprocessing: they are passed over", party.name)
        for program in programs:
            await self.refill(program)

    async def settled(self) -> None:
        """What parties have said by now counts: a run that is asked for after that gets nothing of what is in doubt."""
        if self._doubts:
            await asyncio.wait(set(self._doubts))

    # -- dealing ---------------------------------------------------------------------------------------------------

    async def work(self) -> None:
        """Deal for the requests in turn, until cancelled."""
        try:
            await self.sweep()
            await self.refill()
        except TesseraError as error:
            log.warning("the stock cannot be filled up: %s", error)
        while True:
            request = await self._requests.take()
            self._current = [request]
            try:
                # Before they are watched: one that has just been started again is not lost for that.
                await self._reach()
                with self._endpoint.watch(self._parties):
                    await self._fill(request)
                if request.done < request.count:
                    self._requests.put(request, first=True)
                    continue
            except TesseraError as error:
                self._failed(request, error)
            except Exception:
                log.exception("stocking: internal error")
                self._failed(request, TesseraError("internal error; see the dealer's log"))
            request.over()
            self._current = []
            if request.client is None:
                self._refilling.discard(request.program)

    def _failed(self, request: Request, error: TesseraError) -> None:
        log.warning("stocking stopped: %s", error)
        if request.client is not None:
            with contextlib.suppress(TesseraError):
                self._endpoint.send(request.client.name, RequestFailed(request=request.request, fault=fault_of(error)))

    async def _fill(self, request: Request) -> None:
        """Deal for it, to its end or until it is another client's turn."""
        bound, started, before = request.bound, time.perf_counter(), request.seconds
        # A chain is of use whichever version it goes on from.
        versions = [b.version for b in (bound.beside if request.chained else bound.bindings)]
        await asyncio.to_thread(self._versions.note_uses, request.program, versions)
        if request.chained and request.link is None:
            request.link, there = await self._link(bound)
            if not there:
                self._tell_dropped(self._parties, request.program)
        width = 1 if request.chained else self._width
        ahead = deque([self._begin(request, request.link)])
        try:
            for dealt in itertools.count(1):
                made = await ahead.popleft()
                if request.broken:
                    await self._drop(request.program)
                    raise MaterialError("what it was dealt ahead for has gone on otherwise: deal for what there is now")
                following = None if request.link is None else request.link.after(made.dealing.kept)
                others = dealt >= SLICE and self._requests.others(request.owner)
                # The next ones are dealt while the parties store this one.
                while len(ahead) < (0 if others else min(width, request.count - request.done - 1)):
                    ahead.append(self._begin(request, following))
                last = not ahead
                sent, stored = await self._hand_out(request, made)
                if request.link is not None:
                    if stored is not made:
                        following = request.link.after(stored.dealing.kept)
                        if ahead:
                            ahead.pop().cancel()
                            ahead.append(self._begin(request, following))
                    request.link = following
                request.sent_bytes += sent
                request.done += 1
                request.seconds = before + time.perf_counter() - started
                request.in_stock = await asyncio.to_thread(self.stock.stock_of, request.program)
                self._progress(request)
                for waiting in self._requests:
                    # That it is not forgotten: its client is not patient for ever.
                    with contextlib.suppress(TesseraError):
                        self._progress(waiting)
                if last:
                    return
        finally:
            for dealing in ahead:
                dealing.cancel()
            # One of its models may have gone while an item was on its way.
            await asyncio.to_thread(self._versions.note_uses, request.program, versions)
            await self.sweep()

    def _begin(self, request: Request, link: Link | None) -> asyncio.Task[Made]:
        return asyncio.create_task(self._deal(request.owner, request.bound, link))

    def _progress(self, request: Request) -> None:
        if request.client is not None:
            message = StockProgress(
                request=request.request,
                done=request.done,
                stock=request.in_stock,
                sent_bytes=request.sent_bytes,
                seconds=request.seconds,
            )
            self._endpoint.send(request.client.name, message)

    async def _hand_out(self, request: Request, made: Made) -> tuple[int, Made]:
        """Have every party store its part; returns the payload bytes sent, and what is stored."""
        tries = 0
        while True:
            try:
                return await self._handed_out(request, made)
            except DealingLost as error:
                tries += 1
                if tries == TRIES:
                    raise
                log.warning("%s: it is dealt anew, of other seeds", error)
                made = await self._deal(request.owner, request.bound, request.link)

    async def _handed_out(self, request: Request, made: Made) -> tuple[int, Made]:
        """Likewise, if no worker is lost with it.

        All parties that have met the number before show that this stock is an old copy, and so does one that can prove
        that a check has failed: it begins a new session.  One alone may be lying: its numbers are passed over.
        """
        above, session = 0, self.stock.session
        try:
            return await self._send(request, made), made
        except OldStock:
            log.warning("this stock is destroyed, and a new session begun: the parties' ledgers are ahead of it")
            await asyncio.to_thread(self.stock.new_session, session)
            if request.chained:
                # With what it goes on from.
                raise
        except AheadOfOthers as error:
            if error.position == NOTHING_FRESH:
                raise
            above = error.position
        # Not the same again: another party may have stored its part of that.
        again = await self._deal(request.owner, request.bound, request.link)
        return await self._send(request, again, above), again

    async def _send(self, request: Request, made: Made, above: int = 0) -> int:
        bound, dealing = request.bound, made.dealing
        pieces = bound.program.schedule(self._cluster.settings.security).dealt
        total = SEED_BYTES * len(self._parties) + sum(pieces)
        # What the run's bill will say was sent for it; and what we have to remember of a run that keeps something.
        kept = dealing.kept if bound.program.kept else ()
        state = b"" if request.link is None else request.link.state
        record = ItemRecord(total, state, kept, dealing.for_client()).written()
        item = await asyncio.to_thread(self.stock.begin, request.program, record, bound.client, above)
        try:
            await self._deliver(item, request, made, pieces)
        except BaseException:
            await asyncio.to_thread(self.stock.abandon, item)
            raise
        await asyncio.to_thread(self.stock.ready, item)
        return total

    async def _reach(self) -> None:
        if not all(map(self._endpoint.connected, self._parties)):
            await self._endpoint.connect(self._parties, self._cluster.settings.peer_timeout)

    async def _deliver(self, item: ItemId, request: Request, made: Made, pieces: Sequence[int]) -> None:
        """Returns when every party has said that it has stored all of its part; ``pieces``: bytes of the last one's."""
        dealing, last = made.dealing, self._parties[-1]
        ahead: asyncio.Task[tuple[Array, ...]] | None = None
        parts = {party.name: dealing.for_party(party.index, made.first) for party in self._cluster.parties}
        message = StockItem(
            session=item.session, number=item.number, program=request.program, client=request.bound.client
        )
        try:
            for piece, size in enumerate(pieces):
                message, more = replace(message, piece=piece), piece + 1 < len(pieces)
                of_last = replace(message, pieces=len(pieces), source=made.source, collected=size if made.source else 0)
                # The next one is dealt while this one is stored.
                ahead = asyncio.create_task(self._deal_part(request.owner, request.bound, dealing)) if more else None
                await self._have_stored(message, parts, of_last)
                if ahead is not None:
                    parts = {last: list(await ahead)}
        finally:
            if ahead is not None:
                ahead.cancel()

    async def _have_stored(self, message: StockItem, parts: Mapping[str, Sequence[Buffer]], of_last: StockItem) -> None:
        """Returns when these parties have said that they have stored it; ``of_last``: what the last one is told."""
        self._item, self._piece = ItemId(message.session, message.number), message.piece
        self._missing, self._refusals = set(parts), []
        self._stored = asyncio.get_running_loop().create_future()
        try:
            await self._reach()
            for party, part in parts.items():
                self._endpoint.send(party, of_last if party == self._parties[-1] else message, part)
            patience = self._cluster.settings.round_timeout
            async with asyncio.timeout(patience):
                await self._stored
        except TimeoutError:
            raise PeerLost(min(self._missing), f"stored no preprocessing within {patience:g} s") from None
        finally:
            self._item = self._stored = None

    # -- what parties answer ---------------------------------------------------------------------------------------

    def stored(self, party: Member, message: Stocked) -> None:
        """A party has its part."""
        if (ItemId(message.session, message.number), message.piece) == (self._item, self._piece):
            self._answered(party)

    def refused(self, party: Member, message: StockRefused, *, proven: bool) -> None:
        """A party will not have it; ``proven``: it has shown that nobody should."""
        if ItemId(message.session, message.number) != self._item or party.name not in self._missing:
            return
        error = error_of(message.fault, party.name)
        if proven:
            self._stop(OldStock(str(error)))
        elif message.position:
            self._refusals.append(AheadOfOthers(str(error), message.position))
            self._answered(party)
        elif isinstance(error, PeerLost) and error.peer in (DEALER, party.name):
            # With a worker of this dealer's, or of that party's.
            self._stop(DealingLost(error.peer, error.reason))
        else:
            self._stop(error)

    def _answered(self, party: Member) -> None:
        """It has the item, or says that its ledger is ahead of it.  When all have, it is known whose is."""
        self._missing.discard(party.name)
        if self._missing:
            return
        if len(self._refusals) == len(self._parties):
            self._stop(OldStock(str(self._refusals[0])))
        elif self._refusals:
            self._stop(max(self._refusals, key=lambda refusal: refusal.position))
        elif self._stored is not None and not self._stored.done():
            self._stored.set_result(None)

    def lost(self, member: Member, error: PeerError) -> None:
        """A party has gone."""
        if member.name in self._missing:
            self._stop(error)

    def _stop(self, error: TesseraError) -> None:
        if self._stored is not None and not self._stored.done():
            self._stored.set_exception(error)
