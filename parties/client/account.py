"""What a run costs, noted while it runs by its client, and told by the others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from mpc.cost import Cost
from mpc.errors import ProtocolViolation
from mpc.security import Security
from parties.client.report import LayerReport, Phase, RunReport
from parties.messages.runs import ClientMasks, Outputs
from parties.tally import Link, Sent, Tally, total
from parties.wire.events import Delivery


@dataclass
class Account:
    """Of one run of ``client``."""

    client: str
    sent_offline: Tally = field(default_factory=Tally)
    sent_online: Tally = field(default_factory=Tally)
    """What this client has sent for the run, by receiver."""
    dealer: str = ""
    sent_by_dealer: Mapping[str, Sent] = field(default_factory=dict)
    """As the dealer says, who dealt for the run."""
    offline_bytes: int = 0
    offline_seconds: float = 0.0
    dealing_seconds: float = 0.0
    from_stock: bool = False

    def note_dealing(self, dealer: str, message: ClientMasks, size: int) -> None:
        """What the dealer says of its part, of which this client was sent ``size`` bytes."""
        self.dealing_seconds, self.from_stock = message.seconds, message.from_stock
        self.offline_bytes = message.dealt_bytes + size
        self.dealer, self.sent_by_dealer = dealer, message.sent

    def report(self, predicted: Cost, security: Security, shares: Mapping[str, Delivery], seconds: float) -> RunReport:
        """The bill, from what was ``predicted`` and what each party sent; ``seconds`` are those of the online phase.

        Raises ProtocolViolation: see ``_links``.
        """
        by_party = {name: d.message for name, d in shares.items() if isinstance(d.message, Outputs)}
        outputs, parties = list(by_party.values()), len(shares)
        online = [total(o.online) for o in outputs]
        self._note_parts(by_party)
        dealt = total(self.sent_by_dealer)
        layers = {
            name: LayerReport(
                layer.rounds,
                layer.opened,
                layer.dealt,
                layer.opened_bytes * (parties - 1),
                max(o.compute_seconds.get(name, 0.0) for o in outputs),
            )
            for name, layer in predicted.layers.items()
        }
        return RunReport(
            parties=parties,
            security=security,
            online=Phase(
                max(o.rounds for o in outputs),
                max(sent.messages for sent in online),
                max(sent.payload for sent in online),
                seconds,
            ),
            offline=Phase(0, dealt.messages, self.offline_bytes, self.offline_seconds),
            dealing_seconds=self.dealing_seconds,
            wait_seconds=max(o.wait_seconds for o in outputs),
            layers=layers,
            predicted=predicted,
            from_stock=self.from_stock,
            client=self.client,
            links=self._links(by_party),
        )

    def _note_parts(self, outputs: Mapping[str, Outputs]) -> None:
        """What was dealt to parties after the beginning, as they say."""
        for party, said in outputs.items():
            if said.dealt.messages:
                so_far = self.sent_by_dealer.get(party, Sent())
                self.sent_by_dealer = {**self.sent_by_dealer, party: so_far + said.dealt}
                self.offline_bytes += said.dealt.payload
                self.dealing_seconds += said.dealing_seconds

    def _links(self, outputs: Mapping[str, Outputs]) -> dict[str, dict[Link, Sent]]:
        """What went over each link in each phase, by what the senders say.

        Raises ProtocolViolation for a word about somebody who has no part in the run.
        """
        offline = {self.client: self.sent_offline, self.dealer: self.sent_by_dealer}
        online: dict[str, Mapping[str, Sent]] = {self.client: self.sent_online}
        members = {self.client, self.dealer, *outputs}
        tables = {
            "offline": {**offline, **{party: o.offline for party, o in outputs.items()}},
            "online": {**online, **{party: o.online for party, o in outputs.items()}},
        }
        for table in tables.values():
            for sender, sent in table.items():
                if not sent.keys() <= members - {sender}:
                    raise ProtocolViolation(sender, "reports messages to somebody who has no part in the run")
        return {
            phase: {(sender, receiver): n for sender, sent in table.items() for receiver, n in sent.items()}
            for phase, table in tables.items()
        }
