"""What a server's data folder says of cluster files: by which the server goes, and which are proposed.

``cluster.record`` holds a line of JSON for each file that has been in force since this folder was begun, the first as
it was given, the others with their signatures; ``cluster.proposed`` the same of files that are not yet signed by all.
Both are written whole under another name, flushed and renamed.  A file is in the record before the server goes on to
it, so after a crash at any moment it goes by the former or by the new one, and then the others tell it what it has
missed; and once it is there no start with an older file goes back behind it.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path

from mpc.errors import ConfigurationError
from parties.members.cluster import Cluster
from parties.members.succession import Step, Succession, decode, encode
from parties.stored.vault import VaultError

log = logging.getLogger(__name__)

RECORD, PROPOSED = "cluster.record", "cluster.proposed"


class ClusterRecord:
    """Of one data folder.  Calls block; what they write is small."""

    def __init__(self, folder: str | os.PathLike[str], given: Cluster, following: Sequence[Step] = ()) -> None:
        """With the file that the server is started with, and what is at hand of those that followed it.

        Raises ConfigurationError when the folder goes by another one that does not follow it, or is followed by it,
        and for a record that makes no sense."""
        self._folder = Path(folder)
        self.proposed: tuple[Step, ...] = ()
        found = self._read(RECORD)
        if not found:
            self.succession = Succession.begin(given).followed_by(following)
            return
        self.succession = self._recorded(found).followed_by(following)
        if self.succession.knows(given.fingerprint):
            if given.fingerprint != self.succession.cluster.fingerprint:
                log.warning(
                    "started with cluster file %d: goes by number %d, which has followed it",
                    given.number,
                    self.succession.cluster.number,
                )
            self.proposed = tuple(self._read(PROPOSED))
        elif len(found) == 1 and given.number == self.succession.cluster.number:
            # Nothing has been agreed on yet: whoever starts the server says which file it begins with.
            log.warning("started with another cluster file %d than before: nothing has followed that one", given.number)
            self.succession = Succession.begin(given).followed_by(following)
        else:
            raise ConfigurationError(self._mismatch(given))

    def keep(self, succession: Succession) -> None:
        """Durably, before anybody goes by it.  Raises VaultError."""
        self._write(RECORD, succession.steps)
        self.succession = succession

    def propose(self, steps: Sequence[Step]) -> None:
        """All that is proposed now.  Raises VaultError."""
        self._write(PROPOSED, steps)
        self.proposed = tuple(steps)

    def _mismatch(self, given: Cluster) -> str:
        current, path = self.succession.cluster, self._folder / RECORD
        newer = (
            "; if it has followed, keep beside it what `tessera cluster show --out FILE` writes there"
            if given.number > current.number
            else ""
        )
        return (
            f"data folder {self._folder} goes by cluster file {current.number} ({current.fingerprint[:16]}), and number"
            f" {given.number} ({given.fingerprint[:16]}), with which it is started, is none of those before it{newer}."
            f" Files follow by `tessera cluster propose`; to begin anew with this one, move {path} away"
        )

    def _recorded(self, steps: Sequence[Step]) -> Succession:
        try:
            return Succession.begin(steps[0].cluster()).followed_by(steps[1:])
        except ConfigurationError as error:
            raise ConfigurationError(f"{self._folder / RECORD} is damaged: {error}") from None

    def _read(self, name: str) -> list[Step]:
        path = self._folder / name
        try:
            return decode(path.read_bytes())
        except FileNotFoundError:
            return []
        except OSError as error:
            raise ConfigurationError(f"{path} cannot be read: {error.strerror}") from error
        except ConfigurationError as error:
            raise ConfigurationError(f"{path} is damaged: {error}") from None

    def _write(self, name: str, steps: Sequence[Step]) -> None:
        path = self._folder / name
        part = path.with_name(f"{name}.part")
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            with os.fdopen(os.open(part, flags, 0o600), "wb") as file:
                file.write(encode(steps))
                file.flush()
                os.fsync(file.fileno())
            part.rename(path)
            descriptor = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise VaultError(f"{path} cannot be written ({error.strerror}): see to the disk") from error
