"""The cost reading of a program: rounds and payload bytes per party and phase, before anything runs.

Payload is what a protocol must send: field elements and seeds.  Frames, headers and encryption come on top and are
counted apart by the transport.  The measured payload of a run equals this prediction to the byte.

``Cost.latency`` says how long the network takes for a run: delays and bytes, without computing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from mpc.errors import UsageError
from mpc.objective import ANY, LATENCY, TRAFFIC, Objective
from mpc.operation import Input
from mpc.program import Program
from mpc.rings import FieldRing
from mpc.rings.prg import SEED_BYTES
from mpc.security import Security

WORDS = 8
"""Field elements that 32 bytes (a hash, a nonce) take on the wire: 32 bits each."""
KEY_WORDS = 4
"""Field elements that the seed of a key share takes."""
COMMITMENT_BYTES = 32
CHECK = "MAC check"
"""The label of what the check of a run costs."""
COMPARISON = "comparison"
"""Likewise, of the round in which parties do nothing but compare what they were sent."""

CHECK_ROUNDS = 3
CHECK_ELEMENTS = WORDS + 2 * WORDS + WORDS + 1 + WORDS
"""Sent to each other party: a commitment to a coin, a hash and the coin, a commitment to sigma, sigma and its nonce."""


@dataclass(frozen=True)
class LayerCost:
    """What one layer of a program costs each party online, and the dealer offline."""

    rounds: int
    opened: int
    """Elements a party opens; it sends each of them to every other party."""
    dealt: int
    """Correlated elements and MACs dealt; the last party receives each of them, the others expand a seed."""
    opened_bytes: int
    """What is opened takes on the wire to one other party."""
    dealt_bytes: int

    def __add__(self, other: LayerCost) -> LayerCost:
        return LayerCost(
            self.rounds + other.rounds,
            self.opened + other.opened,
            self.dealt + other.dealt,
            self.opened_bytes + other.opened_bytes,
            self.dealt_bytes + other.dealt_bytes,
        )


NOTHING = LayerCost(0, 0, 0, 0, 0)


def field_bytes(elements: int) -> int:
    """On a wire."""
    return FieldRing().bytes_of(elements)


@dataclass(frozen=True)
class Link:
    """A process's way to the others: full duplex, shared by all that it sends, and by all that it receives."""

    round_trip: float
    """Seconds there and back, for a byte."""
    bandwidth: float
    """Bits per second, each way."""

    def __post_init__(self) -> None:
        if not (math.isfinite(self.round_trip) and self.round_trip >= 0):
            raise UsageError(f"a round-trip time of {self.round_trip} s: give a number from 0")
        if not self.bandwidth > 0:
            raise UsageError(f"a bandwidth of {self.bandwidth} bit/s: give a number above 0")

    @property
    def delay(self) -> float:
        """Seconds one way."""
        return self.round_trip / 2

    def transfer(self, count: int) -> float:
        """Seconds between the first and the last of ``count`` bytes."""
        return 8 * count / self.bandwidth


Wanted = Literal["latency", "traffic"] | Link
"""What a program is to have least of: rounds, bytes, or time on such links."""


def objective_of(wanted: Wanted, security: Security) -> Objective:
    """For the network between servers, a round is worth what a link carries in the time that the round waits.

    Raises UsageError for another word.
    """
    if isinstance(wanted, Link):
        return Objective(round(min(wanted.delay * wanted.bandwidth / 8, ANY)), security)
    try:
        return Objective({"latency": LATENCY, "traffic": TRAFFIC}[wanted].round_bytes, security)
    except KeyError:
        raise UsageError(f"an objective is 'latency', 'traffic' or a link, not {wanted!r}") from None


@dataclass(frozen=True)
class Latency:
    """Predicted seconds that the network takes for one run: the parts of the online phase, and the offline phase."""

    inputs: float
    """From the client to the parties."""
    delays: float
    """Of the rounds among the parties, one way each."""
    openings: float
    """To transfer what the parties open."""
    outputs: float
    """From the parties to the client."""
    offline: float
    """From asking for the run until the client knows that every party is ready."""

    @property
    def online(self) -> float:
        """Seconds from the inputs to the result."""
        return self.inputs + self.delays + self.openings + self.outputs


