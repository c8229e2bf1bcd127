"""A party that cheats in a cluster in memory: what it changes without MACs, and that it changes nothing with them."""

from __future__ import annotations

import numpy as np
import pytest

from mpc.errors import MacCheckError, UsageError
from nn import Linear, Model, Sequential, Sigmoid
from parties import Client, MemoryCluster
from parties.client.remote_model import RemoteModel
from protocols.trace.secret_tensor import SecretTensor

X = np.array([[0.5, -0.25], [0.125, 1.0]])
ARCHITECTURE = Sequential({"a": Linear(2, 2), "b": Sigmoid()}).architecture((2,))


def results(client: Client, model: RemoteModel) -> list[SecretTensor]:
    """Of all kinds: numbers of several shapes and digits, a comparison's bits, and a model's."""
    x = client.share(X, low=-1, high=1)
    return [x, x.sum(), (x * x).precise(12), x > 0, model(x)]


@pytest.fixture(params=["semi-honest", "malicious"], scope="module")
def security(request):
    return request.param


@pytest.fixture(scope="module")
def cluster(security):
    with MemoryCluster(3, security=security) as running:
        yield running


@pytest.fixture(scope="module")
def client(cluster):
    with Client(cluster) as connected:
        yield connected


@pytest.fixture(scope="module")
def model(client):
    weights = {name: np.ones(shape) for name, shape in ARCHITECTURE.parameters.items()}
    return client.upload(Model(ARCHITECTURE, weights), "m")


@pytest.mark.sampled(3)
@pytest.mark.parametrize("which", range(5))
@pytest.mark.parametrize(("party", "by"), [("party0", 1.0), ("party2", -0.75)])
def test_each_result_is_off_by_as_much_or_there_is_none(cluster, client, model, security, which, party, by):
    result = results(client, model)[which]
    honest = client.reveal(result)
    with cluster.cheating(party, by):
        if security == "malicious":
            with pytest.raises(MacCheckError):
                client.reveal(result)
        else:
            # A bit has no digits behind the point: half of one is none.
            off = np.round(by) if which == 3 else by
            assert client.reveal(result) == pytest.approx(honest + off, abs=1e-3)
    assert client.reveal(result) == pytest.approx(honest, abs=1e-3)


def test_several_results_are_each_off():
    with MemoryCluster(2) as cluster, Client(cluster) as client:
        x = client.share(X, low=-1, high=1)
        wanted = [x, x.sum(), (x * x).precise(12)]
        honest = client.reveal(wanted)
        with cluster.cheating("party1", 2):
            for found, one in zip(client.reveal(wanted), honest, strict=True):
                assert found == pytest.approx(one + 2, abs=1e-3)


def test_who_cannot_cheat(cluster):
    for name in ("dealer", "client", "party3", ""):
        with pytest.raises(UsageError, match="no party is called"), cluster.cheating(name):
            pass
    for by in (float("nan"), float("inf")):
        with pytest.raises(UsageError, match="finite"), cluster.cheating("party0", by):
            pass
    with pytest.raises(UsageError, match="not running"), MemoryCluster(2).cheating("party0"):
        pass
