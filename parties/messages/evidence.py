"""What members say under their signature, and what proves that one of them has not kept to the protocol.

A *statement* is signed by its author, with the key that the cluster file lists (`parties.members.keys.KeyPair.sign`):

    client  ``InputsSaid``   the digest of the masked inputs that it sends every party for a run
    owner   ``PartsSaid``    the digest of the masked content that it sends every party of an upload
    dealer  ``ItemSaid``     which item of the stock it assigns to a run
    party   ``ItemSaid``     which item of the stock it has marked used for a run
    party   ``SeenSaid``     in the first round of the MAC check: what it has seen, what it has sent, and its coin
    party   ``SigmaSaid``    in the last one: its sigma, and what it had committed to

What is *evidence* anybody can check with the cluster file and nothing else (``verify``): two statements of one author
that say different things of one thing; an opening that is not what its author had committed to; an item that is not
the one that was assigned; sigmas of all parties that show that a MAC was wrong.  It holds no secrets: digests of what
is masked, commitments, and sigmas of a run whose key is worthless.  An honest member signs nothing twice, so nobody can
make evidence against it, whatever it is sent.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Annotated, NamedTuple

import msgspec

from mpc.errors import UsageError
from parties.members.cluster import Cluster, Member, Role
from parties.members.keys import SIGNATURE_BYTES
from parties.messages.fields import Count, Digest, Id, Name
from parties.wire.messages import Buffer, as_bytes
from protocols.readings.mac_check import is_coin, is_sigma, session_of, sigmas_fail

PURPOSE = "statement"

Signature = Annotated[bytes, msgspec.Meta(max_length=SIGNATURE_BYTES)]
"""Empty where there is none."""
Hash = Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]
Word = Annotated[bytes, msgspec.Meta(max_length=32)]
"""What is to be 32 bytes of a check's round; empty when it was something else."""
Session = Annotated[str, msgspec.Meta(pattern=r"^([0-9a-f]{32})?\Z")]


class Said(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag=True):
    """Base of what is said; the tag is signed as well."""

    @property
    def subject(self) -> tuple[object, ...]:
        """What it is about: of one subject an honest member says one thing."""
        raise NotImplementedError


