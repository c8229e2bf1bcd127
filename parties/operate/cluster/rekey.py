"""A server's data folder under another key of the server's."""

from __future__ import annotations

from pathlib import Path

from mpc.errors import ConfigurationError
from parties.members.keys import KeyPair
from parties.stored.vault import Vault


def rekey(folder: Path, old: KeyPair, new: KeyPair) -> list[str]:
    """Has all that is sealed there open with ``new`` and no more with ``old``; the names of the files that do.

    The server that the folder belongs to must not run.  A second call goes on where a crash has ended the first.
    Raises ConfigurationError.
    """
    files = sorted(folder.glob("*.sqlite")) if folder.is_dir() else []
    if not files:
        raise ConfigurationError(f"{folder} is no server's data folder: there is nothing sealed in it")
    for path in files:
        Vault.rekey(path, old, new)
    return [path.name for path in files]
