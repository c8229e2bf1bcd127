"""What keeps one client from crowding out the others holds over all workers of a party: turns, quotas, memory."""

from __future__ import annotations

import asyncio
import contextlib
import threading

import numpy as np
import pytest

from mpc.errors import LimitReached, ServerBusy
from mpc.security import Security
from nn import Linear, Model, Sequential
from parties import Settings
from parties.servers.admission import Admission
from parties.worker import computation

from .conftest import opened
from .stocked import right
from .workforces import on_workers, running

PARTIES = ("party0", "party1")


def run_of(client, size):
    """A run whose memory grows with ``size``."""
    return client.share(np.zeros(size), low=-1, high=1) ** 2


@pytest.fixture
def held(monkeypatch):
    """Lets go what is prepared on workers for ``company``, which is held up until then."""
    let_go, honest = threading.Event(), computation.first_part

    def first_part(cluster, me, source, sign, program, of, author, *rest):
        if author is not None and author.name == "company":
            assert let_go.wait(19)
        return honest(cluster, me, source, sign, program, of, author, *rest)

    monkeypatch.setattr(computation, "first_part", first_part)
    yield let_go
    let_go.set()


async def test_a_flood_is_waited_for_by_nobody_else(patient, held):
    site = patient
    await on_workers(site)
    async with site.client() as clinic, site.client("company") as company:
        flood = [asyncio.create_task(company.reveal(run_of(company, 3))) for _ in range(24)]
        seen = [site.servers[name].workers for name in PARTIES]
        await site.until(lambda: all(sum(site.servers[name].workers.runs.values()) for name in PARTIES))
        async with asyncio.timeout(15):
            for _ in range(3):
                await right(clinic)
        assert not any(task.done() for task in flood)
        assert all(one.wanted == 2 for one in seen)
        held.set()
        await asyncio.gather(*flood)
    await site.settled()


async def test_turns_go_round_while_both_flood(patient, monkeypatch):
    """Of two that ask for more than there is, one for four times as much, each is served as often."""
    site = patient
    await on_workers(site)
    served, honest = [], computation.first_part

    def first_part(cluster, me, source, sign, program, of, author, *rest):
        if me.name == "party0":
            served.append(author.name)
        threading.Event().wait(0.02)
        return honest(cluster, me, source, sign, program, of, author, *rest)

    monkeypatch.setattr(computation, "first_part", first_part)
    async with site.client() as clinic, site.client("company") as company:
        asked = [(company, 24), (clinic, 6)]
        await asyncio.gather(*(client.reveal(run_of(client, 3)) for client, count in asked for _ in range(count)))
    last = max(i for i, name in enumerate(served) if name == "clinic")
    # Twelve of thirty are of the first six of each; what had begun before, and beside, comes on top.
    assert len(served) == 30 and last < 20, served


async def test_a_limit_holds_over_workers(patient):
    site = patient
    await on_workers(site)
    layer = Sequential({"a": Linear(2, 1)}).architecture((2,))
    model = Model(layer, {"a.weight": np.array([[0.5, 0.25]]), "a.bias": np.zeros(1)})
    async with site.client() as clinic, site.client("company") as company:
        await company.upload(model, "m")
        await company.allow("m", "clinic", runs=3)
        remote = await clinic.model("m")
        x = clinic.share([[1.0, 1.0]], low=-1, high=1)
        found = await asyncio.gather(*(clinic.reveal(remote(x)) for _ in range(7)), return_exceptions=True)
    assert sum(isinstance(one, LimitReached) for one in found) == 4
    assert [one.item() for one in found if isinstance(one, np.ndarray)] == pytest.approx([0.75] * 3, abs=1e-3)


def test_as_many_runs_as_workers_can_be_at():
    """Three each: while one is computed others wait for other parties."""
    for places in (1, 64, 1000):
        admission = Admission("party0", 1 << 30, Security.SEMI_HONEST, clients=40, places=places)
        begun = {f"client{i}": 0 for i in range(40)}
        for name in begun:
            with contextlib.suppress(ServerBusy):
                while True:
                    admission.begin(name)
                    begun[name] += 1
        assert min(begun.values()) >= max(1, 3 * places // 40)
        assert begun["client0"] == 63 + places
        assert sum(begun.values()) >= max(256, 3 * places)


async def test_memory_is_divided_over_all_workers(tmp_path):
    settings = Settings(threads=1, peer_timeout=1.5, round_timeout=20, memory_mb=1)
    async with opened(tmp_path, Security.SEMI_HONEST, settings=settings) as site:

        async def fill(client):
            """As many runs as there is room for; what the next one hears."""
            prepared = []
            while True:
                try:
                    prepared.append(await client.prepare(run_of(client, 2000)))
                except ServerBusy as error:
                    return prepared, str(error)

        counts = []
        for workers in (1, 2):
            await on_workers(site, count=workers)
            async with site.client() as clinic, site.client("company") as company:
                prepared, said = await fill(company)
                assert "MiB left for what company asks for" in said
                placed = [len(worker.charges) for worker in running(site, "party0")]
                assert sum(placed) == len(prepared) and max(placed) - min(placed) <= 1
                counts.append(len(prepared))
                # Whatever others have, each client has its part.
                await clinic.reveal(run_of(clinic, 2000))
                for run in prepared:
                    await company.finish(run)
            await site.settled()
        assert 1.6 * counts[0] <= counts[1] <= 2.5 * counts[0], counts
        # With a worker lost there is room for as many on the other one, and no more.
        forces = {name: site.workforces[name] for name in PARTIES}
        for force in forces.values():
            force.tasks[1].cancel()
            force.start = asyncio.Future
        await site.until(lambda: all(len(running(site, name)) == 1 for name in PARTIES))
        async with site.client() as clinic, site.client("company") as company:
            fills = await asyncio.gather(fill(company), fill(clinic))
            assert any("none of its 1 workers has" in said for _, said in fills), fills
