"""``AsyncClient``: share secrets, store models, have the parties compute, and learn the result alone::

async with AsyncClient("cluster.toml", "clinic.key") as client:
    x = client.share(image, low=-1, high=1)
    model = await client.model("net")
    print(await client.reveal(model(x)))
    print(client.last_run)
"""

from __future__ import annotations

import os
import warnings
import weakref
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Unpack, overload

import numpy.typing as npt

from mpc.cost import Wanted, objective_of
from mpc.errors import ConfigurationError, NoAnswer, UsageError, VersionMismatch
from mpc.rings import field_of
from nn.losses import Loss
from nn.optimizers import Optimizer
from parties.client import streaming
from parties.client.auditing import AuditEntry, audit
from parties.client.jobs import Jobs
from parties.client.prepared import Reals
from parties.client.progress import Progress
from parties.client.remote_data import RemoteData, remote
from parties.client.remote_model import RemoteModel, checked_name
from parties.client.report import FAR_OFF, LEFT, NO_ANSWER
from parties.client.switchboard import Switchboard
from parties.client.training import Training, beginning, begun
from parties.client.training_arguments import Options, Rows, Trainable
from parties.client.writing import Kept, Results
from parties.members.cluster import Cluster, Role
from parties.members.keys import KeyPair
from parties.members.succession import Succession
from parties.messages.bindings import slot_of
from parties.stored.data_set import described
from parties.trial import TrialCluster
from parties.wire.socket_wires import SocketWires
from parties.wire.wires import Transport
from protocols import RangeWarning
from protocols.randomness.dealt import TrustedDealer
from protocols.randomness.source import RandomnessSource
from protocols.trace.secret_tensor import SecretTensor

_MOST_NAMED = 8
"""Samples, in one sentence."""


