"""Every operation over real processes: NumPy's result, and the predicted cost to the byte."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from mpc.errors import EncodingError, UsageError
from parties import AsyncClient, Client
from protocols import concatenate, stack
from protocols.approximation import fit

RNG = np.random.default_rng(7)
X, Y = RNG.uniform(-2, 2, (4, 6)), RNG.uniform(-2, 2, (4, 6))
IMAGE, KERNEL = RNG.uniform(-1, 1, (2, 4, 7, 7)), RNG.uniform(-1, 1, (6, 2, 3, 3))


def conv(x, w):
    import torch

    return torch.nn.functional.conv2d(torch.tensor(x), torch.tensor(w), stride=2, padding=1, groups=2).numpy()


def pool(x):
    import torch

    return torch.nn.functional.avg_pool2d(torch.tensor(x), 3, 2, 1).numpy()


OPERATIONS = {
    "add": (lambda x, y: x + y, lambda x, y: x + y),
    "public": (lambda x, y: 2.5 - x * 0.3, lambda x, y: 2.5 - x * 0.3),
    "multiply": (lambda x, y: x * y, lambda x, y: x * y),
    "chain": (lambda x, y: x * y * y, lambda x, y: x * y * y),
    "matmul": (lambda x, y: x @ y.T, lambda x, y: x @ y.T),
    "sum": (lambda x, y: x.sum(0), lambda x, y: x.sum(0)),
    "mean": (lambda x, y: (x * y).mean(1, keepdims=True), lambda x, y: (x * y).mean(1, keepdims=True)),
    "index": (lambda x, y: x[1:, ::-2] * y[1:, :3], lambda x, y: x[1:, ::-2] * y[1:, :3]),
    "join": (lambda x, y: concatenate([x, y], 1), lambda x, y: np.concatenate([x, y], 1)),
    "stack": (lambda x, y: stack([x, y * y]), lambda x, y: np.stack([x, y * y])),
    "pad": (lambda x, y: x.pad([(1, 0), (0, 2)]), lambda x, y: np.pad(x, [(1, 0), (0, 2)])),
    "square": (lambda x, y: (x * y).square(), lambda x, y: (x * y) ** 2),
    "cube": (lambda x, y: x**3, lambda x, y: x**3),
    "polynomial": (lambda x, y: x.polynomial([1, -2, 0.5]), lambda x, y: 1 - 2 * x + 0.5 * x * x),
    "truncate": (lambda x, y: (x * y).truncate(12), lambda x, y: x * y),
    "sigmoid": (lambda x, y: (x * y).sigmoid(), lambda x, y: 1 / (1 + np.exp(-x * y))),
    "tanh": (lambda x, y: x.tanh(), lambda x, y: np.tanh(x)),
    "exp": (lambda x, y: (x - 2).exp(), lambda x, y: np.exp(x - 2)),
    "log": (lambda x, y: (x + 3).log(interval=(0.9, 5.1)), lambda x, y: np.log(x + 3)),
    "reciprocal": (lambda x, y: (x + 3).reciprocal(), lambda x, y: 1 / (x + 3)),
    "branches": (lambda x, y: x.sigmoid() * y.tanh(), lambda x, y: np.tanh(y) / (1 + np.exp(-x))),
    "any function": (
        lambda x, y: x.apply(fit(lambda t: np.abs(t) ** 3, -2.1, 2.1, 1e-2)),
        lambda x, y: np.abs(x) ** 3,
    ),
}
TOLERANCE = {"any function": 1.2e-2, "chain": 2e-3, "cube": 2e-3}


@pytest.mark.parametrize("security", ["semi-honest", "malicious"])
@pytest.mark.parametrize("parties", [2, 3])
def test_operations_and_their_costs(clusters, parties, security):
    with Client(clusters(parties, security)) as client:
        x, y = client.share(X, low=-2, high=2), client.share(Y, low=-2, high=2)
        for name, (secret, plain) in OPERATIONS.items():
            result = client.reveal(secret(x, y))
            assert np.abs(result - plain(X, Y)).max() < TOLERANCE.get(name, 1e-3), name
            check_cost(client.last_run, name)
        image = client.share(IMAGE, low=-1, high=1)
        kernel = client.share(KERNEL, low=-1, high=1)
        results = client.reveal([image.conv2d(kernel, stride=2, padding=1, groups=2), image.avg_pool2d(3, 2, 1)])
        assert np.abs(results[0] - conv(IMAGE, KERNEL)).max() < 1e-3
        assert np.abs(results[1] - pool(IMAGE)).max() < 1e-3
        check_cost(client.last_run, "layers")


def check_cost(report, name):
    predicted = report.predicted
    assert report.online.rounds == predicted.online_rounds, name
    assert report.online.bytes == predicted.online_bytes_per_party, name
    assert report.offline.bytes == predicted.offline_bytes, name


def test_five_parties(clusters):
    with Client(clusters(5)) as client:
        x = client.share(X, low=-2, high=2)
        assert np.abs(client.reveal((x * x).sigmoid()) - 1 / (1 + np.exp(-X * X))).max() < 5e-4
        check_cost(client.last_run, "five parties")


@pytest.mark.parametrize("security", ["semi-honest", "malicious"])
def test_a_run_too_large_for_the_event_loop(clusters, security):
    """Computed in a thread at the parties."""
    values = RNG.uniform(-2, 2, (300, 300))
    with Client(clusters(2, security)) as client:
        x = client.share(values, low=-2, high=2)
        assert np.abs(client.reveal(x.sigmoid()) - 1 / (1 + np.exp(-values))).max() < 5e-4


async def test_runs_side_by_side_and_prepared_ahead(clusters):
    cluster = clusters(2)
    async with (
        AsyncClient(cluster.cluster, cluster.client_keys["clinic"]) as one,
        AsyncClient(cluster.cluster, cluster.client_keys["company"]) as two,
    ):
        ahead = [await one.prepare(one.share(X, low=-2, high=2) ** 2) for _ in range(3)]
        abandoned = await two.prepare(two.share(Y).sum())
        several = await asyncio.gather(
            *(client.reveal(client.share(v, low=-2, high=2) * 2) for client in (one, two) for v in (X, Y, X + Y * 0))
        )
        assert np.allclose(several, [X * 2, Y * 2, X * 2] * 2, atol=1e-3)
        for run in ahead:
            assert np.abs(await one.finish(run) - X * X).max() < 1e-3
        with pytest.raises(UsageError, match="this run has been used"):
            await one.finish(ahead[0])
        del abandoned


def test_bad_input_is_refused_before_anything_is_sent(clusters):
    with Client(clusters(2)) as client:
        for values in (np.array([1.0, np.nan]), [np.inf], [65.0], ["a"], [1j], None):
            with pytest.raises(EncodingError):
                client.share(values)
        with Client(clusters(2), name="company") as other, pytest.raises(UsageError, match="another client"):
            client.reveal(other.share([1.0]) + 1)


def test_a_secret_cannot_be_tested_or_read():
    from mpc.operation import Input
    from protocols import leaf

    x = leaf(Input((2,), 16, -1.0, 1.0))
    with pytest.raises(TypeError, match="no truth value"):
        bool(x.sum() if x.ndim else x)
