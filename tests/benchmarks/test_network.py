"""The emulated network: the switch by itself, real TCP over it, and predictions over slow links."""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from benchmarks.network.bench import NOTHING, Condition
from benchmarks.network.emulation import UNSHAPED, EmulatedNetwork, Probe
from benchmarks.network.hosts import Host
from benchmarks.network.switch import VIRTIO, Switch
from benchmarks.records import read
from mpc.cost import Link
from mpc.errors import UsageError
from parties.commands.command_line import main

SLACK = 0.05
"""s that what takes its time may take longer, once of many times: a busy machine adds to all but some of them."""


def takes(seconds: float, attempt: Callable[[], object]) -> None:
    """``attempt`` never takes less than so long, and not much more either."""
    for _ in range(20):
        started = time.monotonic()
        attempt()
        taken = time.monotonic() - started
        assert seconds <= taken
        if taken < seconds + SLACK:
            return
    raise AssertionError(f"{taken} s instead of {seconds}")


def packet(target: int, size: int, number: int = 0) -> bytes:
    """A made-up IPv4 packet of ``size`` bytes to the host of that number."""
    header = bytearray(20)
    header[0] = 0x45
    header[16:20] = bytes([10, 99, 0, target])
    return bytes(VIRTIO) + bytes(header) + number.to_bytes(4, "big") + bytes(size - 24)


class Wires:
    """A switch in a thread, whose wires are pairs of sockets instead of devices."""

    def __init__(self, hosts: int, seed: int = 0) -> None:
        pairs = [socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM) for _ in range(hosts)]
        self._sockets = [end for pair in pairs for end in pair]
        for ours, theirs in pairs:
            ours.settimeout(20)
            theirs.setblocking(False)
        self.ends = [ours for ours, _ in pairs]
        self._switch = Switch({i: pair[1].fileno() for i, pair in enumerate(pairs, 1)}, seed)
        self._commands, self._answers = os.pipe(), os.pipe()
        self._thread = threading.Thread(target=self._switch.serve, args=(self._commands[0], self._answers[1]))
        self._thread.start()

    def command(self, **words: object) -> object:
        os.write(self._commands[1], json.dumps(words).encode() + b"\n")
        # A switch that has failed answers nothing.
        assert select.select([self._answers[0]], [], [], 20)[0], "the switch does not answer"
        return json.loads(os.read(self._answers[0], 4096))

    def send(self, source: int, data: bytes) -> None:
        self.ends[source - 1].send(data)

    def receive(self, host: int) -> bytes:
        return self.ends[host - 1].recv(1 << 17)

    def nothing(self, host: int, seconds: float = 0.1) -> bool:
        end = self.ends[host - 1]
        end.settimeout(seconds)
        try:
            end.recv(1 << 17)
        except TimeoutError:
            return True
        finally:
            end.settimeout(20)
        return False

    def close(self) -> None:
        os.close(self._commands[1])
        self._thread.join(5)
        assert not self._thread.is_alive()
        for descriptor in (self._commands[0], *self._answers):
            os.close(descriptor)
        for end in self._sockets:
            end.close()


@pytest.fixture
def wires() -> Iterator[Wires]:
    with contextlib.closing(Wires(3)) as opened:
        yield opened


def test_packets_arrive_unchanged_after_the_longer_delay_of_both_ends(wires: Wires) -> None:
    wires.command(link=[1, 0.1, None, 0.0, 0.0])
    wires.command(link=[2, 0.02, None, 0.0, 0.0])
    for source, target, delay in ((1, 2, 0.1), (2, 1, 0.1), (2, 3, 0.02), (3, 3, 0.0)):
        sent = packet(target, 1000, number=source)

        def there(source: int = source, target: int = target, sent: bytes = sent) -> None:
            wires.send(source, sent)
            assert wires.receive(target) == sent

        takes(delay, there)


def test_a_link_sends_one_packet_after_the_other_at_its_rate(wires: Wires) -> None:
    wires.command(link=[1, 0.0, 100_000, 0.0, 0.0])

    def twenty() -> None:
        for number in range(20):
            wires.send(1, packet(2, 1000, number))
        assert [int.from_bytes(wires.receive(2)[VIRTIO + 20 : VIRTIO + 24], "big") for _ in range(20)] == [*range(20)]

    takes(0.2, twenty)


def test_two_that_send_to_one_share_its_link(wires: Wires) -> None:
    wires.command(link=[3, 0.0, 100_000, 0.0, 0.0])

    def twenty() -> None:
        for number in range(10):
            wires.send(1, packet(3, 1000, number))
            wires.send(2, packet(3, 1000, number))
        for _ in range(20):
            wires.receive(3)

    takes(0.2, twenty)


