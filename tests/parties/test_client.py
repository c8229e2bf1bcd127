"""Clients: what they refuse at once, what they leave behind, and what becomes of what is in progress."""

from __future__ import annotations

import asyncio
import contextlib

import numpy as np
import pytest

from mpc.errors import (
    ConfigurationError,
    NotPermitted,
    PeerLost,
    PeerUnavailable,
    ProgramError,
    ProtocolViolation,
    RangeError,
    ShapeError,
    UsageError,
)
from nn import Linear, Model, Sequential
from parties import AsyncClient, Client, Cluster, KeyPair
from parties.client.conversation import Conversation
from parties.messages.runs import Opening, Outputs, Ready
from parties.messages.uploads import UploadBegin
from parties.wire.events import Delivery


def model(scale: float = 1.0) -> Model:
    architecture = Sequential({"out": Linear(3, 2)}).architecture((3,))
    return Model(architecture, {n: np.full(s, scale) for n, s in architecture.parameters.items()})


async def test_results_of_every_shape(site):
    async with site.client() as client:
        scalar, empty, row = client.share(0.5), client.share(np.zeros((0, 3))), client.share([[1.0, 2.0]])
        same = row * 2
        values = await client.reveal([scalar, scalar * scalar, empty, empty.sum(), row, same, same, row.T])
        wanted = [0.5, 0.25, np.zeros((0, 3)), 0.0, [[1, 2]], [[2, 4]], [[2, 4]], [[1], [2]]]
        for value, expected in zip(values, wanted, strict=True):
            assert value.dtype == np.float64
            assert value.shape == np.shape(expected)
            assert np.allclose(value, expected, atol=1e-3)
    await site.settled()


async def test_nothing_to_compute(site):
    async with site.client() as client:
        with pytest.raises(UsageError, match="nothing to compute"):
            await client.reveal([])
        with pytest.raises(ShapeError):
            client.share(np.ones((2, 3))) @ client.share(np.ones((2, 3)))
        with pytest.raises(RangeError):
            client.share([1.0], low=-(2.0**30), high=2.0**30) ** 4
        assert client.last_run is None


async def test_not_connected(site):
    client = site.client()
    x = client.share([1.0])
    for action in (client.reveal(x), client.model("derm"), client.upload(model(), "m")):
        with pytest.raises(UsageError, match="async with"):
            await action
    async with client:
        await client.reveal(x)
    with pytest.raises(UsageError, match="async with"):
        await client.reveal(x)
    await client.close()


def test_without_a_key_or_with_a_strangers(tmp_path):
    keys = [KeyPair.generate() for _ in range(3)]
    cluster = Cluster.build(
        "c",
        dealer=("127.0.0.1:1", keys[0].public),
        parties=[(f"p{i}", f"127.0.0.1:{i + 2}", keys[i + 1].public) for i in range(2)],
    )
    with pytest.raises(UsageError, match="give the client's key file"):
        Client(cluster)
    with pytest.raises(UsageError, match="LocalCluster"):
        Client(cluster, keys[0], name="clinic")
    with pytest.raises(ConfigurationError, match="lists no client with the key"):
        Client(cluster, KeyPair.generate())
    with pytest.raises(ConfigurationError, match="lists no client with the key"):
        Client(cluster, keys[1])
    with pytest.raises(ConfigurationError, match="does not exist"):
        Client(tmp_path / "none.toml", keys[1])


def test_nobody_there():
    keys = [KeyPair.generate() for _ in range(4)]
    cluster = Cluster.build(
        "c",
        dealer=("127.0.0.1:1", keys[0].public),
        parties=[(f"p{i}", f"127.0.0.1:{i + 2}", keys[i + 1].public) for i in range(2)],
        clients=[("clinic", keys[3].public)],
    )
    client = Client(cluster, keys[3], connect_timeout=0.3)
    with pytest.raises(PeerUnavailable, match="is it running"):
        client.__enter__()
    with pytest.raises(UsageError, match="not connected"):
        client.reveal(client.share([1.0]))
    client.close()


