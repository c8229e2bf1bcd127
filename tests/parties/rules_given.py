"""Rules as an owner might have given them, for tests."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from parties.messages.bindings import OWNER
from parties.messages.rules import Grants, Rule, RuleSet
from parties.stored.policy import Policy
from parties.stored.rules import RuleBook, signed

NO_RULE = "0" * 64


def grants_of(
    programs: Mapping[str, Iterable[str]], *, owner: str = "company", name: str = "net", **limits: Any
) -> Grants:
    """Programs by client, all in one set."""
    rules = tuple(Rule(client, p, 1, **limits) for client, of in programs.items() for p in sorted(of))
    return RuleSet(owner, name, 1, rules).by_client()


def identity(policy: Policy, client: str, program: str) -> str:
    """Of the rule by which ``client`` may run that; of none, if there is none."""
    if program == OWNER:
        return OWNER
    return next((i for i, rule in policy.of(client).items() if rule.program == program), NO_RULE)


def tell(book: RuleBook, site: Any, owner: str, name: str, client: str, programs: Iterable[str], **limits: Any) -> None:
    """That server alone hears now what an owner allows ``client``, by a set of the next number."""
    member, held = site.cluster.member(owner), book.held(site.cluster.member(owner), name)
    former, number = ((), 1) if held is None else (held.rules.rules, held.rules.number + 1)
    rules = [rule for rule in former if rule.client != client]
    rules += [Rule(client, program, number, **limits) for program in programs]
    found = signed(site.keys[owner], site.cluster, member, RuleSet(owner, name, number, tuple(rules)))
    assert book.store(found, site.cluster)
    book.apply(found)
