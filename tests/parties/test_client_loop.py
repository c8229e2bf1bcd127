"""A client's event loop, which others wait for, too: what takes long of a program is done beside it."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from mpc.operation import Input
from parties import AsyncClient, MemoryCluster
from parties.client import writing
from parties.client.prepared import PreparedRun
from parties.client.writing import MANY_ELEMENTS, MANY_NODES
from protocols.lowering import plan as planning
from protocols.lowering.plan import lowered
from protocols.trace.secret_tensor import SecretTensor, graph_of, leaf

LONGEST = 0.1
"""s that a turn of the loop may take."""


@pytest.fixture
def planners(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The threads that have planned."""
    threads, plan = list[int](), writing.plan

    def noted(*arguments: Any, **options: Any) -> Any:
        threads.append(threading.get_ident())
        return plan(*arguments, **options)

    monkeypatch.setattr(writing, "plan", noted)
    return threads


def chain(x: SecretTensor, length: int) -> SecretTensor:
    y = x
    for _ in range(length):
        y = (y + x * 0.001).assumed(-4.0, 4.0)
    return y


@asynccontextmanager
async def turns() -> AsyncIterator[SimpleNamespace]:
    """How much processor time this loop's thread takes from one turn to the next, at most: of nobody else's."""
    found = SimpleNamespace(longest=0.0, count=0)

    async def watch() -> None:
        before = time.thread_time()
        while True:
            await asyncio.sleep(0)
            now = time.thread_time()
            found.longest, found.count = max(found.longest, now - before), found.count + 1
            before = now
            await asyncio.sleep(0.002)

    task = asyncio.create_task(watch())
    await asyncio.sleep(0.01)
    try:
        yield found
    finally:
        task.cancel()


async def test_small_programs_are_planned_where_they_are_large_ones_beside(planners: list[int]) -> None:
    with MemoryCluster(2) as cluster:
        async with AsyncClient(cluster) as client:
            x = client.share([0.5], low=0, high=1)
            small = chain(x, 5)
            assert await client.reveal(small) == pytest.approx([0.5025], abs=1e-3)
            assert planners == [threading.get_ident()]
            large = chain(x, MANY_NODES // 2)
            shown = (await client.show(large)).program
            prepared = await client.prepare(large)
            assert await client.finish(prepared) == pytest.approx([0.55], abs=1e-2)
            assert len(planners) == 3
            assert threading.get_ident() not in planners[1:]
            assert shown == client.digest(large)


async def test_many_numbers_are_masked_and_opened_beside(monkeypatch: pytest.MonkeyPatch) -> None:
    threads = set[int]()
    for name in ("take_masks", "masked_inputs", "inputs_message", "open_outputs"):
        method = getattr(PreparedRun, name)

        def noted(self: PreparedRun, *arguments: Any, _method: Any = method) -> Any:
            threads.add(threading.get_ident())
            return _method(self, *arguments)

        monkeypatch.setattr(PreparedRun, name, noted)
    with MemoryCluster(2) as cluster:
        async with AsyncClient(cluster) as client:
            for size, here in ((10, True), (MANY_ELEMENTS // 2, False)):
                threads.clear()
                x = np.linspace(0, 1, size)
                found = await client.reveal(client.share(x, low=0, high=1) + 1.0)
                assert np.allclose(found, x + 1, atol=1e-3)
                assert (threading.get_ident() in threads) is here


def test_threads_that_plan_what_they_share_lower_it_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Or an input would be two in one program."""
    x = leaf(Input((2,), 16, 0.0, 1.0))
    shared = chain(x, 3)
    shared.node.lowered.clear()
    x.node.lowered.clear()
    lower, both = planning.lower, threading.Barrier(2)

    def slow(*arguments: Any) -> Any:
        if threading.current_thread() is not threading.main_thread() and both.n_waiting + 1:
            both.wait(60)
        return lower(*arguments)

    monkeypatch.setattr(planning, "lower", slow)
    with ThreadPoolExecutor(2) as pool:
        one, other = pool.map(lambda _: lowered(x.node), range(2))
    assert one is other is lowered(x.node)
    monkeypatch.undo()
    program = planning.plan(graph_of([shared]))
    assert len(program.supplied) == 1


@pytest.mark.slow
async def test_no_turn_of_the_loop_takes_long() -> None:
    """Of three thousand range checks: planning, checking, opening, and the bill."""
    with MemoryCluster(2) as cluster:
        async with AsyncClient(cluster) as client:
            y = chain(client.share([0.5], low=0, high=1), 3000)
            async with turns() as found:
                await client.reveal(y)
            assert found.longest < LONGEST
            assert found.count > 20
