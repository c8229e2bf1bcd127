"""A party's reading: used once, checks whatever it is handed, and shows no secret."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from mpc import field, fixed_point
from mpc.errors import ProgramError
from protocols.dealer import deal
from protocols.memory import lockstep, run_in_memory
from protocols.party import PartyRun, UnreducedOpening


def parties_of(secure: Any, program: Any, parties: int = 2) -> tuple[list[PartyRun], Any]:
    dealing = deal(program, parties, {}, seeds=secure.seeds(parties, 9))
    return [
        PartyRun(
            program, party=i, parties=parties, seed=dealing.seeds[i], stored={},
            corrections=dealing.corrections if i == parties - 1 else (),
        )
        for i in range(parties)
    ], dealing  # fmt: skip


def two_rounds(secure: Any) -> Any:
    x = secure.secret((2, 3))
    return secure.program(((x * x).sigmoid(interval=(-8, 8)) * x).truncate(12))


def test_a_run_is_used_once(secure: Any) -> None:
    program = two_rounds(secure)
    runs, _ = parties_of(secure, program)
    masked = [field.zeros((2, 3))]
    lockstep([run.online(masked) for run in runs])
    for run in runs:
        with pytest.raises(ProgramError, match="fresh"):
            run.online(masked)


def test_a_run_that_was_given_bad_inputs_is_used_too(secure: Any) -> None:
    runs, _ = parties_of(secure, two_rounds(secure))
    with pytest.raises(ProgramError):
        runs[0].online([])
    with pytest.raises(ProgramError, match="fresh"):
        runs[0].online([field.zeros((2, 3))])


@pytest.mark.parametrize(
    "masked",
    [
        [],
        [field.zeros((2, 3))] * 2,
        [field.zeros((3, 2))],
        [field.zeros((6,))],
        [np.zeros((2, 3), np.int64)],
        [np.full((2, 3), field.P, np.uint64)],
        [np.full((2, 3), 2**64 - 1, np.uint64)],
    ],
)
def test_inputs_are_checked(secure: Any, masked: Any) -> None:
    runs, _ = parties_of(secure, two_rounds(secure))
    with pytest.raises(ProgramError):
        runs[0].online(masked)


CHANGES: list[Callable[[list[Any]], Any]] = [
    lambda c: c[:-1],
    lambda c: [*c, c[0]],
    lambda c: [c[0][:-1], *c[1:]],
    lambda c: [c[0].astype(np.int64), *c[1:]],
    lambda c: [np.full_like(c[0], field.P), *c[1:]],
    lambda c: [],
]


@pytest.mark.parametrize("change", CHANGES)
def test_corrections_are_checked(secure: Any, change: Any) -> None:
    program = two_rounds(secure)
    dealing = deal(program, 2, {})
    with pytest.raises(ProgramError):
        PartyRun(
            program, party=1, parties=2, seed=dealing.seeds[1], corrections=change(list(dealing.corrections)), stored={}
        )
    with pytest.raises(ProgramError, match="last party"):
        PartyRun(program, party=0, parties=2, seed=dealing.seeds[0], corrections=dealing.corrections, stored={})


def test_stored_tensors_are_checked(secure: Any) -> None:
    program = secure.program(secure.secret((3,)) * secure.stored("w", (3,)))
    store = secure.store({"w": field.zeros(4)}, 2)
    for stored in ({}, store.held[0]):
        with pytest.raises(ProgramError, match="upload it again"):
            PartyRun(program, party=0, parties=2, seed=secure.seeds(2, 0)[0], corrections=(), stored=stored)


@pytest.mark.parametrize("number", [field.P, field.P + 1, 2**64 - 1])
@pytest.mark.parametrize("parties", [2, 3])
def test_numbers_outside_the_field_are_noticed(secure: Any, number: int, parties: int) -> None:
    """By the party that receives them, which says from whom they came."""

    def tamper(_: int, sender: int, receiver: int, buffer: Any) -> Any:
        if (sender, receiver) == (parties - 1, 0):
            buffer = buffer.copy()
            buffer[-1] = number
        return buffer

    with pytest.raises(UnreducedOpening) as caught:
        run_in_memory(two_rounds(secure), [field.zeros((2, 3))], parties=parties, tamper=tamper)
    assert caught.value.position == parties - 2
    assert str(number) not in str(caught.value)


def test_a_tampered_opening_changes_only_the_result(secure: Any) -> None:
    """Semi-honest security does not notice a wrong number in the field; nothing else goes wrong."""
    program = two_rounds(secure)
    x = fixed_point.encode(np.full((2, 3), 0.5), 16)
    honest = run_in_memory(program, [x]).outputs[0]

    def tamper(_: int, sender: int, receiver: int, buffer: Any) -> Any:
        return field.add(buffer, np.array(2**50, np.uint64)) if sender == 0 else buffer

    assert not np.array_equal(run_in_memory(program, [x], tamper=tamper).outputs[0], honest)


@pytest.mark.parametrize("received", [[], [np.zeros(5, np.uint64)], [np.zeros(6, np.uint64)] * 2])
def test_a_round_takes_one_buffer_from_each_other_party(secure: Any, received: Any) -> None:
    runs, _ = parties_of(secure, two_rounds(secure))
    exchange = runs[0].online([field.zeros((2, 3))])
    assert next(exchange).shape == (6,)
    with pytest.raises(ProgramError):
        exchange.send(received)


def test_what_is_sent_is_not_overwritten(secure: Any) -> None:
    """The buffer of a round may still be on its way while the next one is computed."""
    runs, _ = parties_of(secure, two_rounds(secure))
    exchanges = [run.online([field.zeros((2, 3))]) for run in runs]
    sent = [next(e) for e in exchanges]
    copies = [s.copy() for s in sent]
    for exchange, other in zip(exchanges, reversed(sent), strict=True):
        exchange.send([other])
    assert all(np.array_equal(s, c) for s, c in zip(sent, copies, strict=True))


def test_parties_that_run_different_programs(secure: Any) -> None:
    first, _ = parties_of(secure, two_rounds(secure))
    second, _ = parties_of(secure, secure.program(secure.secret((2, 3)).truncate(3) * 2))
    masked = [field.zeros((2, 3))]
    with pytest.raises(ProgramError, match="number of rounds"):
        lockstep([first[0].online(masked), second[1].online(masked)])


def test_no_secret_is_shown(secure: Any) -> None:
    program = two_rounds(secure)
    run = run_in_memory(program, [fixed_point.encode(np.full((2, 3), 0.625), 16)])
    for thing in (run, *run.runs, run.dealing, *run.runs[0]._shares._values, *run.runs[0]._shares._prepared):
        assert "array" not in repr(thing)
        assert "[" not in repr(thing)


def test_time_is_counted_by_label(secure: Any) -> None:
    x = secure.secret((2,)).labelled("first")
    y = (x * x).labelled("second").sigmoid(interval=(-8, 8))
    run = run_in_memory(secure.program(y), [field.zeros(2)])
    assert set(run.runs[0].seconds) == {"first", "second"}
