"""The messages of ``tessera status``: what a server holds and does, as far as the client who asks may know.

    client --AskStatus--> server
    server --ServerStatus--> client
    server --CheckRefused--> client  asked again before the last question was answered, or too soon after it

What a member can cause by asking is bounded by `parties.operate.status.desk`.
"""

from __future__ import annotations

from typing import Annotated, ClassVar

import msgspec

from parties.members.cluster import Role
from parties.messages.check import CheckMessage
from parties.messages.fields import FROM_CLIENT, Count, Id, Name
from parties.messages.uploads import MAX_SECRETS
from parties.wire.messages import SERVERS

PREFIX = 12
"""Hexadecimal digits of a bound program's digest that tell it from others (``messages.bindings``)."""

MAX_PROGRAMS = 100
"""In one answer; those of which there is most."""

Version = Annotated[str, msgspec.Meta(max_length=64)]
Program = Annotated[str, msgspec.Meta(pattern=rf"^[0-9a-f]{{{PREFIX}}}\Z")]
Finite = Annotated[float, msgspec.Meta(ge=0, le=1e11)]
"""Seconds."""


class SecretSeen(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A model in use at the sender, and its version."""

    name: Name
    owner: Name
    version: Id


class PeerSeen(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The sender's link to another server; the round trip in s is the last one measured, None where none was."""

    peer: Name
    connected: bool
    round_trip: Finite | None = None


class WorkersSeen(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Of the sender, if it computes on workers: how many there are to be, and the runs of each that is there."""

    wanted: Count
    runs: Annotated[dict[Annotated[str, msgspec.Meta(max_length=64)], Count], msgspec.Meta(max_length=4096)]


class AskStatus(CheckMessage, frozen=True):
    """How are you?"""

    senders: ClassVar[frozenset[Role]] = FROM_CLIENT


class ServerStatus(CheckMessage, frozen=True):
    """How the sender is; ``uptime`` in s.

    ``secrets``: those that the client may know of.  ``stock``: items of preprocessing that are fresh here, by the first
    digits of their bound program; None when the disk did not answer.  ``own_runs`` are in progress for the client, and
    ``other_runs`` for all others together.
    """

    senders: ClassVar[frozenset[Role]] = SERVERS
    version: Version
    uptime: Finite
    secrets: Annotated[tuple[SecretSeen, ...], msgspec.Meta(max_length=MAX_SECRETS)]
    stock: Annotated[dict[Program, Count], msgspec.Meta(max_length=MAX_PROGRAMS)] | None
    own_runs: Count
    other_runs: Count
    peers: Annotated[tuple[PeerSeen, ...], msgspec.Meta(max_length=1024)]
    workers: WorkersSeen | None = None