async def test_a_prepared_run_is_good_once_and_for_its_client(site):
    async with site.client() as clinic, site.client("company") as company:
        x = clinic.share([2.0], low=-4, high=4)
        first, second, third = [await clinic.prepare([x * x, x]) for _ in range(3)]
        assert "used" not in repr(first)
        assert [v.item() for v in await clinic.finish(first)] == pytest.approx([4.0, 2.0], abs=1e-3)
        assert "used" in repr(first)
        with pytest.raises(UsageError, match="has been used"):
            await clinic.finish(first)
        with pytest.raises(UsageError, match="another client"):
            await company.finish(second)
        await clinic.finish(second)
        assert len(site.servers["party0"].jobs) == 1
        await clinic.release(third)
        await clinic.release(third)
        await site.settled()
        with pytest.raises(UsageError, match="has been used"):
            await clinic.finish(third)


async def test_masks_are_fresh_in_every_run(site):
    async with site.client() as client:
        x = client.share([0.0], low=-1, high=1)
        runs = [await client.prepare(x * x) for _ in range(2)]
        masked = [run.masked_inputs()[0].item() for run in runs]
        assert masked[0] != masked[1]
        for run in runs:
            await client.finish(run)


async def test_a_client_that_leaves_takes_its_runs_with_it(site):
    async with site.client() as client:
        for _ in range(3):
            await client.prepare(client.share([1.0]) * 2)
        assert len(site.servers["party0"].jobs) == 3
    await site.settled()


async def test_a_cancelled_run_is_released(site):
    site.corrupt("party1", Opening, lambda m, b: [])
    async with site.client() as client:
        task = asyncio.create_task(client.reveal(client.share([0.5], low=-1, high=1).square() ** 2))
        await asyncio.sleep(0.2)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await site.settled()
        assert not client._board._conversations


async def test_closing_fails_what_is_in_progress(site):
    site.corrupt("party1", Ready, lambda m, b: [])
    client = site.client()
    async with client:
        task = asyncio.create_task(client.reveal(client.share([1.0]) * 2))
        await asyncio.sleep(0.2)
    with pytest.raises(UsageError, match="closed"):
        await asyncio.wait_for(task, 20)


async def test_another_process_with_the_same_key_takes_over(site):
    async with site.client() as first:
        prepared = await first.prepare(first.share([1.0]) * 2)
        async with site.client() as second:
            assert await second.reveal(second.share([1.0]) * 2) == pytest.approx([2.0], abs=1e-3)
            with pytest.raises(Exception, match=r"another process|restarted"):
                await first.finish(prepared)


