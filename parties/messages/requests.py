"""Leave to run a program on others' secrets: what a client asks, what owners decide, and the messages that carry it.

client --AskLeave--> servers; each --LeaveAsked--> client
client --ListRequests--> servers; each --RequestList--> client         what it has asked, and what it is asked
client --FetchProgram--> a server; it --ProgramFound--> client
client --DecideLeave--> servers; each --LeaveDecided--> client
client --WithdrawRequest--> servers; each --RequestWithdrawn--> client
server --RequestFailed--> client                                       it may not be asked, or there is none
server --RequestsChanged--> clients                                    whom it concerns: they may list again

Who asks signs, and who decides signs, so no server can make up either; and a program is what has its digest, whoever
brings it.  A server can hide what it was told, but not from who asks the others too.
"""

from __future__ import annotations

import contextlib
from typing import Annotated, ClassVar, NamedTuple, Self

import msgspec

from mpc.decoders import from_msgpack
from mpc.errors import ProgramError
from parties.members.cluster import Cluster, Member, Role
from parties.members.keys import SIGNATURE_BYTES, KeyPair
from parties.messages.bindings import Slot
from parties.messages.conversation import WRITTEN, RequestMessage
from parties.messages.fields import FROM_CLIENT, Digest, Id, Name
from parties.wire.messages import SERVERS, Message

MAX_PROGRAM_BYTES = 1 << 20
"""Of a program that owners are asked about."""
MAX_STATEMENT_BYTES = 1 << 15
MOST_SLOTS = 32
"""That such a program reads."""
MOST_OWNERS = 64
"""Who are asked about one."""
MOST_LISTED = 4096
LIFETIME = 30 * 86400.0
"""s since a request was made, or last decided."""
CLOCKS = 86400.0
"""s by which the clocks of members may differ: a request from further ahead might never expire."""
LONGEST_WHY = 500

Why = Annotated[str, msgspec.Meta(min_length=1, max_length=LONGEST_WHY)]
When = Annotated[float, msgspec.Meta(ge=0, le=1e11)]
"""Seconds since 1970, by the clock of who says so."""


class Shared(NamedTuple):
    """What is in a slot belongs to these as well."""

    slot: Slot
    by: Annotated[tuple[Name, ...], msgspec.Meta(min_length=1, max_length=MOST_OWNERS)]


