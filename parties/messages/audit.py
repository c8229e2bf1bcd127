"""The messages of audit logs: servers keep where each other's logs stand.

    server --AuditHead--> servers    what it has signed last of its own log, and what the receiver had
    client --AskAudit--> server      what do you say of my runs and my secrets, from there on?
    server --AuditShown--> client    so many entries, and from where on there may be more

So an operator that truncates or rewrites its own server's log has every other server's against it
(`parties.operate.audit.compare`); and a server whose folder was put back as of an earlier day learns it.
"""

from __future__ import annotations

from typing import Annotated, ClassVar

import msgspec

from parties.members.cluster import Member, Role
from parties.members.keys import KeyPair
from parties.messages.conversation import RequestMessage
from parties.messages.fields import FROM_CLIENT, Digest
from parties.wire.messages import SERVERS, Message

LogId = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{16}\Z")]
Number = Annotated[int, msgspec.Meta(ge=0, lt=1 << 53)]
"""Of an entry; the first one's is 1."""
Milliseconds = Annotated[int, msgspec.Meta(ge=0, lt=253_402_300_800_000)]
"""Since 1970, by the clock of who says it, and before the year 10000."""
Signature = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{128}\Z")]

_PURPOSE = "audit head"


class SignedHead(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A server's word, at ``when``, that entry ``number`` of its log ``log`` is the last one, and has this hash."""

    log: LogId
    number: Number
    hash: Digest
    when: Milliseconds
    signature: Signature

    @classmethod
    def of(cls, log: str, number: int, digest: str, when: int, keys: KeyPair) -> SignedHead:
        """Signed with these keys."""
        signature = keys.sign(_PURPOSE, *_parts(log, number, digest, when))
        return cls(log, number, digest, when, signature.hex())

    def signed_by(self, member: Member) -> bool:
        """Whether that member has signed it."""
        signature = bytes.fromhex(self.signature)
        return member.signed(signature, _PURPOSE, *_parts(self.log, self.number, self.hash, self.when))


def _parts(log: str, number: int, digest: str, when: int) -> tuple[bytes, ...]:
    return log.encode(), str(number).encode(), digest.encode(), str(when).encode()


class AuditHead(Message, frozen=True):
    """``head`` is the sender's; ``yours`` what the receiver has signed last, as far as the sender knows."""

    senders: ClassVar[frozenset[Role]] = SERVERS
    head: SignedHead
    yours: SignedHead | None = None


class Place(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """In a log: byte ``at`` of its ``file``-th file."""

    file: Annotated[int, msgspec.Meta(ge=0, lt=10**8)] = 0
    at: Number = 0


class AskAudit(RequestMessage, frozen=True):
    """What is there from ``place`` on, and not older than ``since``, about the client and its secrets?"""

    senders: ClassVar[frozenset[Role]] = FROM_CLIENT
    since: Milliseconds = 0
    place: Place = Place()


class AuditShown(RequestMessage, frozen=True):
    """Payload: the entries' lines, joined.  ``more``: where to ask on, unless that was the end."""

    senders: ClassVar[frozenset[Role]] = SERVERS
    more: Place | None = None
