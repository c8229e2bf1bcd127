"""Deciding what others ask: the part of ``AsyncClient`` with which an owner gives leave, and refuses it."""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping, Sequence

from mpc.errors import NoSuchName, UsageError
from parties.client.asking import Asking, reads_as_it_is
from parties.client.request_entries import RequestEntry
from parties.messages.bindings import slot_of
from parties.messages.requests import LONGEST_WHY, DecideLeave, Decision, LeaveDecided
from parties.messages.rules import Rule


class Deciding(Asking):
    """A client of a cluster, as far as requests of others go."""

    async def approve(
        self,
        program: str,
        *,
        client: str | None = None,
        names: Sequence[str] | None = None,
        why: str = "",
        runs: int | None = None,
        per_day: int | None = None,
    ) -> RequestEntry:
        """Let who asks for the program of that digest run it, on what it reads of ours; or on ``names`` of that alone.

        Look at ``show`` first.  It holds for later versions too, while they have the types that the program reads, and
        for so many ``runs`` in all, or ``per_day``, as ``allow`` counts them: the entry's ``depends`` says so.  What
        its client may do otherwise is not touched.

        Raises NoSuchName, and UsageError, also when ours has other types now, which no approval covers.
        """
        _check(why)
        if any(limit is not None and limit < 1 for limit in (runs, per_day)):
            raise UsageError("a limit is at least one run")
        entry = await self._one(program, client, self.member.name)
        own = self._own(entry)
        for name in names or ():
            if name not in own:
                raise UsageError(f"the program reads no {name!r} of ours: it reads {', '.join(own)}")
        code = await self._program(entry)
        found = {name: await self._now(own[name]) for name in (own if names is None else names)}
        versions = {}
        for name, secret in found.items():
            if secret is None:
                raise NoSuchName(f"nothing is stored under {name!r}: upload it first")
            versions[secret.slot] = secret.version
            if not reads_as_it_is(code, secret):
                raise UsageError(f"{name!r} has other types than this program reads: it could not be run")
        for name in found:
            made = self._slots.made(own[name]) if "/" in name else None
            await self._own_rules.add(name, Rule(entry.client, program, 1, runs, per_day, made=made))
        return await self._decide(entry, approved=True, why=why, versions=versions)

    async def deny(self, program: str, *, client: str | None = None, why: str) -> RequestEntry:
        """Say no to who asks for the program of that digest, and why; what we had approved of it is taken back."""
        if not why:
            raise UsageError("say why: who asks is told")
        _check(why)
        entry = await self._one(program, client, self.member.name)
        own = self._own(entry)
        for name in own:
            await self._own_rules.take_back(name, entry.client, program)
        return await self._decide(entry, approved=False, why=why, versions={})

    def _own(self, entry: RequestEntry) -> dict[str, str]:
        """The slots that the program reads and we have a say about, by what we call them, as `allow` does."""
        own = slot_of(self.member.name, "")
        return {slot.removeprefix(own): slot for slot in entry.said.read_of(self.member.name)}

    async def _decide(
        self, entry: RequestEntry, *, approved: bool, why: str, versions: Mapping[str, str]
    ) -> RequestEntry:
        said = Decision(
            owner=self.member.name,
            client=entry.client,
            program=entry.program,
            asked=entry.said.when,
            approved=approved,
            when=time.time(),
            why=why,
            versions=dict(versions),
        )
        signed = said.signed(self._keys, self.cluster).encode()
        message = DecideLeave(request=secrets.token_hex(16))
        await self._board.ask(message, LeaveDecided, self._servers, self._patience, [signed])
        return await self._current(await self._one(entry.program, entry.client))


def _check(why: str) -> None:
    if len(why) > LONGEST_WHY:
        raise UsageError(f"say why in up to {LONGEST_WHY} characters")
