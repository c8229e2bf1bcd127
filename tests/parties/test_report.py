"""The bill of a run, from what the others say of it."""

from __future__ import annotations

import pytest

from mpc.cost import cost
from mpc.errors import ProtocolViolation
from mpc.operation import Input
from mpc.program import Expression, Program
from mpc.security import Security
from parties.client.account import Account
from parties.client.report import RunReport
from parties.members.cluster import Member, Role
from parties.messages.runs import Outputs
from parties.tally import Sent, Tally
from parties.wire.events import Delivery

RUN = "0123456789abcdef" * 2


def report(dealer: dict[str, Sent], *online: dict[str, Sent]) -> RunReport:
    """Of a run of as many parties as say what they have sent."""
    program = Program.of([Expression(Input((2,), 16, -1.0, 1.0))])
    run = Account("clinic")
    run.sent_offline.add("dealer", 300)
    run.sent_online.add("p0", 16)
    run.dealer, run.sent_by_dealer = "dealer", dealer
    shares = {}
    for i, sent in enumerate(online):
        message = Outputs(
            run=RUN, rounds=1, offline={"clinic": Sent(1, 0)}, online=sent, compute_seconds={}, wait_seconds=0.0
        )
        member = Member(name=f"p{i}", role=Role.PARTY, key="k", address="127.0.0.1:1", index=i)
        shares[member.name] = Delivery(member, message, [])
    return run.report(cost(program, len(shares)), Security.SEMI_HONEST, shares, 0.5)


def test_what_everybody_sent() -> None:
    bill = report({"p0": Sent(1, 16), "clinic": Sent(1, 40)}, {"clinic": Sent(1, 16)}, {"clinic": Sent(2, 24)})
    assert bill.links == {
        "offline": {
            ("clinic", "dealer"): Sent(1, 300),
            ("dealer", "p0"): Sent(1, 16),
            ("dealer", "clinic"): Sent(1, 40),
            ("p0", "clinic"): Sent(1, 0),
            ("p1", "clinic"): Sent(1, 0),
        },
        "online": {("clinic", "p0"): Sent(1, 16), ("p0", "clinic"): Sent(1, 16), ("p1", "clinic"): Sent(2, 24)},
    }
    # The party that sent most; and the dealer to everyone.
    assert (bill.online.messages, bill.online.bytes) == (2, 24)
    assert bill.offline.messages == 2
    assert bill.sent("offline", "dealer") == Sent(2, 56)
    assert bill.sent("online", "dealer") == Sent(0, 0)
    assert bill.to_dict()["links"]["online"]["p1>clinic"] == {"messages": 2, "payload": 24}


@pytest.mark.parametrize("stranger", ["p2", "p0"])
def test_who_has_no_part_in_the_run_was_sent_nothing(stranger: str) -> None:
    with pytest.raises(ProtocolViolation, match="no part in the run") as caught:
        report({}, {stranger: Sent(1, 1)}, {})
    assert caught.value.peer == "p0"
    with pytest.raises(ProtocolViolation) as caught:
        report({"another clinic": Sent(1, 1)}, {}, {})
    assert caught.value.peer == "dealer"


def test_a_tally() -> None:
    tally = Tally()
    for receiver, payload in (("a", 3), ("b", 0), ("a", 4)):
        tally.add(receiver, payload)
    assert tally == {"a": Sent(2, 7), "b": Sent(1, 0)}
