"""What a party says of one run under its signature, what others have said to it, and what becomes of a failed check.

*Before anything is used.*  A party's first opening says which inputs it was sent, with the client's signature, and
which parts it has of what is stored, with the owners'.  That opening is uniform whatever was sent, and whoever receives
another word than its own ends the run before it adds anything up: by two signatures over different digests of one thing
the client or owner is named, and nobody else has lost anything.

*In the MAC check* each party signs what it has seen and sent, and its sigma.  Signatures of parties are looked at when
something is wrong, and not before: an honest run costs each party two signatures and one verification.  Then

* a commitment that was broken, a bad signature, and two transcripts from the same messages each name a party;
* of three parties or more, one that has told others different things is found by comparing what it has signed to each
  (``Disputed``); of two, neither can tell the other two things;
* sigmas that do not add up, all signed, prove to everybody that a MAC was wrong.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from mpc.cost import WORDS
from mpc.errors import CaughtCheating, InconsistentInputs, MacCheckError, ProtocolViolation, TesseraError
from parties.members.cluster import Cluster, Member
from parties.messages.evidence import (
    AnySaid,
    BrokenWord,
    Contradiction,
    Evidence,
    FailedCheck,
    InputsSaid,
    PartsSaid,
    RunSubject,
    Said,
    SeenSaid,
    SigmaSaid,
    Statement,
    Vouched,
    digest_of,
)
from parties.messages.runs import Disputed, Inputs, Opening
from parties.wire.messages import Payload
from protocols.readings.mac_check import BrokenCommitment, OtherTranscript, Round, from_words


@dataclass
class _Sayings:
    """What one party has sent in the rounds of the run."""

    sent: hashlib._Hash = field(default_factory=hashlib.sha256)
    coin_commitment: bytes = b""
    seen: Statement | None = None
    sigma_commitment: bytes = b""
    sigma: Statement | None = None


class Testimony:
    """One party's, of one run.  ``parts``: what it has of what is bound to each slot, as its owner has said.

    ``client``: whose inputs these are; None where there are none, and what is run follows from what was signed before.
    ``check``: the number of the check's first round; None without MACs.
    """

    def __init__(
        self,
        cluster: Cluster,
        me: Member,
        sign: Callable[[Said], bytes],
        client: Member | None,
        of: RunSubject,
        parts: Sequence[Statement],
        check: int | None,
    ) -> None:
        self._cluster, self._me, self._sign, self._client = cluster, me, sign, client
        self._of = of
        self._parts = tuple(parts)
        self._check = check
        self._payload: Payload = []
        self._signature = b""
        self._inputs: Statement | None = None
        self._by_party = {party.name: _Sayings() for party in cluster.parties}
        self.evidence: Evidence | None = None
        """Of what is wrong, once it is known."""

    # -- inputs and stored parts -----------------------------------------------------------------------------------

    def take_inputs(self, message: Inputs, payload: Payload) -> None:
        """What the client has sent here."""
        self._payload, self._signature = payload, message.signature

    @property
    def inputs(self) -> Statement | None:
        """The client's, as far as this party is concerned; the first time takes as long as a hash of them."""
        if self._inputs is None and self._client is not None:
            of = self._of
            said = InputsSaid(of.cluster, of.run, of.program, of.bindings, digest_of(self._payload))
            self._inputs = Statement(self._client.name, said, self._signature)
            self._payload = []
        return self._inputs

    def check_inputs(self) -> None:
        """Raises ProtocolViolation unless the client has signed them: what we pass on is ours to answer for."""
        if self.inputs is not None and not self.inputs.holds(self._cluster):
            raise ProtocolViolation(self.inputs.author, "has not signed the inputs that it has sent")

    def compare(self, peer: Member, message: Opening) -> None:
        """With what another party computes on.  Raises InconsistentInputs or ProtocolViolation of who is at fault."""
        mine = [self.inputs, *self._parts]
        theirs = [message.inputs, *message.parts]
        if len(mine) != len(theirs) or (message.inputs is None) != (self.inputs is None):
            raise ProtocolViolation(peer.name, "does not say what it computes on")
        for own, other in zip(mine, theirs, strict=True):
            if own is not None and other is not None and other.digest != _masked(own.said):
                self._differ(peer, own, other)

    def _differ(self, peer: Member, own: Statement, other: Vouched) -> None:
        """They are not the same: by its author's fault, if it has signed both."""
        said = own.said
        if isinstance(said, InputsSaid):
            what = "different inputs to different parties"
        else:
            what = "different parts of what it has stored to different parties"
        theirs = Statement(own.author, _with_masked(said, other.digest), other.signature)
        if not theirs.holds(self._cluster):
            if own.holds(self._cluster):
                raise ProtocolViolation(peer.name, f"computes on what {own.author} has not signed")
            # What a run has left is nobody's word; and an owner may have another key than when it signed.
            raise TesseraError(f"this party and {peer.name} have different parts of a stored secret: store it again")
        self.evidence = Contradiction(own, theirs)
        raise InconsistentInputs(own.author, f"sent {what}")

    # -- rounds ----------------------------------------------------------------------------------------------------

    def opening(self, number: int, outgoing: Round) -> Opening:
        """The message of what this party sends in a round."""
        run, signature = self._of.run, b""
        if self._check is not None:
            statement = self._note(self._me.name, number, outgoing, b"")
            if statement is not None:
                signature = statement.signature
        if number == 0:
            inputs = None if self.inputs is None else _vouched(self.inputs)
            parts = tuple(map(_vouched, self._parts))
            return Opening(run=run, round=number, inputs=inputs, parts=parts, signature=signature)
        return Opening(run=run, round=number, signature=signature)

    def heard(self, peer: str, number: int, received: Round, signature: bytes) -> None:
        """What another one has sent."""
        if self._check is not None:
            self._note(peer, number, received, signature)

    def _note(self, party: str, number: int, vectors: Round, signature: bytes) -> Statement | None:
        """The statement that goes with it: signed here, if it is ours."""
        assert self._check is not None  # noqa: S101 - for the type checker
        sayings, phase = self._by_party[party], number - self._check
        said: AnySaid | None = None
        if number == 0:
            sayings.coin_commitment = from_words(vectors[0][-WORDS:])
        if phase < 0 and len(self._by_party) > 2:
            for vector in vectors:
                sayings.sent.update(vector.data)
        elif phase == 0:
            seen, coin = from_words(vectors[0][:WORDS]), from_words(vectors[0][WORDS:])
            sent = sayings.sent.digest() if len(self._by_party) > 2 else b""
            said = SeenSaid(self._of, seen, sent, sayings.coin_commitment, coin)
        elif phase == 1:
            sayings.sigma_commitment = from_words(vectors[0])
        elif phase == 2:
            said = SigmaSaid(self._of, sayings.sigma_commitment, vectors[0].tobytes())
        if said is None:
            return None
        if party == self._me.name:
            signature = self._sign(said)
        statement = Statement(party, said, signature)
        if phase == 0:
            sayings.seen = statement
        else:
            sayings.sigma = statement
        return statement

    # -- afterwards ------------------------------------------------------------------------------------------------

    @property
    def seen(self) -> tuple[Statement, ...]:
        """What every party has signed of what it has seen; nothing until all have."""
        seen = [sayings.seen for sayings in self._by_party.values()]
        return tuple(s for s in seen if s is not None) if None not in seen else ()

    def judge(self, error: TesseraError) -> TesseraError:
        """What a failed check comes down to, naming who is at fault where that shows."""
        match error:
            case BrokenCommitment():
                peer = self._other(error.position)
                return self._broken(peer, error.what)
            case OtherTranscript():
                return self._unlike(self._other(error.position))
            case MacCheckError():
                return self._failed(error)
        return error

    def _other(self, position: int) -> str:
        return [name for name in self._by_party if name != self._me.name][position]

    def _broken(self, peer: str, what: str) -> TesseraError:
        sayings = self._by_party[peer]
        statement = sayings.seen if sayings.sigma is None else sayings.sigma
        if statement is not None and statement.holds(self._cluster):
            self.evidence = BrokenWord(statement)
        return CaughtCheating(peer, f"opened another {what} than it had committed to: nothing was revealed")

    def _unlike(self, peer: str) -> TesseraError:
        return CaughtCheating(peer, "says that it has seen other values than it was sent: nothing was revealed")

    def _failed(self, error: TesseraError) -> TesseraError:
        sigmas = tuple(s.sigma for s in self._by_party.values() if s.sigma is not None)
        try:
            self._check_signed(sigmas)
        except CaughtCheating as caught:
            return caught
        if len(sigmas) == len(self._by_party):
            self.evidence = FailedCheck(sigmas)
        return error

    def _check_signed(self, statements: Sequence[Statement]) -> None:
        for statement in statements:
            if not statement.holds(self._cluster):
                raise CaughtCheating(
                    statement.author, "has not signed what it said in the MAC check: nothing was revealed"
                )

    # -- disputes --------------------------------------------------------------------------------------------------

    def check_seen(self) -> None:
        """Before it is passed on.  Raises CaughtCheating for what is not signed."""
        self._check_signed(self.seen)

    @property
    def agreed(self) -> bool:
        """Whether all say that they have seen the same."""
        return _agreed(self.seen)

    def compare_seen(self, sender: Member, message: Disputed) -> None:
        """With what another party has heard.  Raises CaughtCheating, naming who has told the two different things.

        ProtocolViolation of the sender, for what is not signed or not of this run, and for a dispute about nothing.
        """
        if [statement.author for statement in message.statements] != list(self._by_party):
            raise ProtocolViolation(sender.name, "disputes a run without saying what it has heard")
        for mine, theirs in zip(self.seen, message.statements, strict=True):
            if theirs.said == mine.said:
                continue
            if not (isinstance(theirs.said, SeenSaid) and theirs.said.of == self._of and theirs.holds(self._cluster)):
                raise ProtocolViolation(sender.name, f"says that it has heard what {theirs.author} has not signed")
            self.evidence = Contradiction(mine, theirs)
            raise CaughtCheating(mine.author, "told two parties different things: nothing was revealed")
        if not message.joined and _agreed(message.statements):
            raise ProtocolViolation(sender.name, "disputes a run in which all have seen the same")

    def settle(self) -> TesseraError:
        """Everybody has heard the same of everybody: who has seen something else of that is at fault."""
        (mine,) = (_seen_by(statement) for statement in self.seen if statement.author == self._me.name)
        other = next(statement.author for statement in self.seen if _seen_by(statement) != mine)
        return self._unlike(other)


def _seen_by(statement: Statement) -> bytes:
    """The hash of what its author says to have seen."""
    return statement.said.seen if isinstance(statement.said, SeenSaid) else b""


def _agreed(statements: Sequence[Statement]) -> bool:
    return len({_seen_by(statement) for statement in statements}) == 1


def _vouched(statement: Statement) -> Vouched:
    return Vouched(_masked(statement.said), statement.signature)


def _masked(said: AnySaid) -> str:
    return said.masked if isinstance(said, InputsSaid | PartsSaid) else ""


def _with_masked(said: AnySaid, digest: str) -> AnySaid:
    match said:
        case InputsSaid():
            return InputsSaid(said.cluster, said.run, said.program, said.bindings, digest)
        case PartsSaid():
            return PartsSaid(said.circle, said.version, digest)
    return said
