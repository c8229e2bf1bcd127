"""Rows in an order that nobody knows: all of them, alike in all tensors, every order as likely, and no other one."""

from __future__ import annotations

from collections import Counter
from itertools import permutations
from typing import Any

import numpy as np
import pytest
from scipy.stats import chisquare

from mpc import fixed_point
from mpc.cost import cost
from mpc.errors import MacCheckError, ProgramError, RangeError, ShapeError, UnsupportedError, UsageError
from mpc.objective import ANY, Objective
from mpc.operation import Input, Stored
from mpc.program import Expression, Program
from mpc.rings import field, field_of
from mpc.security import Security
from protocols.lowering import rules
from protocols.operations.linear import Add
from protocols.operations.mask import Mask
from protocols.operations.shuffle import MOST_ROWS, Order, Places, Shuffled
from protocols.readings import memory
from protocols.readings.clear import clear
from protocols.readings.dealer import deal
from protocols.readings.explain import Examined
from protocols.readings.memory import party_randomness, run_in_memory
from protocols.trace.gradients import grad
from protocols.trace.random import Random
from protocols.trace.secret_tensor import leaf

PERMUTATION = Random().permutation
RUNS = [(2, Security.SEMI_HONEST), (5, Security.SEMI_HONEST), (3, Security.MALICIOUS), (5, Security.MALICIOUS)]


def opened(program: Program, run: Any) -> list[Any]:
    types = (program.nodes[i].type for i in program.outputs)
    return [fixed_point.decode(out, t.fraction_bits) for out, t in zip(run.outputs, types, strict=True)]


@pytest.mark.parametrize(("parties", "security"), RUNS)
def test_all_rows_alike_in_all_tensors(secure: Any, parties: int, security: Security, monkeypatch: Any) -> None:
    """In no round where they are there, in one where they have been computed; in one block, or several."""
    rng, objective = np.random.default_rng(0), Objective(ANY, security)
    x, y = np.round(rng.uniform(-4, 4, (9, 2, 3)) * 256) / 256, np.arange(9.0)
    raw = [fixed_point.encode(x, 16, -4, 4), fixed_point.encode(y, 0, 0, 8)]
    for block in (1 << 20, 2 * 9):
        monkeypatch.setattr(rules, "BLOCK", block)
        a, b = secure.secret(x.shape), secure.secret(y.shape, 0, 8, 0)
        program = secure.program(*PERMUTATION(a, b), objective=objective)
        assert program.rounds == 0
        run = run_in_memory(program, raw, parties=parties, security=security, seeds=secure.seeds(parties, 1))
        rows, order = opened(program, run)
        assert sorted(order) == list(y) != list(order)
        assert np.array_equal(rows, x[order.astype(int)])
        # A matrix, and each element; with MACs twice, and those of the inputs' masks.
        dealt = 81 + 54 + 9 if security is Security.SEMI_HONEST else 2 * (81 + 54 + 9) + 54 + 9
        assert cost(program, parties, security).offline_dealer_bytes[-1] == 16 + 8 * dealt
        assert all(np.array_equal(*pair) for pair in zip(clear(program, raw), raw, strict=True))
    program = secure.program(PERMUTATION(secure.secret(x.shape) * secure.secret(x.shape)), objective=objective)
    assert program.rounds == 1


def test_every_order_is_as_likely(secure: Any) -> None:
    x = secure.secret((4,), 0, 3, 0)
    program = secure.program(*(PERMUTATION(x) for _ in range(480)))
    run = run_in_memory(program, [np.arange(4, dtype=np.uint64)], seeds=secure.seeds(2, 7))
    found = Counter(tuple(map(int, each)) for each in run.outputs)
    assert found.keys() <= set(permutations(range(4)))
    assert chisquare([found[each] for each in permutations(range(4))]).pvalue > 1e-6


def test_what_parties_hold_says_nothing_of_the_order(secure: Any) -> None:
    """Of one who has all but one of the shares of the matrix, they are as uniform as if it were another."""
    program = secure.program(PERMUTATION(secure.secret((32,))))
    dealing = deal(program, 3, {}, Security.SEMI_HONEST, secure.seeds(3, 8))
    i = next(i for i, node in enumerate(program.nodes) if isinstance(node.operation, Places))
    held = [party_randomness(dealing, program, party, Security.SEMI_HONEST).dealt(i)[0] for party in range(3)]
    whole = field.add(field.add(*held[:2]), held[2])
    assert np.array_equal(np.sort(whole.argmax(1)), np.arange(32)) and whole.sum() == 32
    for some in (held[:2], held[1:], held[::2]):
        high = (field.add(*some) >> np.uint64(58)).ravel().astype(int)
        assert chisquare(np.bincount(high, minlength=8)).pvalue > 1e-6


