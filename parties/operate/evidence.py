"""Where evidence is kept: ``evidence/`` in a server's data folder, a file of JSON for each piece.

It holds no secrets (`parties.messages.evidence`), and is kept until somebody deletes the file.  Of each member there is
one piece for each thing that it has contradicted itself about, and at most `MAX_OF_A_MEMBER`: what was kept first
stays, so whoever cheats over and over fills no disk, and drives out nothing.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec

from mpc.decoders import json_decoder
from mpc.errors import ConfigurationError
from nn.files import at_most
from parties.messages.evidence import Evidence, Verdict, statements_of

MAX_OF_A_MEMBER = 64
MAX_BYTES = 1 << 20
"""Of a file; what is larger is no evidence of ours."""

_FILE = re.compile(r"(?P<key>[0-9a-f]{32})(\.(?P<culprit>[A-Za-z0-9][A-Za-z0-9_.-]{0,63}))?\.json\Z")


class Piece(NamedTuple):
    """A file."""

    path: Path
    digest: str
    """SHA-256 of it, in hexadecimal."""


def keep(folder: str | os.PathLike[str], evidence: Evidence, verdict: Verdict) -> Piece | None:
    """Writes a piece, durably; None if there is one of that, or enough of that member.  Blocks.

    Raises OSError.
    """
    place = Path(folder) / "evidence"
    place.mkdir(mode=0o700, exist_ok=True)
    subject = repr((verdict.what, statements_of(evidence)[0].said.subject)).encode()
    key = hashlib.sha256(subject).hexdigest()[:32]
    path = place / ".".join(filter(None, (key, verdict.culprit, "json")))
    of_member = [other.name for other in place.iterdir() if _culprit(other.name) == verdict.culprit]
    if path.name in of_member or len(of_member) >= MAX_OF_A_MEMBER:
        return None
    data = msgspec.json.format(msgspec.json.encode(evidence), indent=2) + b"\n"
    part = path.with_suffix(".part")
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    part.rename(path)
    descriptor = os.open(place, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    return Piece(path, hashlib.sha256(data).hexdigest())


def found(folder: str | os.PathLike[str]) -> Iterator[tuple[Path, Evidence]]:
    """All that is kept in a data folder, oldest first.  Raises ConfigurationError for a file that is none."""
    place = Path(folder) / "evidence"
    with contextlib.suppress(FileNotFoundError):
        paths = [path for path in place.iterdir() if _FILE.match(path.name)]
        for path in sorted(paths, key=lambda path: (path.stat().st_mtime, path.name)):
            yield path, read(path)


def read(path: Path) -> Evidence:
    """A piece that was kept, by whomever.  Raises ConfigurationError."""
    try:
        with path.open("rb") as file:
            data = at_most(file, MAX_BYTES + 1)
    except OSError as error:
        raise ConfigurationError(f"evidence file {path} cannot be read: {error.strerror}") from error
    try:
        if len(data) > MAX_BYTES:
            raise ValueError("too long")
        evidence: Evidence = json_decoder(Evidence).decode(data)
    except (ValueError, RecursionError):
        raise ConfigurationError(f"evidence file {path} is malformed: it proves nothing") from None
    return evidence


def _culprit(name: str) -> str | None:
    """Whom a file is about, "" for nobody; None of what is no such file."""
    match = _FILE.match(name)
    return None if match is None else match["culprit"] or ""
