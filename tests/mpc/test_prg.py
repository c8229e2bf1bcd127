"""The generator: known answers, determinism, independence of labels, uniformity."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scipy.stats import chisquare

from mpc.errors import UnsupportedError, UsageError
from mpc.rings import BITS, FIELD, known_rings, prg
from mpc.rings.field import P, is_reduced, multiply, subtract, total
from mpc.rings.prg import Seed, elements_less, elements_sum, fresh_seed
from mpc.rings.ring import Ring
from mpc.rings.small import small

KEY = bytes.fromhex("2b7e151628aed2a6abf7158809cf4f3c")


def test_cipher_gives_the_vector_of_nist_sp_800_38a() -> None:
    """F.5.1, CTR-AES128.Encrypt, all four blocks."""
    counter = bytes.fromhex("f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff")
    plaintext = bytes.fromhex(
        "6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e51"
        "30c81c46a35ce411e5fbc1191a0a52eff69f2445df4f9b17ad2b417be66c3710"
    )
    ciphertext = bytes.fromhex(
        "874d6191b620e3261bef6864990db6ce9806f66b7970fdff8617187bb9fffdff"
        "5ae4df3edbd5d35e5b4f09020db03eab1e031dda2fbe03d1792170a0f3009cee"
    )
    assert prg._cipher(KEY, counter).update(plaintext) == ciphertext


def test_elements_are_masked_words_of_the_key_stream() -> None:
    stream = prg._cipher(KEY, bytes(16)).update(bytes(8 * 5))
    words = [int.from_bytes(stream[i : i + 8], "little") for i in range(0, 40, 8)]
    assert Seed(KEY).elements(5).tolist() == [word % 2**61 for word in words]


@pytest.mark.parametrize("size", [0, 1, 2, 3, prg._PIECE - 1, prg._PIECE, prg._PIECE + 1, 3 * prg._PIECE + 5])
def test_shorter_expansions_are_prefixes(size: int) -> None:
    whole = Seed(KEY).elements(4 * prg._PIECE)
    assert np.array_equal(Seed(KEY).elements(size), whole[:size])


def test_shapes() -> None:
    assert Seed(KEY).elements(()).shape == ()
    assert Seed(KEY).elements((2, 3)).shape == (2, 3)
    assert Seed(KEY).elements((2, 0)).shape == (2, 0)


def test_labels_are_taken_whole_and_with_their_type() -> None:
    root = Seed(KEY)
    others = [root, *(root.derive(label) for label in ("", b"", "a", b"a", "ab", "b", "share 1", "share 10"))]
    others += [root.derive("a").derive("b"), root.derive("b").derive("a")]
    assert len({bytes(seed) for seed in others}) == len(others)
    assert root.derive("a") == Seed(KEY).derive("a")
    assert hash(root.derive("a")) == hash(Seed(KEY).derive("a"))


def test_raw_bytes_are_not_the_elements() -> None:
    raw = Seed(KEY).raw(80)
    assert np.array_equal(raw, Seed(KEY).raw(80))
    assert np.array_equal(raw[:40], Seed(KEY).raw(40))
    assert len(Seed(KEY).raw(3)) == 3
    assert not set(raw.view(np.uint64) & np.uint64(P)) & set(Seed(KEY).elements(10))


@pytest.mark.parametrize("count", [0, 1, 2, 5])
def test_sum_of_expansions(count: int) -> None:
    seeds = [Seed(KEY).derive(str(i)) for i in range(count)]
    shape = (3, prg._PIECE + 1)
    terms = np.array([seed.elements(shape) for seed in seeds], np.uint64).reshape(count, *shape)
    assert np.array_equal(elements_sum(seeds, shape), total(terms, 0))
    x = Seed(bytes(16)).elements(shape)
    assert np.array_equal(elements_less(x, seeds), subtract(x, total(terms, 0)))


def test_elements_from_somewhere_on() -> None:
    whole = Seed(KEY).elements(100_000)
    for since in (0, 2, 1 << 14, 99_998, 100_000):
        assert np.array_equal(Seed(KEY).elements(100_000 - since, since), whole[since:])
    assert np.array_equal(Seed(KEY).elements((2, 3), 4), whole[4:10].reshape(2, 3))
    with pytest.raises(UsageError):
        Seed(KEY).elements(1, 3)


def test_the_word_that_is_no_field_element_is_drawn_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put the 61-bit string p into the stream of one seed, which happens by itself once in 2^61 words."""
    original = prg._words

    def planted(key: bytes, limit: int, first: int, counter: int = prg._ELEMENTS) -> Callable[[int], Any]:
        take = original(key, limit, first, counter)

        def biased(count: int) -> Any:
            words = take(count).copy()
            for place, word in ((1, P), (4, 2**64 - 1)):
                if key == KEY and first <= place < first + count:
                    words[place - first] = word
            return words

        return biased

    plain = Seed(KEY).elements(8)
    monkeypatch.setattr(prg, "_words", planted)
    drawn = Seed(KEY).elements(8)
    again = Seed(KEY)._derived(b"rejected").elements(2)
    assert drawn[[1, 4]].tolist() == again.tolist()
    assert np.array_equal(np.delete(drawn, [1, 4]), np.delete(plain, [1, 4]))
    for since in (2, 4, 6):
        assert np.array_equal(Seed(KEY).elements(8 - since, since), drawn[since:])
    other = Seed(bytes(16))
    assert np.array_equal(elements_sum([Seed(KEY), other], 8), total(np.array([drawn, other.elements(8)]), 0))
    left = subtract(multiply(drawn, np.asarray(np.uint64(3))), elements_sum([Seed(KEY), other], 8))
    assert np.array_equal(elements_less(drawn, [Seed(KEY), other], 3), left)


