"""Parties in one process, in lockstep: the network of tests, and of anyone who wants to see a protocol run.

It moves the same bytes as the sockets do; only processes, keys and latency are missing.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

from mpc.errors import ProgramError
from mpc.operation import Value
from mpc.program import Program
from mpc.rings import Array, Buffer, Rings, field_of, known_rings
from mpc.rings.prg import Seed, fresh_seed
from mpc.security import Security
from protocols.randomness.dealt import DealtToParty, TrustedDealer, read
from protocols.randomness.streams import stored_stream
from protocols.readings.dealer import Dealing, StoredMasks, deal
from protocols.readings.drawing import AS_IT_IS, Order
from protocols.readings.inputs import masked_inputs
from protocols.readings.mac_check import Round
from protocols.readings.party import Exchange, PartyRun
from protocols.readings.reveal import reveal, revealed_parts

Tamper = Callable[[int, int, int, Buffer], Buffer]
"""(round, sender, receiver, vector) -> the vector that arrives; a round has one for each ring."""


def lockstep(exchanges: Sequence[Exchange], tamper: Tamper | None = None) -> list[list[Buffer]]:
    """Drive every party's online phase to its end; returns what each party sends the client.

    Raises whatever the first party to fail raises.
    """
    parties = len(exchanges)
    outgoing: list[Round] = []
    results: list[list[Buffer]] = []
    for exchange in exchanges:
        _step(exchange, None, outgoing, results)
    number = 0
    while not results:
        sent, outgoing = outgoing, []
        for receiver, exchange in enumerate(exchanges):
            received = [
                [tamper(number, i, receiver, vector) for vector in sent[i]] if tamper else sent[i]
                for i in range(parties)
                if i != receiver
            ]
            _step(exchange, received, outgoing, results)
        number += 1
    if len(results) != parties:
        raise ProgramError("the parties do not agree on the number of rounds")
    return results


def _step(
    exchange: Exchange,
    received: Sequence[Round] | None,
    outgoing: list[Round],
    results: list[list[Buffer]],
) -> None:
    try:
        outgoing.append(next(exchange) if received is None else exchange.send(received))
    except StopIteration as end:
        results.append(end.value)


class MemoryStore:
    """An uploaded secret, as the dealer and every party of a process hold it, bound to a slot."""

    def __init__(
        self,
        slot: str,
        tensors: Mapping[str, Array],
        parties: int,
        seeds: Sequence[Seed] | None = None,
        rings: Rings | None = None,
    ) -> None:
        """``seeds``, one per party, are for tests alone: an upload's seeds are fresh."""
        self.slot = slot
        field = field_of(known_rings() if rings is None else rings)
        seeds = tuple(Seed(fresh_seed()) for _ in range(parties)) if seeds is None else tuple(seeds)
        self.masks = StoredMasks(seeds, {name: array.shape for name, array in tensors.items()})
        self.plain = {(slot, name): array for name, array in tensors.items()}
        self.held: list[dict[tuple[str, str], Value]] = [{} for _ in seeds]
        for name, array in tensors.items():
            public = field.subtract(array, self.masks.mask(name, field))
            for held, seed in zip(self.held, seeds, strict=True):
                held[slot, name] = Value(public, field.sample(stored_stream(seed, name), array.shape))


@dataclass(frozen=True, repr=False)
class MemoryRun:
    """What a run in memory leaves to look at."""

    outputs: list[Array]
    runs: list[PartyRun]
    dealing: Dealing
    masked: list[Array]
    """What the client sent: x - a of each input."""
    shares: list[list[Buffer]]
    """By party: what it sent the client."""


def run_in_memory(
    program: Program,
    inputs: Sequence[Array],
    *,
    parties: int = 2,
    store: MemoryStore | None = None,
    security: Security = Security.SEMI_HONEST,
    tamper: Tamper | None = None,
    seeds: Sequence[Seed] | None = None,
    rings: Rings | None = None,
    order: Order = AS_IT_IS,
) -> MemoryRun:
    """Deal, share the inputs, run all parties, and open the outputs, as processes would; ``seeds`` as for ``deal``."""
    source = TrustedDealer(rings)
    source.check(program, security)
    dealing = deal(program, parties, {store.slot: store.masks} if store else {}, security, seeds, rings, order)
    session = secrets.token_bytes(16)
    runs = [
        prepared_run(
            dealing,
            source,
            program,
            party=i,
            parties=parties,
            stored=store.held[i] if store else {},
            security=security,
            session=session,
            order=order,
        )
        for i in range(parties)
    ]
    client = source.for_client(program, security, parties, as_sent(dealing.for_client()))
    masked = masked_inputs(program, inputs, client, rings)
    shares = lockstep([run.online(masked) for run in runs], tamper)
    parts = revealed_parts(program, security)
    sent = [
        [read(source.rings, data, part, "an output") for data, part in zip(as_sent(one), parts, strict=True)]
        for one in shares
    ]
    outputs = reveal(program, security, sent, client.output_masks, client.key_commitments, rings)
    return MemoryRun(outputs, runs, dealing, masked, shares)


def prepared_run(
    dealing: Dealing,
    source: TrustedDealer,
    program: Program,
    *,
    party: int,
    parties: int,
    stored: Mapping[tuple[str, str], Value],
    security: Security,
    session: bytes = b"",
    order: Order = AS_IT_IS,
) -> PartyRun:
    """A party's run, all of which is prepared."""
    randomness = party_randomness(dealing, program, party, security, source)
    run = PartyRun(
        program, party=party, parties=parties, randomness=randomness, stored=stored, security=security,
        session=session, rings=source.rings, order=order,
    )  # fmt: skip
    for part in later_parts(dealing, program, party, security):
        run.prepare(part)
    return run


def party_randomness(
    dealing: Dealing, program: Program, party: int, security: Security, source: TrustedDealer | None = None
) -> DealtToParty:
    """What a party makes of its part of a dealing, as far as the first part of the program goes."""
    (first, *_) = _by_part(dealing, program, security)
    return (source or TrustedDealer()).for_party(
        program, security, party=party, parties=len(dealing.seeds), payload=as_sent(dealing.for_party(party, first))
    )


def later_parts(dealing: Dealing, program: Program, party: int, security: Security) -> list[list[bytes]]:
    """What a party is sent of the other parts of the program."""
    last = party == len(dealing.seeds) - 1
    return [as_sent(part) if last else [] for part in _by_part(dealing, program, security)[1:]]


def _by_part(dealing: Dealing, program: Program, security: Security) -> list[list[Buffer]]:
    """Its corrections."""
    needed, corrections = program.corrected(security), iter(dealing.corrections)
    return [list(islice(corrections, sum(len(needed[i]) for i in part))) for part in program.schedule(security).parts]


def as_sent(part: Sequence[bytes | Buffer]) -> list[bytes]:
    """What somebody is sent by the dealer, as bytes."""
    return [one if isinstance(one, bytes) else one.tobytes() for one in part]
