"""Who may connect: the ZeroMQ Authentication Protocol (RFC 27), answered from the event loop.

libzmq asks over ``inproc://zeromq.zap.01`` about every incoming CURVE handshake.  Without an answerer, or
with a socket that sets no ZAP domain, a CURVE server accepts *any* key; the inbox therefore sets the domain
and ZAP_ENFORCE_DOMAIN, and this object is created, one per context, before the inbox is bound.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection

import zmq
from zmq.utils import z85

from mpc.errors import printable
from parties.wire.refusals import RefusalLog

log = logging.getLogger(__name__)

DOMAIN = b"tessera"
_ENDPOINT = "inproc://zeromq.zap.01"
_VERSION = b"1.0"
_ADDRESS = 64
"""Characters of an address that are logged."""


class Gatekeeper:
    """Lets in the CURVE keys it is given and nobody else; the key becomes the connection's ``User-Id``.

    Args:
        context: the context whose sockets ask; at most one gatekeeper each.
        keys: allowed public keys, Z85.
    """

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], keys: Collection[str]) -> None:
        self.keys = frozenset(keys)
        """Whom it lets in from now on."""
        self.out: set[str] = set()
        """Those of them that it lets in later."""
        self._refusals = RefusalLog(log)
        self._loop = asyncio.get_running_loop()
        self._socket = context.socket(zmq.REP)
        self._socket.linger = 0
        self._socket.bind(_ENDPOINT)
        self._descriptor = self._socket.fileno()
        self._loop.add_reader(self._descriptor, self._answer_all)

    def close(self) -> None:
        """Stops answering; handshakes from now on fail.  Idempotent."""
        if not self._socket.closed:
            self._loop.remove_reader(self._descriptor)
            self._socket.close()
            self._refusals.close()

    def _answer_all(self) -> None:
        # The descriptor is edge-triggered: what is left unread now would not wake us again.
        while not self._socket.closed and int(self._socket.getsockopt(zmq.EVENTS)) & zmq.POLLIN:
            try:
                request = self._socket.recv_multipart(zmq.NOBLOCK)
                self._socket.send_multipart(self.judge(request), zmq.NOBLOCK)
            except zmq.ZMQError as error:
                log.error("authentication request lost: %s", error)
                return

    def judge(self, request: list[bytes]) -> list[bytes]:
        """The reply to a ZAP request: 200 with the key as user id, 300 or 400.  Never raises."""
        if len(request) < 2:
            return [_VERSION, b"", b"400", b"malformed request", b"", b""]
        request_id = request[1]
        key = self._key_of(request)
        if key in self.out:
            # "A temporary failure": libzmq lets the time for the handshake run out, and the other side tries again.
            return [_VERSION, request_id, b"300", b"not now", b"", b""]
        if key in self.keys:
            return [_VERSION, request_id, b"200", b"OK", key.encode("ascii"), b""]
        address = printable(request[3][:_ADDRESS].decode("ascii", "replace")) if len(request) > 3 else "?"
        self._refusals.note("refused a connection from %s: key %s is not in the cluster file", address, key or "?")
        return [_VERSION, request_id, b"400", b"key not in the cluster file", b"", b""]

    @staticmethod
    def _key_of(request: list[bytes]) -> str:
        """The key that a well-formed CURVE request for our domain asks about, else ""."""
        if len(request) != 7:
            return ""
        version, _, domain, _, _, mechanism, credential = request
        if (version, domain, mechanism) != (_VERSION, DOMAIN, b"CURVE") or len(credential) != 32:
            return ""
        return z85.encode(credential).decode("ascii")
