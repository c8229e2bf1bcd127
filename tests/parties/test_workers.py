"""A party's runs on workers: the same results and bytes; who is lost is named, and nothing is used twice."""

from __future__ import annotations

import argparse
import asyncio
import io
import re
from types import SimpleNamespace

import numpy as np
import pytest
from msgspec.structs import replace
from rich.console import Console

from benchmarks.session import as_predicted
from mpc.errors import (
    CaughtCheating,
    MacCheckError,
    PeerLost,
    PeerUnavailable,
    ServerBusy,
    TesseraError,
    UsageError,
)
from mpc.rings import FIELD, known_rings
from nn import Linear, Model, Sequential
from parties.commands.engines import engine_arguments, workforce_of
from parties.commands.status import watching
from parties.messages.runs import Opening, Placed
from parties.messages.workers import Finished
from parties.operate.metrics.prometheus import PrometheusMetrics
from parties.servers import crew, elsewhere
from parties.worker.computation import Computation

from .stocked import program, right
from .workforces import Machines, all_there, on_workers

PARTIES = ("party0", "party1")


async def test_the_same_results_and_bytes(either):
    await on_workers(either)
    async with either.client() as client:
        for _ in range(2):
            await right(client)
            assert as_predicted(client.last_run)
        # Several at once, over both workers.
        await asyncio.gather(*(right(client) for _ in range(6)))
        # What a run keeps comes back to the head, and a later one reads it on another worker.
        kept = await client.keep({"cube": client.share([0.5, -0.25], low=-1, high=1) ** 3}, "result")
        assert await client.reveal(kept["cube"] * 2) == pytest.approx([0.25, -0.03125], abs=1e-3)
    await either.settled()
    assert not any(either.servers[name]._engine.crew.at_work for name in PARTIES), "nothing of it is left"


async def test_what_is_opened_goes_past_the_heads(site):
    await on_workers(site)
    seen = []
    for name in PARTIES:
        site.corrupt(name, Opening, lambda message, buffers: seen.append(message) or [(message, buffers)])
    async with site.client() as client:
        await right(client)
        report = client.last_run
    assert not seen
    assert report.online.bytes == report.predicted.online_bytes_per_party


async def test_from_stock_each_item_once(either):
    await on_workers(either)
    async with either.client() as client:
        await client.stock(program(client), 2)
        for _ in range(2):
            await right(client, from_stock=True)
        await right(client, from_stock=False)


async def test_in_parts(site, in_parts):
    await on_workers(site)
    values = np.linspace(-0.9, 0.9, 30)
    async with site.client() as client:
        x = client.share(values, low=-1, high=1)
        for _ in range(4):
            x = (x * 0.9).relu() + x * 0.05
        result = await client.reveal(x)
        assert as_predicted(client.last_run)
    for _ in range(4):
        values = np.maximum(0.9 * values, 0) + 0.05 * values
    assert result == pytest.approx(values, abs=1e-3)


async def test_weights_are_there_once_and_overwritten_when_dropped(site):
    forces = await on_workers(site, count=1)
    worker = forces["party0"].workers[0]
    async with site.client("company") as company:
        layer = Sequential({"a": Linear(2, 1)}).architecture((2,))
        weights = {"a.weight": np.array([[0.5, 0.25]]), "a.bias": np.zeros(1)}
        held = await company.upload(Model(layer, weights), "m")
        x = [[1.0, 1.0]]
        for _ in range(2):
            assert await company.reveal(held(company.share(x, low=-1, high=1))) == pytest.approx(0.75, abs=1e-3)
        (version,) = worker.does.held
        shares = worker.does.held[version]["a.weight"]
        assert shares.share.any()
        ring, here = known_rings()[FIELD], site.servers["party0"]._secrets._tensors[version]["a.weight"]
        assert ring.is_zero(ring.subtract(shares.share, here.share))
        await company.remove("m")
        await site.until(lambda: not worker.does.held)
    assert not shares.share.any() and not shares.public.any()


async def test_a_worker_that_dies_takes_its_runs_with_it_alone(either, monkeypatch):
    monkeypatch.setattr(elsewhere, "LAST_WORDS", 0.2)
    forces = await on_workers(either, count=1)
    async with either.client() as client:
        prepared = await client.prepare(program(client))
        killed = forces["party1"].tasks[0]
        killed.cancel()
        with pytest.raises(PeerLost, match=r"party1.*run it again"):
            await client.finish(prepared)
        await all_there(either, *PARTIES)
        assert forces["party1"].tasks[0] is not killed
        await right(client)
    await either.settled()


async def test_a_worker_that_freezes_in_the_middle(site, monkeypatch):
    monkeypatch.setattr(elsewhere, "LAST_WORDS", 0.2)
    await on_workers(site, count=1)
    honest = Computation._step

    async def frozen(self, exchange, testimony, number, received):
        if self._me.name == "party1" and number == 1:
            await asyncio.sleep(3600)
        return await honest(self, exchange, testimony, number, received)

    monkeypatch.setattr(Computation, "_step", frozen)
    async with site.client() as client:
        with pytest.raises(PeerLost, match=r"party1.*no opening of round 1"):
            await right(client)
        monkeypatch.undo()
        await right(client)


