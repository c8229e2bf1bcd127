"""A data channel: a TCP connection beside a link, which carries nothing but the large buffers of its messages, sealed.

Nothing on it says what it is.  Which buffers come, how long, and of which message, has been said over CURVE before
(`parties.wire.apart`), and has been checked there; they come in that order, each as frames of `FRAME` bytes and one of
the rest.  So not a byte is read that was not announced by a member, and no memory set aside; whatever does not open at
its place (`parties.wire.data_keys`) ends the channel.

It is read and written by the event loop, a turn at a time.  A message is begun only where there is room for it; until
then it waits at its sender.
"""

from __future__ import annotations

import asyncio
import socket
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from cryptography.exceptions import InvalidTag

from parties.wire.data_keys import SLACK, TAG, Opener, Sealer
from parties.wire.messages import Payload

FRAME = 1 << 18
"""Bytes that a frame carries, at most: read, opened and written while it lies in the cache."""

# Bytes that are sent, or read, before the event loop gets a turn.
_TURN = 2 << 20
# Messages that may wait to be sent: fewer than may wait to be whole at their receiver (`lanes.MOST`).
_MOST = 2048
_PATIENCE = 60.0
# Linux alone has it.
_USER_TIMEOUT: int | None = getattr(socket, "TCP_USER_TIMEOUT", None)


@dataclass(slots=True)
class _Expected:
    """Buffers of one message that are to come."""

    binding: bytes
    lengths: Sequence[int]
    done: Callable[[Payload], None]
    buffers: Payload = field(default_factory=list)
    """Those that are whole."""
    current: memoryview | None = None
    """The one that is coming, with its slack; None where none of its frames has been looked for."""
    filled: int = 0
    """Its bytes that are there."""

    @property
    def missing(self) -> int:
        """Bytes of the current buffer."""
        return self.lengths[len(self.buffers)] - self.filled

    def target(self) -> memoryview:
        """Where its next frame goes."""
        if self.current is None:
            self.current = np.empty(self.lengths[len(self.buffers)] + SLACK, np.uint8).data
        return self.current[self.filled :]

    def took(self, size: int) -> bool:
        """One more frame is there; whether that was the last."""
        self.filled += size
        if not self.missing and self.current is not None:
            self.buffers.append(self.current[:-SLACK])
            self.current, self.filled = None, 0
        return len(self.buffers) == len(self.lengths)


