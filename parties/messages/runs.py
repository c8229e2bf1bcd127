"""The messages of runs: who sends what to whom, and with which payload.

            client --Prepare--> dealer, parties        program; what is bound to its slots (``messages.bindings``);
                                                       the name under which its result is kept
            dealer --Dealt--> party                    the party's seed, and corrections (the last party's)
            dealer --DealtPart--> party                of a large program, what comes next of the last party's
            party  --Evaluated--> dealer               so that it may deal more
            dealer --ClientMasks--> client             the client's part: seeds of each input's mask, a mask per output
            party  --Placed--> party                   which of its workers the run is on (`messages.workers`)
            party  --Ready--> client
            client --Inputs--> parties                 x - a of each input
            party  --Opening--> parties                one per round, the rounds of the MAC check included
            party  --Disputed--> parties               they have not all seen the same: who has signed what
            party  --Outputs--> client                 masked share of each output (and of its MAC, and the key's)
            anyone --Failed--> everyone in the run

What a run keeps is decided, and its client told, as the end of an upload is (``messages.uploads``).
"""

from __future__ import annotations

from typing import Annotated, ClassVar

import msgspec

from mpc.errors import MacCheckError, UsageError
from parties.members.cluster import Cluster, Role
from parties.messages.bindings import Bindings
from parties.messages.conversation import ConversationMessage
from parties.messages.evidence import Evidence, FailedCheck, Signature, Statement, Vouched, verify
from parties.messages.failures import Fault
from parties.messages.fields import FROM_CLIENT, FROM_DEALER, FROM_PARTY, Count, Digest, Id, Name, Seconds
from parties.tally import Sent

MasksDigest = Annotated[str, msgspec.Meta(pattern=r"^([0-9a-f]{64})?\Z")]
"""``protocols.readings.dealer.digest`` of the masks made for the client; empty for a run without MACs."""


class RunMessage(ConversationMessage, frozen=True):
    """Base of what belongs to one run."""

    run: Id

    @property
    def conversation(self) -> str:
        return self.run


class Prepare(RunMessage, frozen=True):
    """Deal for this program and get ready to run it, on what is bound to its slots.  Payload: the encoded program.

    ``soon``: the inputs come as soon as the parties can begin; else once all is prepared that may be ahead of time.
    ``keep``: what the program keeps is to be the data set of this name, as version ``run``; empty if it keeps nothing.
    """

    senders: ClassVar[frozenset[Role]] = FROM_CLIENT
    bindings: Bindings = ()
    keep: Annotated[str, msgspec.Meta(pattern=r"^([A-Za-z0-9][A-Za-z0-9_.-]{0,63})?\Z")] = ""
    soon: bool = False


LinkPublic = Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]
"""An X25519 public key."""
LinkSecret = Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]
Door = Annotated[bytes, msgspec.Meta(min_length=16, max_length=16)]
Address = Annotated[str, msgspec.Meta(max_length=300, pattern=r"^[^:].*:[0-9]{1,5}\Z")]
"""``host:port``."""


