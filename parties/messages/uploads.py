"""The messages of uploads: chunks on their way to the parties, and going over to a version together.

            client --Upload--> dealer                  description of the secret, and a tag of its content
            dealer --UploadSeed--> party, client       seed of the masks (the client gets every party's)
            client --UploadBegin--> parties            description of the secret
            party  --ChunksStored--> client            how many chunks it has: of those before, or of an upload before
            client --UploadChunk--> parties            w - b, the elements of all tensors in flat order, chunk by chunk
            client --UploadSigned--> parties           its signature of a digest of all chunks, the same for everyone
            client --VersionDropped--> dealer, parties it has given the upload up
            anyone --UploadFailed--> client

The end, of an upload and of a run that keeps something (`parties.stored.version_database` says why it cannot end
differently here and there):

            party  --VersionPrepared--> dealer         all of it is there, durably, and not in use yet; its digest
            dealer --VersionCommit--> parties          all parties have it, and it is what the name stands for
            party  --VersionReady--> client            it is in use
            dealer --VersionDropped--> party           or it has come to nothing, or is gone
            party  --VersionsHeld--> dealer            which versions it has; answered with the above
"""

from __future__ import annotations

from typing import Annotated, ClassVar

import msgspec

from parties.members.cluster import Role
from parties.messages.conversation import ConversationMessage
from parties.messages.evidence import Signature, Vouched
from parties.messages.failures import Fault
from parties.messages.fields import FROM_CLIENT, FROM_DEALER, FROM_PARTY, Count, Digest, Id, Name
from parties.wire.messages import SERVERS, Message

MAX_SECRETS = 1000
"""That a party has in use; beyond it an upload under a new name is refused."""

Ids = Annotated[tuple[Id, ...], msgspec.Meta(max_length=4 * MAX_SECRETS)]


class TensorInfo(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Name and shape of a stored tensor."""

    name: Annotated[str, msgspec.Meta(max_length=200)]
    shape: Annotated[tuple[Count, ...], msgspec.Meta(max_length=16)]


class VersionMessage(ConversationMessage, frozen=True):
    """Base of what belongs to one upload, or to what one run keeps."""

    version: Id

    @property
    def conversation(self) -> str:
        return self.version


Tensors = Annotated[tuple[TensorInfo, ...], msgspec.Meta(max_length=10_000)]


class Upload(VersionMessage, frozen=True):
    """A model will be stored under ``name``.  Payload: its description, opaque to the servers.

    ``version`` is drawn for this request; ``content`` is a keyed digest of all that will be sent
    (``client.uploading.content_tag``).  An upload of that content that was begun before goes on.
    """

    senders: ClassVar[frozenset[Role]] = FROM_CLIENT
    name: Name
    tensors: Tensors
    content: Digest


class UploadSeed(VersionMessage, frozen=True):
    """Payload: the seed of the receiver's shares of the masks; to the client, every party's, joined.

    ``continued`` is the upload to go on with: ``version`` itself, or one of the same content that was begun before.
    """

    senders: ClassVar[frozenset[Role]] = FROM_DEALER
    continued: Id
    masks: Digest


class UploadBegin(VersionMessage, frozen=True):
    """The upload begins or goes on; answered with ``ChunksStored``.  Payload: the model's description.

    ``attempt`` names this beginning: chunks of a former one may still be on their way, and are left alone.
    """

    senders: ClassVar[frozenset[Role]] = FROM_CLIENT
    name: Name
    tensors: Tensors
    masks: Digest
    attempt: Id


class UploadChunk(VersionMessage, frozen=True):
    """Payload: the ``number``-th piece of ``w - b`` (``stored.chunks``); the next one after those that were sent."""

    senders: ClassVar[frozenset[Role]] = FROM_CLIENT
    attempt: Id
    number: Count


class UploadSigned(VersionMessage, frozen=True):
    """After the last chunk: the owner's signature of a digest of all of them (``PartsSaid``)."""

    senders: ClassVar[frozenset[Role]] = FROM_CLIENT
    attempt: Id
    signature: Signature


class ChunksStored(VersionMessage, frozen=True):
    """The first ``chunks`` chunks are on the party's disk."""

    senders: ClassVar[frozenset[Role]] = FROM_PARTY
    attempt: Id
    chunks: Count


class VersionReady(VersionMessage, frozen=True):
    """The party has put the model under its name, as all parties do."""

    senders: ClassVar[frozenset[Role]] = FROM_PARTY


class VersionDropped(VersionMessage, frozen=True):
    """The upload's owner gives it up; or the dealer says that nobody has use for this version any more."""

    senders: ClassVar[frozenset[Role]] = FROM_DEALER | FROM_CLIENT


class UploadFailed(VersionMessage, frozen=True):
    """The upload has failed at the sender."""

    senders: ClassVar[frozenset[Role]] = SERVERS
    fault: Fault

    @property
    def failure(self) -> Fault:
        return self.fault


class VersionPrepared(VersionMessage, frozen=True):
    """The party has all of the upload, durably; what was under the name stays in use until it is told to commit.

    ``masked``: what it has, as its owner has signed; of what a run has left, nobody has.
    """

    senders: ClassVar[frozenset[Role]] = FROM_PARTY
    masked: Vouched


class VersionCommit(VersionMessage, frozen=True):
    """The version is what its name stands for, at everyone, from now on."""

    senders: ClassVar[frozenset[Role]] = FROM_DEALER


class Prepared(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A version that a party has prepared, and what it has of it."""

    version: Id
    masked: Vouched


class VersionsHeld(Message, frozen=True):
    """What a party has: versions in use (``held``), ``prepared`` ones, and ``uploads`` begun.

    Sent when it or the dealer has been started, and again while a prepared one is not decided.  The dealer answers with
    what the party has missed: ``VersionCommit``, ``VersionDropped``.
    """

    senders: ClassVar[frozenset[Role]] = FROM_PARTY
    held: Ids
    prepared: Annotated[tuple[Prepared, ...], msgspec.Meta(max_length=MAX_SECRETS)]
    uploads: Ids = ()
