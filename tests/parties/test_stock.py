"""The dealer's stock: an item is assigned once at most, and only when everybody has it."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from mpc.errors import ConfigurationError, ServerBusy, UsageError
from parties.host import disk
from parties.members.keys import KeyPair
from parties.stock.dealer_stock import DealerStock
from parties.stock.items import NOTHING_FRESH, ItemId, SpentItem, State
from parties.stock.ledger import PartyLedger

KEYS, PARTY = KeyPair.generate(), KeyPair.generate()
DERM, OTHER = "d" * 64, "0" * 64
RUN = "1" * 32


def opened(folder: Path, cluster: str = "f00d") -> DealerStock:
    return DealerStock(folder, KEYS, cluster)


def stocked(stock: DealerStock, count: int, program: str = DERM) -> list[ItemId]:
    items = [stock.begin(program, [b"masks of", str(k).encode()]) for k in range(count)]
    assert all(stock.ready(item) for item in items)
    return items


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "dealer"


def test_the_oldest_first_and_each_once(folder: Path) -> None:
    with opened(folder) as stock:
        items = stocked(stock, 3)
        assert [item.number for item in items] == [1, 2, 3]
        assert stock.stock() == {DERM: 3}
        assert stock.assign(OTHER, RUN) is None
        for k, item in enumerate(items):
            assigned = stock.assign(DERM, RUN)
            assert assigned is not None
            assert assigned[0] == item
            assert [bytes(b) for b in assigned[1]] == [b"masks of", str(k).encode()]
        assert stock.assign(DERM, RUN) is None
        assert [(e.item, e.run, e.state) for e in stock.history()] == [(i, RUN, State.USED) for i in items]
        assert not stock.ready(items[0])
        assert RUN not in repr(stock)


def test_pending_items_are_not_assigned_and_do_not_outlive_a_restart(folder: Path) -> None:
    with opened(folder) as stock:
        session = stock.session
        pending = stock.begin(DERM, [b"x"])
        assert stock.assign(DERM, RUN) is None
        assert stock.stock() == {}
    with opened(folder) as stock:
        assert stock.session == session
        assert not stock.ready(pending)
        assert [e.state for e in stock.history()] == [State.DISCARDED]
        assert stock.begin(DERM, []).number == 2


def test_skip(folder: Path) -> None:
    with opened(folder) as stock:
        stocked(stock, 4)
        stocked(stock, 1, OTHER)
        pending = stock.begin(DERM, [])
        assert stock.skip("0" * 32, DERM, NOTHING_FRESH) == 0
        assert stock.skip(stock.session, DERM, 3) == 2
        assigned = stock.assign(DERM, RUN)
        assert assigned is not None
        assert assigned[0].number == 3
        assert stock.skip(stock.session, DERM, NOTHING_FRESH) == 1
        assert stock.ready(pending)
        assert stock.stock() == {DERM: 1, OTHER: 1}
        assert stock.discard_program(DERM) == 1
        assert stock.stock() == {OTHER: 1}


def test_a_new_session_has_nothing_of_the_old_one(folder: Path) -> None:
    with opened(folder) as stock:
        old = stock.session
        stocked(stock, 3)
        pending = stock.begin(DERM, [b"x"])
        new = stock.new_session()
        assert new == stock.session != old
        assert not stock.ready(pending)
        assert stock.stock() == {}
        assert stock.assign(DERM, RUN) is None
        assert stock.begin(DERM, []) == ItemId(new, 1)
    with opened(folder) as stock:
        assert stock.session == new


def test_another_cluster_file_another_session(folder: Path) -> None:
    with opened(folder) as stock:
        old = stock.session
        stocked(stock, 2)
        stock.set_target(b"program", DERM, 1, 2)
    with opened(folder, "beef") as stock:
        assert stock.session != old
        assert stock.stock() == {}
        assert stock.wanted() == {DERM: 2}


def test_what_is_whose(folder: Path) -> None:
    with opened(folder) as stock:
        for client, sizes in (("clinic", (10, 30)), ("company", (7,))):
            for size in sizes:
                stock.ready(stock.begin(DERM, [bytes(size)], client))
        assert [stock.held_by(client) for client in ("clinic", "company", "nobody")] == [40, 7, 0]
        stock.assign(DERM, "12" * 16)
        assert stock.held_by("clinic") == 30


def test_a_client_may_have_as_much_as_it_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk.shutil, "disk_usage", lambda _: SimpleNamespace(free=disk.RESERVE + 100))
    for held, more in ((0, 50), (20, 40), (98, 1), (0, 0)):
        disk.check_part("/", "party0", more, "clinic", held)
    for held, more in ((0, 51), (20, 41), (101, 0), (99, 1), (0, 101)):
        with pytest.raises(ServerBusy, match="clinic would have 0 MiB on the disk of its data folder, and leave 0 to"):
            disk.check_part("/", "party0", more, "clinic", held)


def test_targets(folder: Path) -> None:
    program = os.urandom(5000)
    with opened(folder) as stock:
        stock.set_target(program, DERM, 2, 5)
        stock.set_target(b"", OTHER, 1, 1)
        assert stock.wanted() == {DERM: 5, OTHER: 1}
        stocked(stock, 1)
        assert stock.wanted() == {DERM: 4, OTHER: 1}
        stock.begin(DERM, [])
        stock.drop_target(OTHER)
        assert stock.wanted() == {}
        stock.set_target(program, DERM, 3, 4)
        assert program.hex() not in repr(stock.targets())
        for low_water, count in ((0, 5), (6, 5)):
            with pytest.raises(UsageError, match="low-water mark is from 1"):
                stock.set_target(program, DERM, low_water, count)
    with opened(folder) as stock:
        target = stock.targets()[DERM]
        assert (target.program, target.low_water, target.count) == (program, 3, 4)
        assert list(stock.targets()) == [DERM]
        assert stock.wanted() == {DERM: 3}


def test_what_is_no_program(folder: Path) -> None:
    with opened(folder) as stock, pytest.raises(UsageError, match="a program of 64 hexadecimal digits"):
        stock.begin("derm", [])


def test_a_party_s_file_is_not_the_dealer_s(folder: Path) -> None:
    opened(folder).close()
    (folder / "stock.sqlite").rename(folder / "ledger.sqlite")
    with pytest.raises(ConfigurationError, match="belongs to another purpose"):
        PartyLedger(folder, KEYS, "dealer", "f00d")


def both(tmp_path: Path) -> tuple[DealerStock, PartyLedger, PartyLedger]:
    parties = [PartyLedger(tmp_path / f"party{i}", PARTY, f"party{i}", "f00d") for i in range(2)]
    return opened(tmp_path / "dealer"), parties[0], parties[1]


def dealt(stock: DealerStock, *parties: PartyLedger) -> ItemId:
    item = stock.begin(DERM, [b"client"])
    for party in parties:
        party.add(item, DERM, [b"party"])
    assert stock.ready(item)
    return item


def test_an_old_file_of_a_party_brings_no_second_use(tmp_path: Path) -> None:
    stock, first, second = both(tmp_path)
    items = [dealt(stock, first, second) for _ in range(3)]
    first.close()
    shutil.copytree(tmp_path / "party0", tmp_path / "copy")
    first = PartyLedger(tmp_path / "party0", PARTY, "party0", "f00d")
    assigned = stock.assign(DERM, RUN)
    assert assigned is not None
    for party in (first, second):
        party.take(items[0], DERM, RUN)
    first.close()
    shutil.rmtree(tmp_path / "party0")
    shutil.move(tmp_path / "copy", tmp_path / "party0")
    with PartyLedger(tmp_path / "party0", PARTY, "party0", "f00d") as first:
        # That ledger alone cannot know.
        assert [bytes(b) for b in first.take(items[0], DERM, "2" * 32)] == [b"party"]
        # But the dealer does not assign the item again, and the other party refuses it.
        again = stock.assign(DERM, "3" * 32)
        assert again is not None
        assert again[0] == items[1]
        with pytest.raises(SpentItem) as caught:
            second.take(items[0], DERM, "2" * 32)
        assert caught.value.position == 2
    stock.close()
    second.close()


def test_an_old_file_of_the_dealer_brings_no_second_use(tmp_path: Path) -> None:
    stock, first, second = both(tmp_path)
    for _ in range(5):
        dealt(stock, first, second)
    stock.close()
    shutil.copytree(tmp_path / "dealer", tmp_path / "copy")
    stock = opened(tmp_path / "dealer")
    for _ in range(3):
        assigned = stock.assign(DERM, RUN)
        assert assigned is not None
        for party in (first, second):
            party.take(assigned[0], DERM, RUN)
    dealt(stock, first, second)
    stock.close()
    shutil.rmtree(tmp_path / "dealer")
    shutil.move(tmp_path / "copy", tmp_path / "dealer")
    with opened(tmp_path / "dealer") as stock:
        assigned = stock.assign(DERM, "2" * 32)
        assert assigned is not None
        with pytest.raises(SpentItem, match="is used here: go on from number 4") as caught:
            first.take(assigned[0], DERM, "2" * 32)
        assert stock.skip(stock.session, DERM, caught.value.position) == 2
        assigned = stock.assign(DERM, "2" * 32)
        assert assigned is not None
        for party in (first, second):
            party.take(assigned[0], DERM, "2" * 32)
        # What it deals now has a number that the parties have seen.
        item = stock.begin(DERM, [])
        with pytest.raises(SpentItem, match="has passed") as caught:
            first.add(item, DERM, [b"other"])
        assert caught.value.position == 7
        stock.new_session()
        dealt(stock, first, second)
    first.close()
    second.close()


SNIPPET = Path(__file__).parents[1] / "snippet.py"
CHILD = """
import sys
from parties.members.keys import KeyPair
from parties.stock.dealer_stock import DealerStock
keys = KeyPair(*sys.argv[2:4])
with DealerStock(sys.argv[1], keys, "f00d") as stock:
    while True:
        for _ in range(3):
            item = stock.begin("d" * 64, [bytes(3000)])
            stock.ready(item)
        for _ in range(2):
            print(stock.assign("d" * 64, "1" * 32)[0].number, flush=True)
"""


def test_killed_at_any_moment_it_assigns_nothing_twice(folder: Path) -> None:
    assigned: list[int] = []
    for _ in range(6):
        command = [sys.executable, str(SNIPPET), CHILD, str(folder), KEYS.public, KEYS.secret]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout is not None
            assigned.extend(int(child.stdout.readline()) for _ in range(2 + secrets.randbelow(40)))
            child.send_signal(signal.SIGKILL)
            assigned.extend(int(line) for line in child.stdout if line.endswith("\n"))
        with opened(folder) as stock:
            entries = {e.item.number: e.state for e in stock.history()}
            assert all(entries[number] is State.USED for number in assigned)
            assert State.PENDING not in entries.values()
    assert len(assigned) == len(set(assigned))