def test_a_packet_is_sent_while_it_arrives(wires: Wires) -> None:
    """Both links at the same rate: one transfer, not two."""
    for host in (1, 2):
        wires.command(link=[host, 0.02, 100_000, 0.0, 0.0])
    takes(0.12, lambda: (wires.send(1, packet(2, 10_000)), wires.receive(2)))


def test_what_comes_from_far_does_not_keep_what_comes_from_near(wires: Wires) -> None:
    wires.command(link=[1, 0.3, 1e6, 0.0, 0.0])
    wires.command(link=[3, 0.0, 1e6, 0.0, 0.0])
    wires.send(1, packet(3, 1000, number=1))
    wires.send(2, packet(3, 1000, number=2))
    assert wires.receive(3) == packet(3, 1000, number=2)
    assert wires.receive(3) == packet(3, 1000, number=1)


def test_a_cut_path_carries_nothing_until_it_is_healed(wires: Wires) -> None:
    wires.command(cut=[1, 2])
    wires.send(1, packet(2, 100))
    wires.send(2, packet(1, 100))
    wires.send(1, packet(3, 100))
    assert wires.receive(3)
    assert wires.nothing(1) and wires.nothing(2)
    wires.command(heal=[2, 1])
    wires.send(1, packet(2, 100))
    assert wires.receive(2)
    assert wires.command(report=True) == {"packets": 2, "bytes": 200, "dropped": 2, "doubled": 0}


def test_packets_come_twice_with_the_probability_given(wires: Wires) -> None:
    wires.command(link=[1, 0.0, None, 0.0, 0.5])
    sent = [packet(2, 100, number) for number in range(40)]
    doubled = 0
    for data in sent:
        wires.send(1, data)
        assert wires.receive(2) == data
        counts = wires.command(report=True)
        assert isinstance(counts, dict)
        assert (counts["packets"], counts["dropped"]) == (1, 0)
        assert counts["doubled"] in (0, 1)
        if counts["doubled"]:
            assert wires.receive(2) == data
            doubled += 1
    assert wires.nothing(2)
    # 5 standard deviations of this binomial distribution are 16.
    assert 4 <= doubled <= 36


def test_packets_are_lost_with_the_probability_given_and_the_same_ones_in_every_run() -> None:
    def arrived(seed: int) -> list[bytes]:
        with contextlib.closing(Wires(2, seed)) as wires:
            wires.command(link=[1, 0.0, None, 0.2, 0.0])
            sent = [packet(2, 100, number) for number in range(400)]
            got = []
            for start in range(0, 400, 5):  # few at a time: a socket's queue is short
                for data in sent[start : start + 5]:
                    wires.send(1, data)
                passed = 0
                left = 5
                while left:
                    counts = wires.command(report=True)
                    assert isinstance(counts, dict)
                    passed += counts["packets"]
                    left -= counts["packets"] + counts["dropped"]
                got += [wires.receive(2) for _ in range(passed)]
            return got

    first = arrived(seed=1)
    # 5 standard deviations of this binomial distribution are 40.
    assert 280 <= len(first) <= 360
    assert arrived(seed=1) == first != arrived(seed=2)


def test_headers_count_once_for_every_segment() -> None:
    with contextlib.closing(Wires(2)) as wires:
        big = bytearray(packet(2, 40 + 10_000))
        big[1] = 1  # TCP over IPv4
        big[2:4] = (40).to_bytes(2, sys.byteorder)
        big[4:6] = (1000).to_bytes(2, sys.byteorder)
        wires.send(1, bytes(big))
        wires.receive(2)
        assert wires.command(report=True) == {"packets": 1, "bytes": 10 * 1040, "dropped": 0, "doubled": 0}


def test_what_is_not_for_a_host_is_dropped(wires: Wires) -> None:
    wires.send(1, packet(77, 100))
    wires.send(1, bytes(VIRTIO) + b"\x60" + bytes(80))
    wires.send(1, packet(2, 100))
    assert wires.receive(2) == packet(2, 100)


@pytest.fixture(scope="module")
def network() -> Iterator[EmulatedNetwork]:
    try:
        emulated = EmulatedNetwork(["a", "b", "c"]).__enter__()
    except UsageError as error:
        pytest.skip(str(error))
    try:
        yield emulated
    finally:
        emulated.__exit__()


def test_the_emulation_does_what_it_is_asked(network: EmulatedNetwork) -> None:
    link = Link(20e-3, 50e6)
    network.shape(link)
    # Once of five times: a busy machine makes any link look worse, and none better.
    assert any(network.probe("a", "b", link.bandwidth).as_asked(link) for _ in range(5))
    network.shape(UNSHAPED)
    assert any(network.probe("a", "b").round_trip < 5e-3 for _ in range(5))


