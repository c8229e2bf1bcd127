"""``tessera check`` within one process: what is wrong is found, named, and told apart; askers are kept in bounds."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import io
import json
import os
import socket
import sqlite3
import threading
from dataclasses import replace
from types import SimpleNamespace

import msgspec
import pytest
from msgspec.structs import replace as changed
from rich.console import Console

from mpc.errors import ConfigurationError, ProtocolViolation
from parties import KeyPair
from parties.commands.check import check
from parties.local.ports import reserved_ports
from parties.members.cluster import Role
from parties.messages.check import (
    MAX_PROBE_BYTES,
    CheckRefused,
    FolderSeen,
    LinkSeen,
    LookAround,
    Looked,
    Measure,
    Measured,
    Probe,
    Probed,
    Reach,
)
from parties.messages.conversation import RequestFailed
from parties.messages.failures import Fault
from parties.messages.runs import Prepare
from parties.operate.check import data_folder as store_module
from parties.operate.check.desk import CAPACITY, REFILL, Allowance
from parties.operate.check.probing import LADDER_BYTES, LONG_ENOUGH, Prober
from parties.operate.check.reach import probe
from parties.operate.check.report import LOW_SPACE
from parties.servers.process import make_server
from parties.stored.vault import VaultError
from parties.wire import transport as transport_module
from parties.wire.events import Delivery
from parties.wire.messages import decode_header, encode_header

ID = "ab" * 16


@pytest.fixture
def site(wired):
    """What is looked at here are links."""
    return wired


async def look(site, name="clinic", patience=4.0, **options):
    return await check(site.cluster, site.keys[name], patience, **options)


def links(report):
    return {(row.sender.name, row.receiver.name): row for row in report.links}


def host(report, name):
    return next(row for row in report.hosts if row.server.name == name)


async def test_all_is_well(site):
    report = await look(site)
    assert report.ok
    assert report.exit_code == 0
    assert not report.failures()
    assert not report.warnings() or "free" in report.warnings()[0]
    servers = {"dealer", "party0", "party1"}
    assert set(links(report)) == {
        *(("clinic", name) for name in servers),
        *((name, "clinic") for name in servers),
        *((a, b) for a in servers for b in servers if a != b),
    }
    for row in report.links:
        assert row.reach is Reach.OPEN
        assert 0 < row.round_trip < 1
        assert 1e5 < row.rate < 1e12
    for row in report.hosts:
        assert abs(row.clock) < 1
        assert 0 < row.folder.free <= row.folder.total


async def test_for_people_and_for_programs(site):
    await site.stop("party1")
    report = await look(site, patience=1)
    found = json.loads(json.dumps(report.to_dict()))
    assert found["exit_code"] == 6
    assert [server["name"] for server in found["servers"]] == ["dealer", "party0", "party1"]
    assert [server["ok"] for server in found["servers"]] == [True, True, False]
    link = next(link for link in found["links"] if (link["from"], link["to"]) == ("party0", "party1"))
    assert (link["tcp"], link["kind"], link["at_fault"]) == ("refused", "PeerUnavailable", "party1")
    text = io.StringIO()
    report.print(Console(file=text, width=120))
    assert text.getvalue().count("FAIL  party1: nothing listens") == 1
    colours = io.StringIO()
    report.print(Console(file=colours, width=120, force_terminal=True, color_system="standard"))
    assert "\x1b[32mOK" in colours.getvalue()
    assert "31mFAIL" in colours.getvalue()


async def test_bandwidth_can_be_left_out(site):
    for name in site.servers:
        site.corrupt(name, Probe, lambda *_: pytest.fail("something big was sent"))
    report = await look(site, bandwidth=False)
    assert report.ok
    assert all(row.rate is None for row in report.links)


async def test_bandwidth_where_messages_must_be_small(site):
    await site.stop("dealer", "party0", "party1")
    site.cluster = replace(site.cluster, settings=changed(site.cluster.settings, max_message_mb=1))
    await site.start("dealer", "party0", "party1")
    report = await look(site)
    assert report.ok, report.failures()
    assert all(row.rate > 0 for row in report.links)


async def test_a_party_that_is_down_is_noticed_by_all(site):
    await site.stop("party1")
    report = await look(site, patience=2)
    assert report.exit_code == 6
    (failure,) = report.failures()
    assert "nothing listens at" in failure
    assert "`tessera party 1`" in failure
    assert "noticed by clinic, dealer, party0" in failure
    assert {pair for pair, row in links(report).items() if not row.ok} == {
        ("clinic", "party1"),
        ("dealer", "party1"),
        ("party0", "party1"),
    }
    assert links(report)["party0", "dealer"].rate > 0


@contextlib.contextmanager
def listening(address, *, full=False):
    """A socket that takes connections and says nothing; when full, packets to it are dropped as by a firewall."""
    hostname, _, port = address.rpartition(":")
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(socket.socket())
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind((hostname, int(port)))
        server.listen(0 if full else 64)
        for _ in range(4 if full else 0):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                filler.connect((hostname, int(port)))
        yield


async def test_a_port_that_something_else_has(site):
    await site.stop("party1")
    with listening(site.cluster.parties[1].address):
        report = await look(site, patience=1.5)
    assert report.exit_code == 6
    assert links(report)["clinic", "party1"].reach is Reach.OPEN
    assert any("does not answer as Tessera" in failure for failure in report.failures())


async def test_a_firewall_that_drops_is_told_from_a_closed_port(site):
    await site.stop("party1")
    with listening(site.cluster.parties[1].address, full=True):
        await asyncio.sleep(0.05)
        report = await look(site, patience=1.5)
    assert report.exit_code == 6
    assert {links(report)[who, "party1"].reach for who in ("clinic", "dealer", "party0")} == {Reach.SILENT}
    (failure,) = report.failures()
    port = site.cluster.parties[1].address.rpartition(":")[2]
    assert f"firewall drops what is sent to it: let TCP port {port} through" in failure


async def test_a_party_that_goes_in_the_middle(site):
    site.corrupt("party1", Looked, lambda *_: [])
    started = asyncio.get_running_loop().time()
    checking = asyncio.create_task(look(site, patience=30))
    await asyncio.sleep(0.5)
    await site.stop("party1")
    report = await checking
    assert asyncio.get_running_loop().time() - started < 15
    assert report.exit_code == 7
    assert host(report, "party1").error.peer == "party1"
    assert links(report)["clinic", "dealer"].rate > 0


async def test_a_party_that_stops_measuring_is_asked_once(site):
    site.corrupt("party1", Measured, lambda *_: [])
    report = await look(site, patience=1)
    assert report.exit_code == 6
    (failure,) = report.failures()
    assert failure.startswith("party1: did not answer within")
    assert failure.endswith("(noticed by clinic)")
    assert {pair for pair, row in links(report).items() if not row.ok} == {("party1", "dealer")}
    assert links(report)["party0", "party1"].rate > 0


async def test_what_a_server_measures_is_its_own_word(site):
    fault = Fault("PeerLost", "party0", "went away")
    site.corrupt("party1", Measured, lambda m, b: [(Measured(request=m.request, fault=fault), b)])
    report = await look(site)
    assert report.exit_code == 7
    assert report.failures() == ["party0: went away (noticed by party1)"]


async def test_a_link_that_fails_in_one_direction(site, monkeypatch):
    """As if a firewall rejected what party0 sends to party1, and nothing else."""
    monkeypatch.setattr(type(site.cluster), "fingerprint", "f" * 64)
    await site.stop("dealer", "party0", "party1")
    first, second = site.cluster.parties
    (port,) = site.stack.enter_context(reserved_ports(1))
    nowhere = replace(second, address=f"127.0.0.1:{port}")
    await serve_other(site, "party0", replace(site.cluster, parties=(first, nowhere)))
    await site.start("dealer", "party1")
    report = await look(site, patience=2)
    assert report.exit_code == 6
    assert {pair for pair, row in links(report).items() if not row.ok} == {("party0", "party1"), ("party1", "party0")}
    assert links(report)["party0", "party1"].reach is Reach.REFUSED
    assert links(report)["party1", "party0"].reach is Reach.OPEN
    assert "cannot connect back" in str(links(report)["party1", "party0"].error)


@pytest.mark.parametrize(("speed", "most"), [(1e5, 1), (1e6, 4), (1e9, 8)])
async def test_a_slow_link_is_not_filled(site, monkeypatch, speed, most):
    """Seconds of somebody's run would wait behind 8 MiB."""
    sent = []

    async def crawl(self, peer, size, patience, *, there):
        sent.append(size)
        return 0.05 + size / speed

    monkeypatch.setattr(Prober, "_probe", crawl)
    assert await Prober(site.servers["dealer"].endpoint, None).upload("party0", 0.05, 1) == pytest.approx(
        speed, rel=0.5
    )
    assert len(sent) == most
    assert (sum(sent) - sent[-1]) / speed < 3 * LONG_ENOUGH


