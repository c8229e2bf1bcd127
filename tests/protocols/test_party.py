"""A party's reading: used once, checks whatever it is handed, and shows no secret."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from mpc import fixed_point
from mpc.cost import CHECK
from mpc.errors import MacCheckError, ProgramError
from mpc.objective import ANY, Objective
from mpc.rings import FieldRing, field
from mpc.security import Security
from protocols.lowering.plan import plan
from protocols.randomness.dealt import TrustedDealer
from protocols.readings.dealer import deal
from protocols.readings.inputs import masked_inputs
from protocols.readings.memory import as_sent, lockstep, party_randomness, run_in_memory
from protocols.readings.party import PartyRun, UnreducedOpening
from protocols.trace.secret_tensor import graph_of

SEMI = Security.SEMI_HONEST


def parties_of(secure: Any, program: Any, parties: int = 2) -> tuple[list[PartyRun], Any]:
    dealing = deal(program, parties, {}, seeds=secure.seeds(parties, 9))
    return [
        PartyRun(
            program, party=i, parties=parties, stored={},
            randomness=party_randomness(dealing, program, i, Security.SEMI_HONEST),
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
    lambda c: [c[0].astype(np.uint32), *c[1:]],
    lambda c: [np.full_like(c[0], field.P), *c[1:]],
    lambda c: [],
]


@pytest.mark.parametrize("change", CHANGES)
def test_corrections_are_checked(secure: Any, change: Any) -> None:
    program = two_rounds(secure)
    dealing = deal(program, 2, {})
    seed, *corrections = dealing.for_party(1)
    with pytest.raises(ProgramError):
        of_part(program, 1, [seed, *change(corrections)])
    with pytest.raises(ProgramError, match="last party"):
        of_part(program, 0, [bytes(dealing.seeds[0]), *corrections])


@pytest.mark.parametrize("part", [[], [b""], [bytes(15)], [bytes(17)]])
def test_a_part_begins_with_a_seed(secure: Any, part: list[bytes]) -> None:
    with pytest.raises(ProgramError, match="begins with its seed"):
        of_part(two_rounds(secure), 0, part)


def of_part(program: Any, party: int, part: Any, security: Security = Security.SEMI_HONEST) -> Any:
    return TrustedDealer().for_party(program, security, party=party, parties=2, payload=as_sent(part))


def test_what_the_first_reading_derives_of_what_is_opened_the_second_takes(
    secure: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Public parts of chains are the same of values and of their MACs: each is found once at each party."""
    x, found = secure.secret((2, 3)), list[int]()
    program = secure.program((x * x - 0.5).relu(), (x < 1) * x, objective=Objective(ANY, Security.MALICIOUS))
    known = FieldRing.known_chains

    def counted(self: FieldRing, opened: Any, some: Any) -> Any:
        found.append(len(some))
        return known(self, opened, some)

    monkeypatch.setattr(FieldRing, "known_chains", counted)
    raw = fixed_point.encode(secure.draw(2, (2, 3)), 16)
    run_in_memory(program, [raw], parties=3, security=Security.MALICIOUS)
    chains = [node for node in program.nodes if node.operation.name in ("join", "compare")]
    assert len(found) == 3 * len(chains)


def test_stored_tensors_are_checked(secure: Any) -> None:
    program = secure.program(secure.secret((3,)) * secure.stored("w", (3,)))
    store = secure.store({"w": field.zeros(4)}, 2)
    for stored in ({}, store.held[0]):
        with pytest.raises(ProgramError, match="upload it again"):
            PartyRun(program, party=0, parties=2, randomness=of_part(program, 0, [bytes(16)]), stored=stored)


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


@pytest.mark.parametrize(
    "received", [[], [[]], [[np.zeros(5, np.uint64)]], [[np.zeros(6, np.uint64)]] * 2, [[np.zeros(6, np.uint64)] * 2]]
)
def test_a_round_takes_one_buffer_from_each_other_party(secure: Any, received: Any) -> None:
    runs, _ = parties_of(secure, two_rounds(secure))
    exchange = runs[0].online([field.zeros((2, 3))])
    assert [vector.shape for vector in next(exchange)] == [(6,)]
    with pytest.raises(ProgramError):
        exchange.send(received)


