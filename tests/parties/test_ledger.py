"""A party's ledger: nothing is handed out twice, whatever happens to the process, and little else is handed out."""

from __future__ import annotations

import secrets
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule

from mpc.errors import ConfigurationError, MaterialError, TesseraError, UsageError
from parties.members.keys import KeyPair
from parties.stock.items import NOTHING_FRESH, ItemId, SpentItem, State
from parties.stock.ledger import PartyLedger
from parties.stored import vault as vault_module
from parties.stored.vault import VaultError

KEYS = KeyPair.generate()
SESSION, ELSEWHERE = "a" * 32, "b" * 32
DERM, OTHER = "d" * 64, "0" * 64
RUN = "1" * 32


def opened(folder: Path, cluster: str = "f00d") -> PartyLedger:
    return PartyLedger(folder, KEYS, "party0", cluster)


def item(number: int, session: str = SESSION) -> ItemId:
    return ItemId(session, number)


def filled(ledger: PartyLedger, *numbers: int, program: str = DERM, session: str = SESSION) -> None:
    for number in numbers:
        ledger.add(item(number, session), program, [b"part", str(number).encode()])


def refused(ledger: PartyLedger, what: ItemId, program: str = DERM) -> SpentItem:
    with pytest.raises(SpentItem) as caught:
        ledger.take(what, program, RUN)
    assert caught.value.item == what
    return caught.value


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "party"


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ("DROP TABLE layout", r"ledger\.sqlite was written by release 0\.1.* move the data folder away"),
        ("UPDATE layout SET version = 2", r"ledger\.sqlite was written by release 0\.2.* move the data folder away"),
        ("UPDATE layout SET version = 4", r"by a newer release \(this one knows layout 3\): run that release"),
    ],
)
def test_other_layouts_are_refused(folder: Path, change: str, sentence: str) -> None:
    with opened(folder) as ledger:
        filled(ledger, 1)
    with sqlite3.connect(folder / "ledger.sqlite") as db:
        db.execute(change)
    db.close()
    with pytest.raises(ConfigurationError, match=sentence):
        opened(folder)
    with sqlite3.connect(folder / "ledger.sqlite") as db:
        db.execute("CREATE TABLE IF NOT EXISTS layout (version INTEGER NOT NULL)")
        db.execute("DELETE FROM layout")
        db.execute("INSERT INTO layout VALUES (3)")
    db.close()
    with opened(folder) as ledger:
        assert ledger.stock() == {DERM: 1}, "it was left as it was"


def test_an_item_is_handed_out_once(folder: Path) -> None:
    with opened(folder) as ledger:
        filled(ledger, 1, 2)
        assert ledger.stock() == {DERM: 2}
        assert [bytes(b) for b in ledger.take(item(1), DERM, RUN)] == [b"part", b"1"]
        assert "is used here" in str(refused(ledger, item(1)))
        assert ledger.stock() == {DERM: 1}
    with opened(folder) as ledger:
        assert refused(ledger, item(1)).position == 2
        assert ledger.position(SESSION) == 1
        assert list(ledger.history()) == [(item(1), DERM, RUN, State.USED), (item(2), DERM, None, State.FRESH)]


def test_why_an_item_is_refused_and_where_to_go_on(folder: Path) -> None:
    with opened(folder) as ledger:
        filled(ledger, 1, 2)
        filled(ledger, 3, program=OTHER)
        filled(ledger, 5, 6)
        ledger.take(item(2), DERM, RUN)
        for number, reason, position in ((2, "used", 5), (3, "of another program", 5), (4, "unknown", 5)):
            error = refused(ledger, item(number))
            assert f"is {reason} here: go on from number {position}" in str(error)
            assert error.position == position
        # Above what the others have, nothing serves: its own file may be the old one.
        assert refused(ledger, item(7)).position == NOTHING_FRESH
        assert refused(ledger, item(1, ELSEWHERE)).position == NOTHING_FRESH
        assert ledger.skip(SESSION, DERM, 6) == 2
        assert "is discarded here: go on from number 6" in str(refused(ledger, item(1)))
        assert ledger.position(SESSION) == 5
        assert ledger.position(ELSEWHERE) == 0
        assert ledger.stock() == {DERM: 1, OTHER: 1}
        assert ledger.skip(SESSION, DERM, 1 << 80) == 1
        assert "deal afresh" in str(refused(ledger, item(6)))


