"""``MemoryCluster``: a cluster in this process, that behaves as one of processes does."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mpc.errors import (
    AuthenticationError,
    ConfigurationError,
    PeerUnavailable,
    ProtocolViolation,
    UsageError,
    VersionMismatch,
)
from nn import Linear, Model, Sequential, Sigmoid
from parties import AsyncClient, Client, DataSet, MemoryCluster, Settings
from parties.messages.runs import Opening, Prepare, Release
from parties.wire.events import Delivery, LinkFault, PeerDown, PeerRestarted
from parties.wire.memory import MemoryNetwork
from parties.wire.transport import Endpoint

SNIPPET = str(Path(__file__).parents[1] / "snippet.py")


@pytest.mark.parametrize("security", ["semi-honest", "malicious"])
@pytest.mark.parametrize("parties", [2, 3])
def test_a_client_cannot_tell(parties, security):
    before = threading.active_count()
    with MemoryCluster(parties, security=security) as cluster, Client(cluster) as client:
        x = client.share([0.5, -0.25], low=-1, high=1)
        assert client.reveal(x * x) == pytest.approx([0.25, 0.0625], abs=1e-3)
        assert client.stock(x * 2, 2).in_stock == 2
        assert client.reveal(x * 2) == pytest.approx([1, -0.5], abs=1e-3)
        assert client.last_run.from_stock
        architecture = Sequential({"a": Linear(2, 2)}).architecture((2,))
        weights = {name: np.ones(shape) for name, shape in architecture.parameters.items()}
        model = client.upload(Model(architecture, weights), "m")
        assert client.reveal(model(client.share([[0.5, 0.25]]))) == pytest.approx(np.full((1, 2), 1.75), abs=1e-3)
        client.upload(DataSet({"a": np.array([1.0])}, low=-2, high=2), "d")
        assert {entry.name for entry in client.models()} == {"m", "d"}
    assert threading.active_count() <= before + 1
    with pytest.raises(UsageError, match="not running"):
        cluster.client_key()


def test_what_servers_note_is_not_printed_where_nobody_has_said_where_to():
    code = (
        "import tessera as ts\n"
        "with ts.MemoryCluster(2, clients=('one', 'other')) as cluster, ts.Client(cluster) as one:\n"
        "    one.upload(ts.DataSet({'x': [1.0]}, low=0, high=1), 'data')\n"
        "    one.allow('data', 'other', schema=True)\n"
        "    with ts.Client(cluster, name='other') as other:\n"
        "        try:\n"
        "            other.reveal(other.data('one/data')['x'])\n"
        "        except ts.NotPermitted:\n"
        "            print('refused')\n"
    )
    done = subprocess.run([sys.executable, SNIPPET, code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "refused\n", "")


@pytest.mark.parametrize("security", ["semi-honest", "malicious"])
def test_what_a_process_computes_with_reaches_all_of_it(opaque, security):
    """Uploads, stock, runs, what is kept and read back from the disk: nobody but the ring looks into its arrays."""
    architecture = Sequential({"a": Linear(2, 2), "b": Sigmoid()}).architecture((2,))
    model = Model(architecture, {name: np.ones(shape) for name, shape in architecture.parameters.items()})
    wanted = 1 / (1 + np.exp(-1.75))
    with MemoryCluster(security=security, rings=opaque) as cluster, Client(cluster) as client:
        assert cluster.rings is opaque
        x = client.share([[0.5, 0.25]], low=-1, high=1)
        stored = client.upload(model, "m")
        client.stock(stored(x), 1)
        for from_stock in (True, False):
            assert client.reveal(stored(x)) == pytest.approx(np.full((1, 2), wanted), abs=1e-3)
            assert client.last_run.from_stock == from_stock
        client.upload(DataSet({"a": np.array([1.0, 2.0]), "b": np.array(3.0)}, low=-4, high=4), "d")
        data = client.data("d")
        client.keep({"c": data["a"] * data["b"]}, "e")
        assert client.reveal(client.data("e")["c"] + 1) == pytest.approx([4, 7], abs=1e-3)


async def test_two_clients_in_an_event_loop_of_their_own():
    with MemoryCluster(clients=("clinic", "company")) as cluster:
        async with AsyncClient(cluster) as clinic, AsyncClient(cluster, name="company") as company:
            found = await asyncio.gather(*(c.reveal(c.share([v]) * 2) for c, v in ((clinic, 1.0), (company, 2.0))))
        assert [float(value[0]) for value in found] == pytest.approx([2, 4], abs=1e-3)
        with pytest.raises(UsageError, match="no client called 'nobody': it has clinic, company"):
            AsyncClient(cluster, name="nobody")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [({"parties": 1}, "at least 2"), ({"security": "perfect"}, "semi-honest"), ({"clients": ()}, "at least one")],
)
def test_what_makes_no_cluster(arguments, sentence):
    with pytest.raises(UsageError, match=sentence):
        MemoryCluster(**arguments)


def test_not_running():
    cluster = MemoryCluster()
    assert "not running" in repr(cluster)
    with pytest.raises(UsageError, match="`with` statement"):
        Client(cluster)
    cluster.close()


@pytest.fixture
async def pair(site):
    """A server's end and a client's, on a network of their own."""
    network = MemoryNetwork()
    ends = [
        Endpoint(site.cluster, site.cluster.member(name), site.keys[name], bind=name == "party0", transport=network)
        for name in ("party0", "clinic")
    ]
    async with ends[0] as party0, ends[1] as clinic, asyncio.timeout(10):
        await clinic.connect(["party0"])
        yield party0, clinic


async def test_the_same_rules_hold_as_over_sockets(pair):
    """Who may send what, how much, and in which order."""
    party0, clinic = pair
    with pytest.raises(ConfigurationError, match="beyond the limit"):
        clinic.send("party0", Prepare(run="a" * 32), [bytes(party0.cluster.max_message_bytes + 1)])
    clinic.send("party0", Opening(run="a" * 32, round=0), [bytes(8)])
    fault = await party0.receive()
    assert isinstance(fault, LinkFault)
    assert isinstance(fault.error, AuthenticationError)
    clinic._links["party0"].outgoing += 1
    clinic.send("party0", Release(run="a" * 32))
    fault = await party0.receive()
    assert isinstance(fault.error, ProtocolViolation)
    assert "1 lost on the way" in str(fault.error)


async def test_a_message_is_read_in_a_later_turn_and_is_its_receivers_own(pair):
    party0, clinic = pair
    small, large = bytearray(8), bytearray(1 << 17)
    clinic.send("party0", Release(run="a" * 32), [memoryview(small), memoryview(large)])
    clinic.send("party0", Release(run="a" * 32), [memoryview(large)], copy=True)
    assert not party0._events
    small[0] = large[0] = 1
    first, second = await party0.receive(), await party0.receive()
    assert isinstance(first, Delivery)
    # As over sockets: what is large leaves when it leaves, unless it was to be copied.
    assert [buffer[0] for buffer in first.buffers] == [0, 1]
    assert second.buffers[0][0] == 0
    assert all(buffer.readonly for buffer in first.buffers)


async def test_a_link_that_breaks_is_noticed_at_both_ends_and_comes_back(pair):
    party0, clinic = pair
    network = clinic._wires._network
    with clinic.watch(["party0"]), party0.watch(["clinic"]):
        network.break_link("clinic", "party0")
        for end, name in ((clinic, "party0"), (party0, "clinic")):
            down = await end.receive()
            assert isinstance(down, PeerDown)
            assert down.error.peer == name
    network.mend_link("clinic", "party0")
    await clinic.connect(["party0"])
    clinic.send("party0", Release(run="a" * 32))
    assert isinstance(await party0.receive(), Delivery)


async def test_a_client_whose_link_was_broken_for_a_moment_is_lost_to_who_watches_it(pair):
    """However short: what it could not send meanwhile has no number that would be missing."""
    party0, clinic = pair
    network = clinic._wires._network
    with party0.watch(["clinic"]):
        network.break_link("clinic", "party0")
        await asyncio.sleep(0)
        network.mend_link("clinic", "party0")
        down = await party0.receive()
    assert isinstance(down, PeerDown)
    assert "connection broke" in str(down.error)


async def test_who_goes_is_lost_and_who_comes_back_is_another(site):
    async with site.endpoint("clinic") as clinic:
        await clinic.connect()
        with clinic.watch(["party1"]):
            await site.stop("party1")
            lost = await asyncio.wait_for(clinic.receive(), 20)
            assert isinstance(lost, PeerDown)
            assert lost.error.peer == "party1"
            with pytest.raises(PeerUnavailable):
                clinic.send("party1", Release(run="a" * 32))
            await site.start("party1")
            events = [await asyncio.wait_for(clinic.receive(), 20)]
            while not isinstance(events[-1], PeerRestarted):
                events.append(await asyncio.wait_for(clinic.receive(), 20))
        await clinic.connect(["party1"])


async def test_one_name_is_served_once(site):
    party0 = site.cluster.member("party0")
    endpoint = Endpoint(site.cluster, party0, site.keys["party0"], bind=True, transport=site.transport)
    with pytest.raises(ConfigurationError, match="party0 runs already"):
        await endpoint.start()


async def test_another_cluster_file_is_told(site):

    other = replace(site.cluster, settings=Settings(threads=2))
    with pytest.raises(VersionMismatch, match="cluster file"):
        async with AsyncClient(other, site.keys["clinic"], transport=site.transport):
            pass


def test_nobody_there_is_told_in_time():
    with MemoryCluster() as cluster:
        found = cluster.cluster
        pair = cluster.client_key()

    async def reach():
        async with AsyncClient(found, pair, transport=MemoryNetwork(), connect_timeout=0.2):
            pass

    started = time.monotonic()
    with pytest.raises(PeerUnavailable, match="is it running"):
        asyncio.run(reach())
    assert time.monotonic() - started < 9, "10 s else"
