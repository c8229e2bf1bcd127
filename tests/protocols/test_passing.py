"""What lets itself through, under masks at which the field wraps: the rare ones, of which no other test is sure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from mpc.errors import ProgramError
from mpc.operation import Operation, PartyContext, Value
from mpc.rings import BITS, FIELD, FieldRing, known_rings
from mpc.rings.field import P
from mpc.rings.prg import Seed
from mpc.rings.small import small
from mpc.tensor_type import SLACK, Form, TensorType
from protocols.operations.bit_comparison import Lifted, Sign
from protocols.operations.comparison import Compare, Comparison
from protocols.operations.digits import EXACTLY, Digits, Tables, mistaken
from protocols.operations.weighed import SignBits, Signed, Steps, Weighed, weighed_type

F, RINGS, ONE = FieldRing(), known_rings(), PartyContext(0, 1)
WIDTHS, DROPPED = (7, 7, 6), 13
VARIANTS = ("two rounds", "by its bit", "three rounds", "with MACs")
WEIGHED = VARIANTS[:2]


def evaluated(operation: Operation, types: Sequence[TensorType], values: Sequence[Value]) -> Value:
    """By a single party, of values whose shares are the masks themselves."""
    operation.result(*types)
    dealt: list[Any] = []
    for correlation in operation.correlations(*types):
        dealt += correlation.make(RINGS, [values[k].share for k in correlation.operands])
    return operation.evaluate(ONE, types, values, dealt)


def opened(value: Value, t: TensorType) -> tuple[Value, TensorType]:
    """Under a mask that is drawn."""
    ring = RINGS[t.ring]
    mask = ring.sample(Seed(bytes(16)), t.shape)
    whole = value.share if value.public is None else ring.add(value.public, value.share)
    return Value(ring.subtract(whole, mask), mask), t.replace(form=Form.MASKED)


def through(variant: str, ignored: int, x: TensorType, raw: Any, r: Any) -> Any:
    """Of x = D - r."""
    a = F.negate(r)
    value, ring = Value(F.subtract(raw, a), a), FIELD if variant == "with MACs" else BITS
    if variant in WEIGHED:
        steps = [Steps(ignored, WIDTHS, small(3 - max(j - 1, 0)), j) for j in range(3)]
        each = [step.result(x) for step in steps]
        weighed, tables = Weighed(ignored, WIDTHS, small(3)), [evaluated(step, (x,), [value]) for step in steps]
        seen, of = opened(evaluated(weighed, (x, *each), [value, *tables]), weighed.result(x, *each))
        last: Comparison = Signed(ignored, False, False, DROPPED, True, 3)
        if variant == "by its bit":
            last, bits = Lifted(ignored, False, False, DROPPED, True), SignBits(x.size, 3)
            seen, of = opened(evaluated(bits, (of,), [seen]), bits.result(of))
        result = evaluated(last, (x, of, x), [value, seen, value])
        return F.to_signed(F.add(result.public, result.share))
    tables, digits = Tables(ignored, WIDTHS, ring), Digits(ignored, WIDTHS, ring)
    t = tables.result(x)
    found, of = evaluated(digits, (x, t), [value, evaluated(tables, (x,), [value])]), digits.result(x, t)
    seen, of = opened(found, of)
    operation: Comparison = Compare(ignored, False, False, DROPPED, True)
    if variant == "three rounds":
        operation, sign = Lifted(ignored, False, False, DROPPED, True), Sign(x.size, len(WIDTHS))
        seen, of = opened(evaluated(sign, (of,), [seen]), sign.result(of))
    result = evaluated(operation, (x, of, x), [value, seen, value])
    return F.to_signed(F.add(result.public, result.share))


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("ignored", [EXACTLY, 0, 5, 13, 36])
def test_every_edge_under_every_edge_of_masks(ignored: int, variant: str) -> None:
    """Off by less than a unit, and by what is ignored: never by what a wrap is worth."""
    most = 2 ** (sum(WIDTHS) + ignored) - 2 ** max(ignored, 0) - 1
    if variant in WEIGHED:
        most -= 2 ** (sum(WIDTHS[:-1]) + ignored)
    most -= 2 ** max(ignored, 0) // 2
    marks = {0, 1, 2, most // 2, most, *(2**k for k in range(0, most.bit_length(), 3)), 2 ** max(ignored, 0)}
    values = sorted({s * (m + d) for m in marks for d in (-1, 0, 1) for s in (-1, 1) if m + d <= most})
    # r, and what is opened, x + r, near where they wrap, or are halves.
    at = [0, 2**59, 2**60, 2**60 - 2**59, most, 2 * most]
    pairs = [
        (x, r % P)
        for x in values
        for n in at
        for e in (-1, 0, 1)
        for r in (n + e, n + e - x, -n + e, -n + e - x, n - most // 2 + e, (n - x // 2 + e))
    ]
    raw, r = (np.array(column, object) % P for column in zip(*pairs, strict=True))
    size = most * 2.0**-16 * (2 * SLACK - 1)
    t = TensorType((len(pairs),), 16, -size, size, Form.MASKED)
    found = through(variant, ignored, t, raw.astype(np.uint64), r.astype(np.uint64))
    wanted = np.maximum(np.array([x for x, _ in pairs]), 0) / 2**DROPPED
    assert np.abs(found - wanted).max() <= 1 + mistaken(ignored) / 2**DROPPED


def test_it_is_of_what_is_compared_where_that_is_not_negative(secure: Any) -> None:
    x = TensorType((3,), 16, -8.0, 8.0, Form.MASKED)
    t = weighed_type(3, 3).replace(form=Form.MASKED)
    for below, equal, types in ((True, False, (x, t, x)), (False, True, (x, t, x)), (False, False, (x, t))):
        with pytest.raises(ProgramError, match=r"lets itself through|no fraction bits"):
            Signed(0, below, equal, 0 if len(types) == 2 else DROPPED, True, len(WIDTHS)).result(*types)