async def test_many_runs_at_once(site):
    async with site.client() as one, site.client("company") as two:
        values = [np.array([i / 8, -i / 4]) for i in range(8)]
        runs = [client.reveal(client.share(v, low=-4, high=4).square() * 2) for v in values for client in (one, two)]
        for k, result in enumerate(await asyncio.gather(*runs)):
            assert np.abs(result - 2 * values[k // 2] ** 2).max() < 1e-3
    await site.settled()


async def test_a_replaced_model_is_forgotten_everywhere(site):
    dealer, party = site.servers["dealer"], site.servers["party0"]
    async with site.client("company") as company, site.client() as clinic:
        x = clinic.share([[1.0, 1.0, 1.0]], low=-1, high=1)
        for scale in (1.0, 0.5, 0.25):
            await company.upload(model(scale), "m")
            await company.allow("m", "clinic")
            assert await clinic.reveal((await clinic.model("m"))(x)) == pytest.approx(
                np.full((1, 2), 4 * scale), abs=1e-2
            )
        await site.until(lambda: len(dealer._coordinator.stored) == 1)
        assert party._secrets.loaded == set(dealer._coordinator.stored) == set(party._secrets.held)


async def test_a_network_is_ready_for_its_first_prediction(site):
    """What it would leave to the next ones is there before: not of a small one, nor without room."""
    dealer, party = site.servers["dealer"], site.servers["party0"]
    weight = np.full((256, 512), 0.5)
    network = Model(Sequential(Linear(512, 256, bias=False)), {"0.weight": weight})
    async with site.client("company") as company:
        await company.upload(model(1.0), "small")
        assert not party._secrets.loaded
        await company.upload(network, "large")
        (version,) = party._secrets.loaded
        await site.until(lambda: sum(masks.made for masks in dealer._coordinator.stored.values()) == weight.size)
        held = party._secrets._tensors[version]["0.weight"]
        kept = {**held.cache, **held.public_cache}
        assert len(kept) == 2
        x = company.share(np.ones((1, 512)), low=-1, high=1)
        assert await company.reveal((await company.model("large"))(x)) == pytest.approx(
            np.full((1, 256), 256.0), abs=0.1
        )
        assert {**held.cache, **held.public_cache} == kept
        party.governor.admission.memory = weight.nbytes
        await company.upload(network, "again")
        assert party._secrets.loaded == {version}


async def test_a_model_that_is_replaced_while_others_use_it(site):
    """Each run gives the result of one version, or a typed refusal; never a mixture."""
    async with site.client("company") as company, site.client() as clinic:
        x = clinic.share([[1.0, 1.0, 1.0]], low=-1, high=1)
        await company.upload(model(1.0), "m")
        await company.allow("m", "clinic")

        async def replace() -> None:
            for scale in (0.5, 1.0, 0.5, 1.0):
                await company.upload(model(scale), "m")

        replacing = asyncio.create_task(replace())
        results = []
        while not replacing.done():
            with contextlib.suppress(ProgramError):
                results.append((await clinic.reveal((await clinic.model("m"))(x))).mean())
        await replacing
        results.append((await clinic.reveal((await clinic.model("m"))(x))).mean())
        assert all(min(abs(r - 4), abs(r - 2)) < 1e-2 for r in results)
        assert results[-1] == pytest.approx(4.0, abs=1e-2)


async def test_an_upload_that_fails_halfway_leaves_no_mixture(site):
    async with site.client("company") as company:
        await company.upload(model(1.0), "m")
        site.servers["party1"].on(UploadBegin, lambda *_: None)
        with pytest.raises(PeerLost, match="party1: said nothing of the upload within 3 s"):
            await company.upload(model(0.5), "m")
        # The first one stays in use at all parties.
        former = await company.model("m")
        x = company.share([[1.0, 1.0, 1.0]], low=-1, high=1)
        assert await company.reveal(former(x)) == pytest.approx(np.full((1, 2), 4.0), abs=1e-2)
        await site.until(lambda: not any(site.servers[name]._secrets.prepared for name in ("party0", "party1")))


async def test_another_names_are_refused_before_anything_is_sent(site):
    async with site.client() as client:
        for name in ("", "../derm", "a b", "x" * 65, "-m"):
            with pytest.raises(UsageError, match="not a name"):
                await client.model(name)
            with pytest.raises(UsageError, match="not a name"):
                await client.upload(model(), name)
        with pytest.raises(NotPermitted, match="has none yet"):
            await client.model("derm")


def delivery(site_cluster, name, message):
    return Delivery(site_cluster.member(name), message, [])


async def test_conversations_take_messages_in_any_order(site):
    conversation = Conversation(["party0", "party1"])
    run = "0" * 32
    late = Outputs(run=run, rounds=1, offline={}, online={}, compute_seconds={}, wait_seconds=0.0)
    conversation.put(delivery(site.cluster, "party1", late))
    conversation.put(delivery(site.cluster, "party0", Ready(run=run, seconds=0.0)))
    got = await conversation.take_all({Ready: ["party0"], Outputs: ["party1"]}, 1)
    assert list(got[Outputs]) == ["party1"]
    with pytest.raises(PeerLost, match=r"sent no Ready within 0\.01 s"):
        await conversation.take(Ready, ["party0"], 0.01)
    conversation.put(delivery(site.cluster, "party0", late))
    with pytest.raises(ProtocolViolation, match="out of turn"):
        await conversation.take(Ready, ["party0"], 1)
    conversation.fail(PeerLost("party1", "first"))
    conversation.fail(PeerLost("party0", "second"))
    with pytest.raises(PeerLost, match="first"):
        await conversation.take(Ready, ["party0"], 1)


def test_the_clients_repr_shows_no_key(tmp_path):
    keys = [KeyPair.generate() for _ in range(4)]
    cluster = Cluster.build(
        "c",
        dealer=("127.0.0.1:1", keys[0].public),
        parties=[(f"p{i}", f"127.0.0.1:{i + 2}", keys[i + 1].public) for i in range(2)],
        clients=[("clinic", keys[3].public)],
    )
    assert repr(AsyncClient(cluster, keys[3])) == "<AsyncClient clinic of cluster c>"
    assert repr(Client(cluster, keys[3])) == "<Client clinic of cluster c>"