async def test_without_a_worker_it_is_busy(site):
    forces = await on_workers(site, count=1)

    async def never(*_):
        await asyncio.sleep(3600)

    forces["party0"].start = never
    forces["party0"].tasks[0].cancel()
    await site.until(lambda: not site.servers["party0"].workers.runs)
    async with site.client() as client:
        with pytest.raises(ServerBusy, match="party0: has none of its workers"):
            await right(client)


async def test_a_machine_that_joins_again_has_workers_again(site, monkeypatch):
    """However often: one that has been there is no reason to wait longer for the next."""
    pauses = []

    async def pause(seconds):
        pauses.append(seconds)
        await asyncio.sleep(seconds)

    monkeypatch.setattr(crew, "asyncio", SimpleNamespace(**{**vars(asyncio), "sleep": pause}))
    machines = (await on_workers(site, count=2, kind=Machines))["party0"]
    async with site.client() as client:
        for _ in range(4):
            machines.leave()
            await site.until(lambda: not site.servers["party0"].workers.runs)
            with pytest.raises(ServerBusy, match="party0: has none of its workers"):
                await right(client)
            machines.join()
            await all_there(site, "party0")
            await right(client)
        assert pauses == [crew._RETRY] * 8


async def test_all_parties_or_none(site):
    await on_workers(site, "party0")
    async with site.client() as client:
        with pytest.raises(PeerUnavailable, match="party1: computes its runs by itself"):
            await right(client)
        site.workforces.clear()
        await site.restart("party0")
        await right(client)


@pytest.mark.parametrize("what", ["key", "twice", "program"])
async def test_what_a_head_may_not_say_of_its_worker(site, what):
    await on_workers(site)
    lies = {
        "key": lambda m: [replace(m, key=bytes(32))],
        "twice": lambda m: [m, m],
        "program": lambda m: [replace(m, program="0" * 64)],
    }
    site.corrupt("party1", Placed, lambda message, _: [(m, ()) for m in lies[what](message)])
    async with site.client() as client:
        with pytest.raises(TesseraError, match="party1"):
            await right(client)
        site.restore("party1")
        await right(client)
    await site.settled()


async def test_another_key_than_was_vouched_for_does_not_get_in(site):
    await on_workers(site)
    other = bytes(range(32))
    site.corrupt("party1", Placed, lambda message, _: [(replace(message, key=other), ())])
    async with site.client() as client:
        with pytest.raises(TesseraError, match="another key"):
            await right(client)


async def test_a_worker_that_cheats_is_noticed(strict, monkeypatch):
    await on_workers(strict)
    honest = Computation._step

    async def lying(self, exchange, testimony, number, received):
        message, outgoing = await honest(self, exchange, testimony, number, received)
        if self._me.name == "party1" and number == 1:
            outgoing = [vector.copy() for vector in outgoing]
            outgoing[0][0] ^= 1
        return message, outgoing

    monkeypatch.setattr(Computation, "_step", lying)
    async with strict.client() as client:
        with pytest.raises((MacCheckError, CaughtCheating), match="nothing was revealed"):
            await right(client)
        monkeypatch.undo()
        await right(client)


async def test_a_head_signs_for_its_runs_check_alone(strict, monkeypatch):
    """A worker that is broken into has no signature of anything else."""
    await on_workers(strict, count=1)
    asked = Computation._ask

    async def other(self, said):
        if self._me.name == "party0":
            said = replace(said, of=replace(said.of, run="0" * 32))
        return await asked(self, said)

    monkeypatch.setattr(Computation, "_ask", other)
    async with strict.client() as client:
        with pytest.raises(PeerLost, match="party0"):
            await right(client)


async def test_status_shows_them(wired):
    site = wired
    await on_workers(site, "party0", count=2)
    async with watching(site.cluster, site.keys["clinic"], 4.0) as watcher:
        report = await watcher.look()
    rows = {row.server.name: row for row in report.rows}
    assert rows["party0"].status.workers.wanted == 2
    assert sorted(rows["party0"].status.workers.runs) == ["worker 0", "worker 1"]
    assert rows["party1"].status.workers is None
    assert report.to_dict()["servers"][1]["workers"] == {"wanted": 2, "runs": {"worker 0": 0, "worker 1": 0}}
    out = io.StringIO()
    Console(file=out, width=140).print(report.render())
    assert re.search(r"party0 +2 +2 +0", out.getvalue())
    shown = (await PrometheusMetrics(site.servers["party0"]).render()).decode()
    assert "tessera_workers 2.0" in shown and "tessera_workers_wanted 2.0" in shown
    assert 'tessera_worker_runs{worker="worker 1"} 0.0' in shown


def test_flags_of_another_engine():
    parser = argparse.ArgumentParser()
    engine_arguments(parser, "runs are computed")
    assert workforce_of(parser.parse_args([]), None) is None
    with pytest.raises(UsageError, match="--worker-ports is for --engine ray"):
        workforce_of(parser.parse_args(["--worker-ports", "1-2"]), None)


def test_nobody_may_send_what_is_said_among_a_partys_own():
    assert not Finished.senders