async def test_how_far_tcp_gets(monkeypatch):
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{server.getsockname()[1]}"
        assert await probe(address, 2) is Reach.REFUSED
        server.listen()
        assert await probe(address, 2) is Reach.OPEN
        assert await probe(f"localhost:{server.getsockname()[1]}", 2) is Reach.OPEN
    assert await probe("no-such-host.invalid:7000", 5) is Reach.UNRESOLVED

    async def unreachable(*_):
        raise OSError(errno.EHOSTUNREACH, "No route to host")

    monkeypatch.setattr(asyncio, "open_connection", unreachable)
    assert await probe("127.0.0.1:7000", 1) is Reach.UNREACHABLE


async def serve_other(site, name, cluster, keys=None):
    """Starts ``name`` with another cluster file, and maybe other keys, than everybody else's."""
    if name in site.tasks:
        await site.stop(name)
    folder = site.folder / f"other-{name}"
    server = make_server(cluster, cluster.member(name), keys or site.keys[name], folder)
    site.servers[name], site.tasks[name] = server, asyncio.create_task(server.serve())
    await server.listening.wait()


async def test_a_party_with_the_wrong_key(site):
    keys = KeyPair.generate()
    first, second = site.cluster.parties
    await serve_other(site, "party1", replace(site.cluster, parties=(first, replace(second, key=keys.public))), keys)
    report = await look(site, patience=2)
    assert report.exit_code == 9
    assert "does not hold the key" in str(links(report)["clinic", "party1"].error)
    assert type(links(report)["party0", "party1"].error).__name__ == "AuthenticationError"


