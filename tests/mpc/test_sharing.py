"""Additive sharing: reconstruction, uniformity of any n - 1 shares, refusal of bad shares."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare

from mpc.errors import ShapeError, UsageError
from mpc.rings.field import FieldArray, P
from mpc.rings.prg import Seed
from mpc.sharing import reconstruct, share


def test_shares_add_up_over_the_integers() -> None:
    x = np.array([[0, 1, P - 1], [2**60, 5, P // 2]], np.uint64)
    shares = share(x, 3)
    assert [one.shape for one in shares] == [x.shape] * 3
    assert np.array_equal(sum(one.astype(object) for one in shares) % P, x)


@given(st.lists(st.integers(0, P - 1), max_size=20), st.integers(2, 6))
def test_reconstruction(values: list[int], parties: int) -> None:
    assert reconstruct(share(np.array(values, np.uint64), parties)).tolist() == values


def test_a_scalar() -> None:
    assert int(reconstruct(share(np.array(7, np.uint64), 2))) == 7


def test_a_seed_determines_the_shares_and_fresh_ones_differ() -> None:
    x = np.zeros(4, np.uint64)
    seed = Seed(bytes(16))
    assert np.array_equal(share(x, 3, seed), share(x, 3, seed))
    assert np.array_equal(share(x, 3, seed)[1], seed.derive("share 1").elements(4))
    assert not np.array_equal(share(x, 3), share(x, 3))


@pytest.mark.parametrize("value", [0, 1, P - 1])
@pytest.mark.parametrize("parties", [2, 3])
def test_every_n_minus_1_shares_are_uniform_whatever_the_secret(value: int, parties: int) -> None:
    shares = share(np.full(1 << 16, value, np.uint64), parties, Seed(bytes([parties] * 16)))
    for left_out in range(parties):
        seen = [one for party, one in enumerate(shares) if party != left_out]
        for one in (*seen, *_pair_sums(seen)):
            for counts in (np.bincount((one >> np.uint64(53)).astype(np.int64), minlength=256),
                           np.bincount((one % np.uint64(256)).astype(np.int64), minlength=256)):  # fmt: skip
                assert chisquare(counts).pvalue > 1e-6


def _pair_sums(shares: list[FieldArray]) -> list[FieldArray]:
    return [(shares[0] + shares[1]) % np.uint64(P)] if len(shares) > 1 else []


def test_two_shares_of_three_are_independent() -> None:
    shares = share(np.zeros(1 << 17, np.uint64), 3, Seed(bytes(16)))
    for a, b in ((0, 1), (0, 2), (1, 2)):
        joint = (shares[a] >> np.uint64(57)) * np.uint64(16) + (shares[b] >> np.uint64(57))
        assert chisquare(np.bincount(joint.astype(np.int64), minlength=256)).pvalue > 1e-6


@pytest.mark.parametrize("parties", [-1, 0, 1])
def test_at_least_two_parties(parties: int) -> None:
    with pytest.raises(UsageError, match="2 parties"):
        share(np.zeros(3, np.uint64), parties)
    with pytest.raises(UsageError, match="2 parties"):
        reconstruct([np.zeros(3, np.uint64)] * max(parties, 0))


def test_only_field_elements_are_shared() -> None:
    with pytest.raises(UsageError, match="field elements"):
        share(np.array([P], np.uint64), 2)
    with pytest.raises(UsageError, match="field elements"):
        share(np.ones(3), 2)  # type: ignore[arg-type]


def test_bad_shares_are_refused() -> None:
    good = np.ones(3, np.uint64)
    with pytest.raises(ShapeError, match="share 1"):
        reconstruct([good, np.ones((3, 1), np.uint64)])
    with pytest.raises(UsageError, match="share 1"):
        reconstruct([good, np.array([0, P, 0], np.uint64)])
    with pytest.raises(UsageError, match="share 1"):
        reconstruct([good, np.ones(3)])  # type: ignore[list-item]
