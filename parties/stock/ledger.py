"""The ledger of preprocessing: what has been dealt ahead of time, and what has become of it.

An *item* is one dealing of one bound program: of a program, and the versions of the stored secrets that it reads
(`parties.messages.bindings`).  What is called *program* from here on is the digest of such a one.  Dealer and parties
call an item by the dealer's *session* and a number that grows in it; each keeps its own part, sealed, in a ledger of
its own.  An item used twice would be a two-time pad, and a second chance against one MAC key; so:

*Once per ledger.*  One transaction marks an item used and deletes its part, and is on the disk before the part is
handed out.  A crash before that leaves the item fresh and nothing handed out; a crash after it leaves the item used and
its part gone.  Rows are never deleted and a state never goes back (the file's own triggers refuse it), and a session
takes growing numbers only: what a ledger has known as used, discarded or destroyed, it never hands out or takes in
again.

*In pieces.*  What a party is dealt for a large program comes piece by piece, and is *pending* until the last one is
there.  The first piece is an item's part, as above.  Each of the others is deleted, durably, before it is handed to the
run that has marked the item used; what that run has not read goes with it, or when the ledger is opened again.

*On shelves.*  Of a party with workers, pieces may lie with those, sealed under a key that is in the item's part
(`parties.stock.shelf`).

*Old files.*  A ledger cannot see that its whole file was replaced by an older copy, but the others can.  The dealer's
ledger (`stock.dealer_stock`) assigns no number twice, so a party's old file brings fresh-looking items that nobody asks
for.  If the dealer's file is the old one, it assigns items again that the parties know as used, and it deals under
numbers that they have seen: each refuses.  The parties compare items before anything leaves one of them, so one
refusal ends the run.  A second use takes the old file of the dealer *and* of every honest party at once; against
whoever can do that, encryption at rest does not help.

*Bound.*  A part opens only for its member, cluster, session, number and program (associated data of the encryption),
and with the member's key.  The cluster is what it is dealt for, `Cluster.bond`: the servers, whichever keys and
addresses they have, and the security.  When that changes, what was dealt before is destroyed.

*Upgrades.*  `LAYOUT` counts the changes to the tables and to what is in them; a file of another one is refused.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Collection, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Self

from mpc.errors import ConfigurationError, MaterialError
from parties.members.keys import KeyPair
from parties.messages.workers import Place
from parties.stock.items import NOTHING_FRESH, Entry, ItemId, SpentItem, State, check_item
from parties.stock.shelved import Shelved, ShelvedItems
from parties.stored.vault import Vault, VaultError
from parties.wire.messages import Buffer, payload_bytes

LAYOUT = 3
"""1 is that of release 0.1, in which items were of programs that named versions themselves; 2 that of 0.2, in which
they were nobody's."""