async def test_a_party_that_does_not_know_the_client(site):
    clinic, company = site.cluster.clients
    other = replace(site.cluster, clients=(replace(clinic, key=KeyPair.generate().public), company))
    await serve_other(site, "party1", other)
    report = await look(site, patience=2)
    assert report.exit_code == 9
    assert "lacks the key of clinic" in str(host(report, "party1").error)


async def test_another_cluster_file(site):
    other = replace(site.cluster, settings=changed(site.cluster.settings, round_timeout=3.0))
    await serve_other(site, "party1", other)
    report = await look(site, patience=2)
    assert report.exit_code == 10
    assert other.fingerprint[:16] in str(host(report, "party1").error)
    assert "give every process the same file" in str(links(report)["dealer", "party1"].error)
    assert links(report)["dealer", "party0"].ok


async def test_another_version(site, monkeypatch):
    monkeypatch.setattr(transport_module, "package_version", lambda: "0.0.7")
    await site.restart("party1")
    monkeypatch.undo()
    report = await look(site, patience=2)
    assert report.exit_code == 10
    assert "runs Tessera 0.0.7" in str(host(report, "party1").error)
    assert "install one release everywhere" in str(links(report)["party0", "party1"].error)


@pytest.mark.parametrize(("late", "named"), [(["party1"], "party1"), (["dealer", "party0", "party1"], "clinic")])
async def test_the_clock_that_differs_is_named_and_no_failure(site, late, named):
    for name in late:
        site.corrupt(name, Looked, lambda m, b: [(changed(m, clock=m.clock + 37), b)])
    report = await look(site, bandwidth=False)
    assert report.exit_code == 0
    (warning,) = [text for text in report.warnings() if "clock" in text]
    assert warning.startswith(f"{named}: its clock is 37.")
    assert ("ahead" if named == "party1" else "behind") in warning
    assert "NTP" in warning


