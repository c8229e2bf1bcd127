"""What a small number says of a difference is what Python's integers do; and what is packed adds up field by field."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from mpc.errors import UnsupportedError
from mpc.rings import field, known_rings, steps
from mpc.rings.prg import Seed
from mpc.rings.small import MOST_BITS, in_a_word, small, words

WIDTHS = [(1,), (5,), (10,), (1, 2), (10, 9), (3, 3, 3), (6, 6, 8), (1, 2, 1, 2), (6, 6, 6, 8), (2,) * 5, (3,) * 7]
RINGS = known_rings()


def drawn(ring: str, seed: int, *shape: int) -> Any:
    return RINGS[ring].sample(Seed(bytes([seed] * 16)), shape)


def cases(widths: tuple[int, ...], equal: bool, size: int) -> Any:
    """Differences that ranges allow: ends, and around 0."""
    bits, spared = sum(widths), len(widths) > 1 and not equal
    most = 2 ** (bits - 1) - 1 if equal else 2**bits - 1 - spared * 2 ** (bits - widths[-1])
    near = [d for d in (-most, -most + 1, -2, -1, 0, 1, 2, most - 1, most) if abs(d) <= most]
    others = np.random.default_rng(bits).integers(-most, most, size, endpoint=True)
    return np.resize(np.concatenate([near, others]), size)


@pytest.mark.parametrize("widths", WIDTHS)
@pytest.mark.parametrize("equal", [False, True])
@pytest.mark.parametrize(("ignored", "repeats"), [(0, 1), (13, 3)])
def test_the_sign_of_a_difference(widths: tuple[int, ...], equal: bool, ignored: int, repeats: int) -> None:
    """From shares, and behind a mask."""
    count, size = len(widths), 9 * 64 + 9  # more than are looked up at a time
    x, r = cases(widths, equal, size), drawn("field", 1, size // repeats)
    added = x if equal else x + 2 ** sum(widths)
    c = ((np.repeat(r, repeats) >> np.uint64(ignored)) + added.astype(np.uint64)) << np.uint64(ignored)
    shares: list[list[Any]] = [[], []]
    for j, width in enumerate(widths):
        bits = steps.entry_bits(count, j)
        table = steps.table(r, ignored + sum(widths[:j]), width, j == count - 1, bits)
        share = drawn(small(bits), 2 + j, *table.shape)
        assert RINGS[small(bits)].holds(table, table.shape)
        shares[0].append(share)
        shares[1].append(RINGS[small(bits)].subtract(table, share))
    ring = RINGS[small(count)]
    parts = [steps.weighed(c, ignored, widths, share, one, repeats, equal) for one, share in enumerate(shares)]
    assert all(ring.holds(part, (words(size, count),)) for part in parts)
    mask = drawn(small(count), 9, words(size, count))
    opened, signs = ring.subtract(ring.add(*parts), mask), steps.signs(mask, count, size)
    dealt = drawn("field", 10, *signs.shape)
    found = field.add(*(steps.sign(opened, count, size, d) for d in (dealt, field.subtract(signs, dealt))))
    half = (field.P + 1) // 2
    assert np.array_equal(found, np.where(x == 0 if equal else x >= 0, half, half - 1).astype(np.uint64))


@pytest.mark.parametrize("bits", range(1, MOST_BITS + 1))
def test_fields_of_a_word_are_added_apart(bits: int) -> None:
    ring, places = RINGS[small(bits)], np.arange(in_a_word(bits), dtype=np.uint64) * np.uint64(bits)
    x, y = drawn(small(bits), 1, 4, 5), drawn(small(bits), 2, 4, 5)

    def fields(words: Any) -> Any:
        return (words[..., None] >> places).astype(np.int64) % 2**bits

    for found, wanted in (
        (ring.add(x, y), fields(x) + fields(y)),
        (ring.subtract(x, y), fields(x) - fields(y)),
        (ring.negate(y), -fields(y)),
        (ring.accumulated(x.reshape(-1), y.reshape(-1)).reshape(4, 5), fields(x) + fields(y)),
        (ring.sample_sum([Seed(bytes([k] * 16)) for k in (1, 2)], (4, 5)), fields(x) + fields(y)),
    ):
        assert np.array_equal(fields(found), wanted % 2**bits)
        assert ring.holds(found, (4, 5))
    assert np.array_equal(ring.read(ring.buffer(x).tobytes(), (4, 5)), x)


@pytest.mark.parametrize("bits", [3, 5, 6, 7])
def test_what_is_left_over_of_a_word_is_zero(bits: int) -> None:
    """Or it comes from a stranger."""
    ring, x = RINGS[small(bits)], drawn(small(bits), 1, 3)
    bad = x.copy()
    bad[1] |= np.uint64(1 << 63)
    assert ring.holds(x, (3,))
    assert not ring.holds(bad, (3,))
    assert ring.accumulated(x, bad) is None
    with pytest.raises(ValueError, match="bytes"):
        ring.read(bytes(23), (3,))
    with pytest.raises(ValueError, match="accumulate"):
        ring.accumulate(x, bad[:2])
    for product in (lambda: ring.multiply(x, x), lambda: ring.scale(x, 2), lambda: ring.matmul(x, x)):
        with pytest.raises(UnsupportedError):
            product()
