"""``AsyncClient``: share secrets, store models, have the parties compute, and learn the result alone::

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
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import overload

import numpy as np
import numpy.typing as npt

from mpc import field, fixed_point
from mpc.cost import online_rounds
from mpc.errors import (
    ConfigurationError,
    MacCheckError,
    PeerLost,
    PeerUnavailable,
    ProtocolViolation,
    TesseraError,
    UsageError,
)
from mpc.field import FieldArray
from mpc.operation import Input
from mpc.planner import FRACTION_BITS
from mpc.program import Expression, Program
from mpc.secret_tensor import SecretTensor
from nn.model import Description
from parties.cluster import Cluster, Member, Role
from parties.conversation import Conversation
from parties.events import Delivery, Event, PeerDown, PeerRestarted
from parties.failures import error_of, failed
from parties.keys import KeyPair
from parties.messages import Message
from parties.prepared import PreparedRun, Reals, read_seeds
from parties.remote_model import RemoteModel, Uploadable, checked_name
from parties.report import RunReport
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
    StoreDropped,
    StoreFailed,
    StoreMessage,
    StoreReady,
    StoreSeed,
    StoreTensors,
    TensorInfo,
    Upload,
)
from parties.transport import Endpoint
from protocols.dealer import StoredMasks, digest

log = logging.getLogger(__name__)

DEFAULT_BOUND = 64.0
"""Values shared without a declared range lie in [-64, 64]."""

# s for which the parties may hold different versions of a model that is being replaced.
_REPLACING = 2.0


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
        self.last_run: RunReport | None = None
        """The bill of the last run that was revealed."""
        self._endpoint = Endpoint(self.cluster, member, keys, bind=False)
        self._connect_timeout = connect_timeout
        # Longer than the servers': they know better than we whom they wait for, and tell us.
        self._patience = self.cluster.settings.round_timeout + self.cluster.settings.peer_timeout
        self._servers = [server.name for server in self.cluster.servers]
        self._parties = [party.name for party in self.cluster.parties]
        self._secrets: weakref.WeakKeyDictionary[Expression, FieldArray] = weakref.WeakKeyDictionary()
        self._conversations: dict[str, Conversation] = {}
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
        self._fail(UsageError("the client was closed before this was over"))
        await self._endpoint.close()

    def __repr__(self) -> str:
        return f"<AsyncClient {self.member.name} of cluster {self.cluster.name}>"

    # -- sharing ---------------------------------------------------------------------------------------------------

    def share(
        self,
        values: npt.ArrayLike,
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
        shapes, fraction bits, and the power of two that bounds each tensor.  Until all parties have the new model a
        former one of that name stays in use.

        Raises ProgramError when the name is another client's, UsageError, PeerError.
        """
        tensors, description = model.encode(), model.describe()
        store, dealer = secrets.token_hex(16), self.cluster.dealer.name
        infos = tuple(TensorInfo(tensor, array.shape) for tensor, array in tensors.items())
        message = Upload(store=store, name=checked_name(name), tensors=infos)
        await self._reach(self._servers)
        try:
            with self._conversation(store, self._servers) as conversation:
                for server in self._servers:
                    self._endpoint.send(server, message, [description])
                reply = (await conversation.take(StoreSeed, [dealer], self._patience))[dealer]
                if len(reply.buffers) != 1:
                    raise ProtocolViolation(dealer, "sent the wrong number of seeds")
                seeds = read_seeds(dealer, reply.buffers[0], len(self._parties))
                masks = StoredMasks(seeds, {tensor: array.shape for tensor, array in tensors.items()})
                masked = [np.ascontiguousarray(field.subtract(a, masks.mask(t))) for t, a in tensors.items()]
                for party in self._parties:
                    self._endpoint.send(party, StoreTensors(store=store, masks=digest(reply.buffers)), masked)
                await conversation.take(StoreReady, self._parties, self._patience)
        except BaseException:
            self._tell(StoreDropped(store=store))
            raise
        return RemoteModel(name, self.member.name, store, Description.decode(description))

    async def model(self, name: str) -> RemoteModel:
        """A model that somebody has uploaded.  Raises UsageError naming what there is when there is none."""
        checked_name(name)
        await self._reach(self._parties)
        give_up = time.monotonic() + _REPLACING
        while True:
            found = await self._find(name)
            if all(answer == found[0] for answer in found):
                break
            if time.monotonic() > give_up:
                raise UsageError(f"the parties hold different versions of {name!r}: its owner must upload it again")
            await asyncio.sleep(_REPLACING / 20)
        store, owner, description = found[0]
        return RemoteModel(name, owner, store, Description.decode(description))

    async def _find(self, name: str) -> list[tuple[str, str, bytes]]:
        """Store, owner and description of the model at each party."""
        query = secrets.token_hex(16)
        with self._conversation(query, self._parties) as conversation:
            for party in self._parties:
                self._endpoint.send(party, FindModel(query=query, name=name))
            found = await conversation.take(FoundModel, self._parties, self._patience)
        answers = []
        for party in self._parties:
            message, buffers = found[party].message, found[party].buffers
            if not isinstance(message, FoundModel) or len(buffers) != 1:
                raise ProtocolViolation(party, "sent a model without its description")
            if not message.store:
                known = f"it has {', '.join(message.names)}" if message.names else "it has none yet"
                raise UsageError(f"{party} has no model called {name!r}: {known}; upload it first")
            answers.append((message.store, message.owner, bytes(buffers[0])))
        return answers

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
        """The offline phase of a run, for ``finish``: dealing, and whatever does not depend on the inputs.

        The parties keep what was dealt until the run is finished, released, or this client has gone.
        """
        outputs = [result] if isinstance(result, SecretTensor) else list(result)
        if not outputs:
            raise UsageError("there is nothing to compute: give at least one tensor")
        expressions = [output.expression for output in outputs]
        program, inputs = Program.of(expressions), self._inputs_of(expressions)
        await self._reach(self._servers)
        started = time.perf_counter()
        run = secrets.token_hex(16)
        conversation = self._conversations[run] = Conversation(self._servers)
        prepared = PreparedRun(
            program,
            run,
            len(self._parties),
            inputs,
            conversation,
            security=self.cluster.settings.security,
            single=isinstance(result, SecretTensor),
        )
        try:
            with self._watching(self._servers):
                data, dealer = program.encode(), self.cluster.dealer.name
                for server in self._servers:
                    self._endpoint.send(server, Prepare(run=run), [data])
                got = await conversation.take_all({ClientMasks: [dealer], Ready: self._parties}, self._patience)
                prepared.take_masks(got[ClientMasks][dealer])
        except BaseException:
            self._abandon(prepared)
            raise
        # The dealer has done its part: from now on the run goes on without it.
        conversation.needs = frozenset(self._parties)
        prepared.offline_seconds = time.perf_counter() - started
        return prepared

    async def finish(self, prepared: PreparedRun) -> Reals | list[Reals]:
        """The online phase: send the masked inputs, await the outputs; what ``reveal`` would return."""
        if prepared.used:
            raise UsageError("this run has been used: its masks are good for one run; prepare another")
        if self._conversations.get(prepared.run) is not prepared.conversation:
            raise UsageError("this run was prepared by another client object: finish it with that one")
        prepared.used = True
        rounds = online_rounds(prepared.program, prepared.security)
        try:
            with self._watching(self._parties):
                started = time.perf_counter()
                prepared.conversation.check()
                masked, message = prepared.masked_inputs(), Inputs(run=prepared.run, masks=prepared.masks_digest)
                for party in self._parties:
                    self._send_online(party, message, masked)
                shares = await prepared.conversation.take(Outputs, self._parties, self._patience * rounds)
                results = prepared.open_outputs(shares)
                seconds = time.perf_counter() - started
        except MacCheckError as error:
            # Whether we noticed or were told: the parties must not go on with what was dealt beside this run.
            self._tell(failed(prepared.run, error))
            self._abandon(prepared)
            raise
        except BaseException:
            self._abandon(prepared)
            raise
        del self._conversations[prepared.run]
        self.last_run = prepared.report(shares, seconds)
        return results[0] if prepared.single else results

    async def release(self, prepared: PreparedRun) -> None:
        """Give up a prepared run: the parties forget what was dealt for it.  Idempotent."""
        if not prepared.used:
            self._abandon(prepared)

    def _send_online(self, party: str, message: Inputs, masked: Sequence[FieldArray]) -> None:
        try:
            self._endpoint.send(party, message, masked)
        except PeerUnavailable:
            raise PeerLost(party, "its connection closed after the run was prepared") from None

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

    def _abandon(self, prepared: PreparedRun) -> None:
        """Nothing of a failed, cancelled or released run is used again, here or at the servers."""
        prepared.used = True
        self._conversations.pop(prepared.run, None)
        self._tell(Release(run=prepared.run))

    def _tell(self, message: Message) -> None:
        """Send to every server that can be reached."""
        for server in self._servers:
            with contextlib.suppress(TesseraError):
                self._endpoint.send(server, message)

    # -- events ----------------------------------------------------------------------------------------------------

    async def _read(self) -> None:
        try:
            while True:
                self._handle(await self._endpoint.receive())
        except TesseraError as error:
            self._fail(error)
        except Exception:  # a bug of ours must not leave callers waiting
            log.exception("an event could not be handled")
            self._fail(TesseraError("internal error; see this process's log"))

    def _handle(self, event: Event) -> None:
        if isinstance(event, Delivery):
            self._deliver(event)
        elif isinstance(event, PeerRestarted):
            self._fail(PeerLost(event.sender.name, "restarted in the middle of a run"), event.sender)
        elif isinstance(event, PeerDown):
            self._fail(event.error, event.peer)
        else:
            self._fail(event.error, event.sender)

    def _deliver(self, delivery: Delivery) -> None:
        message, sender = delivery.message, delivery.sender.name
        if isinstance(message, RunMessage):
            key = message.run
        elif isinstance(message, StoreMessage):
            key = message.store
        elif isinstance(message, FoundModel):
            key = message.query
        else:
            log.warning("%s sent %s, which is not for a client", sender, type(message).__name__)
            return
        conversation = self._conversations.get(key)
        if conversation is None:
            return  # late: given up or over
        if isinstance(message, Failed | StoreFailed):
            conversation.fail(error_of(message, sender))
        else:
            conversation.put(delivery)

    def _fail(self, error: TesseraError, server: Member | None = None) -> None:
        """End the conversations that need ``server``, by default all."""
        for conversation in self._conversations.values():
            if server is None or server.name in conversation.needs:
                conversation.fail(error)

    async def _reach(self, servers: Collection[str]) -> None:
        """Waits for servers that have lost their connection, having been restarted perhaps.  Raises PeerError."""
        if self._reader is None:
            raise UsageError("the client is not connected: use it in an `async with` statement")
        if not all(map(self._endpoint.connected, servers)):
            await self._endpoint.connect(servers, min(self._connect_timeout, self.cluster.settings.peer_timeout))

    @contextlib.contextmanager
    def _conversation(self, key: str, needs: Collection[str]) -> Iterator[Conversation]:
        conversation = self._conversations[key] = Conversation(needs)
        try:
            with self._watching(needs):
                yield conversation
        finally:
            del self._conversations[key]

    @contextlib.contextmanager
    def _watching(self, servers: Collection[str]) -> Iterator[None]:
        watch = self._endpoint.watch(servers)
        try:
            yield
        finally:
            watch.stop()
