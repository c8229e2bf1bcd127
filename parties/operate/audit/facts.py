"""What an audit log says, one kind of fact a class.

No values, shares or masks, and no digests of anything that could be guessed: programs, versions, rules, names and how
it ended.  What a fact says is known to every member that has a part in it; names of classes and members that came over
a wire are those that exist, or left out.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

import msgspec

from parties.messages.audit import Milliseconds, Number, SignedHead
from parties.messages.bindings import Binding
from parties.messages.fields import Count, Digest, Id, Name, Ruled

Word = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_.:-]{0,64}\Z")]
"""A class, a member's name, a kind; empty where there is none."""
Line = Annotated[str, msgspec.Meta(max_length=500, pattern=r"^[^\x00-\x1f\x7f]*\Z")]
"""A sentence of ours."""

OK = "ok"
"""How something ended that did not fail; else the class of the error, or ``released``."""


class Fact(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, tag_field="kind"):
    """Base of all."""

    @property
    def clients(self) -> frozenset[str]:
        """Clients that did it, or that it is about."""
        return frozenset()

    @property
    def secrets(self) -> frozenset[tuple[str, str]]:
        """Owner and name of each secret that it is about."""
        return frozenset()


# -- what clients and owners do -------------------------------------------------------------------------------------


class Run(Fact, frozen=True, tag="run"):
    """A run that this server admitted, and how it ended here; at the dealer, well means that it was dealt for.

    ``used``: which versions it read, and by which rule each; ``keep``: the name under which its result stays;
    ``culprit``: the member at fault, if that is known; ``began``: when it was asked for.
    """

    run: Id
    client: Name
    program: Digest
    used: Annotated[tuple[Binding, ...], msgspec.Meta(max_length=1000)]
    outcome: Word
    began: Milliseconds
    culprit: Word = ""
    keep: Word = ""

    @property
    def clients(self) -> frozenset[str]:
        return frozenset({self.client})

    @property
    def secrets(self) -> frozenset[tuple[str, str]]:
        kept = {(self.client, self.keep)} if self.keep else set()
        return _read(self.used) | kept


class Refused(Fact, frozen=True, tag="refused"):
    """What that client asked for and did not get, ``count`` times since ``since``: one entry for all alike."""

    client: Word
    request: Word
    error: Word
    count: Count
    since: Milliseconds

    @property
    def clients(self) -> frozenset[str]:
        return frozenset({self.client})


class _Secret(Fact, frozen=True):
    """About one secret."""

    owner: Name
    name: Ruled

    @property
    def clients(self) -> frozenset[str]:
        return frozenset({self.owner})

    @property
    def secrets(self) -> frozenset[tuple[str, str]]:
        return frozenset({(self.owner, self.name)})


class Upload(_Secret, frozen=True, tag="upload"):
    """A version came into use: it was uploaded, or the run of that id has left it."""

    version: Id


class Removal(_Secret, frozen=True, tag="removal"):
    """Its owner has removed it."""

    request: Id


class RuleChange(_Secret, frozen=True, tag="rule"):
    """From now on ``client`` may run ``programs`` on it, and no others; ``terms`` say how often, or until when.

    ``request`` names the signed set that says so, at all servers alike; and ``rules``, in the order of ``programs``, is
    what runs call each rule.
    """

    client: Annotated[str, msgspec.Meta(pattern=r"^(\*|[A-Za-z0-9][A-Za-z0-9_.-]{0,63})\Z")]
    programs: Annotated[tuple[Word, ...], msgspec.Meta(max_length=1000)]
    request: Id
    terms: Line = ""
    rules: Annotated[tuple[Digest, ...], msgspec.Meta(max_length=1000)] = ()

    @property
    def clients(self) -> frozenset[str]:
        return frozenset({self.owner, self.client})


class Approval(Fact, frozen=True, tag="approval"):
    """``client`` has asked for leave to run a program; or ``owner`` approves or denies it, for ``slots`` of its own.

    ``asked``: whom it asks.
    """

    client: Name
    program: Digest
    decision: Word
    slots: Annotated[tuple[str, ...], msgspec.Meta(max_length=1000)]
    owner: Word = ""
    asked: Annotated[tuple[Name, ...], msgspec.Meta(max_length=1000)] = ()

    @property
    def clients(self) -> frozenset[str]:
        return frozenset({self.client, self.owner, *self.asked} - {""})

    @property
    def secrets(self) -> frozenset[tuple[str, str]]:
        return _owned(self.slots)


