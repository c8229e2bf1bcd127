"""The messages of ``tessera check``: what a server sees of its own links and data folder, and what a link carries.

    client --LookAround--> server    how are your links and your data folder?
    server --Looked--> client        by peer: round trip, or what is wrong; clock; data folder
    client --Measure--> server       how much does your link to that peer carry?
    server --Measured--> client
    anyone --Probe--> server         bytes there, and bytes back: how a link is measured
    server --Probed--> anyone
    server --CheckRefused--> anyone  not now: another check is in progress, or too much has been asked for

What a member can cause by asking is bounded by `parties.operate.check.desk`.
"""

from __future__ import annotations

import enum
import math
from typing import Annotated, ClassVar

import msgspec

from parties.members.cluster import Role
from parties.messages.conversation import RequestMessage
from parties.messages.failures import Fault
from parties.messages.fields import FROM_CLIENT, Count, Name, Seconds, Text
from parties.wire.messages import SERVERS

MAX_PROBE_BYTES = 4 << 20
"""Most payload of one probe, each way."""

MAX_PATIENCE = 30.0
"""s that a server waits for its peers at most, whatever the client asks for."""


class Reach(enum.StrEnum):
    """What an attempt to connect to a server's port came to."""

    OPEN = "open"
    """Something accepts connections."""
    REFUSED = "refused"
    """The host answers, and nothing listens at the port, or a firewall rejects."""
    SILENT = "no answer"
    """Nothing comes back at all: packets are dropped, or there is no such host."""
    UNRESOLVED = "name not resolved"
    UNREACHABLE = "unreachable"
    """The network says that there is no way there."""


class LinkSeen(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The sender's link to ``peer``: its round trip in s, or the fault; ``reach`` says how far TCP gets."""

    peer: Name
    reach: Reach
    round_trip: Seconds | None = None
    fault: Fault | None = None

    def __post_init__(self) -> None:
        _finite(self.round_trip)
        if (self.round_trip is None) == (self.fault is None):
            raise ValueError("either a round trip or a fault")


class FolderSeen(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The sender's data folder: bytes free and in all on its disk; ``problem`` is empty when it can be written."""

    free: Count
    total: Count
    problem: Text = ""


class Quota(enum.StrEnum):
    """What is counted of an owner's at a server."""

    NAMES = "names"
    SAID = "bytes that are said of secrets"
    RULES = "rules"
    UPLOADS = "uploads that are not complete"
    AUDIT = "bytes of the audit log for a day"


class QuotaSeen(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How many the asker has, and may have."""

    what: Quota
    used: Count
    most: Count


class RoomSeen(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the sender may have of the asker's: quotas, and elements of a run's program.

    ``held``: bytes on its disk, beside which uploads have room; None at who stores none.
    """

    quotas: Annotated[tuple[QuotaSeen, ...], msgspec.Meta(max_length=16)]
    elements: Count
    held: Count | None = None


class CheckMessage(RequestMessage, frozen=True):
    """Base of what belongs to one question of ``tessera check`` or ``tessera status``."""


class LookAround(CheckMessage, frozen=True):
    """Look at your links, for ``patience`` s at most, and at your data folder."""

    senders: ClassVar[frozenset[Role]] = FROM_CLIENT
    patience: Annotated[float, msgspec.Meta(gt=0, le=MAX_PATIENCE)]


class Looked(CheckMessage, frozen=True):
    """What there is to see.  ``clock``: s since 1970 when this was sent."""

    senders: ClassVar[frozenset[Role]] = SERVERS
    clock: Seconds
    folder: FolderSeen
    room: RoomSeen
    links: Annotated[tuple[LinkSeen, ...], msgspec.Meta(max_length=1024)]

    def __post_init__(self) -> None:
        _finite(self.clock)


class Measure(CheckMessage, frozen=True):
    """Measure what your link to ``peer``, a server, carries."""

    senders: ClassVar[frozenset[Role]] = FROM_CLIENT
    peer: Name


class Measured(CheckMessage, frozen=True):
    """Bytes per second from the sender to the peer, or the fault."""

    senders: ClassVar[frozenset[Role]] = SERVERS
    rate: Annotated[float, msgspec.Meta(gt=0)] | None = None
    fault: Fault | None = None

    def __post_init__(self) -> None:
        _finite(self.rate)
        if (self.rate is None) == (self.fault is None):
            raise ValueError("either a rate or a fault")


class Probe(CheckMessage, frozen=True):
    """Answer this at once, with ``reply`` bytes of payload.  Payload: any, up to `MAX_PROBE_BYTES`."""

    reply: Annotated[int, msgspec.Meta(ge=0, le=MAX_PROBE_BYTES)] = 0


class Probed(CheckMessage, frozen=True):
    """It has arrived.  Payload: as many bytes as were asked for."""

    senders: ClassVar[frozenset[Role]] = SERVERS


class CheckRefused(CheckMessage, frozen=True):
    """Not now; worth another try after ``wait`` s."""

    senders: ClassVar[frozenset[Role]] = SERVERS
    wait: Annotated[float, msgspec.Meta(ge=0, le=60)]
    reason: Text


def _finite(value: float | None) -> None:
    if value is not None and not math.isfinite(value):
        raise ValueError("a figure that is not finite")
