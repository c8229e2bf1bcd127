"""A fact of an audit log in words, for people: one line each."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime

from mpc.errors import printable
from parties.messages.bindings import Binding
from parties.operate.audit import facts
from parties.operate.audit.facts import AnyFact

_SHORT = 8


def moment(when: int) -> str:
    """ms since 1970, as people and ISO 8601 write it."""
    return datetime.fromtimestamp(when / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def sentence(fact: AnyFact) -> str:
    """What it says; fit for a terminal, whoever has written it."""
    return printable(_said(fact))


def _said(fact: AnyFact) -> str:
    match fact:
        case facts.Run():
            keeps = f", keeps {fact.keep!r}" if fact.keep else ""
            culprit = f" ({fact.culprit})" if fact.culprit else ""
            return f"{fact.client} ran {_short(fact.program)}{_used(fact.used)}{keeps}: {fact.outcome}{culprit}"
        case facts.Refused():
            times = "" if fact.count == 1 else f", {fact.count} times since {moment(fact.since)}"
            return f"{fact.request} of {fact.client or 'somebody'} refused: {fact.error}{times}"
        case facts.Upload():
            return f"{fact.owner}/{fact.name} is version {_short(fact.version)}"
        case facts.Removal():
            return f"{fact.owner} has removed {fact.name!r}"
        case facts.RuleChange():
            programs = ", ".join(map(_short, fact.programs)) or "nothing"
            terms = f" ({fact.terms})" if fact.terms else ""
            for program in fact.programs:
                terms = terms.replace(program, _short(program))
            return f"{fact.owner} allows {fact.client} on {fact.name!r}: {programs}{terms}"
        case facts.Approval():
            on = f" on {', '.join(fact.slots)}" if fact.slots else ""
            if not fact.owner:
                return f"{fact.client} has {fact.decision} for leave to run {_short(fact.program)}{on}"
            return f"{fact.owner} {fact.decision} what {fact.client} asked for, {_short(fact.program)}{on}"
        case facts.StockOrder():
            again = f", and again below {fact.low_water}" if fact.low_water else ""
            return f"{fact.client} orders {fact.count} items of {_short(fact.program)}{_used(fact.used)}{again}"
        case facts.CheckFailed():
            told = f", {fact.told_by} says" if fact.told_by else ""
            gone = f"; {fact.destroyed}" if fact.destroyed else ""
            return f"the MAC check of run {_short(fact.run)} failed{told}{gone}"
        case facts.Evidence():
            run = f" in run {_short(fact.run)}" if fact.run else ""
            return f"evidence {_short(fact.digest)} against {fact.culprit}{run}: {fact.what}"
        case facts.ClusterChange():
            signers = f", signed by {', '.join(fact.signers)}" if fact.signers else ""
            change = f": {fact.change}" if fact.change else ""
            return f"cluster file {fact.number} ({_short(fact.fingerprint)}) is in force{signers}{change}"
        case facts.File():
            return f"log of {fact.member} in {fact.cluster!r}, signed under {fact.key}"
        case facts.Started():
            return f"started, release {fact.release}{'' if fact.clean else '; it had not been stopped in order'}"
        case facts.Stopped():
            return "stopped"
        case facts.PeerHead():
            conflict = f"; CONFLICT: {fact.conflict}" if fact.conflict else ""
            return f"{fact.member} has {fact.head.number} entries, the last {_short(fact.head.hash)}{conflict}"
        case facts.Cut():
            return f"{fact.bytes} bytes that were no entry are cut off"
        case facts.Broken():
            return f"BROKEN up to entry {fact.number}: {fact.reason}"
        case facts.Unsaid():
            return f"something of the kind {fact.of!r} could not be put down: see what the server logs"
        case facts.Deleted():
            return f"entries up to {fact.number} are deleted, as audit_days says"


def _used(bindings: Iterable[Binding]) -> str:
    used = ", ".join(f"{b.slot} {_short(b.version)} by rule {_short(b.rule)}{_others(b)}" for b in bindings)
    return f" on {used}" if used else ""


def _others(binding: Binding) -> str:
    return "".join(f" and {leave.owner}'s {_short(leave.rule)}" for leave in binding.others)


def _short(digest: str) -> str:
    """The first digits of what has many."""
    return digest[:_SHORT] if len(digest) >= 32 else digest
