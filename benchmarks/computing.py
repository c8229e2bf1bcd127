"""What a run computes, and how long that takes on this machine: a calibration of a second or so, in this process.

The dealer's part and one party's are timed, on inputs of zeros and weights as they are, on one thread.  What counts is
processor time, whatever else a machine does at the moment, and the least of some runs.  Work does not depend on values.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import cast

import threadpoolctl

from mpc.program import Program
from mpc.rings import Buffer, Rings, compiling, field_of, known_rings
from mpc.security import Security
from nn import Model
from parties.servers.admission import Admission
from protocols.randomness.dealt import TrustedDealer
from protocols.readings.dealer import deal
from protocols.readings.inputs import masked_inputs
from protocols.readings.mac_check import Round
from protocols.readings.memory import MemoryStore, as_sent, lockstep, prepared_run
from protocols.readings.party import Exchange

SLOT = "model"
"""What descriptions call the slot of a model."""
Clock = Callable[[], float]
ENOUGH, MOST = 0.3, 5
"""s of measuring, after which no further run is made; and runs at most."""


@dataclass(frozen=True)
class Computing:
    """Seconds at the dealer, and at a party before and after the inputs come; bytes that a server sets aside.

    Of a processor's time, or, where a device computes, of all time.
    """

    dealing: float
    preparing: float
    online: float
    memory: int

    def to_dict(self) -> dict[str, float]:
        return asdict(self)


def calibrated(
    model: Model, program: Program, parties: int, security: Security, rings: Rings | None = None
) -> Computing:
    """Of a run of ``program``, which is a prediction by ``model``; ``rings``: what it is computed with, if not with the
    processor."""
    compiling.warm_up()
    clock = time.process_time if rings is None else time.perf_counter
    rings, usual = known_rings() if rings is None else rings, field_of(known_rings())
    weights = {n: field_of(rings).read(bytes(usual.buffer(w)), w.shape) for n, w in model.encode().items()}
    store = MemoryStore(SLOT, weights, parties, rings=rings)
    found: list[tuple[float, float, float]] = []
    began = time.perf_counter()
    with threadpoolctl.threadpool_limits(1):
        while not found or (time.perf_counter() - began < ENOUGH and len(found) < MOST):
            found.append(_once(program, store, parties, security, rings, clock))
    dealing, preparing, online = (min(times) for times in zip(*found, strict=True))
    return Computing(dealing, preparing, online, Admission("", 0, security, clients=1).size_of(program))


def _once(
    program: Program, store: MemoryStore, parties: int, security: Security, rings: Rings, clock: Clock
) -> tuple[float, float, float]:
    """Seconds of dealing, of preparing and of the online phase."""
    started = clock()
    dealing = deal(program, parties, {store.slot: store.masks}, security, rings=rings)
    dealing.for_party(parties - 1)
    dealt = clock() - started
    source, session = TrustedDealer(rings), secrets.token_bytes(16)
    runs, preparing = [], 0.0
    for party in range(parties):
        started = clock()
        runs.append(
            prepared_run(
                dealing, source, program, party=party, parties=parties, stored=store.held[party], security=security,
                session=session,
            )
        )  # fmt: skip
        # The last party has the most to read: the others expand seeds alone.
        preparing = clock() - started
    client = source.for_client(program, security, parties, as_sent(dealing.for_client()))
    zeros = [rings[t.ring].zeros(t.shape) for t in (program.nodes[i].type for i in program.inputs)]
    masked = masked_inputs(program, zeros, client, rings)
    return dealt, preparing, _online([run.online(masked) for run in runs], clock)


def _online(exchanges: list[Exchange], clock: Clock) -> float:
    """Seconds of the last party, in lockstep with the others."""
    spent: list[float] = []
    lockstep([*exchanges[:-1], _timed(exchanges[-1], spent, clock)])
    return sum(spent)


def _timed(exchange: Exchange, spent: list[float], clock: Clock) -> Exchange:
    """The same, where the seconds of each step are noted."""
    received: Sequence[Round] | None = None
    while True:
        started = clock()
        try:
            sent = next(exchange) if received is None else exchange.send(received)
        except StopIteration as end:
            return cast(list[Buffer], end.value)
        finally:
            spent.append(clock() - started)
        received = yield sent
