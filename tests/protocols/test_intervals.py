"""Intervals that are not known to hold are watched: what leaves one is told, and what is well within is not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from mpc import fixed_point
from mpc.cost import cost
from mpc.objective import ANY, Objective
from mpc.program import Program
from mpc.rings import field
from mpc.security import Security
from protocols.lowering.plan import plan
from protocols.readings.clear import clear
from protocols.readings.memory import run_in_memory
from protocols.trace.secret_tensor import graph_of


def watched(secure: Any, shape: tuple[int, ...], interval: tuple[float, float], low: float = -20.0) -> Program:
    x = secure.secret(shape, low, 20.0) * secure.stored("w", shape, bits=0)
    return plan(graph_of([x.sigmoid(interval=interval)]), checked=True)


@pytest.mark.parametrize("parties", [2, 3])
@pytest.mark.parametrize("interval", [(-8.0, 8.0), (-2.5, 30.0), (-1.0, 3.0)])
def test_each_value_near_each_end(secure: Any, interval: tuple[float, float], parties: int) -> None:
    low, high = interval
    program = watched(secure, (1,), interval)
    assert program.flagged
    assert len(program.outputs) == 2
    store = secure.store({"w": np.ones(1, np.uint64)}, parties)
    margin = (high - low) * 2.0**-11
    unit = 2.0**-16
    inside = [low + 2 * margin + unit, (low + high) / 4, high - 2 * margin - unit]
    outside = [low - unit, high + unit, low - 3.0, high + 5.0, -20.0, 20.0]
    for values, said in ((inside, False), (outside, True)):
        for value in values:
            raw = fixed_point.encode(np.array([value]), 16) if abs(value) <= 20 else None
            if raw is None or (said and low <= value <= high):
                continue
            *_, flag = run_in_memory(program, [raw], parties=parties, store=store).outputs
            assert bool(flag.any()) == said, value
            assert clear(program, [raw], {("model", "w"): np.ones(1, np.uint64)})[-1] == said


def test_one_of_many_is_enough_and_how_many_is_not_told(secure: Any) -> None:
    program = watched(secure, (6,), (-8.0, 8.0))
    store = secure.store({"w": np.ones(6, np.uint64)}, 2)
    flags = set()
    for left in (1, 1, 2, 6):
        raw = fixed_point.encode(np.r_[np.full(left, 9.0), np.zeros(6 - left)], 16)
        *_, flag = run_in_memory(program, [raw], store=store).outputs
        flags.add(int(flag[0]))
    assert len(flags) == 4
    assert min(flags) > 6


def test_what_cannot_leave_is_not_watched(secure: Any) -> None:
    assert not watched(secure, (2,), (-21.0, 21.0)).flagged
    x = secure.secret((2,), -20.0, 20.0)
    assert not plan(graph_of([x.sigmoid(interval=(-8, 8))]), checked=True).flagged
    strict = Objective(ANY, Security.MALICIOUS)
    y = (x * secure.stored("w", (2,), bits=0)).sigmoid(interval=(-8, 8))
    assert not plan(graph_of([y]), strict, checked=True).flagged


def test_it_costs_what_is_predicted(secure: Any) -> None:
    program = watched(secure, (4, 5), (-8.0, 8.0))
    store, sent = secure.store({"w": np.ones((4, 5), np.uint64)}, 2), [0, 0]

    def listen(number: int, sender: int, receiver: int, vector: Any) -> Any:
        sent[sender] += vector.nbytes
        return vector

    run = run_in_memory(program, [np.zeros((4, 5), np.uint64)], store=store, tamper=listen)
    predicted = cost(program, 2)
    assert {s + predicted.online_output_bytes for s in sent} == {predicted.online_bytes_per_party}
    assert predicted.offline_dealer_bytes[-1] == 16 + sum(part.nbytes for part in run.dealing.corrections)
    assert field.to_signed(run.outputs[1])[0] == 0
