"""How one cluster file follows another: numbered, and signed by the members that the one before names.

A *step* is a whole cluster file with signatures.  Its file has the number of the one before plus one and says that
one's fingerprint, so the files that ever were in force are a chain, and a signature of a file is one of all that came
before it.  A step counts with the signatures of all whom the file *before* it names (``[settings] signers``; by
default all servers), by the keys that are listed there.  So whoever has any file of the chain can go on to the newest
by itself, believing nobody but the signers of the files it has; and nobody, without them all, can make it go
elsewhere.

*Who a member is.*  In what is stored for years a member is known by its name and by the key that it came with
(``Member.identity``), whichever key it has now.  The file says so (``origin``), for whoever was given no former one,
and the signers of the file before have seen that it is right.  Therefore

* a key, or a half of it, belongs to the name that had it first, for good;
* a name stays what it is, dealer, party or client, and a member that went comes back with the key that it had last;
* a key that was replaced is not taken back: somebody may have read it.

The chain begins with the file that its holder was given, which it trusts as it always did: nothing shows where that
came from.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated

import msgspec

from mpc.errors import ConfigurationError
from parties.members.cluster import Cluster, Member
from parties.members.keys import KeyPair, curve_half, signing_half

PURPOSE = "cluster file"
"""Of the signatures."""

MAX_TEXT = 1 << 18
"""Characters of a cluster file that is taken from others: some 1,500 members."""

MAX_STEPS = 64
MAX_STEPS_BYTES = 4 << 20
"""What is told at once; whoever is further behind goes on so far, and is told the rest."""

_Signatures = Annotated[dict[str, Annotated[bytes, msgspec.Meta(max_length=64)]], msgspec.Meta(max_length=64)]


class Step(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A cluster file, and who has signed it; signatures by name."""

    text: Annotated[str, msgspec.Meta(max_length=MAX_TEXT)]
    signatures: _Signatures = {}

    def encode(self) -> bytes:
        """One line of JSON."""
        return msgspec.json.encode(self)

    @classmethod
    def decode(cls, line: bytes | memoryview) -> Step:
        """Raises ConfigurationError for what is none.  Nothing is known then of its file and signatures."""
        try:
            return msgspec.json.decode(line, type=cls)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise ConfigurationError("what should be a signed cluster file is malformed") from None

    def cluster(self) -> Cluster:
        """What the file says.  Raises ConfigurationError."""
        return Cluster.loads(self.text, source="a signed cluster file")

    def signed(self, name: str, keys: KeyPair) -> Step:
        """With that member's signature."""
        signature = sign(self.cluster(), keys)
        return Step(self.text, {**self.signatures, name: signature})


def sign(cluster: Cluster, keys: KeyPair) -> bytes:
    """The holder of these keys wants this file to be in force after the one that it names."""
    return keys.sign(PURPOSE, cluster.fingerprint.encode())


def check_signatures(former: Cluster, new: Cluster, signatures: Mapping[str, bytes]) -> frozenset[str]:
    """Who, of those that ``former`` names, has not signed.

    Raises ConfigurationError for a signature that is not right, or of somebody else.
    """
    signers = {signer.name: signer for signer in former.signers}
    for name, signature in signatures.items():
        if name not in signers:
            raise ConfigurationError(
                f"cluster file {new.number} is signed by {name!r}, which cluster file {former.number} does not ask to"
            )
        if not signers[name].signed(signature, PURPOSE, new.fingerprint.encode()):
            raise ConfigurationError(f"cluster file {new.number} bears a signature of {name} that is not right")
    return frozenset(signers.keys() - signatures.keys())


