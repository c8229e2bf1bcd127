"""``Worker``: computes the runs that its head places on it, and keeps what those read while it is in use.

It holds no key of the party's, no ledger and no rules: which run may be computed, with which randomness, has been
decided, and written down, when it hears of it.  It is told by its head alone, over a direct link
(`parties.wire.direct`), and meets other parties' workers run by run.  What it knows is gone with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import hashlib
import logging
import os
import platform
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import numpy as np

from mpc.errors import PeerError, ProgramError, TesseraError, TooLarge
from mpc.operation import Value
from mpc.program import Program
from mpc.rings import FIELD, Rings
from parties.members.cluster import Cluster
from parties.messages.evidence import Said
from parties.messages.failures import fault_of, internal_error
from parties.messages.workers import (
    ABOUT,
    BEAT,
    Advanced,
    Beat,
    Broken,
    Drop,
    Hold,
    Made,
    Meet,
    Met,
    More,
    Over,
    Settle,
    Settled,
    Signed,
    Start,
    Take,
    Taken,
    ToSign,
)
from parties.servers.governor import Governor
from parties.wire.direct import NO_LIMIT, Doors, LinkKey, dial
from parties.wire.messages import Message, Payload
from parties.worker.computation import Computation
from protocols.randomness.dealt import TrustedDealer

log = logging.getLogger(__name__)

_PROGRAMS = 64
"""Decoded programs that are kept, those that were used last."""


class Worker:
    """One of a party's.

    Args:
        host: at which others reach it.
        ports: at the first free one of these.
        rings: what it computes with.
    """

    def __init__(self, host: str, ports: Sequence[int] = (0,), rings: Rings | None = None) -> None:
        self._doors = Doors("worker", host, ports)
        self._source = TrustedDealer(rings)
        self.key = LinkKey()
        """Of its link with the head."""
        self._held: dict[str, dict[str, Value]] = {}
        """Shares of tensors, by version."""
        self._programs: OrderedDict[bytes, Program] = OrderedDict()
        self._runs: dict[str, Computation] = {}
        self._signatures: dict[str, asyncio.Future[bytes]] = {}
        self._tasks = set[asyncio.Task[None]]()
        self._governor: Governor | None = None

    async def serve(self, address: str, head: bytes, door: bytes) -> None:
        """Until the head ends it, or is gone.  ``head``: its public key for this link, and the door to come in by.

        Raises PeerError where it cannot be reached, ConfigurationError where this host is not as it says.
        """
        await self._doors.open()
        keys = self.key.agreed(head, ABOUT, we_dial=True)
        self._link = await dial("the head", address, door, keys, NO_LIMIT)
        try:
            message, payload = await self._link.receive()
            if not isinstance(message, Settle):
                raise ProgramError("the head does not say which cluster this is")
            self._settle(message, payload)
            self._link.send(Settled(address=self._doors.address, process=os.getpid(), host=platform.node()[:255]))
            beating = self._spawn(self._beat())
            while True:
                self._handle(*await self._link.receive())
                if beating.done():
                    return
        except PeerError as error:
            log.info("the head is gone: %s", error)
        finally:
            self._end()

    def _settle(self, message: Settle, payload: Payload) -> None:
        self._cluster = Cluster.loads(bytes(payload[0]).decode(), source="what the head has sent")
        self._me = self._cluster.member(message.party)
        self._governor = Governor(self._cluster, self._me)

    def _end(self) -> None:
        for run in tuple(self._runs):
            self._runs.pop(run).close()
        for version in tuple(self._held):
            self._drop(version)
        for task in tuple(self._tasks):
            task.cancel()
        self._doors.close()
        self._link.close()
        if self._governor is not None:
            self._governor.close()

    async def _beat(self) -> None:
        while True:
            self._link.send(Beat())
            await self._link.flush()
            await asyncio.sleep(BEAT)

    # -- what the head says ----------------------------------------------------------------------------------------

    def _handle(self, message: Message, payload: Payload) -> None:
        match message:
            case Settle():
                # Members have come or gone; whoever computes here stays.
                self._cluster = Cluster.loads(bytes(payload[0]).decode(), source="what the head has sent")
            case Hold():
                self._held.setdefault(message.version, {}).update(_values(message, payload, self._source.rings))
            case Drop():
                self._drop(message.version)
            case Take():
                self._take(message, payload)
            case Signed():
                signature = self._signatures.pop(message.run, None)
                if signature is not None and not signature.done():
                    signature.set_result(message.signature)
            case Over():
                run = self._runs.pop(message.run, None)
                if run is not None:
                    run.close()
            case More() | Meet() | Start():
                run = self._runs.get(message.run)
                if run is not None:
                    self._work(message.run, functools.partial(self._go_on, run, message, payload))
            case _:
                raise ProgramError(f"the head says {type(message).__name__}, which is not for a worker")

    def _take(self, message: Take, payload: Payload) -> None:
        if self._governor is None or message.run in self._runs:
            raise ProgramError("a run is placed twice on one worker")
        self._runs[message.run] = run = Computation(
            message,
            self._cluster,
            self._me,
            self._governor,
            self._source,
            self._doors,
            self._sign,
            lambda depths: self._advanced(message.run, depths),
        )
        self._work(message.run, lambda: self._prepare(run, message, payload))

    def _advanced(self, run: str, depths: int) -> None:
        self._link.send(Advanced(run=run, depths=depths))

    async def _prepare(self, run: Computation, message: Take, payload: Payload) -> None:
        program = await self._program(bytes(payload[0]))
        stored = {
            (slot, name): value
            for slot, version in message.versions.items()
            for name, value in self._held[version].items()
        }
        seconds = await run.prepare(program, payload[1:], stored)
        self._link.send(Taken(run=message.run, seconds=seconds, key=run.public, doors=run.entrances))

    async def _program(self, encoded: bytes) -> Program:
        digest = hashlib.sha256(encoded).digest()
        program = self._programs.get(digest)
        if program is None:
            program = self._programs[digest] = await asyncio.to_thread(Program.decode, encoded)
        self._programs.move_to_end(digest)
        if len(self._programs) > _PROGRAMS:
            self._programs.popitem(last=False)
        return program

    async def _go_on(self, run: Computation, message: More | Meet | Start, payload: Payload) -> None:
        match message:
            case More():
                await run.prepare_more(payload)
                self._link.send(Made(run=message.run))
            case Meet():
                await run.meet(message)
                self._link.send(Met(run=message.run))
            case Start():
                finished, buffers = await run.compute(message, payload)
                self._link.send(finished, buffers)

    async def _sign(self, run: str, said: Said) -> bytes:
        future = self._signatures[run] = asyncio.get_running_loop().create_future()
        self._link.send(ToSign(run=run, said=said))  # type: ignore[arg-type]  # all kinds of it are on the wire
        return bytes(await future)

    # -- runs ------------------------------------------------------------------------------------------------------

    def _work(self, name: str, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Whatever fails, fails that run alone; the head is told, who ends it."""

        async def guarded() -> None:
            error: TesseraError
            try:
                await work()
                return
            except TesseraError as found:
                error = found
            except MemoryError:
                error = TooLarge(self._me.name, "has a worker without memory left for this program")
            except Exception:  # a bug of ours must not take the worker down with it
                log.exception("run %s: internal error", name[:8])
                error = internal_error()
            run = self._runs.get(name)
            if run is not None and not run.over:
                self._link.send(Broken(run=name, fault=fault_of(error), evidence=run.evidence))

        self._spawn(guarded())

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _drop(self, version: str) -> None:
        """Not there any more, nor anywhere in memory as far as that is ours to say."""
        for value in self._held.pop(version, {}).values():
            for array in (value.public, value.share):
                with contextlib.suppress(ValueError, TypeError):
                    if array is not None:
                        array[...] = 0
            value.cache.clear()
            value.public_cache.clear()


def _values(message: Hold, payload: Payload, rings: Rings) -> dict[str, Value]:
    buffers, found, ring = iter(payload), dict[str, Value](), rings[FIELD]

    def read(shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
        return ring.copy(ring.read(next(buffers), shape))

    for tensor in message.tensors:
        public = read(tensor.shape) if tensor.public else None
        share = read(tensor.shape) if tensor.share else None
        found[tensor.name] = Value(public, share)
    return found
