"""Random values through a client: one run draws once, another anew, also from stock and of stored data."""

from __future__ import annotations

import numpy as np
import pytest

import tessera as ts


@pytest.mark.parametrize("security", ["semi-honest", "malicious"])
def test_each_run_draws_anew(security: str) -> None:
    with ts.MemoryCluster(parties=3, security=security) as cluster, ts.Client(cluster) as client:
        noise = client.random.discrete_laplace(5.0, (20,))
        x = client.share(np.arange(20), low=0, high=19, fraction_bits=0)
        once, same, plain = client.reveal([x + noise, noise, client.random.bernoulli(0.5, (200,))])
        assert np.array_equal(once - same, np.arange(20))
        assert client.last_run is not None
        assert 50 < plain.sum() < 150
        assert not np.array_equal(client.reveal(noise), same)
        client.stock(noise, 2)
        first, second = client.reveal(noise), client.reveal(noise)
        assert not np.array_equal(first, second)