_SCHEMA = """
CREATE TABLE layout (version INTEGER NOT NULL);
INSERT INTO layout VALUES (3);
CREATE TABLE cluster (fingerprint TEXT NOT NULL);
CREATE TABLE sessions (
    session TEXT PRIMARY KEY,
    destroyed INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;
CREATE TABLE items (
    session TEXT NOT NULL REFERENCES sessions,
    number INTEGER NOT NULL,
    program TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('pending', 'fresh', 'used', 'discarded')),
    run TEXT,
    client TEXT NOT NULL,
    size INTEGER NOT NULL,
    PRIMARY KEY (session, number)
) WITHOUT ROWID;
CREATE INDEX items_by_state ON items (state, program, session, number);
CREATE INDEX items_by_client ON items (client, state, session, size);
CREATE TABLE chunks (
    session TEXT NOT NULL,
    number INTEGER NOT NULL,
    part INTEGER NOT NULL,
    sealed BLOB NOT NULL,
    PRIMARY KEY (session, number, part),
    FOREIGN KEY (session, number) REFERENCES items
);
CREATE VIEW unspent AS
    SELECT items.* FROM items JOIN sessions USING (session) WHERE NOT destroyed AND state IN ('pending', 'fresh');
CREATE TRIGGER spent_items_have_no_part AFTER UPDATE OF state ON items WHEN NEW.state IN ('used', 'discarded')
BEGIN DELETE FROM chunks WHERE session = NEW.session AND number = NEW.number; END;
CREATE TRIGGER spent_items_stay_spent BEFORE UPDATE ON items WHEN OLD.state IN ('used', 'discarded')
BEGIN SELECT RAISE(ABORT, 'a spent item stays spent'); END;
CREATE TRIGGER items_are_kept BEFORE DELETE ON items
BEGIN SELECT RAISE(ABORT, 'items are kept'); END;
CREATE TRIGGER numbers_grow BEFORE INSERT ON items
WHEN EXISTS (SELECT 1 FROM items WHERE session = NEW.session AND number >= NEW.number)
BEGIN SELECT RAISE(ABORT, 'numbers grow'); END;
CREATE TRIGGER sessions_stay_destroyed BEFORE UPDATE ON sessions WHEN OLD.destroyed AND NOT NEW.destroyed
BEGIN SELECT RAISE(ABORT, 'a destroyed session stays so'); END;
"""


_LATER = """
CREATE TABLE later (
    session TEXT NOT NULL,
    number INTEGER NOT NULL,
    piece INTEGER NOT NULL,
    part INTEGER NOT NULL,
    sealed BLOB NOT NULL,
    PRIMARY KEY (session, number, piece, part),
    FOREIGN KEY (session, number) REFERENCES items
);
CREATE TRIGGER discarded_items_have_no_pieces AFTER UPDATE OF state ON items WHEN NEW.state = 'discarded'
BEGIN DELETE FROM later WHERE session = NEW.session AND number = NEW.number; END;
"""
_USED = "SELECT session, number FROM items WHERE state = 'used'"


