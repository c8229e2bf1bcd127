"""A cluster of processes on this machine with a client, and runs in it measured phase by phase."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from mpc.cost import Cost
from mpc.errors import UsageError
from mpc.secret_tensor import SecretTensor
from parties import Client, LocalCluster, PreparedRun
from parties.cluster import Settings
from parties.report import RunReport

Reals = npt.NDArray[np.float64]


class Measured(NamedTuple):
    """One run: its result, its bill, and what the client had prepared for it."""

    values: Reals
    report: RunReport
    run: PreparedRun


@contextlib.contextmanager
def session(parties: int, security: str, timeout: float) -> Iterator[Client]:
    """A client of a fresh ``LocalCluster``.  ``timeout``, in seconds, is for the start and for each round."""
    settings = Settings(threads=1, round_timeout=float(timeout))
    with (
        LocalCluster(parties, security=security, settings=settings, start_timeout=timeout) as cluster,
        Client(cluster) as client,
    ):
        yield client


def measure(client: Client, result: SecretTensor) -> Measured:
    """Run ``result``, the phases one after the other: the online phase begins when the offline phase has ended."""
    run = client.prepare(result)
    values = client.finish(run)
    report = client.last_run
    if report is None:
        raise UsageError("the run left no report")
    return Measured(np.asarray(values), report, run)


def as_predicted(report: RunReport) -> bool:
    """Whether rounds and payload bytes, online and offline, are exactly what ``mpc.cost`` says."""
    predicted: Cost = report.predicted
    return (report.online.rounds, report.online.bytes, report.offline.bytes) == (
        predicted.online_rounds,
        predicted.online_bytes_per_party,
        predicted.offline_bytes,
    )


def spread(seconds: Sequence[float]) -> dict[str, float]:
    """Median, least and greatest of measured times."""
    return {"median": float(np.median(seconds)), "min": min(seconds), "max": max(seconds)}


def phases(reports: Sequence[RunReport], times: Any = spread) -> dict[str, dict[str, Any]]:
    """``online`` and ``offline`` of equal runs; ``times`` says how their seconds are summed up."""
    first = reports[0]
    return {
        "online": {
            "rounds": first.online.rounds,
            "bytes_per_party": first.online.bytes,
            "seconds": times([r.online.seconds for r in reports]),
        },
        "offline": {"bytes": first.offline.bytes, "seconds": times([r.offline.seconds for r in reports])},
    }
