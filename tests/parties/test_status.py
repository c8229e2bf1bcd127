"""``tessera status``: each client sees its own and what it may know, and nobody's question disturbs the server."""

from __future__ import annotations

import asyncio
import io
import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest
from msgspec.structs import replace as changed
from rich.console import Console

from mpc.errors import ConfigurationError, ProtocolViolation
from nn import Linear, Model, Sequential
from parties import Client, KeyPair, LocalCluster, Settings
from parties.commands.command_line import main
from parties.commands.status import watching
from parties.members.cluster import Role
from parties.messages.check import CheckRefused, FolderSeen, Looked, RoomSeen
from parties.messages.runs import Opening
from parties.messages.status import AskStatus, PeerSeen, SecretSeen, ServerStatus
from parties.operate.status import desk as status_desk
from parties.operate.status import look as status_look
from parties.operate.status.report import ServerRow, StatusReport
from parties.wire.events import Delivery
from parties.wire.messages import decode_header, encode_header
from parties.wire.version import package_version

ID = "ab" * 16


def model() -> Model:
    architecture = Sequential({"out": Linear(3, 2)}).architecture((3,))
    return Model(architecture, {n: np.ones(s) for n, s in architecture.parameters.items()})


@pytest.fixture
def site(wired):
    """What is looked at here are links."""
    return wired


async def look(site, name="clinic", patience=4.0):
    async with watching(site.cluster, site.keys[name], patience) as watcher:
        return await watcher.look()


def row(report, name):
    return next(row for row in report.rows if row.server.name == name)


def text_of(report, **options) -> str:
    out = io.StringIO()
    Console(file=out, width=140, **options).print(report.render())
    return out.getvalue()


async def test_a_cluster_at_rest(site):
    servers = site.servers.values()
    await site.until(lambda: all(a.endpoint.connected(b) for a in servers for b in site.servers if b != a.member.name))
    report = await look(site)
    assert report.ok
    assert report.exit_code == 0
    assert [row.server.name for row in report.rows] == ["dealer", "party0", "party1"]
    for found in report.rows:
        assert 0 < found.round_trip < 1
        assert found.status.version == package_version()
        assert 0 < found.status.uptime < 60
        assert (found.status.own_runs, found.status.other_runs, found.status.secrets) == (0, 0, ())
        assert found.status.stock == {}
        assert all(peer.connected for peer in found.status.peers)


async def test_runs_models_and_stock_as_each_may_see_them(site):
    """Who asks does so under a key that nobody else uses at the time."""
    async with site.client() as clinic:
        x = clinic.share([0.5], low=-1, high=1)
        await clinic.stock(x * x, 3)
        await clinic.upload(model(), "m")
        site.corrupt("party1", Opening, lambda m, b: [])
        run = asyncio.create_task(clinic.reveal(x * x * x))
        await site.until(lambda: any(job.waiting for job in site.servers["party0"].jobs.values()))
        others = await look(site, "company")
        with pytest.raises(Exception, match="party"):
            await run
        site.restore("party1")
        await site.settled()
    own = await look(site)
    assert (row(others, "party0").status.own_runs, row(others, "party0").status.other_runs) == (0, 1)
    for found in others.rows:
        assert found.status.secrets == ()
        assert list(found.status.stock.values()) == [3]
        assert all(len(program) == 12 for program in found.status.stock)
    for found in own.rows:
        (seen,) = found.status.secrets
        assert (seen.name, seen.owner) == ("m", "clinic")
    assert len({found.status.secrets for found in own.rows}) == 1
    async with site.client() as clinic:
        await clinic.allow("m", "company")
    assert [len(found.status.secrets) for found in (await look(site, "company")).rows] == [1, 1, 1]


async def test_ones_own_runs(site):
    """Counted apart; a desk is asked for a client whose run is in progress."""
    async with site.client() as clinic:
        prepared = await clinic.prepare(clinic.share([0.5]) * 2)
        server, said = site.servers["party0"], []
        desk = status_desk.StatusDesk(server, server.look)
        server.tell = lambda names, message, payload=(): said.append(message)
        await desk._answer(site.cluster.member("clinic"), AskStatus(request=ID))
        await desk._answer(site.cluster.member("company"), AskStatus(request=ID))
        await clinic.release(prepared)
    assert [(m.own_runs, m.other_runs) for m in said] == [(1, 0), (0, 1)]


async def test_a_server_that_is_down_and_back(site):
    async with watching(site.cluster, site.keys["clinic"], 1.5) as watcher:
        assert (await watcher.look()).ok
        await site.stop("party1")
        report = await watcher.look()
        assert report.exit_code == 6
        assert row(report, "party1").error.peer == "party1"
        for name in ("dealer", "party0"):
            links = {peer.peer: peer.connected for peer in row(report, name).status.peers}
            assert not links.pop("party1")
            assert all(links.values())
        text = text_of(report)
        assert "DOWN  party1: " in text
        assert "cut" in text
        await site.start("party1")
        # Its peers come back in their own time.
        ways = list(itertools.permutations(site.servers, 2))
        await site.until(lambda: all(site.servers[one].endpoint.connected(other) for one, other in ways))
        await asyncio.sleep(status_desk.PAUSE)
        assert (await watcher.look()).exit_code == 0


