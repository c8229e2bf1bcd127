"""What a server's log says of one client, piece by piece."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

from parties.messages.audit import Milliseconds, Place
from parties.operate.audit.entry import Entry, read_line
from parties.operate.audit.facts import AnyFact
from parties.operate.audit.files import FOLDER, lines, log_files

MAX_READ = 4 << 20
"""Bytes of a log that are looked at for one question."""

MAX_SHOWN = 1 << 20
"""Bytes of entries in one answer, and one entry more."""


def concerns(fact: AnyFact, client: str) -> bool:
    """Whether it is about what that client did, or about a secret of its."""
    return client in fact.clients or any(owner == client for owner, _ in fact.secrets)


def look(data: Path, client: str, since: Milliseconds, place: Place) -> tuple[bytes, Place | None]:
    """Lines of entries that concern the client, and where to look on.  Blocks.  Raises ConfigurationError."""
    shown: list[bytes] = []
    size = read = 0
    name = client.encode()
    for file, path in _files(data / FOLDER, since, place.file):
        at = place.at if file == place.file else 0
        for line in lines(path, at):
            if read >= MAX_READ or size >= MAX_SHOWN:
                return b"".join(shown), Place(file, line.at)
            read += len(line.text) + 1
            # Most entries are others'.
            entry = _entry(line.text) if line.whole and name in line.text else None
            if entry is not None and entry.when >= since and concerns(entry.what, client):
                shown.append(line.text + b"\n")
                size += len(shown[-1])
    return b"".join(shown), None


def _files(folder: Path, since: Milliseconds, first: int) -> Iterator[tuple[int, Path]]:
    """From that one on, but those that end before ``since``: the next one begins before it."""
    paths = [path for path in log_files(folder) if int(path.stem) >= first]
    for path, following in itertools.zip_longest(paths, paths[1:]):
        if following is not None:
            heading = next(lines(following), None)
            entry = None if heading is None else _entry(heading.text)
            if entry is not None and entry.when < since:
                continue
        yield int(path.stem), path


def _entry(text: bytes) -> Entry | None:
    try:
        return read_line(text)
    except ValueError:
        return None
