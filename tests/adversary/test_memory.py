"""A thousand runs that somebody disturbs: each comes out right, or is aborted before anything is revealed."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import numpy as np
import pytest
from adversary import Ending, Strategy, World, attack
from cases import Case, build
from strategies import STRATEGIES

from mpc.errors import ProgramError, TesseraError
from mpc.operation import registered
from mpc.rings import field

SCHEDULES = 1000
NO_EFFECT = "no effect"
"""Something was changed that nobody ever used, and the result is right."""
NO_PLACE = "no place"
"""Nothing was changed."""
MAY_HAVE_NO_EFFECT = {"a bit of a correction", "corrections that cancel"}
"""Of the values that truncation is dealt, a party uses those that the opened bit selects."""


@pytest.fixture(scope="module")
def cases(secure: Any) -> list[Case]:
    return build(secure)


def schedule(cases: list[Case], seed: int) -> tuple[str, World, Strategy]:
    """Who does what to which program: all from the seed."""
    rng = random.Random(seed)
    name = list(STRATEGIES)[seed % len(STRATEGIES)]
    kind = STRATEGIES[name]
    case = rng.choice([c for c in cases if c.program.rounds >= kind.openings and (c.weights or not kind.stored)])
    parties = rng.randint(kind.fewest, 4)
    count = rng.randint(kind.parties, parties - kind.honest)
    world = World(case, parties, frozenset(rng.sample(range(parties), count)), rng)
    return name, world, kind(world)


def right(case: Case, result: list[np.ndarray]) -> bool:
    for array, wanted, bound in zip(result, case.wanted, case.bounds, strict=True):
        difference = np.abs(field.to_signed(field.subtract(array, wanted)))
        if difference.size and difference.max() > bound:
            return False
    return True


def judge(ending: Ending) -> str:
    """What became of it; an AssertionError if that must not be."""
    world = ending.world
    if not ending.client_failed:
        assert not ending.matters, "the client was given a result of a run that was disturbed"
        assert not ending.failed
        assert right(world.case, ending.result), "the client was given a wrong result"  # type: ignore[arg-type]
    for party, outcome in ending.outcomes.items():
        if not isinstance(outcome, TesseraError):
            assert not ending.wrong_view[party], f"party {party} handed out an output of wrong openings"
    if world.deviated or any(ending.wrong_view.values()):
        assert ending.failed, "no honest party noticed"
    if ending.client_failed:
        assert world.touched, f"nobody did anything, and yet: {ending.result!r}"
        return type(ending.result).__name__
    return NO_EFFECT if world.touched else NO_PLACE


def test_every_operation_is_in_some_program(cases: list[Case]) -> None:
    used = {node.operation.name for case in cases for node in case.program.nodes}
    # Of bits, which carry no MACs; and of draws, which are right whatever they are (tests/protocols/test_random.py).
    assert used == set(registered()) - {
        "beyond",
        "beyonds",
        "steps",
        "weighed",
        "signed",
        "sign",
        "lifted",
        "sign_bits",
        "draw",
        "bits",
    }
    assert any(case.program.rounds == 0 for case in cases)
    assert any(len(case.program.outputs) > 1 for case in cases)


@pytest.mark.parametrize("parties", [2, 3, 4])
def test_undisturbed_runs_come_out_right(cases: list[Case], parties: int) -> None:
    """Also with parties that only watch: the driver itself disturbs nothing."""
    for case in cases:
        for corrupt in (frozenset(), frozenset(range(1, parties))):
            world = World(case, parties, corrupt, random.Random(0))
            ending = attack(world, Strategy(world))
            assert judge(ending) == NO_PLACE
            assert not ending.failed


def campaign(cases: list[Case], seeds: range) -> dict[str, Counter[str]]:
    found: dict[str, Counter[str]] = {name: Counter() for name in STRATEGIES}
    for seed in seeds:
        name, world, strategy = schedule(cases, seed)
        try:
            found[name][judge(attack(world, strategy))] += 1
        except Exception as error:
            raise AssertionError(
                f"seed {seed}: {name}, in {world.case.name}, {world.parties} parties, corrupt {set(world.corrupt)}"
            ) from error
    return found


@pytest.mark.parametrize("count", [SCHEDULES // 4, pytest.param(SCHEDULES, marks=pytest.mark.slow)])
def test_schedules(cases: list[Case], count: int) -> None:
    found = campaign(cases, range(count))
    assert sum(sum(counts.values()) for counts in found.values()) == count
    for name, counts in found.items():
        assert counts[NO_PLACE] == 0, name
        assert counts[NO_EFFECT] == 0 or name in MAY_HAVE_NO_EFFECT, name
        assert counts.total() > 2 * counts[NO_EFFECT], name


@pytest.mark.sampled(4)
@pytest.mark.parametrize("name", STRATEGIES)
def test_each_cheat_in_each_program(cases: list[Case], name: str) -> None:
    """With as many corrupt parties as there can be."""
    kind = STRATEGIES[name]
    for case in cases:
        if case.program.rounds >= kind.openings and (case.weights or not kind.stored):
            rng = random.Random(case.name + name)
            world = World(case, 3, frozenset(rng.sample(range(3), 3 - kind.honest)), rng)
            assert judge(attack(world, kind(world))) != NO_PLACE


@pytest.mark.parametrize("parties", [2, 3])
def test_an_empty_sigma_is_no_sigma(cases: list[Case], parties: int) -> None:
    """The sum of the sigmas would be empty, and an empty sum is not wrong: no honest party gets as far as that."""
    case = next(case for case in cases if case.name == "one_opening")
    world = World(case, parties, frozenset({parties - 1}), random.Random(0))
    ending = attack(world, STRATEGIES["an error, and a sigma that is empty"](world))
    assert all(ending.wrong_view.values())
    assert {type(outcome) for outcome in ending.outcomes.values()} == {ProgramError}


@pytest.mark.slow
def test_five_thousand_other_schedules(cases: list[Case]) -> None:
    campaign(cases, range(SCHEDULES, 6 * SCHEDULES))
