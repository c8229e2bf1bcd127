"""What the dealer keeps of preprocessing dealt ahead of time, and how much of it there should be.

The dealer's ledger, as `stock.ledger` describes it, of the *client's* part of each item; the parties have theirs.
An item is *pending* until every party has stored its part and said so.  A crash before that leaves it pending, and the
next opening discards it: nobody is ever assigned an item that a party may not have.  Its number stays spent.

`assign` marks the item used, durably, before its number leaves: after a crash at any point it is assigned once at most.

An item that a party says it no longer has is *in doubt*, and so are those before: no run is assigned such, and they do
not count as stock, but they are not discarded, since that is one party's word, until their client orders anew.  What is
in doubt is forgotten with the process.
"""

from __future__ import annotations

import os
import secrets
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from mpc.errors import MaterialError, ServerBusy, UsageError
from mpc.rings.prg import Seed
from parties.host.disk import check_part
from parties.members.cluster import DEALER
from parties.members.keys import KeyPair
from parties.stock.chain import ItemRecord
from parties.stock.items import ItemId, State, check_item
from parties.stock.ledger import Ledger, delivered, held_by, highest_number
from parties.stored.vault import VaultError
from parties.wire.messages import Buffer, payload_bytes

_SCHEMA = """
CREATE TABLE targets (
    program TEXT PRIMARY KEY,
    client TEXT NOT NULL,
    low_water INTEGER NOT NULL,
    count INTEGER NOT NULL,
    sealed BLOB NOT NULL
);
"""

_CHAINS = """CREATE TABLE IF NOT EXISTS chains (program TEXT PRIMARY KEY, slot TEXT NOT NULL) WITHOUT ROWID"""
"""Where each keeps what it goes on from."""
_HAS_ITEMS = "program IN (SELECT program FROM unspent)"

_DOUBTS = """
CREATE TEMP TABLE doubted (program TEXT, party TEXT, below INTEGER NOT NULL, PRIMARY KEY (program, party));
CREATE TEMP TABLE lost (session TEXT, number INTEGER, party TEXT, PRIMARY KEY (session, number, party)) WITHOUT ROWID;
CREATE TEMP VIEW floors AS SELECT program, max(below) AS below FROM doubted GROUP BY program;
CREATE TEMP VIEW usable AS
    SELECT unspent.* FROM unspent LEFT JOIN floors USING (program) WHERE number >= ifnull(below, 0)
    AND NOT EXISTS (SELECT 1 FROM lost WHERE lost.session = unspent.session AND lost.number = unspent.number);
"""

MAX_ITEMS = 100_000
"""In stock for one client's runs."""
MAX_JUMP = 1 << 32
"""Numbers that a party's word has this stock pass over, at once: there are enough."""
MAX_TARGETS = 100
"""Programs whose stock is kept up for one client."""


@dataclass(frozen=True)
class Target:
    """Deal ``program``, for that client, again when fewer than ``low_water`` items are left, up to ``count``."""

    client: str
    program: bytes = field(repr=False)
    low_water: int
    count: int


class BrokenChain(MaterialError):  # noqa: N818 - says what happened
    """What was left of a chain is for a state that will never be, and has been discarded."""


