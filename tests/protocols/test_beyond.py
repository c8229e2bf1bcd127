"""Watching by a bit each: nothing beyond an interval is taken for inside, and all that is well inside it is."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from mpc import fixed_point
from mpc.errors import ProgramError
from mpc.operation import Input, PartyContext, Value
from mpc.program import Expression, Program
from mpc.rings import BITS, FieldRing, bits_of, known_rings
from mpc.rings.field import P
from mpc.tensor_type import Form, TensorType
from protocols.lowering.plan import plan
from protocols.lowering.planner import Planner
from protocols.operations.beyond import MOST, Beyond, Beyonds
from protocols.operations.bit_comparison import Sign
from protocols.operations.digits import packed_type
from protocols.operations.in_range import Ends
from protocols.readings.memory import run_in_memory
from protocols.trace.secret_tensor import graph_of

F, RINGS, ONE = FieldRing(), known_rings(), PartyContext(0, 1)
EXAMPLES = [(-(8 << 30), 8 << 30), (-5000, 5000), (0, 1), (3, 4), (-4, 4), (7, 2**40 + 9), (-(2**49), 3)]


@pytest.mark.parametrize("bits", [3, 5])
@pytest.mark.parametrize(("low", "high"), EXAMPLES)
@pytest.mark.parametrize("looked_at", [(True, True), (True, False), (False, True)])
def test_every_edge_under_every_edge_of_masks(low: int, high: int, bits: int, looked_at: tuple[bool, bool]) -> None:
    """As far away as values may be for a table of 10 bits; where the field wraps, and nearly does."""
    width = high - low
    most = (width * 2 ** (MOST - bits)) // 2 - width
    least, most = (low - most if looked_at[0] else low), (high + most if looked_at[1] else high)
    t = TensorType((1,), 0, float(least), float(most), Form.MASKED)
    watch = Beyond.of(t, float(low), float(high), bits)
    assert watch is not None
    grain = 1 << watch.ignored
    assert grain <= max(width / 2**bits, 1)
    inside = {low + grain * looked_at[0], (low + high) // 2, high - grain * looked_at[1]}
    outside = {low - 1, low - 2, low - grain, high + 1, high + 2, high + grain, least, most}
    sure = [v for v in inside if low + grain * looked_at[0] <= v <= high - grain * looked_at[1]]
    values = [*sure, *(v for v in outside if least <= v <= most)]
    rng = np.random.default_rng(1)
    size = 1 << (watch.ignored + watch.bits)
    pairs = []
    for value in values:
        ends = [e - size for e in (watch.low, watch.high) if e is not None]
        # r, and what is looked up, x - end + r.
        near = [0, 2**60, grain, size, *(e - value for e in ends), *(e - value + grain for e in ends)]
        pairs += [(value, (s * n + d) % P) for n in near for s in (1, -1) for d in (-1, 0, 1)]
        pairs += [(value, int(k)) for k in rng.integers(0, P, 20)]
    x, r = (np.array([n % P for n in column], np.uint64) for column in zip(*pairs, strict=True))
    x_type, a = t.replace(shape=x.shape), F.negate(r)
    operation, value = watch, Value(F.subtract(x, a), a)
    assert operation.result(x_type) == packed_type(-(-x.size // 8))
    (correlation,) = operation.correlations(x_type)
    found = operation.evaluate(ONE, [x_type], [value], correlation.make(RINGS, [a])).share
    assert F.unpacked(found, x.size).tolist() == [not low <= v <= high for v, _ in pairs]


@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("parties", [1, 2, 3])
def test_tensors_are_counted_together_and_each_row_by_itself(rows: int, parties: int) -> None:
    """Of sizes that fill no bytes; with shares as parties have them."""
    rng, bits = np.random.default_rng(rows), bits_of(RINGS)
    planes = [rng.integers(0, 2, (rows, n)) for n in (5, 1, 8)]
    packed = np.concatenate([np.packbits(p.reshape(-1).astype(np.uint8), bitorder="little") for p in planes])
    mask = rng.integers(0, 256, packed.shape, np.uint8)
    operation = Beyonds(tuple(p.size for p in planes), rows)
    t = packed_type(packed.size).replace(form=Form.MASKED)
    assert operation.result(t).high == 14
    (correlation,) = operation.correlations(t)
    (whole,) = correlation.make(RINGS, [mask])
    parts = [F.full(whole.shape, int(rng.integers(P))) for _ in range(parties - 1)]
    parts.append(F.subtract(whole, sum(parts, F.zeros(whole.shape)) % np.uint64(P)))
    total = F.zeros((rows,))
    for k, part in enumerate(parts):
        party, value = PartyContext(k, parties), Value(bits.add(packed, mask), None)
        total = F.add(total, party.fold(operation.evaluate(party, [t], [value], [part]), operation.result(t)))
    assert total.tolist() == [sum(int(p[k].sum()) for p in planes) for k in range(rows)]


def test_what_is_too_far_away_is_not_watched_so() -> None:
    t = TensorType((1,), 16, -4000.0, 8.0, Form.MASKED)
    assert Beyond.of(t, -8.0, 8.0, 5) is None
    assert Beyond.of(t.replace(low=-8.0), -8.0, 8.0, 5) is None
    for wrong in (Beyond(None, None, 3, 5), Beyond(5, 4, 3, 5), Beyond(-5, 4, 3, 2), Beyond(-5, 4, 3, 11)):
        with pytest.raises(ProgramError):
            wrong.result(t.replace(low=-(2.0**-16)))
    with pytest.raises(ProgramError, match="near enough"):
        Beyond(-(8 << 16), 8 << 16, 14, 9).result(t)


def test_no_other_bits_are_counted() -> None:
    """Digits, signs and tables tell of masks."""
    x, watch = Expression(Input((8,), 16, -4.0, 4.0)), Beyond(-(2**17), 2**17, 10, 9)
    planner = Planner()
    beyond = planner.make(watch, x)
    both, signs = planner.make(watch, x, beyond), planner.masked(planner.make(Ends((7, 7, 7), BITS), x))
    signs = planner.make(Sign(16, 3), signs)
    counted = planner.make(Beyonds((8, 8), 1), planner.masked(both))
    Program.of([counted, planner.make(Beyonds((8,), 1), planner.masked(beyond))])
    wrong = (
        planner.make(Beyonds((8, 8), 1), planner.masked(signs)),
        planner.make(Beyonds((16,), 1), planner.masked(both)),
        planner.make(Beyonds((8, 8, 8), 1), planner.masked(planner.make(watch, x, signs))),
        planner.make(Beyonds((1, 8), 1), planner.masked(both)),
        beyond,
        planner.masked(beyond),
    )
    for one in wrong:
        with pytest.raises(ProgramError, match=r"beyond|tells of masks|opened bit|as many"):
            Program.of([one])


def test_what_is_far_wider_than_the_interval_is_watched_for_being_near_first(secure: Any) -> None:
    """With tables that are no larger: 4 bytes and 16."""
    x = secure.secret((1, 40), -1000.0, 1000.0) * secure.stored("w", (1, 40), bits=0)
    program = plan(graph_of([x.sigmoid(interval=(-8.0, 8.0))]), checked=True)
    found = [node.operation for node in program.nodes if isinstance(node.operation, Beyond)]
    assert [watch.bits <= 8 for watch in found] == [True, True]
    store = secure.store({"w": np.ones((1, 40), np.uint64)}, 2)
    for value in (0.0, 7.7, 8.1, 23.0, 24.0, 25.0, 31.0, 32.0, 33.0, 500.0, 1000.0):
        raw = fixed_point.encode(np.r_[np.zeros(38), value, -value][None], 16)
        *_, flag = run_in_memory(program, [raw], store=store).outputs
        assert bool(flag.any()) == (abs(value) > 8), value