class Source(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where a worker of the dealer's waits for who collects what it deals for one run (`parties.wire.direct`).

    ``secret`` is told to both ends of that link, and made for it alone.
    """

    address: Address
    door: Door
    secret: LinkSecret

    def __repr__(self) -> str:
        return f"Source({self.address})"


class Dealt(RunMessage, frozen=True):
    """A party's randomness for a run of ``client``.  Payload: its seed; for the last party, then the corrections of the
    program's first part (``mpc.schedule``).

    ``bindings``: their digest, by what the client has told the dealer.

    Without payload when it was dealt ahead of time: ``session`` and ``number`` (0 if not) say which item of the party's
    ledger it is.  With ``source`` the corrections are to be collected from there, those of later parts, too.
    """

    senders: ClassVar[frozenset[Role]] = FROM_DEALER
    client: Name
    program: Digest
    bindings: Digest
    masks: MasksDigest
    session: Annotated[str, msgspec.Meta(pattern=r"^([0-9a-f]{32})?\Z")] = ""
    number: Count = 0
    signature: Signature = b""
    """Of ``ItemSaid``, if it is one."""
    source: Source | None = None
    chain: bool = False
    """It is the next item of a chain, and in ledgers under the name of that."""


class DealtPart(RunMessage, frozen=True):
    """To the last party: what comes next of its randomness, for a part of the program, which are counted from 0.

    Payload: the corrections of that part; nothing where they are collected from their ``Source``, in so many bytes.
    """

    senders: ClassVar[frozenset[Role]] = FROM_DEALER
    part: Annotated[int, msgspec.Meta(ge=1, lt=1 << 31)]
    seconds: Seconds
    """That it took to deal, for the report, as is the next."""
    collected: Count = 0


class Evaluated(RunMessage, frozen=True):
    """By the last party: so many depths of the program are, and what was dealt for them is gone."""

    senders: ClassVar[frozenset[Role]] = FROM_PARTY
    depths: Annotated[int, msgspec.Meta(ge=1, lt=1 << 31)]


class Placed(RunMessage, frozen=True):
    """The sender's part of this run is computed by the worker that has this ``key`` (`parties.wire.direct`).

    ``door``: where the receiver's worker is to come in, if it is the one that dials: that of the party listed later.
    """

    senders: ClassVar[frozenset[Role]] = FROM_PARTY
    program: Digest
    key: LinkPublic
    address: Address
    door: Annotated[bytes, msgspec.Meta(max_length=16)] = b""


class ClientMasks(RunMessage, frozen=True):
    """The client's part.  Payload: per input each party's mask stream, joined; a mask per output, and per MAC.

    ``sent``: what the dealer has sent for the run, this message included, by receiver; for the report alone, as are
    the other figures.
    """

    senders: ClassVar[frozenset[Role]] = FROM_DEALER
    program: Digest
    bindings: Digest
    seconds: Seconds
    dealt_bytes: Count
    sent: dict[Name, Sent]
    from_stock: bool = False


class Ready(RunMessage, frozen=True):
    """Prepared; the inputs may come."""

    senders: ClassVar[frozenset[Role]] = FROM_PARTY
    seconds: Seconds


class Inputs(RunMessage, frozen=True):
    """Payload: ``x - a`` of each input, in the program's order.  ``signature``: of ``InputsSaid``."""

    senders: ClassVar[frozenset[Role]] = FROM_CLIENT
    masks: MasksDigest
    signature: Signature


class Opening(RunMessage, frozen=True, omit_defaults=True):
    """Payload: the sender's shares of everything opened in this round, or its part in the MAC check, as one array.

    In the first round, what it computes with: its client's ``inputs``, and its ``parts`` of what is bound to each slot;
    in the first and the last one of the check a ``signature`` (``SeenSaid``, ``SigmaSaid``).
    """

    senders: ClassVar[frozenset[Role]] = FROM_PARTY
    round: Count
    inputs: Vouched | None = None
    parts: Annotated[tuple[Vouched, ...], msgspec.Meta(max_length=1000)] = ()
    signature: Signature = b""


class Disputed(RunMessage, frozen=True):
    """The parties have not all seen the same: what each has signed of that, the sender included (``SeenSaid``).

    ``joined``: the sender says so because another one has said that they have not.
    """

    senders: ClassVar[frozenset[Role]] = FROM_PARTY
    joined: bool
    statements: Annotated[tuple[Statement, ...], msgspec.Meta(max_length=1000)]


class Outputs(RunMessage, frozen=True):
    """Payload: what ``protocols.readings.reveal`` says.  The figures are for the report, and are not trusted.

    ``offline`` and ``online``: what the party has sent in either phase, this message included, by receiver; ``dealt``:
    what it was sent of ``DealtPart``, which took so many ``dealing_seconds``.
    """

    senders: ClassVar[frozenset[Role]] = FROM_PARTY
    rounds: Count
    offline: dict[Name, Sent]
    online: dict[Name, Sent]
    compute_seconds: dict[str, float]
    wait_seconds: Seconds
    dealt: Sent = Sent()
    dealing_seconds: Seconds = 0.0


class Failed(RunMessage, frozen=True):
    """The run has failed at the sender; ``evidence`` is of what it has noticed."""

    fault: Fault
    evidence: Evidence | None = None

    @property
    def failure(self) -> Fault:
        return self.fault

    def credible(self, sender: str, cluster: Cluster) -> Fault:
        """What has failed; a MAC check only if that is proven of this run, or else the sender is at fault."""
        if self.fault.error != MacCheckError.__name__:
            return self.fault
        try:
            if isinstance(self.evidence, FailedCheck) and verify(self.evidence, cluster).run == self.run:
                return self.fault
        except UsageError:
            pass
        return Fault("ProtocolViolation", sender, "says that a MAC check has failed, and does not prove it")


class Release(RunMessage, frozen=True):
    """The client will not go on with a prepared run: forget it."""

    senders: ClassVar[frozenset[Role]] = FROM_CLIENT
