"""How many bytes of a server's audit log each member may cause: a day's quota, that comes back evenly over a day.

Charged before anything is begun that will be put down: who has no room left is refused, alone, and nothing of it has
happened.  So nothing that has happened is left out, however many runs somebody makes and gives up; and nothing is
deleted for its size, since whoever has many runs could push out that way what it did before.  A quarter of a quota is
kept for taking back: rules, removals and denials are put down when runs are not any more.

What a member has used is written with the anchor of the log: it outlasts the server's process.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import msgspec

from mpc.errors import ServerBusy
from parties.messages.bindings import Bindings
from parties.operate.audit.facts import Fact

MIB = 1 << 20
DAY = 86_400_000
"""ms."""
KEPT = 4
"""One part of so many is kept for taking back."""

ENTRY = 1024
"""Bytes of an entry beside its lists, at most: names, digests and the signature are no longer."""
_BINDING = 64
"""Of a binding beside its words."""
_WORD = 4
"""Around a word."""
_HEAD = 512
"""Of an entry beside what has happened."""

_encoder = msgspec.json.Encoder()


def size_of(facts: Iterable[Fact]) -> int:
    """Bytes that their entries take, at most."""
    return sum(_HEAD + len(_encoder.encode(fact)) for fact in facts)


def size_of_run(bindings: Bindings, keep: str) -> int:
    """Likewise, of a run's entry, however it ends; and of what it keeps."""
    used = sum(_BINDING + sum(len(word) + _WORD for word in b.words) for b in bindings)
    return used + (2 * ENTRY if keep else ENTRY)


class Used(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Bytes of a quota that were used up, at a moment in ms since 1970."""

    bytes: float
    when: int


class Quotas:
    """Of one server's log.

    Args:
        server: its name.
        quota: MiB a day for each member, as they are now.
        clock: ms since 1970.
    """

    def __init__(self, server: str, quota: Callable[[], int], clock: Callable[[], int]) -> None:
        self._server, self._quota, self._clock = server, quota, clock
        self._used: dict[str, Used] = {}

    def restore(self, used: Mapping[str, Used]) -> None:
        """What had been used when the server was stopped."""
        self._used = dict(used)

    @property
    def used(self) -> Mapping[str, Used]:
        """By member, of those that have not got all back."""
        return {name: used for name in list(self._used) if (used := self._now(name)).bytes}

    def standing(self, member: str) -> tuple[int, int]:
        """Bytes that it has used, and those beyond which only what takes back is put down."""
        return int(self._now(member).bytes), self._beginning

    @property
    def _beginning(self) -> int:
        """Bytes of a quota that are for what begins something."""
        most = self._quota() * MIB
        return most - most // KEPT

    def charge(self, member: str, size: int, *, takes_back: bool = False) -> None:
        """So many bytes will be put down of what ``member`` does; ``takes_back``: whatever it is ends something.

        Raises ServerBusy.
        """
        if not self._take(member, size, self._quota() * MIB if takes_back else self._beginning):
            raise ServerBusy(
                self._server,
                f"{member} has filled its part of the audit log here, {self._quota()} MiB a day, and what is not logged"
                " does not happen: try again later, use larger batches, or raise audit_mb in the cluster file",
            )

    def affords(self, member: str, size: int) -> bool:
        """Whether what has been refused to ``member`` is put down now; if so it is charged."""
        return self._take(member, size, self._quota() * MIB)

    def _take(self, member: str, size: int, most: int) -> bool:
        used = self._now(member)
        if used.bytes + size > most:
            return False
        self._used[member] = Used(used.bytes + size, used.when)
        return True

    def _now(self, member: str) -> Used:
        former, when = self._used.get(member), self._clock()
        if former is None:
            return Used(0, when)
        back = max(0, when - former.when) * self._quota() * MIB / DAY
        return Used(max(0.0, former.bytes - back), when)
