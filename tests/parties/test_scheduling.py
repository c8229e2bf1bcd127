"""Several clients at one server: bounds on what it takes on, and turns, so that none crowds out the others."""

import asyncio
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest

from mpc.errors import DiskFull, ServerBusy, TooLarge
from mpc.operation import Input
from mpc.security import Security
from nn import Linear, Model, Sequential
from parties.host import disk, memory
from parties.members.cluster import Cluster
from parties.members.cluster_file import Settings
from parties.members.keys import KeyPair
from parties.messages.runs import Failed, Prepare
from parties.servers import admission as admission_module
from parties.servers import scheduling
from parties.servers.admission import BYTES_PER_NODE, BYTES_PER_WORD, MAX_RUNS_PER_CLIENT, Admission, memory_for_runs
from parties.servers.scheduling import Workers
from parties.stock import stocker
from parties.wire.events import Delivery
from protocols.lowering.plan import plan
from protocols.trace.secret_tensor import graph_of, leaf


def program(size):
    return plan(graph_of([leaf(Input((size,), 16, -1.0, 1.0)) * 2]))


async def eventually(condition):
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - threads tell nobody
            await asyncio.sleep(0.001)


class Bench:
    """Work that ends when it is told to, and notes in which order it began."""

    def __init__(self, width, patience=30.0):
        self.workers = Workers("party0", width, patience)
        self.began = []
        self.ends = {}

    def put(self, client, name, **options):
        end = self.ends[name] = threading.Event()

        def work():
            self.began.append(name)
            assert end.wait(60)
            return name

        return asyncio.create_task(self.workers.run(client, work, **options))

    async def until(self, *names):
        await eventually(lambda: set(names) <= set(self.began))


@pytest.fixture
async def bench():
    made = []

    def make(*arguments, **options):
        made.append(Bench(*arguments, **options))
        return made[-1]

    yield make
    for one in made:
        for end in one.ends.values():
            end.set()
        one.workers.close()


async def test_another_client_waits_for_one_piece_of_work_not_for_all(bench):
    work = bench(2)
    flood = [work.put("flood", f"f{i}") for i in range(20)]
    await work.until("f0")
    assert work.workers.waiting == 19
    other = work.put("other", "mine")
    await work.until("mine")
    assert work.began == ["f0", "mine"], "the last turn is kept for those who have none"
    work.ends["mine"].set()
    assert await other == "mine"
    for i in range(20):
        work.ends[f"f{i}"].set()
    assert await asyncio.gather(*flood) == [f"f{i}" for i in range(20)], "and nothing is lost"
    assert work.began[2:] == [f"f{i}" for i in range(1, 20)], "each client's in order"


async def test_turns_go_round(bench, monkeypatch):
    """Of work that takes the same for all: 2 ms each, by a clock that no busy machine holds up."""
    now = [0.0]
    monkeypatch.setattr(scheduling, "time", SimpleNamespace(monotonic=lambda: now[0], thread_time=time.thread_time))
    work = bench(2)
    tasks = [work.put("held", "held")]
    await work.until("held")
    tasks += [work.put(client, f"{client}{i}") for client in "abc" for i in range(3)]
    for i in range(1, 10):
        await eventually(lambda i=i: len(work.began) > i)
        now[0] += 0.002
        work.ends[work.began[i]].set()
    work.ends["held"].set()
    await asyncio.gather(*tasks)
    rounds = ["".join(sorted(name[0] for name in work.began[1 + 3 * i : 4 + 3 * i])) for i in range(3)]
    assert rounds == ["abc"] * 3


