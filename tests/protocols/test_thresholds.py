"""Many thresholds of one value: it is opened once, its tables are dealt once, and each is as exact as alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from mpc import fixed_point
from mpc.cost import cost
from mpc.objective import ANY, LATENCY, TRAFFIC, Objective
from mpc.program import Program
from mpc.rings import FIELD, field, field_of, known_rings
from mpc.security import Security
from protocols.operations.digits import EXACTLY, Digits, Tables, Window
from protocols.operations.mask import Mask
from protocols.operations.residues import Residue
from protocols.readings.memory import run_in_memory

STRICT = Objective(ANY, Security.MALICIOUS)
OBJECTIVES = {"two rounds": LATENCY, "three rounds": TRAFFIC, "with MACs": STRICT}
MARKS = np.array([-3.5, -1.0, -(2.0**-16), 0.0, 2.0**-16, 0.7, 3.0, 4.0])


def values(count: int = 40) -> Any:
    """Around each threshold, and at the ends of the range."""
    near = np.concatenate([MARKS + d * 2.0**-16 for d in (-1, 0, 1)])
    return np.clip(np.resize(np.concatenate([near, [-4.0, 4.0]]), count), -4.0, 4.0)


def computed(program: Program, *real: Any, parties: int = 2) -> list[Any]:
    raw = [
        fixed_point.encode(r, program.nodes[i].type.fraction_bits) for r, i in zip(real, program.inputs, strict=True)
    ]
    run = run_in_memory(program, raw, parties=parties, security=program.objective.security)
    types = [program.nodes[i].type for i in program.outputs]
    return [fixed_point.decode(out, t.fraction_bits) for out, t in zip(run.outputs, types, strict=True)]


def whole(program: Program) -> int:
    """Tables that are made, of whole numbers."""
    first = [n for n in program.nodes if isinstance(n.operation, Tables) or n.operation.name == "steps"]
    return sum(program.nodes[n.inputs[0]].type.size for n in first if not getattr(n.operation, "place", 0))


USES: dict[str, tuple[Callable[[Any], Any], Callable[[Any], Any]]] = {
    "an axis more": (lambda x: x.expand_dims(-1) >= MARKS, lambda x: x[..., None] >= MARKS),
    "strictly": (lambda x: x.expand_dims(-1) > MARKS, lambda x: x[..., None] > MARKS),
    "one by one": (
        lambda x: (x < -1) + (x > 0.7) * 2 + (x <= 3) * 4 + (x >= 0.1) * 8,
        lambda x: (x < -1) + (x > 0.7) * 2 + (x <= 3) * 4 + (x >= 0.1) * 8,
    ),
    "equal, and below": (lambda x: (x == 0.7) + (x < 3.0) * 2, lambda x: 0.0 + (x == 0.7) + (x < 3.0) * 2),
    "sign": (lambda x: x.sign(), np.sign),
    "clip": (lambda x: x.clip(-1, 3), lambda x: np.clip(x, -1, 3)),
    "each its own": (
        lambda x: x - np.resize(np.rint(MARKS), x.shape) >= 0,
        lambda x: x >= np.resize(np.rint(MARKS), x.shape),
    ),
    "searchsorted": (lambda x: x.searchsorted(MARKS, "right"), lambda x: np.searchsorted(MARKS, x, "right")),
    "histogram": (lambda x: x.histogram(MARKS), lambda x: np.histogram(x, MARKS)[0]),
}


@pytest.mark.parametrize("name", USES)
@pytest.mark.parametrize("variant", OBJECTIVES)
def test_tables_are_shared_and_results_are_exact(secure: Any, name: str, variant: str) -> None:
    compute, wanted = USES[name]
    real = np.rint(values() * 2**16) / 2**16
    x, y = secure.secret(real.shape), secure.secret(real.shape)
    program = secure.program(compute(((x + y) / 2).within(-4, 4)), objective=OBJECTIVES[variant])
    (found,) = computed(program, real, real, parties=3)
    assert np.array_equal(found, wanted(real))
    # With MACs, of few thresholds each has its own.
    assert whole(program) == real.size or (variant == "with MACs" and not whole(program))


def test_what_is_computed_is_opened_once(secure: Any) -> None:
    x, w = secure.secret((3, 7)), secure.secret((7, 5))
    y = x @ w
    marks = np.arange(-2.0, 6.0)
    program = secure.program(y.expand_dims(-1) > marks, (y - 1.0).relu(), y.clip(0.0, 3.0))
    opened = (n.type.size for n in program.nodes if isinstance(n.operation, Mask) and n.type.ring == FIELD)
    assert sum(opened) == 15


@pytest.mark.parametrize("thresholds", [2, 8, 64])
def test_a_threshold_more_is_cheaper(secure: Any, thresholds: int) -> None:
    """At 20 bits, of what one alone is dealt: tables are made once, and larger where they are of use to more."""
    least = {
        "two rounds": {2: 88, 8: 46, 64: 24}, "three rounds": {2: 19, 8: 13, 64: 10},
        "with MACs": {2: 704, 8: 546, 64: 199.5},
    }  # fmt: skip
    for variant, objective in OBJECTIVES.items():
        x = secure.secret((800,))
        program = secure.program(x.expand_dims(-1) >= np.linspace(-3, 3, thresholds), objective=objective)
        (bits,) = {sum(n.operation.widths) for n in program.nodes if isinstance(n.operation, Digits | Residue)}
        # A bit more, where thresholds have tables of their own.
        assert bits == 20 + (variant == "with MACs" and thresholds == 2)
        own = 8 * 800 if variant == "with MACs" else 0  # the MAC of the input's mask
        dealt = cost(program, 2, objective.security).offline_dealer_bytes[-1] - 16 - own
        assert dealt / 800 / thresholds <= least[variant][thresholds] + 0.5


def test_repeated_in_another_order_it_has_tables_of_its_own(secure: Any) -> None:
    """A table serves neighbours: where thresholds come first, each has tables; results are as exact."""
    real = values(6)
    x = secure.secret(real.shape)
    program = secure.program(x >= MARKS.reshape(-1, 1))
    assert whole(program) == 6 * MARKS.size
    assert np.array_equal(computed(program, real)[0], np.rint(real * 2**16) / 2**16 >= MARKS.reshape(-1, 1))


def test_thresholds_far_outside_are_right_too(secure: Any) -> None:
    real, far = values(6), np.array([-(2.0**20), -5.0, 0.0, 5.0, 2.0**20])
    x = secure.secret(real.shape)
    program = secure.program(x.expand_dims(-1) - far >= 0)
    assert np.array_equal(computed(program, real)[0], np.rint(real * 2**16)[:, None] / 2**16 >= far)


@pytest.mark.parametrize("variant", ["two rounds", "three rounds"])
@pytest.mark.parametrize("value", [-4.0, 0.7, 4.0])
def test_bits_opened_for_thresholds_of_one_value_are_uniform_together(secure: Any, variant: str, value: float) -> None:
    """They come from the same tables, and may be the same entry; each has a one-time bit of its own all the same."""
    size, marks = 4000, np.array([0.0, 0.0, 2.0**-16, 1.0])
    x = secure.secret((size,))
    program = secure.program(x.expand_dims(-1) - marks >= 0, objective=OBJECTIVES[variant])
    sent = secure.watch(program, [fixed_point.encode(np.full(size, value), 16)], 2, secure.seeds(2, 7)).sent[0]
    bits = secure.opened_bits(program, sent, 4 * size)
    signed = 1.0 - 2.0 * bits.reshape(size, -1)
    # Six standard deviations, of each place and of every two.
    assert np.abs(signed.sum(axis=0)).max() < 6 * size**0.5
    assert np.abs(signed.T @ signed - size * np.eye(signed.shape[1])).max() < 6 * size**0.5


@pytest.mark.parametrize("variant", OBJECTIVES)
def test_equality_is_one_comparison(secure: Any, variant: str) -> None:
    x, y = secure.secret((50,)), secure.secret((50,))
    objective = OBJECTIVES[variant]
    same, at_least = (secure.program(test, objective=objective) for test in (x == y, x >= y))
    assert same.rounds == at_least.rounds
    assert cost(same, 2, objective.security).offline_bytes <= cost(at_least, 2, objective.security).offline_bytes
    gated = secure.program((x == y) * x, (x != 0.5) * y, objective=objective)
    assert gated.rounds == at_least.rounds
    a, b = np.resize(values(), 50), np.resize(values(), 50)
    b[::3] = a[::3]
    a, b = (np.rint(v * 2**16) / 2**16 for v in (a, b))
    inputs = [a, b]
    kept, others = computed(gated, *inputs)
    assert np.array_equal(kept, (a == b) * a)
    assert np.array_equal(others, (a != 0.5) * b)


@pytest.mark.parametrize("widths", [(5,), (2, 3), (1, 1, 2, 1)])
@pytest.mark.parametrize("equal", [False, True])
def test_signs_and_equality_at_masks_near_the_ends_of_the_field(widths: tuple[int, ...], equal: bool) -> None:
    """Whether or not c - r wraps past p, or c itself does."""
    ring, window = field_of(known_rings()), Window(EXACTLY, widths)
    x = np.arange(-15, 16)
    for opened in (0, 1, 15, 16, 17, field.P - 1, field.P - 16, field.P // 2, field.P // 2 + 1, 2**59, 2**60 - 8):
        for public in (np.full(x.shape, (opened + k) % field.P, np.uint64) for k in range(3)):
            tables = ring.table(window.hidden(ring, ring.subtract(ring.from_signed(x), public)), 0, widths)
            rows = ring.to_signed(ring.look_up(window.opened(ring, public, equal), 0, widths, tables, 1, 1, equal))
            packed = ring.packed_table(window.hidden(ring, ring.subtract(ring.from_signed(x), public)), 0, widths)
            planes = ring.packed_look_up(window.opened(ring, public, equal), 0, widths, packed, 1, 1, equal)
            bits = np.unpackbits(planes, axis=1, count=x.size, bitorder="little")
            for found, plus in ((rows, np.add), (bits, np.bitwise_xor)):
                a, b = found[: len(widths)], found[len(widths) :]
                chain = a[0]
                for j in range(1, len(widths)):
                    chain = plus(a[j], b[j - 1] * chain)
                assert np.array_equal(chain, x == 0 if equal else x >= 0), opened