class AsyncClient(Jobs):
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
        board = Switchboard(Succession.begin(cluster), member, keys, connect_timeout, transport)
        self._source = source or TrustedDealer()
        super().__init__(cluster, member, keys, board, field_of(self._source.rings))
        self._connect_timeout, self._transport = connect_timeout, transport
        self._objective = objective_of(objective, cluster.settings.security)
        self.last_run, self._secrets = None, weakref.WeakKeyDictionary()

    async def audit(self, since: datetime | None = None) -> list[AuditEntry]:
        """What every server has put down of this client's runs, and of who has run what on its models and data.

        From ``since`` on, in the order of time.  One honest server is enough to see that a run took place.
        Raises PeerError, ProtocolViolation for what a server has not signed.
        """
        await self._board.reach(self._servers)
        start = 0 if since is None else int(since.timestamp() * 1000)
        return await audit(self._board, self.cluster, self.member, start, self._patience)

    async def __aenter__(self) -> AsyncClient:
        while True:
            try:
                await self._board.start()
                return self
            except VersionMismatch:
                newest, keys = self._board.newest, self._keys
                cluster = newest.cluster
                member = cluster.by_key(keys.public)
                if cluster.number <= self.cluster.number or member is None:
                    raise
                # Signed by all whom our file names, and with other servers or settings: begun anew.  What came before
                # is known still, as a server may not have got there yet.
                board = Switchboard(newest, member, keys, self._connect_timeout, self._transport)
                super().__init__(cluster, member, keys, board, field_of(self._source.rings))

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close all connections; what is in progress fails.  Idempotent."""
        await self._board.close()

    def __repr__(self) -> str:
        return f"<AsyncClient {self.member.name} of cluster {self.cluster.name}>"

    @overload
    async def keep(  # type: ignore[overload-overlap]  # a Kept is a mapping, and the more special
        self, results: Kept, name: str
    ) -> RemoteData | RemoteModel: ...
    @overload
    async def keep(self, results: Mapping[str, SecretTensor], name: str) -> RemoteData: ...

    async def keep(self, results: Mapping[str, SecretTensor], name: str) -> RemoteData | RemoteModel:
        """Have the parties compute ``results`` and keep them, as a data set of this client's called ``name``; or as
        ``Kept`` says, jointly with all whose secrets they come of, or as a model.

        Nobody learns anything of them, this client included; ``reveal`` of a tensor of it opens that.  Whatever was
        under the name stays in use unless all parties have all of it.  One round more than the results take.
        Raises NoAnswer where a value leaves the interval of a function, or the range that is assumed of it: the parties
        know that then, and nothing is kept.

        Raises as ``reveal`` and ``upload`` do.  When a server is lost at the very end, it may still come into use.
        """
        kept, _ = await self.keep_telling(results, name)
        return kept

    async def keep_telling(
        self, results: Mapping[str, SecretTensor], name: str
    ) -> tuple[RemoteData | RemoteModel, list[Reals]]:
        """As ``keep``, and what is ``revealed`` beside (``Kept``)."""
        checked_name(name)
        if not isinstance(results, Mapping) or not results:
            raise UsageError("there is nothing to keep, by name: write client.keep({'mean': x}, name)")
        await self._board.reach(self._servers)
        await self._own_rules.spread(name)
        prepared = await self._prepare(await self._write(results), single=False, keep=name, soon=True)
        revealed = await self.finish(prepared)
        parts = self._slots.parts_after(prepared.program)
        joint = self._slots.joint_after(prepared.program)
        kept = remote(name, self.member.name, prepared.run, described(prepared.program), parts, joint=joint)
        self._slots.note(kept)
        return kept, list(revealed)

    @overload
    async def reveal(self, result: SecretTensor) -> Reals: ...
    @overload
    async def reveal(self, result: Mapping[str, SecretTensor]) -> dict[str, Reals]: ...
    @overload
    async def reveal(self, result: Sequence[SecretTensor]) -> list[Reals]: ...

    async def reveal(self, result: Results) -> Reals | list[Reals] | dict[str, Reals]:
        """Have the parties compute ``result`` and open it to this client alone: of several, in one run, as they came.

        Where a model or other stored secrets are used, results on the way to which a value left the interval of a
        function, or the range that is assumed of it, are given to nobody: NoAnswer; or, where there are rows for
        samples, of which others have an answer, NaN and a RangeWarning (``RunReport.unanswered``).  Of this client's
        own alone a RangeWarning says so of what is assumed, beside the results.
        Raises the failure of whoever is at fault (PeerError and its kinds), ProgramError, or UsageError.
        """
        if isinstance(result, Mapping):
            return dict(zip(result, await self.reveal(list(result.values())), strict=True))
        revealed = await self.finish(await self.prepare(result, soon=True))
        self._watch()
        return revealed

    def _watch(self) -> None:
        if self.last_run is not None and self.last_run.in_range is False:
            places = ", ".join(map(str, self.last_run.unanswered[:_MOST_NAMED]))
            more = ", ..." if len(self.last_run.unanswered) > _MOST_NAMED else ""
            said = f"no answer to samples {places}{more}, which are NaN: on the way {LEFT}" if places else FAR_OFF
            warnings.warn(said, RangeWarning, stacklevel=3)

    async def predict(
        self,
        model: RemoteModel,
        inputs: npt.ArrayLike | Mapping[str, npt.ArrayLike],
        *,
        chunk: int | None = None,
        low: float | None = None,
        high: float | None = None,
    ) -> Reals:
        """``model`` of a batch (N, ...) of any size with values in [low, high], streamed in chunks.

        The range is by default what the model says of itself, or else [-1, 1].  Of a model of tokens, inputs are whole
        numbers; of one with several inputs, a dict of batches (``interface.named`` tells results apart).
        Memory does not grow with the batch, at nobody but this client, which has its inputs and results.  ``last_run``
        is then the sum of all chunks' bills.  See ``parties.client.streaming``.  Warns as ``reveal`` does.
        """
        values, self.last_run = await streaming.predict(self, model, inputs, chunk=chunk, low=low, high=high)
        if len(self.last_run.unanswered) == len(values):
            raise NoAnswer(NO_ANSWER)
        self._watch()
        return values

    def renew(self, former: RemoteModel, now: RemoteModel) -> None:
        """What was written of the ``former`` version of a model reads the one that is in use ``now``."""
        self._slots.renew(former, now.version)

    async def training(
        self,
        model: Trainable,
        data: Rows,
        loss: Loss,
        optimizer: Optimizer,
        *,
        name: str,
        **options: Unpack[Options],
    ) -> Training:
        """The training of a network, to be called ``name``, on the rows of data sets: ``async for`` makes what is left.

        Each data set has tensors ``x``, what the network takes, and ``y``, what it is to give: of classes, a row of
        zeros and a 1 each.  What lies under the name goes on, if it was begun so; else it is begun, with a model's
        weights, or of an architecture with random ones; of a model that is stored, with its weights, which nobody sees
        (``beginning``), by the leave of who owns it.  It belongs to this client and all owners of the data, and of that
        model, together (``Kept``).  With ``order="secret"`` all rows are stored first, shuffled, as ``NAME-rows``, once
        their owners have allowed that (``client.request(ts.mixed(data), why)``).  Options:
        ``parties.client.training.Options``.

        Raises UsageError for what cannot be trained, or something else under the name; RangeError where it does not fit
        the field.  When it runs: NotPermitted until all owners have allowed it
        (``client.request(training.kept, why)``), NoAnswer where a value has left its range, and the network stays as it
        was.
        """
        return await begun(self, slot_of(self.member.name, checked_name(name)), model, data, loss, optimizer, options)

    async def beginning(
        self,
        model: RemoteModel,
        data: Rows,
        loss: Loss,
        optimizer: Optimizer,
        *,
        name: str,
        **options: Unpack[Options],
    ) -> Kept:
        """What ``training`` keeps before the first step of a model that is stored, to ask its owner for leave
        (``client.request(beginning, why)``): its weights, with the digits that a training takes, and zeros beside them.

        Nothing is revealed of it, and it belongs to its owner as well.  Raises as ``training`` does.
        """
        return await beginning(self, checked_name(name), model, data, loss, optimizer, options)

    async def train(
        self,
        model: Trainable,
        data: Rows,
        loss: Loss,
        optimizer: Optimizer,
        *,
        name: str,
        progress: Callable[[Progress], None] | None = None,
        **options: Unpack[Options],
    ) -> RemoteModel:
        """A network, trained as ``training`` says, which nobody has seen; ``progress`` is called at each checkpoint.

        The parties go on by themselves (``submit``), whether this client stays or goes; who calls it again, with the
        same arguments, attaches to what goes on, or has the parties go on from where it ended.
        """
        training = await self.training(model, data, loss, optimizer, name=name, **options)
        if training.model.parts >= training.checkpoints:
            return training.model
        job = await self.submit(training)
        async for made in job.follow(training.model.parts - job.order.first):
            if progress is not None:
                progress(made)
        return await self.model(training.model.slot)