def test_a_probe_tells_other_links_apart() -> None:
    asked = Link(20e-3, 50e6)
    assert Probe(20.5e-3, 48e6).as_asked(asked)
    for wrong in (Probe(30e-3, 48e6), Probe(10e-3, 48e6), Probe(20e-3, 30e6), Probe(20e-3, 100e6)):
        assert not wrong.as_asked(asked)


def test_hosts_see_each_other_and_nothing_else(network: EmulatedNetwork) -> None:
    with socket.create_server(("127.0.0.1", 0)) as outside:
        address = outside.getsockname()
        with pytest.raises(OSError, match="refused"):
            network.hosts["a"].run(lambda: socket.create_connection(address, timeout=20))
        # And we are back where we were.
        with network.hosts["a"].entered(), pytest.raises(OSError, match="refused"):
            socket.create_connection(address, timeout=20)
        socket.create_connection(address, timeout=20).close()


def test_commands_run_on_their_host(network: EmulatedNetwork) -> None:
    code = "import socket; print(socket.create_server(('10.99.0.2', 0)).getsockname()[0])"
    done = subprocess.run([*network.hosts["b"].command(), sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == network.hosts["b"].address, done.stderr


def test_tcp_gets_through_losses_and_not_through_a_cut(network: EmulatedNetwork) -> None:
    network.shape(Link(2e-3, 200e6), loss=0.02)
    network.report()
    assert network.probe("a", "b", 20e6).bandwidth > 0
    assert network.report()["dropped"] > 0
    network.shape(UNSHAPED)
    network.cut("a", "b")
    address = (network.hosts["b"].address, 9)
    with pytest.raises(TimeoutError):
        network.hosts["a"].run(lambda: socket.create_connection(address, timeout=0.5))
    network.heal("b", "a")
    with pytest.raises(ConnectionRefusedError):
        network.hosts["a"].run(lambda: socket.create_connection(address, timeout=20))


def test_what_a_host_is_asked_to_do_may_fail(network: EmulatedNetwork) -> None:
    with pytest.raises(ZeroDivisionError):
        network.hosts["a"].run(lambda: 1 // 0)


def test_namespaces_go_with_their_hosts() -> None:
    try:
        with Host(1) as host:
            held = Path(f"/proc/self/fd/{host.namespace}").readlink()
    except UsageError as error:
        pytest.skip(str(error))
    assert held not in [path.readlink() for path in Path("/proc/self/fd").iterdir() if path.is_symlink()]


def test_conditions_are_told_apart_in_records() -> None:
    assert NOTHING.case() == {
        "network": "unshaped", "servers_rtt_ms": 0.0, "servers_mbit": 0.0, "client_rtt_ms": 0.0, "client_mbit": 0.0,
    }  # fmt: skip
    case = Condition("far", Link(5e-3, 1e9), Link(60e-3, 10e6)).case()
    assert case == {
        "network": "far", "servers_rtt_ms": 5.0, "servers_mbit": 1000.0, "client_rtt_ms": 60.0, "client_mbit": 10.0,
    }  # fmt: skip


@pytest.mark.slow
def test_predictions_over_slow_links_take_what_was_predicted(network: EmulatedNetwork, tmp_path: Path) -> None:
    out = tmp_path / "network.jsonl"
    done = _bench("--rtt", "20", "--bandwidth", "200", "--repeat", "3", "--json", "--out", str(out))
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    unshaped, shaped = summary["networks"]
    assert (unshaped["network"], shaped["network"]) == ("unshaped", "20 ms, 200 Mbit/s")
    assert 19 < shaped["check"]["servers"]["round_trip_ms"] < 30
    for phase in ("online", "offline"):
        alone = shaped["predicted"][f"{phase}_seconds"]
        assert alone < shaped[phase]["seconds"]["min"]
        # Computing comes on top; five times as much, if others use this machine too.
        assert shaped[phase]["seconds"]["min"] < alone + 5 * unshaped[phase]["seconds"]["max"]
    assert shaped["online"]["rounds"] == unshaped["online"]["rounds"] == 8
    for row in (unshaped, shaped):
        opened = row["wire"]["online"]["party0>party1"]
        assert opened["payload"] <= opened["bytes"]["min"] <= 1.02 * opened["payload"] + 5000
    records = read(out)
    assert [record.case["network"] for record in records] == ["unshaped", "20 ms, 200 Mbit/s"]
    assert records[1].figures["predicted.online_seconds"] == shaped["predicted"]["online_seconds"]


@pytest.mark.sampled(3)
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["moon"], "there is no network 'moon'"),
        (["LAN", "--parties", "1"], "at least 2"),
        (["--rtt", "-1"], "round-trip time"),
        (["--rtt", "1", "--bandwidth", "0"], "bandwidth"),
    ],
)
def test_what_there_is_not_is_refused_at_once(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", "network", *arguments]) == 2
    assert message in capsys.readouterr().err


def _bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "parties.commands.command_line", "bench", "network", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=240)
