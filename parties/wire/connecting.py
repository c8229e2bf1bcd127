"""Waiting for a peer to answer our greeting, and finding out why it does not."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from time import monotonic

from mpc.errors import AuthenticationError, PeerError, PeerUnavailable
from parties.members.cluster import Member
from parties.wire.links import Link
from parties.wire.wires import Trouble, Way

_LOOK = 0.05


async def await_greeting(
    me: Member,
    find: Callable[[], tuple[Link, Way | None] | PeerError],
    deadline: float,
    denied_for_good: Callable[[], bool],
) -> PeerError | None:
    """Waits up to ``deadline`` s for a link to be established; the reason if it is not.

    ``find``: the link, which may be another one meanwhile, and the way to its peer; or why not to wait.  A refusal
    ends the wait at once, if it was given in answer to an attempt made since; that our key is not let in does when
    it is ``denied_for_good``.
    """
    started = monotonic()
    while True:
        found = find()
        if isinstance(found, PeerError):
            return found
        link, outbox = found
        left = started + deadline - monotonic()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, min(_LOOK, left))):
                await link.established.wait()
            return None
        if link.refusal is not None:
            return link.refusal
        denied = outbox is not None and outbox.trouble is Trouble.DENIED and outbox.troubled_at >= started
        if left <= 0 or (denied and denied_for_good()):
            return _diagnosis(me, link, outbox, deadline)


def _diagnosis(me: Member, link: Link, outbox: Way | None, deadline: float) -> PeerError:
    name, where = link.peer.name, f"tcp://{link.peer.address}"
    if link.behind is not None:
        return link.behind
    if outbox is None:
        return PeerUnavailable(name, f"has not connected to us within {deadline:g} s: is it running?")
    if outbox.trouble is Trouble.DENIED:
        return AuthenticationError(
            name,
            f"does not let us in at {where}: the cluster file it runs with lacks the key of {me.name}, "
            f"{me.key}; give every process the same file, the newest",
        )
    if outbox.trouble is Trouble.HANDSHAKE:
        return AuthenticationError(
            name,
            f"what answers at {where} does not hold the key that the cluster file lists for it: "
            "correct the key or the address",
        )
    if outbox.trouble is Trouble.SILENT:
        return PeerUnavailable(name, f"takes connections at {where} but does not answer: is it frozen, or overloaded?")
    if outbox.up:
        back = f", and can it reach us at tcp://{me.address}" if me.is_server else ""
        return PeerUnavailable(name, f"connected at {where} but silent for {deadline:g} s: is it frozen{back}?")
    return PeerUnavailable(name, f"no answer at {where} within {deadline:g} s: is it running, is the address right?")
