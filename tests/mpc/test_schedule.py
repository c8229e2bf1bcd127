"""In which parts a run's randomness is dealt, and when each is needed."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from mpc import fixed_point, schedule
from mpc.cost import cost, largest_message
from mpc.errors import ProgramError
from mpc.objective import Objective
from mpc.operation import Input
from mpc.program import Program
from mpc.security import Security
from protocols.lowering.plan import plan
from protocols.randomness.dealt import TrustedDealer
from protocols.readings.dealer import deal
from protocols.readings.inputs import masked_inputs
from protocols.readings.memory import MemoryStore, as_sent, later_parts, party_randomness, run_in_memory
from protocols.readings.party import PartyRun
from protocols.trace.secret_tensor import graph_of, leaf

PARTIES = 3
X = fixed_point.encode(np.linspace(-0.9, 0.9, 24).reshape(4, 6), 16)


def layers(secure: Any) -> Any:
    """A deep network with a skip, weights that are turned over first, and a gate over all of it."""
    x = leaf(Input((4, 6), 16, -1.0, 1.0))
    y = x
    for k in range(4):
        weight = secure.stored(f"w{k}", (6, 6))
        y = (y @ weight.T * 0.25).relu() + y * 0.25
    return y


def wide(secure: Any) -> Any:
    """One step takes most of it."""
    x = leaf(Input((4, 6), 16, -1.0, 1.0))
    return [(x + k * 0.01).relu() * x for k in range(8)]


WRITTEN = {"layers": layers, "wide": wide}


def programs(secure: Any, name: str, security: Security) -> Program:
    y = WRITTEN[name](secure)
    return plan(graph_of(y if isinstance(y, list) else [y]), Objective(1 << 20, security))


def store() -> MemoryStore:
    rng = np.random.default_rng(3)
    weights = {f"w{k}": fixed_point.encode(rng.uniform(-0.5, 0.5, (6, 6)), 16) for k in range(4)}
    return MemoryStore("model", weights, PARTIES)


@pytest.fixture(params=itertools.product(WRITTEN, Security), ids=lambda p: f"{p[0]}-{p[1]}")
def cut(request: Any, secure: Any, monkeypatch: pytest.MonkeyPatch) -> tuple[Program, Security]:
    """A program that is cut into many parts, of which few may be there."""
    monkeypatch.setattr(schedule, "PART", 3000)
    monkeypatch.setattr(schedule, "AHEAD", 9000)
    name, security = request.param
    return programs(secure, name, security), security


def test_a_small_program_is_one_part(secure: Any) -> None:
    program = programs(secure, "layers", Security.SEMI_HONEST)
    assert program.schedule(Security.SEMI_HONEST).parts == (tuple(range(len(program.nodes))),)


def test_parts_are_all_of_it_in_an_order_that_can_be_followed(cut: tuple[Program, Security]) -> None:
    program, security = cut
    parts = program.schedule(security).parts
    assert len(parts) >= 10
    assert sorted(itertools.chain(*parts)) == list(range(len(program.nodes)))
    done: set[int] = set()
    for part in parts:
        for i in part:
            assert done.issuperset(program.nodes[i].inputs)
            done.add(i)


def test_no_more_is_there_than_may_be_or_one_step_takes(cut: tuple[Program, Security]) -> None:
    program, security = cut
    found = program.schedule(security)
    sizes = np.diff([0, *found._ends])
    assert sum(found.dealt) == cost(program, 2, security).offline_dealer_bytes[-1] - 16
    assert largest_message(program, security) >= max(found.dealt)
    for size, part in zip(sizes, found.parts, strict=True):
        assert size <= schedule.PART or len(part) == 1
    for evaluated in range(program.rounds + 1):
        used, due, allowed = found.used(evaluated), found.due(evaluated), found.allowed(evaluated)
        assert used <= due <= allowed <= len(found.parts)
        assert sum(sizes[used:allowed]) <= max(schedule.AHEAD, sum(sizes[used:due]))
    assert (found.due(program.rounds), found.used(0)) == (len(found.parts), 0)
    most = max(sum(sizes[found.used(e) : found.allowed(e)]) for e in range(program.rounds + 1))
    assert found.most == most <= found._ends[-1]


def test_a_deep_program_holds_what_may_be_there_of_it(secure: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = programs(secure, "layers", Security.SEMI_HONEST).held
    monkeypatch.setattr(schedule, "PART", 1000)
    monkeypatch.setattr(schedule, "AHEAD", 2000)
    assert programs(secure, "layers", Security.SEMI_HONEST).held < 0.6 * whole


def test_masked_values_do_not_depend_on_how_it_is_cut(secure: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, security in itertools.product(WRITTEN, Security):
        held, seeds = store(), secure.seeds(PARTIES, 5)
        whole = run_in_memory(
            programs(secure, name, security), [X], parties=PARTIES, store=held, security=security, seeds=seeds
        )
        with monkeypatch.context() as smaller:
            smaller.setattr(schedule, "PART", 2000)
            program = programs(secure, name, security)
            in_parts = run_in_memory(program, [X], parties=PARTIES, store=held, security=security, seeds=seeds)
            assert len(program.schedule(security).parts) > 10
        for one, other in zip(whole.outputs, in_parts.outputs, strict=True):
            assert np.array_equal(one, other)
        for here, there in zip(whole.shares, in_parts.shares, strict=True):
            # The party's share of what is revealed, but for the key's seed.
            assert all(np.array_equal(one, other) for one, other in zip(here, there, strict=True))


def test_each_step_takes_what_is_due_and_leaves_nothing_of_what_is_used(cut: tuple[Program, Security]) -> None:
    program, security = cut
    held, source = store(), TrustedDealer()
    dealing = deal(program, PARTIES, {"model": held.masks}, security)
    runs = [
        PartyRun(
            program, party=i, parties=PARTIES, randomness=party_randomness(dealing, program, i, security, source),
            stored=held.held[i], security=security, session=b"one",
        )
        for i in range(PARTIES)
    ]  # fmt: skip
    waiting = [iter(later_parts(dealing, program, i, security)) for i in range(PARTIES)]
    client = source.for_client(program, security, PARTIES, as_sent(dealing.for_client()))
    exchanges = [run.online(masked_inputs(program, [X], client)) for run in runs]
    sent, ended = [None] * PARTIES, []
    while not ended:
        received = sent
        sent = []
        for i, (run, exchange) in enumerate(zip(runs, exchanges, strict=True)):
            while not run.provided:
                run.prepare(next(waiting[i]))
            assert run.prepared == max(1, run.schedule.due(run.evaluated))
            others = [vector for j, vector in enumerate(received) if j != i]
            try:
                sent.append(next(exchange) if received[0] is None else exchange.send(others))
            except StopIteration:
                ended.append(i)
            run.catch_up()
            for part in run.schedule.parts[: run.schedule.used(run.evaluated)]:
                kept = {*program.outputs, *program.draws}
                waits = [j for j in part if j not in kept and run._shares._prepared[j] is not None]
                assert not waits, "what was dealt for them is gone"
    assert len(ended) == PARTIES
    assert all(next(left, None) is None for left in waiting)


@pytest.mark.parametrize("party", [0, PARTIES - 1])
def test_what_goes_on_longer_than_the_program_is_refused(cut: tuple[Program, Security], party: int) -> None:
    program, security = cut
    dealing = deal(program, PARTIES, {"model": store().masks}, security)
    randomness = party_randomness(dealing, program, party, security)
    later = later_parts(dealing, program, party, security)
    for part in later:
        randomness.take(part)
    with pytest.raises(ProgramError, match="more was dealt"):
        randomness.take(later[-1])


def test_parts_are_taken_in_their_order_and_by_the_last_party_alone(cut: tuple[Program, Security]) -> None:
    program, security = cut
    dealing = deal(program, PARTIES, {"model": store().masks}, security)
    later = later_parts(dealing, program, PARTIES - 1, security)
    k = next(k for k in range(len(later) - 1) if list(map(len, later[k])) != list(map(len, later[k + 1])))
    randomness = party_randomness(dealing, program, PARTIES - 1, security)
    for part in later[:k]:
        randomness.take(part)
    with pytest.raises(ProgramError, match="correction"):
        randomness.take(later[k + 1])
    with pytest.raises(ProgramError, match="only the last party"):
        party_randomness(dealing, program, 0, security).take(next(filter(None, later)))
