"""Puts a backup of a server's data folder back, into a folder that is empty or not there.

A server that is started with it has its models again; it asks the others for what it has missed, drops versions that
are gone, is told newer rules, and begins with no preprocessing: what the others have of it is discarded as runs come to
it, and dealt anew.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import tarfile
import tempfile
from pathlib import Path
from typing import Any

from mpc.errors import ConfigurationError, unwritable
from mpc.rings import FieldRing
from parties.members.keys import KeyPair
from parties.operate.backup.taking import DATABASES, FORMAT, MANIFEST, Backup, Hashing
from parties.stored.decided_versions import DecidedVersions
from parties.stored.party_versions import PartyVersions
from parties.stored.vault import VaultError

_ALLOWED = re.compile(r"models/[0-9a-f]{32}\.shares\Z")
_MANIFEST_BYTES = 16 << 20
_CHUNK = 1 << 20

NEVER = {
    "ledger.sqlite": "a ledger of preprocessing, which knows nothing of what has been used since: used twice, it would"
    " give secrets away",
    "stock.sqlite": "the dealer's stock, which knows nothing of what has been used since: used twice, it would give"
    " secrets away",
    "audit.sqlite": "an audit log's old end: the log would contradict what this server has signed since",
    "cluster.record": "a record of cluster files that others may have followed since",
}
"""What may lie in an archive or a folder that a person has packed, and why it is not put back."""

_REMEDY = (
    "put back what `tessera backup` has taken; or start the server with an empty folder, and have owners upload again"
)


def restore(archive: Path, folder: Path, keys: KeyPair) -> Backup:
    """``keys``: of the member that the backup is of.  What is there when this returns has been read once, all of it.

    Raises ConfigurationError, with the reason and what to do, for a folder that is not empty, an archive that is no
    backup, was changed or cut short, holds what must not be put back, or is another member's or sealed under another
    key; DiskFull.  Nothing is left then.
    """
    if folder.exists() and any(folder.iterdir()):
        raise ConfigurationError(
            f"{folder} is not empty, and nothing is overwritten: stop the server and move it away.  Never mix the two:"
            " its ledger would be an old one"
        )
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as work:
            about = _unpack(archive, Path(work))
            versions = _opened(archive, Path(work), about, keys)
            if folder.exists():
                folder.rmdir()
            os.rename(work, folder)  # noqa: PTH104 - the name that is cleaned up stays
            Path(work).mkdir()
    except tarfile.TarError as error:
        raise _no_backup(archive, f"is no archive, or was cut short ({error})") from error
    except OSError as error:
        raise unwritable(f"the data folder {folder}", error) from error
    return Backup(folder, about["member"], about["taken"], versions, sum(size for size, _ in about["files"].values()))


def _unpack(archive: Path, work: Path) -> dict[str, Any]:
    """Its files, each as it was when it was packed; what it says of itself."""
    if archive.is_dir():
        _refuse_used(archive, {path.name for path in archive.iterdir()})
        raise _no_backup(archive, "is a folder")
    about: dict[str, Any] | None = None
    found: dict[str, list[Any]] = {}
    try:
        opened = tarfile.open(archive)  # noqa: SIM115 - closed below
    except FileNotFoundError:
        raise ConfigurationError(f"there is no backup {archive}") from None
    with opened as tar:
        for member in tar:
            _refuse_used(archive, set(Path(member.name).parts))
            if not member.isreg() or about is not None:
                raise _no_backup(archive, f"holds {member.name!r}")
            content = tar.extractfile(member)
            if content is None:
                raise _no_backup(archive, f"holds {member.name!r}")
            if member.name == MANIFEST:
                about = _read_manifest(archive, content.read(_MANIFEST_BYTES))
            elif member.name in found or (member.name not in DATABASES and not _ALLOWED.match(member.name)):
                raise _no_backup(archive, f"holds {member.name!r}")
            else:
                found[member.name] = _copy(content, work / member.name)
    if about is None or about["files"] != found or len(set(found) & set(DATABASES)) != 1:
        raise _no_backup(archive, "was changed or cut short")
    return about


def _read_manifest(archive: Path, encoded: bytes) -> dict[str, Any]:
    try:
        about = json.loads(encoded)
        known = about["format"] == FORMAT and all(isinstance(about[name], str) for name in ("member", "taken"))
    except (ValueError, KeyError, TypeError):
        known = False
    if not known:
        raise _no_backup(archive, "says nothing of itself that this release reads")
    return dict(about)


def _copy(content: Any, path: Path) -> list[Any]:
    """Length and digest of what was written."""
    path.parent.mkdir(mode=0o700, exist_ok=True)
    hashing = Hashing(content)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        shutil.copyfileobj(hashing, file, _CHUNK)
        file.flush()
        os.fsync(file.fileno())
        return [file.tell(), hashing.digest.hexdigest()]


def _opened(archive: Path, work: Path, about: dict[str, Any], keys: KeyPair) -> int:
    """How many versions there are; each opens.  Uploads that were in progress then are forgotten."""
    try:
        if (work / "masks.sqlite").is_file():
            with DecidedVersions(work, keys, about["member"]) as masks:
                masks.forget_uploads([upload.record.version for upload in masks.begun()])
                return len(masks.current())
        with PartyVersions(work, keys, about["member"]) as models:
            rows = models.versions()
            for row in rows:
                models.load(row.record, FieldRing())
            return len(rows)
    except (ConfigurationError, VaultError) as error:
        why = str(error).replace(f"{work}/", "").partition(":")[0]
        raise _no_backup(archive, f"does not open as {about['member']}'s with this key ({why})") from None


def _refuse_used(archive: Path, names: set[str]) -> None:
    for name, reason in NEVER.items():
        if name in names:
            raise ConfigurationError(f"{archive} holds {name}, {reason}: {_REMEDY}")


def _no_backup(archive: Path, why: str) -> ConfigurationError:
    return ConfigurationError(f"{archive} {why}: {_REMEDY}")
