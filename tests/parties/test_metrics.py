"""Metrics: what a scraper reads is what happened, labels stay few, and no scraper disturbs the server."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from mpc.errors import ConfigurationError, ProtocolViolation
from nn import Linear, Model, Sequential
from parties import Client, LocalCluster, Settings
from parties.host.counters import Metrics
from parties.messages.runs import Opening
from parties.messages.uploads import Upload
from parties.operate.metrics import page as metrics_page
from parties.operate.metrics.prometheus import PrometheusMetrics, outcomes, total
from parties.operate.metrics.serving import parse_address, serving
from parties.operate.status import look as status_look
from parties.stored.vault import VaultError
from parties.wire.links import Traffic

from .test_uploads import ID, TENSORS, speaking

HERE = ("127.0.0.1", 0)


def parse(text: str) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Samples by name and labels; that Prometheus's own parser takes them is part of the test."""
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


class Scrape:
    def __init__(self, text: str) -> None:
        self.samples = parse(text)

    def __call__(self, name: str, **labels: str) -> float:
        return self.samples[name, frozenset(labels.items())]

    def labels(self, name: str, label: str) -> set[str]:
        return {dict(labels)[label] for found, labels in self.samples if found == name}


def scrape(url: str) -> Scrape:
    with urllib.request.urlopen(url, timeout=10) as answer:
        assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
        return Scrape(answer.read().decode())


async def look(url: str) -> Scrape:
    return await asyncio.to_thread(scrape, url)


@pytest.mark.slow
def test_processes_count_what_the_report_says():
    with LocalCluster(2, metrics=True, settings=Settings(threads=1)) as cluster:
        urls = cluster.metrics_urls
        before = scrape(urls["party0"])
        assert before("tessera_runs_total", outcome="ok") == before("tessera_rounds_total") == 0
        reports = []
        with Client(cluster) as client:
            # What servers tell each other when they meet, of rules, is not of any run.
            time.sleep(status_look.FRESH + 0.1)
            met = {name: scrape(url) for name, url in urls.items()}
            for _ in range(3):
                x = client.share([1.0, -2.0, 0.5], low=-4, high=4)
                client.reveal((x * 0.25).sigmoid(interval=(-1, 1)) * x)
                reports.append(client.last_run)
        time.sleep(status_look.FRESH + 0.1)
        after = {name: scrape(url) for name, url in urls.items()}
    assert all(found("tessera_runs_total", outcome="ok") == 3 for found in after.values())
    assert all(found("tessera_runs_in_progress") == 0 for found in after.values())

    def payload(way: str, me: str, other: str) -> float:
        """Bytes since all had met."""
        name = f"tessera_{way}_payload_bytes_total"
        return after[me](name, peer=other) - met[me](name, peer=other)

    online = [phase for report in reports for phase in report.links["online"].items()]
    offline = [phase for report in reports for phase in report.links["offline"].items()]
    for me, other in (("party0", "party1"), ("party1", "party0")):
        found = after[me]
        assert found("tessera_rounds_total") == sum(report.online.rounds for report in reports)
        sent = sum(s.payload for link, s in online if link == (me, other))
        assert payload("sent", me, other) == payload("received", other, me) == sent > 0
        assert found("tessera_sent_bytes_total", peer=other) > sent
        dealt = sum(s.payload for link, s in offline if link == ("dealer", me))
        assert payload("received", me, "dealer") == dealt > 0
        for phase in ("preparing", "online", "waiting"):
            assert found("tessera_run_seconds_count", phase=phase) == 3
        waited = found("tessera_run_seconds_sum", phase="waiting")
        assert 0 < waited < found("tessera_run_seconds_sum", phase="online") < sum(r.online.seconds for r in reports)
        assert found("tessera_peer_connected", peer="dealer") == found("tessera_peer_connected", peer=other) == 1
        assert 0 < found("tessera_peer_round_trip_seconds", peer=other) < 1
        assert 1e7 < found("process_resident_memory_bytes") < 1e11
        assert found("process_cpu_seconds_total") > 0
    dealing = after["dealer"]("tessera_run_seconds_sum", phase="dealing")
    assert dealing == pytest.approx(sum(report.dealing_seconds for report in reports))