# -- stores ----------------------------------------------------------------------------------------------------------


async def test_a_data_file_that_cannot_be_written(site, monkeypatch):
    @contextlib.contextmanager
    def failing():
        try:
            raise sqlite3.OperationalError("disk I/O error")
        except sqlite3.OperationalError as error:
            raise VaultError("data file /srv/secret-place cannot be used") from error
        yield

    monkeypatch.setattr(site.servers["party1"].material.ledger._vault, "transaction", failing)
    report = await look(site, bandwidth=False)
    assert report.exit_code == 11
    (failure,) = report.failures()
    assert failure.startswith("party1: its data file cannot be used (disk I/O error): see to its disk")
    assert "secret-place" not in failure
    monkeypatch.undo()
    assert (await look(site, bandwidth=False)).ok


async def test_a_store_that_is_closed(site):
    site.servers["party1"].material.ledger.close()
    (failure,) = (await look(site, bandwidth=False)).failures()
    assert failure.startswith("party1: its data file cannot be used (see its log)")


async def test_a_full_disk(site, monkeypatch):
    write = os.write

    def full(descriptor, data):
        if len(data) == store_module.TRIAL_BYTES:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(descriptor, data)

    monkeypatch.setattr(store_module.os, "write", full)
    report = await look(site, bandwidth=False)
    monkeypatch.undo()
    assert report.exit_code == 11
    assert all("No space left on device" in failure for failure in report.failures())
    assert len(report.failures()) == 3
    assert not list(site.folder.rglob(".check"))
    assert (await look(site, bandwidth=False)).ok


async def test_a_data_folder_that_is_gone(site):
    site.data("party0").rename(site.folder / "moved")
    report = await look(site, bandwidth=False)
    (site.folder / "moved").rename(site.data("party0"))
    (failure,) = report.failures()
    assert failure.startswith("party0: its data folder cannot be written (No such file or directory)")


async def test_a_disk_that_hangs_costs_one_thread(site, monkeypatch):
    back, asked = threading.Event(), []

    def hang(*_):
        asked.append(1)
        back.wait(20)
        return FolderSeen(LOW_SPACE, LOW_SPACE)

    monkeypatch.setattr("parties.operate.check.desk.look_at_folder", hang)
    for _ in range(2):
        report = await look(site, bandwidth=False, patience=0.5)
        assert len(report.failures()) == 3
        assert all("has not answered within 0.5 s" in failure for failure in report.failures())
    assert len(asked) == 3
    back.set()
    assert (await look(site, bandwidth=False)).ok


async def test_little_room_is_a_warning(site, monkeypatch):
    usage = SimpleNamespace(free=LOW_SPACE - 1, total=10 * LOW_SPACE)
    monkeypatch.setattr(store_module.shutil, "disk_usage", lambda _: usage)
    report = await look(site, bandwidth=False)
    assert report.ok
    assert "dealer: 2.15 GB are free" in report.warnings()[0]


async def test_what_a_crash_left_in_the_folder_is_cleared(site):
    (site.data("party0") / ".check").write_bytes(b"left")
    assert (await look(site, bandwidth=False)).ok
    assert not (site.data("party0") / ".check").exists()


# -- beside others ---------------------------------------------------------------------------------------------------


async def test_two_checks_at_once_both_end(site):
    reports = await asyncio.gather(look(site), look(site, "company"))
    assert all(report.ok for report in reports)


async def test_runs_go_on_meanwhile(site):
    async with site.client("company") as client:
        checking = asyncio.create_task(look(site))
        runs = 0
        while not checking.done():
            x = client.share([1.0, -2.0], low=-4, high=4)
            assert await client.reveal(x**2) == pytest.approx([1, 4], abs=1e-3)
            runs += 1
        assert (await checking).ok
    assert runs > 1