def test_numbers_grow(folder: Path) -> None:
    with opened(folder) as ledger:
        filled(ledger, 1, 4)
        ledger.take(item(4), DERM, RUN)
    with opened(folder) as ledger:
        for number in (1, 2, 4):
            with pytest.raises(SpentItem, match="has a number that this session has passed") as caught:
                filled(ledger, number)
            assert caught.value.position == 5
        filled(ledger, 1, session=ELSEWHERE)
        filled(ledger, 5)
        assert ledger.stock() == {DERM: 3}


def test_a_destroyed_session_stays_destroyed(folder: Path) -> None:
    with opened(folder) as ledger:
        filled(ledger, 1, 2, 3)
        filled(ledger, 1, session=ELSEWHERE)
        ledger.take(item(1), DERM, RUN)
        assert ledger.destroy(SESSION) == 2
        assert ledger.destroy(SESSION) == 0
        assert ledger.destroy("c" * 32) == 0
    with opened(folder) as ledger:
        for session in (SESSION, "c" * 32):
            assert refused(ledger, item(2, session)).position == NOTHING_FRESH
            with pytest.raises(SpentItem, match="was destroyed here"):
                filled(ledger, 9, session=session)
        assert ledger.stock() == {DERM: 1}
        assert ledger.destroy_all() == 1
        assert ledger.stock() == {}
        with pytest.raises(SpentItem, match="was destroyed here"):
            filled(ledger, 9, session=ELSEWHERE)


def test_one_session_at_a_time(folder: Path) -> None:
    with opened(folder) as ledger:
        filled(ledger, 1, 2)
        assert ledger.destroy_others(ELSEWHERE) == 2
        filled(ledger, 1, session=ELSEWHERE)
        assert ledger.destroy_others(ELSEWHERE) == 0
        assert ledger.stock() == {DERM: 1}
        assert refused(ledger, item(1)).position == NOTHING_FRESH


def test_destruction_that_a_crash_cut_short_is_completed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with opened(folder) as ledger, monkeypatch.context() as patch:
        filled(ledger, 1, 2)
        patch.setattr(PartyLedger, "_sweep", lambda _: 0)
        ledger.destroy(SESSION)
        assert ledger.stock() == {}
        assert "was destroyed here" in str(refused(ledger, item(1)))
        assert {e.state for e in ledger.history()} == {State.FRESH}
    with opened(folder) as ledger:
        assert {e.state for e in ledger.history()} == {State.DISCARDED}


def test_what_was_dealt_for_another_cluster_is_destroyed(folder: Path) -> None:
    with opened(folder) as ledger:
        filled(ledger, 1)
    with opened(folder, "beef") as ledger:
        assert ledger.stock() == {}
        assert "was destroyed here" in str(refused(ledger, item(1)))


def test_stale_programs(folder: Path) -> None:
    with opened(folder) as ledger:
        filled(ledger, 1, 2)
        filled(ledger, 3, program=OTHER)
        assert ledger.discard_program(DERM) == 2
        assert ledger.stock() == {OTHER: 1}


def test_what_is_no_item(folder: Path) -> None:
    with opened(folder) as ledger:
        for bad in (ItemId("x", 1), item(0), item(-1), item(1 << 63)):
            with pytest.raises(UsageError):
                ledger.add(bad, DERM, [])
            with pytest.raises(UsageError):
                ledger.take(bad, DERM, RUN)
        assert repr(item(3)) == "aaaaaaaa/3"


