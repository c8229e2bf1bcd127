"""Preprocessing ahead of time among real processes: dealt from the command line, kept across restarts, used once."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mpc.errors import PeerUnavailable, UsageError
from nn import Linear, Model, Sequential
from parties import Client, LocalCluster, Settings
from parties.commands.command_line import main
from parties.members.keys import KeyPair
from parties.stock.dealer_stock import DealerStock
from parties.stock.items import State
from parties.stock.ledger import PartyLedger

VALUES = np.array([0.5, -0.25])
NAMES = ("dealer", "party0", "party1")


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    settings = Settings(threads=1, peer_timeout=1.5, round_timeout=3)
    with LocalCluster(2, security="malicious", clients=("clinic", "company"), settings=settings) as cluster:
        yield cluster


def program(client: Client) -> Any:
    x = client.share(VALUES, low=-1, high=1)
    return x * x * x * x


def run(client: Client) -> bool:
    """Whether it came from the stock."""
    assert np.abs(client.reveal(program(client)) - VALUES**4).max() < 1e-3
    assert client.last_run is not None
    return client.last_run.from_stock


def drain(cluster: LocalCluster) -> None:
    with Client(cluster) as client:
        while run(client):
            pass


def model() -> Model:
    architecture = Sequential({"out": Linear(3, 2)}).architecture((3,))
    return Model(architecture, {n: np.full(s, 0.5) for n, s in architecture.parameters.items()})


def deal(cluster: LocalCluster, *arguments: str) -> int:
    """``tessera deal``; the exit code."""
    whom = ["--cluster", str(cluster.path), "--key", str(cluster.key_path("company"))]
    return main(["deal", *arguments, *whom])


def test_tessera_deal(cluster, capsys):
    with Client(cluster) as client:
        found = client.upload(model(), "derm")
        client.allow("derm", "company")
        assert deal(cluster, "--count", "5", "--json") == 0
        out, err = capsys.readouterr()
        assert err == ""
        report = json.loads(out)
        assert (report["model"], report["batch"], report["done"], report["in_stock"]) == ("derm", 1, 5, 5)
        assert report["bytes"] > 0
        assert deal(cluster, "--model", "derm", "--count", "2", "--low-water", "1") == 0
        out = capsys.readouterr().out
        assert "2 runs dealt" in out
        assert "7 in stock" in out
        image = np.array([[0.5, -0.25, 1.0]])
        x = client.share(image, low=-1, high=1, name="images")
        assert np.abs(client.reveal(found(x)) - model().plain(image)).max() < 1e-3
        assert not client.last_run.from_stock, "it was dealt for the runs of another client"
    with Client(cluster, name="company") as client:
        x = client.share(image, low=-1, high=1, name="images")
        assert np.abs(client.reveal(client.model("derm")(x)) - model().plain(image)).max() < 1e-3
        assert client.last_run.from_stock
        assert client.last_run.to_dict()["offline"]["from_stock"] is True
        assert "dealt ahead of time" in str(client.last_run)
        assert client.last_run.offline.bytes == client.last_run.predicted.offline_bytes


def test_tessera_deal_shows_its_progress_on_a_terminal_alone(cluster):
    with Client(cluster) as client:
        client.upload(model(), "derm")
        client.allow("derm", "company")
    command = [sys.executable, "-m", "parties.commands.command_line", "deal", "--count", "2"]
    command += ["--cluster", str(cluster.path), "--key", str(cluster.key_path("company"))]
    ours, theirs = pty.openpty()
    folder = Path(__file__).parents[2]
    dealt = subprocess.run(command, stdout=subprocess.PIPE, stderr=theirs, cwd=folder, timeout=60)
    os.close(theirs)
    shown = ""
    with contextlib.suppress(OSError):  # the other end is closed
        while part := os.read(ours, 1 << 16).decode():
            shown += part
    os.close(ours)
    assert dealt.returncode == 0
    assert dealt.stdout.startswith(b"2 runs dealt")
    assert "dealing" in shown
    assert "2/2" in shown


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--count", "0"], "count is 1 to 1000000"),
        (["--count", "2", "--low-water", "3"], "not above it"),
        (["--count", "1", "--model", "../x"], "not a name"),
        (["--count", "1", "--batch", "0"], "batch"),
        (["--count", "1", "--batch", "-1"], "batch"),
        ([], "--count"),
        (["--count", "many"], "invalid int"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_tessera_deal_refuses(cluster, capsys, arguments, sentence):
    with Client(cluster) as client:
        client.upload(model(), "derm")
        client.allow("derm", "company")
    assert deal(cluster, *arguments) == UsageError.exit_code == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert sentence in err


def test_a_party_that_is_down_is_named(cluster, capsys):
    with Client(cluster) as client:
        client.upload(model(), "derm")
        client.stock(program(client), 1)
    cluster.processes["party1"].kill()
    cluster.processes["party1"].wait()
    assert deal(cluster, "--count", "3", "--timeout", "1") == PeerUnavailable.exit_code
    assert "party1" in capsys.readouterr().err
    cluster.start_process("party1")
    with Client(cluster) as client:
        assert client.stock(program(client), 2).in_stock >= 3
        assert run(client)


def test_stock_outlives_every_process(cluster):
    drain(cluster)
    with Client(cluster) as client:
        client.stock(program(client), 4)
    for name in NAMES:
        cluster.start_process(name)
        with Client(cluster) as client:
            assert run(client)
    with Client(cluster) as client:
        assert run(client)
        assert not run(client)


SNIPPET = str(Path(__file__).parents[1] / "snippet.py")
DRAIN = """
import sys
from parties import Client
with Client({path!r}, {key!r}) as client:
    x = client.share([0.5, -0.25], low=-1, high=1)
    served = 0
    for _ in range(12):
        result = client.reveal(x * x * x * x)
        assert abs(result[0] - 0.0625) < 1e-3, result
        served += client.last_run.from_stock
    print(served)
