"""Two servers' audit logs, held against each other.

Each keeps the heads that the other has signed, and both have taken part in the same runs, uploads and rules.  What
cannot be if both servers are honest is a *contradiction*:

* a head that one has signed is not in its log, or its log ends before: it was truncated or rewritten (or the copy is
  older than the other one: then a newer one has it);
* a run that ended well at a party is not in the other log, though that goes on before and after: no party gets there
  without the dealer and all parties;
* both say of a run that ended well, or of a version, that it was another one;
* a version is in use at one alone, and the other was there to hear of it.

All else is an honest *difference*: a run that never reached one server or was refused there, ended differently at each,
or for which its client told them different things; an owner's word that reached one alone.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from parties.members.cluster import Member, Role
from parties.operate.audit import facts
from parties.operate.audit.entry import Entry
from parties.operate.audit.facts import OK, Fact
from parties.operate.audit.verify import Walk
from parties.operate.audit.words import moment, sentence

SLACK = 60_000
"""ms by which the two may say of one thing that it happened at different times."""


class Difference(NamedTuple):
    """``text`` in one sentence; ``contradiction``: honest servers do not write this."""

    when: int
    text: str
    contradiction: bool = False

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"time": moment(self.when), "text": self.text, "contradiction": self.contradiction}


class Said(NamedTuple):
    """Of one thing: when, and the fact."""

    when: int
    what: Any


@dataclass
class Book:
    """What there is to compare in a log, which is walked when this is made."""

    walk: Walk
    hashes: dict[tuple[str, int], str] = field(default_factory=dict)
    ends: dict[str, int] = field(default_factory=dict)
    """By log, the number of its last entry."""
    heads: list[Said] = field(default_factory=list)
    things: dict[type[Fact], dict[Hashable, Said]] = field(default_factory=dict)
    refusals: list[facts.Refused] = field(default_factory=list)
    absences: list[tuple[int, int]] = field(default_factory=list)
    """From when to when the server was not running, or is not known to have been."""

    def __post_init__(self) -> None:
        last: Entry | None = None
        for entry, head in self.walk:
            self.hashes[head.log, head.number] = head.hash
            self.ends[head.log] = head.number
            what = entry.what
            if isinstance(what, facts.PeerHead):
                self.heads.append(Said(entry.when, what))
            elif isinstance(what, facts.Refused):
                self.refusals.append(what)
            elif isinstance(what, facts.Started):
                self.absences.append((last.when if last else 0, entry.when))
            elif type(what) in _KEYS:
                self._note(_KEYS[type(what)](what), Said(entry.when, what))
            if not isinstance(what, facts.File | facts.Broken | facts.Cut):
                last = entry

    def _note(self, key: Hashable, said: Said) -> None:
        """The n-th of what has the same key is the n-th of the other's."""
        things = self.things.setdefault(type(said.what), {})
        things[key, next(n for n in itertools.count() if (key, n) not in things)] = said

    @property
    def name(self) -> str:
        """The server's."""
        return self.walk.member

    @property
    def role(self) -> Role | None:
        """The server's, as far as the cluster file says."""
        members = (member for cluster in self.walk.clusters for member in cluster.servers)
        return next((member.role for member in members if member.name == self.name), None)

    def why_not(self, when: int) -> str:
        """Why something of that moment need not be in it; empty when it has to be."""
        first, last = self.walk.first, self.walk.last
        if first is None or last is None or when < first.when + SLACK:
            return "which is before the log here begins"
        if when > last.when - SLACK:
            return "which is at or behind the end of the log here"
        if any(start - SLACK <= when <= end + SLACK for start, end in self.absences):
            return "when that server was being started"
        return ""


_KEYS: Mapping[type[Fact], Callable[[Any], Hashable]] = {
    facts.Run: lambda run: run.run,
    facts.Upload: lambda upload: upload.version,
    facts.Removal: lambda removal: (removal.owner, removal.name),
    facts.RuleChange: lambda rule: (rule.owner, rule.name, rule.client, rule.request),
    facts.Approval: lambda approval: (approval.client, approval.program, approval.owner, approval.decision),
    facts.ClusterChange: lambda change: change.number,
    facts.Evidence: lambda evidence: evidence.digest,
    facts.CheckFailed: lambda failed: failed.run,
}
"""By what each is known to be the same at both."""


def compare(one: Walk, other: Walk) -> list[Difference]:
    """All differences, in the order of time.  The walks must not have been walked before."""
    a, b = Book(one), Book(other)
    found = [*held_against(a, b), *held_against(b, a), *_only(a, b), *_only(b, a), *_both(a, b)]
    return sorted(found)


