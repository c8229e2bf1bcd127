"""kill -9 of dealer and parties at every stage of stocking and of a run: no item of preprocessing is ever used twice.

A server kills itself exactly at a chosen point (``crashing_server.py``) and is started again on the data it left.  That
nothing is used twice is read from the ledgers, and from what each process wrote down before handing it to a socket.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import random
import shutil
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mpc.errors import MaterialError, PeerError, TesseraError
from parties import Client, LocalCluster, Settings
from parties.members.keys import KeyPair
from parties.stock.dealer_stock import DealerStock
from parties.stock.items import ItemId, State
from parties.stock.ledger import PartyLedger
from parties.stored.decided_versions import DecidedVersions

PROGRAM = Path(__file__).with_name("crashing_server.py")
_spec = importlib.util.spec_from_file_location("crashing_server", PROGRAM)
crashing: Any = importlib.util.module_from_spec(_spec)
sys.modules["crashing_server"] = crashing
_spec.loader.exec_module(crashing)
Crash = crashing.Crash

DEADLINE = 20.0
VALUES = np.array([0.5, -0.25])
ROUNDS = 6
"""Three openings, and three rounds of the check."""

IN_A_RUN = [
    *(Crash(what, when) for what in ("take", "prepared", "Agreed", "Ready", "Outputs") for when in ("before", "after")),
    *(Crash(f"Opening {k}", when) for k in range(ROUNDS) for when in ("before", "after")),
]
IN_STOCKING = [Crash(what, when) for what in ("add", "Stocked") for when in ("before", "after")]
DEALER_IN_A_RUN = [
    *(Crash(what, when) for what in ("assign", "ClientMasks") for when in ("before", "after")),
    *(Crash("Dealt", when, count) for when in ("before", "after") for count in (1, 2)),
]
DEALER_IN_STOCKING = [
    *(Crash(what, when, 2) for what in ("begin", "ready", "StockProgress") for when in ("before", "after")),
    *(Crash("StockItem", when, count) for when in ("before", "after") for count in (2, 3)),
]
STAGES = [
    *((party, "run", crash) for party in ("party0", "party1") for crash in IN_A_RUN),
    *((party, "stock", crash) for party in ("party0", "party1") for crash in IN_STOCKING),
    *(("dealer", "run", crash) for crash in DEALER_IN_A_RUN),
    *(("dealer", "stock", crash) for crash in DEALER_IN_STOCKING),
]


SEVEN = [
    ("party1", "run", Crash("take", "after")),
    ("party0", "run", Crash("Agreed", "after")),
    ("party0", "run", Crash("Opening 1", "after")),
    ("party1", "run", Crash("Opening 5", "before")),
    ("party1", "stock", Crash("add", "after")),
    ("dealer", "run", Crash("assign", "after")),
    ("dealer", "stock", Crash("StockItem", "after", 3)),
]


class Observed(LocalCluster):
    """Every server writes down what it sends, and dies where it is told to."""

    def _program(self, name: str) -> list[str]:
        return [sys.executable, str(PROGRAM)]


@pytest.fixture(scope="module", params=["malicious"])
def observed(request: pytest.FixtureRequest) -> Iterator[Observed]:
    settings = Settings(threads=1, peer_timeout=1.5, round_timeout=2)
    with Observed(2, security=request.param, settings=settings) as cluster:
        yield cluster


def program(client: Client) -> Any:
    x = client.share(VALUES, low=-1, high=1)
    return x * x * x * x


def run(client: Client) -> None:
    assert np.abs(client.reveal(program(client)) - VALUES**4).max() < 1e-3


def crash(cluster: Observed, member: str, during: str, where: Any) -> None:
    """The member dies there, is started again, and the next run is right, from what was stocked before."""
    with Client(cluster) as client:
        client.stock(program(client), 2)
    where.write(cluster.folder, member)
    started = time.monotonic()
    with Client(cluster) as client:
        try:
            if during == "run":
                run(client)  # what it sent last may just have been enough
            else:
                client.stock(program(client), 2)
        except TesseraError as error:
            assert isinstance(error, PeerError | MaterialError), repr(error)
            assert not isinstance(error, PeerError) or error.peer == member, repr(error)
    assert time.monotonic() - started < DEADLINE
    cluster.processes[member].wait(DEADLINE)
    assert cluster.processes[member].returncode == -9, f"it did not come to {where}"
    cluster.start_process(member)
    with Client(cluster) as client:
        run(client)
        assert client.last_run is not None
        assert client.last_run.from_stock


# -- afterwards ------------------------------------------------------------------------------------------------------


def history(cluster: Observed, name: str) -> dict[ItemId, tuple[State, str | None]]:
    """Read from a copy: the server has the file itself."""
    copy = cluster.folder / "copy" / name
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(cluster.data_path(name), copy)
    keys, bond = KeyPair.load(cluster.key_path(name)), cluster.cluster.bond
    ledger = DealerStock(copy, keys, bond) if name == "dealer" else PartyLedger(copy, keys, name, bond)
    with ledger:
        return {entry.item: (entry.state, entry.run) for entry in ledger.history()}


def wire(cluster: Observed, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (cluster.folder / f"{name}.wire").read_text().splitlines()]


def nothing_was_used_twice(cluster: Observed) -> int:
    """In the ledgers and on the wire; returns how many items were used."""
    names = [server.name for server in cluster.cluster.servers]
    used: dict[ItemId, dict[str, str]] = defaultdict(dict)
    for name in names:
        entries = history(cluster, name)
        for item, (state, by) in entries.items():
            assert (state is State.USED) == (by is not None)
            if by is not None:
                used[item][name] = by
        runs = [by for _, by in entries.values() if by is not None]
        assert len(runs) == len(set(runs)), "a run that used two items"
    for item, by in used.items():
        assert len(set(by.values())) == 1, f"{item} was used by several runs: {by}"
        # The dealer has marked it before anybody else.
        assert "dealer" in by
    sent: dict[tuple[str, str, int], str] = {}
    runs_of: dict[str, set[str]] = defaultdict(set)
    for name in names:
        for line in wire(cluster, name):
            if line["kind"] in ("Opening", "Outputs"):
                key = name, line["run"], line["round"]
                assert sent.setdefault(key, line["sha"]) == line["sha"], f"{name} sent two openings of one round"
                runs_of[line["item"]].add(line["run"])
    runs_of.pop("", None)  # dealt for the run alone
    for item, runs in runs_of.items():
        assert len(runs) == 1, f"{item} was opened in several runs"
        session, _, number = item.partition("/")
        assert set(used[ItemId(session, int(number))].values()) == runs
    return len(used)


def of_all_stages(count: int, seed: int) -> list[tuple[str, str, Any]]:
    """Every stage about as often, in random order."""
    rng = random.Random(seed)
    stages: list[tuple[str, str, Any]] = []
    while len(stages) < count:
        stages += rng.sample(STAGES, len(STAGES))
    return stages[:count]


def crash_all(cluster: Observed, stages: list[tuple[str, str, Any]]) -> None:
    for stage in stages:
        try:
            crash(cluster, *stage)
        except Exception as error:
            error.add_note(f"at {stage}")
            raise
    assert nothing_was_used_twice(cluster) >= len(stages)


@pytest.mark.slow
def test_a_hundred_crashes(observed):
    crash_all(observed, of_all_stages(100, seed=1))


def test_seven_crashes(observed):
    """Of each kind one, and each of the three servers."""
    crash_all(observed, SEVEN)


# -- results that stay -----------------------------------------------------------------------------------------------

KEEPING = [
    ("dealer", Crash("assign", "after")),
    ("dealer", Crash("Dealt", "after")),
    ("party0", Crash("take", "after")),
    ("party1", Crash("Opening 1", "after")),
    ("party0", Crash("prepare", "after")),
]


def results(client: Client) -> dict[str, Any]:
    x = client.share(VALUES, low=-1, high=1)
    return {"y": x * x}


@pytest.mark.parametrize("stages", [KEEPING[1::2], pytest.param(KEEPING[::2], marks=pytest.mark.slow)], ids=len)
def test_an_item_makes_one_version_or_none(observed, stages):
    """Dealt for ahead of time, and somebody dies while a run keeps its result."""
    before = kept_seeds(observed)
    for member, where in stages:
        number = KEEPING.index((member, where))
        with Client(observed) as client:
            client.stock(results(client), 2)
        where.write(observed.folder, member)
        with Client(observed) as client, contextlib.suppress(PeerError, MaterialError):
            client.keep(results(client), f"kept{number}")
        observed.processes[member].wait(DEADLINE)
        assert observed.processes[member].returncode == -9, f"it did not come to {where}"
        observed.start_process(member)
        with Client(observed) as client:
            kept = client.keep(results(client), f"kept{number}")
            assert client.last_run is not None
            assert client.last_run.from_stock
            assert np.abs(client.reveal(kept["y"]) - VALUES**2).max() < 1e-3
    nothing_was_used_twice(observed)
    seeds = kept_seeds(observed)
    assert len(set(seeds)) == len(seeds) == len(before) + 2 * len(stages)


def kept_seeds(cluster: Observed) -> list[bytes]:
    """Of all versions in use, read from a copy."""
    history(cluster, "dealer")
    copy = cluster.folder / "copy" / "dealer"
    with DecidedVersions(copy, KeyPair.load(cluster.key_path("dealer")), "dealer") as decided:
        # What is not decided by now has come to nothing.
        assert decided.begun() == []
        return [bytes(seed) for version in decided.current() for seed in version.masks.seeds]