class Ledger:
    """What the ledgers of dealer and parties have in common.  Calls block: make them from worker threads.

    Args:
        folder: the member's data folder.
        keys: its own.
        member: its name in the cluster file.
        cluster: `Cluster.bond`.

    Raises:
        ConfigurationError: as `Vault`, or a file of another layout.  Every method may raise `VaultError`.
    """

    def __init__(
        self, folder: str | os.PathLike[str], keys: KeyPair, member: str, cluster: str, *, file: str, schema: str = ""
    ) -> None:
        self._cluster = cluster
        self._vault = Vault(
            folder, file, keys, purpose=file.removesuffix(".sqlite"), member=member, schema=_SCHEMA + schema
        )
        try:
            with self._vault.transaction() as db:
                _check_layout(db, os.path.join(folder, file))  # noqa: PTH118 - for messages alone
                if db.execute("SELECT fingerprint FROM cluster").fetchall() != [(cluster,)]:
                    db.execute("UPDATE sessions SET destroyed = 1")
                    db.execute("DELETE FROM cluster")
                    db.execute("INSERT INTO cluster VALUES (?)", (cluster,))
            # Also what a crash left of a session whose destruction had begun.
            self._sweep()
        except BaseException:
            self._vault.close()
            raise

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._vault!r}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """No call works from here on."""
        self._vault.close()

    def check(self) -> None:
        """Raises VaultError when nothing could be written now."""
        with self._vault.transaction():
            pass

    def stock(self) -> Mapping[str, int]:
        """Fresh items by program."""
        with self._vault.transaction() as db:
            return dict(
                db.execute(
                    "SELECT program, count(*) FROM unspent WHERE state = 'fresh' GROUP BY program ORDER BY program"
                )
            )

    def held_by(self, client: str) -> int:
        """Bytes of what there is for runs of that client."""
        with self._vault.transaction() as db:
            return held_by(db, client)[1]

    def history(self) -> Iterator[Entry]:
        """Every item there ever was, by session and number."""
        last: tuple[str, int] = ("", 0)
        while True:
            with self._vault.transaction() as db:
                rows = db.execute(
                    "SELECT session, number, program, run, state FROM items WHERE (session, number) > (?, ?)"
                    " ORDER BY session, number LIMIT 1000",
                    last,
                ).fetchall()
            for session, number, program, run, state in rows:
                # In a damaged file the rows might be out of order, and this never end.
                known = isinstance(session, str) and isinstance(number, int) and state in iter(State)
                if not known or (session, number) <= last:
                    raise VaultError("the ledger is damaged: a line of its history makes no sense")
                last = session, number
                yield Entry(ItemId(session, number), program, run, State(state))
            if not rows:
                return

    def position(self, session: str) -> int:
        """The highest number of the session that was used or discarded; 0 if none was."""
        with self._vault.transaction() as db:
            row = db.execute(
                "SELECT max(number) FROM items WHERE session = ? AND state IN ('used', 'discarded')", (session,)
            ).fetchone()
        return int(row[0] or 0)

    def skip(self, session: str, program: str, below: int) -> int:
        """Discards what is fresh of the program with numbers below ``below``; how many items that were.

        `NOTHING_FRESH` as ``below`` discards all.  An item that a concurrent run was promised but has not taken yet
        goes as well, and that run will be refused.
        """
        with self._vault.transaction() as db:
            return db.execute(
                "UPDATE items SET state = 'discarded'"
                " WHERE state = 'fresh' AND program = ? AND session = ? AND number < ?",
                (program, session, min(below, NOTHING_FRESH)),
            ).rowcount

    def discard_program(self, program: str) -> int:
        """Discards all there is of a program that nobody will run any more; how many items that were."""
        with self._vault.transaction() as db:
            return self._discard(db, program)

    @staticmethod
    def _discard(db: sqlite3.Connection, program: str) -> int:
        which = "state IN ('pending', 'fresh') AND program = ?"
        return db.execute(f"UPDATE items SET state = 'discarded' WHERE {which}", (program,)).rowcount  # noqa: S608 - ours

    def _sweep(self) -> int:
        """Deletes the material of destroyed sessions: item by item, so the log stays small and others get turns."""
        swept = 0
        while True:
            with self._vault.transaction() as db:
                row = db.execute(
                    "SELECT session, number FROM items JOIN sessions USING (session)"
                    " WHERE state IN ('pending', 'fresh') AND destroyed LIMIT 1"
                ).fetchone()
                if row is None:
                    break
                update = "UPDATE items SET state = 'discarded' WHERE session = ? AND number = ?"
                # An index that does not agree with its table would give the same row for ever.
                if db.execute(update, row).rowcount != 1:
                    raise VaultError("the ledger is damaged: the material of a destroyed session cannot be deleted")
            swept += 1
        if swept:
            self._vault.checkpoint()
        return swept

    def _store(
        self,
        db: sqlite3.Connection,
        item: ItemId,
        program: str,
        state: State,
        payload: Sequence[Buffer],
        client: str,
        beside: int = 0,
    ) -> None:
        """``beside``: bytes of it that are not here."""
        size = payload_bytes(payload) + beside
        db.execute("INSERT INTO items VALUES (?, ?, ?, ?, NULL, ?, ?)", (*item, program, state, client, size))
        for part, sealed in enumerate(self._vault.seal(self._label(item, program), payload)):
            db.execute("INSERT INTO chunks VALUES (?, ?, ?, ?)", (*item, part, sealed))

    def _spend(self, db: sqlite3.Connection, item: ItemId, program: str, run: str) -> list[memoryview] | VaultError:
        """Marks a fresh item used, and takes its part out.  To be handed out by `delivered`, after the transaction.

        A part that is not authentic is an error to raise then: raised within, it would leave the item fresh.
        """
        part = self._opened(db, self._label(item, program), "chunks WHERE session = ? AND number = ?", item)
        marked = db.execute(
            "UPDATE items SET state = 'used', run = ?"
            " WHERE session = ? AND number = ? AND program = ? AND state = 'fresh'",
            (run, *item, program),
        ).rowcount
        if marked != 1:
            raise VaultError(
                f"the ledger is damaged: preprocessing {item} cannot be marked used, and is not handed out"
            )
        return part

    def _opened(
        self, db: sqlite3.Connection, label: Sequence[str], where: str, values: Sequence[object]
    ) -> list[memoryview] | VaultError:
        """What was sealed under that label, of those rows."""
        count, size = db.execute(f"SELECT count(*), total(length(sealed)) FROM {where}", values).fetchone()  # noqa: S608 - ours
        chunks = db.execute(f"SELECT sealed FROM {where} ORDER BY part", values)  # noqa: S608 - ours
        try:
            return self._vault.unseal(label, count, int(size), (row[0] for row in chunks))
        except VaultError as error:
            return error
        finally:
            chunks.close()

    def _label(self, item: ItemId, program: str) -> tuple[str, ...]:
        return ("item", self._cluster, item.session, str(item.number), program)