class StockOrder(Fact, frozen=True, tag="stock"):
    """A client has ordered preprocessing for a program over these versions."""

    client: Name
    program: Digest
    count: Count
    low_water: Count
    used: Annotated[tuple[Binding, ...], msgspec.Meta(max_length=1000)] = ()

    @property
    def clients(self) -> frozenset[str]:
        return frozenset({self.client})

    @property
    def secrets(self) -> frozenset[tuple[str, str]]:
        return _read(self.used)


# -- who cheats, and who is in ---------------------------------------------------------------------------------------


class CheckFailed(Fact, frozen=True, tag="check-failed"):
    """A MAC check has failed, here or as ``told_by`` says; ``destroyed``: the stock that went for it."""

    run: Id
    told_by: Word = ""
    destroyed: Line = ""


class Evidence(Fact, frozen=True, tag="evidence"):
    """Signed messages that prove something of ``culprit`` are kept: ``digest`` is the record's, ``what`` its kind."""

    culprit: Name
    what: Word
    digest: Digest
    run: Annotated[str, msgspec.Meta(pattern=r"^([0-9a-f]{32})?\Z")] = ""


class ClusterChange(Fact, frozen=True, tag="cluster"):
    """From now on cluster file ``number`` is in force here; ``signers`` have agreed to it."""

    number: Count
    fingerprint: Digest
    signers: tuple[Name, ...] = ()
    change: Line = ""


# -- the log itself --------------------------------------------------------------------------------------------------


class File(Fact, frozen=True, tag="file"):
    """The first entry of each file: whose log it is, and under which key it is signed from here on."""

    member: Name
    key: Annotated[str, msgspec.Meta(min_length=80, max_length=80)]
    cluster: Name


class Started(Fact, frozen=True, tag="started"):
    """The server has been started; ``clean``: it was stopped before, and did not end otherwise."""

    release: Word
    fingerprint: Digest
    clean: bool


class Stopped(Fact, frozen=True, tag="stopped"):
    """The server stops."""


class PeerHead(Fact, frozen=True, tag="head"):
    """What ``member`` has signed of its own log; ``conflict``: it does not go with what it had signed before."""

    member: Name
    head: SignedHead
    conflict: Line = ""


class Cut(Fact, frozen=True, tag="cut"):
    """What followed the last whole entry when the server was started was no entry, as after a crash: it was cut off."""

    bytes: Count
    digest: Digest


class Broken(Fact, frozen=True, tag="broken"):
    """Up to entry ``number`` the log was written, and is not there as it was: somebody has changed or removed it."""

    number: Number
    hash: Digest
    reason: Line


class Unsaid(Fact, frozen=True, tag="unsaid"):
    """Something of that kind has happened that could not be put down: a fault of ours; see what the server logs."""

    of: Word


class Deleted(Fact, frozen=True, tag="deleted"):
    """Entries up to ``number``, whose hash was ``hash``, are deleted, being older than ``audit_days``."""

    number: Number
    hash: Digest


AnyFact = (
    Run | Refused | Upload | Removal | RuleChange | Approval | StockOrder | CheckFailed | Evidence | ClusterChange
    | File | Started | Stopped | PeerHead | Cut | Broken | Unsaid | Deleted
)  # fmt: skip

KINDS: tuple[str, ...] = tuple(str(kind.__struct_config__.tag) for kind in AnyFact.__args__)
"""As ``tessera audit show --kind`` has them."""


def kind_of(fact: Fact) -> str:
    """One of `KINDS`."""
    return str(fact.__struct_config__.tag)


def _read(used: Iterable[Binding]) -> frozenset[tuple[str, str]]:
    """What is read, also by what those call it to whom it belongs as well."""
    joint = frozenset((leave.owner, binding.slot) for binding in used for leave in binding.others)
    return _owned(binding.slot for binding in used) | joint


def _owned(slots: Iterable[str]) -> frozenset[tuple[str, str]]:
    parts = (slot.partition("/") for slot in slots)
    return frozenset((owner, name) for owner, _, name in parts)
