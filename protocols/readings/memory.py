"""Parties in one process, in lockstep: the network of tests, and of anyone who wants to see a protocol run.

It moves the same bytes as the sockets do; only processes, keys and latency are missing.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from mpc.errors import ProgramError
from mpc.operation import Value
from mpc.program import Program
from mpc.rings import field
from mpc.rings.field import FieldArray
from mpc.rings.prg import Seed, elements_sum, fresh_seed
from mpc.security import Security
from protocols.randomness.streams import stored_stream
from protocols.readings.dealer import Dealing, StoredMasks, deal
from protocols.readings.party import Exchange, PartyRun
from protocols.readings.reveal import reveal

Tamper = Callable[[int, int, int, FieldArray], FieldArray]
"""(round, sender, receiver, buffer) -> the buffer that arrives."""


def lockstep(exchanges: Sequence[Exchange], tamper: Tamper | None = None) -> list[list[FieldArray]]:
    """Drive every party's online phase to its end; returns what each party sends the client.

    Raises whatever the first party to fail raises.
    """
    parties = len(exchanges)
    outgoing: list[FieldArray] = []
    results: list[list[FieldArray]] = []
    for exchange in exchanges:
        _step(exchange, None, outgoing, results)
    number = 0
    while not results:
        sent, outgoing = outgoing, []
        for receiver, exchange in enumerate(exchanges):
            received = [
                tamper(number, i, receiver, sent[i]) if tamper else sent[i] for i in range(parties) if i != receiver
            ]
            _step(exchange, received, outgoing, results)
        number += 1
    if len(results) != parties:
        raise ProgramError("the parties do not agree on the number of rounds")
    return results


def _step(
    exchange: Exchange,
    received: Sequence[FieldArray] | None,
    outgoing: list[FieldArray],
    results: list[list[FieldArray]],
) -> None:
    try:
        outgoing.append(next(exchange) if received is None else exchange.send(received))
    except StopIteration as end:
        results.append(end.value)


class MemoryStore:
    """An uploaded secret, as the dealer and every party of a process hold it, bound to a slot."""

    def __init__(
        self, slot: str, tensors: Mapping[str, FieldArray], parties: int, seeds: Sequence[Seed] | None = None
    ) -> None:
        """``seeds``, one per party, are for tests alone: an upload's seeds are fresh."""
        self.slot = slot
        seeds = tuple(Seed(fresh_seed()) for _ in range(parties)) if seeds is None else tuple(seeds)
        self.masks = StoredMasks(seeds, {name: array.shape for name, array in tensors.items()})
        self.plain = {(slot, name): array for name, array in tensors.items()}
        self.held: list[dict[tuple[str, str], Value]] = [{} for _ in seeds]
        for name, array in tensors.items():
            public = field.subtract(array, self.masks.mask(name))
            for held, seed in zip(self.held, seeds, strict=True):
                held[slot, name] = Value(public, stored_stream(seed, name).elements(array.shape))


@dataclass(frozen=True, repr=False)
class MemoryRun:
    """What a run in memory leaves to look at."""

    outputs: list[FieldArray]
    runs: list[PartyRun]
    dealing: Dealing
    masked: list[FieldArray]
    """What the client sent: x - a of each input."""
    shares: list[list[FieldArray]]
    """By party: what it sent the client."""


def run_in_memory(
    program: Program,
    inputs: Sequence[FieldArray],
    *,
    parties: int = 2,
    store: MemoryStore | None = None,
    security: Security = Security.SEMI_HONEST,
    tamper: Tamper | None = None,
    seeds: Sequence[Seed] | None = None,
) -> MemoryRun:
    """Deal, share the inputs, run all parties, and open the outputs, as processes would; ``seeds`` as for ``deal``."""
    dealing = deal(program, parties, {store.slot: store.masks} if store else {}, security, seeds)
    session = secrets.token_bytes(16)
    runs = [
        PartyRun(
            program,
            party=i,
            parties=parties,
            seed=dealing.seeds[i],
            corrections=dealing.corrections if i == parties - 1 else (),
            stored=store.held[i] if store else {},
            security=security,
            session=session,
        )
        for i in range(parties)
    ]
    masked = [
        field.subtract(array, elements_sum(seeds, array.shape))
        for array, seeds in zip(inputs, dealing.input_seeds, strict=True)
    ]
    shares = lockstep([run.online(masked) for run in runs], tamper)
    masks = [*dealing.output_masks, *dealing.output_mac_masks]
    outputs = reveal(program, security, shares, masks, dealing.key_commitments)
    return MemoryRun(outputs, runs, dealing, masked, shares)