def test_a_large_part_in_several_chunks(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vault_module, "CHUNK_BYTES", 1 << 14)
    array = np.arange(30_000, dtype=np.uint64)
    with opened(folder) as ledger:
        ledger.add(item(1), DERM, [b"seed", array, b"", array[:7]])
    monkeypatch.undo()
    with opened(folder) as ledger:
        seed, large, empty, small = ledger.take(item(1), DERM, RUN)
        assert (bytes(seed), bytes(empty)) == (b"seed", b"")
        assert np.array_equal(np.frombuffer(large, np.uint64), array)
        assert np.array_equal(np.frombuffer(small, np.uint64), array[:7])


def in_pieces(ledger: PartyLedger, number: int, count: int = 3) -> None:
    ledger.add(item(number), DERM, [b"seed"], "clinic", more=True)
    for piece in range(1, count):
        ledger.add_later(item(number), DERM, piece, [b"piece", str(piece).encode()], last=piece == count - 1)


def test_an_item_in_pieces_is_fresh_with_the_last_and_each_is_handed_out_once(folder: Path) -> None:
    with opened(folder) as ledger:
        ledger.add(item(1), DERM, [b"seed"], more=True)
        assert "is pending here" in str(refused(ledger, item(1)))
        ledger.add_later(item(1), DERM, 1, [b"piece", b"1"], last=False)
        ledger.add_later(item(1), DERM, 2, [b"piece", b"2"], last=True)
        assert ledger.stock() == {DERM: 1}
        with pytest.raises(MaterialError, match="not this run's"):
            ledger.take_later(item(1), DERM, 1, RUN)
        assert [bytes(b) for b in ledger.take(item(1), DERM, RUN)] == [b"seed"]
        for program, run in ((OTHER, RUN), (DERM, "f" * 32)):
            with pytest.raises(MaterialError, match="not this run's"):
                ledger.take_later(item(1), program, 1, run)
        assert [bytes(b) for b in ledger.take_later(item(1), DERM, 1, RUN)] == [b"piece", b"1"]
        for piece in (0, 1, 3):
            with pytest.raises(MaterialError, match=f"no piece {piece} here"):
                ledger.take_later(item(1), DERM, piece, RUN)
        assert [bytes(b) for b in ledger.take_later(item(1), DERM, 2, RUN)] == [b"piece", b"2"]


def test_pieces_come_one_after_the_other_and_are_counted(folder: Path) -> None:
    with opened(folder) as ledger:
        in_pieces(ledger, 1)
        ledger.add(item(2), DERM, [b"seed"], "clinic", more=True)
        for number, program, piece in ((2, DERM, 2), (2, OTHER, 1), (1, DERM, 3), (3, DERM, 1)):
            with pytest.raises(MaterialError, match="not what comes next here"):
                ledger.add_later(item(number), program, piece, [b"x"], last=True)
        ledger.add_later(item(2), DERM, 1, [b"12345"], last=False)
        assert ledger.held_by("clinic") == 2 * 4 + 2 * 6 + 5
        # The dealer has given up the one before.
        filled(ledger, 3)
        assert ledger.stock() == {DERM: 2}
        assert ledger.held_by("clinic") == 4 + 2 * 6
        with pytest.raises(MaterialError, match="not what comes next here"):
            ledger.add_later(item(2), DERM, 2, [b"x"], last=True)


