"""What `Endpoint.receive` hands out: messages, and what became known about a peer, in one order."""

from __future__ import annotations

from dataclasses import dataclass, field

from mpc.errors import PeerError, PeerLost
from parties.members.cluster import Cluster, Member
from parties.wire.messages import Message


@dataclass(frozen=True, slots=True)
class Delivery:
    """A message from whoever's key it came with; ``buffers`` are its payload frames, not copied."""

    sender: Member
    message: Message
    buffers: list[memoryview] = field(repr=False)


@dataclass(frozen=True, slots=True)
class LinkFault:
    """Something is wrong with what came from the peer; the runs it takes part in must fail with ``error``.

    ``error`` is a `ProtocolViolation` (malformed, out of sequence), an `AuthenticationError` (a message its
    role may not send), a `VersionMismatch`, a `RemoteError` (it refused the link), or a `PeerLost` (a connection
    broke, and messages with it).  The link goes on with
    the peer's next message, so later runs may use it.
    """

    sender: Member
    error: PeerError


@dataclass(frozen=True, slots=True)
class PeerRestarted:
    """Another process has taken up the peer's key: what the former one knew is gone, as are its runs."""

    sender: Member


@dataclass(frozen=True, slots=True)
class PeerDown:
    """A watched peer is silent or gone.  Given once, and again only if it has been heard from since."""

    peer: Member
    error: PeerLost


@dataclass(frozen=True, slots=True)
class ClusterChanged:
    """Another cluster file is in force, under which this endpoint cannot go on: whoever has it begins anew."""

    cluster: Cluster


Event = Delivery | LinkFault | PeerRestarted | PeerDown | ClusterChanged
