"""Long work rests between its steps while others are at it.

Threads take turns at one interpreter, and at what processors there are, and a large program is as much of a thread as a
small one: a member whose programs have thousands of nodes would delay each message and each round of the others' runs,
few turns though it has (`parties.servers.scheduling`).  So a thread that is at a long piece of work, or works for a
member that has had much of late, and more than another one, rests after each step (`mpc.pace`), and when it is done, as
long as somebody else has something going on.  One thread rests at a time: all of them together get about a tenth of a
processor, however many there are and whoever they work for.

Who is alone never rests, nor does a prediction, which takes a few milliseconds.  Steps are of nodes: work on large
arrays, which leaves the interpreter to others, has few, and goes on at half its speed at least.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from mpc.errors import TesseraError
from mpc.pace import pausing

STEP = 5e-4
"""s of work, at least, between two rests."""
REST, LONGEST_REST = 8, 1e-2
"""As many times the step before it, and s at most."""

LONG = 0.05
"""s that a piece of work is expected to take, or has taken, with which it is long."""

MUCH, FORGOTTEN = 0.25, 1.0
"""s of processor time that a member may have had of late, and in which all but a third of that is forgotten."""

ACTIVE = 0.25
"""s that a member counts as being at it after the last that was heard or done of it."""


@dataclass
class _Account:
    had: float = 0.0
    """s of processor time, of late."""
    at: float = 0.0
    """When that was so."""
    active: float = -math.inf
    """When anything was last heard or done of the member."""

    def had_by(self, now: float) -> float:
        """What is not forgotten yet."""
        return self.had * math.exp((self.at - now) / FORGOTTEN)

    def charge(self, seconds: float) -> None:
        """So much more."""
        now = time.monotonic()
        self.had, self.at, self.active = self.had_by(now) + seconds, now, now


def nobody_waits() -> TesseraError:
    """For what is given up."""
    return TesseraError("nobody waits for this any more")


class Pace:
    """Of all threads of one server."""

    def __init__(self) -> None:
        self._accounts: dict[str, _Account] = {}
        self._resting = threading.Lock()

    def heard(self, member: str) -> None:
        """There is a message of that member, or about a run of it."""
        self._account(member).active = time.monotonic()

    @contextmanager
    def working(self, member: str, seconds: float, unwanted: Callable[[], bool]) -> Iterator[None]:
        """What a thread does within it, it does for that member, expected to take so long.

        Raises TesseraError once it is ``unwanted``.
        """
        account, before = self._account(member), time.thread_time()
        started, long = before, seconds >= LONG

        def check() -> None:
            if unwanted():
                raise nobody_waits()

        def charge() -> float:
            nonlocal before
            now = time.thread_time()
            before, spent = now, now - before
            account.charge(spent)
            return spent

        def pause() -> None:
            check()
            if time.thread_time() - before < STEP:
                return
            rest(long=long or time.thread_time() - started >= LONG)

        def rest(*, long: bool) -> None:
            spent = charge()
            if self._gives_way(account, long=long):
                with self._resting:
                    time.sleep(min(REST * spent, LONGEST_REST))

        check()
        try:
            with pausing(pause):
                yield
        finally:
            # Many short pieces are as much as a long one.
            rest(long=False)

    def alone(self, member: str, servers: Collection[str]) -> bool:
        """Whether nobody else is at it but servers, who speak of that member's work."""
        own = {member, *servers}
        return not any(name not in own and self._active(account) for name, account in list(self._accounts.items()))

    def charge(self, member: str, seconds: float) -> None:
        """What was done for that member elsewhere."""
        self._account(member).charge(seconds)

    def _account(self, member: str) -> _Account:
        return self._accounts.setdefault(member, _Account())

    def _gives_way(self, account: _Account, *, long: bool) -> bool:
        """Whether a thread that is at work for this account, on something long perhaps, is to rest."""
        others = [one for one in list(self._accounts.values()) if one is not account and self._active(one)]
        if long:
            return bool(others)
        now = time.monotonic()
        had = account.had_by(now)
        return had >= MUCH and any(other.had_by(now) < had for other in others)

    @staticmethod
    def _active(account: _Account) -> bool:
        return time.monotonic() - account.active < ACTIVE