def test_what_is_sent_is_not_overwritten(secure: Any) -> None:
    """The buffer of a round may still be on its way while the next one is computed."""
    runs, _ = parties_of(secure, two_rounds(secure))
    exchanges = [run.online([field.zeros((2, 3))]) for run in runs]
    sent = [next(e) for e in exchanges]
    copies = [s[0].copy() for s in sent]
    for exchange, other in zip(exchanges, reversed(sent), strict=True):
        exchange.send([other])
    assert all(np.array_equal(s[0], c) for s, c in zip(sent, copies, strict=True))


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


# -- malicious security ------------------------------------------------------------------------------------------------


def malicious_parties(
    secure: Any, program: Any, parties: int = 2, number: int = 9, sessions: Any = None
) -> list[PartyRun]:
    dealing = deal(program, parties, {}, Security.MALICIOUS, secure.seeds(parties, number))
    return [
        PartyRun(
            program, party=i, parties=parties, stored={}, security=Security.MALICIOUS,
            randomness=party_randomness(dealing, program, i, Security.MALICIOUS),
            session=sessions[i] if sessions else b"session",
        )
        for i in range(parties)
    ]  # fmt: skip


@pytest.mark.parametrize("parties", [2, 3])
def test_both_modes_compute_the_same(secure: Any, parties: int) -> None:
    """From the same seeds the same masks, openings and outputs, to the last bit; the check comes on top."""
    program, seeds = two_rounds(secure), secure.seeds(parties, 3)
    x = [fixed_point.encode(np.full((2, 3), 0.5), 16)]
    plain, macs = (secure.watch(program, x, parties, seeds, None, security) for security in Security)
    assert all(np.array_equal(a, b) for a, b in zip(plain.masked, macs.masked, strict=True))
    assert all(np.array_equal(a, b) for a, b in zip(plain.outputs, macs.outputs, strict=True))
    assert len(macs.sent) == len(plain.sent) + 3
    for one, two in zip(plain.sent, macs.sent, strict=False):
        assert all(np.array_equal(a, b[: a.size]) for a, b in zip(one, two, strict=True))
    for one, two in zip(plain.shares, macs.shares, strict=True):
        assert all(np.array_equal(a, b) for a, b in zip(one, two, strict=False))


def test_catching_up_between_rounds_changes_nothing(secure: Any) -> None:
    program = two_rounds(secure)
    masked = [field.zeros((2, 3))]
    results = []
    for often in (False, True):
        runs = malicious_parties(secure, program)

        def tamper(_: int, sender: int, receiver: int, buffer: Any, runs: Any = runs, often: bool = often) -> Any:
            if often:
                runs[sender].catch_up()
                runs[sender].catch_up()
            return buffer

        results.append(lockstep([run.online(masked) for run in runs], tamper))
    for one, two in zip(*results, strict=True):
        assert all(np.array_equal(a, b) for a, b in zip(one, two, strict=True))


@pytest.mark.parametrize("parties", [2, 3])
def test_a_tampered_opening_ends_the_run(secure: Any, parties: int) -> None:
    runs = malicious_parties(secure, two_rounds(secure), parties)

    def tamper(number: int, sender: int, receiver: int, buffer: Any) -> Any:
        if (number, sender) == (1, parties - 1):
            buffer = buffer.copy()
            buffer[0] = (int(buffer[0]) + 1) % field.P
        return buffer

    with pytest.raises(MacCheckError):
        lockstep([run.online([field.zeros((2, 3))]) for run in runs], tamper)