def delivered(part: list[memoryview] | VaultError) -> list[memoryview]:
    if isinstance(part, VaultError):
        raise part
    return part


class PartyLedger(Ledger):
    """What a party keeps: its parts, in ``ledger.sqlite`` in its data folder.  The module's text has the argument."""

    def __init__(self, folder: str | os.PathLike[str], keys: KeyPair, member: str, cluster: str) -> None:
        super().__init__(folder, keys, member, cluster, file="ledger.sqlite", schema=_LATER)
        try:
            self.shelved = ShelvedItems(self._vault)
            with self._vault.transaction() as db:
                self._give_up_pending(db)
                db.execute(f"DELETE FROM later WHERE (session, number) IN ({_USED})")  # noqa: S608 - ours
        except BaseException:
            self._vault.close()
            raise

    @staticmethod
    def _give_up_pending(db: sqlite3.Connection) -> None:
        """Of which the rest will not come."""
        db.execute("UPDATE items SET state = 'discarded' WHERE state = 'pending'")

    def add(
        self,
        item: ItemId,
        program: str,
        payload: Sequence[Buffer],
        client: str = "",
        *,
        more: bool = False,
        shelved: Shelved | None = None,
    ) -> None:
        """Stores this party's part of an item for that client's runs; it is durable when this returns.  ``more``: of
        the first piece, and it is pending until it has the last.  ``shelved``: where the piece lies, whose key is in
        the part.

        Numbers grow within a session, so add in the order of dealing, and all of one before the next.

        Raises:
            SpentItem: the session is destroyed, or a number as high has been seen in it.
            UsageError: what is given as item or program is none.
        """
        check_item(item, program)
        with self._vault.transaction() as db:
            db.execute("INSERT OR IGNORE INTO sessions (session) VALUES (?)", (item.session,))
            if is_destroyed(db, item.session):
                raise SpentItem(item, "is of a session that was destroyed here", NOTHING_FRESH)
            if item.number <= (highest := highest_number(db, item.session)):
                raise SpentItem(item, "has a number that this session has passed here", highest + 1)
            self._give_up_pending(db)
            state, beside = State.PENDING if more else State.FRESH, 0 if shelved is None else shelved.size
            self._store(db, item, program, state, payload, client, beside)
            if shelved is not None:
                self.shelved.enter(db, item, shelved)

    def add_later(
        self,
        item: ItemId,
        program: str,
        piece: int,
        payload: Sequence[Buffer],
        *,
        last: bool,
        shelved: Shelved | None = None,
    ) -> None:
        """Stores the next piece, which are counted from 0, of a pending item; it is durable when this returns.

        ``shelved``: as the whole of it lies so far, and nothing of it here.

        Raises MaterialError if it is not that.
        """
        check_item(item, program)
        with self._vault.transaction() as db:
            row = db.execute("SELECT program, state FROM items WHERE session = ? AND number = ?", item).fetchone()
            there = "SELECT ifnull(max(piece), 0) FROM later WHERE session = ? AND number = ?"
            expected = 1 + int(db.execute(there, item).fetchone()[0])
            if row != (program, State.PENDING) or is_destroyed(db, item.session) or piece != expected:
                raise MaterialError(f"piece {piece} of preprocessing {item} is not what comes next here")
            for part, sealed in enumerate(self._vault.seal(self._piece_label(item, program, piece), payload)):
                db.execute("INSERT INTO later VALUES (?, ?, ?, ?, ?)", (*item, piece, part, sealed))
            change = "UPDATE items SET size = size + ?, state = ? WHERE session = ? AND number = ?"
            more = payload_bytes(payload)
            if shelved is not None:
                more += self.shelved.enter(db, item, shelved)
            db.execute(change, (more, State.FRESH if last else State.PENDING, *item))

    def take_later(self, item: ItemId, program: str, piece: int, run: str) -> list[memoryview]:
        """Hands out one more piece of an item that this run has taken, once it is deleted here, durably.

        Raises MaterialError if the run has not taken it, or has had the piece; VaultError, and it is gone, if it is not
        authentic.
        """
        where = "later WHERE session = ? AND number = ? AND piece = ?"
        with self._vault.transaction() as db:
            taken = "SELECT program, state, run FROM items WHERE session = ? AND number = ?"
            if db.execute(taken, item).fetchone() != (program, State.USED, run) or is_destroyed(db, item.session):
                raise MaterialError(f"preprocessing {item} is not this run's here")
            if db.execute(f"SELECT count(*) FROM {where}", (*item, piece)).fetchone() == (0,):  # noqa: S608 - ours
                raise MaterialError(f"preprocessing {item} has no piece {piece} here")
            part = self._opened(db, self._piece_label(item, program, piece), where, (*item, piece))
            db.execute(f"DELETE FROM {where}", (*item, piece))  # noqa: S608 - ours
        return delivered(part)

    def drop_later(self, item: ItemId) -> None:
        """What a run has not read of a used item is of no use to another."""
        with self._vault.transaction() as db:
            which = f"session = ? AND number = ? AND (session, number) IN ({_USED})"
            db.execute(f"DELETE FROM later WHERE {which}", item)  # noqa: S608 - ours

    def _piece_label(self, item: ItemId, program: str, piece: int) -> tuple[str, ...]:
        return (*self._label(item, program), "piece", str(piece))

    def place(self, item: ItemId, program: str, where: Shelved, key: bytes) -> Place:
        """What its workers are told of an item on a shelf."""
        return Place(where.shelf, self.shelved.owner, where.name, (*self._label(item, program), "piece"), key)

    def take(self, item: ItemId, program: str, run: str) -> list[memoryview]:
        """Marks the item used by ``run``, durably, and only then hands out this party's part of it.

        Raises:
            SpentItem: used, discarded, unknown, of another program or of a destroyed session; see `SpentItem.position`.
            VaultError: the part is not authentic; the item is used all the same.
        """
        check_item(item, program)
        with self._vault.transaction() as db:
            row = db.execute("SELECT program, state FROM items WHERE session = ? AND number = ?", item).fetchone()
            if row != (program, State.FRESH) or is_destroyed(db, item.session):
                raise SpentItem(item, self._reason(db, item, program, row), self._next_fresh(db, item, program))
            part = self._spend(db, item, program, run)
        return delivered(part)

    def miss(self, item: ItemId, program: str, shelves: Collection[str]) -> SpentItem:
        """Discards what lies where no worker is, and is asked for; what is to be said of it.

        Its position is that of the next item that is here, or on one of these shelves; if none is, of the next one,
        whose worker may have come back by then.
        """
        here = f"(shelf IS NULL OR shelf IN ({', '.join('?' * len(shelves))}))"
        there = "unspent LEFT JOIN shelved USING (session, number) WHERE state = 'fresh'"
        with self._vault.transaction() as db:
            discard = "UPDATE items SET state = 'discarded' WHERE state = 'fresh' AND session = ? AND number = ?"
            db.execute(discard, item)
            first = f"SELECT min(number) FROM {there} AND program = ? AND session = ? AND number > ? AND {here}"  # noqa: S608 - ours
            (position,) = db.execute(first, (program, *item, *shelves)).fetchone()
            following = self._next_fresh(db, item, program) if position is None else int(position)
        return SpentItem(item, "lies where none of this party's workers is", following)

    def destroy(self, session: str) -> int:
        """Nothing of that session is handed out or taken in from here on, and its material is deleted.

        Durable at once, also for a session that this party has not met yet: a crash while the material is being deleted
        cannot undo it, and the next opening goes on deleting.  Returns how many items were deleted.
        """
        with self._vault.transaction() as db:
            db.execute(
                "INSERT INTO sessions VALUES (?, 1) ON CONFLICT (session) DO UPDATE SET destroyed = 1", (session,)
            )
        return self._sweep()

    def destroy_others(self, session: str) -> int:
        """`destroy` of every session but this one.  Returns how many items were deleted."""
        with self._vault.transaction() as db:
            db.execute("UPDATE sessions SET destroyed = 1 WHERE session != ?", (session,))
        return self._sweep()

    def destroy_all(self) -> int:
        """`destroy` of every session there is.  Returns how many items were deleted."""
        with self._vault.transaction() as db:
            db.execute("UPDATE sessions SET destroyed = 1")
        return self._sweep()

    @staticmethod
    def _reason(db: sqlite3.Connection, item: ItemId, program: str, row: tuple[object, object] | None) -> str:
        if is_destroyed(db, item.session):
            return "is of a session that was destroyed here"
        if row is None:
            return "is unknown here"
        return "is of another program here" if row[0] != program else f"is {row[1]} here"

    @staticmethod
    def _next_fresh(db: sqlite3.Connection, item: ItemId, program: str) -> int:
        row = db.execute(
            "SELECT min(number) FROM unspent WHERE state = 'fresh' AND program = ? AND session = ? AND number > ?",
            (program, *item),
        ).fetchone()
        return NOTHING_FRESH if row[0] is None else int(row[0])


