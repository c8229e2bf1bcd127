"""The messages about stored secrets: what there is under a name, which there are, and removal.

Each owner has names of its own: what others call so, and whether there is any, nobody learns but who may use it.

client --FindSecret--> parties; each --FoundSecret--> client
client --ListSecrets--> parties; each --SecretList--> client
client --RemoveSecret--> dealer, then parties; each --SecretRemoved--> client
anyone --RequestFailed--> client           it may not be allowed, or removed
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar

import msgspec

from parties.members.cluster import Role
from parties.messages.bindings import Slot
from parties.messages.conversation import WRITTEN, RequestMessage
from parties.messages.fields import FROM_CLIENT, FROM_PARTY, Count, Digest, Id, Name
from parties.messages.rules import Rule, Who
from parties.messages.uploads import MAX_SECRETS, TensorInfo
from parties.wire.messages import SERVERS


class FindSecret(RequestMessage, frozen=True):
    """What is called ``name``, of ``owner``, or of anybody if that is empty?"""

    senders: ClassVar[frozenset[Role]] = FROM_CLIENT
    name: Name
    owner: Annotated[str, msgspec.Meta(pattern=r"^([A-Za-z0-9][A-Za-z0-9_.-]{0,63})?\Z")] = ""


class SecretFound(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A model in use at the sender; ``parts`` of data have been drawn for it, and a program has ``made`` it."""

    owner: Name
    version: Id
    parts: Count
    made: Annotated[str, msgspec.Meta(pattern=r"^([0-9a-f]{64})?\Z")] = ""


class FoundDetails(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Its description; and the rules by which the client may use it, beside what it may as its owner, by identity.

    ``others``: likewise of each to whom it belongs beside its owner, by name.
    """

    description: bytes
    allowed: Mapping[Digest, Rule]
    others: Mapping[str, Mapping[Digest, Rule]] = {}


class FoundSecret(RequestMessage, frozen=True):
    """Of what the client may know of: what is called so, and where all there is lies.

    ``left``: what was shared among other servers than there are now, so that nobody can use it.

    Payload: of each that was found, ``FoundDetails`` in MessagePack.
    """

    senders: ClassVar[frozenset[Role]] = FROM_PARTY
    found: Annotated[tuple[SecretFound, ...], msgspec.Meta(max_length=MAX_SECRETS)]
    there: Annotated[tuple[Slot, ...], msgspec.Meta(max_length=MAX_SECRETS)]
    left: Annotated[tuple[Slot, ...], msgspec.Meta(max_length=MAX_SECRETS)] = ()


class ListSecrets(RequestMessage, frozen=True):
    """Which models are there?"""

    senders: ClassVar[frozenset[Role]] = FROM_CLIENT


class SecretInfo(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A model in use at the sender: ``when`` it came, in seconds since 1970, and its bytes on the disk there."""

    name: Name
    owner: Name
    version: Id
    when: Annotated[float, msgspec.Meta(ge=0, le=1e11)]
    stored_bytes: Count


class SecretDetails(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Its tensors; and rules by client and identity: to all whose it is all there are, to others what concerns them.

    ``others``: likewise of each to whom it belongs beside its owner, by name.
    """

    tensors: tuple[TensorInfo, ...]
    allowed: Mapping[Who, Mapping[Digest, Rule]]
    others: Mapping[str, Mapping[Who, Mapping[Digest, Rule]]] = {}


class SecretList(RequestMessage, frozen=True):
    """Payload: of each model, ``SecretDetails`` in MessagePack; ``left`` as in ``FoundSecret``."""

    senders: ClassVar[frozenset[Role]] = FROM_PARTY
    secrets: Annotated[tuple[SecretInfo, ...], msgspec.Meta(max_length=MAX_SECRETS)]
    left: Annotated[tuple[Slot, ...], msgspec.Meta(max_length=MAX_SECRETS)] = ()


class RemoveSecret(RequestMessage, frozen=True):
    """Remove what is called ``name``, which is the sender's."""

    senders: ClassVar[frozenset[Role]] = FROM_CLIENT
    weight: ClassVar[int] = WRITTEN
    name: Name


class SecretRemoved(RequestMessage, frozen=True):
    """Done, durably; ``found`` says whether there was one."""

    senders: ClassVar[frozenset[Role]] = SERVERS
    found: bool