class Asker:
    """A client that asks what it likes."""

    def __init__(self, site, name="company"):
        self.endpoint = site.endpoint(name)

    async def __aenter__(self):
        await self.endpoint.start()
        await self.endpoint.connect(deadline=20)
        return self

    async def __aexit__(self, *_):
        await self.endpoint.close()

    def say(self, message, *payload):
        self.endpoint.send("party0", message, payload)

    async def answers(self, count):
        found = []
        async with asyncio.timeout(20):
            while len(found) < count:
                event = await self.endpoint.receive()
                if isinstance(event, Delivery):
                    found.append(event.message)
        return found


def ids(count):
    return [f"{i:032x}" for i in range(count)]


async def test_one_look_at_a_time(site, monkeypatch):
    looks = []
    monkeypatch.setattr("parties.operate.check.desk.look_at_folder", lambda *_: looks.append(1) or FolderSeen(1, 1))
    async with Asker(site) as asker:
        for query in ids(20):
            asker.say(LookAround(request=query, patience=1.0))
        kinds = [type(message) for message in await asker.answers(20)]
    assert kinds.count(Looked) == len(looks) == 1
    assert kinds.count(CheckRefused) == 19


async def test_one_measurement_at_a_time(site):
    async with Asker(site) as asker:
        for query in ids(10):
            asker.say(Measure(request=query, peer="party1"))
        answers = await asker.answers(10)
    # Those that come when the first one has ended are measured again.
    assert 1 <= [type(message) for message in answers].count(Measured) <= 3
    assert all("busy" in message.reason for message in answers if isinstance(message, CheckRefused))


async def test_bytes_are_rationed_for_each_asker(site):
    few = CAPACITY // MAX_PROBE_BYTES
    async with Asker(site) as asker, Asker(site, "clinic") as other:
        for query in ids(4 * few):
            asker.say(Probe(request=query, reply=MAX_PROBE_BYTES))
        other.say(Probe(request=ID, reply=10), bytes(20))
        (answer,) = await other.answers(1)
        assert isinstance(answer, Probed)
        answers = await asker.answers(4 * few)
        refused = [message for message in answers if isinstance(message, CheckRefused)]
        assert len(refused) >= few
        assert all(message.wait > 0 for message in refused)


def test_the_allowance_comes_back_with_time():
    time = [0.0]
    allowance = Allowance(lambda: time[0])
    assert allowance.wait(CAPACITY) == 0
    assert allowance.wait(REFILL) == pytest.approx(1.0)
    assert allowance.wait(REFILL) == pytest.approx(1.0)
    time[0] = 1.0
    assert allowance.wait(REFILL) == 0
    time[0] = 1e6
    assert allowance.wait(CAPACITY) == 0
    assert allowance.wait(1) > 0
    # One check of a cluster of five servers, which asks a server for four links beside its own two ways.
    assert 6 * LADDER_BYTES <= CAPACITY


@pytest.mark.parametrize("peer", ["clinic", "party0", "nobody"])
async def test_only_links_between_servers_are_measured(site, peer, caplog):
    async with Asker(site) as asker:
        asker.say(Measure(request=ID, peer=peer))
        asker.say(Probe(request=ID))
        assert [type(answer) for answer in await asker.answers(2)] == [RequestFailed, Probed]
    assert "refused" in caplog.text


async def test_a_probe_that_is_too_big(site, caplog):
    async with Asker(site) as asker:
        asker.say(Probe(request=ID), bytes(MAX_PROBE_BYTES + 1))
        asker.say(Probe(request=ID))
        assert [type(answer) for answer in await asker.answers(2)] == [RequestFailed, Probed]
    assert "sent a probe of" in caplog.text


async def test_a_stranger_cannot_ask(site):
    with pytest.raises(ConfigurationError, match="lists no client"):
        await check(site.cluster, KeyPair.generate(), 1)
    with pytest.raises(ConfigurationError, match="lists no client"):
        await check(site.cluster, site.keys["party0"], 1)
    with pytest.raises(ConfigurationError, match="more than 0"):
        await check(site.cluster, site.keys["clinic"], 0)