@pytest.mark.parametrize("ring", [FIELD, BITS, small(3)])
@pytest.mark.parametrize("factor", [1, -5, 2**70])
def test_what_is_left_of_a_multiple(ring: str, factor: int) -> None:
    """In one pass what takes three otherwise; packed numbers have no multiples."""
    here, seeds = known_rings()[ring], [Seed(KEY).derive(str(i)) for i in range(3)]
    x = here.sample(Seed(bytes(16)), (3, prg._PIECE + 1))
    if ring == small(3) and factor != 1:
        with pytest.raises(UnsupportedError):
            here.sample_less(x, seeds, factor)
        return
    for some in ([], seeds[:1], seeds):
        assert np.array_equal(here.sample_less(x, some, factor), Ring.sample_less(here, x, some, factor))


def test_uniform() -> None:
    sample = Seed(KEY).elements(1 << 18)
    assert is_reduced(sample)
    for shift in (0, 20, 53):
        counts = np.bincount((sample >> np.uint64(shift)).astype(np.int64) % 256, minlength=256)
        assert chisquare(counts).pvalue > 1e-6
    ones = [int(((sample >> np.uint64(bit)) & np.uint64(1)).sum()) for bit in range(61)]
    assert np.allclose(ones, sample.size / 2, atol=6 * np.sqrt(sample.size) / 2)


def test_neighbours_are_independent() -> None:
    pairs = (Seed(KEY).elements((1 << 17, 2)) >> np.uint64(57)).astype(np.int64)
    assert chisquare(np.bincount(pairs[:, 0] * 16 + pairs[:, 1], minlength=256)).pvalue > 1e-6


def test_fresh_seeds_differ() -> None:
    assert len({fresh_seed() for _ in range(100)}) == 100
    assert len(fresh_seed()) == prg.SEED_BYTES


def test_a_seed_does_not_show_itself() -> None:
    assert KEY.hex() not in repr(Seed(KEY))
    assert repr(KEY) not in repr(Seed(KEY)) and str(KEY) not in f"{Seed(KEY)!s}"


@pytest.mark.parametrize("size", [0, 15, 17, 32])
def test_a_seed_has_16_bytes(size: int) -> None:
    with pytest.raises(UsageError, match="16 bytes"):
        Seed(bytes(size))
