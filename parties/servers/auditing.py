"""What goes into a server's audit log of runs, rules and orders."""

from __future__ import annotations

from collections.abc import Iterator

from parties.members.cluster import Member
from parties.messages.bindings import BoundProgram
from parties.messages.rules import Grants
from parties.messages.stock import Stock
from parties.operate.audit.desk import AuditDesk
from parties.operate.audit.facts import RuleChange, Run, StockOrder
from parties.operate.audit.quota import size_of_run
from parties.servers.job import Job
from parties.stored.rule_tables import SignedRules


def audit_run(desk: AuditDesk, job: Job, outcome: str, culprit: str) -> None:
    """It is over: a run that was admitted has an entry of its own, and one that was not is a refusal like others."""
    if job.bound is None or job.client is None:
        desk.refused(job.on_behalf, "Prepare", desk.outcome(outcome))
        return
    desk.record(
        Run(
            run=job.run,
            client=job.client.name,
            program=job.bound.program.digest,
            used=job.bound.bindings,
            outcome=desk.outcome(outcome),
            began=int(job.began * 1000),
            culprit=desk.member(culprit),
            keep=job.bound.keep,
        )
    )


def charge_run(desk: AuditDesk, client: str, bound: BoundProgram) -> None:
    """Before it is admitted.  Raises ServerBusy."""
    desk.charge(client, size_of_run(bound.bindings, bound.keep))


def rule_changes(found: SignedRules, former: Grants) -> Iterator[RuleChange]:
    """It is in force from now on: for each client whose rules are others than before."""
    owner, name = found.rules.owner, found.rules.name
    now = found.rules.by_client()
    for client in sorted({*former, *now}):
        rules = now.get(client, {})
        if rules != former.get(client, {}):
            programs = tuple(rule.program for rule in rules.values())
            terms = "; ".join(str(rule) for rule in rules.values() if rule.limited)
            yield RuleChange(owner, name, client, programs, found.digest[:32], terms[:500], tuple(rules))


def stock_order(client: Member, message: Stock, bound: BoundProgram) -> StockOrder:
    """It is taken."""
    return StockOrder(client.name, bound.program.digest, message.count, message.low_water, bound.bindings)
