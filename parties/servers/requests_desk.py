"""A server's side of requests for leave: who may ask, what is kept, and who is shown it.

Every server does the same by itself: an owner who asks all of them sees what any of them was told, and a request that
one alone lacks, or alone has, is seen to be so.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any, TypeVar

import msgspec

from mpc.errors import NotPermitted, ProgramError, ProtocolViolation
from mpc.program import Program
from parties.members.cluster import Member
from parties.messages.requests import (
    MAX_PROGRAM_BYTES,
    MOST_OWNERS,
    AskLeave,
    DecideLeave,
    Decision,
    FetchProgram,
    LeaveAsked,
    LeaveDecided,
    ListRequests,
    ProgramFound,
    RequestList,
    RequestWithdrawn,
    Signed,
    UseRequest,
    WithdrawRequest,
    signed_in,
)
from parties.operate.audit.facts import Approval
from parties.operate.audit.quota import size_of
from parties.servers.notices import Notices
from parties.servers.server import Server
from parties.stored.policy import LookUp
from parties.stored.requests import RequestBook
from parties.stored.version_database import VersionDatabase
from parties.wire.messages import Payload

log = logging.getLogger(__name__)

Written = TypeVar("Written")


class RequestsDesk:
    """Handles the messages about requests; ``look_up`` says which secrets there are, and who may know of them."""

    def __init__(self, server: Server[Any], database: VersionDatabase, look_up: LookUp[Any]) -> None:
        self._server = server
        self._look_up = look_up
        self._book = RequestBook(server.member.name, database, lambda: server.cluster)
        self._notices = Notices(server, self._book, look_up)
        server.on(AskLeave, self._on_ask, server.refuse_request)
        server.on(DecideLeave, self._on_decide, server.refuse_request)
        server.on(ListRequests, self._on_list, server.refuse_request)
        server.on(FetchProgram, lambda client, message, _: server.answer(client, message, self._fetch(client, message)))
        server.on(
            WithdrawRequest, lambda client, message, _: server.answer(client, message, self._withdraw(client, message))
        )

    def _on_ask(self, client: Member, message: AskLeave, payload: Payload) -> None:
        if len(payload) != 2 or len(payload[1]) > MAX_PROGRAM_BYTES:
            raise ProgramError(f"owners are asked about programs of at most {MAX_PROGRAM_BYTES} bytes")
        signed = signed_in(payload[0])
        request = UseRequest.read(signed, self._server.cluster)
        if request.client != client.name:
            raise ProtocolViolation(client.name, "sent a request of somebody else's")
        # Before any work is done for it, and again when it is written.
        self._book.check_room(request, len(payload[1]))
        self._server.answer(client, message, self._ask(client, message, signed, request, payload[1]))

    async def _ask(
        self, client: Member, message: AskLeave, signed: Signed, request: UseRequest, encoded: memoryview
    ) -> None:
        asked = Approval(client.name, request.program, "asked", request.slots, asked=request.owners)
        self._server.audit.charge(client.name, size_of([asked]))
        charge, seconds = self._server.governor.charge_program(client.name, encoded)
        try:
            await self._server.governor.desk.run(client.name, lambda: self._check(request, encoded), seconds=seconds)
            await self._written(client, lambda: self._book.ask(signed, request, bytes(encoded)))
        finally:
            charge.release()
        log.info("%s asks for leave to run %s", client.name, request.program[:8])
        self._server.audit.record(asked)
        self._notices.changed(request)
        self._server.tell([client.name], LeaveAsked(request=message.request))

    def _check(self, request: UseRequest, encoded: memoryview) -> None:
        """It is about that program, on secrets that the client may know of.  Raises ProgramError, NotPermitted."""
        program = Program.decode(encoded)
        if (program.digest, program.slots) != (request.program, request.slots):
            raise ProgramError("this request is about another program than it brings")
        if not 0 < len(request.owners) <= MOST_OWNERS or not dict(request.others).keys() <= set(request.slots):
            raise ProgramError(f"a request is to somebody, and to {MOST_OWNERS} owners at most")
        for slot in program.slots:
            found = self._look_up(slot)
            # The same words, whether there is none or it is not for the client to know.
            if found is None or not found.policy.sees(request.client):
                owner, _, name = slot.partition("/")
                raise NotPermitted(
                    f"{request.client} may not know of {name!r}, if there is one: its owner {owner} has to publish it"
                    " first (tessera allow NAME CLIENT --schema)"
                )
            # Or one of them would not be asked, whose leave it takes.
            if sorted(found.policy.others) != sorted(request.joint(slot)):
                raise ProgramError(f"{slot!r} belongs to others than this request says: ask for it again")

    def _on_decide(self, client: Member, message: DecideLeave, payload: Payload) -> None:
        if len(payload) != 1:
            raise ProtocolViolation(client.name, "sent no decision")
        signed = signed_in(payload[0])
        decision = Decision.read(signed, self._server.cluster)
        if decision.owner != client.name:
            raise ProtocolViolation(client.name, "sent a decision of somebody else's")
        self._server.answer(client, message, self._decide(client, message, signed, decision))

    async def _decide(self, client: Member, message: DecideLeave, signed: Signed, decision: Decision) -> None:
        what = "approves" if decision.approved else "denies"
        said = Approval(decision.client, decision.program, what, tuple(decision.versions), owner=client.name)
        self._server.audit.charge(client.name, size_of([said]), takes_back=not decision.approved)
        request = await self._written(client, lambda: self._book.decide(signed, decision))
        log.info("%s %s of %s, program %s", client.name, what, decision.client, decision.program[:8])
        self._server.audit.record(said)
        self._notices.changed(request)
        self._server.tell([client.name], LeaveDecided(request=message.request))

    def _on_list(self, client: Member, message: ListRequests, _: Payload) -> None:
        entries = [msgspec.msgpack.encode(entry) for entry in self._book.seen_by(client)]
        self._server.tell([client.name], RequestList(request=message.request), entries)

    async def _fetch(self, client: Member, message: FetchProgram) -> None:
        program = await asyncio.to_thread(self._book.program, message.client, message.program, client)
        self._server.tell([client.name], ProgramFound(request=message.request), [program])

    async def _withdraw(self, client: Member, message: WithdrawRequest) -> None:
        found = await self._written(client, lambda: self._book.withdraw(client.name, message.program))
        if found is not None:
            self._notices.changed(found)
        self._server.tell([client.name], RequestWithdrawn(request=message.request, found=found is not None))

    async def _written(self, client: Member, write: Callable[[], Written]) -> Written:
        """In a thread, in this client's turn at the disk."""
        self._server.audit.check()
        return await self._server.governor.disk.in_thread(client.name, write)
