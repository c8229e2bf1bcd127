"""What a party's workers keep of preprocessing dealt ahead of time: sealed, on *shelves*, under keys of their head's.

The last party's part of an item is large, and its head would take in, write, read and hand out all of it.  So the
worker that collects it from the dealer's (`stock.collecting`) keeps it in a folder of its machine, its shelf; workers
may share one.  The head makes a key for each item, has its ledger keep that as the item's part (`stock.ledger`), beside
the seed and on which shelf the rest lies, and hands it to the worker that runs, which is one of that shelf.

*Nothing is used twice.*  The key is what the item is.  The ledger marks the item used, and deletes the key, durably,
in one transaction, before it hands the key out, and hands it out once.  From then on the key is in the memory of the
head and of the one worker that is at the run, and on no disk but as any item that was (`stored.vault`).  Sealed pieces
may lie anywhere by then, twice or late, in copies or snapshots of a machine's disk: no run but this one can open them,
nor can this run after its worker has ended.  A crash of head or worker at any moment leaves one of these:

- *before the ledger has the item*: the key is gone with the head, or the item is pending and discarded when the ledger
  is opened again; the dealer has not put it in stock.  Pieces lie there that nobody can open;
- *while it is fresh*: the ledger has the key, and the shelf the pieces, which were durable before the ledger had it;
- *after it was marked used*: the key is gone with whichever process had it.  The run ends with ``PeerLost``.

*Lost.*  A shelf that no worker has come with for long, or on which pieces are missing, has lost its items: the ledger
discards them, key and all, and counts them no more.  A run that is assigned one, or one whose shelf no worker has right
now, is refused with ``SpentItem`` before anything is used, as by any ledger that is behind the dealer's, and gets the
next one.  A shelf that comes back later has pieces without a key.

*Swept.*  To forget an item is to delete its key, whatever becomes of the pieces.  A worker says now and then which
items lie on its shelf, and removes those of which its head says that they are nobody's.  Names are random and never
given twice: what is nobody's once will be so for ever, so neither has to wait for the other.

*What it shows.*  A shelf has sizes, times, and names that mean nothing: no key, program, client or session.  A piece is
sealed chunk by chunk as anything on a member's disk (`stored.sealing`: AES-256-GCM), under the item's key, and opens as
this piece of this item of this cluster, whole and in order, or not at all; its length is the program's.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from mpc.errors import NO_SPACE, ConfigurationError, DiskFull, PeerLost
from parties.host.disk import check_part, check_room
from parties.host.private_files import private_folder
from parties.messages.workers import Place
from parties.stored.sealed_files import flush_folder
from parties.stored.sealing import OVERHEAD, Sealing, bound_to
from parties.wire.messages import Buffer, Payload, payload_bytes

CHUNK = 1 << 20
"""Bytes of plaintext in a chunk: it is still in the cache when it is sealed."""

_WIDTH = 32
_NAME = re.compile(rf"[0-9a-f]{{{_WIDTH}}}\Z")
_ID = "shelf"


class Shelf:
    """A folder that is this machine's, or that machines share.  Calls block.

    Args:
        folder: made if it is not there; nobody else may open it.
        party: whose workers keep what here, for errors.

    Raises ConfigurationError where there can be none.
    """

    def __init__(self, folder: str | os.PathLike[str], party: str) -> None:
        self._folder, self._party = Path(folder), party
        try:
            private_folder(self._folder)
            self.id = _identity(self._folder)
        except OSError as error:
            raise ConfigurationError(f"stock folder {folder} cannot be used: {error.strerror}") from error

    def check(self, more: int, client: str, held: int) -> None:
        """Room for so many bytes of that client's, with ``held`` here.  Raises DiskFull, ServerBusy."""
        check_room(self._folder, self._party, more)
        check_part(self._folder, self._party, more, client, held)

    def put(self, place: Place, piece: int, payload: Sequence[Buffer]) -> None:
        """Durable when this returns.  Raises DiskFull, PeerLost: nothing is there then that could be opened."""
        item = self._item(place)
        path = item / str(piece)
        try:
            item.mkdir(mode=0o700, parents=True, exist_ok=True)
            with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:
                for chunk in _sealing(place, self._party).seal((*place.label, str(piece)), payload, CHUNK):
                    file.write(chunk)
                file.flush()
                os.fsync(file.fileno())
            for folder in (item, item.parent, self._folder):
                flush_folder(folder)
        except OSError as error:
            self.remove(place.owner, [place.name])
            if error.errno in NO_SPACE:
                raise DiskFull(
                    self._party, "has no room for what is dealt ahead of time where its workers are"
                ) from None
            raise PeerLost(self._party, f"cannot keep what is dealt ahead of time: {error.strerror}") from None

    def take(self, place: Place, piece: int, size: int) -> list[memoryview]:
        """The piece, of so many bytes, which is not here any more.

        Raises PeerLost if it was not, or is not what was kept.
        """
        path = self._item(place) / str(piece)
        try:
            with os.fdopen(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW), "rb") as file:
                sealed = os.fstat(file.fileno()).st_size
                count = -(-sealed // (CHUNK + OVERHEAD))
                label = (*place.label, str(piece))
                payload = _sealing(place, self._party).unseal(label, count, sealed, _chunks(file))
            path.unlink()
        except OSError as error:
            raise self._lost(error.strerror or "gone") from None
        except ValueError:
            raise self._lost("it was changed") from None
        if payload_bytes(payload) != size:
            raise self._lost("it is not as long as the program needs")
        return payload

    def _lost(self, why: str) -> PeerLost:
        return PeerLost(
            self._party, f"has lost what was dealt for this run ({why}), of which nothing was revealed: run it again"
        )

    def names(self, owner: str) -> list[str]:
        """What lies here of that head's."""
        try:
            return [entry.name for entry in os.scandir(self._folder / owner) if _NAME.match(entry.name)]
        except FileNotFoundError:
            return []

    def remove(self, owner: str, names: Collection[str]) -> None:
        """Some of these are not wanted any more.  What cannot be removed now is another time."""
        for name in names:
            if _NAME.match(name):
                shutil.rmtree(self._folder / owner / name, ignore_errors=True)

    def _item(self, place: Place) -> Path:
        return self._folder / place.owner / place.name


def packed(names: Collection[str]) -> bytes:
    """As messages have them."""
    return bytes.fromhex("".join(names))


def unpacked(payload: Payload) -> list[str]:
    """The names that are there."""
    joined = bytes(payload[0]).hex()
    return [joined[at : at + _WIDTH] for at in range(0, len(joined), _WIDTH)]


def _sealing(place: Place, party: str) -> Sealing:
    return Sealing(place.key, bound_to("shelf", party))


def _chunks(file: BinaryIO) -> Iterator[memoryview]:
    """Each good until the next is asked for."""
    chunk = memoryview(bytearray(CHUNK + OVERHEAD))
    while read := file.readinto(chunk):  # type: ignore[attr-defined]
        yield chunk[:read]


def _identity(folder: Path) -> str:
    """Of the folder, whoever asks, from its first use on.  Raises OSError, ConfigurationError."""
    path = folder / _ID
    if not path.exists():
        # Whole from the moment on at which it is there, and the first one's.
        fresh = folder / f"{_ID}.{secrets.token_hex(8)}"
        fresh.write_text(secrets.token_hex(16), encoding="ascii")
        with contextlib.suppress(FileExistsError):
            os.link(fresh, path)
        fresh.unlink()
        flush_folder(folder)
    found = path.read_text(encoding="ascii", errors="replace")
    if not _NAME.match(found):
        raise ConfigurationError(f"stock folder {folder} has a file {_ID!r} that is none of Tessera's: choose another")
    return found
