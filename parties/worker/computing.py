"""What a party's worker does: it computes runs, on shares of what is stored that it keeps while that is in use."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from mpc.errors import ProgramError
from mpc.operation import Value
from mpc.rings import FIELD, Rings
from parties.messages.evidence import Said
from parties.messages.workers import (
    Advanced,
    Drop,
    Hold,
    Made,
    Meet,
    Met,
    More,
    Over,
    Signed,
    Start,
    Take,
    Taken,
    ToSign,
)
from parties.servers.pace import nobody_waits
from parties.stock.shelf import Shelf
from parties.wire.messages import Message, Payload
from parties.worker.computation import Computation
from parties.worker.post import Post
from parties.worker.shelving import Shelving


class Computing:
    """At one worker."""

    def __init__(
        self, post: Post, computation: Callable[..., Computation] = Computation, shelf: Shelf | None = None
    ) -> None:
        """``computation``: of a run, as `Computation` is made; ``shelf``: for what is dealt ahead of time."""
        self._post, self._computation = post, computation
        self._shelving = Shelving(post, shelf)
        self.held: dict[str, dict[str, Value]] = {}
        """Shares of tensors, by version."""
        self._runs: dict[str, Computation] = {}
        self._signatures: dict[str, asyncio.Future[bytes]] = {}

    def close(self) -> None:
        """Nothing of it is wanted any more, or kept."""
        for run in tuple(self._runs):
            self._over(run)
        self._shelving.close()
        for version in tuple(self.held):
            self._drop(version)

    def hear(self, message: Message, payload: Payload) -> None:
        """What the head says."""
        if self._shelving.hear(message, payload):
            return
        match message:
            case Hold():
                self.held.setdefault(message.version, {}).update(_values(message, payload, self._post.source.rings))
            case Drop():
                self._drop(message.version)
            case Take():
                self._take(message, payload)
            case Signed():
                signature = self._signatures.pop(message.run, None)
                if signature is not None and not signature.done():
                    signature.set_result(message.signature)
            case Over():
                self._over(message.run)
            case More() | Meet() | Start():
                run = self._runs.get(message.run)
                if run is not None:
                    self._work(run, message.run, functools.partial(self._go_on, run, message, payload))
            case _:
                raise ProgramError(f"the head says {type(message).__name__}, which is not for a party's worker")

    def _take(self, message: Take, payload: Payload) -> None:
        if message.run in self._runs:
            raise ProgramError("a run is placed twice on one worker")
        post = self._post
        self._runs[message.run] = run = self._computation(
            message,
            post.cluster,
            post.me,
            post.governor,
            post.source,
            post.doors,
            self._sign,
            lambda depths: self._advanced(message.run, depths),
            self._shelving.shelf,
        )
        self._work(run, message.run, functools.partial(self._prepare, run, message, payload))

    def _work(self, run: Computation, name: str, work: Any) -> None:
        self._post.work(name, work, lambda: not run.over, lambda: run.evidence)

    def _over(self, name: str) -> None:
        run, signature = self._runs.pop(name, None), self._signatures.pop(name, None)
        if run is not None:
            run.close()
        if signature is not None and not signature.done():
            # A thread waits for it, in a turn of its client's.
            signature.set_exception(nobody_waits())

    def _advanced(self, run: str, depths: int) -> None:
        self._post.link.send(Advanced(run=run, depths=depths))

    async def _prepare(self, run: Computation, message: Take, payload: Payload) -> None:
        program = await self._post.program(bytes(payload[0]))
        stored = {
            (slot, name): value
            for slot, version in message.versions.items()
            for name, value in self.held[version].items()
        }
        seconds = await run.prepare(program, payload[1:], stored)
        self._post.link.send(Taken(run=message.run, seconds=seconds, key=run.public, doors=run.entrances))

    async def _go_on(self, run: Computation, message: More | Meet | Start, payload: Payload) -> None:
        link = self._post.link
        match message:
            case More():
                await run.prepare_more(payload)
                link.send(Made(run=message.run))
            case Meet():
                await run.meet(message)
                link.send(Met(run=message.run))
            case Start():
                finished, buffers = await run.compute(message, payload)
                link.send(finished, buffers)

    async def _sign(self, run: str, said: Said) -> bytes:
        if run not in self._runs:
            raise nobody_waits()
        future = self._signatures[run] = asyncio.get_running_loop().create_future()
        self._post.link.send(ToSign(run=run, said=said))  # type: ignore[arg-type]  # all kinds of it are on the wire
        return bytes(await future)

    def _drop(self, version: str) -> None:
        """Not there any more, nor anywhere in memory as far as that is ours to say."""
        for value in self.held.pop(version, {}).values():
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
