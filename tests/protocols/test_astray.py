"""Watching by a few bits: nothing beyond an interval is taken for inside, and all that is well inside it is."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from mpc.errors import ProgramError, RangeError
from mpc.operation import PartyContext, Value
from mpc.rings import FieldRing, known_rings
from mpc.rings.field import P
from mpc.tensor_type import Form, TensorType
from protocols.operations.astray import Astray, Span

F = FieldRing()
NOBODYS = -(2.0**59), 2.0**59


def taken_for_inside(prime_bits: int, y: int, r: int, ignored: int, width: int, bits: int) -> bool:
    """The formula, on a field of 2^prime_bits - 1 elements."""
    p = 2**prime_bits - 1
    c = (y + r) % p
    z = c < width << ignored and r >= 2 ** (prime_bits - 1)
    low, high = (r >> ignored) % 2**bits, r >> (ignored + bits)

    def floor(grains: int) -> int:
        return (grains >> bits) - high - (grains % 2**bits < low) + (z << (prime_bits - ignored - bits))

    total = floor(c >> ignored) + floor((c >> ignored) + 2**bits - width)
    assert (total == 0) == (total % p == 0)
    return total == 0


@pytest.mark.parametrize(("ignored", "bits"), [(1, 2), (2, 2), (0, 3), (1, 3), (2, 3), (1, 4), (0, 5)])
def test_of_all_values_and_masks_of_a_small_field(ignored: int, bits: int) -> None:
    p, grain = 127, 1 << ignored
    for width in (w for w in (1, 2, 3, 2**bits - 1, 2**bits) if w << ignored < 64):
        for y in range(p):
            signed = y if y < 64 else y - p
            found = {taken_for_inside(7, y, r, ignored, width, bits) for r in range(p)}
            if not -grain <= signed < width * grain:
                assert found == {False}
            if 0 <= signed < (width - 1) * grain:
                assert found == {True}


def said(span: Span, x: int, mask: int) -> bool:
    """Whether V of one value under one mask is 0, as a single party has it; the coefficient is drawn."""
    rng, one, rings = np.random.default_rng(x % 1000 + mask % 1000), PartyContext(0, 1), known_rings()
    types = TensorType((1,), 0, -(2.0**50), 2.0**50, Form.MASKED), TensorType((1,), 0, *NOBODYS, Form.MASKED)
    s, a = F.full((1,), int(rng.integers(1, P))), F.full((1,), mask)
    operation = Astray(1, span)
    operation.result(*types)
    (correlation,) = operation.correlations(*types)
    values = [Value(F.subtract(F.full((1,), x), a), a), Value(None, s)]
    return not int(operation.evaluate(one, types, values, correlation.make(rings, [a, s])).share[0])  # type: ignore[index]


EXAMPLES = [(-(8 << 30), 8 << 30), (-5000, 5000), (0, 1), (3, 4), (-4, 4), (7, 2**40 + 9), (-(2**49), 3)]


@pytest.mark.sampled(3)
@pytest.mark.parametrize("bits", [2, 3, 4, 5])
@pytest.mark.parametrize(("low", "high"), EXAMPLES)
def test_every_edge_under_every_edge_of_masks(low: int, high: int, bits: int) -> None:
    """With spans as they are chosen; where the field wraps, and nearly does."""
    t = TensorType((1,), 0, -(2.0**50), 2.0**50, Form.MASKED)
    span = Span.of(t, float(low), float(high), bits)
    first, last = span.inside()
    assert low <= first <= last <= high
    assert first - low <= (high - low) * 1.5 / 2**bits
    assert high - last <= (high - low) * 1.5 / 2**bits
    marks = {first, first + 1, (first + last) // 2, last - 1, last}
    values = {
        *(v for v in marks if first <= v <= last),
        low - 1,
        high + 1,
        low - 2,
        high + 2,
        -(2**50),
        2**50,
        2 * high - low + 1,
    }
    rng = np.random.default_rng(1)
    inverse = pow(span.scale, -1, P)
    for value in values:
        # r = -u a, and c is u x - L' + r.
        shift = (value * span.scale - span.low) % P
        near = [0, 2**60, -shift, (span.width << span.ignored) - shift, 1 << span.ignored]
        for r in {(n + d) % P for n in near for d in (-1, 0, 1)} | {int(k) for k in rng.integers(0, P, 20)}:
            assert said(span, value % P, -r * inverse % P) == (low <= value <= high), (value, r)


def test_an_end_that_types_exclude_is_not_looked_at() -> None:
    for low, high in ((-3.0, 90.0), (-90.0, 3.0)):
        t = TensorType((1,), 16, low, high, Form.MASKED)
        first, last = Span.of(t, -8.0, 8.0, 3).inside()
        assert first <= max(low, -6.0) * 2**16
        assert last >= min(high, 6.0) * 2**16


def test_whole_numbers_are_told_exactly_where_they_are_few() -> None:
    t = TensorType((1,), 0, 0.0, 9.0, Form.MASKED)
    assert Span.of(t, 0.0, 1.0, 3).inside()[1] == 1
    assert Span.of(t.replace(low=-9.0), 0.0, 1.0, 3).inside() == (0, 1)


def test_what_cannot_be_watched_is_refused() -> None:
    t = TensorType((1,), 0, -(2.0**59), 2.0**59, Form.MASKED)
    with pytest.raises(RangeError, match="cannot watch"):
        Span.of(t, -4.0, 4.0, 3)
    x, s = t.replace(low=-9.0, high=9.0), TensorType((1,), 0, *NOBODYS, Form.MASKED)
    right = Span(1, 0, 0, 3, 3)
    Astray(1, right).result(x, s)
    added = TensorType((1,), 0, -9.0, 9.0, Form.SHARED)
    Astray(1, right).result(x, s, added, added)
    wrong: list[Any] = [
        lambda: Astray(1, right).result(),
        lambda: Astray(1, right).result(x),
        lambda: Astray(1, right).result(x, x),
        lambda: Astray(2, right).result(x, s),
        lambda: Astray(0, right).result(x, s),
        lambda: Astray(1, right).result(x, s, s),
        lambda: Astray(1, right).result(x, s, added, added, added),
        lambda: Astray(1, right).result(x, s, added.replace(shape=(2,))),
        *(
            lambda one=one: Astray(1, right._replace(**one)).result(x, s)  # type: ignore[misc]
            for one in (
                {"scale": 0}, {"scale": 64}, {"low": 2**60}, {"ignored": -1}, {"ignored": 60},
                {"width": 0}, {"width": 9}, {"bits": 1}, {"bits": 9},
            )
        ),
    ]  # fmt: skip
    for make in wrong:
        with pytest.raises(ProgramError):
            make()