@dataclass(frozen=True)
class Cost:
    """Predicted rounds and payload bytes of one run."""

    parties: int
    online_rounds: int
    """Openings, with MACs the check, and the reveal."""
    online_bytes_per_party: int
    """Sent by each party: openings (and checks) to every other party, and its share of the outputs to the client."""
    online_client_bytes: int
    """Sent by the client: its masked inputs, to every party."""
    offline_dealer_bytes: tuple[int, ...]
    """Sent by the dealer to each party: a seed, and to the last one the corrections."""
    offline_client_bytes: int
    """Sent by the dealer to the client: seeds of the masks of what it sends, and its output masks; with MACs,
    commitments."""
    layers: Mapping[str, LayerCost]
    online_output_bytes: int
    """Sent by each party to the client: its part of ``online_bytes_per_party``."""
    offline_messages: int
    """Of the dealer, dealing on demand: to each party, to the client, and for each later part to the last party."""

    @property
    def offline_bytes(self) -> int:
        """What the dealer sends, in all."""
        return sum(self.offline_dealer_bytes) + self.offline_client_bytes

    @property
    def online_messages_per_party(self) -> int:
        """One to every other party in each round but the last, and one to the client."""
        return messages(self.online_rounds, self.parties)

    def latency(self, servers: Link, client: Link | None = None, dealer: Link | None = None) -> Latency:
        """How long the network takes for a run: ``servers`` joins dealer and parties, ``client`` it to all of them.

        ``dealer``, if given, joins the dealer to the parties, and ``servers`` the parties alone.

        The model.  Every process has one link, and its bytes leave, and arrive, one after the other.  Online:

        * inputs: one way from the client, and its masked inputs, to every party, through its link;
        * each round but the last: one way between parties, since all send at once, and what one party opens, to every
          other party, through its link;
        * outputs: one way to the client, and what all parties send it through its link.

        Offline, without preprocessing in stock: one way from the client to the dealer; one way to the parties, and
        what the dealer sends them through its link; one way back to the client, which meanwhile receives its masks.

        What it leaves out: computing, at everyone; frames, headers and encryption; the program, which goes out with
        the request; lost packets; and TCP, which on a connection that was idle takes further round trips before it
        fills a link of high bandwidth and delay.  So a run takes longer than this, by its computing at least, except
        where computing and transfer overlap.
        """
        client, dealer = client or servers, dealer or servers
        opened = self.online_bytes_per_party - self.online_output_bytes
        dealing = dealer.delay + dealer.transfer(sum(self.offline_dealer_bytes)) + client.delay
        masks = client.delay + client.transfer(self.offline_client_bytes)
        return Latency(
            inputs=client.delay + client.transfer(self.online_client_bytes),
            delays=(self.online_rounds - 1) * servers.delay,
            openings=servers.transfer(opened),
            outputs=client.delay + client.transfer(self.parties * self.online_output_bytes),
            offline=client.delay + max(dealing, masks),
        )

    def __str__(self) -> str:
        return (
            f"{self.parties} parties: online {self.online_rounds} rounds, {self.online_bytes_per_party:,} bytes sent"
            f" per party; offline {self.offline_bytes:,} bytes from the dealer"
        )


def cost(program: Program, parties: int, security: Security = Security.SEMI_HONEST) -> Cost:
    """What a run of ``program`` among ``parties`` costs."""
    malicious = security is Security.MALICIOUS
    layers = _layers(program, security)
    total = sum(layers.values(), NOTHING)
    revealed = sum(program.nodes[i].type.bytes for i in program.outputs) * (2 if malicious else 1)
    supplied = sum(program.nodes[i].type.bytes for i in program.supplied)
    outputs = revealed + (field_bytes(KEY_WORDS) if malicious else 0)
    seeds = [SEED_BYTES] * parties
    seeds[-1] += total.dealt_bytes
    return Cost(
        parties=parties,
        online_rounds=online_rounds(program, security),
        online_bytes_per_party=total.opened_bytes * (parties - 1) + outputs,
        online_client_bytes=supplied * parties,
        offline_dealer_bytes=tuple(seeds),
        offline_client_bytes=SEED_BYTES * parties * len(program.supplied)
        + revealed
        + (COMMITMENT_BYTES * parties if malicious else 0),
        layers=layers,
        online_output_bytes=outputs,
        offline_messages=parties + len(program.schedule(security).parts),
    )


def largest_message(program: Program, security: Security) -> int:
    """Payload bytes of the largest message of a run: the client's inputs, a round, a party's outputs, or a part of what
    is dealt to the last party.
    """
    opened = [0] * (program.rounds + 1)
    for node, depth in zip(program.nodes, program.depths, strict=True):
        if node.operation.opens:
            opened[depth] += node.type.bytes
    revealed = sum(program.nodes[i].type.bytes for i in program.outputs) * (2 if security is Security.MALICIOUS else 1)
    supplied = sum(program.nodes[i].type.bytes for i in program.supplied)
    return max(*opened, *program.schedule(security).dealt, revealed, supplied)


def messages(rounds: int, parties: int) -> int:
    """Messages each party sends online: one to every other party in each round but the last, and one to the client."""
    return (rounds - 1) * (parties - 1) + 1


def online_rounds(program: Program, security: Security) -> int:
    """Openings, the reveal and, malicious, the check, whose first commitments go with the first opening.

    The parties compare what they were sent along with the first opening: where there is none, in a round of its own.
    """
    if security is Security.SEMI_HONEST:
        return program.rounds + compares_apart(program) + 1
    return max(program.rounds, 1) + CHECK_ROUNDS + 1


def first_of_check(program: Program) -> int:
    """The round with which the MAC check begins."""
    return online_rounds(program, Security.MALICIOUS) - 1 - CHECK_ROUNDS


def compares_apart(program: Program) -> bool:
    """Whether a run without MACs opens nothing but its result, and reads what is somebody's.

    Then a client could have something else computed of it, by different inputs to different parties.
    """
    return program.rounds == 0 and bool(program.slots)


def _layers(program: Program, security: Security) -> dict[str, LayerCost]:
    """Per label, in order of appearance.  A round that several layers share counts for the first of them."""
    dealt = program.corrected(security)
    labels = dict.fromkeys(
        n.label for n, k in zip(program.nodes, dealt, strict=True) if k or not isinstance(n.operation, Input)
    )
    layers = dict.fromkeys(labels, NOTHING)
    rounds_seen: set[int] = set()
    for node, depth, parts in zip(program.nodes, program.depths, dealt, strict=True):
        if node.operation.opens:
            layers[node.label] += LayerCost(int(depth not in rounds_seen), node.type.size, 0, node.type.bytes, 0)
            rounds_seen.add(depth)
        if parts:
            layers[node.label] += LayerCost(0, 0, sum(p.size for p in parts), 0, sum(p.bytes for p in parts))
    if security is Security.MALICIOUS:
        rounds = online_rounds(program, security) - 1 - program.rounds
        layers[CHECK] = LayerCost(rounds, CHECK_ELEMENTS, 0, field_bytes(CHECK_ELEMENTS), 0)
    elif compares_apart(program):
        layers[COMPARISON] = LayerCost(1, 0, 0, 0, 0)
    return layers
