"""A cluster of processes on this machine with a client, and runs in it measured phase by phase."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
from rich.console import Console

from benchmarks.processes import Processes, Usage, used
from benchmarks.records import spread
from benchmarks.report import plain_table
from benchmarks.wire import Carried, Wire
from mpc.cost import Cost, Wanted, messages
from mpc.errors import ConfigurationError, UsageError
from parties import Client, LocalCluster, MemoryCluster
from parties.client.report import RunReport, link_name
from parties.members.cluster_file import Settings
from parties.tally import Link, Sent
from protocols.trace.secret_tensor import SecretTensor

Reals = npt.NDArray[np.float64]
Result = TypeVar("Result")


class Measured(NamedTuple):
    """One run: its result, its bill, and what the processes used."""

    values: Reals
    report: RunReport
    offline: Mapping[str, Usage]
    online: Mapping[str, Usage]
    """By process, in each phase; empty where nobody watched."""
    wire: Mapping[str, Mapping[Link, Carried]] = {}
    """By phase and link, what TCP carried, as the kernel counted it; empty where nobody watched."""


WIRE_COLUMNS = ("phase", "messages", "payload", "wire bytes", "overhead", "packets")


@dataclass(frozen=True)
class Session:
    """A client of a cluster, and the cluster's processes, to be watched: the client's own among them."""

    client: Client
    processes: Processes
    wire: Wire | None = None
    """Their connections, where the kernel counts what they carry, and says so."""
    without_wire: str = ""
    """Otherwise, why not, and what to do; nothing where there are no connections."""

    def measure(self, result: SecretTensor) -> Measured:
        """As the function of this name, with what each process used, and what their connections carried."""
        return measure(self.client, result, self.processes, self.wire)


@contextlib.contextmanager
def watched_session(parties: int, security: str, timeout: float, objective: Wanted = "latency") -> Iterator[Session]:
    """A ``Session`` in a fresh ``LocalCluster``.  ``timeout``, in seconds, is for the start and for each round.

    ``objective`` is the client's.
    """
    settings = Settings(threads=1, round_timeout=float(timeout))
    with (
        LocalCluster(parties, security=security, settings=settings, start_timeout=timeout, observable=True) as cluster,
        Client(cluster, objective=objective) as client,
    ):
        pids = {name: process.pid for name, process in cluster.processes.items()}
        # Under the names that the reports give them.
        pids["client"] = os.getpid()
        try:
            wire = Wire(pids)
        except ConfigurationError as error:
            yield Session(client, Processes(pids), without_wire=str(error))
            return
        with wire:
            yield Session(client, Processes(pids), wire)


@contextlib.contextmanager
def memory_session(parties: int, security: str, timeout: float, objective: Wanted = "latency") -> Iterator[Session]:
    """As ``watched_session``, of servers in this process, without sockets: figures count, and times do not."""
    settings = Settings(threads=1, round_timeout=float(timeout))
    with (
        MemoryCluster(parties, security=security, settings=settings) as cluster,
        Client(cluster, objective=objective) as client,
    ):
        yield Session(client, Processes({}))


@contextlib.contextmanager
def session(parties: int, security: str, timeout: float, objective: Wanted = "latency") -> Iterator[Client]:
    """The client of a ``watched_session``."""
    with watched_session(parties, security, timeout, objective) as watched:
        yield watched.client


def measure(
    client: Client, result: SecretTensor, processes: Processes | None = None, wire: Wire | None = None
) -> Measured:
    """Run ``result``, the phases one after the other: the online phase begins when the offline phase has ended.

    What counts beside it is read before and after each phase, never within what is timed.
    """
    run, offline, offline_wire = _watched(lambda: client.prepare(result), processes, wire)
    values, online, online_wire = _watched(lambda: client.finish(run), processes, wire)
    carried = {} if wire is None else {"offline": offline_wire, "online": online_wire}
    return Measured(np.asarray(values), bill(client), offline, online, carried)


def bill(client: Client) -> RunReport:
    """Of the run that has just ended."""
    if client.last_run is None:
        raise UsageError("the run left no report")
    return client.last_run


def _watched(
    work: Callable[[], Result], processes: Processes | None, wire: Wire | None
) -> tuple[Result, dict[str, Usage], dict[Link, Carried]]:
    """The result, what the processes used, and what their connections carried."""
    watch = processes or Processes({})
    if wire is not None:
        wire.start()
    watch.start()
    result = work()
    usage = watch.usage()
    return result, usage, {} if wire is None else wire.traffic()


def as_predicted(report: RunReport) -> bool:
    """Whether rounds, messages and payload bytes, online and offline, are exactly what ``mpc.cost`` says.

    Of the messages: a party's and the client's online, the dealer's offline.
    """
    predicted: Cost = report.predicted
    runs, parties = report.runs, report.parties
    online, offline = report.online, report.offline
    dealt = runs * (parties + 1) if report.from_stock else predicted.offline_messages
    return (online.rounds, online.messages, online.bytes, report.sent("online", report.client)) == (
        predicted.online_rounds,
        # One run of so many rounds would have sent fewer outputs.
        messages(predicted.online_rounds - (runs - 1), parties) + (runs - 1),
        predicted.online_bytes_per_party,
        Sent(runs * parties, predicted.online_client_bytes),
    ) and (offline.messages, offline.bytes) == (dealt, predicted.offline_bytes)


def phases(reports: Sequence[RunReport], times: Any = spread) -> dict[str, dict[str, Any]]:
    """``online`` and ``offline`` of equal runs; ``times`` says how their seconds are summed up.

    Messages and payload are counted where they are sent: online at the party that sent most, offline at the dealer.
    """
    first = reports[0]
    return {
        "online": {
            "rounds": first.online.rounds,
            "messages_per_party": first.online.messages,
            "bytes_per_party": first.online.bytes,
            "seconds": times([r.online.seconds for r in reports]),
        },
        "offline": {
            "messages": first.offline.messages,
            "bytes": first.offline.bytes,
            "seconds": times([r.offline.seconds for r in reports]),
        },
    }


def resources(runs: Sequence[Measured]) -> dict[str, Any]:
    """CPU seconds and peak memory of each process over equal runs, by phase."""
    return {"online": used([r.online for r in runs]), "offline": used([r.offline for r in runs])}


def links(runs: Sequence[Measured]) -> dict[str, dict[str, dict[str, Any]]]:
    """What went over each link (``A>B``) in equal runs, by phase.

    ``messages`` and ``payload`` of one run, as the sender counted them; and where the kernel's counts were read,
    spreads of ``bytes``, ``packets`` and ``retransmitted`` bytes (``benchmarks.wire``).  A link that is only there for
    pings, or for acknowledgements, has no messages.
    """
    return {phase: _links(runs, phase) for phase in ("online", "offline")}


def _links(runs: Sequence[Measured], phase: str) -> dict[str, dict[str, Any]]:
    counted = runs[0].report.links[phase]
    carried = [run.wire[phase] for run in runs if run.wire]
    idle = Carried()
    used = {link for table in carried for link, amount in table.items() if amount != idle}
    table: dict[str, dict[str, Any]] = {}
    for link in [*counted, *sorted(used - counted.keys())]:
        sent = counted.get(link, Sent())
        row: dict[str, Any] = {"messages": sent.messages, "payload": sent.payload}
        if carried:
            amounts = [asdict(amount.get(link, idle)) for amount in carried]
            row |= {figure: spread([amount[figure] for amount in amounts]) for figure in amounts[0]}
        table[link_name(link)] = row
    return table


def warn_without_wire(session: Session) -> None:
    """Say on stderr why the kernel's counts will be missing, if they will."""
    if session.without_wire:
        print(f"{session.without_wire}; until then those figures are left out", file=sys.stderr)


def print_links(console: Console, wire: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> None:
    """A table of ``links``."""
    table = plain_table("link", *WIRE_COLUMNS)
    for phase, rows in wire.items():
        for link, row in rows.items():
            table.add_row(link.replace(">", " > "), phase, *wire_cells([row]))
    console.print(table)


def wire_cells(rows: Collection[Mapping[str, Any]]) -> list[str]:
    """The figures of ``WIRE_COLUMNS``, of some links of one phase together; empty where the kernel's are missing."""
    messages, payload = (sum(row[figure] for row in rows) for figure in ("messages", "payload"))
    cells = [f"{messages:,}", f"{payload:,}"]
    if all("bytes" in row for row in rows):
        carried, packets = (sum(row[figure]["median"] for row in rows) for figure in ("bytes", "packets"))
        return [*cells, f"{carried:,.0f}", f"{carried - payload:,.0f}", f"{packets:,.0f}"]
    return [*cells, "", "", ""]
