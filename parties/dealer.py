"""The dealer's process: correlated randomness for programs, and masks for models; never data."""

from __future__ import annotations

import logging

from mpc.errors import ProgramError, ProtocolViolation, TesseraError
from mpc.prg import Seed, fresh_seed
from mpc.program import MAX_ELEMENTS, Program
from parties.cluster import Cluster, Member
from parties.events import Delivery
from parties.keys import KeyPair
from parties.messages import Buffer
from parties.run_messages import (
    ClientMasks,
    Dealt,
    Failed,
    Prepare,
    Release,
    StoreFailed,
    StoreSeed,
    Upload,
)
from parties.server import Job, Server
from protocols.dealer import Dealing, StoredMasks, deal

log = logging.getLogger(__name__)


class DealerServer(Server):
    """Deals for one run at a time per program; remembers the seeds of stored models' masks."""

    def __init__(self, cluster: Cluster, member: Member, keys: KeyPair) -> None:
        super().__init__(cluster, member, keys)
        self._stored: dict[str, StoredMasks] = {}
        self._party_names = [party.name for party in cluster.parties]
        self.handlers |= {Prepare: self._on_prepare, Upload: self._on_upload, Release: self._on_release}

    def _on_prepare(self, delivery: Delivery) -> None:
        message = delivery.message
        assert isinstance(message, Prepare)  # noqa: S101 - for the type checker
        if message.run in self.jobs:
            raise ProtocolViolation(delivery.sender.name, "asked twice for the same run")
        job = self.open_job(message.run, Job)
        job.client = delivery.sender
        self.watch(job, [member.name for member in self.cluster.parties] + [delivery.sender.name])
        if len(delivery.buffers) != 1:
            raise ProtocolViolation(delivery.sender.name, "sent a run without its program")
        data = delivery.buffers[0]

        def work() -> tuple[Program, Dealing]:
            program = Program.decode(data)
            return program, deal(program, len(self.cluster.parties), self._stored)

        self.in_background(
            job, work, lambda result, seconds: self._send(job, *result, seconds), reach=self._party_names
        )

    def _send(self, job: Job, program: Program, dealing: Dealing, seconds: float) -> None:
        sent = 0
        for party, seed in zip(self.cluster.parties, dealing.seeds, strict=True):
            buffers: list[Buffer] = [bytes(seed)]
            if party.index == len(self.cluster.parties) - 1:
                buffers.extend(dealing.corrections)
            sent += self.endpoint.send(party.name, Dealt(run=job.run, program=program.digest), buffers)
        assert job.client is not None  # noqa: S101 - set by _on_prepare
        masks: list[Buffer] = [b"".join(map(bytes, streams)) for streams in dealing.input_seeds]
        masks.extend(dealing.output_masks)
        message = ClientMasks(run=job.run, program=program.digest, seconds=seconds, dealt_bytes=sent)
        self.endpoint.send(job.client.name, message, masks)
        self.end(job)

    def _on_release(self, delivery: Delivery) -> None:
        """The client gives up before the dealer is done."""
        message = delivery.message
        assert isinstance(message, Release)  # noqa: S101 - for the type checker
        job = self.jobs.get(message.run)
        if job is not None and job.client == delivery.sender:
            self.end(job)

    def _on_upload(self, delivery: Delivery) -> None:
        message = delivery.message
        assert isinstance(message, Upload)  # noqa: S101 - for the type checker
        self.spawn(self._answer_upload(delivery.sender, message))

    async def _answer_upload(self, client: Member, message: Upload) -> None:
        try:
            await self.endpoint.connect(self._party_names, self.cluster.settings.peer_timeout)
            self._deal_store(client, message)
        except TesseraError as error:
            self._tell([client.name], store_failed(message.store, error))

    def _deal_store(self, client: Member, message: Upload) -> None:
        if message.store in self._stored:
            raise ProtocolViolation(client.name, "an upload's id was used before")
        shapes = upload_shapes(message)
        seeds = tuple(Seed(fresh_seed()) for _ in self.cluster.parties)
        self._stored[message.store] = StoredMasks(seeds, shapes)
        reply = StoreSeed(store=message.store)
        for party, seed in zip(self.cluster.parties, seeds, strict=True):
            self.endpoint.send(party.name, reply, [bytes(seed)])
        self.endpoint.send(client.name, reply, [b"".join(map(bytes, seeds))])

    def overdue(self, job: Job) -> TesseraError:
        return TesseraError(
            "dealing for this program takes longer than round_timeout: raise it, or use smaller batches"
        )


def upload_shapes(message: Upload) -> dict[str, tuple[int, ...]]:
    """Shapes by tensor; ProgramError for names that repeat or sizes beyond what a process agrees to hold."""
    shapes = {tensor.name: tensor.shape for tensor in message.tensors}
    total = 0
    for shape in shapes.values():
        size = 1
        for n in shape:
            size *= n
        total += size
    if len(shapes) != len(message.tensors) or total > MAX_ELEMENTS:
        raise ProgramError("an upload with repeated names, or with too many elements")
    return shapes


def store_failed(store: str, error: TesseraError) -> StoreFailed:
    return StoreFailed(store=store, error=type(error).__name__, reason=str(error)[:2000])


__all__ = ["DealerServer", "Failed"]
