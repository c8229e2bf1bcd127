"""What a server counts, for Prometheus; imported only where metrics are asked for (extra ``service``).

Per peer there is a line for each server, and one, ``peer="*"``, for all clients together.  Outcomes are `OK`,
`RELEASED`, and the classes of ``mpc.errors``; whatever else a peer may claim to have failed with is `OTHER`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import fields
from typing import Protocol

import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from mpc.errors import TesseraError
from parties.host.counters import OK, RELEASED, Metrics, Phase
from parties.messages.rules import EVERYONE
from parties.operate.site import Site
from parties.operate.status.look import Look, Seen
from parties.wire.links import Traffic
from parties.wire.version import package_version

OTHER = "other"

BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
"""s: a product on loopback takes some milliseconds, a big batch over a wide area network minutes."""

_TRAFFIC = (
    ("payload_sent", "tessera_sent_payload_bytes", "Payload sent to the peer."),
    ("bytes_sent", "tessera_sent_bytes", "Everything sent to the peer, before encryption."),
    ("payload_received", "tessera_received_payload_bytes", "Payload received from the peer."),
    ("bytes_received", "tessera_received_bytes", "Everything received from the peer, after decryption."),
)


class Measured(Site, Protocol):
    """A server that can be measured."""

    metrics: Metrics
    look: Look

    @property
    def work_waiting(self) -> int:
        """Pieces of work that wait for their client's turn."""


class PrometheusMetrics(Metrics):
    """Counts what it is told, and looks the rest up when it is asked."""

    def __init__(self, server: Measured) -> None:
        # When a counter was made is in process_start_time_seconds already.
        prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]
        self._server = server
        self._registry = CollectorRegistry()
        self._state = _State(server)
        self._outcomes = tuple(dict.fromkeys(outcomes()))
        self._runs = Counter("tessera_runs", "Runs that are over, by outcome.", ["outcome"], registry=self._registry)
        self._uploads = Counter(
            "tessera_uploads",
            "Uploads that are over, at a party; or refused, at the dealer.",
            ["outcome"],
            registry=self._registry,
        )
        self._rounds = Counter("tessera_rounds", "Rounds of runs that are over here.", registry=self._registry)
        self._seconds = Histogram(
            "tessera_run_seconds", "Time of runs, by phase.", ["phase"], buckets=BUCKETS, registry=self._registry
        )
        for outcome in self._outcomes:
            # A rate needs a beginning: failures of a kind that was never seen are 0, not missing.
            self._runs.labels(outcome)
            self._uploads.labels(outcome)
        self._registry.register(self._state)
        ProcessCollector(registry=self._registry)

    def run_ended(self, outcome: str) -> None:
        self._runs.labels(self._known(outcome)).inc()

    def upload_ended(self, outcome: str) -> None:
        self._uploads.labels(self._known(outcome)).inc()

    def spent(self, phase: Phase, seconds: float) -> None:
        self._seconds.labels(str(phase)).observe(seconds)

    def rounds(self, count: int) -> None:
        self._rounds.inc(count)

    def _known(self, outcome: str) -> str:
        return outcome if outcome in self._outcomes else OTHER

    async def render(self) -> bytes:
        """The page, in the text exposition format."""
        self._state.seen = await self._server.look.look()
        return prometheus_client.generate_latest(self._registry)


class _State(Collector):
    """What is so at the moment of a scrape."""

    def __init__(self, server: Measured) -> None:
        self._server = server
        self.seen = Seen()

    def collect(self) -> Iterator[Metric]:
        server, member = self._server, self._server.member
        about = GaugeMetricFamily("tessera_info", "Who this is.", labels=["version", "cluster", "member", "role"])
        about.add_metric([package_version(), server.cluster.name, member.name, str(member.role)], 1)
        yield about
        yield GaugeMetricFamily("tessera_runs_in_progress", "Runs announced, prepared or online.", len(server.jobs))
        yield GaugeMetricFamily(
            "tessera_work_waiting", "Pieces of work that wait for their client's turn.", server.work_waiting
        )
        yield GaugeMetricFamily("tessera_models", "Models held, of all owners.", server.versions_held)
        yield from self._workers()
        yield from self._links()
        yield from self._stock()
        yield from self._traffic()

    def _workers(self) -> Iterator[Metric]:
        seen = self._server.workers
        if seen is None:
            return
        yield GaugeMetricFamily("tessera_workers", "Workers that are there.", len(seen.runs))
        yield GaugeMetricFamily("tessera_workers_wanted", "Workers that there are to be.", seen.wanted)
        runs = GaugeMetricFamily("tessera_worker_runs", "Runs prepared or online on the worker.", labels=["worker"])
        for name, count in seen.runs.items():
            runs.add_metric([name], count)
        yield runs

    def _links(self) -> Iterator[Metric]:
        connected = GaugeMetricFamily("tessera_peer_connected", "Whether a link to the server stands.", labels=["peer"])
        trip = GaugeMetricFamily("tessera_peer_round_trip_seconds", "Last round trip to the server.", labels=["peer"])
        for peer in self.seen.peers:
            connected.add_metric([peer.peer], peer.connected)
            if peer.connected and peer.round_trip is not None:
                trip.add_metric([peer.peer], peer.round_trip)
        yield connected
        yield trip

    def _stock(self) -> Iterator[Metric]:
        up = GaugeMetricFamily("tessera_stock_readable", "Whether the ledger of preprocessing answers.")
        up.add_metric([], self.seen.stock is not None)
        items = GaugeMetricFamily("tessera_stock_items", "Preprocessing that is fresh, by program.", labels=["program"])
        for program, count in (self.seen.stock or {}).items():
            items.add_metric([program], count)
        yield up
        yield items

    def _traffic(self) -> Iterator[Metric]:
        cluster, endpoint = self._server.cluster, self._server.endpoint
        links = {server.name: endpoint.traffic(server.name) for server in cluster.servers if server != endpoint.me}
        links[EVERYONE] = total(endpoint.traffic(member.name) for member in cluster.clients)
        for attribute, name, text in _TRAFFIC:
            family = CounterMetricFamily(name, text, labels=["peer"])
            for peer, traffic in links.items():
                family.add_metric([peer], getattr(traffic, attribute))
            yield family


def total(links: Iterable[Traffic]) -> Traffic:
    """The sum of their counters."""
    found = Traffic()
    for link in links:
        for field in fields(Traffic):
            setattr(found, field.name, getattr(found, field.name) + getattr(link, field.name))
    return found


def outcomes() -> Iterator[str]:
    """All there are."""
    yield from (OK, RELEASED, OTHER)
    yield from (kind.__name__ for kind in _tree(TesseraError) if kind.__module__ == TesseraError.__module__)


def _tree(kind: type[TesseraError]) -> Iterator[type[TesseraError]]:
    yield kind
    for derived in kind.__subclasses__():
        yield from _tree(derived)