class Statement(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Base of what a client says and signs, for one cluster."""

    purpose: ClassVar[str]

    @property
    def author(self) -> str:
        """The client's name whose word it is."""
        raise NotImplementedError

    def signed(self, keys: KeyPair, cluster: Cluster) -> Signed:
        """As it goes out."""
        said = msgspec.msgpack.encode(self)
        return Signed(said, keys.sign(self.purpose, cluster.name.encode(), said))

    @classmethod
    def read(cls, signed: Signed, cluster: Cluster) -> Self:
        """What is said.  Raises ProgramError if it is not said so by a client of the cluster."""
        if len(signed.said) > MAX_STATEMENT_BYTES:
            raise ProgramError(f"a statement of {len(signed.said)} bytes; the limit is {MAX_STATEMENT_BYTES}")
        statement: Self = from_msgpack(signed.said, cls, f"this is no {cls.purpose}")
        author = cluster.client(statement.author)
        if author is None or not author.signed(signed.signature, cls.purpose, cluster.name.encode(), signed.said):
            raise ProgramError(f"this {cls.purpose} is not signed by who is said to have made it")
        return statement


class Signed(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An encoded statement, and its author's signature."""

    said: bytes
    signature: Annotated[bytes, msgspec.Meta(min_length=SIGNATURE_BYTES, max_length=SIGNATURE_BYTES)]

    def encode(self) -> bytes:
        """A payload frame; ``signed_in`` reads it."""
        return msgspec.msgpack.encode(self)


class UseRequest(Statement, frozen=True):
    """``client`` asks to run the program with this digest, which reads these slots, and says why.

    ``others``: of what belongs to several, to whom beside its owner.
    """

    purpose: ClassVar[str] = "request for leave"
    client: Name
    program: Digest
    slots: Annotated[tuple[Slot, ...], msgspec.Meta(min_length=1, max_length=MOST_SLOTS)]
    why: Why
    when: When
    others: Annotated[tuple[Shared, ...], msgspec.Meta(max_length=MOST_SLOTS)] = ()

    @property
    def author(self) -> str:
        return self.client

    def joint(self, slot: str) -> tuple[str, ...]:
        """To whom that belongs beside its owner, as the client says."""
        return dict(self.others).get(slot, ())

    def owners_of(self, slot: str) -> tuple[str, ...]:
        """Whose leave it takes to read that, each once."""
        owners = dict.fromkeys((slot.partition("/")[0], *self.joint(slot)))
        return tuple(owner for owner in owners if owner != self.client)

    @property
    def owners(self) -> tuple[str, ...]:
        """Whose leave it takes, each once."""
        return tuple(dict.fromkeys(owner for slot in self.slots for owner in self.owners_of(slot)))

    def read_of(self, owner: str) -> tuple[str, ...]:
        """Which of the slots that owner has a say about."""
        return tuple(slot for slot in self.slots if owner in self.owners_of(slot))


class Decision(Statement, frozen=True):
    """What ``owner`` says to the request that ``client`` made at ``asked``.

    ``versions``: of its own secrets, and of what belongs to it as well, those that it has allowed for the program, and
    what was in use of them then.
    """

    purpose: ClassVar[str] = "decision on leave"
    owner: Name
    client: Name
    program: Digest
    asked: When
    approved: bool
    when: When
    why: Annotated[str, msgspec.Meta(max_length=LONGEST_WHY)] = ""
    versions: Annotated[dict[Slot, Id], msgspec.Meta(max_length=MOST_SLOTS)] = {}

    @property
    def author(self) -> str:
        return self.owner

    def answers(self, request: UseRequest) -> bool:
        """Whether it is about that request, and about nothing but the author's own."""
        own = self.versions.keys() <= set(request.read_of(self.owner))
        asked = (request.client, request.program, request.when)
        return own and self.owner in request.owners and (self.client, self.program, self.asked) == asked


class Entry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A request as a server lists it, and what was decided."""

    request: Signed
    decisions: Annotated[tuple[Signed, ...], msgspec.Meta(max_length=MOST_OWNERS)] = ()


class AskLeave(RequestMessage, frozen=True):
    """Payload: the signed `UseRequest`, and the program."""

    senders: ClassVar[frozenset[Role]] = FROM_CLIENT
    weight: ClassVar[int] = WRITTEN


class LeaveAsked(RequestMessage, frozen=True):
    """Kept, durably, for the owners to see."""

    senders: ClassVar[frozenset[Role]] = SERVERS


class RequestsChanged(Message, frozen=True):
    """Something has become of what the receiver asks or is asked; it lists that if it wants to know what."""

    senders: ClassVar[frozenset[Role]] = SERVERS


class ListRequests(RequestMessage, frozen=True):
    """What have I asked, and what am I asked?"""

    senders: ClassVar[frozenset[Role]] = FROM_CLIENT


class RequestList(RequestMessage, frozen=True):
    """Payload: an `Entry` each."""

    senders: ClassVar[frozenset[Role]] = SERVERS


class FetchProgram(RequestMessage, frozen=True):
    """The program that ``client`` asks about, which is the sender's to run or to allow."""

    senders: ClassVar[frozenset[Role]] = FROM_CLIENT
    client: Name
    program: Digest


class ProgramFound(RequestMessage, frozen=True):
    """Payload: the encoded program."""

    senders: ClassVar[frozenset[Role]] = SERVERS


class DecideLeave(RequestMessage, frozen=True):
    """Payload: the signed `Decision`, in place of what the same owner has decided before."""

    senders: ClassVar[frozenset[Role]] = FROM_CLIENT
    weight: ClassVar[int] = WRITTEN


class LeaveDecided(RequestMessage, frozen=True):
    """Kept, durably, for who has asked to see."""

    senders: ClassVar[frozenset[Role]] = SERVERS


class WithdrawRequest(RequestMessage, frozen=True):
    """The sender does not ask any more.  What was allowed stays allowed."""

    senders: ClassVar[frozenset[Role]] = FROM_CLIENT
    weight: ClassVar[int] = WRITTEN
    program: Digest


class RequestWithdrawn(RequestMessage, frozen=True):
    """Done, durably; ``found`` says whether there was one."""

    senders: ClassVar[frozenset[Role]] = SERVERS
    found: bool


def signed_in(buffer: memoryview) -> Signed:
    """Of a payload frame.  Raises ProgramError."""
    if len(buffer) > MAX_STATEMENT_BYTES + 128:
        raise ProgramError(f"a statement of {len(buffer)} bytes; the limit is {MAX_STATEMENT_BYTES}")
    found: Signed = from_msgpack(buffer, Signed, "this is no signed statement")
    return found


def entry_in(buffer: memoryview) -> Entry:
    """Of a payload frame.  Raises ProgramError."""
    if len(buffer) > (MOST_OWNERS + 1) * (MAX_STATEMENT_BYTES + 128):
        raise ProgramError("an entry beyond measure")
    found: Entry = from_msgpack(buffer, Entry, "this is no entry of a list of requests")
    return found


def read_entry(entry: Entry, cluster: Cluster) -> tuple[UseRequest, dict[str, Decision]]:
    """The request, and by owner what was decided about it.  Raises ProgramError for a request that nobody has signed.

    A decision that is not signed, or about another request, is none: its author may have another key by now.
    """
    request, decisions = UseRequest.read(entry.request, cluster), {}
    for signed in entry.decisions:
        with contextlib.suppress(ProgramError):
            decision = Decision.read(signed, cluster)
            if decision.answers(request):
                decisions[decision.owner] = decision
    return request, decisions


def is_named_in(client: Member, request: UseRequest) -> bool:
    """Whether the request is that client's to see: it has made it, or is asked."""
    return client.name == request.client or client.name in request.owners