async def test_failures_by_kind_and_by_nobody_elses_words(site):
    async with serving(site.servers["party0"], HERE) as url:
        async with site.client() as client:
            x = client.share([0.5], low=-1, high=1)
            site.corrupt("party1", Opening, lambda m, b: [(m, [b[0][:-1]])])
            with pytest.raises(ProtocolViolation):
                await client.reveal(x * x * x)
            site.restore("party1")
            await client.release(await client.prepare(x * x))
            await site.settled()
        found = await look(url)
        assert found("tessera_runs_total", outcome="ProtocolViolation") == 1
        assert found("tessera_runs_total", outcome="released") == 1
        assert found("tessera_runs_total", outcome="ok") == 0
        for _ in range(3):
            site.servers["party0"].metrics.run_ended(os.urandom(8).hex())
        await asyncio.sleep(metrics_page.FRESH)
        found = await look(url)
        assert found("tessera_runs_total", outcome="other") == 3
        assert found.labels("tessera_runs_total", "outcome") == set(outcomes())


def model() -> Model:
    architecture = Sequential({"out": Linear(3, 2)}).architecture((3,))
    return Model(architecture, {n: np.ones(s) for n, s in architecture.parameters.items()})


async def test_what_is_there_at_the_moment(site):
    async with serving(site.servers["party0"], HERE) as url, serving(site.servers["dealer"], HERE) as dealer_url:
        async with site.client() as client, speaking(site, "company") as ask:
            x = client.share([0.5], low=-1, high=1)
            await client.stock(x * x, 3)
            await client.upload(model(), "m")
            # Without a description.
            await ask("dealer", Upload(version=ID, name="m", tensors=TENSORS, content="0" * 64))
            prepared = await client.prepare(x * x * x)
            found, dealer = await asyncio.gather(look(url), look(dealer_url))
            await client.release(prepared)
        assert found("tessera_runs_in_progress") == 1
        assert found("tessera_work_waiting") == dealer("tessera_work_waiting") == 0
        assert found("tessera_models") == dealer("tessera_models") == 1
        assert found("tessera_uploads_total", outcome="ok") == 1
        assert dealer("tessera_uploads_total", outcome="ProtocolViolation") == 1, "the parties never hear of it"
        (program,) = found.labels("tessera_stock_items", "program")
        assert len(program) == 12
        assert found("tessera_stock_items", program=program) == dealer("tessera_stock_items", program=program) == 3
        assert found.labels("tessera_sent_bytes_total", "peer") == {"dealer", "party1", "*"}


async def test_a_peer_that_is_gone_and_a_disk_that_fails(site, monkeypatch):
    server = site.servers["party0"]
    async with serving(server, HERE) as url:
        # Answers come over the dealer's own connection.
        await site.until(lambda: site.servers["dealer"].endpoint.connected("party0"))
        await site.stop("party1")
        await site.until(lambda: not server.endpoint.connected("party1"))

        def fail():
            raise VaultError("the disk is gone")

        monkeypatch.setattr(server, "fresh_stock", fail)
        found = await look(url)
    assert found("tessera_peer_connected", peer="party1") == 0
    assert found("tessera_peer_connected", peer="dealer") == 1
    assert found.labels("tessera_peer_round_trip_seconds", "peer") == {"dealer"}
    assert found("tessera_stock_readable") == 0


async def test_a_disk_that_hangs_costs_one_thread(site, monkeypatch):
    server, asked, over = site.servers["party0"], [], threading.Event()

    def hang():
        asked.append(1)
        over.wait(60)
        return {}

    monkeypatch.setattr(server, "fresh_stock", hang)
    monkeypatch.setattr(status_look, "PATIENCE", 0.1)
    monkeypatch.setattr(status_look, "FRESH", 0.0)
    found = await asyncio.gather(*(server.look.look() for _ in range(20)))
    found += [await server.look.look() for _ in range(3)]
    over.set()
    assert all(seen.stock is None for seen in found)
    assert len(asked) == 1


async def test_off_means_off(site):
    server = site.servers["party0"]
    async with serving(server, None) as url:
        assert url == ""
        assert type(server.metrics) is Metrics


def test_clients_are_added_up():
    links = [Traffic(1, 2, 3, 4, 5, 6), Traffic(10, 20, 30, 40, 50, 60)]
    assert total(links) == Traffic(11, 22, 33, 44, 55, 66)
    assert total([]) == Traffic()