async def test_for_programs_and_for_people(site):
    async with site.client() as clinic:
        x = clinic.share([0.5], low=-1, high=1)
        await clinic.stock(x * x, 12)
        await clinic.upload(model(), "m")
    report = await look(site)
    found = json.loads(json.dumps(report.to_dict()))
    assert (found["client"], found["ok"], found["exit_code"]) == ("clinic", True, 0)
    dealer, party, _ = found["servers"]
    assert dealer["role"] == "dealer"
    assert party["runs"] == {"yours": 0, "others": 0}
    assert party["models"][0]["name"] == "m"
    assert list(party["stock"].values()) == [12]
    assert {peer["name"] for peer in party["peers"]} == {"dealer", "party1"}
    text = text_of(report)
    (program,) = party["stock"]
    assert program in text
    assert f"m       clinic   {party['models'][0]['version'][:8]}   dealer, party0, party1" in text
    assert "\x1b[32mOK" in text_of(report, force_terminal=True, color_system="standard")


def test_what_servers_say_does_not_reach_the_terminal_raw():
    cluster = _cluster()
    evil = ServerStatus(
        request=ID, version="\x1b[2J[bold]1\n", uptime=1.0, secrets=(), stock=None, own_runs=0, other_runs=0, peers=()
    )
    report = StatusReport(cluster, cluster.clients[0], 0.0, [ServerRow(cluster.dealer, evil, 0.1)])
    text = text_of(report)
    assert "\x1b" not in text
    assert "[bold]1" in text
    assert "WARN  dealer: its ledger does not answer" in text
    assert "\x1b" not in report.to_dict()["servers"][0]["version"]


def _cluster():
    from parties import Cluster

    keys = [KeyPair.generate().public for _ in range(4)]
    return Cluster.build(
        "c",
        dealer=("127.0.0.1:7000", keys[0]),
        parties=[("party0", "127.0.0.1:7001", keys[1]), ("party1", "127.0.0.1:7002", keys[2])],
        clients=[("clinic", keys[3])],
    )


async def test_a_stranger_cannot_ask(site):
    for keys, patience in ((KeyPair.generate(), 1), (site.keys["party0"], 1), (site.keys["clinic"], 0)):
        with pytest.raises(ConfigurationError):
            async with watching(site.cluster, keys, patience):
                pass


# -- bounds and lies -------------------------------------------------------------------------------------------------


async def test_who_asks_too_often_is_told_when_to_come_again(site, monkeypatch):
    server, looks = site.servers["party0"], []
    monkeypatch.setattr(status_desk, "PAUSE", 60.0)
    monkeypatch.setattr(server, "fresh_stock", lambda: looks.append(1) or {})
    async with site.endpoint("company") as endpoint:
        await endpoint.connect(["party0"], 20)
        for i in range(50):
            endpoint.send("party0", AskStatus(request=f"{i:032x}"))
        kinds = []
        async with asyncio.timeout(20):
            while len(kinds) < 50:
                event = await endpoint.receive()
                if isinstance(event, Delivery):
                    kinds.append(type(event.message))
                    if isinstance(event.message, CheckRefused):
                        assert event.message.wait > 0
    assert kinds.count(ServerStatus) == len(looks) == 1
    assert kinds.count(CheckRefused) == 49


async def test_a_watcher_that_is_refused_comes_again(site, monkeypatch):
    async with watching(site.cluster, site.keys["clinic"], 4.0) as watcher:
        reports = [await watcher.look() for _ in range(3)]
    assert all(report.ok for report in reports)


async def test_many_clients_share_one_look(site, monkeypatch):
    looks = []
    monkeypatch.setattr(status_look, "FRESH", 60.0)
    monkeypatch.setattr(site.servers["party0"], "fresh_stock", lambda: looks.append(1) or {})
    reports = await asyncio.gather(look(site), look(site, "company"))
    assert all(report.ok for report in reports)
    assert len(looks) == 1


async def test_a_peer_that_answers_no_pings_does_not_hold_it_up(site, monkeypatch):
    monkeypatch.setattr(status_look, "PATIENCE", 0.2)
    endpoint = site.servers["party0"].endpoint

    async def hang(peer, deadline=None):
        await asyncio.sleep(deadline)

    monkeypatch.setattr(endpoint, "ping", hang)
    started = asyncio.get_running_loop().time()
    assert (await look(site)).ok
    assert asyncio.get_running_loop().time() - started < 10


