"""``AsyncClient``: share secrets, store models, have the parties compute, and learn the result alone::

async with AsyncClient("cluster.toml", "clinic.key") as client:
    x = client.share(image, low=-1, high=1)
    model = await client.model("net")
    print(await client.reveal(model(x)))
    print(client.last_run)
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import time
import weakref
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TypeVar, overload

import numpy.typing as npt

from mpc import fixed_point
from mpc.cost import Wanted, objective_of, online_rounds
from mpc.errors import (
    ConfigurationError,
    LimitReached,
    MacCheckError,
    MaterialError,
    NotPermitted,
    PeerLost,
    PeerUnavailable,
    ProtocolViolation,
    UsageError,
    VersionMismatch,
)
from mpc.operation import Input
from mpc.rings import Array, Buffer, field_of
from parties.client import streaming
from parties.client.asking import Results, Written
from parties.client.auditing import AuditEntry, audit
from parties.client.deciding import Deciding
from parties.client.prepared import PreparedRun, Reals
from parties.client.remote_data import RemoteData
from parties.client.remote_model import RemoteModel, checked_name
from parties.client.report import RunReport, StockReport
from parties.client.sizes import check_messages, check_stock, check_values
from parties.client.switchboard import Switchboard
from parties.cluster import Cluster, Role
from parties.keys import KeyPair
from parties.messages.bindings import OWNER, BoundProgram
from parties.messages.failures import fault_of
from parties.messages.runs import ClientMasks, Failed, Inputs, Outputs, Prepare, Ready, Release
from parties.messages.stock import Stock, StockProgress
from parties.messages.uploads import VersionDropped, VersionReady
from parties.stored.data_set import kept_data
from parties.trial import TrialCluster
from parties.wire.messages import Message
from parties.wire.socket_wires import SocketWires
from parties.wire.wires import Transport
from protocols.randomness.dealt import TrustedDealer
from protocols.randomness.source import RandomnessSource
from protocols.trace.arguments import declared, lost_to_whole
from protocols.trace.mathematics import Node, Secret
from protocols.trace.secret_tensor import SecretTensor, leaf

log = logging.getLogger(__name__)

DEFAULT_BOUND = 64.0
"""Values shared without a declared range lie in [-64, 64]."""

# Times that a run may meet spent preprocessing before that is the caller's failure.
_RETRIES = 2


Result = TypeVar("Result")


class AsyncClient(Deciding):
    """A client of a cluster.  ``async with`` connects and closes it; one event loop, not thread-safe.

    Args:
        cluster: a cluster file's path, a ``Cluster``, or a running ``LocalCluster`` or ``MemoryCluster``.
        key: the path of this client's key file, or its ``KeyPair``; a running cluster has it.
        name: which of a running cluster's clients to be; the first by default.
        connect_timeout: seconds for all servers to answer.
        source: of the cluster's correlated randomness, by default its trusted dealer; its rings are what this client
            computes with.
        transport: what carries its messages; sockets, unless a running cluster says otherwise.
        objective: what programs are to have least of where protocols have variants: ``"latency"`` (rounds) or
            ``"traffic"`` (bytes), or the ``Link`` between servers, by which a round and bytes are weighed.

    Raises, on entering: PeerUnavailable, AuthenticationError, VersionMismatch, ConfigurationError.
    """

    def __init__(
        self,
        cluster: TrialCluster | Cluster | str | os.PathLike[str],
        key: KeyPair | str | os.PathLike[str] | None = None,
        *,
        name: str | None = None,
        connect_timeout: float = 10.0,
        source: RandomnessSource | None = None,
        transport: Transport = SocketWires,
        objective: Wanted = "latency",
    ) -> None:
        if isinstance(cluster, TrialCluster):
            key, transport = key or cluster.client_key(name), cluster.transport
            source = source or TrustedDealer(cluster.rings)
            cluster = cluster.cluster
        elif name is not None:
            raise UsageError("only a LocalCluster or MemoryCluster knows its clients' keys by name: give the key file")
        if key is None:
            raise UsageError("give the client's key file: Client(cluster, 'clinic.key')")
        cluster = cluster if isinstance(cluster, Cluster) else Cluster.load(cluster)
        keys = key if isinstance(key, KeyPair) else KeyPair.load(Path(key))
        member = cluster.by_key(keys.public)
        if member is None or member.role is not Role.CLIENT:
            raise ConfigurationError(
                f"the cluster file lists no client with the key {keys.public}: add it under [[client]], on every host"
            )
        board = Switchboard(cluster, member, keys, connect_timeout, transport)
        self._source = source or TrustedDealer()
        super().__init__(cluster, member, keys, board, field_of(self._source.rings))
        self._connect_timeout, self._transport = connect_timeout, transport
        self._objective = objective_of(objective, cluster.settings.security)
        self.last_run: RunReport | None = None
        """The bill of the last run that was revealed."""
        self._secrets: weakref.WeakKeyDictionary[Node, Array] = weakref.WeakKeyDictionary()

    async def audit(self, since: datetime | None = None) -> list[AuditEntry]:
        """What every server has put down of this client's runs, and of who has run what on its models and data.

        From ``since`` on, in the order of time.  One honest server is enough to see that a run took place.
        Raises PeerError, ProtocolViolation for what a server has not signed.
        """
        await self._board.reach(self._servers)
        start = 0 if since is None else int(since.timestamp() * 1000)
        return await audit(self._board, self.cluster, self.member, start, self._patience)

    async def __aenter__(self) -> AsyncClient:
        try:
            await self._board.start()
        except VersionMismatch:
            newest, keys = self._board.newest, self._keys
            member = newest.by_key(keys.public)
            if newest.number <= self.cluster.number or member is None:
                raise
            # Signed by all whom our file names, and with other servers or settings: begun anew.
            board = Switchboard(newest, member, keys, self._connect_timeout, self._transport)
            super().__init__(newest, member, keys, board, field_of(self._source.rings))
            await self._board.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close all connections; what is in progress fails.  Idempotent."""
        await self._board.close()

    def __repr__(self) -> str:
        return f"<AsyncClient {self.member.name} of cluster {self.cluster.name}>"

    # -- sharing ---------------------------------------------------------------------------------------------------

    def share(
        self,
        values: npt.ArrayLike,
        *,
        fraction_bits: int | None = None,
        low: float = -DEFAULT_BOUND,
        high: float = DEFAULT_BOUND,
        name: str = "value",
    ) -> SecretTensor:
        """This client's secret as an expression.  Nothing is sent until a result that depends on it is revealed.

        ``[low, high]`` is public, and the tighter it is the more precise and cheaper what is computed from it: unless
        ``fraction_bits`` says, there are 16 of them, and more where all values are below 1.
        Raises EncodingError, naming the place, for a value that is not finite or not in the range; RangeError,
        UnsupportedError for a range or bits that are none; UsageError for more than fits one message.
        """
        low, high, bits = declared(low, high, fraction_bits)
        check_values(self.cluster, values, name)
        raw = fixed_point.encode(values, bits, low, high, name=name, field=self._field)
        secret = leaf(Input(raw.shape, bits, low, high), lost=lost_to_whole(values, bits))
        self._secrets[secret.node] = raw
        return secret

    # -- running ------------------------------------------------------------------------------------------------------

    async def keep(self, results: Mapping[str, SecretTensor], name: str) -> RemoteData:
        """Have the parties compute ``results`` and keep them, as a data set of this client's called ``name``.

        Nobody learns anything of them, this client included; ``reveal`` of a tensor of it opens that.  Whatever was
        under the name stays in use unless all parties have all of it.  One round more than the results take.

        Raises as ``reveal`` and ``upload`` do.  When a server is lost at the very end, it may still come into use.
        """
        checked_name(name)
        if not isinstance(results, Mapping) or not results:
            raise UsageError("there is nothing to keep, by name: write client.keep({'mean': x}, name)")
        await self._board.reach(self._servers)
        await self._own_rules.spread(name)
        prepared = await self._prepare(self._written(results), single=False, keep=name)
        await self.finish(prepared)
        kept = RemoteData(name, self.member.name, prepared.run, kept_data(prepared.program))
        self._slots.note(kept)
        return kept

    @overload
    async def reveal(self, result: SecretTensor) -> Reals: ...
    @overload
    async def reveal(self, result: Mapping[str, SecretTensor]) -> dict[str, Reals]: ...
    @overload
    async def reveal(self, result: Sequence[SecretTensor]) -> list[Reals]: ...

    async def reveal(self, result: Results) -> Reals | list[Reals] | dict[str, Reals]:
        """Have the parties compute ``result`` and open it to this client alone: of several, in one run, as they came.

        Raises the failure of whoever is at fault (PeerError and its kinds), ProgramError, or UsageError.
        """
        if isinstance(result, Mapping):
            return dict(zip(result, await self.reveal(list(result.values())), strict=True))
        return await self.finish(await self.prepare(result))

    async def predict(
        self,
        model: RemoteModel,
        inputs: npt.ArrayLike,
        *,
        chunk: int | None = None,
        low: float | None = None,
        high: float | None = None,
    ) -> Reals:
        """``model`` of a batch (N, ...) of any size with values in [low, high], streamed in chunks.

        The range is by default what the model says of itself, or else [-1, 1].
        Memory does not grow with the batch, at nobody but this client, which has its inputs and results.  ``last_run``
        is then the sum of all chunks' bills.  See ``parties.client.streaming``.
        """
        values, self.last_run = await streaming.predict(self, model, inputs, chunk=chunk, low=low, high=high)
        return values

    async def prepare(self, result: SecretTensor | Sequence[SecretTensor]) -> PreparedRun:
        """The offline phase of a run, for ``finish``: dealing, and whatever does not depend on the inputs.

        What was dealt ahead of time (``stock``) is used first.  The parties keep what is for this run until it is
        finished, released, or this client has gone.
        """
        written = self._written(result)
        await self._board.reach(self._servers)
        return await self._prepare(written, single=isinstance(result, SecretTensor))

    async def _prepare(self, written: Written, *, single: bool, keep: str = "") -> PreparedRun:
        """Raises NotPermitted, or whatever stopped it."""
        inputs = self._inputs_of(written)

        async def prepare(bound: BoundProgram) -> PreparedRun:
            for _ in range(_RETRIES):
                # A ledger may have seen used what the dealer takes for fresh.  Nothing was sent; the dealer skips it.
                with contextlib.suppress(MaterialError):
                    return await self._prepare_once(bound, inputs, single=single)
            return await self._prepare_once(bound, inputs, single=single)

        return await self._permitted(written, prepare, keep)

    async def _permitted(
        self, written: Written, attempt: Callable[[BoundProgram], Awaitable[Result]], keep: str = ""
    ) -> Result:
        """``attempt`` with what is bound; again if that is refused, and there are other rules for it by now."""
        check_messages(self.cluster, written.program)
        bound = self._slots.bind(*written, keep)
        while True:
            try:
                return await attempt(bound)
            except (NotPermitted, LimitReached) as error:
                if isinstance(error, LimitReached):
                    self._slots.use_up(bound)
                else:
                    await self._ask_again(bound)
                again = self._slots.bind(*written, keep)
                if again == bound:
                    raise
                bound = again

    async def _ask_again(self, bound: BoundProgram) -> None:
        """What is allowed now on others' secrets that the program reads."""
        for binding in bound.bindings:
            if binding.rule != OWNER:
                with contextlib.suppress(NotPermitted, UsageError):
                    await self._find(binding.slot)

    async def _prepare_once(self, bound: BoundProgram, inputs: Sequence[Array], *, single: bool) -> PreparedRun:
        started = time.perf_counter()
        run, security = secrets.token_hex(16), self.cluster.settings.security
        self._source.check(bound.program, security)
        conversation = self._board.begin(run, self._servers)
        prepared = PreparedRun(
            bound,
            run,
            len(self._parties),
            inputs,
            conversation,
            security=security,
            single=single,
            client=self.member.name,
            rings=self._source.rings,
            sign=self._sign,
            terms=self.cluster.terms,
        )
        try:
            with self._board.watching(self._servers):
                data, dealer = bound.program.encode(), self.cluster.dealer.name
                message = Prepare(run=run, bindings=bound.bindings, keep=bound.keep)
                for server in self._servers:
                    prepared.account.sent_offline.add(server, self._board.send(server, message, [data]))
                got = await conversation.take_all({ClientMasks: [dealer], Ready: self._parties}, self._patience)
                prepared.take_masks(got[ClientMasks][dealer], self._source)
        except BaseException:
            self._abandon(prepared)
            raise
        if not bound.keep:
            # The dealer has done its part: from now on the run goes on without it.
            conversation.needs = frozenset(self._parties)
        prepared.account.offline_seconds = time.perf_counter() - started
        return prepared

    async def stock(
        self,
        result: Results,
        count: int,
        *,
        low_water: int = 0,
        progress: Callable[[StockReport], None] | None = None,
    ) -> StockReport:
        """Have ``count`` runs of ``result`` dealt ahead of time, into the ledgers of the parties.

        Runs of the same program on the same versions (any values of its inputs) then use them, one each, and need no
        dealing of their own; of a mapping, those runs are of ``keep``.
        With a ``low_water`` mark the dealer deals again, up to ``count``, when fewer are left.  ``progress`` is called
        after each.  Raises UsageError, or whatever stopped the dealing (PeerError, ProgramError, ...).
        """
        check_stock(count, low_water)
        written = self._written(result)
        await self._board.reach(self._servers)
        dealer = self.cluster.dealer.name

        async def deal(bound: BoundProgram) -> StockReport:
            request = secrets.token_hex(16)
            with self._board.conversation(request, [dealer]) as conversation:
                message = Stock(request=request, count=count, low_water=low_water, bindings=bound.bindings)
                self._board.send(dealer, message, [bound.program.encode()])
                while True:
                    got = (await conversation.take(StockProgress, [dealer], self._patience))[dealer].message
                    if not isinstance(got, StockProgress):
                        raise ProtocolViolation(dealer, "sent no progress")
                    report = StockReport(bound.digest, got.done, got.stock, got.sent_bytes, got.seconds)
                    if progress is not None:
                        progress(report)
                    if got.done >= count:
                        return report

        return await self._permitted(written, deal)

    async def finish(self, prepared: PreparedRun) -> Reals | list[Reals]:
        """The online phase: send the masked inputs, await the outputs; what ``reveal`` would return."""
        if prepared.used:
            raise UsageError("this run has been used: its masks are good for one run; prepare another")
        if not self._board.holds(prepared.run, prepared.conversation):
            raise UsageError("this run was prepared by another client object: finish it with that one")
        prepared.used = True
        rounds = online_rounds(prepared.program, prepared.security)
        expected: dict[type[Message], list[str]] = {Outputs: self._parties}
        if prepared.program.kept:
            expected[VersionReady] = self._parties
        try:
            with self._board.watching(prepared.conversation.needs):
                started = time.perf_counter()
                prepared.conversation.check()
                masked = prepared.masked_inputs()
                message = prepared.inputs_message(masked)
                for party in self._parties:
                    prepared.account.sent_online.add(party, self._send_online(party, message, masked))
                # The parties end together: once one has, the others have no more than a round to go.
                whole = self._patience * rounds
                arrived = await prepared.conversation.take_all(expected, self._patience, first=whole)
                shares = {party: arrived[Outputs][party] for party in self._parties}
                results = prepared.open_outputs(shares)
                seconds = time.perf_counter() - started
        except MacCheckError as error:
            # Whether we noticed or were told: servers that are still at it learn the reason.
            self._board.tell(Failed(run=prepared.run, fault=fault_of(error)))
            self._abandon(prepared)
            raise
        except BaseException:
            self._abandon(prepared)
            raise
        self._board.end(prepared.run)
        self.last_run = prepared.account.report(prepared.program, prepared.security, shares, seconds)
        return results[0] if prepared.single else results

    async def release(self, prepared: PreparedRun) -> None:
        """Give up a prepared run: the parties forget what was dealt for it.  Idempotent."""
        if not prepared.used:
            self._abandon(prepared)

    def _send_online(self, party: str, message: Inputs, masked: Sequence[Buffer]) -> int:
        try:
            return self._board.send(party, message, masked)
        except PeerUnavailable:
            raise PeerLost(party, "its connection closed after the run was prepared") from None

    def _inputs_of(self, written: Written) -> list[Array]:
        """The raw values of the program's inputs, in its order."""
        inputs = []
        for node in written.leaves:
            if isinstance(node.operation, Secret) and isinstance(node.operation.source, Input):
                raw = self._secrets.get(node)
                if raw is None:
                    raise UsageError("an input was shared by another client object: share it with this one")
                inputs.append(raw)
        return inputs

    def _abandon(self, prepared: PreparedRun) -> None:
        """Nothing of a failed, cancelled or released run is used again, here or at the servers."""
        prepared.used = True
        self._board.end(prepared.run)
        self._board.tell(Release(run=prepared.run))
        if prepared.program.kept:
            self._board.tell(VersionDropped(version=prepared.run))
