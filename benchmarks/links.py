"""``tessera bench links``: what one link between two processes moves on loopback, with and without its data channel.

A process sends large messages to another one, which asks for them and touches nothing of what comes: sealing, two
copies in the kernel and opening are what is measured, of application data a second.  The two of a pair are measured in
turn.  The processes share this machine's processors: with two, each has one.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import multiprocessing
import time
from typing import Any

import numpy as np

from benchmarks.machine import machine
from benchmarks.records import Recorder, flatten, spread
from benchmarks.report import milliseconds, plain_table, progress_bar, stdout_console
from parties.local.ports import reserved_ports
from parties.members.cluster import Cluster, Member, Role
from parties.members.keys import KeyPair
from parties.wire.events import Delivery
from parties.wire.messages import Message
from parties.wire.transport import Endpoint

LARGE = 64 << 20
"""Bytes of a message, where it is throughput that is measured."""
COUNT = 16
"""Such messages, one behind the other."""
SIZES = (16 << 10, 256 << 10, 1 << 20, 4 << 20)
"""Bytes of messages that go to and fro."""
TURNS = 20
WAYS = ("curve", "channel")
ENDS = ("sender", "receiver")


class Fetch(Message, frozen=True):
    """Send so many buffers of that size, in a message each."""

    size: int
    count: int


class Fetched(Message, frozen=True):
    """One of them; and how many seconds of processors its sender has used so far."""

    processors: float = 0.0


class Enough(Message, frozen=True):
    """End."""


def run(options: argparse.Namespace) -> int:
    """Measure and print; the exit code."""
    recorder = Recorder.of(options)
    summary: dict[str, Any] = asyncio.run(_measured(options.repeat)) | {"repeat": options.repeat, "machine": machine()}
    case = {"bytes": LARGE, "count": COUNT, "sizes": list(SIZES)}
    recorder.add(
        "links", case, flatten(summary, "gigabytes_a_second", "processor_seconds_a_gigabyte", "round_trip_seconds")
    )
    if options.json:
        recorder.print_json(summary)
    else:
        _print(summary)
    return recorder.finish()


async def _measured(repeat: int) -> dict[str, Any]:
    rates: dict[str, list[float]] = {way: [] for way in WAYS}
    used: dict[str, dict[str, list[float]]] = {way: {end: [] for end in ENDS} for way in WAYS}
    trips: dict[str, dict[str, list[float]]] = {way: {str(size): [] for size in SIZES} for way in WAYS}
    with progress_bar("measuring", repeat * len(WAYS)) as advance:
        for way in WAYS * repeat:
            async with _Pair(way) as endpoint:
                await _fetch(endpoint, LARGE, 2)
                seconds, *processors = await _fetch(endpoint, LARGE, COUNT)
                rates[way].append(LARGE * COUNT / seconds / 1e9)
                for end, busy in zip(ENDS, processors, strict=True):
                    used[way][end].append(busy / (LARGE * COUNT / 1e9))
                for size in SIZES:
                    trips[way][str(size)].append(await _turns(endpoint, size))
            advance()
    return {
        "gigabytes_a_second": {way: spread(rates[way]) for way in WAYS},
        "processor_seconds_a_gigabyte": {way: {end: spread(used[way][end]) for end in ENDS} for way in WAYS},
        "round_trip_seconds": {way: {size: spread(times) for size, times in trips[way].items()} for way in WAYS},
    }


class _Pair:
    """A party in this process, linked with one in another, which sends what it is asked for."""

    def __init__(self, way: str) -> None:
        self._keys = [KeyPair.generate() for _ in range(3)]
        self._ports = contextlib.ExitStack()
        servers = [
            Member(name, role, index, f"127.0.0.1:{port}", keys.public, data_port=None if way == "channel" else 0)
            for (name, role, index), port, keys in zip(
                (("dealer", Role.DEALER, 0), ("party0", Role.PARTY, 0), ("party1", Role.PARTY, 1)),
                self._ports.enter_context(reserved_ports(3)),
                self._keys,
                strict=True,
            )
        ]
        self._cluster = Cluster("links", servers[0], tuple(servers[1:]))

    async def __aenter__(self) -> Endpoint:
        spawn = multiprocessing.get_context("spawn")
        self._other = spawn.Process(target=_serve, args=(self._cluster.dumps(), self._keys[1]), daemon=True)
        self._other.start()
        self._endpoint = Endpoint(self._cluster, self._cluster.parties[1], self._keys[2], bind=True)
        await self._endpoint.start()
        await self._endpoint.connect(["party0"], 60)
        # Both ends dial one another, if they do, at once.
        await asyncio.sleep(0.5)
        return self._endpoint

    async def __aexit__(self, *exc: object) -> None:
        self._endpoint.send("party0", Enough())
        await asyncio.to_thread(self._other.join, 10)
        await self._endpoint.close()
        self._ports.close()


def _serve(cluster: str, keys: KeyPair) -> None:
    asyncio.run(_answer(Cluster.loads(cluster), keys))


async def _answer(cluster: Cluster, keys: KeyPair) -> None:
    async with Endpoint(cluster, cluster.parties[0], keys, bind=True) as endpoint:
        while True:
            event = await endpoint.receive()
            if not isinstance(event, Delivery):
                continue
            message = event.message
            if isinstance(message, Enough):
                return
            if isinstance(message, Fetch):
                buffer = np.ones(message.size, np.uint8)
                for _ in range(message.count):
                    endpoint.send("party1", Fetched(time.process_time()), [buffer])
            else:
                endpoint.send("party1", Fetched(), event.buffers)


async def _fetch(endpoint: Endpoint, size: int, count: int) -> tuple[float, float, float]:
    """Seconds from the first message to the last, and what sender and receiver used of processors."""
    before = await _one(endpoint)
    started, busy = time.perf_counter(), time.process_time()
    endpoint.send("party0", Fetch(size, count))
    for _ in range(count):
        await _next(endpoint)
    seconds, busy = time.perf_counter() - started, time.process_time() - busy
    return seconds, await _one(endpoint) - before, busy


async def _one(endpoint: Endpoint) -> float:
    """The sender's seconds so far."""
    endpoint.send("party0", Fetch(1, 1))
    return (await _next(endpoint)).processors


async def _turns(endpoint: Endpoint, size: int) -> float:
    """Seconds that a message of that size takes to the other process and back."""
    buffer = np.ones(size, np.uint8)
    started = time.perf_counter()
    for _ in range(TURNS):
        endpoint.send("party0", Fetched(), [buffer])
        await _next(endpoint)
    return (time.perf_counter() - started) / TURNS


async def _next(endpoint: Endpoint) -> Fetched:
    while True:
        event = await endpoint.receive()
        if isinstance(event, Delivery) and isinstance(event.message, Fetched):
            return event.message


def _print(summary: dict[str, Any]) -> None:
    columns = ["GB/s", *(f"{end}: s of a core per GB" for end in ENDS), *(f"{size >> 10} KiB" for size in SIZES)]
    table = plain_table("one link, one way; there and back", *columns)
    for way in WAYS:
        trips, used = summary["round_trip_seconds"][way], summary["processor_seconds_a_gigabyte"][way]
        table.add_row(
            {"curve": "CURVE alone", "channel": "with a data channel"}[way],
            f"{summary['gigabytes_a_second'][way]['median']:.2f}",
            *(f"{used[end]['median']:.2f}" for end in ENDS),
            *(milliseconds(trips[str(size)]["median"]) for size in SIZES),
        )
    stdout_console().print(table)
