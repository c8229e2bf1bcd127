"""A server's part in audit logs: what happens is put down, in a thread, after it has happened.

``record`` costs nothing that a run would feel: it puts a fact into a queue.  Whatever has come meanwhile is signed,
written and flushed at once, `PAUSE` s later at most, or when somebody asks what the log says.  While that fails,
``check`` refuses whatever would be begun: what is not logged does not happen.

What members cause is bounded: one entry for what was admitted, which is theirs to pay for (`charge`); of what was
refused the first, and then one for all alike in `TICK` s, or when they can pay for that again.  So is what other
servers cause: a head in `HEAD_PAUSE` s.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Iterable
from types import TracebackType
from typing import Self

from mpc.errors import DiskFull, ProtocolViolation, ServerBusy, TesseraError
from parties.host.counters import OK, RELEASED
from parties.members.cluster import Member
from parties.members.keys import KeyPair
from parties.messages.audit import AuditHead, SignedHead
from parties.messages.check import Quota, QuotaSeen
from parties.operate.audit.entry import Head
from parties.operate.audit.facts import Fact, PeerHead, Refused
from parties.operate.audit.log import AuditFailed, AuditLog, Happened, now
from parties.operate.audit.quota import size_of
from parties.operate.site import Site
from parties.stored.vault import VaultError
from parties.wire.messages import Payload

log = logging.getLogger(__name__)

PAUSE = 0.2
"""s between two flushes."""

AGAIN = 1.0
"""s until what could not be written is tried again."""

TICK = 60.0
"""s between two heads told to the other servers, if there is news; and between two entries of the same refusal."""

FIRST_TICK = 5.0
"""s after the start: a server whose folder is an old copy should learn it soon."""

HEAD_PAUSE = 5.0

MOST_PENDING = 10_000
"""Facts that wait for the disk; beyond it nothing new is begun."""


def _classes(kind: type[TesseraError]) -> frozenset[str]:
    """Names of that class and of all below it."""
    return frozenset({kind.__name__}).union(*map(_classes, kind.__subclasses__()))


_OURS = set[str]()
"""Of those that are known to be: whatever floods a server with what is refused has one class named again and again."""


def _is_ours(error: str) -> bool:
    """Whether it is a class of errors."""
    if error not in _OURS:
        _OURS.update(_classes(TesseraError))
    return error in _OURS


class AuditDesk:
    """Registers its handler at ``server`` when it is made; the log is open within ``async with``."""

    def __init__(self, server: Site, keys: KeyPair, folder: str | os.PathLike[str]) -> None:
        self._server, self._keys, self._folder = server, keys, folder
        self._log: AuditLog | None = None
        self._pending: deque[Happened] = deque()
        self._news = asyncio.Event()
        self._writing = threading.Lock()
        self._problem = ""
        self._refusals: dict[tuple[str, str, str], tuple[int, int]] = {}
        self._peers: dict[str, SignedHead] = {}
        self._conflicts: dict[str, SignedHead] = {}
        self._heard: dict[str, float] = {}
        self._owed: set[str] = set()
        """Servers that do not know where our log stands."""
        server.on(AuditHead, self._on_head)

    async def __aenter__(self) -> Self:
        self._log = AuditLog(self._folder, self._keys, self._server.member, self._server.cluster)
        self._peers = dict(self._log.peers)
        self._owe()
        self._server.spawn(self._work())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        # Here and not in a thread: whoever ends us may do so once more, and would find the log open.
        self._sum_up(at_last=True)
        self._write()
        if self._log is not None:
            try:
                self._log.close()
            except (AuditFailed, VaultError) as failure:
                log.error("the end of the audit log is lost: %s", failure)

    # -- what others tell it ---------------------------------------------------------------------------------------

    def record(self, fact: Fact) -> None:
        """It has happened, now.  From the server's own thread."""
        self._pending.append(Happened(now(), fact))
        self._news.set()
        if not isinstance(fact, PeerHead):
            self._owe()

    def refused(self, sender: str, request: str, error: str) -> None:
        """``sender`` has not got what it asked for, for an error of that class."""
        key = self.member(sender), request, self.outcome(error)
        if key in self._refusals:
            count, since = self._refusals[key]
            self._refusals[key] = count + 1, since or now()
        else:
            self._refusals[key] = 1, now()
            self._put_down(key)

    def _put_down(self, key: tuple[str, str, str], *, at_last: bool = False) -> None:
        """What was refused since the last time, if its sender can pay for that."""
        fact = Refused(*key, *self._refusals[key])
        if at_last or self._log is None or self._log.quotas.affords(fact.client, size_of([fact])):
            self._refusals[key] = 0, 0
            self.record(fact)

    @staticmethod
    def outcome(error: str) -> str:
        """How something ended, whoever says so: a class of errors, if it is one of ours."""
        return error if error in (OK, RELEASED) or _is_ours(error) else "RemoteError"

    def quota_seen(self, member: str) -> QuotaSeen:
        """What that member has used up of its quota, and beyond what its runs are refused."""
        used, most = (0, 1) if self._log is None else self._log.quotas.standing(member)
        return QuotaSeen(Quota.AUDIT, used, most)

    def charge(self, member: str, size: int, *, takes_back: bool = False) -> None:
        """So many bytes are going to be put down of what ``member`` does.  Raises ServerBusy."""
        if self._log is not None:
            self._log.quotas.charge(member, size, takes_back=takes_back)

    def member(self, name: str) -> str:
        """That name, if a member has it."""
        return name if any(name == member.name for member in self._server.cluster.members) else ""

    def flush(self) -> None:
        """What has happened is on the disk, unless it cannot be written.  Blocks: from a worker thread."""
        if self._pending:
            self._write()

    def check(self) -> None:
        """Raises DiskFull while nothing can be written, ServerBusy while that does not keep up."""
        name, only = self._server.member.name, "what is not logged does not happen"
        if self._problem:
            raise DiskFull(name, f"its audit log cannot be written, and {only}: make room on its disk, or see to it")
        if len(self._pending) > MOST_PENDING:
            raise ServerBusy(name, f"its audit log does not keep up, and {only}: try again later")

    # -- the log -----------------------------------------------------------------------------------------------------

    async def _work(self) -> None:
        """For ever."""
        tick = time.monotonic() + FIRST_TICK
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(asyncio.get_running_loop().time() + tick - time.monotonic()):
                    await self._news.wait()
            self._news.clear()
            due, owed = time.monotonic() >= tick, self._owed
            if due:
                self._sum_up()
                # What comes while this is written is news to be told next time.
                self._owed = set()
            await asyncio.to_thread(self._write)
            if due:
                tick = time.monotonic() + TICK
                await asyncio.to_thread(self._prune)
                self._owed |= owed - self._tell_head(owed)
            if self._problem:
                self._news.set()
            await asyncio.sleep(AGAIN if self._problem else PAUSE)

    def _write(self) -> None:
        """All that is pending.  Blocks."""
        with self._writing:
            if self._log is None:
                return
            batch = list(self._pending)
            try:
                if batch:
                    self._log.append(batch)
                for _ in batch:
                    self._pending.popleft()
                if batch or self._problem:
                    self._log.anchor(self._peers)
            except (AuditFailed, VaultError) as error:
                if not self._problem:
                    log.error("nothing new is begun: %s", error)
                self._problem = str(error)
                return
            if self._problem:
                log.warning("the audit log is written again")
            self._problem = ""

    def _prune(self) -> None:
        with self._writing, contextlib.suppress(AuditFailed, VaultError, OSError):
            if self._log is not None:
                self._log.prune(self._server.cluster.settings.audit_days)

    def _sum_up(self, *, at_last: bool = False) -> None:
        """Refusals since the last time, one entry for all alike."""
        for key, (count, _) in list(self._refusals.items()):
            if count:
                self._put_down(key, at_last=at_last)
            else:
                del self._refusals[key]

    # -- with the other servers --------------------------------------------------------------------------------------

    def _owe(self) -> None:
        self._owed = {server.name for server in self._server.cluster.servers if server != self._server.member}

    def _tell_head(self, peers: Iterable[str]) -> set[str]:
        """To those of them that can be reached, which are returned."""
        reached = {name for name in peers if self._server.endpoint.connected(name)}
        if self._log is None or not reached:
            return set()
        head = SignedHead.of(*self._log.head, now(), self._keys)
        for name in reached:
            self._server.tell([name], AuditHead(head=head, yours=self._peers.get(name)))
        return reached

    def _on_head(self, sender: Member, message: AuditHead, _: Payload) -> None:
        self._learn(sender, message.yours)
        if time.monotonic() - self._heard.get(sender.name, float("-inf")) < HEAD_PAUSE:
            return
        self._heard[sender.name] = time.monotonic()
        if not message.head.signed_by(sender):
            raise ProtocolViolation(sender.name, "sent a head of its audit log that it has not signed")
        self._keep(sender.name, message.head)

    def _learn(self, sender: Member, ours: SignedHead | None) -> None:
        """Of what we have signed, and do not have: then our data folder is an old copy."""
        if self._log is None or ours is None or ours.log != self._log.head.log or ours.number <= self._log.head.number:
            return
        if not ours.signed_by(self._server.member):
            raise ProtocolViolation(sender.name, "sent a head of our audit log that we have not signed")
        log.error("the audit log stands at entry %d, and stood at %d", self._log.head.number, ours.number)
        self._server.spawn(asyncio.to_thread(self._go_on_behind, Head(ours.log, ours.number, ours.hash)))

    def _keep(self, peer: str, head: SignedHead) -> None:
        former, conflict = self._peers.get(peer), ""
        if former is not None and former.log != head.log:
            conflict = f"its former log, {former.log}, stood at entry {former.number}"
        elif former is not None and head.number < former.number:
            conflict = f"it had {former.number} entries"
        elif former is not None and head.number == former.number:
            if head.hash == former.hash:
                return
            conflict = "this entry had another hash"
        if conflict and head == self._conflicts.get(peer):
            return
        if conflict:
            self._conflicts[peer] = head
            log.error("the audit log of %s is not what it was: %s", peer, conflict)
            # Its folder may be an old copy, and it does not know.
            self._tell_head([peer])
        if former is None or former.log != head.log or head.number > former.number:
            self._peers[peer] = head
        self.record(PeerHead(peer, head, conflict))

    def _go_on_behind(self, head: Head) -> None:
        with self._writing:
            if self._log is not None:
                self._log.go_on_behind(head)