@pytest.mark.parametrize("end", ["reopened", "dropped", "destroyed", "discarded"])
def test_no_pieces_are_left_of_what_is_over(folder: Path, end: str) -> None:
    with opened(folder) as ledger:
        in_pieces(ledger, 1)
        in_pieces(ledger, 2)
        ledger.take(item(1), DERM, RUN)
        if end == "reopened":
            ledger.add(item(3), DERM, [b"seed"], more=True)
            ledger.add_later(item(3), DERM, 1, [b"x"], last=False)
        elif end == "dropped":
            ledger.drop_later(item(1))
            ledger.drop_later(item(2))
        elif end == "destroyed":
            ledger.destroy(SESSION)
            with pytest.raises(MaterialError, match="not this run's"):
                ledger.take_later(item(1), DERM, 1, RUN)
        else:
            ledger.skip(SESSION, DERM, NOTHING_FRESH)
            assert [bytes(b) for b in ledger.take_later(item(1), DERM, 1, RUN)] == [b"piece", b"1"], "it is used"
    with opened(folder) as ledger, ledger._vault.transaction() as db:
        left = {row[0] for row in db.execute("SELECT DISTINCT number FROM later")}
        assert left == ({2} if end in ("reopened", "dropped") else set())


def test_a_piece_that_was_changed_or_stands_elsewhere_is_not_handed_out(folder: Path) -> None:
    with opened(folder) as ledger:
        in_pieces(ledger, 1, count=4)
    changed(folder, "UPDATE later SET piece = 9 WHERE piece = 1", "UPDATE later SET piece = 1 WHERE piece = 2")
    changed(folder, "UPDATE later SET sealed = CAST(substr(sealed, 1, 30) || x'00' AS BLOB) WHERE piece = 3")
    with opened(folder) as ledger:
        ledger.take(item(1), DERM, RUN)
        for piece in (1, 3, 9):
            with pytest.raises(VaultError, match="not authentic"):
                ledger.take_later(item(1), DERM, piece, RUN)
            with pytest.raises(MaterialError, match="no piece"):
                ledger.take_later(item(1), DERM, piece, RUN)


def changed(folder: Path, *statements: str) -> None:
    db = sqlite3.connect(folder / "ledger.sqlite")
    for statement in statements:
        db.execute(statement)
    db.commit()
    db.close()


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE chunks SET sealed = (SELECT sealed FROM chunks WHERE number = 2) WHERE number = 1",
        "UPDATE chunks SET sealed = CAST(substr(sealed, 1, 30) || x'00' || substr(sealed, 32) AS BLOB)",
        "UPDATE chunks SET sealed = x''",
        "UPDATE chunks SET part = 2 WHERE part = 0",
        "DELETE FROM chunks WHERE part = 0",
        "DELETE FROM chunks",
    ],
)
def test_a_part_that_was_changed_is_not_handed_out_and_is_used(
    folder: Path, monkeypatch: pytest.MonkeyPatch, statement: str
) -> None:
    monkeypatch.setattr(vault_module, "CHUNK_BYTES", 64)
    with opened(folder) as ledger:
        for number in (1, 2):
            ledger.add(item(number), DERM, [b"SECRET" * 15])
    changed(folder, statement)
    with opened(folder) as ledger:
        with pytest.raises(VaultError, match="not authentic") as caught:
            ledger.take(item(1), DERM, RUN)
        assert "SECRET" not in str(caught.value)
        assert "is used here" in str(refused(ledger, item(1)))


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE items SET state = 'fresh' WHERE number = 1",
        "UPDATE items SET run = 'other' WHERE number = 1",
        "DELETE FROM items WHERE number = 1",
        "INSERT INTO items VALUES ('" + SESSION + "', 2, '" + DERM + "', 'fresh', NULL, 'clinic', 1)",
        "UPDATE sessions SET destroyed = 0",
    ],
)
def test_the_file_itself_refuses_what_would_allow_a_second_use(folder: Path, statement: str) -> None:
    with opened(folder) as ledger:
        filled(ledger, 1, 3)
        ledger.take(item(1), DERM, RUN)
        ledger.destroy(SESSION)
    with pytest.raises(sqlite3.IntegrityError):
        changed(folder, statement)


