"""What connections carry, by the kernel's count; and messages and payload per link, by the senders'."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks import session as sessions
from benchmarks import wire as wire_module
from benchmarks.network.hosts import Host
from benchmarks.records import flatten
from benchmarks.session import Session, as_predicted, links, measure, watched_session
from benchmarks.wire import Carried, Reader, Wire
from mpc.cost import Cost, messages
from mpc.errors import ConfigurationError, UsageError
from nn.derm import load_image, samples
from nn.derm.model import derm_model
from parties.client.report import RunReport
from parties.tally import Link, Sent
from protocols.trace.secret_tensor import SecretTensor

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the Linux kernel counts")

FAR_END = """
import socket, sys
address, six = sys.argv[1], ":" in sys.argv[1]
family = socket.AF_INET6 if six else socket.AF_INET
listener = socket.create_server((address, 0), family=family, dualstack_ipv6=address == "::")
print(listener.getsockname()[1], flush=True)
connections = []
for line in sys.stdin:
    kind, number, count = line.split()
    if kind == "accept":
        connections.append(listener.accept()[0])
    elif kind == "read":
        left = int(count)
        while left:
            left -= len(connections[int(number)].recv(left))
    elif kind == "write":
        connections[int(number)].sendall(bytes(int(count)))
    else:
        connections[int(number)].close()
    print("done", flush=True)
