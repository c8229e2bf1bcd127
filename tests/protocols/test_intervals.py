"""Intervals that are not known to hold are watched: what leaves one is told, and what is well within is not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from mpc import fixed_point
from mpc.errors import RangeError
from mpc.objective import ANY, Objective
from mpc.program import Program
from mpc.security import Security
from protocols.lowering.plan import plan
from protocols.readings.clear import clear
from protocols.readings.memory import run_in_memory
from protocols.trace.secret_tensor import graph_of


def watched(
    secure: Any, shape: tuple[int, ...], interval: tuple[float, float], security: Security = Security.SEMI_HONEST
) -> Program:
    x = secure.secret(shape, -20.0, 20.0) * secure.stored("w", shape, bits=0)
    return plan(graph_of([x.sigmoid(interval=interval)]), Objective(ANY, security), checked=True)


@pytest.mark.sampled(3)
@pytest.mark.parametrize(("security", "parties"), [(s, n) for s in Security for n in (2, 3)])
@pytest.mark.parametrize("interval", [(-8.0, 8.0), (-2.5, 30.0), (-1.0, 3.0)])
def test_each_value_near_each_end(secure: Any, interval: tuple[float, float], security: Security, parties: int) -> None:
    low, high = interval
    program = watched(secure, (1,), interval, security)
    assert program.flagged
    assert len(program.outputs) == 2
    store = secure.store({"w": np.ones(1, np.uint64)}, parties)
    # Of x, which ends at 20: a 64th, or with MACs a 33rd, or a little more, as grains go.
    margin = (high - low) * (1 / 64 if security is Security.SEMI_HONEST else 1.04 / 33)
    unit = 2.0**-16
    inside = [low + margin + unit, (low + high) / 4, high - margin - unit]
    outside = [low - unit, high + unit, low - 3.0, high + 5.0, -20.0, 20.0]
    for values, said in ((inside, False), (outside, True)):
        for value in values:
            raw = fixed_point.encode(np.array([value]), 16) if abs(value) <= 20 else None
            if raw is None or (said and low <= value <= high):
                continue
            *_, flag = run_in_memory(program, [raw], parties=parties, store=store, security=security).outputs
            assert bool(flag.any()) == said, value
            assert clear(program, [raw], {("model", "w"): np.ones(1, np.uint64)})[-1] == said


WATCHED = [
    ("sigmoid", (-8.0, 8.0), -3000.0, 3000.0),
    ("log", (0.5, 300.0), 0.01, 4000.0),
    ("sin", (-300.0, 300.0), -3000.0, 3000.0),
    ("silu", (-8.0, 8.0), -3000.0, 3000.0),
    ("exp", (-16.0, 16.0), -200.0, 200.0),
    ("sqrt", (0.5, 300.0), 0.01, 4000.0),
    ("rsqrt", (0.5, 300.0), 0.01, 4000.0),
    ("reciprocal", (0.5, 300.0), 0.01, 4000.0),
    ("tanh", (-60.0, 60.0), -3000.0, 3000.0),
]
STAGES = 2
"""Of these, one that is taken as it is and one of orders of magnitude: what MACs change, changes with both alike."""


@pytest.mark.sampled(3)
@pytest.mark.parametrize(
    ("name", "interval", "low", "high", "security"),
    [
        pytest.param(*case, security, marks=[pytest.mark.slow] if i >= STAGES else [])
        for i, case in enumerate(WATCHED)
        for security in Security
    ],
)
def test_it_is_the_value_itself_that_is_watched(
    secure: Any, name: str, interval: tuple[float, float], low: float, high: float, security: Security
) -> None:
    """Of whatever a function is made: not what a stage of it opens, and at any distance from the interval."""
    least, most = interval
    x = secure.secret((1,), low, high) * secure.secret((1,), 1.0, 1.0, 0)
    graph = graph_of([getattr(x, name)(interval=interval), secure.stored("w", (1,))])
    program = plan(graph, Objective(ANY, security), checked=True)
    store = secure.store({"w": np.zeros(1, np.uint64)}, 2)
    # Of orders of magnitude both ends are as near.
    near = 0.01 if least > 0 else 0.016 if security is Security.SEMI_HONEST else 0.033
    inside = [least + (most - least) * part for part in (near, 0.3, 1 - near)]
    # By every power of two beyond, in units of the interval: comparing too few bits takes some of these for inside.
    beyond = [most + (most - least) * 1.5 * 2.0**k for k in range(-3, 8)]
    outside = [v for v in (*beyond, *(least + most - v for v in beyond), low, high) if low <= v <= high]
    for values, said in ((inside, False), (outside, True)):
        for value in values:
            raw = [fixed_point.encode(np.array([value]), 16), np.ones(1, np.uint64)]
            *_, flag = run_in_memory(program, raw, store=store, security=security).outputs
            assert bool(flag.any()) == said, value


def test_what_is_assumed_of_a_function_is_of_its_results(secure: Any) -> None:
    """And not of what it is a function of, where that is opened as it is."""
    y = (secure.secret((1,), -8.0, 8.0) * secure.secret((1,), 1.0, 1.0, 0)).sigmoid() + 1.0
    program = plan(graph_of([y.assumed(1.25, 1.75)]))
    for value in (-6.0, -0.5, 0.0, 0.5, 1.5, 6.0):
        raw = [fixed_point.encode(np.array([value]), 16), np.ones(1, np.uint64)]
        *_, flag = run_in_memory(program, raw).outputs
        assert bool(flag.any()) == (not 1.25 <= 1 + 1 / (1 + np.exp(-value)) <= 1.75), value


def test_one_of_many_is_enough_and_how_many_is_not_told(secure: Any) -> None:
    program = watched(secure, (1, 6), (-8.0, 8.0))
    store = secure.store({"w": np.ones((1, 6), np.uint64)}, 2)
    flags = set()
    for left in (1, 1, 2, 6):
        raw = fixed_point.encode(np.r_[np.full(left, 9.0), np.zeros(6 - left)][None], 16)
        *_, flag = run_in_memory(program, [raw], store=store).outputs
        flags.add(int(flag[0]))
    assert len(flags) == 4
    assert min(flags) > 6


def test_what_cannot_leave_is_not_watched(secure: Any) -> None:
    assert not watched(secure, (2,), (-21.0, 21.0)).flagged
    x = secure.secret((2,), -20.0, 20.0)
    assert not plan(graph_of([x.sigmoid(interval=(-8, 8))]), checked=True).flagged


@pytest.mark.parametrize(("security", "parties"), [(s, n) for s in Security for n in (2, 3)])
def test_it_costs_what_is_predicted(secure: Any, security: Security, parties: int) -> None:
    program = watched(secure, (4, 5), (-8.0, 8.0), security=security)
    assert program.flagged
    store = secure.store({"w": np.ones((4, 5), np.uint64)}, parties)
    run = secure.as_predicted(program, [np.zeros((4, 5), np.uint64)], parties, security, store)
    assert not run.outputs[1].any()


def deep(secure: Any, layers: int, assume: bool) -> Any:
    """Layers of weights whose worst case grows sixteen times each, and whose values do not."""
    x = secure.secret((1, 16), -1.0, 1.0).labelled("layers")
    for _ in range(layers):
        x = x @ secure.stored("w", (16, 16))
        x = (x.assumed(-4.0, 4.0) if assume else x).relu()
    return x


@pytest.mark.parametrize(("security", "parties"), [(s, n) for s in Security for n in (2, 3)])
def test_a_deep_network_fits_by_what_is_assumed_and_says_where_that_fails(
    secure: Any, security: Security, parties: int
) -> None:
    with pytest.raises(RangeError, match="declare"):
        deep(secure, 14, assume=False)
    program = plan(graph_of([deep(secure, 14, assume=True)]), Objective(ANY, security))
    assert program.flagged
    rng = np.random.default_rng(3)
    w = np.round(np.linalg.qr(rng.normal(size=(16, 16)))[0] * 1.2 * 2**14) / 2**14
    for scale, holds in ((1.0, True), (4.0, False)):
        store = secure.store({"w": fixed_point.encode(np.clip(w * scale, -1, 1), 14)}, parties)
        x = rng.uniform(-1, 1, (1, 16))
        wanted = x
        for _ in range(14):
            wanted = np.maximum(wanted @ np.clip(w * scale, -1, 1), 0)
        run = run_in_memory(program, [fixed_point.encode(x, 16)], parties=parties, store=store, security=security)
        y, flag = run.outputs
        assert (not flag.any()) == holds
        if holds:
            found = fixed_point.decode(y, program.nodes[program.outputs[0]].type.fraction_bits)
            assert np.abs(found - wanted).max() < 1e-2 * max(1.0, np.abs(wanted).max())


def test_what_is_no_assumption(secure: Any) -> None:
    with pytest.raises(RangeError, match="to assume"):
        secure.secret((2,)).assumed(1, 1)
    with pytest.raises(RangeError, match="cannot lie in"):
        plan(graph_of([secure.secret((2,), -1.0, 1.0).assumed(2, 3)]))
    x = secure.secret((2,), -1.0, 1.0)
    assert not plan(graph_of([x.assumed(-2, 2)])).flagged
