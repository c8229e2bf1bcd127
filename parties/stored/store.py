"""What a data folder holds of stored models, so that a restart loses none; at the parties and at the dealer.

*What lies where.*  A party has ``models.sqlite``, with a row per version of a model (who owns it, its name, description
and shapes), in ``models/`` a file per version, with w - b of each tensor and the seed of this party's shares of b
(`parties.stored.party_store`), and in ``uploads/`` what it has of uploads that are not complete, without a seed
(`parties.stored.partials`).  The dealer has ``masks.sqlite``: per version in use and per upload that is not decided
the seeds of its masks, and which programs preprocessing was dealt for it (`parties.stored.dealer_store`).  A *version*
is one upload; ``store``, 32 hexadecimal digits that its owner draws, names it everywhere.

*At rest.*  Rows and files are sealed by `parties.vault` under a key derived from the member's own: AES-256-GCM, which
is the checksum as well.  A row opens under its own version only, a file under its version, its row's content and the
members that the shares are for: a file in another's place, cut short, or with one bit changed is a `VaultError` that
names the file.  Names and versions are in the clear, as in the logs.

*Written whole or not at all.*  A file is written under another name, flushed to the disk, renamed, and its folder
flushed; only then is its row inserted, in a durable transaction.  What is dropped loses its row first and its file
afterwards.  So after a crash at any moment every row has its whole file, and a file without a row is deleted at the
next start.

*In use everywhere or nowhere.*  Parties and dealer go from one version of a name to the next in two phases, decided by
the dealer:

1. A party that has all of an upload stores it as *prepared*, durably, and tells the dealer.  What was under the name
   stays in use.
2. When all parties have said so the dealer stores the version's seeds, in one transaction with forgetting the upload
   and the version it replaces.  That is the moment the model changes.  It tells the parties to commit, and each, in one
   transaction, puts the version under its name and drops the one before.

The dealer presumes abort.  Before that moment the seeds of an upload are on its disk, so that its owner may go on with
it, but who has prepared it is in memory alone; and a prepared version it does not know is dropped.  An upload that it
has read from its disk *sleeps* until its owner comes back to it: if a party says that it has prepared it first, the
owner may have been told that it failed, and is given ``peer_timeout`` to come back, after which it is forgotten.
An owner that fails after it has sent the last chunk gives the upload up, and one that fails before has it kept: that is
not complete anywhere, and comes to nothing unless its owner goes on with it within a day.

A party with prepared versions asks at its start, at the dealer's, and again until it is answered; it neither commits
nor drops one by itself.  So a crash of anyone, at any moment, leaves the former version in use or, once the party is
back and has asked, the new one; and never for good a different one here and there.  Removal is decided by the dealer's
transaction likewise, and the parties that it did not reach then drop what it says is gone.

*An old copy of a folder*, put back, brings old versions back.  Nothing is masked twice by it: a version's masks b are
drawn for it by the dealer, and masked its w alone; running it again opens w - b no second time, since all parties have
that already, and takes fresh preprocessing as every run does.  Versions cannot mix either: a program names the version
of every tensor it reads, its digest is compared between client, dealer and every party, each looks tensors up by
version, and a party (or dealer) without that one ends the run before anything is sent.  A version the dealer knows to
be gone is dropped by the party that brings it back.

*Upgrades.*  `LAYOUT` counts the changes to the tables.  An older file is brought up to date when it is opened, step by
step, each step and its number in one transaction; a newer one is refused.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import sqlite3
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Annotated, Self, TypeVar

import msgspec

from mpc.decoders import msgpack_decoder
from mpc.errors import ConfigurationError
from mpc.tensor_type import Shape
from parties.cluster import Cluster, Member
from parties.keys import KeyPair
from parties.messages.runs import Id, Name, TensorInfo
from parties.vault import Vault, VaultError

Steps = Sequence[Sequence[str]]
"""By layout: the statements that bring a file from the layout before to this one."""

_LAYOUT = "CREATE TABLE layout (version INTEGER NOT NULL); INSERT INTO layout VALUES (0);"


class Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A version of a model, as it is sealed in its row: all that is known of it but secrets."""

    store: Id
    name: Name
    owner: str
    """The owner's public key: a name may become another's."""
    owner_name: str
    circle: str
    """Digest of the servers' keys: shares and masks are of no use among others."""
    tensors: tuple[TensorInfo, ...]
    when: Annotated[float, msgspec.Meta(ge=0)]
    """Seconds since 1970, by the clock of who keeps this."""
    description: bytes = b""

    @property
    def shapes(self) -> dict[str, Shape]:
        """By tensor."""
        return {tensor.name: tensor.shape for tensor in self.tensors}


