"""What a party's worker does with what is dealt ahead of time: it keeps it on its shelf, and reads it for a run."""

from __future__ import annotations

import asyncio
import contextlib

from mpc.errors import PeerLost, ProgramError
from parties.messages.workers import Keep, Kept, Look, Lying, Over, Place, Sweep
from parties.stock.collecting import Collecting
from parties.stock.shelf import Shelf, packed, unpacked
from parties.wire.messages import Message, Payload
from parties.worker.post import Post


class Shelving:
    """At one worker."""

    def __init__(self, post: Post, shelf: Shelf | None) -> None:
        self._post, self.shelf = post, shelf
        self._collecting: dict[str, Collecting] = {}
        """What is being kept, by name."""

    def hear(self, message: Message, payload: Payload) -> bool:
        """What the head says; whether it is about this."""
        match message:
            case Keep():
                self._post.work(message.run, lambda: self._keep(message), lambda: True)
            case Look():
                self._post.spawn(self._look(message))
            case Sweep():
                self._post.spawn(asyncio.to_thread(self._shelf.remove, message.owner, unpacked(payload)))
            case Over():
                self._over(message.run)
                # It may be a run's as well.
                return False
            case _:
                return False
        return True

    @property
    def _shelf(self) -> Shelf:
        if self.shelf is None:
            raise ProgramError("the head has something kept where there is no shelf")
        return self.shelf

    async def _keep(self, message: Keep) -> None:
        """Raises DiskFull, PeerLost, ProtocolViolation, ServerBusy."""
        place, shelf = message.place, self._shelf
        await asyncio.to_thread(shelf.check, message.size, message.client, message.held)
        collecting = self._collecting.get(message.run)
        if collecting is None:
            made = Collecting(self._post.cluster, message.source, "this stock")
            collecting = self._collecting[message.run] = made
        try:
            payload = await collecting.part(message.size)
            await asyncio.to_thread(shelf.put, place, message.piece, payload)
        except BaseException:
            self._over(message.run)
            raise
        self._post.link.send(Kept(run=message.run))

    async def _look(self, message: Look) -> None:
        names = await asyncio.to_thread(self._shelf.names, message.owner)
        self._post.link.send(Lying(), [packed(names)])

    def _over(self, name: str) -> None:
        collecting = self._collecting.pop(name, None)
        if collecting is not None:
            collecting.close()

    def close(self) -> None:
        """Nothing more is kept."""
        for name in tuple(self._collecting):
            self._over(name)


class Reading:
    """What was dealt for one run, piece by piece, from a shelf: in place of `Collecting`."""

    def __init__(self, shelf: Shelf | None, place: Place, me: str) -> None:
        """``me``: the party's name.  Raises PeerLost where this is another shelf."""
        if shelf is None or shelf.id != place.shelf:
            raise PeerLost(me, "has a run whose stock lies with another worker: run it again")
        self._shelf, self._place, self._piece = shelf, place, 0

    async def part(self, size: int) -> Payload:
        """The next one, of so many bytes, which is nowhere else then.  Raises PeerLost."""
        piece, self._piece = self._piece, self._piece + 1
        return await asyncio.to_thread(self._shelf.take, self._place, piece, size)

    def close(self) -> None:
        """What has not been read is of no use.  Idempotent."""
        with contextlib.suppress(RuntimeError):
            asyncio.get_running_loop().run_in_executor(None, self._shelf.remove, self._place.owner, [self._place.name])
