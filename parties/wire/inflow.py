"""What has come over a connection since the last whole message: nothing else bounds it.

A ZeroMQ message has as many frames as its sender likes; the limit that a socket has (ZMQ_MAXMSGSIZE) is on each frame,
high-water marks count whole messages, and libzmq keeps the frames of one until the last is there
(zmq_msg_send(3): "the total number of message parts is unlimited except by available memory").  So whoever is let in
could fill this process's memory with a message that never ends.  The kernel counts what comes over a connection
(``struct tcp_info``), messages come in order, and so what has come since the last whole one is of one message.
"""

from __future__ import annotations

import ctypes
import fcntl
import socket
import struct
import termios

# Linux alone tells.
_TCP_INFO: int | None = getattr(socket, "TCP_INFO", None)
# Of ``struct tcp_info`` (linux/tcp.h): where tcpi_bytes_received is.
_BYTES_RECEIVED = 128
_TCP_INFO_BYTES = 136
_LIBC = ctypes.CDLL(None, use_errno=True)

_UNCOUNTED = 8 << 20
"""Bytes beside a message's payload: its header, what frames and encryption add, and what came while we looked."""


class Inflow:
    """Of one TCP connection of ZeroMQ's, by its descriptor."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._heard = True
        self._since = 0

    def heard(self) -> None:
        """A whole message of it has been read."""
        self._heard = True

    def endless(self, limit: int) -> bool:
        """Whether more has come than a message of ``limit`` bytes of payload takes, and no end of it.

        All whole messages have been read.  To be asked ten times a second: what comes between two looks in the first of
        which a message was read may be of it, or not, and counts for nothing.
        """
        came = taken(self._descriptor)
        if self._heard:
            self._heard, self._since = False, came
        return came - self._since > limit + limit // 64 + _UNCOUNTED

    def cut(self) -> None:
        """The connection ends."""
        shut(self._descriptor)


def received(descriptor: int) -> int:
    """Bytes that came over a TCP connection; 0 where the kernel does not say, or it has ended."""
    if _TCP_INFO is None:
        return 0
    info, size = ctypes.create_string_buffer(_TCP_INFO_BYTES), ctypes.c_uint(_TCP_INFO_BYTES)
    failed = _LIBC.getsockopt(descriptor, socket.IPPROTO_TCP, _TCP_INFO, info, ctypes.byref(size))
    if failed or size.value < _TCP_INFO_BYTES:
        return 0
    return int(struct.unpack_from("=Q", info, _BYTES_RECEIVED)[0])


def taken(descriptor: int) -> int:
    """Those of them that the kernel does not have any more."""
    try:
        (waiting,) = struct.unpack("i", fcntl.ioctl(descriptor, termios.FIONREAD, bytes(4)))
    except OSError:
        return 0
    return received(descriptor) - int(waiting)


def shut(descriptor: int) -> None:
    """Has libzmq find that the connection is over; closing the descriptor is its own business."""
    # Not through a socket object, which would need a descriptor of its own: there may be none left.
    _LIBC.shutdown(descriptor, socket.SHUT_RDWR)