"""


class FarEnd:
    """Another process, which does with its connections what it is told."""

    def __init__(self, address: str, *prefix: str) -> None:
        command = [*prefix, sys.executable, "-c", FAR_END, address]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.address = address
        self.port = int(self._line())

    def _line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline()

    def do(self, kind: str, number: int = 0, count: int = 0) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{kind} {number} {count}\n")
        self.process.stdin.flush()
        assert self._line() == "done\n"

    def connect(self) -> socket.socket:
        connection = socket.create_connection((self.address, self.port))
        self.do("accept")
        return connection


@contextlib.contextmanager
def far_end(address: str = "127.0.0.1", *prefix: str) -> Iterator[FarEnd]:
    far = FarEnd(address, *prefix)
    with far.process:
        yield far
        far.process.kill()


def watch(far: FarEnd) -> Wire:
    pytest.importorskip("pyroute2")
    return Wire({"near": os.getpid(), "far": far.process.pid})


def read(connection: socket.socket, count: int) -> None:
    while count:
        count -= len(connection.recv(count))


TO, FRO = ("near", "far"), ("far", "near")


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "::ffff:127.0.0.1"])
def test_bytes_are_counted_exactly_in_both_directions(address: str) -> None:
    if ":" in address and not Path("/proc/net/if_inet6").exists():
        pytest.skip("this machine has no IPv6")
    # A listener for both families names an IPv4 peer by an IPv6 address: the two ends then disagree.
    with far_end("::" if address.startswith("::ffff") else address) as far:
        far.address = "127.0.0.1" if address.startswith("::ffff") else address
        with far.connect() as connection, watch(far) as wire:
            assert {link: carried.bytes for link, carried in wire.traffic().items()} == {TO: 0, FRO: 0}
            connection.sendall(bytes(3_000_001))
            far.do("read", 0, 3_000_001)
            far.do("write", 0, 12_345)
            read(connection, 12_345)
            traffic = wire.traffic()
            assert {link: carried.bytes for link, carried in traffic.items()} == {TO: 3_000_001, FRO: 12_345}
            # 64 KiB at most in each.
            assert traffic[TO].packets >= 3_000_001 // 65_536
            assert traffic[FRO].packets >= 1
            # It is counted until the next start, and no longer.
            assert wire.traffic()[TO].bytes == 3_000_001
            wire.start()
            assert wire.traffic()[TO].bytes == 0


def test_connections_that_begin_and_end(caplog: pytest.LogCaptureFixture) -> None:
    with far_end() as far, far.connect() as first, watch(far) as wire:
        with far.connect() as second:
            second.sendall(bytes(500))
            far.do("read", 1, 500)
            first.sendall(bytes(70))
            far.do("read", 0, 70)
            # One that is new is counted from its beginning, and both are one link.
            assert wire.traffic()[TO].bytes == 570
            assert not caplog.records
            wire.start()
            second.sendall(bytes(1000))
            far.do("read", 1, 1000)
            far.do("close", 1)
        first.sendall(bytes(9))
        far.do("read", 0, 9)
        assert wire.traffic()[TO].bytes == 9
        assert {r.getMessage() for r in caplog.records} == {
            f"a connection from {a} to {b} ended while it was measured: its bytes are missing" for a, b in (TO, FRO)
        }
        wire.start()
        caplog.clear()
        assert wire.traffic()[TO] == Carried()
        assert not caplog.records


def test_connections_of_others_are_not_counted() -> None:
    with far_end() as far, far_end() as stranger, far.connect(), stranger.connect() as other, watch(far) as wire:
        other.sendall(bytes(500))
        stranger.do("read", 0, 500)
        assert {link: carried.bytes for link, carried in wire.traffic().items()} == {TO: 0, FRO: 0}


def test_a_reader_may_be_used_by_any_thread() -> None:
    with far_end() as far, far.connect() as connection, watch(far) as wire:
        seen: list[Mapping[Link, Carried]] = []
        connection.sendall(bytes(100))
        far.do("read", 0, 100)
        thread = threading.Thread(target=lambda: seen.append(wire.traffic()))
        thread.start()
        thread.join()
        assert seen[0][TO].bytes == 100


def test_other_network_namespaces_have_readers_of_their_own() -> None:
    pytest.importorskip("pyroute2")
    with contextlib.ExitStack() as stack:
        try:
            host = stack.enter_context(Host(1))
        except UsageError as error:
            pytest.skip(str(error))
        far = stack.enter_context(far_end(host.address, *host.command()))
        connection = stack.enter_context(host.run(far.connect))
        pids = {"near": os.getpid(), "far": far.process.pid}
        outside = stack.enter_context(Wire(pids))
        wire = stack.enter_context(Wire(pids, [Reader(), host.run(Reader)]))
        connection.sendall(bytes(777))
        far.do("read", 0, 777)
        assert wire.traffic()[TO].bytes == 777
        assert outside.traffic() == {}


def test_a_process_that_ended() -> None:
    with far_end() as far, watch(far) as wire, far.connect():
        far.process.kill()
        far.process.wait()
        with (
            socket.create_server(("127.0.0.1", 0)) as listener,
            socket.create_connection(listener.getsockname()),
            pytest.raises(UsageError, match="has ended"),
        ):
            wire.traffic()


def test_where_nobody_counts(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def missing(name: str) -> None:
        raise ImportError(name)

    with monkeypatch.context() as patched:
        patched.setattr(wire_module.importlib, "import_module", missing)
        with pytest.raises(ConfigurationError, match=r"install tessera-mpc\[bench\]") as caught:
            Reader()

    class Mute:
        def bind(self) -> None:
            raise OSError("Protocol not supported")

    class Module:
        DiagSocket = Mute

    monkeypatch.setattr(wire_module.importlib, "import_module", lambda _: Module)
    with pytest.raises(ConfigurationError, match="answers no inet_diag request"):
        Reader()
    sessions.warn_without_wire(Session(None, None, None, str(caught.value)))  # type: ignore[arg-type]
    assert "install tessera-mpc[bench]" in capsys.readouterr().err


# -- runs ----------------------------------------------------------------------------------------------------------

PROGRAMS = {
    "reveal": lambda x, y: x,
    "sum": lambda x, y: x.sum(),
    "product": lambda x, y: x @ y,
    "depth": lambda x, y: (x * y) * (x + y) * x,
    "mixed": lambda x, y: (x @ y).within(-8, 8).sigmoid() * x,
}


CLUSTERS = [
    (2, "semi-honest"),
    pytest.param((3, "semi-honest"), marks=pytest.mark.slow),
    pytest.param((2, "malicious"), marks=pytest.mark.slow),
    (3, "malicious"),
]


@pytest.fixture(scope="module", params=CLUSTERS)
def session(request: pytest.FixtureRequest) -> Iterator[Session]:
    parties, security = request.param
    with watched_session(parties, security, 120.0) as watched:
        yield watched


def expected(predicted: Cost, program: int) -> dict[str, dict[Link, Sent]]:
    """Messages and payload of a run that is not from stock, for a cluster whose members have their usual names."""
    n = predicted.parties
    parties = [f"party{i}" for i in range(n)]
    rounds = predicted.online_rounds - 1
    opened = (predicted.online_bytes_per_party - predicted.online_output_bytes) // (n - 1)
    offline: dict[Link, Sent] = {("client", "dealer"): Sent(1, program)}
    offline |= {("client", party): Sent(1, program) for party in parties}
    offline |= {("dealer", p): Sent(1, b) for p, b in zip(parties, predicted.offline_dealer_bytes, strict=True)}
    offline |= {("dealer", "client"): Sent(1, predicted.offline_client_bytes)}
    offline |= {(party, "client"): Sent(1, 0) for party in parties}
    online = {("client", party): Sent(1, predicted.online_client_bytes // n) for party in parties}
    online |= {(a, b): Sent(rounds, opened) for a in parties for b in parties if a != b and rounds}
    online |= {(party, "client"): Sent(1, predicted.online_output_bytes) for party in parties}
    return {"offline": offline, "online": online}


def operands(session: Session) -> tuple[SecretTensor, SecretTensor]:
    rng = np.random.default_rng(3)
    x, y = (session.client.share(rng.uniform(-1, 1, (30, 30)), low=-1, high=1) for _ in range(2))
    return x, y


@pytest.mark.sampled(4)
@pytest.mark.parametrize("name", PROGRAMS)
def test_counted_messages_and_payload_are_the_predicted_ones(session: Session, name: str, tmp_path: Path) -> None:
    result = PROGRAMS[name](*operands(session))
    session.client.save(result, tmp_path / "program")
    report = session.measure(result).report
    assert report.links == expected(report.predicted, (tmp_path / "program").stat().st_size)
    assert report.online.messages == report.predicted.online_messages_per_party
    assert report.online.messages == messages(report.online.rounds, report.parties)
    assert report.offline.messages == report.parties + 1
    assert as_predicted(report)
    for phase in ("online", "offline"):
        off_by_one = replace(getattr(report, phase), messages=getattr(report, phase).messages + 1)
        assert not as_predicted(replace(report, **{phase: off_by_one}))


def test_the_wire_carries_the_payload_and_little_else(session: Session) -> None:
    pytest.importorskip("pyroute2")
    x, y = operands(session)
    # The first run of a cluster may still connect.
    for _ in range(2):
        run = session.measure((x @ y) * (x + y) * x)
    assert set(run.wire) == {"online", "offline"}
    for phase, counted in run.report.links.items():
        carried = run.wire[phase]
        for link, sent in counted.items():
            assert sent.payload < carried[link].bytes < 1.02 * sent.payload + 400 * sent.messages + 1000, (phase, link)
            assert carried[link].packets >= 1
            assert carried[link].retransmitted <= carried[link].bytes
        # Where nothing was sent there were pings at most; and no process is linked to itself.
        for link in carried.keys() - counted.keys():
            assert carried[link].bytes < 1000
            assert link[0] != link[1]
        both = sum(c.bytes for c in carried.values())
        payload = sum(s.payload for s in counted.values())
        assert payload < both < 1.02 * payload + 10_000


def test_links_of_several_runs(session: Session) -> None:
    x, y = operands(session)
    runs = [session.measure(x * y) for _ in range(3)]
    wire = links(runs)
    figures = flatten({"wire": wire})
    assert figures["wire.online.client>party0.messages"] == 1
    assert figures["wire.online.client>party0.payload"] == 2 * 8 * 900
    assert figures["wire.offline.party1>client.messages"] == 1
    if session.wire is not None:
        row = wire["online"]["client>party0"]
        assert row["bytes"]["count"] == 3
        assert row["bytes"]["min"] > 2 * 8 * 900
        assert figures["wire.online.client>party0.packets"]["median"] >= 1  # type: ignore[index]
    # Where nobody counted, what the senders say is there all the same.
    without = links([measure(session.client, x * y)])
    assert without["online"]["client>party0"] == {"messages": 1, "payload": 2 * 8 * 900}
    assert sessions.wire_cells(without["online"].values())[-3:] == ["", "", ""]


def test_streamed_runs_add_up(session: Session) -> None:
    remote = session.client.upload(derm_model(), "streamed")
    images = np.stack([load_image(sample.path) for sample in samples()[:3]])
    session.client.predict(remote, images[:1], chunk=1)
    one = session.client.last_run
    session.client.predict(remote, images, chunk=1)
    three = session.client.last_run
    assert isinstance(one, RunReport)
    assert isinstance(three, RunReport)
    assert (one.runs, three.runs) == (1, 3)
    assert three.online.messages == 3 * one.online.messages
    assert three.links == {
        phase: {link: Sent(3 * sent.messages, 3 * sent.payload) for link, sent in table.items()}
        for phase, table in one.links.items()
    }
    assert as_predicted(one)
    assert as_predicted(three)


def test_runs_from_stock_send_what_they_agree_on(session: Session) -> None:
    x, _ = operands(session)
    result = x * x * 3.0
    session.client.stock(result, 1)
    report = session.measure(result).report
    assert report.from_stock
    offline = report.links["offline"]
    assert offline["dealer", "party1"] == Sent(1, 0)
    assert offline["party0", "party1"] == offline["party1", "party0"] == offline["party0", "dealer"] == Sent(1, 0)
    assert as_predicted(report)
