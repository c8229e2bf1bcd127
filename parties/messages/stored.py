"""The messages about stored secrets: what there is under a name, which there are, who may use them, and removal.

client --FindSecret--> parties; each --FoundSecret--> client
client --ListSecrets--> parties; each --SecretList--> client
client --AllowUse--> dealer and parties; each --UseAllowed--> client
client --RemoveSecret--> dealer, then parties; each --SecretRemoved--> client
anyone --RequestFailed--> client           it may not be allowed, or removed
"""

from __future__ import annotations

from typing import Annotated, ClassVar

import msgspec

from parties.cluster import Role
from parties.messages.bindings import Rule
from parties.messages.conversation import RequestMessage
from parties.messages.fields import FROM_CLIENT, FROM_PARTY, Count, Id, Name
from parties.messages.uploads import MAX_SECRETS
from parties.wire.messages import SERVERS


class FindSecret(RequestMessage, frozen=True):
    """Which version is called ``name``?"""

    senders: ClassVar[frozenset[Role]] = FROM_CLIENT
    name: Name


class FoundSecret(RequestMessage, frozen=True):
    """Payload: the model's description; an empty ``version`` says that there is none, and ``names`` what there is.

    ``allowed``: the rules by which the client may use it, beside what it may as its owner.
    """

    senders: ClassVar[frozenset[Role]] = FROM_PARTY
    version: str
    owner: str
    names: tuple[str, ...]
    allowed: frozenset[Rule] = frozenset()


class AllowUse(RequestMessage, frozen=True):
    """``client`` (``*``: everyone) may run ``programs``, and no others, on what is called ``name``, the sender's."""

    senders: ClassVar[frozenset[Role]] = FROM_CLIENT
    name: Name
    client: Annotated[str, msgspec.Meta(pattern=r"^(\*|[A-Za-z0-9][A-Za-z0-9_.-]{0,63})\Z")]
    programs: Annotated[tuple[Rule, ...], msgspec.Meta(max_length=1000)]


class UseAllowed(RequestMessage, frozen=True):
    """Done, durably."""

    senders: ClassVar[frozenset[Role]] = SERVERS


class ListSecrets(RequestMessage, frozen=True):
    """Which models are there?"""

    senders: ClassVar[frozenset[Role]] = FROM_CLIENT


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


class SecretList(RequestMessage, frozen=True):
    """Payload: of each model its tensors' names and shapes, a MessagePack array of ``TensorInfo``."""

    senders: ClassVar[frozenset[Role]] = FROM_PARTY
    secrets: Annotated[tuple[SecretInfo, ...], msgspec.Meta(max_length=MAX_SECRETS)]


class RemoveSecret(RequestMessage, frozen=True):
    """Remove what is called ``name``, which is the sender's."""

    senders: ClassVar[frozenset[Role]] = FROM_CLIENT
    name: Name


class SecretRemoved(RequestMessage, frozen=True):
    """Done, durably; ``found`` says whether there was one."""

    senders: ClassVar[frozenset[Role]] = SERVERS
    found: bool
