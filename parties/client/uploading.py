"""A client's side of an upload: chunks in a window, and going on where it was when a server or the client was lost.

*Bytes.*  Each party is sent 8 bytes per element of the model, in chunks of 4 MiB with some 200 bytes about each, and as
much is sent again as the window holds (16 MiB at most) when its connection breaks.  In the client's memory are, beside
the model itself, the mask of one tensor and a window of chunks.

*Signed.*  After the last chunk every party is sent one signature, of a digest of all chunks
(`parties.messages.evidence`).  So each attempt masks all of them, and sends those that the parties have not.

*Going on.*  Masks come from the dealer's seeds, so an upload that goes on after a crash has to go on with the seeds it
was begun with, or begin again.  The dealer keeps the seeds of uploads that are not complete, by owner, name,
description, and the owner's ``content_tag``: a digest of the weights under a key that is derived from the client's own
secret one.  Whoever uploads the same again is given the same version and the same seeds, and is told by each party how
much of it is there.

*Why that is safe.*  A mask b hides w as long as nothing but w is ever masked with it.  The tag of other weights is
another one (SHA-256), so the seeds of a pending upload go out again for the very same w alone, and w - b sent twice is
the same value.  The tag is looked for among the owner's own uploads only, and links are authenticated: no other client
can ask for these seeds.  A client that lies about its tag is given seeds that it had before, and may mask two models
with one mask; it shows the difference of its own weights, and nobody else's.  Once a version is decided or dropped its
tag is forgotten, and the same model uploaded again has fresh seeds.  All that the tag shows is whether two pending
uploads of one owner are of the same weights, and it shows that to the dealer alone; those of different owners are made
with different keys and cannot be compared, nor can weights be guessed and tried without the key.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import secrets
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import NamedTuple

import numpy as np
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from zmq.utils import z85

from mpc.errors import PeerError, PeerLost, PeerUnavailable, ProgramError, ProtocolViolation
from mpc.rings import Buffer, PrimeField
from mpc.rings.field import FieldArray
from mpc.rings.prg import Seed
from parties.client.conversation import Conversation
from parties.client.switchboard import Switchboard
from parties.members.cluster import Cluster
from parties.members.keys import KeyPair
from parties.messages.evidence import PURPOSE, PartsSaid, signed_bytes
from parties.messages.uploads import (
    ChunksStored,
    Upload,
    UploadBegin,
    UploadChunk,
    UploadSeed,
    UploadSigned,
    VersionDropped,
    VersionReady,
)
from parties.stored.chunks import WINDOW, Grid, masked_chunks
from parties.stored.record import tensor_infos
from parties.wire.messages import Payload
from protocols.randomness.dealt import read_seeds
from protocols.readings.dealer import digest

_PAUSE = 0.2
"""s between attempts to reach a server that was lost."""


class UploadProgress(NamedTuple):
    """How far an upload is, in bytes of payload to each party."""

    done: int
    """That every party has on its disk."""
    total: int
    resumed: int
    """Of ``done``: that every party had before this call."""


def content_tag(keys: KeyPair, name: str, description: bytes, tensors: Mapping[str, FieldArray]) -> str:
    """HMAC-SHA-256 of a model under its name, with a key that only its owner has; 64 hexadecimal digits."""
    key = HKDF(SHA256(), 32, None, b"tessera upload content").derive(z85.decode(keys.secret))
    state = hmac.new(key, digestmod="sha256")

    def note(part: bytes) -> None:
        state.update(len(part).to_bytes(8, "little"))
        state.update(part)

    note(name.encode())
    note(description)
    for tensor, array in tensors.items():
        note(f"{tensor} {array.shape}".encode())
        # An empty array has no memory to look at.
        state.update(np.ascontiguousarray(array).reshape(-1).data if array.size else b"")
    return state.hexdigest()


class Uploading:
    """One upload, from beginning to end.

    Args:
        board: the client's, connected.
        keys: the client's.
        field: what this process computes with.
        patience: s that the servers may be silent for; and that an upload waits for one which was lost.
        progress: called when every party has more of it.
    """

    def __init__(
        self,
        board: Switchboard,
        cluster: Cluster,
        keys: KeyPair,
        patience: float,
        field: PrimeField,
        *,
        name: str,
        tensors: Mapping[str, FieldArray],
        description: bytes,
        progress: Callable[[UploadProgress], None] | None = None,
    ) -> None:
        self._board = board
        self._keys = keys
        self._patience = patience
        self._field = field
        self._name = name
        self._tensors = tensors
        # Each is made when it is asked for: here for the first time, before anything is sent.
        shapes = {tensor: array.shape for tensor, array in tensors.items()}
        self._infos = tensor_infos(shapes)
        self._description = description
        self._progress = progress
        self._coordinator = cluster.coordinator.name
        self._circle = cluster.circle
        self._parties = [party.name for party in cluster.parties]
        self._servers = [server.name for server in cluster.servers]
        self._grid = Grid.of(shapes.values())
        self._version = secrets.token_hex(16)
        self._attempt = ""
        self._content = ""
        self._have: dict[str, int] = {}
        """Chunks by party, as it says."""
        self._sent: dict[str, int] = {}
        self._done = -1
        """Chunks that every party has."""
        self._resumed = 0
        self._ready: set[str] = set()
        self._all_sent = False
        """Whether a party may have all of it, and may have told the dealer."""
        self._told = False
        """Whether the last attempt failed on a server's word."""

    async def run(self) -> str:
        """The version that is in use when this returns.

        Raises what a server says is wrong, PeerLost or PeerUnavailable when one that was lost is not back in time, or
        more of it does not come to be known.  What could still become of it then is given up, unless chunks were
        missing: the next upload of the same goes on with it.
        """
        self._content = await asyncio.to_thread(content_tag, self._keys, self._name, self._description, self._tensors)
        give_up: float | None = None
        while True:
            before = self._done
            try:
                await self._try()
            except (PeerLost, PeerUnavailable) as error:
                now = time.monotonic()
                if give_up is None or self._done > before:
                    give_up = now + self._patience
                # A server that is being stopped refuses what is new, and is not waited for then.
                refused = self._told and self._done < 0
                if refused or isinstance(error, _Silence) or not await self._back(give_up):
                    self._abandon(resumable=not self._all_sent)
                    raise _plain(error) from None
            except asyncio.CancelledError:
                self._abandon(resumable=not self._all_sent)
                raise
            except BaseException:
                self._abandon(resumable=False)
                raise
            else:
                return self._version

    def _abandon(self, *, resumable: bool) -> None:
        if not resumable:
            self._board.tell(VersionDropped(version=self._version))

    async def _back(self, give_up: float) -> bool:
        """Whether all servers are back by then."""
        while (now := time.monotonic()) < give_up:
            await asyncio.sleep(min(_PAUSE, give_up - now))
            with contextlib.suppress(PeerLost, PeerUnavailable):
                await self._board.reach(self._servers)
                return True
        return False

    async def _try(self) -> None:
        seeds, masks = await self._seeds()
        self._attempt = secrets.token_hex(16)
        self._have, self._sent = {}, {}
        with self._conversation(self._servers) as conversation:
            begin = UploadBegin(
                version=self._version, name=self._name, tensors=self._infos, masks=masks, attempt=self._attempt
            )
            for party in self._parties:
                self._board.send(party, begin, [self._description])
            while len(self._have) < len(self._parties):
                await self._hear(conversation)
            await self._send(conversation, seeds)
            while len(self._ready) < len(self._parties):
                await self._hear(conversation)

    @contextlib.contextmanager
    def _conversation(self, needs: Collection[str]) -> Iterator[Conversation]:
        """About the version."""
        with self._board.conversation(self._version, needs) as conversation:
            try:
                yield conversation
            finally:
                self._told = conversation.told

    async def _seeds(self) -> tuple[tuple[Seed, ...], str]:
        """From the coordinator, who also says which version it is: ours, or one that was begun before."""
        with self._conversation([self._coordinator]) as conversation:
            message = Upload(version=self._version, name=self._name, tensors=self._infos, content=self._content)
            self._board.send(self._coordinator, message, [self._description])
            self._version, buffers = await self._reply(conversation)
        if len(buffers) != 1:
            raise ProtocolViolation(self._coordinator, "sent the wrong number of seeds")
        try:
            seeds = read_seeds(buffers[0], len(self._parties))
        except ProgramError:
            raise ProtocolViolation(self._coordinator, "sent seeds of the wrong length") from None
        return seeds, digest(buffers)

    async def _reply(self, conversation: Conversation) -> tuple[str, Payload]:
        """The coordinator's.  What parties still say of the attempt before is passed over: they say it again."""
        until = time.monotonic() + self._patience
        while delivery := await conversation.take_next(max(0.0, until - time.monotonic())):
            sender, message = delivery.sender.name, delivery.message
            if isinstance(message, UploadSeed) and sender == self._coordinator:
                return message.continued, delivery.buffers
            if not isinstance(message, ChunksStored | VersionReady) or sender not in self._parties:
                raise ProtocolViolation(sender, f"sent {type(message).__name__} out of turn")
        raise PeerLost(self._coordinator, f"sent no UploadSeed within {self._patience:g} s")

    async def _send(self, conversation: Conversation, seeds: tuple[Seed, ...]) -> None:
        """What each party lacks, none further ahead of the slowest than the window; and all of it, signed."""
        self._sent = dict(self._have)
        self._note_sent()
        # From the first one on, whatever the parties have: the signature is of all.
        chunks, state = masked_chunks(self._tensors, seeds, self._grid, self._field), hashlib.sha256()

        def make() -> Buffer:
            chunk = next(chunks)
            state.update(chunk.data)
            return chunk

        for number in range(self._grid.count):
            while number >= min(self._have.values()) + WINDOW:
                await self._hear(conversation)
            # In a thread: the mask of a big tensor takes a while, and pings are answered meanwhile.
            chunk = await asyncio.to_thread(make)
            conversation.check()
            for party in self._parties:
                if self._sent[party] == number:
                    message = UploadChunk(version=self._version, attempt=self._attempt, number=number)
                    self._board.send(party, message, [chunk])
                    self._sent[party] += 1

        self._all_sent = True
        said = PartsSaid(self._circle, self._version, state.hexdigest())
        signature = self._keys.sign(PURPOSE, signed_bytes(said))
        signed = UploadSigned(version=self._version, attempt=self._attempt, signature=signature)
        for party in self._parties:
            self._board.send(party, signed)

    def _note_sent(self) -> None:
        self._all_sent = self._all_sent or max(self._sent.values()) == self._grid.count

    async def _hear(self, conversation: Conversation) -> None:
        """The next message of a party."""
        delivery = await conversation.take_next(self._patience)
        if delivery is None:
            missing = sorted(set(self._parties) - self._ready, key=lambda party: self._have.get(party, -1))
            raise _Silence(missing[0], f"said nothing of the upload within {self._patience:g} s")
        sender, message = delivery.sender.name, delivery.message
        if isinstance(message, VersionReady) and sender in self._parties:
            self._ready.add(sender)
        elif isinstance(message, ChunksStored) and sender in self._parties:
            if message.attempt == self._attempt:
                self._take(sender, message.chunks)
        else:
            raise ProtocolViolation(sender, f"sent {type(message).__name__} out of turn")

    def _take(self, party: str, chunks: int) -> None:
        if not self._have.get(party, 0) <= chunks <= self._sent.get(party, self._grid.count):
            raise ProtocolViolation(party, f"says that it has {chunks} chunks of an upload, which cannot be")
        self._have[party] = chunks
        done = min(self._have.values())
        if len(self._have) < len(self._parties) or done <= self._done:
            return
        if self._done < 0:
            self._resumed = done
        self._done = done
        if self._progress is not None:
            total = self._grid.bytes_of(self._grid.count)
            self._progress(UploadProgress(self._grid.bytes_of(done), total, self._grid.bytes_of(self._resumed)))


class _Silence(PeerLost):
    """A server that is there says nothing: to ask again is of no use."""


def _plain(error: PeerError) -> PeerError:
    return PeerLost(error.peer, error.reason) if isinstance(error, _Silence) else error
