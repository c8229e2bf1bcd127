"""``AsyncClient``: share secrets, store models, have the parties compute, and learn the result alone.

    async with AsyncClient("cluster.toml", "clinic.key") as client:
        x = client.share(image, low=-1, high=1)
        model = await client.model("derm")
        print(await client.reveal(model(x)))
        print(client.last_run)
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import time
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, overload

import numpy as np
import numpy.typing as npt

from mpc import field, fixed_point
from mpc.cost import cost
from mpc.errors import (
    ConfigurationError,
    PeerLost,
    ProtocolViolation,
    TesseraError,
    UsageError,
)
from mpc.field import FieldArray
from mpc.operation import Input
from mpc.planner import FRACTION_BITS
from mpc.prg import SEED_BYTES, Seed, elements_sum
from mpc.program import Expression, Program
from mpc.secret_tensor import SecretTensor
from nn.model import Description
from parties.cluster import Cluster, Member, Role
from parties.events import Delivery, Event, LinkFault, PeerDown, PeerRestarted
from parties.failures import error_of, rebuild
from parties.keys import KeyPair
from parties.messages import Message, as_array
from parties.report import LayerReport, Phase, RunReport
from parties.run_messages import (
    ClientMasks,
    Failed,
    FindModel,
    FoundModel,
    Inputs,
    Outputs,
    Prepare,
    Ready,
    Release,
    RunMessage,
    StoreFailed,
    StoreReady,
    StoreSeed,
    StoreTensors,
    TensorInfo,
    Upload,
)
from parties.transport import Endpoint
from protocols.dealer import StoredMasks

log = logging.getLogger(__name__)

Reals = npt.NDArray[np.float64]

DEFAULT_BOUND = 64.0
"""Values shared without a declared range lie in [-64, 64]."""


class _Conversation:
    """Messages that belong to one run, upload or query, until it is over."""

    def __init__(self) -> None:
        self._arrived: asyncio.Queue[Delivery | TesseraError] = asyncio.Queue()

    def put(self, item: Delivery | TesseraError) -> None:
        self._arrived.put_nowait(item)

    async def take(self, kind: type[Message], senders: set[str], timeout: float) -> dict[str, Delivery]:
        """One message of ``kind`` from each of ``senders``; raises what came instead."""
        missing, got = set(senders), {}
        try:
            async with asyncio.timeout(timeout):
                while missing:
                    item = await self._arrived.get()
                    if isinstance(item, TesseraError):
                        raise item
                    name = item.sender.name
                    if not isinstance(item.message, kind) or name not in missing:
                        raise ProtocolViolation(name, f"sent {type(item.message).__name__} out of turn")
                    missing.discard(name)
                    got[name] = item
        except TimeoutError:
            raise PeerLost(sorted(missing)[0], f"sent no {kind.__name__} within {timeout:g} s") from None
        return got


class PreparedRun:
    """A run whose offline phase is done: ``await client.finish(run)`` gives it its inputs.  Good for one use."""

    def __init__(self, program: Program, run: str, conversation: _Conversation) -> None:
        self.program = program
        self.run = run
        self._conversation = conversation
        self.used = False
        self.inputs: list[FieldArray] = []
        self.input_masks: list[FieldArray] = []
        self.output_masks: list[FieldArray] = []
        self.offline_bytes = 0
        self.offline_seconds = 0.0
        self.dealing_seconds = 0.0
        self.single = False

    def __repr__(self) -> str:
        return f"<PreparedRun of {self.program!r}{', used' if self.used else ''}>"


class RemoteModel:
    """A model stored on the parties; call it with a secret tensor to get a lazy expression."""

    def __init__(self, name: str, owner: str, store: str, description: Description) -> None:
        self.name = name
        self.owner = owner
        self.store = store
        self.description = description
        """Architecture and types of the stored tensors; everything public about the model."""
        self._stored = description.stored(store)

    def __call__(self, x: SecretTensor) -> SecretTensor:
        return self.description.forward(x, self._stored)

    def __repr__(self) -> str:
        return f"<RemoteModel {self.name!r} of {self.owner}>\n{self.description.architecture}"


class Uploadable(Protocol):
    """What ``upload`` takes: ``nn.Model``, or anything with these."""

    def encode(self) -> Mapping[str, FieldArray]: ...

    def describe(self) -> bytes: ...


class AsyncClient:
    """A client of a cluster.  ``async with`` connects and closes it; one event loop, not thread-safe.

    Args:
        cluster: a cluster file's path, or a ``Cluster``.
        key: the path of this client's key file, or its ``KeyPair``.
        connect_timeout: seconds for all servers to answer.

    Raises, on entering: PeerUnavailable, AuthenticationError, VersionMismatch, ConfigurationError.
    """

    def __init__(
        self,
        cluster: Cluster | str | os.PathLike[str],
        key: KeyPair | str | os.PathLike[str],
        *,
        connect_timeout: float = 10.0,
    ) -> None:
        self.cluster = cluster if isinstance(cluster, Cluster) else Cluster.load(cluster)
        keys = key if isinstance(key, KeyPair) else KeyPair.load(Path(key))
        member = self.cluster.by_key(keys.public)
        if member is None or member.role is not Role.CLIENT:
            raise ConfigurationError(
                f"the cluster file lists no client with the key {keys.public}: add it under [[client]], on every host"
            )
        self.member: Member = member
        self.security = "semi-honest"
        self.last_run: RunReport | None = None
        """The bill of the last run that was revealed."""
        self._endpoint = Endpoint(self.cluster, member, keys, bind=False)
        self._connect_timeout = connect_timeout
        self._secrets: weakref.WeakKeyDictionary[Expression, FieldArray] = weakref.WeakKeyDictionary()
        self._conversations: dict[str, _Conversation] = {}
        self._reader: asyncio.Task[None] | None = None

    async def __aenter__(self) -> AsyncClient:
        await self._endpoint.start()
        self._reader = asyncio.get_running_loop().create_task(self._read(), name="tessera client")
        try:
            await self._endpoint.connect(deadline=self._connect_timeout)
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close all connections; what is in progress fails.  Idempotent."""
        if self._reader is not None:
            self._reader.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._reader
            self._reader = None
        await self._endpoint.close()

    def __repr__(self) -> str:
        return f"<AsyncClient {self.member.name} of cluster {self.cluster.name}>"

    # -- sharing ---------------------------------------------------------------------------------------------------

    def share(
        self,
        values: object,
        *,
        fraction_bits: int = FRACTION_BITS,
        low: float = -DEFAULT_BOUND,
        high: float = DEFAULT_BOUND,
        name: str = "value",
    ) -> SecretTensor:
        """This client's secret as an expression.  Nothing is sent until a result that depends on it is revealed.

        ``[low, high]`` is public, and the tighter it is the more precise and cheaper what is computed from it.
        Raises EncodingError, naming the place, for a value that is not finite or not in the range.
        """
        raw = fixed_point.encode(values, fraction_bits, low, high, name=name)
        expression = Expression(Input(raw.shape, fraction_bits, float(low), float(high)))
        self._secrets[expression] = raw
        return SecretTensor(expression)

    # -- models ----------------------------------------------------------------------------------------------------

    async def upload(self, model: Uploadable, name: str) -> RemoteModel:
        """Share a model's weights; they stay on the parties under ``name`` until this client uploads another.

        Every tensor w goes out as w - b, uniform, with b from seeds the dealer makes.  Public are the architecture,
        shapes, fraction bits, and the power of two that bounds each tensor.
        """
        tensors, description = model.encode(), model.describe()
        store = secrets.token_hex(16)
        infos = tuple(TensorInfo(tensor, array.shape) for tensor, array in tensors.items())
        message = Upload(store=store, name=_checked_name(name), tensors=infos)
        servers = {member.name for member in self.cluster.servers}
        with self._conversation(store) as conversation:
            for server in servers:
                self._endpoint.send(server, message, [description])
            timeout = self.cluster.settings.round_timeout
            dealer = self.cluster.dealer.name
            seeds = (await conversation.take(StoreSeed, {dealer}, timeout))[dealer]
            masks = StoredMasks(self._seeds(seeds, 0), {tensor: array.shape for tensor, array in tensors.items()})
            masked = [np.ascontiguousarray(field.subtract(a, masks.mask(t))) for t, a in tensors.items()]
            for party in self.cluster.parties:
                self._endpoint.send(party.name, StoreTensors(store=store), masked)
            await conversation.take(StoreReady, self._party_names, timeout)
        return RemoteModel(name, self.member.name, store, Description.decode(description))

    async def model(self, name: str) -> RemoteModel:
        """A model that somebody has uploaded.  Raises UsageError naming what there is when there is none."""
        query = secrets.token_hex(16)
        with self._conversation(query) as conversation:
            for party in self.cluster.parties:
                self._endpoint.send(party.name, FindModel(query=query, name=_checked_name(name)))
            found = await conversation.take(FoundModel, self._party_names, self.cluster.settings.round_timeout)
        answers = []
        for party in self.cluster.parties:
            delivery = found[party.name]
            message = delivery.message
            assert isinstance(message, FoundModel)  # noqa: S101 - for the type checker
            if not message.store:
                known = f"it has {', '.join(message.names)}" if message.names else "it has none yet"
                raise UsageError(f"{party.name} has no model called {name!r}: {known}; upload it first")
            answers.append((message.store, message.owner, bytes(delivery.buffers[0])))
        if any(answer != answers[0] for answer in answers):
            raise UsageError(f"the parties hold different versions of {name!r}: its owner must upload it again")
        store, owner, description = answers[0]
        return RemoteModel(name, owner, store, Description.decode(description))

    # -- running ---------------------------------------------------------------------------------------------------

    @overload
    async def reveal(self, result: SecretTensor) -> Reals: ...
    @overload
    async def reveal(self, result: Sequence[SecretTensor]) -> list[Reals]: ...

    async def reveal(self, result: SecretTensor | Sequence[SecretTensor]) -> Reals | list[Reals]:
        """Have the parties compute ``result`` and open it to this client alone.

        Raises the failure of whoever is at fault (PeerError and its kinds), ProgramError, or UsageError.
        """
        return await self.finish(await self.prepare(result))

    async def prepare(self, result: SecretTensor | Sequence[SecretTensor]) -> PreparedRun:
        """The offline phase of a run, for ``finish``: dealing, and whatever does not depend on the inputs."""
        outputs = [result] if isinstance(result, SecretTensor) else list(result)
        expressions = [output.expression for output in outputs]
        program = Program.of(expressions)
        inputs = self._inputs_of(expressions)
        started = time.perf_counter()
        run = secrets.token_hex(16)
        prepared = PreparedRun(program, run, self._open(run))
        prepared.inputs = inputs
        prepared.single = isinstance(result, SecretTensor)
        try:
            with self._watching():
                await self._offline(prepared)
        except BaseException as error:
            self._abandon(prepared, error)
            raise
        prepared.offline_seconds = time.perf_counter() - started
        return prepared

    async def _offline(self, prepared: PreparedRun) -> None:
        data = prepared.program.encode()
        for server in self.cluster.servers:
            self._endpoint.send(server.name, Prepare(run=prepared.run), [data])
        conversation, timeout = prepared._conversation, self.cluster.settings.round_timeout
        dealer = self.cluster.dealer.name
        # Messages of different servers come in any order: sort them by kind.
        masks: Delivery | None = None
        ready: set[str] = set()
        while masks is None or ready != self._party_names:
            delivery = await self._next(conversation, timeout, {dealer} if masks is None else self._party_names - ready)
            if isinstance(delivery.message, ClientMasks) and masks is None:
                masks = delivery
            elif isinstance(delivery.message, Ready) and delivery.sender.name not in ready:
                ready.add(delivery.sender.name)
            else:
                raise ProtocolViolation(delivery.sender.name, f"sent {type(delivery.message).__name__} out of turn")
        self._take_masks(prepared, masks)

    @staticmethod
    async def _next(conversation: _Conversation, timeout: float, missing: set[str]) -> Delivery:
        try:
            item = await asyncio.wait_for(conversation._arrived.get(), timeout)
        except TimeoutError:
            raise PeerLost(sorted(missing)[0], f"has not prepared the run within {timeout:g} s") from None
        if isinstance(item, TesseraError):
            raise item
        return item

    def _take_masks(self, prepared: PreparedRun, delivery: Delivery) -> None:
        message, program = delivery.message, prepared.program
        assert isinstance(message, ClientMasks)  # noqa: S101 - for the type checker
        if message.program != program.digest:
            raise ProtocolViolation(delivery.sender.name, "dealt for another program")
        if len(delivery.buffers) != len(program.inputs) + len(program.outputs):
            raise ProtocolViolation(delivery.sender.name, "sent the wrong number of masks")
        for k, i in enumerate(program.inputs):
            prepared.input_masks.append(elements_sum(self._seeds(delivery, k), program.nodes[i].type.shape))
        for k, i in enumerate(program.outputs, start=len(program.inputs)):
            prepared.output_masks.append(_field_array(delivery, k, program.nodes[i].type.shape))
        prepared.dealing_seconds = message.seconds
        prepared.offline_bytes = message.dealt_bytes + sum(len(b) for b in delivery.buffers)

    async def finish(self, prepared: PreparedRun) -> Any:
        """The online phase: send the masked inputs, await the outputs."""
        if prepared.used:
            raise UsageError("this run has been used: its masks are good for one run; prepare another")
        prepared.used = True
        program = prepared.program
        try:
            with self._watching(parties_only=True):
                started = time.perf_counter()
                masked = [
                    np.ascontiguousarray(field.subtract(x, a))
                    for x, a in zip(prepared.inputs, prepared.input_masks, strict=True)
                ]
                message = Inputs(run=prepared.run)
                for party in self.cluster.parties:
                    self._endpoint.send(party.name, message, masked)
                shares = await prepared._conversation.take(
                    Outputs, self._party_names, self.cluster.settings.round_timeout * (program.rounds + 1)
                )
                results = self._open_outputs(prepared, shares)
                seconds = time.perf_counter() - started
        except BaseException as error:
            self._abandon(prepared, error)
            raise
        self._conversations.pop(prepared.run, None)
        self.last_run = self._report(prepared, shares, seconds)
        return results[0] if prepared.single else results

    def _open_outputs(self, prepared: PreparedRun, shares: Mapping[str, Delivery]) -> list[Reals]:
        results = []
        for k, (i, mask) in enumerate(zip(prepared.program.outputs, prepared.output_masks, strict=True)):
            t = prepared.program.nodes[i].type
            total = field.negate(mask)
            for name, delivery in shares.items():
                if len(delivery.buffers) != len(prepared.program.outputs):
                    raise ProtocolViolation(name, "sent the wrong number of outputs")
                total = field.add(total, _field_array(delivery, k, t.shape))
            results.append(fixed_point.decode(total, t.fraction_bits))
        return results

    def _report(self, prepared: PreparedRun, shares: Mapping[str, Delivery], seconds: float) -> RunReport:
        outputs = [d.message for d in shares.values() if isinstance(d.message, Outputs)]
        predicted = cost(prepared.program, len(self.cluster.parties))
        layers = {
            name: LayerReport(
                layer.rounds,
                layer.opened,
                layer.dealt,
                max(o.compute_seconds.get(name, 0.0) for o in outputs),
            )
            for name, layer in predicted.layers.items()
        }
        return RunReport(
            parties=len(self.cluster.parties),
            security=self.security,
            online=Phase(max(o.rounds for o in outputs), max(o.payload_bytes for o in outputs), seconds),
            offline=Phase(0, prepared.offline_bytes, prepared.offline_seconds),
            dealing_seconds=prepared.dealing_seconds,
            wait_seconds=max(o.wait_seconds for o in outputs),
            layers=layers,
            predicted=predicted,
        )

    def _inputs_of(self, outputs: Sequence[Expression]) -> list[FieldArray]:
        """The raw values of the program's inputs, in its order."""
        inputs = []
        for x in Program.order(outputs):
            if isinstance(x.operation, Input):
                raw = self._secrets.get(x)
                if raw is None:
                    raise UsageError("an input was shared by another client object: share it with this one")
                inputs.append(raw)
        return inputs

    # -- events ----------------------------------------------------------------------------------------------------

    async def _read(self) -> None:
        try:
            while True:
                self._handle(await self._endpoint.receive())
        except TesseraError as error:
            self._fail_all(error)

    def _handle(self, event: Event) -> None:
        if isinstance(event, LinkFault):
            self._fail_all(event.error)
        elif isinstance(event, PeerRestarted):
            self._fail_all(PeerLost(event.sender.name, "restarted in the middle of a run"))
        elif isinstance(event, PeerDown):
            self._fail_all(event.error)
        else:
            self._deliver(event)

    def _deliver(self, delivery: Delivery) -> None:
        message, sender = delivery.message, delivery.sender.name
        if isinstance(message, RunMessage):
            key = message.run
        elif isinstance(message, StoreSeed | StoreReady | StoreFailed):
            key = message.store
        elif isinstance(message, FoundModel):
            key = message.query
        else:
            log.warning("%s sent %s, which is not for a client", sender, type(message).__name__)
            return
        conversation = self._conversations.get(key)
        if conversation is None:
            return  # late: given up or over
        if isinstance(message, Failed):
            conversation.put(error_of(message, sender))
        elif isinstance(message, StoreFailed):
            conversation.put(rebuild(message.error, "", message.reason, sender))
        else:
            conversation.put(delivery)

    def _fail_all(self, error: TesseraError) -> None:
        for conversation in self._conversations.values():
            conversation.put(error)

    def _open(self, key: str) -> _Conversation:
        conversation = self._conversations[key] = _Conversation()
        return conversation

    @contextlib.contextmanager
    def _conversation(self, key: str):  # type: ignore[no-untyped-def]
        conversation = self._open(key)
        try:
            with self._watching():
                yield conversation
        finally:
            self._conversations.pop(key, None)

    @contextlib.contextmanager
    def _watching(self, parties_only: bool = False):  # type: ignore[no-untyped-def]
        members = self.cluster.parties if parties_only else self.cluster.servers
        watch = self._endpoint.watch([member.name for member in members])
        try:
            yield
        finally:
            watch.stop()

    def _abandon(self, prepared: PreparedRun, error: BaseException) -> None:
        """Nothing of a failed or cancelled run is used again, here or at the servers."""
        prepared.used = True
        self._conversations.pop(prepared.run, None)
        for server in self.cluster.servers:
            with contextlib.suppress(TesseraError):
                self._endpoint.send(server.name, Release(run=prepared.run))

    @property
    def _party_names(self) -> set[str]:
        return {party.name for party in self.cluster.parties}

    def _seeds(self, delivery: Delivery, frame: int) -> tuple[Seed, ...]:
        n = len(self.cluster.parties)
        data = bytes(delivery.buffers[frame]) if frame < len(delivery.buffers) else b""
        if len(data) != n * SEED_BYTES:
            raise ProtocolViolation(delivery.sender.name, "sent seeds of the wrong length")
        return tuple(Seed(data[i * SEED_BYTES : (i + 1) * SEED_BYTES]) for i in range(n))


def _field_array(delivery: Delivery, frame: int, shape: tuple[int, ...]) -> FieldArray:
    """A payload frame as field elements, checked."""
    buffer = delivery.buffers[frame]
    if len(buffer) != 8 * int(np.prod(shape)):
        raise ProtocolViolation(delivery.sender.name, "sent an array of the wrong length")
    array = as_array(buffer)
    if not field.is_reduced(array):
        raise ProtocolViolation(delivery.sender.name, "sent numbers outside the field")
    return array.reshape(shape)


def _checked_name(name: str) -> str:
    if not name or len(name) > 64 or not all(c.isalnum() or c in "_.-" for c in name) or not name[0].isalnum():
        raise UsageError(f"{name!r} is not a name for a model: use up to 64 letters, digits, '-', '_' and '.'")
    return name


__all__ = ["AsyncClient", "PreparedRun", "RemoteModel"]
