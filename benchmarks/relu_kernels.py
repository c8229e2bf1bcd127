"""What a ReLU takes of a processor, in each part: dealer and parties read a program in one thread of one process.

Nothing is sent, and time is the process's own, so that what else the machine does counts as little as it can.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from benchmarks.records import spread
from mpc import fixed_point
from mpc.objective import ANY, TRAFFIC, Objective
from mpc.operation import Input
from mpc.program import Program
from mpc.security import Security
from protocols.lowering.plan import plan
from protocols.lowering.planner import FRACTION_BITS
from protocols.randomness.dealt import TrustedDealer
from protocols.readings.dealer import deal
from protocols.readings.inputs import masked_inputs
from protocols.readings.memory import as_sent, lockstep, prepared_run
from protocols.trace.secret_tensor import graph_of, leaf

VALUES = 10**5
LARGEST = 4.0
"""With 16 fraction bits: 20 are compared."""
PARTIES = 2
OBJECTIVES = {"two rounds": Objective(ANY), "three rounds": TRAFFIC, "with MACs": Objective(ANY, Security.MALICIOUS)}
"""Rounds that do not hang on what a round is worth."""
PARTS = ("dealer", "party 0 offline", "party 1 offline", "parties online")


def measured(repeat: int) -> dict[str, dict[str, dict[str, float]]]:
    """Nanoseconds a ReLU, by objective and part; after a round that does not count.  Online it is a party's mean."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for name, objective in OBJECTIVES.items():
        x = leaf(Input((VALUES,), FRACTION_BITS, -LARGEST, LARGEST))
        program = plan(graph_of([x.relu()]), objective)
        runs = [_run(program) for _ in range(repeat + 1)][1:]
        found[name] = {part: spread([run[part] for run in runs]) for part in PARTS}
    return found


def _run(program: Program) -> dict[str, float]:
    source, security = TrustedDealer(), program.objective.security
    taken: dict[str, float] = {}

    @contextmanager
    def timed(part: str, times: int = 1) -> Iterator[None]:
        started = time.process_time()
        yield
        taken[part] = (time.process_time() - started) / times / VALUES * 1e9

    with timed("dealer"):
        dealing = deal(program, PARTIES, {}, security)
        dealing.for_party(PARTIES - 1)
    parties = []
    for i in range(PARTIES):
        with timed(f"party {i} offline"):
            parties.append(
                prepared_run(dealing, source, program, party=i, parties=PARTIES, stored={}, security=security)
            )
    client = source.for_client(program, security, PARTIES, as_sent(dealing.for_client()))
    values: Any = np.random.default_rng(1).uniform(-LARGEST, LARGEST, VALUES)
    masked = masked_inputs(program, [fixed_point.encode(values, FRACTION_BITS)], client, None)
    with timed("parties online", PARTIES):
        lockstep([party.online(masked) for party in parties])
    return taken
