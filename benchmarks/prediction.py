"""What a run will cost, in the words in which ``tessera bench inference --json`` says what it did cost."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any, Literal

from benchmarks.models import subject
from benchmarks.records import Recorder, flatten
from benchmarks.report import kilobytes, milliseconds, plain_table, print_json, stdout_console
from mpc.cost import Cost, Link
from mpc.errors import UsageError
from mpc.security import Security

MILLI, MEGA = 1e-3, 1e6

OBJECTIVES: tuple[Literal["latency", "traffic"], ...] = ("latency", "traffic")

METRO = Link(5 * MILLI, 1000 * MEGA)
NETWORKS: dict[str, tuple[Link, Link]] = {
    "LAN": (Link(0.2 * MILLI, 10_000 * MEGA),) * 2,
    "metro": (METRO,) * 2,
    "WAN": (Link(40 * MILLI, 100 * MEGA),) * 2,
    "mobile client": (METRO, Link(60 * MILLI, 10 * MEGA)),
}
"""Among the servers, and between them and the client."""


def predicted(cost: Cost, batch: int) -> dict[str, Any]:
    """Rounds, messages and payload of a run of ``batch`` inputs, per phase, per layer and per input."""
    return {
        "online": {
            "rounds": cost.online_rounds,
            "messages_per_party": cost.online_messages_per_party,
            "bytes_per_party": cost.online_bytes_per_party,
            "client_bytes": cost.online_client_bytes,
        },
        "offline": {"bytes": cost.offline_bytes},
        "per_image": {
            "online_bytes_per_party": cost.online_bytes_per_party / batch,
            "offline_bytes": cost.offline_bytes / batch,
        },
        "layers": {
            name: {
                "rounds": layer.rounds,
                "opened": layer.opened,
                "dealt": layer.dealt,
                "bytes_per_party": layer.opened_bytes * (cost.parties - 1),
            }
            for name, layer in cost.layers.items()
            if name
        },
    }


def latencies(cost: Cost, networks: Mapping[str, tuple[Link, Link]]) -> dict[str, dict[str, Any]]:
    """Predicted seconds by network; see ``Cost.latency`` for the model and what it leaves out."""
    table = {}
    for name, (servers, client) in networks.items():
        latency = cost.latency(servers, client)
        table[name] = {
            "servers": _link(servers),
            "client": _link(client),
            "online_seconds": latency.online,
            "offline_seconds": latency.offline,
            "parts": {
                "inputs": latency.inputs,
                "delays": latency.delays,
                "openings": latency.openings,
                "outputs": latency.outputs,
            },
        }
    return table


def _link(link: Link) -> dict[str, float]:
    return {"round_trip_ms": link.round_trip / MILLI, "bandwidth_mbit": link.bandwidth / MEGA}


def run(options: argparse.Namespace) -> int:
    """Predict and print; the exit code."""
    recorder = Recorder.of(options)
    networks = _networks(options)
    security = _security(options.security)
    if options.parties < 2:
        raise UsageError(f"{options.parties} parties: additive sharing needs at least 2")
    chosen = subject(options)
    case = chosen.case(options.batch, options.parties, security)
    summaries = {}
    for objective in OBJECTIVES if options.objective == "both" else (options.objective,):
        cost = chosen.cost(options.batch, options.parties, security, objective)
        summary = {**case, **predicted(cost, options.batch), "latency": latencies(cost, networks)}
        summary["objective"] = objective
        recorder.add(
            "cost",
            {**case, "objective": objective},
            flatten(summary, "online", "offline", "per_image", "layers", "latency"),
        )
        summaries[objective] = summary
        if not options.json:
            _print(summary)
    if options.json:
        print_json(summaries if len(summaries) > 1 else summary)
    return recorder.finish()


def _networks(options: argparse.Namespace) -> dict[str, tuple[Link, Link]]:
    if options.rtt is None and options.bandwidth is None:
        return NETWORKS
    if options.rtt is None or options.bandwidth is None:
        raise UsageError("--rtt and --bandwidth go together: give both, in ms and Mbit/s")
    link = Link(options.rtt * MILLI, options.bandwidth * MEGA)
    return {f"{options.rtt:g} ms, {options.bandwidth:g} Mbit/s": (link, link)}


def _security(name: str) -> Security:
    if name not in set(Security):
        raise UsageError(f"security {name!r} is not one of {', '.join(Security)}")
    return Security(name)


def _print(summary: dict[str, Any]) -> None:
    console = stdout_console()
    shape = "x".join(map(str, summary["shape"]))
    console.print(
        f"{summary['model']} ({shape}, weights: {summary['weights']}), batch of {summary['batch']},"
        f" {summary['parties']} parties and a dealer, {summary['security']},"
        f" planned for {summary['objective']}: predicted, nothing has run"
    )
    table = plain_table("layer", "rounds", "opened", "sent per party", "dealt")
    for name, layer in summary["layers"].items():
        payload = kilobytes(layer["bytes_per_party"])
        table.add_row(name, str(layer["rounds"]), f"{layer['opened']:,}", payload, f"{layer['dealt']:,}")
    console.print(table)
    online, offline, each = summary["online"], summary["offline"], summary["per_image"]
    phases = plain_table("phase", "rounds", "messages", "payload", "per input")
    for name, rounds, sent, payload, per_input in (
        ("online, each party", online["rounds"], online["messages_per_party"], online["bytes_per_party"],
         each["online_bytes_per_party"]),
        ("online, client", "", summary["parties"], online["client_bytes"], online["client_bytes"] / summary["batch"]),
        ("offline, dealer", "", summary["parties"] + 1, offline["bytes"], each["offline_bytes"]),
    ):  # fmt: skip
        phases.add_row(name, str(rounds), str(sent), kilobytes(payload), kilobytes(per_input))
    console.print(phases)
    networks = plain_table("network", "online", "inputs", "delays", "openings", "outputs", "offline")
    for name, latency in summary["latency"].items():
        parts = [milliseconds(seconds) for seconds in latency["parts"].values()]
        networks.add_row(
            name, milliseconds(latency["online_seconds"]), *parts, milliseconds(latency["offline_seconds"])
        )
    console.print(networks)
    console.print("Network alone: computing, packet headers, encryption and TCP's slow start come on top.")