def test_parties_that_were_sent_different_inputs(secure: Any) -> None:
    """Even if no MAC depends on it: in a program that opens nothing."""
    x = secure.secret((2, 3))
    for program in (secure.program(x + 1), two_rounds(secure)):
        runs = malicious_parties(secure, program)
        other = field.zeros((2, 3))
        other[1, 1] = 1
        with pytest.raises(MacCheckError, match="were not sent the same"):
            lockstep([runs[0].online([field.zeros((2, 3))]), runs[1].online([other])])


def test_parties_in_different_sessions(secure: Any) -> None:
    runs = malicious_parties(secure, two_rounds(secure), sessions=[b"one", b"two"])
    with pytest.raises(MacCheckError, match="were not sent the same"):
        lockstep([run.online([field.zeros((2, 3))]) for run in runs])


def test_parties_with_preprocessing_of_different_runs(secure: Any) -> None:
    """Each for the same program; the keys do not go together, nor do the masks."""
    program = two_rounds(secure)
    mixed = [malicious_parties(secure, program, number=9)[0], malicious_parties(secure, program, number=10)[1]]
    with pytest.raises(MacCheckError, match="MACs of the opened values are wrong"):
        lockstep([run.online([field.zeros((2, 3))]) for run in mixed])


def test_corrections_of_the_other_mode_are_refused(secure: Any) -> None:
    program = two_rounds(secure)
    for dealt, used in (tuple(Security), tuple(reversed(Security))):
        dealing = deal(program, 2, {}, dealt)
        with pytest.raises(ProgramError, match="agree on the program and on the security"):
            of_part(program, 1, dealing.for_party(1), used)


def test_no_secret_is_shown_of_macs_either(secure: Any) -> None:
    program = two_rounds(secure)
    runs = malicious_parties(secure, program)
    lockstep([run.online([field.zeros((2, 3))]) for run in runs])
    run: Any = runs[0]
    for thing in (run, run._macs, run._check, run._randomness, run._macs._context, *run._macs._values):
        assert "array" not in repr(thing)
        assert "[" not in repr(thing)
        assert str(run._macs._context.unit) not in repr(thing)


def test_the_time_of_the_check_is_counted_apart(secure: Any) -> None:
    x = secure.secret((2,)).labelled("only")
    run = run_in_memory(secure.program(x * x * x), [field.zeros(2)], security=Security.MALICIOUS)
    assert set(run.runs[0].seconds) == {"only", CHECK}


@pytest.mark.parametrize("caught_up", [False, True])
def test_what_no_opening_waits_for_is_computed_while_one_is_on_its_way(secure: Any, caught_up: bool) -> None:
    """Bits of what is watched are opened after the last function: by who drives the run, or else in the next step."""
    x, w = secure.secret((1, 5), -20.0, 20.0), secure.stored("w", (5, 5))
    y = (((x * x).sigmoid(interval=(0.0, 8.0)) @ w).sigmoid(interval=(-1.0, 1.0)) @ w).sigmoid(interval=(-1.0, 1.0))
    program = plan(graph_of([y]), checked=True)
    store = secure.store({"w": fixed_point.encode(np.eye(5), 16)}, 2)
    dealing, source = deal(program, 2, {store.slot: store.masks}), TrustedDealer()
    runs = [
        PartyRun(
            program, party=i, parties=2, randomness=party_randomness(dealing, program, i, SEMI), stored=store.held[i]
        )
        for i in range(2)
    ]
    client = source.for_client(program, SEMI, 2, as_sent(dealing.for_client()))
    masked = masked_inputs(program, [np.zeros((1, 5), np.uint64)], client)
    exchanges, computed = [run.online(masked) for run in runs], []
    sent = [next(exchange) for exchange in exchanges]
    for _ in range(program.rounds):
        if caught_up:
            for run in runs:
                run.catch_up()
        computed.append(runs[0].seconds["interval check"] > 0)
        try:
            sent = [exchange.send([sent[1 - i]]) for i, exchange in enumerate(exchanges)]
        except StopIteration:
            break
    # What the first function is applied to is opened in the first round.
    assert computed.index(True) == (1 if caught_up else 2)
