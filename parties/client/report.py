"""What a run cost, as measured: rounds, bytes and seconds, by phase and by layer, beside what was predicted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import msgspec

from mpc.cost import Cost
from parties.tally import Link, Sent, total


@dataclass(frozen=True)
class Phase:
    """Measured figures of one phase of one run."""

    rounds: int
    messages: int
    bytes: int
    """Payload.  Both online: sent by the party that sent most; offline: sent by the dealer to everyone."""
    seconds: float


@dataclass(frozen=True)
class LayerReport:
    """One layer: predicted rounds, elements and bytes, and the time the slowest party computed online."""

    rounds: int
    opened: int
    dealt: int
    bytes: int
    """Payload each party sends for it online: what it opens, to every other party."""
    seconds: float


LEFT = "a value left the interval on which a function holds, or the range that is assumed of it"
FAR_OFF = f"in this run {LEFT}: its results may be far off"
NO_ANSWER = f"no answer: {LEFT}"


@dataclass(frozen=True)
class RunReport:
    """The bill of one run.

    Offline seconds are from asking for the run until every party is ready; online seconds from sending the masked
    inputs until the outputs are decoded, both at the client.  ``wait_seconds`` is what the slowest party's rounds
    spent waiting for the others.
    """

    parties: int
    security: str
    online: Phase
    offline: Phase
    dealing_seconds: float
    wait_seconds: float
    layers: Mapping[str, LayerReport] = field(repr=False)
    predicted: Cost = field(repr=False)
    client: str
    """The name of who asked for the run."""
    links: Mapping[str, Mapping[Link, Sent]] = field(repr=False)
    """By phase, ``offline`` and ``online``: messages and payload from process to process, as the senders counted them.

    Only what belongs to this run: no pings, and nothing that was dealt ahead of time.  Payload is that of the frames,
    so the program is counted, which the client sends to everyone offline.
    """
    from_stock: bool = False
    """Whether the run used what was dealt ahead of time; its offline bytes were sent then."""
    runs: int = 1
    """How many runs this is the sum of."""
    in_range: bool | None = None
    """Whether all values stayed in the intervals that functions hold on, and in ranges that are assumed.

    If not, there is no answer, where anything stored is read; else results may be far off.
    None where values cannot leave them, and of what is kept, which is not kept then.
    """
    unanswered: tuple[int, ...] = ()
    """The places of samples in the batch to which there is no answer, where others have one; else 0, for the whole."""

    def sent(self, phase: str, sender: str) -> Sent:
        """What a process has sent to all others in a phase."""
        return total({link: sent for link, sent in self.links[phase].items() if link[0] == sender})

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for JSON."""
        return {
            "parties": self.parties,
            "security": self.security,
            "in_range": self.in_range,
            "unanswered": list(self.unanswered),
            "online": {
                "rounds": self.online.rounds,
                "messages_per_party": self.online.messages,
                "bytes_per_party": self.online.bytes,
                "seconds": self.online.seconds,
            },
            "offline": {
                "messages": self.offline.messages,
                "bytes": self.offline.bytes,
                "seconds": self.offline.seconds,
                "from_stock": self.from_stock,
            },
            "layers": {
                name: {
                    "rounds": x.rounds,
                    "opened": x.opened,
                    "dealt": x.dealt,
                    "bytes_per_party": x.bytes,
                    "seconds": x.seconds,
                }
                for name, x in self.layers.items()
            },
            "links": {
                phase: {link_name(link): msgspec.to_builtins(sent) for link, sent in links.items()}
                for phase, links in self.links.items()
            },
        }

    def __str__(self) -> str:
        online, offline = self.online, self.offline
        rows = [
            f"{self.parties} parties, {self.security}: online {online.rounds} rounds, {online.bytes:,} bytes sent per"
            f" party, {online.seconds * 1e3:.1f} ms; offline {offline.bytes:,} bytes, {offline.seconds * 1e3:.1f} ms"
            + (" (dealt ahead of time)" if self.from_stock else "")
        ]
        width = max((len(name) for name in self.layers), default=0)
        for name, layer in self.layers.items():
            rows.append(
                f"  {name or '-':<{width}}  {layer.rounds} rounds  {layer.opened:>9,} opened  {layer.dealt:>11,} dealt"
                f"  {layer.seconds * 1e3:8.2f} ms"
            )
        return "\n".join(rows)


def link_name(link: Link) -> str:
    """``sender>receiver``."""
    return ">".join(link)


@dataclass(frozen=True)
class StockReport:
    """What has been dealt ahead of time for a program, on the versions of the secrets that it reads."""

    program: str
    """Digest of these together, as servers list their stock; no rule takes it."""
    done: int
    """Items of this request that every party has stored."""
    in_stock: int
    """Items of this program in stock, in all."""
    bytes: int
    """Payload the dealer sent to the parties for this request."""
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        return (
            f"{self.done} runs dealt in {self.seconds:.1f} s, {self.bytes:,} bytes; {self.in_stock} in stock of program"
            f" {self.program[:8]}"
        )
