"""The messages of runs and of stored secrets: who sends what to whom, and with which payload.

A run:      client --Prepare--> dealer, parties        program; the name under which its result is kept
            dealer --Dealt--> party                    the party's part: seed, corrections (the last party's)
            dealer --ClientMasks--> client             the client's part: seeds of each input's mask, a mask per output
            party  --Ready--> client
            client --Inputs--> parties                 x - a of each input
            party  --Opening--> parties                one per round, the rounds of the MAC check included
            party  --Outputs--> client                 masked share of each output (and of its MAC, and the key's)
            party  --VersionReady--> client           what the run keeps is in use (decided as for an upload)
            anyone --Failed--> everyone in the run

An upload:  client --Upload--> dealer                  description of the model, and a tag of its weights
            dealer --UploadSeed--> party, client       seed of the masks (the client gets every party's)
            client --UploadBegin--> parties            description of the model
            party  --ChunksStored--> client            how many chunks it has: of those before, or of an upload before
            client --UploadChunk--> parties            w - b, the elements of all tensors in flat order, chunk by chunk
            (``messages.stored``: parties and dealer agree that all of it is everywhere)
            party  --VersionReady--> client            it is in use
            client --VersionDropped--> dealer, parties it has given the upload up
            anyone --UploadFailed--> client
"""

from __future__ import annotations

from typing import Annotated, ClassVar

import msgspec

from parties.cluster import Role
from parties.tally import Sent
from parties.wire.messages import SERVERS, Message

Id = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{32}\Z")]
Digest = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]
MasksDigest = Annotated[str, msgspec.Meta(pattern=r"^([0-9a-f]{64})?\Z")]
"""``protocols.readings.dealer.digest`` of the masks made for the client; empty for a run without MACs."""
Name = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}\Z")]
Text = Annotated[str, msgspec.Meta(max_length=2000)]
Count = Annotated[int, msgspec.Meta(ge=0)]
Seconds = Annotated[float, msgspec.Meta(ge=0)]

FROM_CLIENT: frozenset[Role] = frozenset({Role.CLIENT})
FROM_DEALER: frozenset[Role] = frozenset({Role.DEALER})
FROM_PARTY: frozenset[Role] = frozenset({Role.PARTY})


class RunMessage(Message, frozen=True):
    """Base of what belongs to one run."""

    run: Id


class Prepare(RunMessage, frozen=True):
    """Deal for this program and get ready to run it.  Payload: the encoded program.

    ``keep``: what the program keeps is to be the data set of this name, as version ``run``; empty if it keeps nothing.
    """

    senders: ClassVar[frozenset[Role]] = FROM_CLIENT
    keep: Annotated[str, msgspec.Meta(pattern=r"^([A-Za-z0-9][A-Za-z0-9_.-]{0,63})?\Z")] = ""


class Dealt(RunMessage, frozen=True):
    """A party's randomness for a run of ``client``.  Payload: its seed; for the last party, then the corrections.

    Without payload when it was dealt ahead of time: ``session`` and ``number`` (0 if not) say which item of the party's
    ledger it is.
    """

    senders: ClassVar[frozenset[Role]] = FROM_DEALER
    client: Name
    program: Digest
    masks: MasksDigest
    session: Annotated[str, msgspec.Meta(pattern=r"^([0-9a-f]{32})?\Z")] = ""
    number: Count = 0


class ClientMasks(RunMessage, frozen=True):
    """The client's part.  Payload: per input each party's mask stream, joined; a mask per output, and per MAC.

    ``sent``: what the dealer has sent for the run, this message included, by receiver; for the report alone, as are
    the other figures.
    """

    senders: ClassVar[frozenset[Role]] = FROM_DEALER
    program: Digest
    seconds: Seconds
    dealt_bytes: Count
    sent: dict[Name, Sent]
    from_stock: bool = False


class Ready(RunMessage, frozen=True):
    """Prepared; the inputs may come."""

    senders: ClassVar[frozenset[Role]] = FROM_PARTY
    seconds: Seconds


class Inputs(RunMessage, frozen=True):
    """Payload: ``x - a`` of each input, in the program's order."""

    senders: ClassVar[frozenset[Role]] = FROM_CLIENT
    masks: MasksDigest


class Opening(RunMessage, frozen=True):
    """Payload: the sender's shares of everything opened in this round, or its part in the MAC check, as one array."""

    senders: ClassVar[frozenset[Role]] = FROM_PARTY
    round: Count


class Outputs(RunMessage, frozen=True):
    """Payload: what ``protocols.readings.reveal`` says.  The figures are for the report, and are not trusted.

    ``offline`` and ``online``: what the party has sent in either phase, this message included, by receiver.
    """

    senders: ClassVar[frozenset[Role]] = FROM_PARTY
    rounds: Count
    offline: dict[Name, Sent]
    online: dict[Name, Sent]
    compute_seconds: dict[str, float]
    wait_seconds: Seconds


class Failed(RunMessage, frozen=True):
    """The run has failed at the sender: ``error`` is a class of ``mpc.errors``, ``peer`` who is at fault, if known."""

    error: Annotated[str, msgspec.Meta(max_length=64)]
    peer: Annotated[str, msgspec.Meta(max_length=64)]
    reason: Text


class Release(RunMessage, frozen=True):
    """The client will not go on with a prepared run: forget it."""

    senders: ClassVar[frozenset[Role]] = FROM_CLIENT


class TensorInfo(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Name and shape of a stored tensor."""

    name: Annotated[str, msgspec.Meta(max_length=200)]
    shape: Annotated[tuple[Count, ...], msgspec.Meta(max_length=16)]


class VersionMessage(Message, frozen=True):
    """Base of what belongs to one upload."""

    version: Id


Tensors = Annotated[tuple[TensorInfo, ...], msgspec.Meta(min_length=1, max_length=10_000)]


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
    """The upload has failed at the sender; fields as in ``Failed``."""

    senders: ClassVar[frozenset[Role]] = SERVERS
    error: Annotated[str, msgspec.Meta(max_length=64)]
    peer: Annotated[str, msgspec.Meta(max_length=64)]
    reason: Text


class FindSecret(Message, frozen=True):
    """Which version is called ``name``?"""

    senders: ClassVar[frozenset[Role]] = FROM_CLIENT
    query: Id
    name: Name


class FoundSecret(Message, frozen=True):
    """Payload: the model's description; an empty ``version`` says that there is none, and ``names`` what there is."""

    senders: ClassVar[frozenset[Role]] = FROM_PARTY
    query: Id
    version: str
    owner: str
    names: tuple[str, ...]
