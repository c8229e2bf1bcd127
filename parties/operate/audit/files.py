"""The files of an audit log: numbered, each a line an entry, readable while the server writes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from mpc.errors import ConfigurationError
from parties.operate.audit.entry import MAX_LINE

FOLDER = "audit"
"""In a server's data folder."""

_NAME = re.compile(r"\d{8}\.jsonl\Z")


def file_name(counter: int) -> str:
    """Of the ``counter``-th file that the log has begun."""
    return f"{counter:08}.jsonl"


def log_files(folder: Path) -> list[Path]:
    """Those in a log's folder, in order."""
    return sorted(path for path in folder.iterdir() if _NAME.match(path.name)) if folder.is_dir() else []


def files_of(place: Path) -> list[Path]:
    """The files that a person means: a server's data folder, the log's own, a copy of either, or one file.

    Raises ConfigurationError when there are none.
    """
    found = [place] if place.is_file() else log_files(place / FOLDER) or log_files(place)
    if not found:
        raise ConfigurationError(
            f"there is no audit log in {place}: give a server's data folder, the folder `{FOLDER}` in it or a copy of"
            " that, or one file"
        )
    return found


class Line(NamedTuple):
    """Of a file: where it begins; ``whole``: it ends with a line break, which is not in ``text``."""

    at: int
    text: bytes
    whole: bool


def lines(path: Path, at: int = 0) -> Iterator[Line]:
    """From that byte on; of what is too long for an entry only the beginning, as the last one.

    Raises ConfigurationError for a file that cannot be read.
    """
    try:
        with path.open("rb") as file:
            file.seek(at)
            while text := file.readline(MAX_LINE + 2):
                whole = text.endswith(b"\n")
                yield Line(at, text.removesuffix(b"\n"), whole)
                if not whole:
                    return
                at += len(text)
    except OSError as error:
        raise ConfigurationError(f"audit log {path} cannot be read: {error.strerror}") from error
