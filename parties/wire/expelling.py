"""An endpoint's part in showing somebody out: who sends more than it may, and who has another's place.

To refuse a message is no work, but to read one takes some 40 us, in which nobody else's is read, and a flood takes a
processor.  So a client's connections are cut when it goes on asking that is not answered any more, or sends too much
that comes to nothing, and its key is not let in again for a while: at the door a try costs a handshake.  It is told why
first.  What belongs to its runs and uploads has bounds of its own, and does not count.

Servers are never shown out: others' runs would end with them.
"""

from __future__ import annotations

import logging
from abc import abstractmethod

from parties.wire.buckets import Bucket
from parties.wire.following import Following
from parties.wire.links import Link
from parties.wire.messages import Envelope, Refused, encode

log = logging.getLogger(__name__)

VAIN_AT_ONCE, VAIN_PER_SECOND = 1000, 500
"""Messages of a client that are refused, or belong to nothing but its link: at once, and each second for ever."""

OUT = 5.0
"""s in which the key of who was shown out is not let in; who tries meanwhile may have to wait for the end of the time
that a handshake has (`sockets.HANDSHAKE_SECONDS`) before it can try again."""


class Expelling(Following):
    """An `Endpoint`, as far as it shows members out."""

    _incarnation: bytes

    @abstractmethod
    def _link(self, name: str) -> Link: ...

    def show_out(self, client: str, reason: str) -> None:
        """Cuts a client's connections, once it has been told ``reason``, and lets nobody in with its key for a while.

        What it has sent and nobody has read is lost.  While it is out already, nothing happens.
        """
        link = self._link(client)
        if self._running and self._wires.show_out(link, OUT):
            self._transmit(link, Refused(f"{reason}: its connection is closed for some {OUT:g} s"))

    def in_vain(self, peer: str) -> None:
        """A message of that peer has come to nothing."""
        self._in_vain(self._link(peer))

    def _in_vain(self, link: Link) -> None:
        """Likewise; or it is the link's own."""
        if not self.me.is_server or link.peer.is_server:
            return
        if link.vain is None:
            link.vain = Bucket(VAIN_AT_ONCE, VAIN_PER_SECOND)
        if not link.vain.take():
            name = link.peer.name
            self.show_out(name, f"{name} sends more than {VAIN_PER_SECOND} messages a second that come to nothing")

    def _turn_away(self, link: Link, incarnation: bytes, route: bytes | None) -> None:
        """Tells a process that another one has taken its place, if there is a way back to it."""
        log.warning("%s: two processes run with its key; the one that greeted last counts", link.peer.name)
        if route is None or link.peer.is_server:
            return
        notice = Refused(f"another process has connected with the key of {link.peer.name}: this one is cut off")
        frames = encode(notice, (), Envelope(self._incarnation, link.replaced[incarnation]))
        link.replaced[incarnation] += 1
        self._wires.answer(link, route, frames)