"""


def test_two_processes_drain_their_stock_at_once(cluster):
    drain(cluster)
    for name, count in (("clinic", 10), ("company", 7)):
        with Client(cluster, name=name) as client:
            client.stock(program(client), count)
    scripts = [DRAIN.format(path=str(cluster.path), key=str(cluster.key_path(name))) for name in ("clinic", "company")]
    processes = [subprocess.Popen([sys.executable, SNIPPET, script], stdout=subprocess.PIPE) for script in scripts]
    served = [int(process.communicate(timeout=60)[0]) for process in processes]
    assert served == [10, 7]
    used = [history(cluster, name) for name in NAMES]
    assert used[0] == used[1] == used[2]
    assert len(set(used[0].values())) == len(used[0])


def history(cluster: LocalCluster, name: str) -> dict[Any, str | None]:
    """Which run used which item; from a copy, as the server has the file itself."""
    copy = cluster.folder / "copy" / name
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(cluster.data_path(name), copy)
    keys, bond = KeyPair.load(cluster.key_path(name)), cluster.cluster.bond
    ledger = DealerStock(copy, keys, bond) if name == "dealer" else PartyLedger(copy, keys, name, bond)
    with ledger:
        return {e.item: e.run for e in ledger.history() if e.state is State.USED}


def stop(cluster: LocalCluster, *names: str) -> None:
    for name in names:
        cluster.processes[name].terminate()
        cluster.processes[name].wait(60)


def test_old_copies_of_data_folders(cluster):
    """Put back, they bring no second use: what party 0 knows as used, it does not use again."""
    names = ("dealer", "party1")
    drain(cluster)
    with Client(cluster) as client:
        client.stock(program(client), 4)
    stop(cluster, *names)
    for name in names:
        shutil.copytree(cluster.data_path(name), cluster.folder / f"{name}.old")
        cluster.start_process(name)
    with Client(cluster) as client:
        assert [run(client), run(client)] == [True, True]
    before = history(cluster, "party0")
    stop(cluster, *names)
    for name in names:
        shutil.rmtree(cluster.data_path(name))
        (cluster.folder / f"{name}.old").rename(cluster.data_path(name))
        cluster.start_process(name)
    with Client(cluster) as client:
        for _ in range(4):
            run(client)
    after = history(cluster, "party0")
    assert before.items() <= after.items()
    assert len(set(after.values())) == len(after)