def _check_layout(db: sqlite3.Connection, path: str) -> None:
    """Raises ConfigurationError for a file that another release has written."""
    has = db.execute("SELECT count(*) FROM sqlite_master WHERE name = 'layout'").fetchone() != (0,)
    layouts = db.execute("SELECT version FROM layout").fetchall() if has else [(1,)]
    if layouts in ([(1,)], [(2,)]):
        raise ConfigurationError(
            f"data file {path} was written by release 0.{layouts[0][0]}, which this one does not read: move the data"
            " folder away to begin with an empty one, and have preprocessing dealt anew (tessera deal)"
        )
    if layouts != [(LAYOUT,)]:
        raise ConfigurationError(
            f"data file {path} was written by a newer release (this one knows layout {LAYOUT}): run that release or a"
            " later one, or move the file away, and have preprocessing dealt anew (tessera deal)"
        )


def held_by(db: sqlite3.Connection, client: str) -> tuple[int, int]:
    """How many items there are for runs of that client, pending ones included, and their bytes."""
    row = db.execute("SELECT count(*), total(size) FROM unspent WHERE client = ?", (client,)).fetchone()
    return int(row[0]), int(row[1])


def is_destroyed(db: sqlite3.Connection, session: str) -> bool:
    return db.execute("SELECT 1 FROM sessions WHERE session = ? AND destroyed", (session,)).fetchone() is not None


def highest_number(db: sqlite3.Connection, session: str) -> int:
    """The highest number ever seen in the session."""
    row = db.execute("SELECT max(number) FROM items WHERE session = ?", (session,)).fetchone()
    return int(row[0] or 0)