def test_many_programs_are_cut_to_those_of_which_there_is_most():
    shortened = status_look.by_prefix({f"{i:064x}"[::-1]: i for i in range(1, 300)})
    assert len(shortened) == status_look.MAX_PROGRAMS
    assert min(shortened.values()) == 200
    assert all(len(program) == status_look.PREFIX for program in shortened)
    assert status_look.by_prefix({"ab" * 32: 1, "ab" * 6 + "cd" * 26: 2}) == {"ab" * 6: 3}


@pytest.mark.parametrize(
    ("text", "found"),
    [("9100", None), (":9100", ("127.0.0.1", 9100)), ("0.0.0.0:0", ("0.0.0.0", 0)), ("[::1]:9100", ("::1", 9100))],
)
def test_addresses(text, found):
    assert parse_address(text if found else f":{text}") == (found or ("127.0.0.1", 9100))


@pytest.mark.parametrize("text", ["", "host", "host:", "host:x", "host:65536", "host:-1", "host:\u0663"])
def test_what_is_no_address(text):
    with pytest.raises(ConfigurationError, match="give HOST:PORT"):
        parse_address(text)


async def test_a_port_in_use(site):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(ConfigurationError, match="metrics cannot be served at"):
            async with serving(site.servers["party0"], taken.getsockname()):
                pass


@pytest.mark.slow
def test_without_the_package(tmp_path):
    """The sentence names the extra; without --metrics nobody misses it."""
    (tmp_path / "prometheus_client.py").write_text(
        "raise ModuleNotFoundError(\"No module named 'prometheus_client'\", name='prometheus_client')"
    )
    program = (
        "import asyncio, parties, parties.servers.process, parties.commands.status, sys\n"
        "from parties.operate.metrics.serving import serving\n"
        "async def main():\n    async with serving(None, ('127.0.0.1', 0)): pass\n"
        "assert 'prometheus_client' not in sys.modules\nasyncio.run(main())"
    )
    root = str(Path(__file__).resolve().parents[2])
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), root])}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, env=env)
    assert "ConfigurationError: metrics need the package prometheus_client" in done.stderr
    assert "tessera-mpc[service]" in done.stderr


# -- scrapers --------------------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def page(render, **limits):
    with pytest.MonkeyPatch.context() as patch:
        for name, value in limits.items():
            patch.setattr(metrics_page, name, value)
        async with metrics_page.Page(render, HERE) as served:
            yield served, int(served.url.rpartition(":")[2].partition("/")[0])


async def text():
    return b"up 1\n"


async def ask(port: int, request: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    with contextlib.closing(writer), contextlib.suppress(ConnectionResetError):
        writer.write(request)
        async with asyncio.timeout(20):
            return await reader.read()
    return b""


GET = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (GET, b"200 OK"),
        (GET.replace(b"/metrics", b"/metrics?x=1"), b"200 OK"),
        (GET.replace(b"GET", b"HEAD"), b"200 OK"),
        (GET.replace(b"/metrics", b"/"), b"404"),
        (GET.replace(b"GET", b"POST"), b"405"),
        (b"rubbish\r\n\r\n", b"400"),
        (b"\r\n\r\n", b"400"),
        (b"\xff" * 20_000, b"431"),
        (GET[:-2] + b"X: " + b"x" * 20_000 + b"\r\n\r\n", b"431"),
    ],
)
async def test_requests(request_, status):
    async with page(text) as (_, port):
        answer = await ask(port, request_)
        assert answer.startswith(b"HTTP/1.1 " + status)
        assert answer.endswith(b"up 1\n") == (status == b"200 OK" and not request_.startswith(b"HEAD"))


async def test_half_a_request_and_an_unread_answer_end():
    async with page(text, PATIENCE=0.3) as (_, port):
        started = time.monotonic()
        half, unread = await asyncio.open_connection("127.0.0.1", port), socket.create_connection(("127.0.0.1", port))
        half[1].write(GET[:-2])
        unread.sendall(GET)
        with contextlib.suppress(ConnectionResetError):
            assert await half[0].read() == b""
        assert 0.2 < time.monotonic() - started < metrics_page.PATIENCE + 4, "5 s else"
        half[1].close()
        unread.close()
        assert b"200 OK" in await ask(port, GET)


async def test_whoever_goes_on_sending_is_cut_off():
    async with page(text) as (_, port):
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(GET)
        with pytest.raises(ConnectionError):
            async with asyncio.timeout(metrics_page.PATIENCE / 2):
                while True:
                    writer.write(bytes(65536))
                    await writer.drain()
        writer.close()
        assert b"200 OK" in await ask(port, GET)


