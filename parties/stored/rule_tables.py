"""Rules on the disk of a server, signed by their owners, and how often they have been used: two tables of a database.

`parties.stored.rules` says which rules count, and `parties.stored.gate` when a run does.
"""

from __future__ import annotations

import hashlib
import sqlite3
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import NamedTuple

from mpc.errors import LimitReached, TesseraError
from parties.messages.rules import RuleSet
from parties.stored.policy import Use
from parties.stored.vault import Vault, VaultError

TABLES = (
    """CREATE TABLE rules (
        owner TEXT NOT NULL,
        name TEXT NOT NULL,
        sealed BLOB NOT NULL,
        PRIMARY KEY (owner, name)
    ) WITHOUT ROWID""",
    """CREATE TABLE counted (
        rule TEXT NOT NULL,
        client TEXT NOT NULL,
        runs INTEGER NOT NULL,
        day INTEGER NOT NULL,
        today INTEGER NOT NULL,
        PRIMARY KEY (rule, client)
    ) WITHOUT ROWID""",
)

DAY = 86_400


def today() -> int:
    """Days of UTC since 1970."""
    return int(time.time() // DAY)


class SignedRules(NamedTuple):
    """A set of rules, as its owner has encoded and signed it."""

    owner: str
    """Who that is (``Member.identity``): a cluster file may give its name to another."""
    rules: RuleSet
    encoded: bytes
    signature: bytes

    @property
    def place(self) -> tuple[str, str]:
        """What they are the rules of."""
        return self.owner, self.rules.name

    @property
    def digest(self) -> str:
        """SHA-256 of the encoded set."""
        return hashlib.sha256(self.encoded).hexdigest()

    @property
    def order(self) -> tuple[int, str]:
        """Among those of one place: the highest is the newest, and of two of a number all servers prefer the same."""
        return self.rules.number, self.digest

    @property
    def payload(self) -> list[bytes]:
        """For whoever checks the signature."""
        return [self.encoded, self.signature]


class RuleTables:
    """Calls block: make them from worker threads.  Every one may raise VaultError, as ``damaged`` makes it."""

    def __init__(self, vault: Vault, damaged: Callable[[str], VaultError]) -> None:
        self._vault = vault
        self._damaged = damaged

    # -- rules -----------------------------------------------------------------------------------------------------

    def all(self) -> list[SignedRules]:
        """All sets there are."""
        with self._vault.transaction() as db:
            rows = db.execute("SELECT owner, name, sealed FROM rules ORDER BY owner, name").fetchall()
        return [self._open(*row) for row in rows]

    def _open(self, owner: object, name: object, sealed: object) -> SignedRules:
        if not isinstance(owner, str) or not isinstance(name, str) or not isinstance(sealed, bytes):
            raise self._damaged("a row makes no sense")
        try:
            encoded, signature = map(bytes, self._vault.unseal(("rules", owner, name), 1, len(sealed), [sealed]))
            rules = RuleSet.decode(encoded)
        except (TesseraError, ValueError):
            raise self._damaged(f"the rules of {name!r} are not as they were written") from None
        if rules.name != name:
            raise self._damaged(f"the rules of {name!r} are another's")
        return SignedRules(owner, rules, encoded, signature)

    def write(self, signed: SignedRules, over: Collection[str]) -> None:
        """In place of the set of their owner and name; what was counted of the rules that are ``over`` is forgotten."""
        size = sum(map(len, signed.payload)) + 64
        (sealed,) = self._vault.seal(("rules", *signed.place), signed.payload, chunk_bytes=size)
        with self._vault.transaction() as db:
            db.execute("INSERT OR REPLACE INTO rules VALUES (?, ?, ?)", (*signed.place, bytes(sealed)))
            db.executemany("DELETE FROM counted WHERE rule = ?", [(rule,) for rule in over])

    # -- how often -------------------------------------------------------------------------------------------------

    def check_left(self, uses: Sequence[Use]) -> None:
        """Raises LimitReached when one of these rules is used up."""
        if uses:
            with self._vault.transaction() as db:
                _check(db, uses)

    def count(self, uses: Sequence[Use]) -> None:
        """One run by each of these rules, or, when one of them is used up, by none: LimitReached."""
        if uses:
            with self._vault.transaction() as db:
                for use, day, before in _check(db, uses):
                    db.execute(
                        "INSERT INTO counted VALUES (?, ?, 1, ?, 1) ON CONFLICT (rule, client)"
                        " DO UPDATE SET runs = runs + 1, day = excluded.day, today = ?",
                        (use.rule, use.client, day, before + 1),
                    )


def _check(db: sqlite3.Connection, uses: Iterable[Use]) -> list[tuple[Use, int, int]]:
    """With each use, the day and how often this client has made it on that day."""
    found = []
    for use in uses:
        rows = db.execute("SELECT client, runs, day, today FROM counted WHERE rule = ?", (use.rule,)).fetchall()
        # A clock that is put back gives no runs back.
        day = max(today(), *(day for _, _, day, _ in rows), 0)
        of_day = {client: runs for client, _, of, runs in rows if of == day}
        of_client = sum(runs for client, runs, _, _ in rows if client == use.client)
        made = (
            (sum(runs for _, runs, _, _ in rows), use.limits.runs, "in all"),
            (sum(of_day.values()), use.limits.per_day, "a day"),
            (of_client, use.limits.per_client, "for each client"),
        )
        for runs, limit, what in made:
            if limit is not None and runs >= limit:
                allowed, made_ = ("1 run", "it has") if limit == 1 else (f"{limit} runs", "they have")
                raise LimitReached(
                    f"the rule by which {use.client} uses {use.slot!r} allows {allowed} {what}, and {made_} been made:"
                    " ask its owner"
                )
        found.append((use, day, of_day.get(use.client, 0)))
    return found
