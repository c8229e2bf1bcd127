"""``tessera bench network``: predictions where every process is on a host of its own, with slow links between.

Beside what was measured stand what ``mpc.cost`` says the network alone takes, the same run with nothing delayed or
limited, which is the computing, and what the emulated links were measured to do.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.machine import machine
from benchmarks.models import Subject, subject
from benchmarks.network.emulation import UNSHAPED, EmulatedCluster, EmulatedNetwork, Probe
from benchmarks.network.hosts import enter_user_namespace
from benchmarks.prediction import MEGA, MILLI, NETWORKS
from benchmarks.records import Recorder, flatten
from benchmarks.report import Steps, milliseconds, plain_table, progress_bar, stdout_console
from benchmarks.session import Measured, links, measure, phases, print_links
from benchmarks.wire import Reader, Wire
from mpc.cost import Cost, Link
from mpc.errors import UsageError
from mpc.security import Security
from parties import Client
from parties.members.cluster_file import Settings

FIGURES = ("online", "offline", "wire", "predicted", "check")
UNSHAPED_NAME = "unshaped"
EMULATION = "network namespaces, joined by a switch in user space"


class Condition(NamedTuple):
    """A network's name, the links of dealer and parties, and the client's."""

    name: str
    servers: Link
    client: Link

    def case(self) -> dict[str, Any]:
        """What identifies it in a record; without delay and limit: zeros."""
        case: dict[str, Any] = {"network": self.name}
        for who, link in (("servers", self.servers), ("client", self.client)):
            case[f"{who}_rtt_ms"] = round(link.round_trip / MILLI, 6)
            case[f"{who}_mbit"] = round(link.bandwidth / MEGA, 6) if math.isfinite(link.bandwidth) else 0.0
        return case


NOTHING = Condition(UNSHAPED_NAME, UNSHAPED, UNSHAPED)


def run(options: argparse.Namespace) -> int:
    """Measure and print; the exit code."""
    conditions = [NOTHING, *chosen_conditions(options)]
    recorder = Recorder.of(options)
    chosen = subject(options)
    if options.parties < 2:
        raise UsageError(f"{options.parties} parties: additive sharing needs at least 2")
    cost = chosen.cost(options.batch, options.parties, Security(options.security), options.objective)
    enter_user_namespace(["-m", "parties.commands.command_line", *sys.argv[1:]])
    case = {**chosen.case(options.batch, options.parties, options.security), "objective": options.objective}
    rows = measured(chosen, conditions, cost, options)
    for condition, row in zip(conditions, rows, strict=True):
        about = {"emulation": EMULATION, "congestion_control": _congestion_control()}
        recorder.add("network", {**case, **condition.case()}, flatten(row, *FIGURES), about)
    summary = {**case, "repeat": options.repeat, "networks": rows, "machine": machine()}
    if options.json:
        recorder.print_json(summary)
    else:
        _print(summary)
    return recorder.finish()


def chosen_conditions(options: argparse.Namespace) -> list[Condition]:
    """Those named, or one for each ``--rtt``; by default all that have names.  Raises UsageError."""
    unknown = [name for name in options.networks if name not in NETWORKS]
    if unknown:
        raise UsageError(f"there is no network {unknown[0]!r}: there are {', '.join(map(repr, NETWORKS))}")
    names = options.networks or ([] if options.rtt else NETWORKS)
    named = [Condition(name, *NETWORKS[name]) for name in names]
    links = [Link(rtt * MILLI, options.bandwidth * MEGA) for rtt in options.rtt]
    return named + [
        Condition(f"{rtt:g} ms, {options.bandwidth:g} Mbit/s", link, link)
        for rtt, link in zip(options.rtt, links, strict=True)
    ]


def measured(
    chosen: Subject, conditions: Sequence[Condition], cost: Cost, options: argparse.Namespace
) -> list[dict[str, Any]]:
    """A row for each condition."""
    hosts = ["client", "dealer", *(f"party{i}" for i in range(options.parties))]
    rows = []
    with (
        progress_bar("starting", len(conditions) * (options.warm_up + options.repeat)) as steps,
        EmulatedNetwork(hosts) as network,
    ):
        for condition in conditions:
            steps.describe(condition.name)
            network.shape(condition.servers)
            network.shape(condition.client, "client")
            servers = network.probe("party0", "party1", condition.servers.bandwidth)
            client = network.probe("client", "party0", condition.client.bandwidth)
            runs = _runs(chosen, network, options, steps)
            rows.append(_row(condition, cost, runs, servers, client))
    return rows


def _runs(chosen: Subject, network: EmulatedNetwork, options: argparse.Namespace, steps: Steps) -> list[Measured]:
    """In a cluster of its own: TCP's idea of a path outlives by far a change of the path."""
    settings = Settings(threads=1, round_timeout=float(options.timeout))
    inputs = chosen.inputs(options.batch)
    runs = []
    with (
        EmulatedCluster(
            network, options.parties, security=options.security, settings=settings, start_timeout=options.timeout
        ) as cluster,
        network.hosts["client"].entered(),
        Client(cluster, objective=options.objective) as client,
        Wire(
            {"client": os.getpid(), **{name: process.pid for name, process in cluster.processes.items()}},
            [host.run(Reader) for host in network.hosts.values()],
        ) as wire,
    ):
        remote = client.upload(chosen.model, "measured")
        for _ in range(options.warm_up + options.repeat):
            secret = client.share(inputs, low=chosen.low, high=chosen.high, name="inputs")
            runs.append(measure(client, remote(secret), wire=wire))
            steps()
    return runs[options.warm_up :]