def held_against(signer: Book, keeper: Book) -> Iterator[Difference]:
    """What ``keeper`` has of the heads that ``signer`` has signed, and is not in its log."""
    keys = {member.key: member for cluster in signer.walk.clusters for member in cluster.servers}
    members = [member for member in keys.values() if member.name == signer.name]
    for when, fact in keeper.heads:
        if fact.member != signer.name:
            continue
        text = _head(fact, members, keeper, signer)
        if text:
            yield Difference(when, text, contradiction=True)


def _head(fact: facts.PeerHead, members: list[Member], keeper: Book, signer: Book) -> str:
    head, name = fact.head, signer.name
    said = f"entry {head.number}, which {name} signed for {keeper.name} as its last one at {moment(head.when)},"
    if not any(head.signed_by(member) for member in members):
        return f"{keeper.name} keeps a head that {name} has not signed: entry {head.number}"
    if head.log not in signer.ends:
        return f"{said} is of a log ({head.log}) of which nothing is here"
    if head.number > signer.ends[head.log]:
        return (
            f"{said} is not here, where the log ends at entry {signer.ends[head.log]}: it was truncated, unless this"
            " copy is older than that"
        )
    found = signer.hashes.get((head.log, head.number))
    if found is None:
        first = min(number for log, number in signer.hashes if log == head.log)
        return "" if head.number < first else f"{said} is missing"
    return "" if found == head.hash else f"{said} is another one here: {name} has rewritten its log"


def _only(a: Book, b: Book) -> Iterator[Difference]:
    """What is in ``a`` alone."""
    for kind, things in a.things.items():
        for key, (when, what) in things.items():
            if key in b.things.get(kind, {}):
                continue
            reason = b.why_not(when) or _reason(what, a, b, when)
            text = f"only at {a.name}: {sentence(what)}{_id(what)}"
            yield Difference(when, f"{text} ({reason})" if reason else text, contradiction=not reason)


def _reason(what: Fact, a: Book, b: Book, when: int) -> str:
    """Why ``b`` may not have it although it was there; empty when there is no honest reason."""
    if isinstance(what, facts.Run):
        if what.outcome != OK:
            return f"{b.name} never admitted it"
        if a.role is Role.DEALER:
            return f"dealt for, and {b.name} never admitted it"
        return ""
    if isinstance(what, facts.Upload):
        refused = any(
            (r.request, r.client) == ("Upload", what.owner) and abs(r.since - when) <= SLACK for r in b.refusals
        )
        return f"{b.name} refused one of that owner's" if refused else ""
    if isinstance(what, facts.RuleChange | facts.Removal | facts.Approval):
        return f"that word did not reach {b.name}, or was refused there"
    return f"{b.name} has not noticed"


def _both(a: Book, b: Book) -> Iterator[Difference]:
    """What both have, and say different things of."""
    for kind, things in a.things.items():
        for key, (when, one) in things.items():
            if key not in b.things.get(kind, {}):
                continue
            other = b.things[kind][key].what
            if isinstance(one, facts.Run):
                yield from _runs(when, one, other, a, b)
            elif isinstance(one, facts.Upload | facts.ClusterChange) and one != other:
                yield Difference(when, _contrast(one, other, a, b), contradiction=True)
            elif isinstance(one, facts.RuleChange) and one != other:
                yield Difference(when, f"{one.owner} told them different things: {_contrast(one, other, a, b)}")


def _runs(when: int, one: facts.Run, other: facts.Run, a: Book, b: Book) -> Iterator[Difference]:
    def what(run: facts.Run) -> tuple[object, ...]:
        return run.client, run.program, run.used, run.keep

    if what(one) != what(other):
        # Of one that did not end well: its client told them different things, which is why.
        well = one.outcome == other.outcome == OK
        yield Difference(when, _contrast(one, other, a, b), contradiction=well)
    elif one.outcome != other.outcome:
        ends = f"{one.outcome} at {a.name}, {other.outcome} at {b.name}"
        yield Difference(when, f"run {one.run[:8]} of {one.client} ended differently: {ends}")


def _contrast(one: Any, other: Any, a: Book, b: Book) -> str:
    return f"{a.name} says: {sentence(one)}{_id(one)}; {b.name} says: {sentence(other)}"


def _id(what: Fact) -> str:
    return f" [run {what.run[:8]}]" if isinstance(what, facts.Run) else ""
