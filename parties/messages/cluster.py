"""The messages about cluster files to come: who proposes, who has signed, and what would be lost.

    signer --ProposeFile--> server              a whole file with the sender's signature; also to accept another's
    server --FileProposed--> signer             whose signature is missing; of nobody: the file is in force
    client, operator --AskCluster--> server
    server --ClusterSeen--> client, operator
    server --Signatures--> server               what it has of proposals, whenever it has more

That a file is in force is told by the links themselves (``wire.messages.Succeeded``).
"""

from __future__ import annotations

from typing import Annotated, ClassVar

import msgspec

from parties.members.cluster import Role
from parties.messages.conversation import WRITTEN, RequestMessage
from parties.messages.fields import Count, Name
from parties.messages.status import SecretSeen
from parties.messages.uploads import MAX_SECRETS
from parties.wire.messages import SERVERS, Message

FROM_OUTSIDE: frozenset[Role] = frozenset({Role.CLIENT, Role.OPERATOR})

MAX_PROPOSALS = 64
"""That a server keeps."""


class ProposeFile(RequestMessage, frozen=True):
    """I want this to be the next cluster file.  Payload: a step (``parties.members.succession``) with the sender's
    signature."""

    senders: ClassVar[frozenset[Role]] = FROM_OUTSIDE
    weight: ClassVar[int] = WRITTEN


class FileProposed(RequestMessage, frozen=True):
    """The sender has it, and tells the other servers; of ``missing`` it has no signature."""

    senders: ClassVar[frozenset[Role]] = SERVERS
    missing: tuple[Name, ...]


class AskCluster(RequestMessage, frozen=True):
    """What is proposed, and, to somebody who has to sign, what is stored?"""

    senders: ClassVar[frozenset[Role]] = FROM_OUTSIDE


class ClusterSeen(RequestMessage, frozen=True):
    """Payload: a step for each proposal.

    ``models`` are all that are in use, and ``stock`` items of preprocessing; None to whoever has not to sign.
    """

    senders: ClassVar[frozenset[Role]] = SERVERS
    models: Annotated[tuple[SecretSeen, ...], msgspec.Meta(max_length=MAX_SECRETS)] | None
    stock: Count | None


class Signatures(Message, frozen=True):
    """Proposals with the signatures that the sender has of them.  Payload: a step each."""

    senders: ClassVar[frozenset[Role]] = SERVERS