async def test_who_has_had_much_waits_and_who_comes_back_has_saved_up_nothing(bench, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(scheduling, "time", SimpleNamespace(monotonic=lambda: now[0], thread_time=time.thread_time))
    work = bench(2)
    tasks = [work.put("held", "held")]
    await work.until("held")
    for name, seconds in (("long", 0.2), ("short", 0.0)):
        tasks.append(work.put(name, name))
        await work.until(name)
        now[0] += seconds
        work.ends[name].set()
        await tasks[-1]
    tasks.append(work.put("short", "busy"))
    await work.until("busy")
    tasks += [work.put("long", "l"), work.put("short", "s0"), work.put("short", "s1"), work.put("new", "n")]
    await asyncio.sleep(0)
    for name in ("busy", "s0", "s1", "n", "l"):
        work.ends[name].set()
    # Were it over before "busy" is seen to be, whoever has another turn would wait for who has none.
    await work.until("l")
    work.ends["held"].set()
    await asyncio.gather(*tasks)
    assert work.began.index("l") > work.began.index("s0")


async def test_nobody_waits_for_ever(bench):
    work = bench(2, patience=0.05)
    tasks = [work.put("a", "a"), work.put("b", "b")]
    await work.until("a", "b")
    with pytest.raises(ServerBusy, match=r"party0: .*at work for others for 0.05 s"):
        await work.put("c", "c")
    patient = work.put("c", "d", patient=True)
    await asyncio.sleep(0.1)
    assert not patient.done()
    for name in "abd":
        work.ends[name].set()
    assert await patient == "d"
    await asyncio.gather(*tasks)
    assert "c" not in work.began


async def test_who_gives_up_takes_no_turn_and_keeps_none(bench):
    work = bench(2)
    tasks = [work.put("a", "a"), work.put("b", "b")]
    await work.until("a", "b")
    given_up = [work.put("c", f"c{i}") for i in range(5)]
    await asyncio.sleep(0.01)
    for task in given_up:
        task.cancel()
    await asyncio.gather(*given_up, return_exceptions=True)
    for name in "ab":
        work.ends[name].set()
    await asyncio.gather(*tasks)
    for i in range(4):
        task = work.put("c", f"d{i}")
        work.ends[f"d{i}"].set()
        assert await task == f"d{i}"
    assert not any(name in work.began for name in ("c0", "c1", "c2", "c3", "c4"))


async def test_a_turn_that_comes_as_its_task_is_cancelled_is_passed_on(bench):
    work = bench(2)
    first, second = work.put("a", "a"), work.put("b", "b")
    await work.until("a", "b")
    waiting = work.put("c", "c")
    await asyncio.sleep(0)
    work.ends["a"].set()
    await eventually(first.done)
    waiting.cancel()
    for name in "bc":
        work.ends[name].set()
    await asyncio.gather(first, second, waiting, return_exceptions=True)
    both = [work.put("x", "x"), work.put("y", "y")]
    await work.until("x", "y")
    for name in "xy":
        work.ends[name].set()
    await asyncio.gather(*both)


async def test_what_work_raises_is_raised_and_its_turn_passed_on():
    workers = Workers("party0", 2, 1.0)
    for _ in range(5):
        with pytest.raises(ZeroDivisionError):
            await workers.run("a", lambda: 1 // 0)
    assert await workers.run("a", lambda: 7) == 7
    workers.close()


def test_memory_has_bounds_for_one_client_and_for_all():
    made = program(1000)
    security = Security.SEMI_HONEST
    size = made.held * BYTES_PER_WORD[security] + len(made.nodes) * BYTES_PER_NODE[security]
    admission = Admission("party0", 4 * size, Security.SEMI_HONEST, clients=2)
    assert [admission.reserve("a", made) for _ in range(2)] == [size, size]
    with pytest.raises(
        ServerBusy, match=r"party0: it has 0 MiB left for what a asks for, and a run of this program takes about 0"
    ):
        admission.reserve("a", made)
    admission.give_back("a", size)
    for _ in range(2):
        admission.reserve("b", made)
    admission.reserve("c", made)
    with pytest.raises(ServerBusy, match="left for what a asks for"):
        admission.reserve("a", made)
    with pytest.raises(
        TooLarge,
        match=r"party0: a run of this program takes about \d+ MiB, and a client is given \d+: use smaller batches",
    ):
        admission.reserve("a", program(10_000))
    alone = Admission("party0", size, Security.SEMI_HONEST, clients=1)
    assert alone.reserve("a", made) == size
    assert Admission("p", 100 * size, Security.MALICIOUS, clients=2).check_size(made) > size


def test_runs_have_bounds_for_one_client():
    admission = Admission("party0", 1 << 30, Security.SEMI_HONEST, clients=2)
    for _ in range(MAX_RUNS_PER_CLIENT):
        admission.begin("b")
    with pytest.raises(ServerBusy, match="64 runs of b are in progress"):
        admission.begin("b")
    admission.begin("c")
    admission.end("b")
    admission.begin("b")


def test_memory_for_runs(monkeypatch, tmp_path):
    keys = [KeyPair.generate().public for _ in range(3)]

    def cluster(*addresses, **settings):
        return Cluster.build(
            "x",
            dealer=(addresses[0], keys[0]),
            parties=[("a", addresses[1], keys[1]), ("b", addresses[2], keys[2])],
            settings=Settings(**settings),
        )

    apart = cluster("10.0.0.1:7000", "10.0.0.2:7000", "10.0.0.3:7000")
    together = cluster("10.0.0.1:7000", "10.0.0.1:7001", "10.0.0.2:7000")
    monkeypatch.setattr(memory, "_CGROUP_LIMIT", tmp_path / "none")
    whole = memory_for_runs(apart, apart.dealer)
    assert whole > 1 << 28
    assert memory_for_runs(together, together.dealer) == whole // 2
    assert memory_for_runs(together, together.parties[1]) == whole
    (tmp_path / "limit").write_text("1000000000\n")
    monkeypatch.setattr(memory, "_CGROUP_LIMIT", tmp_path / "limit")
    assert memory_for_runs(apart, apart.dealer) == 500_000_000
    (tmp_path / "limit").write_text("max\n")
    assert memory_for_runs(apart, apart.dealer) == whole
    limited = cluster("10.0.0.1:7000", "10.0.0.1:7001", "10.0.0.1:7002", memory_mb=7)
    assert memory_for_runs(limited, limited.dealer) == 7 << 20


# -- through servers -----------------------------------------------------------------------------------------------


async def test_one_client_cannot_take_all_runs(site, monkeypatch):
    monkeypatch.setattr(admission_module, "MAX_RUNS_PER_CLIENT", 2)
    async with site.client() as clinic, site.client("company") as company:
        held = [await clinic.prepare(clinic.share([1.0]) * 2) for _ in range(2)]
        with pytest.raises(ServerBusy, match="2 runs of clinic are in progress") as caught:
            await clinic.prepare(clinic.share([1.0]) * 2)
        assert caught.value.peer in ("party0", "party1")
        assert await company.reveal(company.share([3.0]) * 2) == pytest.approx([6.0], abs=1e-3)
        assert await clinic.finish(held[0]) == pytest.approx([2.0], abs=1e-3)
        assert await clinic.reveal(clinic.share([2.0]) * 2) == pytest.approx([4.0], abs=1e-3)
        await clinic.release(held[1])
    await site.settled()


async def test_runs_that_were_announced_at_one_server_only_count_for_their_client(site, monkeypatch):
    """The dealer deals for them, and the parties, which nobody has asked, hold what was dealt for a while."""
    monkeypatch.setattr(admission_module, "MAX_RUNS_PER_CLIENT", 3)
    endpoint = site.endpoint("company")
    async with endpoint, site.client() as clinic:
        await endpoint.connect(deadline=20)
        data = program(1).encode()
        for i in range(6):
            endpoint.send("dealer", Prepare(run=f"{i:032x}"), [data])
        party = site.servers["party0"]
        await site.until(lambda: len(party.jobs) == 3)
        await asyncio.sleep(0.2)
        assert len(party.jobs) == 3
        assert {job.on_behalf for job in party.jobs.values()} == {"company"}
        endpoint.send("party0", Prepare(run="f" * 32), [data])
        async with asyncio.timeout(20):
            while True:
                event = await endpoint.receive()
                if isinstance(event, Delivery) and isinstance(event.message, Failed) and event.message.run == "f" * 32:
                    assert event.message.fault.error == "ServerBusy"
                    break
        assert await clinic.reveal(clinic.share([3.0]) * 2) == pytest.approx([6.0], abs=1e-3)


async def test_a_program_that_is_too_large_for_the_cluster(site):
    async with site.client() as client:
        for server in site.servers.values():
            server.governor.admission = Admission(server.member.name, 1 << 20, Security.SEMI_HONEST, clients=2)
        with pytest.raises(TooLarge, match="a client is given 0: use smaller batches"):
            await client.reveal(client.share(np.zeros(100_000)) * 2)
        with pytest.raises(TooLarge, match="smaller batches"):
            await client.stock(client.share(np.zeros(100_000)) * 2, 1)
        assert await client.reveal(client.share([3.0]) * 2) == pytest.approx([6.0], abs=1e-3)
    await site.settled()


async def test_what_is_busy_says_so(site, monkeypatch):
    monkeypatch.setattr(admission_module, "MAX_RUNS", 2)
    async with site.client() as client:
        held = [await client.prepare(client.share([1.0]) * 2) for _ in range(2)]
        with pytest.raises(ServerBusy, match="2 runs are in progress: try again later"):
            await client.prepare(client.share([1.0]) * 2)
        for one in held:
            await client.release(one)
        assert await client.reveal(client.share([3.0]) * 2) == pytest.approx([6.0], abs=1e-3)
    await site.settled()


async def test_a_prediction_beside_a_flood(patient):
    """Forty runs of one client are asked for at once; another's, asked for after them, is not the forty-first."""
    architecture = Sequential({"a": Linear(64, 64), "b": Linear(64, 10)}).architecture((64,))
    model = Model(architecture, {name: np.ones(shape) for name, shape in architecture.parameters.items()})
    done = []

    async def one(client, name, remote):
        await client.release(await client.prepare(remote(client.share(np.zeros((50, 64)), low=-1, high=1))))
        done.append(name)

    async with patient.client() as flood, patient.client("company") as other:
        remote = await flood.upload(model, "m")
        await flood.allow("m", "company")
        mine = await other.model("m")
        tasks = [asyncio.create_task(one(flood, "flood", remote)) for _ in range(40)]
        await eventually(lambda: done)
        before = len(done)
        await one(other, "other", mine)
        assert done.index("other") - before <= 12, "not behind all that had been asked for before"
        await asyncio.gather(*tasks)
    await patient.settled()


async def test_orders_of_two_clients_are_dealt_for_in_turns(site, monkeypatch):
    monkeypatch.setattr(stocker, "SLICE", 2)
    finished = []
    async with site.client() as clinic, site.client("company") as company:

        async def order(client, size, count):
            report = await client.stock(client.share(np.zeros(size)) * 2, count)
            assert report.done == count
            finished.append(count)

        long = asyncio.create_task(order(clinic, 2, 300))
        await asyncio.sleep(0.05)
        await order(company, 3, 4)
        assert finished == [4]
        await long
    await site.settled()


async def test_one_client_may_not_fill_the_order_book(site, monkeypatch):
    monkeypatch.setattr(stocker, "MAX_REQUESTS", 2)
    async with site.client() as clinic, site.client("company") as company:
        orders = [asyncio.create_task(clinic.stock(clinic.share([0.0] * (i + 1)) * 2, 20)) for i in range(5)]
        await asyncio.sleep(0)
        assert (await company.stock(company.share([0.0] * 7) * 2, 2)).done == 2
        found = await asyncio.gather(*orders, return_exceptions=True)
        refused = [one for one in found if isinstance(one, ServerBusy)]
        assert refused
        assert all("requests of clinic wait to be dealt for" in str(one) for one in refused)
        assert all(one.done == 20 for one in found if not isinstance(one, ServerBusy))
    await site.settled()


async def test_clients_do_not_fill_the_disk(site, monkeypatch):
    """What was there before goes on being used."""
    architecture = Sequential({"a": Linear(64, 64)}).architecture((64,))
    model = Model(architecture, {name: np.ones(shape) for name, shape in architecture.parameters.items()})
    async with site.client() as client:
        await client.upload(model, "m")
        await client.stock(client.share([0.5]) * 2, 1)
        free = disk.RESERVE + (64 << 10)
        monkeypatch.setattr(disk.shutil, "disk_usage", lambda _: SimpleNamespace(free=free, total=4 * free))
        with pytest.raises(DiskFull, match=r"party\d: the disk of its data folder has 1024 MiB free") as caught:
            await client.upload(model, "more")
        assert caught.value.peer in ("party0", "party1")
        large = client.share(np.zeros((100, 100)), low=-1, high=1)
        with pytest.raises(DiskFull, match=r"party1: the disk of its data folder"):
            await client.stock((large * large * large).sum(), 1)
        assert await client.reveal(client.share([3.0]) * 2) == pytest.approx([6.0], abs=1e-3)
        assert client.last_run.from_stock
        x = client.share(np.zeros((1, 64)), low=-1, high=1)
        assert (await client.reveal((await client.model("m"))(x))).shape == (1, 64)
    await site.settled()