@dataclass(frozen=True)
class Succession:
    """Files that have followed one another, as far as their holder knows; `begin` and `after` make them."""

    steps: tuple[Step, ...]
    """The first without signatures: its holder was given it."""
    cluster: Cluster
    """What the last one says, members with their identities."""
    _fingerprints: Mapping[str, int | None] = field(repr=False)
    """Which step it is of; None: the one before the first, of which nothing else is known."""
    _members: Mapping[str, Member] = field(repr=False)
    """Whoever there ever was, as it was last, by name."""
    _keys: Mapping[str, str] = field(repr=False)
    """Whose a half of a key is, or was."""

    @classmethod
    def begin(cls, cluster: Cluster) -> Succession:
        """Of this file alone."""
        members = {member.name: member for member in cluster.members}
        before = {cluster.former: None} if cluster.former else {}
        return cls((Step(cluster.dumps()),), cluster, {**before, cluster.fingerprint: 0}, members, _keys(cluster))

    def knows(self, fingerprint: str) -> bool:
        """Whether that file is one of these, or the one before them."""
        return fingerprint in self._fingerprints

    def holder(self, key: str) -> str | None:
        """Whose that key is, or was."""
        return self._keys.get(curve_half(key))

    def since(self, fingerprint: str) -> list[bytes]:
        """What followed that file, encoded, as far as it is told at once; nothing after one that is not known."""
        at = self._fingerprints.get(fingerprint)
        following: list[bytes] = []
        for step in () if at is None else self.steps[at + 1 : at + 1 + MAX_STEPS]:
            following.append(step.encode())
            if sum(map(len, following)) > MAX_STEPS_BYTES:
                return following[:-1]
        return following

    def told(self, steps: Sequence[memoryview]) -> Succession:
        """Gone on by what another member's `since` has given.  Raises ConfigurationError."""
        if len(steps) > MAX_STEPS or sum(map(len, steps)) > MAX_STEPS_BYTES:
            raise ConfigurationError(f"more than {MAX_STEPS} signed cluster files at once")
        return self.followed_by(map(Step.decode, steps))

    def followed_by(self, steps: Iterable[Step]) -> Succession:
        """With those of the steps that are newer than what is here.

        Raises ConfigurationError for one that must not follow, or is not signed by all.
        """
        succession = self
        for step in steps:
            new = step.cluster()
            if new.number > succession.cluster.number:
                missing = check_signatures(succession.cluster, succession.check(new), step.signatures)
                if missing:
                    raise ConfigurationError(
                        f"cluster file {new.number} is not signed by {', '.join(sorted(missing))}, as cluster file"
                        f" {succession.cluster.number} asks"
                    )
                succession = succession._with(step, new)
        return succession

    def check(self, new: Cluster) -> Cluster:
        """The file, if it may follow.  Raises ConfigurationError."""
        current = self.cluster
        if new.name != current.name:
            raise ConfigurationError(f"the cluster is called {current.name!r}, and stays so: not {new.name!r}")
        if new.number != current.number + 1 or new.former != current.fingerprint:
            raise ConfigurationError(
                f"cluster file {new.number} does not follow the one in force, which is number {current.number}: a file"
                f' that does says `number = {current.number + 1}` and `former = "{current.fingerprint}"`'
            )
        for member in new.members:
            self._check_member(member)
        return new

    def completed(self, new: Cluster) -> Cluster:
        """The file with number, fingerprint and origins as it has to have them, where it is written without."""
        current = self.cluster
        if (new.number, new.former) in ((current.number, current.former), (1, "")):
            new = replace(new, number=current.number + 1, former=current.fingerprint)
        members = {m.name: m if m.origin else replace(m, origin=self._origin(m)) for m in new.members}
        return replace(
            new,
            dealer=members[new.dealer.name],
            parties=tuple(members[party.name] for party in new.parties),
            clients=tuple(members[client.name] for client in new.clients),
        )

    def _check_member(self, member: Member) -> None:
        known = self._members.get(member.name)
        if known is not None and known.role is not member.role:
            raise ConfigurationError(
                f"{member.name} is a {known.role}, and cannot become a {member.role}: name another"
            )
        if known is None or known.key != member.key:
            for half in _halves(member):
                if half in self._keys:
                    raise ConfigurationError(
                        f"the key of {member.name} is, or was, {self._keys[half]}'s: make another (tessera keygen)"
                    )
        # Who came before the first file that is known here may come back.
        unknown = known is None and self.steps[0].cluster().number > 1
        if member.origin != self._origin(member) and not (
            unknown and self._keys.get(curve_half(member.origin)) is None
        ):
            raise ConfigurationError(
                f"{member.name} came with another key than its `origin` says, which is {self._origin(member)!r}"
            )
        if known is not None and known.key != member.key and member.name not in self._present:
            raise ConfigurationError(
                f"{member.name} was a member before, and comes back with the key it had or under another name"
            )

    @property
    def _present(self) -> frozenset[str]:
        return frozenset(member.name for member in self.cluster.members)

    def _origin(self, member: Member) -> str:
        known = self._members.get(member.name)
        origin = member.key if known is None else known.identity
        return "" if origin == member.key else origin

    def _with(self, step: Step, new: Cluster) -> Succession:
        return Succession(
            (*self.steps, step),
            new,
            {**self._fingerprints, new.fingerprint: len(self.steps)},
            {**self._members, **{member.name: member for member in new.members}},
            {**self._keys, **_keys(new)},
        )


def is_smooth(former: Cluster, new: Cluster) -> bool:
    """Whether runs and links can go on: the same servers in the same order, and settings that say the same for runs.

    Clients may come, go and have other keys; servers may have other keys and addresses; others may have to sign.
    """
    names = [[server.name for server in cluster.servers] for cluster in (former, new)]
    settings = [msgspec.structs.replace(cluster.settings, signers=()) for cluster in (former, new)]
    return names[0] == names[1] and settings[0] == settings[1]


def encode(steps: Sequence[Step]) -> bytes:
    """Lines, as a file has them."""
    return b"".join(step.encode() + b"\n" for step in steps)


def decode(lines: bytes) -> list[Step]:
    """What `encode` was given.  Raises ConfigurationError."""
    return [Step.decode(line) for line in lines.splitlines()]


def _keys(cluster: Cluster) -> dict[str, str]:
    """Whose each half of a key is, or was."""
    keys = {half: member.name for member in cluster.members for half in _halves(member)}
    return keys | {half(m.origin): m.name for m in cluster.members if m.origin for half in (curve_half, signing_half)}


def _halves(member: Member) -> tuple[str, str]:
    return curve_half(member.key), signing_half(member.key)
