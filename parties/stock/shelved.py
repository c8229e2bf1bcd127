"""Which items of a party's ledger lie on shelves of its workers (`parties.stock.shelf`), and where."""

from __future__ import annotations

import secrets
import sqlite3
from collections.abc import Collection, Mapping
from typing import NamedTuple

from parties.stock.items import ItemId
from parties.stored.vault import Vault

_TABLES = (
    "CREATE TABLE IF NOT EXISTS shelf_owner (name TEXT NOT NULL)",
    """CREATE TABLE IF NOT EXISTS shelved (
        session TEXT NOT NULL,
        number INTEGER NOT NULL,
        client TEXT NOT NULL,
        shelf TEXT NOT NULL,
        name TEXT NOT NULL UNIQUE,
        size INTEGER NOT NULL,
        PRIMARY KEY (session, number),
        FOREIGN KEY (session, number) REFERENCES items
    ) WITHOUT ROWID""",
    "CREATE INDEX IF NOT EXISTS shelved_by_shelf ON shelved (shelf, name)",
    "CREATE INDEX IF NOT EXISTS shelved_by_client ON shelved (client, shelf, size)",
    # That a piece is there is noted under its number: spent, it is nowhere.
    """CREATE TRIGGER IF NOT EXISTS spent_items_are_on_no_shelf AFTER UPDATE OF state ON items
    WHEN NEW.state IN ('used', 'discarded') AND EXISTS
        (SELECT 1 FROM shelved WHERE session = NEW.session AND number = NEW.number)
    BEGIN
        DELETE FROM later WHERE session = NEW.session AND number = NEW.number;
        DELETE FROM shelved WHERE session = NEW.session AND number = NEW.number;
    END""",
)


class Shelved(NamedTuple):
    """Where the pieces of an item lie: on that shelf, under that name, of ``size`` bytes so far."""

    shelf: str
    name: str
    size: int


class ShelvedItems:
    """Of one ledger, whose file this is: all that are not spent.  Calls block."""

    def __init__(self, vault: Vault) -> None:
        self._vault = vault
        with vault.transaction() as db:
            for table in _TABLES:
                db.execute(table)
            row = db.execute("SELECT name FROM shelf_owner").fetchone()
            self.owner = secrets.token_hex(16) if row is None else str(row[0])
            """By which name shelves know this ledger."""
            if row is None:
                db.execute("INSERT INTO shelf_owner VALUES (?)", (self.owner,))

    @staticmethod
    def enter(db: sqlite3.Connection, item: ItemId, where: Shelved) -> int:
        """The item's pieces lie there; in the transaction that enters the item, or its next piece.  Of how many bytes
        that one is."""
        before = "SELECT ifnull(max(size), 0) FROM shelved WHERE session = ? AND number = ?"
        (size,) = db.execute(before, item).fetchone()
        of = "SELECT session, number, client, ?, ?, ? FROM items WHERE session = ? AND number = ?"
        db.execute(f"INSERT OR REPLACE INTO shelved {of}", (*where, *item))
        return where.size - int(size)

    def where(self, item: ItemId) -> Shelved | None:
        """None for one that is here, or spent."""
        with self._vault.transaction() as db:
            found = "SELECT shelf, name, size FROM shelved WHERE session = ? AND number = ?"
            row = db.execute(found, item).fetchone()
        return None if row is None else Shelved(*row)

    def counts(self) -> Mapping[str, int]:
        """How many items lie on each shelf that has any."""
        with self._vault.transaction() as db:
            return dict(db.execute("SELECT shelf, count(*) FROM shelved GROUP BY shelf"))

    def fresh_on(self, shelf: str) -> set[str]:
        """Names of items in stock there."""
        names = "SELECT name FROM shelved JOIN items USING (session, number) WHERE shelf = ? AND state = 'fresh'"
        with self._vault.transaction() as db:
            return {str(row[0]) for row in db.execute(names, (shelf,))}

    def wanted_on(self, shelf: str) -> set[str]:
        """Names of all items there that are not spent."""
        with self._vault.transaction() as db:
            return {str(row[0]) for row in db.execute("SELECT name FROM shelved WHERE shelf = ?", (shelf,))}

    def lose(self, names: Collection[str]) -> list[ItemId]:
        """What lies there has gone: items of these names are discarded, if they are in stock; which those were."""
        one = (
            "SELECT session, number FROM shelved JOIN items USING (session, number) WHERE name = ? AND state = 'fresh'"
        )
        lost = []
        with self._vault.transaction() as db:
            for name in names:
                lost += [ItemId(*row) for row in db.execute(one, (name,)).fetchall()]
            db.executemany("UPDATE items SET state = 'discarded' WHERE session = ? AND number = ?", lost)
        return lost

    def bytes_of(self, client: str, shelf: str | None = None) -> int:
        """Of what there is for that client's runs on that shelf, or on all."""
        held = "SELECT total(size) FROM shelved WHERE client = ?1 AND (?2 IS NULL OR shelf = ?2)"
        with self._vault.transaction() as db:
            return int(db.execute(held, (client, shelf)).fetchone()[0])
