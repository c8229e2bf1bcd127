"""A party's process: holds shares of models, prepares runs offline, and runs them when the inputs arrive.

Everything here reacts to messages; nothing waits.  A run moves through: announced (program or randomness is there),
preparing (a thread expands seeds), ready, online (one step a round), ended.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field as dataclass_field

import numpy as np

from mpc import field
from mpc.errors import PeerLost, ProgramError, ProtocolViolation, TesseraError
from mpc.field import FieldArray
from mpc.operation import Value
from mpc.prg import SEED_BYTES, Seed
from mpc.program import Program
from parties.cluster import Cluster, Member, Role
from parties.dealer import store_failed, upload_shapes
from parties.events import Delivery
from parties.keys import KeyPair
from parties.messages import as_array
from parties.run_messages import (
    Dealt,
    FindModel,
    FoundModel,
    Inputs,
    Opening,
    Outputs,
    Prepare,
    Ready,
    Release,
    StoreReady,
    StoreSeed,
    StoreTensors,
    Upload,
)
from parties.server import Job, Server, check_sender
from protocols.dealer import stored_stream
from protocols.party import Exchange, PartyRun, UnreducedOpening

log = logging.getLogger(__name__)

THREAD_ELEMENTS = 1 << 20
"""Runs that touch more elements than this compute in a thread, so that pings are answered meanwhile."""

MAX_EARLY_ROUNDS = 2
"""A peer can be ahead of us by one round, never by more."""


class PartyJob(Job):
    """One run at this party."""

    def __init__(self, run: str) -> None:
        super().__init__(run)
        self.program: Program | None = None
        self.dealt: Delivery | None = None
        self.party_run: PartyRun | None = None
        self.exchange: Exchange | None = None
        self.round = 0
        self.expected = 0
        """Elements of the round that is open."""
        self.waiting = False
        self.openings: dict[int, dict[int, memoryview]] = {}
        self.payload_bytes = 0
        self.wait_seconds = 0.0
        self.sent_at = 0.0
        self.low_latency = contextlib.ExitStack()


@dataclass
class StoredModel:
    """A model as this party holds it; shares are in the server's tensor table under ``store``."""

    name: str
    owner: Member
    store: str
    description: bytes
    shapes: dict[str, tuple[int, ...]]
    seed: Seed | None = None
    masked: list[FieldArray] | None = dataclass_field(default=None, repr=False)


