"""What clients ask owners to let them run, as a server keeps it: in its data folder, for `LIFETIME`, and not too much.

A client has at most `MOST_OF_A_CLIENT` requests, of `MOST_BYTES_OF_A_CLIENT` in all, and an owner is asked about at
most `MOST_OF_AN_OWNER` that it has not decided.  Who asks again about a program replaces what it has asked before, and
what was decided about that.  A request goes when it expires, when its client withdraws it, and when its signature is
nobody's any more, since the client has another key.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import msgspec
from msgspec.structs import replace

from mpc.decoders import msgpack_decoder
from mpc.errors import NoSuchName, ProgramError, ServerBusy
from parties.members.cluster import Cluster, Member
from parties.messages.requests import CLOCKS, LIFETIME, Decision, Entry, Signed, UseRequest, is_named_in, read_entry
from parties.stored.version_database import VersionDatabase

MOST_OF_A_CLIENT = 16
MOST_BYTES_OF_A_CLIENT = 4 << 20
"""Of the programs of a client's requests."""
MOST_OF_AN_OWNER = 256


class _Row(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Of a request, as it is sealed beside its program."""

    request: Signed
    bytes: int
    """Of its program."""
    touched: float
    """When it was made or decided, by our clock, in seconds since 1970."""
    decisions: dict[str, Signed] = {}
    """By owner."""

    @property
    def entry(self) -> Entry:
        return Entry(self.request, tuple(self.decisions.values()))


@dataclass(frozen=True)
class _Held:
    row: _Row
    request: UseRequest
    decisions: Mapping[str, Decision]
    key: str
    """Of who has signed the request."""


class RequestBook:
    """All requests at one server, which goes by ``cluster()``.  Methods that say so block, on the disk."""

    def __init__(self, server: str, vault: VersionDatabase, cluster: Callable[[], Cluster]) -> None:
        self._server = server
        self._cluster = cluster
        self._vault = vault
        self._held: dict[tuple[str, str], _Held] = {}
        self._writing = threading.Lock()
        for client, program, sealed in vault.requests():
            row: _Row = msgpack_decoder(_Row).decode(sealed)
            try:
                request, decisions = read_entry(row.entry, cluster())
            except ProgramError:
                vault.drop_request(client, program)
                continue
            self._held[client, program] = _Held(row, request, decisions, self._key(client))

    def seen_by(self, client: Member) -> list[Entry]:
        """What that client asks and is asked."""
        return [held.row.entry for held in self._alive().values() if is_named_in(client, held.request)]

    def program(self, client: str, program: str, reader: Member) -> bytes:
        """The encoded program of a request.  Blocks.

        Raises NoSuchName if there is none that the reader has made or is asked, VaultError.
        """
        held = self._alive().get((client, program))
        if held is None or not is_named_in(reader, held.request):
            raise no_request(client, program)
        return self._vault.request_program(client, program)

    def check_room(self, request: UseRequest, size: int) -> None:
        """Raises ServerBusy when the client, or one of the owners, has as many as they may; ProgramError."""
        if abs(request.when - time.time()) > CLOCKS:
            raise ProgramError("this request is not of today: compare this host's clock with the servers'")
        others = [held for key, held in self._alive().items() if key != (request.client, request.program)]
        own = [held for held in others if held.request.client == request.client]
        if len(own) >= MOST_OF_A_CLIENT or sum(h.row.bytes for h in own) + size > MOST_BYTES_OF_A_CLIENT:
            raise ServerBusy(
                self._server,
                f"{request.client} has {len(own)} requests, and may have {MOST_OF_A_CLIENT}, of"
                f" {MOST_BYTES_OF_A_CLIENT} bytes in all: withdraw one (tessera request --withdraw DIGEST)",
            )
        for owner in request.owners:
            if sum(owner in h.request.owners and owner not in h.decisions for h in others) >= MOST_OF_AN_OWNER:
                raise ServerBusy(self._server, f"{owner} is asked about {MOST_OF_AN_OWNER} programs already")

    def ask(self, signed: Signed, request: UseRequest, program: bytes) -> None:
        """Keep a request, in place of an earlier one for the same program.  Blocks.

        Raises as ``check_room``, VaultError, and ProgramError for one that is not newer than what is here.
        """
        with self._writing:
            self._forget_old()
            self.check_room(request, len(program))
            key = request.client, request.program
            former = self._alive().get(key)
            if former is not None and former.request.when >= request.when:
                raise ProgramError("this request is not newer than one that is here")
            row = _Row(signed, len(program), time.time())
            self._vault.write_request(*key, msgspec.msgpack.encode(row), program)
            self._held[key] = _Held(row, request, {}, self._key(request.client))

    def decide(self, signed: Signed, decision: Decision) -> UseRequest:
        """Keep what an owner has decided, in place of what it has decided before; about which request.  Blocks.

        Raises NoSuchName when there is no such request, ProgramError for a decision older than one that is here.
        """
        with self._writing:
            key = decision.client, decision.program
            held = self._alive().get(key)
            if held is None or not decision.answers(held.request):
                raise no_request(*key)
            former = held.decisions.get(decision.owner)
            if former is not None and former.when > decision.when:
                raise ProgramError("this decision is older than one that is here")
            row = replace(held.row, decisions={**held.row.decisions, decision.owner: signed}, touched=time.time())
            self._vault.write_request(*key, msgspec.msgpack.encode(row))
            self._held[key] = _Held(row, held.request, {**held.decisions, decision.owner: decision}, held.key)
            return held.request

    def withdraw(self, client: str, program: str) -> UseRequest | None:
        """Forget a request, which is returned if there was one.  Blocks.  Raises VaultError."""
        with self._writing:
            self._vault.drop_request(client, program)
            held = self._held.pop((client, program), None)
            return None if held is None else held.request

    def approved(self) -> Iterator[tuple[UseRequest, Sequence[str]]]:
        """All that some owner has said yes to, and which slots that is about."""
        for held in self._alive().values():
            slots = [slot for decision in held.decisions.values() if decision.approved for slot in decision.versions]
            if slots:
                yield held.request, slots

    def _key(self, client: str) -> str:
        """Of that client now; empty if there is none."""
        member = self._cluster().client(client)
        return "" if member is None else member.key

    def _alive(self) -> dict[tuple[str, str], _Held]:
        """Those that have not expired, of clients that are there with the key that they have signed with."""
        before, keys = time.time() - LIFETIME, {member.name: member.key for member in self._cluster().clients}
        found = list(self._held.items())
        return {key: held for key, held in found if held.row.touched >= before and keys.get(key[0]) == held.key}

    def _forget_old(self) -> None:
        """Blocks."""
        alive = self._alive()
        for key in list(self._held):
            if key not in alive:
                self._vault.drop_request(*key)
                del self._held[key]


def no_request(client: str, program: str) -> NoSuchName:
    """The error of who asks about a request that is not there, or not theirs to see."""
    return NoSuchName(f"there is no request of {client} for the program {program[:8]}: `tessera requests` lists them")
