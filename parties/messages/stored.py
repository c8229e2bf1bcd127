"""The messages about stored secrets beside the upload itself: going over to a version together, listing, removing.

The end of an upload (`parties.stored.version_database` says why it cannot end differently here and there):

            party  --VersionPrepared--> dealer        all of it is there, durably, and not in use yet
            dealer --VersionCommit--> parties         all parties have it, and it is what the name stands for
            dealer --VersionDropped--> party          or it has come to nothing, or is gone
            party  --VersionsHeld--> dealer           which versions and stock it has; answered with the above

Afterwards: client --ListSecrets--> parties, party --SecretList--> client
            client --RemoveSecret--> dealer, then parties; each --SecretRemoved--> client
            client --AllowUse--> dealer and parties; each --UseAllowed--> client
"""

from __future__ import annotations

from typing import Annotated, ClassVar

import msgspec

from parties.cluster import Role
from parties.messages.runs import FROM_CLIENT, FROM_DEALER, FROM_PARTY, Count, Digest, Id, Name, VersionMessage
from parties.wire.messages import SERVERS, Message

MAX_SECRETS = 1000
"""That a party keeps; beyond it an upload under a new name is refused."""
MAX_PROGRAMS = 10_000
"""In one message: what a party has stock of."""

Ids = Annotated[tuple[Id, ...], msgspec.Meta(max_length=4 * MAX_SECRETS)]


class VersionPrepared(VersionMessage, frozen=True):
    """The party has all of the upload, durably; what was under the name stays in use until it is told to commit."""

    senders: ClassVar[frozenset[Role]] = FROM_PARTY


class VersionCommit(VersionMessage, frozen=True):
    """The version is what its name stands for, at everyone, from now on."""

    senders: ClassVar[frozenset[Role]] = FROM_DEALER


class VersionsHeld(Message, frozen=True):
    """What a party has: versions in use (``held``), ``prepared`` ones, ``uploads`` begun, and programs in fresh stock.

    Sent when it or the dealer has been started, and again while a prepared one is not decided.  The dealer answers with
    what the party has missed: ``VersionCommit``, ``VersionDropped``, ``StockDropped``.
    """

    senders: ClassVar[frozenset[Role]] = FROM_PARTY
    held: Ids
    prepared: Ids
    programs: Annotated[tuple[Digest, ...], msgspec.Meta(max_length=MAX_PROGRAMS)]
    uploads: Ids = ()


Rule = Annotated[str, msgspec.Meta(pattern=r"^(predict|any|[0-9a-f]{64})\Z")]
"""`parties.stored.policy.is_rule`."""


class AllowUse(VersionMessage, frozen=True):
    """``client`` (``*``: everyone) may run ``programs``, and no others, on what is called ``name``, the sender's.

    ``version`` names this request, no version.
    """

    senders: ClassVar[frozenset[Role]] = FROM_CLIENT
    name: Name
    client: Annotated[str, msgspec.Meta(pattern=r"^(\*|[A-Za-z0-9][A-Za-z0-9_.-]{0,63})\Z")]
    programs: Annotated[tuple[Rule, ...], msgspec.Meta(max_length=1000)]


class UseAllowed(VersionMessage, frozen=True):
    """Done, durably.  ``version`` as in ``AllowUse``."""

    senders: ClassVar[frozenset[Role]] = SERVERS


class ListSecrets(Message, frozen=True):
    """Which models are there?"""

    senders: ClassVar[frozenset[Role]] = FROM_CLIENT
    query: Id


class SecretInfo(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A model in use at the sender: ``when`` it came, in seconds since 1970, and its bytes on the disk there.

    ``allowed``: programs by client; to its owner all there are, to others what concerns them.
    """

    name: Name
    owner: Name
    version: Id
    when: Annotated[float, msgspec.Meta(ge=0, le=1e11)]
    stored_bytes: Count
    allowed: dict[str, frozenset[Rule]] = {}


class SecretList(Message, frozen=True):
    """Payload: of each model its tensors' names and shapes, a MessagePack array of ``TensorInfo``."""

    senders: ClassVar[frozenset[Role]] = FROM_PARTY
    query: Id
    models: Annotated[tuple[SecretInfo, ...], msgspec.Meta(max_length=MAX_SECRETS)]


class RemoveSecret(VersionMessage, frozen=True):
    """Remove what is called ``name``, which is the sender's.  ``version`` names this request, no version."""

    senders: ClassVar[frozenset[Role]] = FROM_CLIENT
    name: Name


class SecretRemoved(VersionMessage, frozen=True):
    """Done, durably; ``found`` says whether there was one.  ``version`` as in ``RemoveSecret``."""

    senders: ClassVar[frozenset[Role]] = SERVERS
    found: bool