def test_flipped_bits_in_the_part(folder: Path) -> None:
    secret = b"SECRET" * 5000
    with opened(folder) as ledger:
        for number in range(1, 6):
            ledger.add(item(number), DERM, [secret])
    data = bytearray((folder / "ledger.sqlite").read_bytes())
    assert b"SECRET" not in data
    for at in range(8000, len(data), 8192):
        data[at] ^= 4
    (folder / "ledger.sqlite").write_bytes(data)
    outcomes = []
    try:
        with opened(folder) as ledger:
            for number in range(1, 6):
                try:
                    assert [bytes(b) for b in ledger.take(item(number), DERM, RUN)] == [secret]
                except TesseraError as error:
                    outcomes.append(error)
    except TesseraError as error:
        outcomes.append(error)
    assert outcomes
    assert not any("SECRET" in str(error) for error in outcomes)


def on_disk(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in sorted(folder.iterdir()))


def test_at_rest_there_is_no_plaintext_and_after_use_no_ciphertext(folder: Path) -> None:
    secret = secrets.token_bytes(50_000)
    with opened(folder) as ledger:
        ledger.add(item(1), DERM, [secret])
        ledger.add(item(2), DERM, [secret])
        assert not any(secret[k : k + 16] in on_disk(folder) for k in range(0, len(secret), 1000))
        with ledger._vault.transaction() as db:
            sealed = [row[0] for row in db.execute("SELECT sealed FROM chunks ORDER BY number")]
        # Short enough to lie within a page, wherever pages begin.
        marks = [[s[k : k + 64] for k in range(0, len(s) - 64, 2000)] for s in sealed]
        assert all(any(mark in on_disk(folder) for mark in part) for part in marks)
        ledger.take(item(1), DERM, RUN)
        ledger._vault.checkpoint()
        assert not any(mark in on_disk(folder) for mark in marks[0])
        assert any(mark in on_disk(folder) for mark in marks[1])
        # The end of a session empties the log by itself.
        ledger.destroy(SESSION)
        assert not any(mark in on_disk(folder) for mark in marks[1])
        assert secret[:6] not in repr(ledger).encode()


def test_of_many_threads_one_gets_it(folder: Path) -> None:
    with opened(folder) as ledger:
        filled(ledger, *range(1, 21))
        taken: list[int] = []

        def work() -> None:
            for number in range(1, 21):
                try:
                    ledger.take(item(number), DERM, RUN)
                except SpentItem:
                    continue
                taken.append(number)

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(taken) == list(range(1, 21))


SNIPPET = Path(__file__).parents[1] / "snippet.py"
CHILD = """
import sys
from parties.members.keys import KeyPair
from parties.stock.items import ItemId, SpentItem
from parties.stock.ledger import PartyLedger
keys, first = KeyPair(*sys.argv[2:4]), int(sys.argv[4])
with PartyLedger(sys.argv[1], keys, "party0", "f00d") as ledger:
    print("open", flush=True)
    for number in range(first, first + 100_000):
        ledger.add(ItemId("a" * 32, number), "d" * 64, [b"x" * 4000])
        print("added", number, flush=True)
        if number % 3:
            ledger.take(ItemId("a" * 32, number), "d" * 64, "1" * 32)
            print("taken", number, flush=True)
"""