async def test_the_page_is_not_made_for_everyone():
    made = []

    async def render():
        made.append(1)
        await asyncio.sleep(0.05)
        return b"up 1\n"

    async with page(render, FRESH=10.0) as (_, port):
        answers = await asyncio.gather(*(ask(port, GET) for _ in range(10)))
        assert all(answer.endswith(b"up 1\n") for answer in answers)
        assert len(made) == 1


def is_closed(scraper: socket.socket) -> bool:
    try:
        return scraper.recv(1) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True


async def test_hundreds_of_slow_scrapers_and_a_run(site):
    """They are turned away or dropped; runs go on, memory stays, and an honest scraper is served afterwards."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(metrics_page, "PATIENCE", 1.0)
        async with serving(site.servers["party0"], HERE) as url, site.client() as client:
            port = int(url.rpartition(":")[2].partition("/")[0])
            sockets = []
            for _ in range(200):
                one = socket.socket()
                one.setblocking(False)
                sockets.append(one)
                one.connect_ex(("127.0.0.1", port))
                await asyncio.sleep(0)
                with contextlib.suppress(OSError):
                    one.send(b"GET /metr")
            x = client.share([1.0, -2.0], low=-4, high=4)
            for _ in range(3):
                assert await client.reveal(x**2) == pytest.approx([1, 4], abs=1e-3)
            # One is taken in every PACE s; the kernel keeps the others waiting, or turns them away.
            async with asyncio.timeout(15):
                while sum(map(is_closed, sockets)) <= metrics_page.MAX_CONNECTIONS:  # noqa: ASYNC110 - of many sockets
                    await asyncio.sleep(0.05)
            for one in sockets:
                one.close()
            # Those that the kernel had kept waiting are taken in first, and turned away at worst.
            async with asyncio.timeout(10):
                while not (answer := await ask(port, GET)).startswith(b"HTTP/1.1 200"):  # noqa: ASYNC110 - nobody else tells
                    await asyncio.sleep(0.1)
            assert Scrape(answer.partition(b"\r\n\r\n")[2].decode())("tessera_runs_total", outcome="ok") == 3


async def test_a_flood_of_connections_leaves_the_event_loop_its_time():
    """From a process of its own, as fast as it can; what a loop turn takes is what a round of a run would wait."""
    flood = (
        "import socket, sys\nwhile True:\n    with socket.socket() as s:\n        s.setblocking(False)\n"
        "        s.connect_ex(('127.0.0.1', int(sys.argv[1])))"
    )
    async with page(text) as (served, port):
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", flood, str(port))
        try:
            taken, accept = [], served._serve
            served._serve = lambda connection: taken.append(1) or accept(connection)
            async with asyncio.timeout(60):
                while not taken:  # noqa: ASYNC110 - another process begins
                    await asyncio.sleep(0.01)
            began, busy, before = time.monotonic(), time.process_time(), len(taken)
            await asyncio.sleep(1)
            passed, busy = time.monotonic() - began, time.process_time() - busy
        finally:
            process.kill()
            await process.wait()
        assert 0 < len(taken) - before <= passed / metrics_page.PACE + 1
        assert busy < 0.3 * passed


def test_the_address_is_printed_and_refused(tmp_path):
    with LocalCluster(2, settings=Settings(threads=1), metrics=True) as cluster:
        assert cluster.metrics_urls.keys() == {"dealer", "party0", "party1"}
        assert all(url.startswith("http://127.0.0.1:") for url in cluster.metrics_urls.values())
        with pytest.raises(urllib.error.HTTPError, match="404"):
            scrape(cluster.metrics_urls["dealer"].replace("/metrics", "/"))
        done = subprocess.run(
            [sys.executable, "-m", "parties.commands.command_line", "dealer", "--cluster", cluster.path,
             "--metrics", "nowhere"],
            capture_output=True, text=True, timeout=60, env={**os.environ, "PYTHONPATH": str(Path.cwd())},
        )  # fmt: skip
        assert done.returncode == 3
        assert "give HOST:PORT" in done.stderr


async def test_what_counts_is_in_place_while_served(site):
    server = site.servers["party0"]
    async with serving(server, HERE):
        assert isinstance(server.metrics, PrometheusMetrics)