@pytest.mark.parametrize("kind", [Places, Shuffled])
def test_a_party_that_moves_rows_is_caught(secure: Any, monkeypatch: Any, kind: type) -> None:
    """What it holds of the matrix, or of the mask in that order, is that of an order of its own choice."""
    x, y = (secure.secret((5,), 0, 8, 0) for _ in range(2))
    program = secure.program(PERMUTATION(x) * y, objective=Objective(ANY, Security.MALICIOUS))
    (i,) = (i for i, node in enumerate(program.nodes) if isinstance(node.operation, kind))
    honest = memory.prepared_run

    def prepared(*args: Any, party: int, **others: Any) -> Any:
        run = honest(*args, party=party, **others)
        if party == 1:
            for evaluation in (run._shares, run._macs):
                held = evaluation._prepared[i]
                if kind is Places:
                    evaluation._values[i].share = np.roll(evaluation._values[i].share, 1, 0)
                else:
                    evaluation._prepared[i] = [np.roll(held[0], 1, 0)]
        return run

    raw = [np.arange(5, dtype=np.uint64), np.ones(5, np.uint64)]
    assert sorted(opened(program, run_in_memory(program, raw, security=Security.MALICIOUS))[0]) == [0, 1, 2, 3, 4]
    monkeypatch.setattr(memory, "prepared_run", prepared)
    with pytest.raises(MacCheckError):
        run_in_memory(program, raw, security=Security.MALICIOUS)


def test_arrays_are_the_rings_own(secure: Any, opaque: Any) -> None:
    program = secure.program(PERMUTATION(secure.secret((6, 2))))
    raw = fixed_point.encode(np.arange(12.0).reshape(6, 2) / 8, 16, -4, 4)
    (rows,) = run_in_memory(program, [field_of(opaque).from_signed(raw.astype(np.int64))], rings=opaque).outputs
    assert sorted(field_of(opaque).to_signed(rows)[:, 0]) == sorted(raw.astype(np.int64)[:, 0])


def test_what_cannot_be_shuffled_is_refused(secure: Any) -> None:
    x, y = secure.secret((3, 2)), secure.secret((4,))
    for given, error in (((), UsageError), ((np.zeros(3),), UsageError), ((x, y), ShapeError)):
        with pytest.raises(error):
            PERMUTATION(*given)
    with pytest.raises(ShapeError, match="one at least"):
        PERMUTATION(x.sum())
    with pytest.raises(RangeError, match="parts of them"):
        PERMUTATION(secure.secret((MOST_ROWS + 1,)))
    with pytest.raises(UnsupportedError, match="shuffle what is learnt from"):
        grad(PERMUTATION(x).sum(), [x])


def test_who_looks_at_a_program_is_told_that_rows_are_revealed(secure: Any) -> None:
    """In whatever order: as many numbers as went in, each a copy of one."""
    program = secure.program(PERMUTATION(leaf(Stored((6, 2), 8, -1.0, 1.0, "north/data", "x"))))
    (told,) = Examined(program).telling(("north/data",))
    assert (told.numbers, told.linear) == (12, 12)


def test_forged_programs_are_refused() -> None:
    """Matrices of an order that somebody knows, of another one, and what would tell one, or masks."""
    x = Expression(Input((3,), 0, 0.0, 1.0))
    theirs = Expression(Stored((3,), 0, 0.0, 1.0, "model", "w"))
    order, other = Expression(Order(3)), Expression(Order(3))
    places = Expression(Places(0, 3), (order,))
    whole = Expression(Shuffled(0, 3), (x, order, places))
    assert Program.of([whole]).rounds == 0
    for forged, why in (
        (
            lambda: Expression(Shuffled(0, 3), (x, theirs, Expression(Places(0, 3), (theirs,)))),
            "an order that nobody knows",
        ),
        (lambda: Expression(Shuffled(0, 3), (x, other, places)), "its own places"),
        (lambda: Expression(Shuffled(0, 2), (x, order, places)), "places of as many rows"),
        (lambda: Expression(Shuffled(0, 3), (x, order, whole)), "places of as many rows"),
        (lambda: Expression(Places(0, 4), (order,)), "places that there are"),
        (lambda: order, "tells of masks"),
        (lambda: places, "tells of masks"),
        (lambda: Expression(Mask(), (places,)), "tells of masks"),
        (lambda: Expression(Add(), (places, places)), "tells of masks"),
        (lambda: Expression(Order(MOST_ROWS + 1)), "orders 1 to"),
    ):
        with pytest.raises(ProgramError, match=why):
            Program.of([forged()])
