"""What a dealer's worker does: it makes corrections, of seeds that its head has drawn for one dealing.

It remembers seeds of what is stored, and the masks made of them, while that is in use, and nothing of a dealing beyond
its last part.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Iterator

from mpc.errors import PeerLost, ProgramError
from mpc.rings import Buffer
from parties.messages.failures import fault_of
from parties.messages.workers import Broken, Deal, Delivered, Drop, HoldSeeds, More, Over, PartDealt
from parties.stock.collecting import ABOUT
from parties.stock.stocker import SLICE
from parties.stored.policy import not_in_use
from parties.wire.direct import DirectLink, shared_keys
from parties.wire.messages import Message, Payload
from parties.worker.post import Post
from protocols.randomness.dealt import read_seeds
from protocols.readings.dealer import StoredMasks
from protocols.readings.drawing import Order


class _Dealing:
    """One that is not over."""

    def __init__(self, message: Deal) -> None:
        self.message = message
        self.parts: Iterator[tuple[Buffer, ...]] = iter(())
        """Once they can be made."""
        self.over = False
        self.made: asyncio.Queue[tuple[Buffer, ...]] = asyncio.Queue()
        """Parts that have not been collected."""
        self.left = 0
        """How many parts are not made yet."""
        self.delivery: asyncio.Task[None] | None = None


class DealingWork:
    """At one worker."""

    def __init__(self, post: Post) -> None:
        self._post = post
        self.held: dict[str, StoredMasks] = {}
        """By version."""
        self._dealings: dict[str, _Dealing] = {}

    def close(self) -> None:
        """Nothing of it is wanted any more, or kept."""
        for name in tuple(self._dealings):
            self._over(name)
        for version in tuple(self.held):
            self._drop(version)

    def hear(self, message: Message, payload: Payload) -> None:
        """What the head says."""
        match message:
            case HoldSeeds():
                seeds = read_seeds(payload[0], len(self._post.cluster.parties))
                self.held[message.version] = StoredMasks(seeds, message.shapes)
            case Drop():
                self._drop(message.version)
            case Deal():
                if message.run in self._dealings:
                    raise ProgramError("something is dealt twice on one worker")
                self._dealings[message.run] = dealing = _Dealing(message)
                self._post.work(message.run, lambda: self._begin(dealing, payload), lambda: not dealing.over)
            case More():
                more = self._dealings.get(message.run)
                if more is not None:
                    self._post.work(message.run, lambda: self._next(more), lambda: not more.over)
            case Over():
                self._over(message.run)
            case _:
                raise ProgramError(f"the head says {type(message).__name__}, which is not for a dealer's worker")

    async def _begin(self, dealing: _Dealing, payload: Payload) -> None:
        post, message = self._post, dealing.message
        encoded, seeds = payload
        program = await post.program(bytes(encoded))
        post.doors.reserve(post.cluster.parties[-1].name, 0, message.source.door)
        dealing.parts = post.source.corrections(
            program,
            {slot: self.held[version] for slot, version in message.versions.items() if version in self.held},
            post.cluster.settings.security,
            read_seeds(seeds, len(post.cluster.parties)),
            Order(message.drawn, message.part),
        )
        await self._next(dealing)
        # It is known by now, which takes long the first time.
        dealing.left += len(program.schedule(post.cluster.settings.security).parts)
        if not dealing.over:
            deliver = functools.partial(self._deliver, dealing)
            dealing.delivery = post.work(message.run, deliver, lambda: not dealing.over)

    async def _deliver(self, dealing: _Dealing) -> None:
        """Each part that is made, to who collects them.  Raises PeerLost: then it is kept no longer."""
        post, message = self._post, dealing.message
        party, keys = post.cluster.parties[-1].name, shared_keys(message.source.secret, ABOUT)
        patience = (2 + SLICE * message.patient) * post.cluster.settings.round_timeout
        link: DirectLink | None = None
        try:
            async with asyncio.timeout(patience):
                link = await post.doors.come_in(message.source.door, keys)
            while dealing.left or not dealing.made.empty():
                part = await dealing.made.get()
                async with asyncio.timeout(patience):
                    await link.deliver(PartDealt(run=message.run), part)
        except BaseException as error:
            if link is not None:
                # What nobody has read is not kept to be sent some day.
                link.abort()
            if isinstance(error, TimeoutError):
                raise PeerLost(party, f"did not collect what was dealt for it within {patience:g} s") from None
            raise
        link.close()
        post.link.send(Delivered(run=message.run))

    async def _next(self, dealing: _Dealing) -> None:
        post, message = self._post, dealing.message
        part = await post.governor.offline.run(
            message.client,
            lambda: next(dealing.parts),
            seconds=message.expected,
            patient=message.patient,
            unwanted=lambda: dealing.over,
        )
        dealing.left -= 1
        if dealing.over:
            return
        dealing.made.put_nowait(part)
        post.link.send(PartDealt(run=message.run))
        await post.link.flush()

    def _over(self, name: str) -> None:
        dealing = self._dealings.pop(name, None)
        if dealing is not None:
            dealing.over = True
            if dealing.delivery is not None:
                dealing.delivery.cancel()
            self._post.doors.forget(dealing.message.source.door)

    def _drop(self, version: str) -> None:
        """Not there any more, nor anywhere in memory as far as that is ours to say; nor is anything made of it."""
        for name, dealing in tuple(self._dealings.items()):
            if version in dealing.message.versions.values():
                self._over(name)
                self._post.link.send(Broken(run=name, fault=fault_of(not_in_use())))
        masks = self.held.pop(version, None)
        if masks is not None:
            masks.overwrite()