def test_killed_at_any_moment_it_hands_out_nothing_twice(folder: Path) -> None:
    taken: set[int] = set()
    first = 1
    for _ in range(6):
        command = [sys.executable, str(SNIPPET), CHILD, str(folder), KEYS.public, KEYS.secret, str(first)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout is not None
            lines = [child.stdout.readline() for _ in range(4 + secrets.randbelow(60))]
            child.send_signal(signal.SIGKILL)
            lines.extend(line for line in child.stdout if line.endswith("\n"))
        said = [line.split() for line in lines[1:]]
        now = {int(number) for word, number in said if word == "taken"}
        assert not now & taken
        taken |= now
        with opened(folder) as ledger:
            states = {e.item.number: e.state for e in ledger.history()}
            assert all(states[number] is State.USED for number in taken)
            assert all(int(number) in states for word, number in said if word == "added")
            for number in taken:
                refused(ledger, item(number))
            # What the child left fresh is whole.
            fresh = [number for number, state in states.items() if state is State.FRESH]
            for number in fresh[:5]:
                assert bytes(ledger.take(item(number), DERM, RUN)[0]) == b"x" * 4000
                taken.add(number)
            first = max(states) + 1


class Machine(RuleBasedStateMachine):
    """The ledger against a dictionary, through crash-free restarts: nothing is handed out twice."""

    items = Bundle("items")

    def __init__(self) -> None:
        super().__init__()
        self.home = tempfile.TemporaryDirectory()
        self.ledger = opened(Path(self.home.name))
        self.states: dict[ItemId, tuple[str, str]] = {}
        self.destroyed: set[str] = set()
        self.handed_out: set[ItemId] = set()

    def teardown(self) -> None:
        self.ledger.close()
        self.home.cleanup()

    def fresh(self, session: str | None = None, program: str | None = None) -> list[ItemId]:
        return [
            i
            for i, (p, state) in self.states.items()
            if state == "fresh" and session in (None, i.session) and program in (None, p)
        ]

    sessions = st.sampled_from([SESSION, ELSEWHERE])
    programs = st.sampled_from([DERM, OTHER])
    numbers = st.integers(1, 12)

    @rule(target=items, session=sessions, number=numbers, program=programs)
    def add(self, session: str, number: int, program: str) -> ItemId:
        new = item(number, session)
        highest = max((i.number for i in self.states if i.session == session), default=0)
        try:
            self.ledger.add(new, program, [program.encode(), repr(new).encode()])
        except SpentItem:
            assert session in self.destroyed or number <= highest
        else:
            assert session not in self.destroyed
            assert number > highest
            self.states[new] = (program, "fresh")
        return new

    @rule(what=items, program=programs)
    def take(self, what: ItemId, program: str) -> None:
        try:
            part = self.ledger.take(what, program, RUN)
        except SpentItem as error:
            assert self.states.get(what) != (program, "fresh")
            above = [i.number for i in self.fresh(what.session, program) if i.number > what.number]
            assert error.position == min(above, default=NOTHING_FRESH)
        else:
            assert self.states[what] == (program, "fresh")
            assert [bytes(b) for b in part] == [program.encode(), repr(what).encode()]
            assert what not in self.handed_out
            self.handed_out.add(what)
            self.states[what] = (program, "used")

    def discard(self, gone: list[ItemId]) -> int:
        for i in gone:
            self.states[i] = (self.states[i][0], "discarded")
        return len(gone)

    @rule(session=sessions, program=programs, below=numbers)
    def skip(self, session: str, program: str, below: int) -> None:
        gone = [i for i in self.fresh(session, program) if i.number < below]
        assert self.ledger.skip(session, program, below) == self.discard(gone)

    @rule(program=programs)
    def discard_program(self, program: str) -> None:
        assert self.ledger.discard_program(program) == self.discard(self.fresh(program=program))

    @rule(session=sessions)
    def destroy(self, session: str) -> None:
        assert self.ledger.destroy(session) == self.discard(self.fresh(session))
        self.destroyed.add(session)

    @rule()
    def reopen(self) -> None:
        self.ledger.close()
        self.ledger = opened(Path(self.home.name))

    @invariant()
    def as_the_model_says(self) -> None:
        assert {e.item: (e.program, str(e.state)) for e in self.ledger.history()} == self.states
        assert sum(self.ledger.stock().values()) == len(self.fresh())
        spent = [i.number for i, (_, state) in self.states.items() if i.session == SESSION and state != "fresh"]
        assert self.ledger.position(SESSION) == max(spent, default=0)


Machine.TestCase.settings = settings(max_examples=25, stateful_step_count=30)
TestMachine = Machine.TestCase
