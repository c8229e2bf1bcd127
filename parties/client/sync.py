"""``Client``: the synchronous face of ``AsyncClient``, whose event loop runs in a thread of its own."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from datetime import datetime
from types import TracebackType
from typing import Any, TypeVar, Unpack, overload

import numpy.typing as npt

from mpc.cost import Wanted
from mpc.errors import UsageError
from mpc.program import Program
from nn.losses import Loss
from nn.optimizers import Optimizer
from parties.client.async_client import AsyncClient
from parties.client.auditing import AuditEntry
from parties.client.explanation import Explanation
from parties.client.prepared import PreparedRun, Reals
from parties.client.progress import Progress
from parties.client.queries import ModelEntry
from parties.client.remote_data import RemoteData
from parties.client.remote_model import RemoteModel, Uploadable
from parties.client.report import RunReport, StockReport
from parties.client.request_entries import RequestEntry
from parties.client.running import DEFAULT_BOUND
from parties.client.sync_jobs import Job
from parties.client.training import Training
from parties.client.training_arguments import Options, Rows, Trainable
from parties.client.uploading import UploadProgress
from parties.client.writing import Kept, Results
from parties.members.cluster import Cluster
from parties.members.keys import KeyPair
from parties.messages.rules import Rule
from parties.stored.data_set import DataSet
from parties.trial import TrialCluster
from parties.unclosed import closed, opened
from protocols.randomness.source import RandomnessSource
from protocols.trace.random import Random
from protocols.trace.secret_tensor import SecretTensor

Result = TypeVar("Result")


class Client:
    """A client of a cluster, for scripts and notebooks; see ``AsyncClient`` for what each method does and raises.

    Args: as ``AsyncClient``'s.
    """

    def __init__(
        self,
        cluster: TrialCluster | Cluster | str | os.PathLike[str],
        key: KeyPair | str | os.PathLike[str] | None = None,
        *,
        name: str | None = None,
        connect_timeout: float = 10.0,
        source: RandomnessSource | None = None,
        objective: Wanted = "latency",
    ) -> None:
        self._client = AsyncClient(
            cluster, key, name=name, connect_timeout=connect_timeout, source=source, objective=objective
        )
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._process = os.getpid()

    def __enter__(self) -> Client:
        return self.start()

    def start(self) -> Client:
        """Connect, and stay so until ``close``; a ``with`` statement does both."""
        self._process = os.getpid()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="tessera client", daemon=True)
        self._thread.start()
        opened(self)
        try:
            self._run(self._client.__aenter__())
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections.  Idempotent."""
        if self._loop is None or self._thread is None or self._process != os.getpid():
            return
        closed(self)
        try:
            self._run(self._client.close())
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()
            self._loop = self._thread = None

    def __repr__(self) -> str:
        return repr(self._client).replace("AsyncClient", "Client", 1)

    @property
    def cluster(self) -> Cluster:
        """What the cluster file says."""
        return self._client.cluster

    @property
    def last_run(self) -> RunReport | None:
        """The bill of the last run that was revealed."""
        return self._client.last_run

    random = Random()
    """Secret random tensors, which nobody knows: expressions, like what is shared."""

    def share(
        self,
        values: npt.ArrayLike,
        *,
        fraction_bits: int | None = None,
        low: float = -DEFAULT_BOUND,
        high: float = DEFAULT_BOUND,
        name: str = "value",
    ) -> SecretTensor:
        """This client's secret as an expression; see ``AsyncClient.share``."""
        return self._client.share(values, fraction_bits=fraction_bits, low=low, high=high, name=name)

    @overload
    def upload(  # type: ignore[overload-overlap]  # a DataSet is uploadable, and the more special
        self, secret: DataSet, name: str, *, progress: Callable[[UploadProgress], None] | None = None
    ) -> RemoteData: ...
    @overload
    def upload(
        self, secret: Uploadable, name: str, *, progress: Callable[[UploadProgress], None] | None = None
    ) -> RemoteModel: ...

    def upload(
        self, secret: Uploadable, name: str, *, progress: Callable[[UploadProgress], None] | None = None
    ) -> RemoteModel | RemoteData:
        """Store a model's weights, or a data set, on the parties, as shares."""
        return self._run(self._client.upload(secret, name, progress=progress))

    def model(self, name: str) -> RemoteModel:
        """A model that is stored on the parties."""
        return self._run(self._client.model(name))

    def data(self, name: str) -> RemoteData:
        """A data set that is stored on the parties."""
        return self._run(self._client.data(name))

    @overload
    def keep(  # type: ignore[overload-overlap]  # a Kept is a mapping, and the more special
        self, results: Kept, name: str
    ) -> RemoteData | RemoteModel: ...
    @overload
    def keep(self, results: Mapping[str, SecretTensor], name: str) -> RemoteData: ...

    def keep(self, results: Mapping[str, SecretTensor], name: str) -> RemoteData | RemoteModel:
        """Have the parties compute ``results`` and keep them under ``name``, revealed to nobody."""
        return self._run(self._client.keep(results, name))

    def training(
        self,
        model: Trainable,
        data: Rows,
        loss: Loss,
        optimizer: Optimizer,
        *,
        name: str,
        **options: Unpack[Options],
    ) -> Training:
        """What is to be trained, to ask for leave (``request(training.kept, why)``); ``train`` makes its steps."""
        return self._run(self._client.training(model, data, loss, optimizer, name=name, **options))

    def train(
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
        """A network, trained on stored data, which nobody has seen."""
        return self._run(self._client.train(model, data, loss, optimizer, name=name, progress=progress, **options))

    def beginning(
        self,
        model: RemoteModel,
        data: Rows,
        loss: Loss,
        optimizer: Optimizer,
        *,
        name: str,
        **options: Unpack[Options],
    ) -> Kept:
        """What ``training`` keeps before the first step of a model that is stored, to ask its owner for leave."""
        return self._run(self._client.beginning(model, data, loss, optimizer, name=name, **options))

    def submit(self, training: Training) -> Job:
        """Have the parties make what is left of a training, whether this client stays or goes."""
        return Job(self._run(self._client.submit(training)), self._run)

    def jobs(self) -> list[Job]:
        """Trainings of this client's, whatever has become of them, and those on what it owns; the newest first."""
        return [Job(job, self._run) for job in self._run(self._client.jobs())]

    def job(self, sought: str) -> Job:
        """The newest training of the network of that name, or that whose id begins so."""
        return Job(self._run(self._client.job(sought)), self._run)

    def audit(self, since: datetime | None = None) -> list[AuditEntry]:
        """What every server has put down of our runs, and of who has run what on our models and data."""
        return self._run(self._client.audit(since))

    def models(self) -> list[ModelEntry]:
        """All models and data sets that are stored on the parties, as far as we may know."""
        return self._run(self._client.models())

    def left_behind(self) -> list[str]:
        """What was shared among other servers than there are now: its owner has to upload it again."""
        return self._run(self._client.left_behind())

    def allow(
        self,
        name: str,
        client: str,
        programs: Sequence[str] | None = None,
        *,
        schema: bool = False,
        runs: int | None = None,
        per_day: int | None = None,
        per_client: int | None = None,
    ) -> None:
        """Let ``client`` run these programs, so often, and no others, on this client's model or data set.

        With ``schema``, it may know what there is, and ask.
        """
        limits = {"runs": runs, "per_day": per_day, "per_client": per_client}
        self._run(self._client.allow(name, client, programs, schema=schema, **limits))

    def rules(self, name: str) -> tuple[Rule, ...]:
        """What is allowed on this client's model or data set."""
        return self._run(self._client.rules(name))

    def digest(self, result: Results) -> str:
        """What the program that computes ``result`` is called in ``allow``."""
        return self._client.digest(result)

    def save(self, result: Results, path: str | os.PathLike[str]) -> str:
        """Writes the program that computes ``result`` to a file, for `tessera request`; its digest."""
        return self._client.save(result, path)

    def request(self, result: Results | Program, why: str) -> str:
        """Ask the owners of all that ``result`` reads to let this client run it; the program's digest."""
        return self._run(self._client.request(result, why))

    def withdraw(self, program: str) -> None:
        """Do not ask for leave to run that program any more."""
        self._run(self._client.withdraw(program))

    def requests(self) -> list[RequestEntry]:
        """What this client has asked and is asked, with what has become of it."""
        return self._run(self._client.requests())

    def follow(self) -> Iterator[RequestEntry]:
        """All that ``requests`` lists, and for ever each entry anew whenever something has become of it."""
        entries = self._client.follow()

        async def following() -> RequestEntry:
            return await anext(entries)

        while True:
            yield self._run(following())

    def approved(self, program: str, timeout: float | None = None) -> bool:
        """Waits until all owners have let this client run that program; False after ``timeout`` s."""
        return self._run(self._client.approved(program, timeout))

    def show(self, what: str | Results | Program, client: str | None = None) -> Explanation:
        """A program in words: one that was asked for, by its digest, or ours."""
        return self._run(self._client.show(what, client))

    def approve(
        self,
        program: str,
        *,
        client: str | None = None,
        names: Sequence[str] | None = None,
        why: str = "",
        runs: int | None = None,
        per_day: int | None = None,
    ) -> RequestEntry:
        """Let who asks for that program run it, on what it reads of ours."""
        return self._run(self._client.approve(program, client=client, names=names, why=why, runs=runs, per_day=per_day))

    def deny(self, program: str, *, client: str | None = None, why: str) -> RequestEntry:
        """Say no to who asks for that program, and why."""
        return self._run(self._client.deny(program, client=client, why=why))

    def remove(self, name: str) -> None:
        """Remove a model or data set of this client's, for good."""
        self._run(self._client.remove(name))

    @overload
    def reveal(self, result: SecretTensor) -> Reals: ...
    @overload
    def reveal(self, result: Mapping[str, SecretTensor]) -> dict[str, Reals]: ...
    @overload
    def reveal(self, result: Sequence[SecretTensor]) -> list[Reals]: ...

    def reveal(self, result: Results) -> Reals | list[Reals] | dict[str, Reals]:
        """Have the parties compute ``result`` and open it to this client alone: of several, in one run."""
        if isinstance(result, Mapping):
            return dict(zip(result, self.reveal(list(result.values())), strict=True))
        return self.finish(self.prepare(result, soon=True))

    def predict(
        self,
        model: RemoteModel,
        inputs: npt.ArrayLike | Mapping[str, npt.ArrayLike],
        *,
        chunk: int | None = None,
        low: float | None = None,
        high: float | None = None,
    ) -> Reals:
        """A batch of any size, streamed in chunks; see ``AsyncClient.predict``."""
        return self._run(self._client.predict(model, inputs, chunk=chunk, low=low, high=high))

    def prepare(self, result: SecretTensor | Sequence[SecretTensor], *, soon: bool = False) -> PreparedRun:
        """The offline phase of a run, for ``finish``; ``soon``: no more of it than the online phase begins with."""
        return self._run(self._client.prepare(result, soon=soon))

    def finish(self, prepared: PreparedRun) -> Reals | list[Reals]:
        """The online phase of a prepared run."""
        return self._run(self._client.finish(prepared))

    def release(self, prepared: PreparedRun) -> None:
        """Give up a prepared run."""
        self._run(self._client.release(prepared))

    def stock(
        self,
        result: Results | Training,
        count: int,
        *,
        low_water: int = 0,
        progress: Callable[[StockReport], None] | None = None,
    ) -> StockReport:
        """Have runs of ``result``, or checkpoints of a training, dealt ahead of time."""
        return self._run(self._client.stock(result, count, low_water=low_water, progress=progress))

    def _run(self, coroutine: Coroutine[Any, Any, Result]) -> Result:
        if self._loop is None:
            coroutine.close()
            raise UsageError("the client is not connected: use it in a `with` statement, or start() it")
        if self._process != os.getpid():
            coroutine.close()
            # Its thread and its sockets are the other process's, and nothing would ever come back.
            raise UsageError("this process was forked from the client's own: make another client here")
        future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        try:
            return future.result()
        except KeyboardInterrupt:
            future.cancel()
            raise