class RunSubject(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A run: of which program, on which versions and by which rules, with which item of the stock (0: none)."""

    cluster: Digest
    run: Id
    program: Digest
    bindings: Digest
    session: Session = ""
    number: Count = 0

    def name(self) -> bytes:
        """What the MAC check is bound to besides the program."""
        return f"{self.cluster} {self.run} {self.bindings} {self.session} {self.number}".encode()


class InputsSaid(Said, frozen=True):
    """``masked``: SHA-256 of ``x - a`` of all inputs, one behind the other."""

    cluster: Digest
    run: Id
    program: Digest
    bindings: Digest
    masked: Digest

    @property
    def subject(self) -> tuple[object, ...]:
        return self.cluster, self.run, self.program, self.bindings


class PartsSaid(Said, frozen=True):
    """``masked``: SHA-256 of ``w - b``, the chunks of an upload one behind the other."""

    circle: Digest
    version: Id
    masked: Digest

    @property
    def subject(self) -> tuple[object, ...]:
        return self.circle, self.version


class ItemSaid(Said, frozen=True):
    """For its run this item of the stock is to be used, or is."""

    of: RunSubject

    @property
    def subject(self) -> tuple[object, ...]:
        return self.of.cluster, self.of.run


class SeenSaid(Said, frozen=True):
    """``seen``: the hash of all that was opened; ``sent``: SHA-256 of all that its author has sent, or nothing for two.

    ``commitment`` went with the first opening; ``coin`` is what it opens to.
    """

    of: RunSubject
    seen: Word
    sent: Annotated[bytes, msgspec.Meta(max_length=32)]
    commitment: Word
    coin: Word

    @property
    def subject(self) -> tuple[object, ...]:
        return (self.of,)


class SigmaSaid(Said, frozen=True):
    """``opening``: sigma and a nonce, as they went over the wire."""

    of: RunSubject
    commitment: Word
    opening: Annotated[bytes, msgspec.Meta(max_length=256)]

    @property
    def subject(self) -> tuple[object, ...]:
        return (self.of,)


AnySaid = InputsSaid | PartsSaid | ItemSaid | SeenSaid | SigmaSaid

_AUTHORS: dict[type[Said], frozenset[Role]] = {
    InputsSaid: frozenset({Role.CLIENT}),
    PartsSaid: frozenset({Role.CLIENT}),
    ItemSaid: frozenset({Role.DEALER, Role.PARTY}),
    SeenSaid: frozenset({Role.PARTY}),
    SigmaSaid: frozenset({Role.PARTY}),
}


class Statement(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What ``author`` has said."""

    author: Name
    said: AnySaid
    signature: Signature

    def holds(self, cluster: Cluster) -> bool:
        """Whether that member has signed it, and is one who says such things."""
        member = next((m for m in cluster.members if m.name == self.author), None)
        return member is not None and self.signed_by(member)

    def signed_by(self, member: Member) -> bool:
        """Likewise of that very member."""
        if member.role not in _AUTHORS[type(self.said)] or len(self.signature) != SIGNATURE_BYTES:
            return False
        return member.signed(self.signature, PURPOSE, signed_bytes(self.said))


def signed_bytes(said: Said) -> bytes:
    """What is signed."""
    return msgspec.msgpack.encode(said)


class Vouched(msgspec.Struct, frozen=True, forbid_unknown_fields=True, array_like=True):
    """A digest and its author's signature, where the receiver knows what it is of."""

    digest: Digest
    signature: Signature = b""


def digest_of(buffers: Sequence[Buffer]) -> str:
    """SHA-256 of the buffers, one behind the other, in hexadecimal; their lengths are known otherwise."""
    state = hashlib.sha256()
    for buffer in buffers:
        state.update(as_bytes(buffer))
    return state.hexdigest()


class Contradiction(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag=True):
    """Two statements of one author that say different things of one subject."""

    first: Statement
    second: Statement


class BrokenWord(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag=True):
    """A coin or sigma that is not what its author says that it had committed to."""

    statement: Statement


class OtherItem(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag=True):
    """A party uses another item of the stock than the dealer has assigned."""

    assigned: Statement
    used: Statement


class FailedCheck(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag=True):
    """The sigmas of all parties, in their order: some MAC was wrong.  It names nobody."""

    sigmas: Annotated[tuple[Statement, ...], msgspec.Meta(min_length=2, max_length=1000)]


Evidence = Contradiction | BrokenWord | OtherItem | FailedCheck


class Verdict(NamedTuple):
    """What evidence proves."""

    culprit: str
    """Who has not kept to the protocol; empty where that is not known."""
    what: str
    """In a word."""
    sentence: str
    run: str = ""
    """Of which run, if it is about one."""


def verify(evidence: Evidence, cluster: Cluster) -> Verdict:
    """What it proves to whoever has the cluster file.  Raises UsageError if that is nothing."""
    # First what costs less, so that nonsense costs little.
    verdict = _verdict(evidence, cluster)
    if verdict is None:
        raise UsageError("this proves nothing: what was said does not show what it should")
    if not all(statement.holds(cluster) for statement in statements_of(evidence)):
        raise UsageError("this proves nothing: not all of it is signed by members of the cluster file")
    return verdict


def statements_of(evidence: Evidence) -> tuple[Statement, ...]:
    """All that it is made of."""
    match evidence:
        case Contradiction(first, second):
            return first, second
        case BrokenWord(statement):
            return (statement,)
        case OtherItem(assigned, used):
            return assigned, used
        case FailedCheck(sigmas):
            return sigmas


def _verdict(evidence: Evidence, cluster: Cluster) -> Verdict | None:
    match evidence:
        case Contradiction(first, second):
            return _contradiction(first, second)
        case BrokenWord(statement):
            return _broken(statement, cluster)
        case OtherItem(Statement(dealer, ItemSaid(assigned)), Statement(author, ItemSaid(used))):
            same = (assigned.cluster, assigned.run) == (used.cluster, used.run)
            if dealer == cluster.dealer.name != author and same and assigned != used:
                sentence = f"{author} uses another item of the stock for run {used.run} than it was assigned"
                return Verdict(author, "other-item", sentence, used.run)
        case FailedCheck(sigmas):
            return _failed(sigmas, cluster)
    return None


_CONTRADICTIONS: dict[type[Said], tuple[str, str]] = {
    InputsSaid: ("other-inputs", "has sent different inputs to different parties"),
    PartsSaid: ("other-parts", "has sent different parts of an upload to different parties"),
    ItemSaid: ("two-items", "has named two items of the stock for one run"),
    SeenSaid: ("equivocation", "has told two parties different things"),
    SigmaSaid: ("equivocation", "has told two parties different things in the MAC check"),
}


def _contradiction(first: Statement, second: Statement) -> Verdict | None:
    same = first.author == second.author and type(first.said) is type(second.said)
    if not same or first.said.subject != second.said.subject or first.said == second.said:
        return None
    what, sentence = _CONTRADICTIONS[type(first.said)]
    return Verdict(first.author, what, f"{first.author} {sentence}", _run_of(first.said))


def _run_of(said: AnySaid) -> str:
    match said:
        case InputsSaid():
            return said.run
        case PartsSaid():
            return ""
        case _:
            return said.of.run


def _broken(statement: Statement, cluster: Cluster) -> Verdict | None:
    author, said, index = statement.author, statement.said, _index(statement.author, cluster)
    if index < 0:
        return None
    match said:
        case SeenSaid():
            kept = is_coin(_session(said.of, cluster), index, said.commitment, said.coin)
            what = "coin"
        case SigmaSaid():
            kept = is_sigma(_session(said.of, cluster), index, said.commitment, said.opening)
            what = "value"
        case _:
            return None
    sentence = f"{author} has opened another {what} than it had committed to"
    return None if kept else Verdict(author, "broken-commitment", sentence, said.of.run)


def _failed(sigmas: Sequence[Statement], cluster: Cluster) -> Verdict | None:
    """The commitments bind those who signed: each sigma is an opening of one."""
    if [statement.author for statement in sigmas] != [party.name for party in cluster.parties]:
        return None
    of = failed_run(sigmas)
    openings = []
    for index, statement in enumerate(sigmas):
        said = statement.said
        if not isinstance(said, SigmaSaid) or said.of != of:
            return None
        if not is_sigma(_session(said.of, cluster), index, said.commitment, said.opening):
            return None
        openings.append(said.opening)
    if of is None or not sigmas_fail(openings):
        return None
    return Verdict("", "failed-check", "the MACs of what was opened in a run were wrong", of.run)


def failed_run(sigmas: Sequence[Statement]) -> RunSubject | None:
    """The run that these are of, if they are."""
    said = sigmas[0].said
    return said.of if isinstance(said, SigmaSaid) else None


def session_failed(evidence: Evidence) -> str:
    """The session of the item with which a check has failed; empty of other evidence, and of a run without an item."""
    of = failed_run(evidence.sigmas) if isinstance(evidence, FailedCheck) else None
    return "" if of is None else of.session


def _session(of: RunSubject, cluster: Cluster) -> bytes:
    return session_of(of.program, len(cluster.parties), of.name())


def _index(author: str, cluster: Cluster) -> int:
    return next((party.index for party in cluster.parties if party.name == author), -1)
