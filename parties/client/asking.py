"""Asking owners for leave to run a program: the part of ``AsyncClient`` that is about programs on others' secrets."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import logging
import os
import re
import secrets
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

from mpc.errors import NoSuchName, NotPermitted, PeerError, ProgramError, ProtocolViolation, UsageError
from mpc.objective import Objective
from mpc.operation import Input, Stored
from mpc.program import Program
from parties.client.explanation import Explanation, explained
from parties.client.remote_data import RemoteData
from parties.client.remote_model import RemoteModel
from parties.client.request_entries import RequestEntry, Standing, State, collected, shared
from parties.client.stored_secrets import StoredSecrets
from parties.client.writing import Results, Written, beside, takes_long, write
from parties.messages.requests import (
    LONGEST_WHY,
    MAX_PROGRAM_BYTES,
    MOST_LISTED,
    MOST_OWNERS,
    MOST_SLOTS,
    AskLeave,
    FetchProgram,
    LeaveAsked,
    ListRequests,
    ProgramFound,
    RequestList,
    RequestWithdrawn,
    UseRequest,
    WithdrawRequest,
    entry_in,
)
from parties.messages.rules import EVERYONE, Rule
from parties.stored.policy import ANY, whole
from protocols.trace.mathematics import Secret

log = logging.getLogger(__name__)

_DIGEST = re.compile(r"[0-9a-f]{64}\Z")
_FIRST_PAUSE, _LONGEST_PAUSE = 0.25, 5.0
"""s between two looks at what has been decided."""
_LOOK = 60.0
"""s after which it is looked at what servers say nothing of."""


class Asking(StoredSecrets):
    """A client of a cluster, as far as asking goes."""

    _objective: Objective
    """What its programs are planned for."""

    def digest(self, result: Results) -> str:
        """What the program that computes ``result`` is called in ``allow``: whoever builds the same gets the same.

        Of a mapping it is the program that keeps it.  It names the models and data sets that it uses, and their owners,
        but not the versions: a rule for it outlasts uploads.  It says nothing of what this client has shared.
        """
        return self._written(result).program.digest

    def save(self, result: Results, path: str | os.PathLike[str]) -> str:
        """Writes the program that computes ``result`` to a file, for `tessera request`; its digest.

        Nothing of what this client has shared is in it.  Raises UsageError when it cannot be written.
        """
        program = self._written(result).program
        try:
            Path(path).write_bytes(program.encode())
        except OSError as error:
            raise UsageError(f"{os.fspath(path)} cannot be written: {error.strerror}") from error
        return program.digest

    async def request(self, result: Results | Program, why: str) -> str:
        """Ask all to whom something belongs that ``result`` reads to let this client run it; the program's digest.

        They see the program, and ``why``, of up to 500 characters.  Every server keeps it until a month after it was
        asked or last decided.  ``requests`` says what becomes of it, and ``approved`` waits.  To ask again is to ask
        anew: what was decided before is forgotten, though not what is allowed.

        Raises UsageError, NotPermitted for a secret that we may not know of, ServerBusy for too many requests.
        """
        program = result if isinstance(result, Program) else (await self._write(result)).program
        encoded = program.encode()
        if not 0 < len(why) <= LONGEST_WHY:
            raise UsageError(f"say why, in up to {LONGEST_WHY} characters")
        if not program.slots:
            raise UsageError("this program reads nothing of anybody's: there is nobody to ask")
        if len(encoded) > MAX_PROGRAM_BYTES or len(program.slots) > MOST_SLOTS:
            raise UsageError(
                f"owners are asked about programs of up to {MAX_PROGRAM_BYTES:,} bytes that read {MOST_SLOTS} secrets:"
                f" this one has {len(encoded):,} bytes, and reads {len(program.slots)}"
            )
        await self._board.reach(self._servers)
        others = shared(self.member.name, {slot: await self._now(slot) for slot in program.slots})
        said = UseRequest(self.member.name, program.digest, program.slots, why, time.time(), others)
        if not said.owners:
            raise UsageError("this program reads nothing of anybody else's: there is nobody to ask")
        if len(said.owners) > MOST_OWNERS:
            raise UsageError(f"up to {MOST_OWNERS} owners are asked about a program: this one has {len(said.owners)}")
        signed = said.signed(self._keys, self.cluster).encode()
        message = AskLeave(request=secrets.token_hex(16))
        await self._board.ask(message, LeaveAsked, self._servers, self._patience, [signed, encoded])
        return program.digest

    async def withdraw(self, program: str) -> None:
        """Do not ask for leave to run the program of that digest any more; what is allowed stays so.

        Raises NoSuchName when there is no such request of ours.
        """
        await self._board.reach(self._servers)
        message = WithdrawRequest(request=secrets.token_hex(16), program=checked_digest(program))
        answers = await self._board.ask(message, RequestWithdrawn, self._servers, self._patience)
        if not any(isinstance(d.message, RequestWithdrawn) and d.message.found for d in answers.values()):
            raise no_such_request(program)

    async def requests(self) -> list[RequestEntry]:
        """What this client has asked and is asked, with what has become of it; the newest first.

        Every server is asked.  What it lacks that another one has, or has otherwise, is in ``missing``.
        """
        return [await self._current(entry) for entry in await self._listed()]

    async def follow(self) -> AsyncIterator[RequestEntry]:
        """All that ``requests`` lists, and from then on each entry anew whenever something has become of it.  For ever.

        Servers say when to look, as soon as others have asked or decided something, or an approval has ended.  Once a
        minute it is looked at whatever they say.  A server that cannot be reached is asked again until it can.
        """
        shown = dict[tuple[str, str], str]()
        while True:
            news = self._board.news
            try:
                entries = await self.requests()
            except PeerError as error:
                log.warning("requests will be looked at again: %s", error)
                await asyncio.sleep(_LONGEST_PAUSE)
                continue
            said = {(entry.client, entry.program): json.dumps(entry.to_dict()) for entry in entries}
            for entry in reversed(entries):
                if said[entry.client, entry.program] != shown.get((entry.client, entry.program)):
                    yield entry
            shown = said
            await _either(news, _LOOK)

    async def approved(self, program: str, timeout: float | None = None) -> bool:  # noqa: ASYNC109 - of what others do
        """Waits until all owners have let this client run the program of that digest; False after ``timeout`` s.

        Raises NotPermitted, with the reason, once one of them has said no; NoSuchName when we have not asked.
        """
        give_up = None if timeout is None else time.monotonic() + timeout
        pause = _FIRST_PAUSE
        while True:
            news = self._board.news
            entry = await self._one(program, self.member.name)
            for owner, standing in entry.standings.items():
                if standing.state is State.DENIED:
                    raise NotPermitted(f"{owner} does not let us run program {program[:8]}: {standing.note}")
            if entry.state is State.APPROVED:
                for slot in entry.slots:
                    await self._now(slot)  # by which rule it may be run
                return True
            left = pause if give_up is None else min(pause, give_up - time.monotonic())
            if left <= 0:
                return False
            await _either(news, left)
            pause = min(2 * pause, _LONGEST_PAUSE)

    async def show(self, what: str | Results | Program, client: str | None = None) -> Explanation:
        """A program in words: one that was asked for, by its digest and, if several ask for it, ``client``; or ours.

        All of it follows from the program, and that from its digest, whatever servers say.  Raises NoSuchName.
        """
        if isinstance(what, str):
            entry = await self._one(what, client)
            program, who = await self._program(entry), entry.client
        else:
            program = what if isinstance(what, Program) else (await self._write(what)).program
            who = client or self.member.name
        found = [await self._now(slot) for slot in program.slots]
        models = {secret.slot for secret in found if isinstance(secret, RemoteModel)}
        joint = {secret.slot for secret in found if secret is not None and secret.joint}
        return await asyncio.to_thread(explained, program, who, models, joint)

    def _written(self, result: Results) -> Written:
        """The program that computes ``result``, or keeps what is in a mapping."""
        return write(result, self._objective)

    async def _write(self, result: Results) -> Written:
        """Likewise, beside the event loop where it takes long."""
        return await beside(lambda: self._written(result), long=takes_long(result))

    # -- what servers have -----------------------------------------------------------------------------------------

    async def _listed(self) -> list[RequestEntry]:
        """What is asked, and decided.  Raises PeerError."""
        await self._board.reach(self._servers)
        message = ListRequests(request=secrets.token_hex(16))
        answers = await self._board.ask(message, RequestList, self._servers, self._patience)
        listed = {}
        for server in self._servers:
            buffers = answers[server].buffers
            if len(buffers) > MOST_LISTED:
                raise ProtocolViolation(server, "lists more requests than there may be")
            try:
                listed[server] = [entry_in(buffer) for buffer in buffers]
            except ProgramError:
                raise ProtocolViolation(server, "lists requests that make no sense") from None
        return collected(listed, self.cluster)

    async def _one(self, program: str, client: str | None = None, owner: str | None = None) -> RequestEntry:
        """The request for a program, by that client and of that owner, if said.  Raises NoSuchName, UsageError."""
        checked_digest(program)
        found = [
            entry
            for entry in await self._listed()
            if entry.program == program
            and client in (None, entry.client)
            and (owner is None or owner in entry.standings)
        ]
        if not found:
            raise no_such_request(program)
        if len(found) > 1:
            who = ", ".join(sorted(entry.client for entry in found))
            raise UsageError(f"{who} ask for program {program[:8]}: say whose request is meant (--client)")
        return found[0]

    async def _program(self, entry: RequestEntry) -> Program:
        """The program that is asked for: of whichever server has one with its digest.  Raises NoSuchName, PeerError."""
        for server in entry.held_by or self._servers:
            message = FetchProgram(request=secrets.token_hex(16), client=entry.client, program=entry.program)
            with contextlib.suppress(ProgramError, NoSuchName):
                answers = await self._board.ask(message, ProgramFound, [server], self._patience)
                buffers = answers[server].buffers
                if len(buffers) != 1 or len(buffers[0]) > MAX_PROGRAM_BYTES:
                    raise ProtocolViolation(server, "sent no program")
                if hashlib.sha256(buffers[0]).hexdigest() == entry.program:
                    program = await asyncio.to_thread(Program.decode, buffers[0])
                    if program.slots == entry.slots:
                        return program
        raise NoSuchName(f"no server has a program {entry.program[:8]} that reads what {entry.client} says it reads")

    # -- what is there now -----------------------------------------------------------------------------------------

    async def _now(self, slot: str) -> RemoteModel | RemoteData | None:
        """What is in use there, for us to know of."""
        with contextlib.suppress(UsageError, NotPermitted):
            return await self._find(slot)
        return None

    async def _current(self, entry: RequestEntry) -> RequestEntry:
        """With what its approvals depend on, and those ended that do not cover what there is now, as far as we see."""
        approved = {owner: s for owner, s in entry.standings.items() if s.versions}
        if not approved:
            return entry
        program = await self._program(entry)
        standings, depends = dict(entry.standings), list[str]()
        for owner, standing in approved.items():
            if self.member.name in (owner, entry.client):
                standings[owner] = await self._still(entry, program, owner, standing)
                for slot in standing.versions:
                    rules = await self._rules_for(slot, entry, owner)
                    if rules and all(rule.limited for rule in rules):
                        depends.append(f"holds for {slot} so often: {'; '.join(rule.limits for rule in rules)}")
            depends += [
                f"holds for {slot}, version {version[:8]} and later ones with the types that the program reads; ends"
                " with other types, another word of its owner's, or its removal"
                for slot, version in standing.versions.items()
            ]
            theirs = entry.said.read_of(owner)
            others = [s for s in entry.slots if s not in theirs and s.partition("/")[0] != entry.client]
            if others:
                depends.append(f"what comes out depends on {', '.join(others)} too, whatever is put there")
        inputs = sum(node.type.size for node in program.nodes if isinstance(node.operation, Input))
        own = [slot for slot in entry.slots if slot.partition("/")[0] == entry.client]
        if inputs or own:
            what = [f"{inputs} numbers"] * bool(inputs) + own
            depends.append(f"what comes out depends on what {entry.client} puts in: {', '.join(what)}")
        return replace(entry, standings=standings, depends=tuple(depends))

    async def _still(self, entry: RequestEntry, program: Program, owner: str, standing: Standing) -> Standing:
        """What an owner has approved, or that it has ended."""
        for slot, version in standing.versions.items():
            secret = await self._now(slot)
            if secret is not None and set(secret.joint) != set(entry.said.joint(slot)):
                return replace(standing, state=State.ENDED, note=f"{slot} belongs to others than before: ask again")
            if secret is None or not await self._rules_for(slot, entry, owner):
                return replace(standing, state=State.ENDED, note=f"{slot} is gone, or not allowed any more")
            if not reads_as_it_is(program, secret):
                note = (
                    f"{slot} has other types now (version {secret.version[:8]}): write the program anew, and ask again"
                )
                return replace(standing, state=State.ENDED, note=note)
            if secret.version != version:
                standing = replace(standing, note=standing.note or f"{slot} is at version {secret.version[:8]} now")
        return standing

    async def _rules_for(self, slot: str, entry: RequestEntry, owner: str) -> list[Rule]:
        """Those of that owner by which the program may be run on what is there, as far as we are told."""
        found = [listed for listed in await self.models() if listed.slot == slot]
        rules = [r for each in found for r in (each.rules if each.owner == owner else each.others.get(owner, ()))]
        return [r for r in rules if r.client in (entry.client, EVERYONE) and r.program in (ANY, entry.program)]


async def _either(news: asyncio.Event, seconds: float) -> None:
    """Whatever comes first; not at once, since a server may say ever again that there is something."""
    pause = min(_FIRST_PAUSE, seconds)
    await asyncio.sleep(pause)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds - pause):
            await news.wait()


def reads_as_it_is(program: Program, secret: RemoteModel | RemoteData) -> bool:
    """Whether ``program`` reads the tensors of that secret with the types that they have."""
    there = {leaf.node.operation.source for leaf in secret.leaves if isinstance(leaf.node.operation, Secret)}
    read = [node.operation for node in program.nodes if isinstance(node.operation, Stored)]
    return all(whole(operation) in there for operation in read if operation.slot == secret.slot)


def checked_digest(program: str) -> str:
    """``program``, if a program can be called that; else UsageError."""
    if not _DIGEST.match(program):
        raise UsageError(f"{program!r} is no digest of a program: `tessera requests` prints them")
    return program


def no_such_request(program: str) -> NoSuchName:
    """The error of who means a request that is not there for it."""
    return NoSuchName(
        f"there is no request for the program {program[:8]} of ours or to us: `tessera requests` lists them"
    )