@pytest.mark.parametrize(
    "lie",
    [
        lambda m: Looked(request=m.request, clock=1.0, folder=FolderSeen(1, 1), room=RoomSeen((), 1), links=()),
        lambda m: changed(m, peers=m.peers[:-1]),
        lambda m: changed(m, peers=(*m.peers, m.peers[0])),
        lambda m: changed(m, peers=(PeerSeen("nobody", True), *m.peers[1:])),
    ],
)
async def test_a_server_that_answers_nonsense_is_named(site, lie):
    site.corrupt("party1", ServerStatus, lambda m, b: [(lie(m), b)])
    report = await look(site)
    assert isinstance(row(report, "party1").error, ProtocolViolation)
    assert row(report, "party0").error is None
    assert report.exit_code == 6


GOOD = {
    "type": "ServerStatus", "request": ID, "version": "1", "uptime": 1.0, "secrets": [], "stock": {"ab" * 6: 1},
    "own_runs": 0, "other_runs": 0, "peers": [{"peer": "dealer", "connected": True, "round_trip": 0.1}],
}  # fmt: skip


@pytest.mark.parametrize(
    "change",
    [
        {"request": "x"},
        {"version": "1" * 65},
        {"uptime": float("nan")},
        {"uptime": float("inf")},
        {"uptime": -1.0},
        {"own_runs": -1},
        {"stock": {"ab" * 32: 1}},
        {"stock": {"ab" * 6: -1}},
        {"stock": {f"{i:012x}": 1 for i in range(101)}},
        {"secrets": [{"name": "../m", "owner": "clinic", "version": ID}]},
        {"peers": [{"peer": "dealer", "connected": True, "round_trip": float("inf")}]},
        {"more": 1},
    ],
)
def test_what_is_no_status(change):
    assert isinstance(decode_header("somebody", msgspec.msgpack.encode(GOOD)), ServerStatus)
    with pytest.raises(ProtocolViolation):
        decode_header("somebody", msgspec.msgpack.encode(GOOD | change))


def test_a_thousand_models_fit_into_a_header():
    models = tuple(SecretSeen("m" * 64, "o" * 64, ID) for _ in range(1000))
    stock = {f"{i:012x}": 1 << 40 for i in range(100)}
    message = ServerStatus(
        request=ID, version="1", uptime=1.0, secrets=models, stock=stock, own_runs=0, other_runs=0, peers=()
    )
    assert decode_header("somebody", encode_header(message)) == message


def test_only_clients_ask_and_only_servers_answer():
    assert AskStatus.senders == {Role.CLIENT}
    assert Role.CLIENT not in ServerStatus.senders


# -- the command -----------------------------------------------------------------------------------------------------


def tessera(*arguments: object, lines: int = 0) -> tuple[int, str, str]:
    """Exit code, stdout and stderr; with ``lines``, those of stdout, and it is ended after as many."""
    command = [sys.executable, "-m", "parties.commands.command_line", *map(str, arguments)]
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env) as process:
        if not lines:
            out, err = process.communicate(timeout=60)
            return process.returncode, out, err
        found = "".join(process.stdout.readline() for _ in range(lines))
        process.send_signal(2)
        _, err = process.communicate(timeout=60)
        return process.returncode, found, err


def test_processes(capsys):
    with LocalCluster(2, settings=Settings(threads=1)) as cluster:
        with Client(cluster) as client:
            client.upload(model(), "m")
        status = ["status", "--cluster", str(cluster.path)]
        assert main(status) == 0
        assert "dealer, party0, party1" in capsys.readouterr().out
        code, out, err = tessera("status", "--cluster", cluster.path, "--json", "--watch", "0.3", lines=3)
        assert code == 130
        assert "Traceback" not in err
        times = [json.loads(line)["time"] for line in out.splitlines()]
        assert times == sorted(set(times))
        assert len(times) == 3
        cluster.processes["dealer"].kill()
        assert main([*status, "--json", "--timeout", "1"]) == 6
        assert [server["ok"] for server in json.loads(capsys.readouterr().out)["servers"]] == [False, True, True]
        assert main([*status, "--watch", "0"]) == 2
        assert capsys.readouterr().err.startswith("tessera: --watch 0")


@pytest.mark.slow
def test_live_in_a_terminal():
    """Through a pseudo-terminal: the view is redrawn in place, and the screen is given back at the end."""
    import pty

    with LocalCluster(2, settings=Settings(threads=1)) as cluster:
        master, slave = pty.openpty()
        command = [sys.executable, "-m", "parties.commands.command_line", "status", "--cluster", str(cluster.path)]
        env = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2]), "TERM": "xterm", "COLUMNS": "120"}
        with subprocess.Popen([*command, "--watch", "0.2"], stdout=slave, stderr=slave, env=env) as process:
            os.close(slave)
            seen = b""
            while seen.count(b"runs: yours") < 3:
                seen += os.read(master, 65536)
            process.send_signal(2)
            try:
                while part := os.read(master, 65536):
                    seen += part
            except OSError:
                pass  # the other end is closed
            assert process.wait(10) == 130
        os.close(master)
    assert b"\x1b[?1049h" in seen
    assert seen.count(b"\x1b[?1049l") == 1
    assert b"Traceback" not in seen
