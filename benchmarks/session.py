"""A cluster of processes on this machine with a client, and runs in it measured phase by phase."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from benchmarks.processes import Processes, Usage, used
from benchmarks.records import spread
from mpc.cost import Cost, messages
from mpc.errors import UsageError
from mpc.secret_tensor import SecretTensor
from parties import Client, LocalCluster, PreparedRun
from parties.cluster import Settings
from parties.report import RunReport

Reals = npt.NDArray[np.float64]


class Measured(NamedTuple):
    """One run: its result, its bill, what the client had prepared for it, and what the processes used."""

    values: Reals
    report: RunReport
    run: PreparedRun
    offline: Mapping[str, Usage]
    online: Mapping[str, Usage]
    """By process, in each phase; empty where nobody watched."""


@dataclass(frozen=True)
class Session:
    """A client of a cluster, and the cluster's processes, to be watched: the client's own among them."""

    client: Client
    processes: Processes

    def measure(self, result: SecretTensor) -> Measured:
        """As the function of this name, with what each process used."""
        return measure(self.client, result, self.processes)


@contextlib.contextmanager
def watched_session(parties: int, security: str, timeout: float) -> Iterator[Session]:
    """A ``Session`` in a fresh ``LocalCluster``.  ``timeout``, in seconds, is for the start and for each round."""
    settings = Settings(threads=1, round_timeout=float(timeout))
    with (
        LocalCluster(parties, security=security, settings=settings, start_timeout=timeout) as cluster,
        Client(cluster) as client,
    ):
        pids = {name: process.pid for name, process in cluster.processes.items()}
        yield Session(client, Processes({**pids, "client": os.getpid()}))


@contextlib.contextmanager
def session(parties: int, security: str, timeout: float) -> Iterator[Client]:
    """The client of a ``watched_session``."""
    with watched_session(parties, security, timeout) as watched:
        yield watched.client


def measure(client: Client, result: SecretTensor, processes: Processes | None = None) -> Measured:
    """Run ``result``, the phases one after the other: the online phase begins when the offline phase has ended."""
    watch = processes or Processes({})
    watch.start()
    run = client.prepare(result)
    offline = watch.usage()
    watch.start()
    values = client.finish(run)
    online = watch.usage()
    report = client.last_run
    if report is None:
        raise UsageError("the run left no report")
    return Measured(np.asarray(values), report, run, offline, online)


def as_predicted(report: RunReport) -> bool:
    """Whether rounds and payload bytes, online and offline, are exactly what ``mpc.cost`` says."""
    predicted: Cost = report.predicted
    return (report.online.rounds, report.online.bytes, report.offline.bytes) == (
        predicted.online_rounds,
        predicted.online_bytes_per_party,
        predicted.offline_bytes,
    )


def phases(reports: Sequence[RunReport], times: Any = spread) -> dict[str, dict[str, Any]]:
    """``online`` and ``offline`` of equal runs; ``times`` says how their seconds are summed up.

    Messages are those of the measured rounds: one to every other party in each, and the outputs to the client.
    """
    first = reports[0]
    return {
        "online": {
            "rounds": first.online.rounds,
            "messages_per_party": messages(first.online.rounds, first.parties),
            "bytes_per_party": first.online.bytes,
            "seconds": times([r.online.seconds for r in reports]),
        },
        "offline": {"bytes": first.offline.bytes, "seconds": times([r.offline.seconds for r in reports])},
    }


def resources(runs: Sequence[Measured]) -> dict[str, Any]:
    """CPU seconds and peak memory of each process over equal runs, by phase."""
    return {"online": used([r.online for r in runs]), "offline": used([r.offline for r in runs])}