class Rules(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What an owner has allowed with what is called ``name``, as it is sealed in its row."""

    name: Name
    owner: str
    """The owner's public key."""
    grants: dict[str, frozenset[str]]
    """Programs by client (`parties.stored.policy`)."""


RULES_LAYOUT: Sequence[str] = ("CREATE TABLE rules (name TEXT PRIMARY KEY, sealed BLOB NOT NULL) WITHOUT ROWID",)
"""The step that both kinds of stores take from layout 1 to 2."""

RecordT = TypeVar("RecordT", bound=Record)


def tensor_infos(shapes: Mapping[str, Shape]) -> tuple[TensorInfo, ...]:
    """Shapes by tensor, as a record has them."""
    return tuple(TensorInfo(name, shape) for name, shape in shapes.items())


def circle(cluster: Cluster) -> str:
    """SHA-256 of the servers' keys, in their order, in hexadecimal.

    Not of the whole cluster file: another client or timeout does not make a model useless, another party does.
    """
    return hashlib.sha256(" ".join(server.key for server in cluster.servers).encode()).hexdigest()


def owner_of(cluster: Cluster, record: Record) -> Member | None:
    """The member a version belongs to; None if the cluster file does not list it, or has other servers now.

    Such a version is kept, in case the file is put right, but nobody can use it, and its name is free.
    """
    owner = cluster.by_key(record.owner)
    return owner if record.circle == circle(cluster) and owner is not None and not owner.is_server else None


class ModelVault:
    """The database that both kinds of stores have.  Calls block: make them from worker threads.

    Args:
        folder: the member's data folder.
        keys: its own.
        member: its name in the cluster file.
        file: the database's.
        steps: from an empty file to the newest layout.

    Raises:
        ConfigurationError: as `Vault`, or a file that a newer release has written.  Every method may raise VaultError.
    """

    def __init__(self, folder: str | os.PathLike[str], keys: KeyPair, member: str, *, file: str, steps: Steps) -> None:
        self.vault = Vault(folder, file, keys, purpose=file.removesuffix(".sqlite"), member=member, schema=_LAYOUT)
        self._path = os.path.join(folder, file)  # noqa: PTH118 - for messages alone
        try:
            while self._upgrade(steps):
                pass
        except BaseException:
            self.vault.close()
            raise

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.vault!r}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """No call works from here on.  More calls do nothing."""
        self.vault.close()

    def check(self) -> None:
        """Raises VaultError when nothing could be written now."""
        with self.vault.transaction():
            pass

    def overwrite(self) -> None:
        """What was deleted is overwritten now, if it can be, and else when the file is closed."""
        with contextlib.suppress(VaultError):
            self.vault.checkpoint()

    # -- rules -----------------------------------------------------------------------------------------------------

    def rules(self) -> dict[str, Rules]:
        """All there are, by name; a row that cannot be read is a VaultError."""
        with self.vault.transaction() as db:
            rows = db.execute("SELECT name, sealed FROM rules").fetchall()
        return {name: self._open_rules(name, sealed) for name, sealed in rows}

    def _open_rules(self, name: object, sealed: object) -> Rules:
        if not isinstance(name, str) or not isinstance(sealed, bytes):
            raise self.damaged("a row makes no sense")
        try:
            (encoded,) = self.vault.unseal(("rules", name), 1, len(sealed), [sealed])
            rules: Rules = msgpack_decoder(Rules).decode(encoded)
            return rules
        except (VaultError, ValueError):
            raise self.damaged(f"the rules of {name!r} are not as they were written") from None

    def keep_rules(self, rules: Rules) -> None:
        """Durably, in place of what there was under their name."""
        encoded = msgspec.msgpack.encode(rules)
        (sealed,) = self.vault.seal(("rules", rules.name), [encoded], chunk_bytes=len(encoded) + 64)
        with self.vault.transaction() as db:
            db.execute("INSERT OR REPLACE INTO rules VALUES (?, ?)", (rules.name, bytes(sealed)))

    def forget_rules(self, name: str) -> None:
        """More calls do nothing."""
        with self.vault.transaction() as db:
            db.execute("DELETE FROM rules WHERE name = ?", (name,))

    # -- inside ----------------------------------------------------------------------------------------------------

    def _upgrade(self, steps: Steps) -> bool:
        """One step towards the newest layout; False when it is that."""
        with self.vault.transaction() as db:
            layout = self._layout(db)
            if layout > len(steps):
                raise ConfigurationError(
                    f"data file {self._path} was written by a newer release (layout {layout}; this one knows"
                    f" {len(steps)}): run that release or a later one, or move the file away to begin with none of the"
                    " models in it"
                )
            if layout == len(steps):
                return False
            for statement in steps[layout]:
                db.execute(statement)
            db.execute("UPDATE layout SET version = ?", (layout + 1,))
        return True

    def _layout(self, db: sqlite3.Connection) -> int:
        rows = db.execute("SELECT version FROM layout").fetchall()
        if len(rows) != 1 or not isinstance(rows[0][0], int) or rows[0][0] < 0:
            raise self.damaged("it does not say which layout it has")
        return int(rows[0][0])

    def damaged(self, what: str) -> VaultError:
        """The error of a database whose rows make no sense."""
        return VaultError(
            f"data file {self._path} is damaged ({what}): see to the disk, and move the file away to begin with none"
            " of the models in it; their owners upload them again"
        )

    def seal_record(self, record: Record, *secrets: bytes) -> bytes:
        """For its row."""
        payload = [msgspec.msgpack.encode(record), *secrets]
        size = sum(map(len, payload)) + 8 * (2 * len(payload) + 2)
        (sealed,) = self.vault.seal(_label(record.store), payload, chunk_bytes=size)
        return bytes(sealed)

    def open_record(self, store: object, sealed: object) -> tuple[Record, list[bytes]]:
        """What `seal_record` was given.  Raises VaultError."""
        if not isinstance(store, str) or not isinstance(sealed, bytes):
            raise self.damaged("a row makes no sense")
        try:
            encoded, *secrets = self.vault.unseal(_label(store), 1, len(sealed), [sealed])
            record: Record = msgpack_decoder(Record).decode(encoded)
        except (VaultError, ValueError):
            raise self.damaged(f"the row of version {store[:8]} is not as it was written") from None
        if record.store != store:
            raise self.damaged(f"the row of version {store[:8]} is another's")
        return record, [bytes(secret) for secret in secrets]


def _label(store: str) -> tuple[str, ...]:
    return "version", store
