"""The seam between an `Endpoint` and what carries its frames: sockets, or the memory of one process.

It lies below the endpoint, not around it, so that greetings, numbers, sizes, senders' roles and liveness are the same
code over every transport, and a test without sockets tests them too.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from mpc.errors import PeerError
from parties.members.cluster import Cluster, Member
from parties.members.keys import KeyPair
from parties.wire.links import Link
from parties.wire.messages import ChannelOffered, ChannelWanted, Message

EAGER_WAIT = 1
"""ms that a message is waited for, at most, without giving the event loop a turn."""


class Trouble(enum.Enum):
    """What the last attempt to connect came to."""

    UNREACHABLE = enum.auto()  # nobody there
    SILENT = enum.auto()  # somebody, who does not say a word
    HANDSHAKE = enum.auto()  # somebody, but not with the key the cluster file lists
    DENIED = enum.auto()  # the peer does not let our key in


class Way(Protocol):
    """The connection to one server: whether it stands, and if not, why not, and since when (monotonic, s)."""

    @property
    def up(self) -> bool: ...
    @property
    def trouble(self) -> Trouble | None: ...
    @property
    def troubled_at(self) -> float: ...


class Wires(Protocol):
    """All connections of one process."""

    @property
    def outboxes(self) -> Mapping[str, Way]:
        """To each server, by name, while open."""

    async def open(self) -> None:
        """Listens (servers) and begins to connect.  ConfigurationError leaves nothing open."""

    async def close(self) -> None:
        """Drops all connections and what is still queued.  Idempotent."""

    def go_on(self, cluster: Cluster, dropped: Sequence[Link]) -> None:
        """The cluster file is another now, and the links are: those are cut, and those to new servers made."""

    def show_out(self, link: Link, seconds: float) -> bool:
        """In a moment the client's connections are cut, and for so long there are no others; False if so already.

        What comes from it meanwhile is not handled; what is sent to it at once still goes.
        """

    def send(self, link: Link, frames: list[bytes | memoryview], *, copy: bool) -> bool:
        """Queues a message; False if there is no connection, or no room in its queue."""

    def answer(self, link: Link, route: bytes, frames: list[bytes | memoryview], *, copy: bool = True) -> bool:
        """Queues a message to a client by its route; False as in `send`."""

    def arrange(self, link: Link, message: ChannelWanted | ChannelOffered | None) -> None:
        """The peer has said that about a data channel; or None: greetings agree now, and there may be one."""

    def catch_up(self) -> None:
        """Handles all that has arrived and happened so far, without waiting for the event loop."""

    def read(self) -> None:
        """Handles all messages that have arrived, as far as the owner has room."""

    def read_one(self, *, wait: bool) -> bool:
        """Handles one message, if there is one; False if not.  To ``wait`` is to block for it, the event loop too, for
        up to `EAGER_WAIT` ms.

        It may hide from the event loop that there are more: call `read` before leaving the wires to it.
        """


@dataclass(frozen=True)
class Owner:
    """Whom the wires tell what happens, and whom they ask."""

    incarnation: bytes
    """Of this process."""
    now: Callable[[], float]
    """The liveness clock, in s."""
    transmit: Callable[[Link, Message], bool]
    """Sends a message of the link's own; False if it cannot go now."""
    on_channel_lost: Callable[[Link, str, bool, bool], None]
    """A data channel has ended, and why; whether messages came over it, and whether some have not been sent."""
    on_up: Callable[[Link], None]
    """A connection to a server stands, authenticated both ways; nothing has been sent over it yet."""
    on_down: Callable[[Link], None]
    """The connection to a server, or the route to a client, is gone."""
    on_departure: Callable[[], None]
    """Some connection of a member to the inbox broke; which one, only an attempt to send shows."""
    on_message: Callable[[Link, Sequence[memoryview], bytes | None], None]
    """Frames came from the holder of the peer's key; with a route, if they came through the inbox."""
    on_fault: Callable[[Link, PeerError], None]
    """The peer has not kept to what these wires carry."""
    has_room: Callable[[], bool]
    """Whether more may be read."""


class Transport(Protocol):
    """Makes the wires of one process.

    Args:
        me: this process; a server listens, a client does not.
        links: by peer name; those to servers get an outbox.
    """

    def __call__(
        self, cluster: Cluster, me: Member, keys: KeyPair, links: Mapping[str, Link], owner: Owner
    ) -> Wires: ...