class PartyServer(Server):
    """One party of the cluster."""

    def __init__(self, cluster: Cluster, member: Member, keys: KeyPair) -> None:
        super().__init__(cluster, member, keys)
        self.parties = len(cluster.parties)
        self._peers = [p for p in cluster.parties if p != member]
        self._tensors: dict[tuple[str, str], Value] = {}
        self._models: dict[str, StoredModel] = {}
        self._uploads: dict[str, StoredModel] = {}
        self._early_seeds: dict[str, Delivery] = {}
        self.handlers |= {
            Prepare: self._on_prepare,
            Dealt: self._on_dealt,
            Inputs: self._on_inputs,
            Opening: self._on_opening,
            Release: self._on_release,
            Upload: self._on_upload,
            StoreSeed: self._on_store_seed,
            StoreTensors: self._on_store_tensors,
            FindModel: self._on_find_model,
        }

    # -- offline ---------------------------------------------------------------------------------------------------

    def _on_prepare(self, delivery: Delivery) -> None:
        message = delivery.message
        assert isinstance(message, Prepare)  # noqa: S101 - for the type checker
        job: PartyJob = self.open_job(message.run, PartyJob)
        if job.client is not None:
            raise ProtocolViolation(delivery.sender.name, "asked twice for the same run")
        job.client = delivery.sender
        self.watch(job, [*(m.name for m in self.cluster.servers), delivery.sender.name])
        if len(delivery.buffers) != 1:
            raise ProtocolViolation(delivery.sender.name, "sent a run without its program")
        job.program = Program.decode(delivery.buffers[0])
        self._prepare(job)

    def _on_dealt(self, delivery: Delivery) -> None:
        message = delivery.message
        assert isinstance(message, Dealt)  # noqa: S101 - for the type checker
        job: PartyJob = self.open_job(message.run, PartyJob)
        if job.dealt is not None:
            raise ProtocolViolation(delivery.sender.name, "dealt twice for one run")
        job.dealt = delivery
        self._prepare(job)

    def _prepare(self, job: PartyJob) -> None:
        """Once program and randomness are both there: expand and precompute, in a thread."""
        program, dealt = job.program, job.dealt
        if program is None or dealt is None:
            return
        message = dealt.message
        assert isinstance(message, Dealt)  # noqa: S101 - for the type checker
        if message.program != program.digest:
            raise ProgramError("the dealer and this party were given different programs for one run")
        seed, corrections = self._randomness(dealt)
        self.clear_deadline(job)

        def work() -> PartyRun:
            return PartyRun(
                program,
                party=self.member.index,
                parties=self.parties,
                seed=seed,
                corrections=corrections,
                stored=self._tensors,
            )

        job.dealt = dealt
        peers = [peer.name for peer in self._peers]
        self.in_background(job, work, lambda run, seconds: self._ready(job, run, seconds), reach=peers)

    def _randomness(self, dealt: Delivery) -> tuple[Seed, list[FieldArray]]:
        buffers = dealt.buffers
        if not buffers or len(buffers[0]) != SEED_BYTES or any(len(b) % 8 for b in buffers[1:]):
            raise ProtocolViolation(dealt.sender.name, "sent randomness of the wrong length")
        return Seed(bytes(buffers[0])), [as_array(b) for b in buffers[1:]]

    def _ready(self, job: PartyJob, run: PartyRun, seconds: float) -> None:
        job.party_run = run
        job.dealt = None
        assert job.client is not None  # noqa: S101 - set by _on_prepare
        # From here on the dealer is not needed any more.
        self.watch(job, [*(p.name for p in self._peers), job.client.name])
        self.endpoint.send(job.client.name, Ready(run=job.run, seconds=seconds))

    def _on_release(self, delivery: Delivery) -> None:
        message = delivery.message
        assert isinstance(message, Release)  # noqa: S101 - for the type checker
        job = self.jobs.get(message.run)
        if job is not None:
            check_sender(job.client, delivery.sender)
            self.end(job)

    # -- online ----------------------------------------------------------------------------------------------------

    def _on_inputs(self, delivery: Delivery) -> None:
        message = delivery.message
        assert isinstance(message, Inputs)  # noqa: S101 - for the type checker
        job: PartyJob | None = self.jobs.get(message.run)
        if job is None or job.client != delivery.sender:
            raise ProtocolViolation(delivery.sender.name, "sent inputs for a run that is not its own")
        run, program = job.party_run, job.program
        if run is None or program is None or job.exchange is not None:
            raise ProtocolViolation(delivery.sender.name, "sent inputs for a run that is not ready for them")
        shapes = [program.nodes[i].type.shape for i in program.inputs]
        if [len(b) for b in delivery.buffers] != [8 * int(np.prod(s)) for s in shapes]:
            raise ProtocolViolation(delivery.sender.name, "sent inputs of the wrong length")
        inputs = [as_array(b).reshape(s) for b, s in zip(delivery.buffers, shapes, strict=True)]
        job.exchange = run.online(inputs)
        job.low_latency.enter_context(self.endpoint.low_latency())
        self._step(job, None)

    def _on_opening(self, delivery: Delivery) -> None:
        message = delivery.message
        assert isinstance(message, Opening)  # noqa: S101 - for the type checker
        job: PartyJob = self.open_job(message.run, PartyJob)
        sender = delivery.sender
        if len(delivery.buffers) != 1:
            raise ProtocolViolation(sender.name, "sent an opening that is not one array")
        if not job.round <= message.round <= job.round + MAX_EARLY_ROUNDS:
            raise ProtocolViolation(
                sender.name, f"sent an opening of round {message.round} in round {job.round}"
            )
        openings = job.openings.setdefault(message.round, {})
        if sender.index in openings:
            raise ProtocolViolation(sender.name, f"sent two openings in round {message.round}")
        openings[sender.index] = delivery.buffers[0]
        self._continue(job)

    def _continue(self, job: PartyJob) -> None:
        """Take the next step if everyone's opening of this round is there."""
        openings = job.openings.get(job.round, {})
        if not job.waiting or len(openings) < self.parties - 1:
            return
        del job.openings[job.round]
        job.waiting = False
        job.round += 1
        job.wait_seconds += time.perf_counter() - job.sent_at
        received = []
        for peer in self._peers:
            buffer = openings[peer.index]
            if len(buffer) != 8 * job.expected:
                raise ProtocolViolation(
                    peer.name, f"sent an opening of {len(buffer)} bytes instead of {8 * job.expected}"
                )
            received.append(as_array(buffer))
        self._step(job, received)

    def _step(self, job: PartyJob, received: Sequence[FieldArray] | None) -> None:
        """Compute up to the next round: here if it is quick, in a thread if it is not."""
        self.set_deadline(job)
        if job.program is not None and job.program.elements > THREAD_ELEMENTS:
            self.clear_deadline(job)
            self.in_background(
                job, lambda: self._compute(job, received), lambda result, _: self._sent(job, result)
            )
        else:
            self._sent(job, self._compute(job, received))

    def _compute(
        self, job: PartyJob, received: Sequence[FieldArray] | None
    ) -> tuple[FieldArray | None, list[FieldArray]]:
        """What is to be opened next, or the outputs."""
        assert job.exchange is not None  # noqa: S101 - online
        try:
            outgoing = next(job.exchange) if received is None else job.exchange.send(received)
        except StopIteration as end:
            return None, end.value
        except UnreducedOpening as error:
            peer = self._peers[error.position].name
            raise ProtocolViolation(peer, "sent an opening with numbers outside the field") from None
        return outgoing, []

    def _sent(self, job: PartyJob, result: tuple[FieldArray | None, list[FieldArray]]) -> None:
        opening, outputs = result
        if opening is None:
            self._finish(job, outputs)
            return
        message = Opening(run=job.run, round=job.round)
        for peer in self._peers:
            job.payload_bytes += self.endpoint.send(peer.name, message, [opening])
        job.expected = opening.size
        job.waiting = True
        job.sent_at = time.perf_counter()
        self.set_deadline(job)
        self._continue(job)

    def _finish(self, job: PartyJob, outputs: Sequence[FieldArray]) -> None:
        assert job.client is not None and job.party_run is not None  # noqa: S101 - online
        report = Outputs(
            run=job.run,
            rounds=job.round + 1,
            payload_bytes=job.payload_bytes + sum(o.nbytes for o in outputs),
            compute_seconds=dict(job.party_run.seconds),
            wait_seconds=job.wait_seconds,
        )
        self.endpoint.send(job.client.name, report, [np.ascontiguousarray(o) for o in outputs])
        self.end(job)

    def end(self, job: PartyJob) -> None:
        job.low_latency.close()
        super().end(job)

    def overdue(self, job: PartyJob) -> TesseraError:
        seconds = f"{self.cluster.settings.round_timeout:g} s"
        if job.waiting:
            there = job.openings.get(job.round, {})
            missing = next(p for p in self._peers if p.index not in there)
            return PeerLost(missing.name, f"sent no opening of round {job.round} within {seconds}")
        if job.client is None:
            return TesseraError(f"no client announced this run within {seconds}")
        return PeerLost(self.cluster.dealer.name, f"dealt nothing within {seconds}")

    # -- models ----------------------------------------------------------------------------------------------------

    def _on_upload(self, delivery: Delivery) -> None:
        message = delivery.message
        assert isinstance(message, Upload)  # noqa: S101 - for the type checker
        with self._upload_errors(message.store, delivery.sender):
            held = self._models.get(message.name)
            if held is not None and held.owner != delivery.sender:
                raise ProgramError(
                    f"the name {message.name!r} belongs to {held.owner.name}: choose another one"
                )
            if message.store in self._uploads or len(delivery.buffers) != 1:
                raise ProtocolViolation(
                    delivery.sender.name, "an upload that was begun before, or has no description"
                )
            self._uploads[message.store] = StoredModel(
                message.name,
                delivery.sender,
                message.store,
                bytes(delivery.buffers[0]),
                upload_shapes(message),
            )
            if (seed := self._early_seeds.pop(message.store, None)) is not None:
                self._on_store_seed(seed)

    def _on_store_seed(self, delivery: Delivery) -> None:
        message = delivery.message
        assert isinstance(message, StoreSeed)  # noqa: S101 - for the type checker
        model = self._uploads.get(message.store)
        if model is None:
            if len(self._early_seeds) < 64:
                self._early_seeds[message.store] = delivery
            return
        with self._upload_errors(message.store, model.owner):
            if len(delivery.buffers) != 1 or len(delivery.buffers[0]) != SEED_BYTES or model.seed is not None:
                raise ProtocolViolation(
                    delivery.sender.name, "sent a seed of the wrong length, or a second one"
                )
            model.seed = Seed(bytes(delivery.buffers[0]))
            self._keep(model)

    def _on_store_tensors(self, delivery: Delivery) -> None:
        message = delivery.message
        assert isinstance(message, StoreTensors)  # noqa: S101 - for the type checker
        with self._upload_errors(message.store, delivery.sender):
            model = self._uploads.get(message.store)
            if model is None or model.owner != delivery.sender or model.masked is not None:
                raise ProtocolViolation(
                    delivery.sender.name, "sent tensors for an upload that is not its own"
                )
            shapes = list(model.shapes.values())
            if [len(b) for b in delivery.buffers] != [8 * int(np.prod(s)) for s in shapes]:
                raise ProtocolViolation(delivery.sender.name, "sent tensors of the wrong length")
            masked = [as_array(b).reshape(s) for b, s in zip(delivery.buffers, shapes, strict=True)]
            if not all(field.is_reduced(array) for array in masked):
                raise ProtocolViolation(delivery.sender.name, "sent tensors with numbers outside the field")
            model.masked = masked
            self._keep(model)

    def _keep(self, model: StoredModel) -> None:
        """Once seed and tensors are both there: hold the model under its name, in place of a former one."""
        if model.seed is None or model.masked is None:
            return
        for (tensor, shape), public in zip(model.shapes.items(), model.masked, strict=True):
            share = stored_stream(model.seed, tensor).elements(shape)
            self._tensors[model.store, tensor] = Value(public, share)
        former = self._models.get(model.name)
        self._models[model.name] = model
        del self._uploads[model.store]
        model.masked = None
        if former is not None:
            for tensor in former.shapes:
                self._tensors.pop((former.store, tensor), None)
        log.info("holds model %s of %s", model.name, model.owner.name)
        self.endpoint.send(model.owner.name, StoreReady(store=model.store))

    @contextlib.contextmanager
    def _upload_errors(self, store: str, owner: Member):  # type: ignore[no-untyped-def]
        try:
            yield
        except TesseraError as error:
            log.warning("upload by %s failed: %s", owner.name, error)
            self._uploads.pop(store, None)
            self._tell([owner.name], store_failed(store, error))

    def _on_find_model(self, delivery: Delivery) -> None:
        message = delivery.message
        assert isinstance(message, FindModel)  # noqa: S101 - for the type checker
        model = self._models.get(message.name)
        names = tuple(sorted(self._models))[:1000]
        reply = FoundModel(
            query=message.query,
            store=model.store if model else "",
            owner=model.owner.name if model else "",
            names=names,
        )
        self._tell_with(delivery.sender, reply, model.description if model else b"")

    def _tell_with(self, member: Member, message: FoundModel, description: bytes) -> None:
        with contextlib.suppress(TesseraError):
            self.endpoint.send(member.name, message, [description])


__all__ = ["PartyServer", "Role"]
