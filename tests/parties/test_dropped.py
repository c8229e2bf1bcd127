"""What a run needed goes when it is over: nothing of it is left to a collector of garbage, which comes late."""

import asyncio
import gc
import itertools
import types
from collections import Counter

import pytest

from mpc.operation import Input
from mpc.program import Program
from parties.messages.bindings import BoundProgram
from parties.messages.runs import Prepare, Release
from parties.messages.stock import Stock
from parties.servers.job import Job
from protocols.lowering.plan import plan
from protocols.randomness.source import PartyRandomness
from protocols.readings.dealer import Dealing
from protocols.readings.party import PartyRun
from protocols.trace.secret_tensor import graph_of, leaf

LARGE = (Program, BoundProgram, PartyRun, PartyRandomness, Dealing, Job, memoryview, types.FrameType)
_RUNS = itertools.count()


def deep(steps):
    x = leaf(Input((1,), 16, -1.0, 1.0))
    y = x
    for _ in range(steps):
        y = y * 0.5 + x
    return plan(graph_of([y])).encode()


def ids(count):
    return [f"{next(_RUNS):032x}" for _ in range(count)]


async def _done(site, endpoint):
    async with site.client() as client:
        assert await client.reveal(client.share([1.0]) * 2) == pytest.approx([2.0], abs=1e-3)


async def _refused(site, endpoint):
    """No program at all, the beginning of one, and one with another end."""
    data = deep(200)
    for said in (b"", data[:-1], data[:-1] + b"\xff"):
        for run, server in itertools.product(ids(2), site.servers):
            endpoint.send(server, Prepare(run=run), [said])
    endpoint.send("dealer", Stock(request="a" * 32, count=1, low_water=0), [data[:-1]])


async def _given_up(site, endpoint):
    """While they wait, are decoded, dealt for, or ready."""
    data = deep(300)
    runs = ids(6)
    for run, server in itertools.product(runs, site.servers):
        endpoint.send(server, Prepare(run=run), [data])
    for run in runs:
        await asyncio.sleep(0.05)
        for server in site.servers:
            endpoint.send(server, Release(run=run))


async def _beyond_its_memory(site, endpoint):
    data = deep(300)
    for server in site.servers.values():
        server.governor.admission.memory = 4 << 20
    for run, server in itertools.product(ids(12), site.servers):
        endpoint.send(server, Prepare(run=run), [data])
    await asyncio.sleep(0.1)


async def _out_of_turn(site, endpoint):
    """Work that finds no turn in time."""
    data = deep(300)
    for server in site.servers.values():
        for workers in (server.governor.desk, server.governor.long, server.governor.offline):
            workers._patience = 0.01
    for run, server in itertools.product(ids(8), site.servers):
        endpoint.send(server, Prepare(run=run), [data])


@pytest.mark.sampled(3)
@pytest.mark.parametrize("way", [_done, _refused, _given_up, _beyond_its_memory, _out_of_turn])
async def test_nothing_of_a_run_is_left_as_garbage(site, way):
    endpoint = site.endpoint("company")
    async with endpoint:
        await endpoint.connect(deadline=20)
        gc.collect()
        gc.disable()
        try:
            await way(site, endpoint)
            await asyncio.sleep(0.1)
            for run in range(next(_RUNS)):
                for server in site.servers:
                    endpoint.send(server, Release(run=f"{run:032x}"))
            await site.settled()
            admissions = [server.governor.admission for server in site.servers.values()]
            await site.until(lambda: not any(one._reserved.total() for one in admissions))
            await asyncio.sleep(0.05)
            gc.set_debug(gc.DEBUG_SAVEALL)
            gc.collect()
            left = Counter(type(thing).__name__ for thing in gc.garbage if isinstance(thing, LARGE))
        finally:
            gc.set_debug(0)
            gc.garbage.clear()
            gc.enable()
    assert not left
