"""What a run will cost, in the words in which ``tessera bench inference --json`` says what it did cost."""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping
from typing import Any, Literal

from benchmarks.computing import calibrated
from benchmarks.models import subject
from benchmarks.records import Recorder, flatten
from benchmarks.report import gigabytes, kilobytes, megabytes, milliseconds, plain_table, stdout_console
from mpc.cost import Cost, Link
from mpc.errors import UsageError
from mpc.security import Security
from parties.operate.check.measured import read_links

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

Networks = Mapping[str, tuple[Link, ...]]
"""Among the servers, and between them and the client; a third, where the dealer's to the parties is another."""


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


def latencies(cost: Cost, networks: Networks) -> dict[str, dict[str, Any]]:
    """Predicted seconds by network; see ``Cost.latency`` for the model and what it leaves out."""
    table = {}
    for name, links in networks.items():
        latency = cost.latency(*links)
        table[name] = {
            **{of: _link(link) for of, link in zip(("servers", "client", "dealer"), links, strict=False)},
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
    networks, parties = _networks(options)
    security = _security(options.security)
    if parties < 2:
        raise UsageError(f"{parties} parties: additive sharing needs at least 2")
    chosen = subject(options)
    case = chosen.case(options.batch, parties, security)
    summaries = {}
    for objective in OBJECTIVES if options.objective == "both" else (options.objective,):
        cost = chosen.cost(options.batch, parties, security, objective)
        summary = {**case, **predicted(cost, options.batch), "latency": latencies(cost, networks)}
        summary["objective"] = objective
        if options.computing:
            program = chosen.program(options.batch, security, objective)
            computing = calibrated(chosen.model, program, parties, security)
            summary["computing"] = computing.to_dict()
            for latency in summary["latency"].values():
                latency["with_computing"] = {
                    "online_seconds": latency["online_seconds"] + computing.online,
                    "offline_seconds": latency["offline_seconds"] + computing.dealing + computing.preparing,
                }
        if options.per_month is not None:
            summary["month"] = _month(cost, options.batch, options.per_month)
        recorder.add(
            "cost",
            {**case, "objective": objective},
            flatten(summary, "online", "offline", "per_image", "layers", "latency"),
        )
        summaries[objective] = summary
        if not options.json:
            _print(summary)
    if options.json:
        recorder.print_json(summaries if len(summaries) > 1 else summary)
    return recorder.finish()


def _networks(options: argparse.Namespace) -> tuple[Networks, int]:
    """And how many parties there are."""
    if options.links is not None:
        if options.rtt is not None or options.bandwidth is not None:
            raise UsageError("--links has measured what --rtt and --bandwidth say: give the one or the others")
        links = read_links(options.links)
        return {f"cluster {links.name}": (links.servers, links.client, links.dealer)}, links.parties
    if options.rtt is None and options.bandwidth is None:
        return NETWORKS, options.parties
    if options.rtt is None or options.bandwidth is None:
        raise UsageError("--rtt and --bandwidth go together: give both, in ms and Mbit/s")
    link = Link(options.rtt * MILLI, options.bandwidth * MEGA)
    return {f"{options.rtt:g} ms, {options.bandwidth:g} Mbit/s": (link, link)}, options.parties


def _month(cost: Cost, batch: int, predictions: int) -> dict[str, Any]:
    """Payload in bytes of so many predictions, in full batches."""
    runs = math.ceil(predictions / batch)
    return {
        "predictions": predictions,
        "party_sends": runs * cost.online_bytes_per_party,
        "dealer_sends": runs * cost.offline_bytes,
        "client_sends": runs * cost.online_client_bytes,
    }


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
    computed = summary.get("computing")
    networks = plain_table("network", "online", "inputs", "delays", "openings", "outputs", "offline")
    if computed:
        networks.add_column("with computing: online", justify="right")
        networks.add_column("offline", justify="right")
    for name, latency in summary["latency"].items():
        parts = [milliseconds(seconds) for seconds in latency["parts"].values()]
        whole = [milliseconds(seconds) for seconds in latency.get("with_computing", {}).values()]
        networks.add_row(
            name, milliseconds(latency["online_seconds"]), *parts, milliseconds(latency["offline_seconds"]), *whole
        )
    console.print(networks)
    if computed:
        console.print(
            f"Computing, on this machine: dealing {milliseconds(computed['dealing'])}, at a party"
            f" {milliseconds(computed['preparing'])} offline and {milliseconds(computed['online'])} online; a run is"
            f" charged {megabytes(computed['memory'])} of a server's memory."
        )
    left_out = "packet headers, encryption and TCP's slow start come on top."
    console.print(f"Beside these, {left_out}" if computed else f"Network alone: computing, {left_out}")
    if month := summary.get("month"):
        console.print(
            f"{month['predictions']:,} predictions a month: {gigabytes(month['party_sends'])} sent by each party,"
            f" {gigabytes(month['dealer_sends'])} by the dealer, {gigabytes(month['client_sends'])} by clients."
        )
