"""Simulated workers of one server, in a process beside its head's: what they take is not counted as the head's.

The head's process writes what is wanted to the other's stdin, a line of JSON each, and reads as many answers.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import msgspec

from benchmarks.workers.recording import Recording
from benchmarks.workers.replaying import PlayingWorker, Processor
from mpc.errors import PeerLost
from parties.servers.process import raise_descriptor_limit
from parties.worker.within import Within
from parties.worker.worker import Worker

NOTED = 0.1
"""s between two notes of how workers get on."""


class Farm:
    """A `parties.servers.crew.Workforce` of such workers.

    Args:
        wanted: how many workers.
        recording: a file with what they play.
        stretch: how many times as long as measured.
        log: a file in which is put down how they get on (``Progress``).
    """

    host = "127.0.0.1"

    def __init__(self, wanted: int, recording: Path, stretch: float, log: Path) -> None:
        self.wanted = wanted
        command = [sys.executable, "-m", "benchmarks.workers.farm", str(recording), str(stretch), str(log)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)  # noqa: S603 - ours
        self._asking = asyncio.Lock()

    async def start(self, number: int, address: str, head: bytes, door: bytes) -> bytes:
        asked = {"start": number, "address": address, "head": head.hex(), "door": door.hex()}
        return bytes.fromhex(await self._ask(asked))

    async def end(self, number: int) -> None:
        await self._ask({"end": number})

    async def _ask(self, what: dict[str, object]) -> str:
        async with self._asking:
            return await asyncio.to_thread(self._answer, json.dumps(what))

    def _answer(self, line: str) -> str:
        if self._process.stdin is None or self._process.stdout is None:
            raise PeerLost("workers", "have no process")
        self._process.stdin.write(line.encode() + b"\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise PeerLost("workers", "have ended with their process")
        return answer.decode().strip()

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()


class Progress(NamedTuple):
    """Of a process of workers, by its number: s that they have computed, all together, up to a time of this machine."""

    process: int
    computed: float
    at: float

    @classmethod
    def read(cls, log: Path) -> Progress:
        """The last that was put down."""
        process, computed, at = log.read_text(encoding="ascii").split()
        return cls(int(process), float(computed), float(at))


async def _work(recording: Recording, stretch: float, log: Path) -> None:
    raise_descriptor_limit()
    processors: list[Processor] = []

    def made(host: str) -> Worker:
        worker = PlayingWorker(recording, stretch, host)
        processors.append(worker.processor)
        return worker

    async def put_down() -> None:
        while True:
            computed = sum(processor.busy_until_now() for processor in processors)
            part = log.with_suffix(".part")
            part.write_text(f"{os.getpid()} {computed!r} {time.monotonic()!r}", encoding="ascii")
            part.replace(log)
            await asyncio.sleep(NOTED)

    workers = Within(0, made)
    noting = asyncio.create_task(put_down())
    while line := await asyncio.to_thread(sys.stdin.readline):
        asked = json.loads(line)
        answer = b""
        if "start" in asked:
            where = asked["address"], bytes.fromhex(asked["head"]), bytes.fromhex(asked["door"])
            answer = await workers.start(asked["start"], *where)
        else:
            await workers.end(asked["end"])
        print(answer.hex(), flush=True)
    noting.cancel()
    workers.close()


if __name__ == "__main__":
    played = msgspec.msgpack.decode(Path(sys.argv[1]).read_bytes(), type=Recording)
    asyncio.run(_work(played, float(sys.argv[2]), Path(sys.argv[3])))