def _row(condition: Condition, cost: Cost, runs: Sequence[Measured], servers: Probe, client: Probe) -> dict[str, Any]:
    predicted = cost.latency(condition.servers, condition.client)
    return {
        **condition.case(),
        **phases([run.report for run in runs]),
        "wire": links(runs),
        "predicted": {"online_seconds": predicted.online, "offline_seconds": predicted.offline},
        "check": {
            "servers": {"round_trip_ms": servers.round_trip / MILLI, "mbit": servers.bandwidth / MEGA},
            "client": {"round_trip_ms": client.round_trip / MILLI, "mbit": client.bandwidth / MEGA},
        },
        "as_asked": condition == NOTHING or (servers.as_asked(condition.servers) and client.as_asked(condition.client)),
    }


def _congestion_control() -> str:
    """How TCP finds out how fast it may send: it matters where much is sent over a long way."""
    try:
        return Path("/proc/sys/net/ipv4/tcp_congestion_control").read_text(encoding="ascii").strip()
    except OSError:
        return "unknown"


def _print(summary: Mapping[str, Any]) -> None:
    console = stdout_console()
    shape = "x".join(map(str, summary["shape"]))
    console.print(
        f"{summary['model']} ({shape}), batch of {summary['batch']}, {summary['parties']} parties, dealer and client on"
        f" hosts of their own, {summary['security']}: {summary['repeat']} runs in each network"
    )
    links = plain_table("network", "asked for", "servers, measured", "client, measured", "")
    for row in summary["networks"]:
        check = row["check"]
        found = [f"{check[who]['round_trip_ms']:.2f} ms, {check[who]['mbit']:,.0f} Mbit/s" for who in check]
        asked = [f"{row[f'{who}_rtt_ms']:g} ms, {row[f'{who}_mbit']:,.0f} Mbit/s" for who in check]
        wanted = "no delay, no limit" if row["network"] == UNSHAPED_NAME else "; client ".join(dict.fromkeys(asked))
        links.add_row(row["network"], wanted, *found, "" if row["as_asked"] else "[red]not as asked for[/]")
    console.print(links)
    baseline = summary["networks"][0]
    times = plain_table("network", "phase", "median", "min", "max", "network alone", "with computing", "of predicted")
    for row in summary["networks"]:
        for phase in ("online", "offline"):
            seconds, alone = row[phase]["seconds"], row["predicted"][f"{phase}_seconds"]
            both = alone + baseline[phase]["seconds"]["median"]
            times.add_row(
                row["network"] if phase == "online" else "", phase,
                *(milliseconds(seconds[name]) for name in ("median", "min", "max")),
                milliseconds(alone), milliseconds(both), f"{seconds['median'] / both:.0%}",
            )  # fmt: skip
    console.print(times)
    last = summary["networks"][-1]
    console.print(f"What went over each link, {last['network']}:")
    print_links(console, last["wire"])
    console.print("With computing: what was predicted of the network, and the time of the run without delay and limit.")
