"""A server's side of rules: what owners say, what servers tell each other, and what ends when a rule does."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Any

import msgspec

from mpc.errors import ProgramError, ProtocolViolation, TesseraError
from parties.members.cluster import Member
from parties.messages.rules import (
    EVERYONE,
    AllowUse,
    AskRules,
    NewerRules,
    RuleSet,
    RulesHeld,
    RulesKnown,
    UseAllowed,
    known_in,
)
from parties.operate.audit.quota import size_of
from parties.servers.auditing import rule_changes
from parties.servers.reporting import Reporting
from parties.servers.server import Server
from parties.stored.rule_tables import SignedRules
from parties.stored.rules import RuleBook, verified
from parties.wire.messages import Payload

log = logging.getLogger(__name__)

TOGETHER = 100
"""Sets in one message."""

MOMENT = 0.1
"""s in which what owners say is gathered, for the other servers."""


class RulesDesk:
    """Handles the messages about rules at a server, the dealer or a party."""

    def __init__(self, server: Server[Any], book: RuleBook) -> None:
        self._server = server
        self._book = book
        self._news: dict[tuple[str, str], SignedRules] = {}
        self._others = [other.name for other in server.cluster.servers if other != server.member]
        self._reporting = {other: Reporting(server, other, self._what_is_here) for other in self._others}
        """To each other server, which rules are here."""
        server.on(AskRules, self._on_ask)
        server.on(AllowUse, self._on_allow)
        server.on(RulesKnown, lambda other, _, payload: server.spawn(self._answer(other, payload)))
        server.on(NewerRules, lambda other, _, payload: server.spawn(self._take(other, payload)))

    def begin(self) -> None:
        """Ask the others, now and whenever one of them has started."""
        for reporting in self._reporting.values():
            self._server.spawn(reporting.work())

    def lost(self, member: Member) -> None:
        """It may have been told meanwhile what we have not."""
        if member.name in self._reporting:
            self._reporting[member.name].lost()

    # -- owners ----------------------------------------------------------------------------------------------------

    def _on_ask(self, client: Member, message: AskRules, _: Payload) -> None:
        held = self._book.held(client, message.name)
        reply = RulesHeld(request=message.request)
        self._server.tell([client.name], reply, [] if held is None else held.payload)

    def _on_allow(self, client: Member, message: AllowUse, payload: Payload) -> None:
        held = self._book.repeated(client, *payload) if len(payload) == 2 else None
        if held is None:
            self._server.spawn(self._allow(client, message, payload))
        else:
            self._server.tell([client.name], UseAllowed(request=message.request, rules=held.digest))

    async def _allow(self, client: Member, message: AllowUse, payload: Payload) -> None:
        try:
            self._server.audit.check()
            if len(payload) != 2:
                raise ProtocolViolation(client.name, "sent rules without a signature")
            found = await self._verified(client, payload)
            if found.owner != client.identity:
                raise ProtocolViolation(client.name, "sent rules of another client")
            self._check_clients(found.rules)
            if await self._adopt(found):
                self._tell_soon(found)
            held = self._book.held(client, found.rules.name) or found
        except TesseraError as error:
            self._server.refuse_request(client, message, error)
        else:
            self._server.tell([client.name], UseAllowed(request=message.request, rules=held.digest))

    def _check_clients(self, rules: RuleSet) -> None:
        """Raises ProgramError for a new rule of a client that the cluster does not have."""
        clients = {member.name for member in self._server.cluster.clients} | {EVERYONE}
        for rule in rules.rules:
            if rule.given == rules.number and rule.client not in clients:
                raise ProgramError(f"the cluster has no client called {rule.client!r}")

    # -- servers ---------------------------------------------------------------------------------------------------

    async def _what_is_here(self) -> tuple[RulesKnown, list[bytes]]:
        return RulesKnown(), [msgspec.msgpack.encode(self._book.known)]

    async def _answer(self, other: Member, payload: Payload) -> None:
        """What it lacks."""
        if len(payload) != 1:
            raise ProtocolViolation(other.name, "did not say which rules it has")
        self._tell([other.name], self._book.newer_than(await asyncio.to_thread(known_in, payload[0])))

    def _tell_soon(self, found: SignedRules) -> None:
        """Who was not reached by its owner, or was told otherwise, learns it from us: all of a moment at once."""
        self._news[found.place] = found
        if len(self._news) == 1:
            self._server.spawn(self._tell_news())

    async def _tell_news(self) -> None:
        await asyncio.sleep(MOMENT)
        news, self._news = self._news, {}
        self._tell(self._others, list(news.values()))

    def _tell(self, others: Sequence[str], sets: Sequence[SignedRules]) -> None:
        for first in range(0, len(sets), TOGETHER):
            some = sets[first : first + TOGETHER]
            self._server.tell(others, NewerRules(), [part for found in some for part in found.payload])

    async def _take(self, other: Member, payload: Payload) -> None:
        """Of each owner's, what is newer than ours; whoever brings it."""
        if len(payload) % 2 or len(payload) > 2 * TOGETHER:
            raise ProtocolViolation(other.name, "sent rules without their signatures")
        for at in range(0, len(payload), 2):
            try:
                await self._adopt(await self._verified(other, payload[at : at + 2]))
            except TesseraError as error:
                # The others may be good.
                log.warning("rules that %s has sent are refused: %s", other.name, error)

    async def _verified(self, bringer: Member, payload: Sequence[memoryview]) -> SignedRules:
        cluster = self._server.cluster
        return await self._server.governor.desk.run(
            bringer.name, lambda: verified(cluster, bringer.name, *payload), patient=True
        )

    async def _adopt(self, found: SignedRules) -> bool:
        """Durably in force from now on, if it is newer; what was prepared under former rules is over.

        Whether it is newer.  Raises ProgramError, ServerBusy, VaultError.
        """
        async with self._server.governor.disk.turn(found.rules.owner):
            if not await asyncio.to_thread(self._book.lacks, found, self._server.cluster):
                return False
            changes = list(rule_changes(found, self._book.at(found.place)))
            self._server.audit.charge(found.rules.owner, size_of(changes), takes_back=True)
            await asyncio.to_thread(self._book.store, found, self._server.cluster)
            self._book.apply(found)
            self._server.end_forbidden()
        for change in changes:
            self._server.audit.record(change)
        rules = found.rules
        log.info(
            "number %d are the rules of %s: %s", rules.number, rules.name, "; ".join(map(str, rules.rules)) or "none"
        )
        return True
