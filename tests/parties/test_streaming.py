"""Batches in chunks: the same results, the sum of the bills, two runs under way at most, and nothing left behind."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from mpc.cost import cost
from mpc.errors import EncodingError, ShapeError, UsageError
from mpc.program import Program
from nn import Linear, Model, Sequential, Sigmoid
from parties.client import streaming
from parties.servers.party import PartyServer

FEATURES, CLASSES = 6, 2


def model() -> Model:
    layers = {"hidden": Linear(FEATURES, 4), "act": Sigmoid(), "out": Linear(4, CLASSES)}
    architecture = Sequential(layers).architecture((FEATURES,))
    generator = np.random.default_rng(1)
    return Model(architecture, {n: generator.uniform(-0.5, 0.5, s) for n, s in architecture.parameters.items()})


def batch(count: int) -> np.ndarray:
    return np.random.default_rng(2).uniform(-1, 1, (count, FEATURES))


async def test_as_in_one_run_and_billed_in_sum(site):
    x = batch(10)
    async with site.client() as client:
        remote = await client.upload(model(), "m")
        whole = await client.predict(remote, x)
        one_run = client.last_run
        streamed = await client.predict(remote, x, chunk=4)
        report = client.last_run
    assert np.allclose(whole, model().plain(x), atol=1e-3)
    assert np.allclose(streamed, model().plain(x), atol=1e-3)
    assert one_run.online.rounds == one_run.predicted.online_rounds
    costs = [cost(remote.description.program((n, FEATURES)), 2) for n in (4, 4, 2)]
    assert report.online.rounds == report.predicted.online_rounds == sum(c.online_rounds for c in costs)
    assert report.online.bytes == report.predicted.online_bytes_per_party
    # Bits of the range check are packed run by run.
    assert 0 <= report.online.bytes - one_run.online.bytes < 3 * 16
    assert report.offline.bytes == report.predicted.offline_bytes == sum(c.offline_bytes for c in costs)
    assert report.layers["act"].rounds == 3
    for name, layer in one_run.layers.items():
        if name != "range check":
            assert (report.layers[name].opened, report.layers[name].bytes) == (layer.opened, layer.bytes)
        assert report.layers[name].dealt == report.predicted.layers[name].dealt
    assert not report.from_stock
    await site.settled()


async def test_two_under_way_at_most_and_none_asked_for_early(site):
    parties = [server for server in site.servers.values() if isinstance(server, PartyServer)]
    asked: list[int] = []
    done: list[int] = []
    jobs: list[int] = []

    def chunks() -> Iterator[np.ndarray]:
        for i in range(6):
            asked.append(i)
            jobs.append(max(len(party.jobs) for party in parties))
            yield batch(2)

    async with site.client() as client:
        remote = await client.upload(model(), "m")
        async for predicted in streaming.stream(client, remote, chunks()):
            done.append(len(predicted.values))
            assert len(asked) <= len(done) + 1
    assert done == [2] * 6
    # When a chunk is asked for, one run is prepared, and the one before it may be ending.
    assert max(jobs) <= 2
    await site.settled()


async def test_what_is_prepared_is_given_up(site):
    async with site.client() as client:
        remote = await client.upload(model(), "m")
        running = streaming.stream(client, remote, (batch(2) for _ in range(5)))
        async for _ in running:
            break
        await running.aclose()
        await site.settled()

        def failing() -> Iterator[np.ndarray]:
            yield batch(2)
            yield np.full((2, FEATURES), 3.0)

        with pytest.raises(EncodingError, match="inputs"):
            [predicted async for predicted in streaming.stream(client, remote, failing())]
        await site.settled()
        # And the client is as good as new.
        assert (await client.predict(remote, batch(3), chunk=1)).shape == (3, CLASSES)
    await site.settled()


async def test_preprocessing_in_stock_is_used(site):
    async with site.client() as client:
        remote = await client.upload(model(), "m")
        await client.stock(remote(client.share(batch(2), low=-1, high=1)), 3)
        await client.predict(remote, batch(6), chunk=2)
        assert client.last_run.from_stock
        await client.predict(remote, batch(2), chunk=2)
        assert not client.last_run.from_stock


@pytest.mark.parametrize(("low", "high"), [(-1.0, 1.0), (-16.0, 16.0)])
def test_how_many_fit_is_found_by_few_programs(low: float, high: float) -> None:
    planned: list[int] = []

    def program(shape: tuple[int, ...], **options: float) -> Program:
        planned.append(shape[0])
        return description.program(shape, **options)

    # Of so few elements each that what one more takes, rounded up, is a thousand too many or too few.
    description = Model(Sequential({"act": Sigmoid()}).architecture((1,)), {}).description
    remote: Any = SimpleNamespace(description=SimpleNamespace(program=program))
    count = streaming.fitting(remote, (1,), low=low, high=high)
    assert description.program((count, 1), low=low, high=high).elements <= streaming.CHUNK_ELEMENTS
    assert description.program((count + count // 50, 1), low=low, high=high).elements > streaming.CHUNK_ELEMENTS
    assert len(planned) < 40


async def test_chunks_fit(site, monkeypatch):
    async with site.client() as client:
        remote = await client.upload(model(), "m")
        for count in (1, 2, 7, 23):
            monkeypatch.setattr(streaming, "CHUNK_ELEMENTS", remote.description.program((count, FEATURES)).elements)
            assert streaming.fitting(remote, (FEATURES,)) == count
        monkeypatch.setattr(streaming, "CHUNK_ELEMENTS", 1)
        assert streaming.fitting(remote, (FEATURES,)) == 1
        await client.predict(remote, batch(2))
        assert client.last_run.online.rounds == 2 * cost(remote.description.program((1, FEATURES)), 2).online_rounds


async def test_nothing_to_predict(site):
    async with site.client() as client:
        remote = await client.upload(model(), "m")
        for nothing in (np.zeros((0, FEATURES)), 1.0):
            with pytest.raises(ShapeError, match="nothing to predict"):
                await client.predict(remote, nothing)
        with pytest.raises(UsageError, match="chunks of 0"):
            await client.predict(remote, batch(2), chunk=0)


async def test_inputs_beyond_a_range_that_nobody_said(site):
    x = batch(3) * 4
    async with site.client() as client:
        remote = await client.upload(model(), "m")
        with pytest.raises(EncodingError, match=r"give low= and high="):
            await client.predict(remote, x)
        assert np.allclose(await client.predict(remote, x, low=-4, high=4), model().plain(x), atol=1e-3)