# -- lies ------------------------------------------------------------------------------------------------------------


@pytest.mark.sampled(3)
@pytest.mark.parametrize(
    ("kind", "lie"),
    [
        (Looked, lambda m, b: [(changed(m, links=m.links[:-1]), b)]),
        (Looked, lambda m, b: [(changed(m, links=(*m.links, m.links[0])), b)]),
        (Looked, lambda m, b: [(changed(m, links=(LinkSeen("nobody", Reach.OPEN, 0.1), *m.links[1:])), b)]),
        (Looked, lambda m, b: [(Probed(request=m.request), b)]),
        (Measured, lambda m, b: [(Probed(request=m.request), b)]),
        (Probed, lambda m, b: [(m, [bytes(7)])]),
        (Probed, lambda m, b: [(m, [])] if b else [(m, [bytes(1)])]),
    ],
)
async def test_a_server_that_answers_nonsense_is_named(site, kind, lie):
    site.corrupt("party1", kind, lie)
    report = await look(site)
    errors = [error for _, error in report.errors()]
    assert errors
    assert all(isinstance(error, ProtocolViolation) and error.peer == "party1" for error in errors)
    site.restore("party1")
    assert (await look(site)).ok


async def test_words_of_a_server_do_not_reach_the_terminal_raw(site):
    evil = Fault("PeerLost", "party0", "\x1b[2J[bold]gone\n")
    site.corrupt(
        "party1",
        Looked,
        lambda m, b: [
            (changed(m, links=(LinkSeen("dealer", Reach.OPEN, 0.1), LinkSeen("party0", Reach.OPEN, fault=evil))), b)
        ],
    )
    report = await look(site, bandwidth=False)
    text = io.StringIO()
    report.print(Console(file=text, width=200))
    assert "\x1b" not in text.getvalue()
    assert "[bold]gone" in text.getvalue()


@pytest.mark.parametrize(
    "message",
    [
        LookAround(request="x", patience=1.0),
        LookAround(request=ID, patience=0.0),
        LookAround(request=ID, patience=31.0),
        LookAround(request=ID, patience=float("nan")),
        Probe(request=ID, reply=MAX_PROBE_BYTES + 1),
        Probe(request=ID, reply=-1),
        Measure(request=ID, peer="../x"),
        CheckRefused(request=ID, wait=1e9, reason=""),
        CheckRefused(request=ID, wait=float("nan"), reason=""),
    ],
)
def test_what_is_no_message(message):
    with pytest.raises(ProtocolViolation):
        decode_header("somebody", encode_header(message))


@pytest.mark.parametrize(
    "content",
    [
        {"type": "Looked", "request": ID, "clock": float("nan"), "folder": {"free": 1, "total": 1}, "links": []},
        {"type": "Looked", "request": ID, "clock": 1.0, "folder": {"free": -1, "total": 1}, "links": []},
        {"type": "Looked", "request": ID, "clock": 1.0, "folder": {"free": 1, "total": 1}, "links": [{"peer": "a"}]},
        *(
            {"type": "Looked", "request": ID, "clock": 1.0, "folder": {"free": 1, "total": 1}, "links": [link]}
            for link in (
                {"peer": "a", "reach": "open"},
                {"peer": "a", "reach": "elsewhere", "round_trip": 1.0},
                {"peer": "a", "reach": "open", "round_trip": float("inf")},
            )
        ),
        {"type": "Measured", "request": ID},
        {"type": "Measured", "request": ID, "rate": 0.0},
        {"type": "Measured", "request": ID, "rate": float("inf")},
    ],
)
def test_figures_that_make_no_sense(content):
    with pytest.raises(ProtocolViolation):
        decode_header("somebody", msgspec.msgpack.encode(content))


def test_only_clients_ask_and_only_servers_answer():
    assert LookAround.senders == Measure.senders == Prepare.senders == {Role.CLIENT}
    for kind in (Looked, Measured, Probed, CheckRefused):
        assert Role.CLIENT not in kind.senders
