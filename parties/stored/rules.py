"""What owners have allowed, as a server knows it: by owner and name, in its data folder.

Rules belong to a name and its owner, not to a version: they outlast uploads in its place.  When the name is removed
its owner allows nothing on it any more, by a set without rules.  ``parties.stored.policy`` says what rules mean.

*Whose word counts.*  The owner's alone: a set is signed by it (``verified``).  So whoever has one may bring it: the
owner's client, which brings the newest to servers that lack it before it uploads anything under the name, and the
servers, which tell each other when one of them has started, or has been told.  A server that was away, or has lost its
disk, has it again then.

*Which one counts.*  That with the highest number, ever: no server takes a former one in its place, from whomever.  The
number is what remains of rules when a name is removed, so that nobody brings them back.  A server that has lost its
disk knows no number, but nothing can be run there either until the owner has uploaded again; before that its client
has asked *all* servers, and brought the highest that any of them has.  So a rule that was taken back stays so as long
as one of the servers is honest and has kept its disk.

A signature is for one cluster by its name: an owner that is known by one key in two clusters of a name says in both
what it says in one.  It is checked by the key that its owner has now: an owner that was given a new key signs its rules
anew with the next ``allow`` or upload, and whatever it has signed by that key comes after all it had signed before.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable

from mpc.errors import ProgramError, ProtocolViolation
from parties.members.cluster import Cluster, Member
from parties.members.keys import KeyPair
from parties.messages.rules import Grants, Known, Rule, RuleSet
from parties.stored.quotas import MAX_RULES
from parties.stored.record import Descent
from parties.stored.rule_tables import RuleTables, SignedRules

PURPOSE = "rules"
"""What they are signed for (``KeyPair.sign``)."""

_COMPARED = 64 << 10
"""Bytes of a set that is compared with those there are, before anything else is done with it."""

MOST_SETS = 4000
"""Of one owner."""


def signed(keys: KeyPair, cluster: Cluster, owner: Member, rules: RuleSet) -> SignedRules:
    """By their owner, whose keys these are."""
    encoded = rules.encode()
    return SignedRules(owner.identity, rules, encoded, keys.sign(PURPOSE, cluster.name.encode(), encoded))


def verified(cluster: Cluster, bringer: str, encoded: memoryview, signature: memoryview) -> SignedRules:
    """What ``bringer`` says a client of the cluster has allowed.

    Raises ProgramError for what are no rules, ProtocolViolation, naming the bringer, if they are not signed by it.
    """
    rules = RuleSet.decode(encoded)
    owner = cluster.client(rules.owner)
    found = SignedRules("" if owner is None else owner.identity, rules, bytes(encoded), bytes(signature))
    if not is_signed(cluster, found):
        raise ProtocolViolation(bringer, f"sent rules of {rules.owner} on {rules.name!r} that it has not signed")
    return found


def is_signed(cluster: Cluster, found: SignedRules) -> bool:
    """Whether the signature is one by the key that their owner has now."""
    owner = cluster.client_who_is(found.owner)
    if owner is None or owner.name != found.rules.owner:
        return False
    return owner.signed(found.signature, PURPOSE, cluster.name.encode(), found.encoded)


class RuleBook:
    """Rules by owner and name.  Methods that say so block, on the disk; the others are quick."""

    def __init__(self, tables: RuleTables) -> None:
        self._tables = tables
        self._sets: dict[tuple[str, str], SignedRules] = {}
        self._grants: dict[tuple[str, str], Grants] = {}
        self._encoded: dict[bytes, SignedRules] = {}
        self._writing = threading.Lock()
        for found in tables.all():
            self.apply(found)

    def grants(self, owner: Member, name: str) -> Grants:
        """In force on that owner's secret."""
        return self.at((owner.identity, name))

    def at(self, place: tuple[str, str]) -> Grants:
        """In force there."""
        return self._grants.get(place, {})

    def others(self, cluster: Cluster, slot: str, descent: Descent) -> dict[str, Grants]:
        """What the joint owners of what is in a slot allow on it, by name; who is no client any more, nothing.

        A rule is for what one program has made; and where it is for a program, for what that makes of it in its place.
        """
        found = dict[str, Grants]()
        for identity in descent.joint:
            owner = cluster.client_who_is(identity)
            if owner is None:
                found[identity] = {}
            else:
                given = self.grants(owner, slot).items()
                found[owner.name] = {c: {i: r for i, r in of.items() if _is_for(r, descent)} for c, of in given}
        return found

    def held(self, owner: Member, name: str) -> SignedRules | None:
        """The newest set of that owner."""
        return self._sets.get((owner.identity, name))

    def repeated(self, owner: Member, encoded: memoryview, signature: memoryview) -> SignedRules | None:
        """The set that is in force already, if this is one: whoever repeats itself has it checked and written once."""
        held = self._encoded.get(bytes(encoded)) if len(encoded) + len(signature) <= _COMPARED else None
        return (
            held if held is not None and (held.owner, held.signature) == (owner.identity, signature.tobytes()) else None
        )

    def count(self, owner: Member) -> int:
        """Rules that this owner has given, as far as their number is bounded."""
        return sum(len(held.rules.rules) for place, held in list(self._sets.items()) if place[0] == owner.identity)

    @property
    def known(self) -> list[Known]:
        """Of each set, its number."""
        return [Known(*place, *held.order) for place, held in list(self._sets.items())]

    def newer_than(self, known: Iterable[Known]) -> list[SignedRules]:
        """What another lacks, who has these."""
        orders = {(owner, name): tuple(order) for owner, name, *order in known}
        return [held for place, held in list(self._sets.items()) if held.order > orders.get(place, (0, ""))]

    def lacks(self, found: SignedRules, cluster: Cluster) -> bool:
        """Whether they are newer than what is in force there."""
        held = self._sets.get(found.place)
        return held is None or held.order < found.order or not is_signed(cluster, held)

    def store(self, found: SignedRules, cluster: Cluster) -> bool:
        """On the disk, if they are newer; whether they are, and are to be applied.  Blocks.

        Raises ProgramError when there are too many, VaultError.
        """
        with self._writing:
            if not self.lacks(found, cluster):
                return False
            if (
                found.place not in self._sets
                and sum(owner == found.owner for owner, _ in list(self._sets)) >= MOST_SETS
            ):
                raise ProgramError(f"{found.rules.owner} has rules of {MOST_SETS} names, and no more are kept")
            others = {place: held for place, held in list(self._sets.items()) if place[0] == found.owner}
            if sum(len(each.rules.rules) for each in {**others, found.place: found}.values()) > MAX_RULES:
                raise ProgramError(
                    f"rules of {found.rules.owner} allow {MAX_RULES} programs already, each counted for every client"
                    " that may run it: allow fewer first (tessera allow NAME CLIENT --nothing)"
                )
            over = _identities(self.at(found.place)) - _identities(found.rules.by_client())
            self._tables.write(found, over)
        return True

    def apply(self, found: SignedRules) -> None:
        """From now on they are in force."""
        former = self._sets.get(found.place)
        if former is not None:
            self._encoded.pop(former.encoded, None)
        self._encoded[found.encoded] = found
        self._sets[found.place], self._grants[found.place] = found, found.rules.by_client()


def _identities(grants: Grants) -> set[str]:
    return {identity for rules in grants.values() for identity in rules}


def newest(sets: Iterable[SignedRules | None]) -> SignedRules | None:
    """The one that servers prefer to the others."""
    return max((found for found in sets if found is not None), key=lambda found: found.order, default=None)


def _is_for(rule: Rule, descent: Descent) -> bool:
    return descent.made in (rule.made, rule.program)