def sealed_bytes(lengths: Sequence[int]) -> int:
    """What buffers of these lengths take on a channel."""
    return sum(length + TAG * -(-length // FRAME) for length in lengths)


class Channel:
    """One end of a data channel; of one event loop.

    Args:
        connection: connected; closed with the channel.
        name: of the channel.
        has_room: whether a message may be begun.
        now: the liveness clock, in s.
        timeout: s after which a message that does not come is not waited for.
        on_lost: the channel has ended, why, and whether it had something to send; called once, and not after ``close``.
    """

    def __init__(
        self,
        connection: socket.socket,
        name: bytes,
        sealer: Sealer,
        opener: Opener,
        *,
        has_room: Callable[[], bool],
        now: Callable[[], float],
        timeout: float,
        on_lost: Callable[[Channel, str, bool], None],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._connection, self._descriptor = connection, connection.fileno()
        self._sealer, self._opener = sealer, opener
        self._has_room, self._now, self._timeout, self._on_lost = has_room, now, timeout, on_lost
        self.name = name
        # What is to be sent: buffers, and what is sealed already.
        self._outgoing: deque[tuple[str, bytes, memoryview]] = deque()
        self._lanes: Counter[str] = Counter()
        self._messages = 0
        self._sealed = memoryview(b"")
        self._seal_into = memoryview(b"")
        # What is to be read: messages, and how much of the next frame is there.
        self._expected: deque[_Expected] = deque()
        self._frame = memoryview(b"")
        self._read_so_far = 0
        self._heard = 0.0
        self._held_up = self._early = False
        self._reading = self._writing = False
        connection.setblocking(False)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        # What nobody confirms, or takes, for so long is not kept for ever; a way may be narrow for a while.
        if _USER_TIMEOUT is not None:
            connection.setsockopt(socket.IPPROTO_TCP, _USER_TIMEOUT, round(1e3 * max(timeout, _PATIENCE)))
        self._look_out()

    # --- what is asked of it

    @property
    def closed(self) -> bool:
        return self._descriptor < 0

    @property
    def descriptor(self) -> int:
        """Of the connection; to be waited for where `expects` or `sends`."""
        return self._descriptor

    @property
    def expects(self) -> bool:
        """Whether something is to be read."""
        return bool(self._expected) and not self._held_up

    @property
    def sends(self) -> bool:
        """Whether something has not been sent yet."""
        return bool(self._sealed or self._outgoing)

    @property
    def full(self) -> bool:
        """Whether so much waits to be sent that its receiver cannot be reading."""
        return self._messages >= _MOST

    def carries(self, lane: str) -> bool:
        """Whether something of that lane waits to be sent."""
        return self._lanes[lane] > 0

    def send(self, lane: str, binding: bytes, buffers: Sequence[bytes | memoryview]) -> None:
        """Queues the buffers of one message, none of them empty; they are not to change any more."""
        self._outgoing.extend((lane, binding, memoryview(buffer)) for buffer in buffers)
        self._lanes[lane] += len(buffers)
        self._messages += 1
        self.write()

    def expect(self, binding: bytes, lengths: Sequence[int], done: Callable[[Payload], None]) -> None:
        """The buffers of a message are on their way, so long; ``done`` takes them."""
        if not self._expected:
            self._heard = self._now()
        self._expected.append(_Expected(binding, lengths, done))
        self.read()

    def prove(self) -> bytes:
        """A frame of nothing, to be sent before anything else: it takes the secret of this direction."""
        out = bytearray(TAG + SLACK)
        size = self._sealer.seal(b"", self.name, memoryview(out))
        return bytes(out[:size])

    def end(self, reason: str) -> None:
        """As ``close``, and tells the owner.  Idempotent."""
        if not self.closed:
            unsent = self.sends
            self.close()
            self._on_lost(self, reason, unsent)

    def close(self) -> None:
        """What is under way is lost.  Idempotent."""
        if self.closed:
            return
        self._watch(reading=False, writing=False)
        self._descriptor = -1
        self._connection.close()
        self._outgoing.clear()
        self._sealed = memoryview(b"")
        self._expected.clear()

    def read(self) -> None:
        """Reads what is there of what is expected, for a turn."""
        budget = _TURN
        while budget > 0 and self._expected and self._may_go_on():
            received = self._receive()
            if not received:
                break
            budget -= received
        self._look_out()

    def write(self) -> None:
        """Sends what can be sent now, for a turn."""
        budget = _TURN
        while budget > 0 and self._has_sealed():
            try:
                sent = self._connection.send(self._sealed)
            except (BlockingIOError, InterruptedError):
                break
            except OSError as error:
                self.end(f"broke ({error.strerror})")
                return
            self._sealed = self._sealed[sent:]
            budget -= sent
        self._look_out()

    def judge(self) -> None:
        """What does not come is given up; to be asked now and then, once all that has come is read."""
        if self.expects and self._now() - self._heard > self._timeout:
            self.end(f"brought nothing for {self._timeout:g} s of what was to come over it")

    # --- inside

    def _has_sealed(self) -> bool:
        if not self._sealed and self._outgoing:
            lane, binding, buffer = self._outgoing.popleft()
            piece, rest = buffer[:FRAME], buffer[FRAME:]
            if rest:
                self._outgoing.appendleft((lane, binding, rest))
            else:
                self._lanes -= Counter((lane,))
                self._messages -= not self._outgoing or self._outgoing[0][1] != binding
            if not self._seal_into:
                self._seal_into = memoryview(bytearray(FRAME + TAG + SLACK))
            self._sealed = self._seal_into[: self._sealer.seal(piece, binding, self._seal_into)]
        return bool(self._sealed)

    def _may_go_on(self) -> bool:
        """Whether the first of what is expected has been begun, or may be."""
        first = self._expected[0]
        begun = bool(first.buffers) or first.current is not None or self._read_so_far > 0
        self._held_up = not begun and not self._has_room()
        if self._held_up:
            self._heard = self._now()
        return not self._held_up

    def _receive(self) -> int:
        """Bytes that were read of the frame that is due, which is opened if it is whole; 0 if there are none now."""
        first = self._expected[0]
        size = min(first.missing, FRAME)
        if not self._frame:
            self._frame = memoryview(bytearray(FRAME + TAG))
        frame = self._frame[: size + TAG]
        try:
            received = self._connection.recv_into(frame[self._read_so_far :])
        except (BlockingIOError, InterruptedError):
            return 0
        except OSError as error:
            self.end(f"broke ({error.strerror})")
            return 0
        if not received:
            self.end("was closed at the other end")
            return 0
        self._heard = self._now()
        self._read_so_far += received
        if self._read_so_far < len(frame):
            return received
        self._read_so_far = 0
        try:
            self._opener.open(frame, first.binding, first.target())
        except InvalidTag:
            self.end("brought what does not belong there: changed on the way, or not of this message")
            return 0
        if first.took(size):
            self._expected.popleft()
            first.done(first.buffers)
        return received

    def _on_readable(self) -> None:
        if self._expected:
            self.read()
            return
        # Nothing is due: somebody is ahead of what is said over CURVE, or has gone.
        try:
            self._early = bool(self._connection.recv(1, socket.MSG_PEEK))
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self._early = False
        if self._early:
            self._look_out()
        else:
            self.end("was closed at the other end")

    def _look_out(self) -> None:
        """Has the event loop call where there is something to do."""
        if self._expected:
            self._early = False
        self._watch(reading=not (self._held_up if self._expected else self._early), writing=self.sends)

    def _watch(self, *, reading: bool, writing: bool) -> None:
        if self.closed:
            return
        if reading != self._reading:
            self._reading = reading
            if reading:
                self._loop.add_reader(self._descriptor, self._on_readable)
            else:
                self._loop.remove_reader(self._descriptor)
        if writing != self._writing:
            self._writing = writing
            if writing:
                self._loop.add_writer(self._descriptor, self.write)
            else:
                self._loop.remove_writer(self._descriptor)
