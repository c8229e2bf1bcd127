"""Requests for leave as a client sees them: what all servers have said together, every word of it signed."""

from __future__ import annotations

import contextlib
import enum
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from mpc.errors import NotPermitted, ProgramError, printable
from parties.client.remote_data import RemoteData
from parties.client.remote_model import RemoteModel
from parties.members.cluster import Cluster
from parties.messages.requests import CLOCKS, LIFETIME, Decision, Entry, Shared, UseRequest, read_entry
from parties.stored.joint import is_gone, without_leave


class State(enum.StrEnum):
    """Of a request, or of it at one owner."""

    ASKED = "asked"
    """Nothing was decided, or not by all, or not everywhere."""
    APPROVED = "approved"
    DENIED = "denied"
    ENDED = "ended"
    """It was approved, and that does not cover what there is now."""


@dataclass(frozen=True)
class Standing:
    """What became of a request at one owner."""

    state: State
    note: str = ""
    """Why it was denied, or has ended; or what was said with the approval."""
    when: datetime | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    """Of the owner's secrets that were approved, by slot: those that were in use then."""


@dataclass(frozen=True)
class RequestEntry:
    """A request for leave to run a program."""

    said: UseRequest
    standings: Mapping[str, Standing]
    """By owner."""
    held_by: tuple[str, ...]
    """Servers that show just this."""
    missing: tuple[str, ...]
    """Servers that do not: they were not reached, or keep it from us."""
    depends: tuple[str, ...] = ()
    """What its approvals depend on, and when they end, in words."""

    @property
    def program(self) -> str:
        """Its digest."""
        return self.said.program

    @property
    def client(self) -> str:
        """Who asks."""
        return self.said.client

    @property
    def why(self) -> str:
        """In its words, fit for a terminal."""
        return printable(self.said.why)

    @property
    def when(self) -> datetime:
        """By the clock of who asks."""
        return datetime.fromtimestamp(self.said.when, UTC)

    @property
    def slots(self) -> tuple[str, ...]:
        """All that the program reads, as ``owner/name``."""
        return self.said.slots

    @property
    def state(self) -> State:
        """Of all owners together: the first of denied, ended and asked that one of them is, or else approved."""
        states = {standing.state for standing in self.standings.values()}
        return next((s for s in (State.DENIED, State.ENDED, State.ASKED) if s in states), State.APPROVED)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "program": self.program,
            "client": self.client,
            "why": self.why,
            "when": self.when.isoformat(timespec="seconds"),
            "reads": list(self.slots),
            "state": self.state.value,
            "owners": {
                owner: {
                    "state": standing.state.value,
                    "note": standing.note,
                    "when": None if standing.when is None else standing.when.isoformat(timespec="seconds"),
                    "versions": dict(standing.versions),
                }
                for owner, standing in self.standings.items()
            },
            "depends": list(self.depends),
            "held_by": list(self.held_by),
            "missing": list(self.missing),
        }


def shared(client: str, found: Mapping[str, RemoteModel | RemoteData | None]) -> tuple[Shared, ...]:
    """What of that belongs to several.  Raises NotPermitted where one of them is no client any more."""
    for slot, secret in found.items():
        for owner in filter(is_gone, () if secret is None else secret.joint):
            raise NotPermitted(without_leave(client, slot, owner))
    return tuple(Shared(slot, secret.joint) for slot, secret in found.items() if secret is not None and secret.joint)


def collected(listed: Mapping[str, Iterable[Entry]], cluster: Cluster) -> list[RequestEntry]:
    """Of what each server lists, all that is signed; the newest first.

    Of two requests for one program by one client the newer one counts, and of two decisions of one owner; approved is
    what every server shows as approved, denied what any does.
    """
    found: dict[tuple[str, str], dict[str, tuple[UseRequest, Mapping[str, Decision]]]] = {}
    for server, entries in listed.items():
        for entry in entries:
            with contextlib.suppress(ProgramError):
                request, decisions = read_entry(entry, cluster)
                last = max(request.when, *(decision.when for decision in decisions.values()), 0.0)
                if not -CLOCKS <= time.time() - last <= LIFETIME + CLOCKS:
                    continue  # a server that shows what has expired could do so for ever
                found.setdefault((request.client, request.program), {})[server] = request, decisions
    merged = [_merged(at, list(listed)) for at in found.values()]
    return sorted(merged, key=lambda entry: (-entry.said.when, entry.program))


def _merged(at: Mapping[str, tuple[UseRequest, Mapping[str, Decision]]], servers: Sequence[str]) -> RequestEntry:
    newest = max((request for request, _ in at.values()), key=lambda request: request.when)
    decided = {server: decisions for server, (request, decisions) in at.items() if request == newest}
    standings, latest = {}, dict[str, Decision]()
    for owner in newest.owners:
        all_of_them = [decisions[owner] for decisions in decided.values() if owner in decisions]
        if all_of_them:
            latest[owner] = max(all_of_them, key=lambda decision: decision.when)
        everywhere = len(all_of_them) == len(servers) and all(decision == latest[owner] for decision in all_of_them)
        standings[owner] = _standing(newest, owner, latest.get(owner), everywhere=everywhere)
    same = tuple(s for s in servers if s in decided and {**latest, **decided[s]} == latest == dict(decided[s]))
    return RequestEntry(newest, standings, same, tuple(server for server in servers if server not in same))


def _standing(request: UseRequest, owner: str, decision: Decision | None, *, everywhere: bool) -> Standing:
    if decision is None:
        return Standing(State.ASKED)
    note, when = printable(decision.why), datetime.fromtimestamp(decision.when, UTC)
    if not decision.approved:
        return Standing(State.DENIED, note, when)
    rest = [slot for slot in request.read_of(owner) if slot not in decision.versions]
    if rest:
        note = f"approved, but not for {', '.join(rest)}"
    elif not everywhere:
        note = "approved, but not every server shows it"
    state = State.ASKED if rest or not everywhere else State.APPROVED
    return Standing(state, note, when, decision.versions)