class DealerStock(Ledger):
    """The dealer's stock: ``stock.sqlite`` in its data folder.  Calls block: make them from worker threads."""

    def __init__(self, folder: str | os.PathLike[str], keys: KeyPair, cluster: str) -> None:
        super().__init__(folder, keys, DEALER, cluster, file="stock.sqlite", schema=_SCHEMA)
        self._folder = folder
        try:
            with self._vault.transaction() as db:
                db.execute("UPDATE items SET state = 'discarded' WHERE state = 'pending'")
                self._session = _session(db)
                db.execute(_CHAINS)
                db.execute(f"DELETE FROM chains WHERE NOT {_HAS_ITEMS}")  # noqa: S608 - ours
                for statement in filter(str.strip, _DOUBTS.split(";")):
                    db.execute(statement)
        except BaseException:
            self._vault.close()
            raise

    @property
    def session(self) -> str:
        """The current session: 32 hexadecimal digits, the same after a restart."""
        return self._session

    def new_session(self, former: str = "") -> str:
        """Destroys all material of the current session, for good, and begins another one.

        Not if ``former`` is another one, and over already.
        """
        with self._vault.transaction() as db:
            if former and former != _session(db):
                return self._session
            db.execute("UPDATE sessions SET destroyed = 1")
            db.execute("DELETE FROM doubted")
            db.execute("DELETE FROM lost")
            session = _session(db)
        self._session = session
        self._sweep()
        return session

    def stock(self) -> Mapping[str, int]:
        """Fresh items by program, but for those in doubt."""
        with self._vault.transaction() as db:
            return dict(
                db.execute(
                    "SELECT program, count(*) FROM usable WHERE state = 'fresh' GROUP BY program ORDER BY program"
                )
            )

    def stock_of(self, program: str) -> int:
        """Likewise of one.  Others' may be many, and take long to count."""
        with self._vault.transaction() as db:
            fresh = "SELECT count(*) FROM usable WHERE state = 'fresh' AND program = ?"
            return int(db.execute(fresh, (program,)).fetchone()[0])

    def doubt(self, party: str, item: ItemId, program: str, position: int) -> bool:
        """That party has not got this item, nor another one below ``position``.

        False if that is no news, or the item was never assigned: then it is nobody's to say.
        """
        with self._vault.transaction() as db:
            floor = db.execute("SELECT below FROM floors WHERE program = ?", (program,)).fetchone() or (0,)
            known = "SELECT 1 FROM items WHERE session = ? AND number = ? AND program = ? AND state = 'used'"
            assigned = db.execute(known, (*item, program)).fetchone()
            if assigned is None or item.session != _session(db) or item.number < floor[0]:
                return False
            below = max(item.number + 1, min(position, highest_number(db, item.session) + 1))
            db.execute("INSERT OR REPLACE INTO doubted VALUES (?, ?, ?)", (program, party, below))
        return True

    def lose(self, party: str, session: str, numbers: Sequence[int]) -> list[str]:
        """That party has not got these items, which are in stock and asked for by nobody; of which programs they are.

        They are in doubt from now on.
        """
        programs = set[str]()
        with self._vault.transaction() as db:
            for number in numbers:
                there = "SELECT program FROM usable WHERE session = ? AND number = ? AND state = 'fresh'"
                row = db.execute(there, (session, number)).fetchone()
                if row is not None:
                    db.execute("INSERT INTO lost VALUES (?, ?, ?)", (session, number, party))
                    programs.add(str(row[0]))
        return sorted(programs)

    def trust(self, party: str) -> None:
        """That party has been started anew, and may have again what it had not."""
        with self._vault.transaction() as db:
            db.execute("DELETE FROM doubted WHERE party = ?", (party,))
            db.execute("DELETE FROM lost WHERE party = ?", (party,))

    def drop_doubted(self, program: str) -> int:
        """Discards what is in doubt of the program; how many items that were."""
        with self._vault.transaction() as db:
            floor = db.execute("SELECT below FROM floors WHERE program = ?", (program,)).fetchone()
            lost = db.execute(
                "UPDATE items SET state = 'discarded' WHERE state = 'fresh' AND program = ?"
                " AND (session, number) IN (SELECT session, number FROM lost)",
                (program,),
            ).rowcount
        return lost + (0 if floor is None else self.skip(self._session, program, floor[0]))

    def begin(self, program: str, payload: Sequence[Buffer], client: str = "", above: int = 0) -> ItemId:
        """The next item of the session, pending, with the client's part; its number is ``above`` or more, if near.

        Raises ServerBusy beyond its quotas.
        """
        with self._vault.transaction() as db:
            items, size = held_by(db, client)
            if items >= MAX_ITEMS:
                raise ServerBusy(DEALER, f"{client} has {items} items in stock, and may have no more: use some first")
            check_part(self._folder, DEALER, payload_bytes(payload), client, size)
            session = _session(db)
            following = highest_number(db, session) + 1
            item = ItemId(session, max(following, min(above, following + MAX_JUMP)))
            check_item(item, program)
            self._store(db, item, program, State.PENDING, payload, client)
        return item

    def ready(self, item: ItemId) -> bool:
        """Every party has stored its part: the item is in stock.  False if it has been discarded meanwhile."""
        with self._vault.transaction() as db:
            return (
                db.execute(
                    "UPDATE items SET state = 'fresh' WHERE session = ? AND number = ? AND state = 'pending'"
                    " AND session IN (SELECT session FROM sessions WHERE NOT destroyed)",
                    item,
                ).rowcount
                == 1
            )

    def abandon(self, item: ItemId) -> None:
        """Not every party has stored its part: the item will not be in stock."""
        with self._vault.transaction() as db:
            db.execute(
                "UPDATE items SET state = 'discarded' WHERE session = ? AND number = ? AND state = 'pending'", item
            )

    def assign(self, program: str, run: str) -> tuple[ItemId, list[memoryview]] | None:
        """The oldest item in stock of the program, marked used by ``run``, and the client's part; None without stock.

        Raises VaultError if that part is not authentic; the item is used all the same, and the next call takes another.
        """
        with self._vault.transaction() as db:
            item = _oldest(db, program)
            if item is None:
                return None
            part = self._spend(db, item, program, run)
        return item, delivered(part)

    # -- chains ----------------------------------------------------------------------------------------------------

    def assign_next(self, chain: str, state: bytes, run: str) -> tuple[ItemId, list[memoryview]] | None:
        """As ``assign``, the next item of a chain, for a run that goes on from that state.

        Raises BrokenChain, and nothing of the chain is left, when the item is for another.
        """
        with self._vault.transaction() as db:
            item = _oldest(db, chain)
            if item is None:
                return None
            record = self._record(db, item, chain)
            fits = record is not None and record.state == state
            if fits:
                part = self._spend(db, item, chain, run)
            else:
                self._discard(db, chain)
        if not fits:
            raise BrokenChain("what was dealt ahead is for a state that has not come to be: it is discarded")
        return item, delivered(part)

    def begin_chain(self, chain: str, slot: str, state: bytes) -> tuple[int, tuple[Seed, ...]]:
        """How many items of it are in stock, from that state on, and what the last of them will keep.

        What there is from another state on is discarded.
        """
        with self._vault.transaction() as db:
            db.execute("INSERT OR REPLACE INTO chains VALUES (?, ?)", (chain, slot))
            fresh = "SELECT session, number FROM usable WHERE state = 'fresh' AND program = ? ORDER BY number"
            items = [ItemId(*row) for row in db.execute(fresh, (chain,))]
            first, last = (self._record(db, items[end], chain) if items else None for end in (0, -1))
            if first is None or last is None or first.state != state:
                self._discard(db, chain)
                return 0, ()
        return len(items), last.kept

    def chains(self) -> Mapping[str, str]:
        """Of those of which anything is in stock, where each keeps what it goes on from."""
        with self._vault.transaction() as db:
            return dict(db.execute(f"SELECT program, slot FROM chains WHERE {_HAS_ITEMS} ORDER BY program"))  # noqa: S608

    def _record(self, db: sqlite3.Connection, item: ItemId, program: str) -> ItemRecord | None:
        """Of an item that stays in stock; None if it is not authentic."""
        where = "chunks WHERE session = ? AND number = ?"
        part = self._opened(db, self._label(item, program), where, item)
        return None if isinstance(part, VaultError) else ItemRecord.read(part)

    def set_target(self, program: bytes, digest: str, low_water: int, count: int, client: str = "") -> None:
        """Keeps the stock of a program (its encoding, and the digest of that) between two numbers, from now on.

        Raises ServerBusy for more programs than a client may have kept up.
        """
        if not 1 <= low_water <= count:
            raise UsageError(f"a low-water mark is from 1 to the number to deal up to ({count}), not {low_water}")
        (sealed,) = self._vault.seal(("target", digest), [program], chunk_bytes=len(program) + 64)
        with self._vault.transaction() as db:
            others = "SELECT count(*) FROM targets WHERE client = ? AND program != ?"
            if db.execute(others, (client, digest)).fetchone()[0] >= MAX_TARGETS:
                raise ServerBusy(
                    DEALER, f"the stock of {MAX_TARGETS} programs is kept up for {client}, and it may have no more:"
                    " order without a low-water mark",
                )  # fmt: skip
            row = digest, client, low_water, count, sealed
            db.execute("INSERT OR REPLACE INTO targets VALUES (?, ?, ?, ?, ?)", row)

    def drop_target(self, digest: str) -> None:
        """Lets the stock of that program run out."""
        with self._vault.transaction() as db:
            db.execute("DELETE FROM targets WHERE program = ?", (digest,))

    def targets(self) -> Mapping[str, Target]:
        """Targets by the program's digest."""
        with self._vault.transaction() as db:
            digests = [str(row[0]) for row in db.execute("SELECT program FROM targets ORDER BY program")]
        return {digest: target for digest in digests if (target := self.target(digest)) is not None}

    def target(self, digest: str) -> Target | None:
        """That of one program.  Only it is read: all of them together may be large."""
        with self._vault.transaction() as db:
            row = db.execute(
                "SELECT client, low_water, count, sealed FROM targets WHERE program = ?", (digest,)
            ).fetchone()
        if row is None:
            return None
        client, low_water, count, sealed = row
        (program,) = self._vault.unseal(("target", digest), 1, len(sealed), [sealed])
        return Target(client, bytes(program), low_water, count)

    def programs(self) -> set[str]:
        """Programs of which there is anything in stock, or on its way to the parties."""
        with self._vault.transaction() as db:
            return {str(row[0]) for row in db.execute("SELECT DISTINCT program FROM unspent")}

    def wanted(self, program: str = "") -> Mapping[str, int]:
        """How many items to deal now, by the program's digest, or of that one; pending ones count as dealt."""
        dealt = "(SELECT count(*) FROM usable WHERE usable.program = targets.program)"
        which = "targets WHERE program = ?1 OR ?1 = ''"
        with self._vault.transaction() as db:
            rows = db.execute(f"SELECT program, low_water, count, {dealt} FROM {which} ORDER BY program", (program,))  # noqa: S608 - ours
            return {digest: count - there for digest, low_water, count, there in rows if there < low_water}


def _oldest(db: sqlite3.Connection, program: str) -> ItemId | None:
    """That is in stock."""
    row = db.execute(
        "SELECT session, number FROM usable WHERE state = 'fresh' AND program = ? ORDER BY number LIMIT 1", (program,)
    ).fetchone()
    return None if row is None else ItemId(*row)


def _session(db: sqlite3.Connection) -> str:
    """The session that is not destroyed; a fresh one if there is none."""
    row = db.execute("SELECT session FROM sessions WHERE NOT destroyed").fetchone()
    if row is not None:
        return str(row[0])
    session = secrets.token_hex(16)
    db.execute("INSERT INTO sessions (session) VALUES (?)", (session,))
    return session
