"""What a server logs: as text for people, or one JSON object a line; with the run and the client that it is about.

Call sites say nothing of runs: a server opens ``about`` around whatever it does for one, and what that starts (tasks,
threads, timers) inherits it.  ``configure`` is called once, by a server's process.
"""

from __future__ import annotations

import contextlib
import contextvars
import json
import logging
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, NamedTuple

from parties.host.log_quota import QuotaHandler

FORMATS = ("text", "json")
TEXT = "%(asctime)s %(levelname)s %(name)s: %(message)s"

_SHORT = 8
"""Digits of a run's id in text, as in messages that name a run themselves."""

# What is said there is about a link, in the context of whatever run made it read.
_LINKS = "parties.wire."


class Subject(NamedTuple):
    """What is being worked on: a run's id, 32 hexadecimal digits, and a client's name; empty where there is none."""

    run: str = ""
    client: str = ""


_NOTHING = Subject()
_subject: contextvars.ContextVar[Subject] = contextvars.ContextVar("tessera_log_subject", default=_NOTHING)


@contextlib.contextmanager
def about(run: str = "", client: str = "") -> Iterator[None]:
    """What is logged within it, and by what is started within it, is about this run and client."""
    token = _subject.set(Subject(run, client))
    try:
        yield
    finally:
        _subject.reset(token)


def subject_of(record: logging.LogRecord) -> Subject:
    """What a line that is being logged in this context is about."""
    return _NOTHING if record.name.startswith(_LINKS) else _subject.get()


class TextFormatter(logging.Formatter):
    """A line as other commands write it; names the run where the message itself does not."""

    def __init__(self) -> None:
        super().__init__(TEXT)

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's own name
        line = super().formatMessage(record)
        run = subject_of(record).run[:_SHORT]
        return f"{line} [run {run}]" if run and run not in record.message else line


class JsonFormatter(logging.Formatter):
    """One JSON object a line.

    ``time`` (UTC, ISO 8601), ``level``, ``member``, ``logger`` and ``message`` always; ``run``, in full, and ``client``
    where they are known; ``traceback`` of an internal error.
    """

    def __init__(self, member: str) -> None:
        super().__init__()
        self._member = member

    def format(self, record: logging.LogRecord) -> str:
        when = datetime.fromtimestamp(record.created, UTC)
        found: dict[str, Any] = {
            "time": when.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname,
            "member": self._member,
            "logger": record.name,
            "message": record.getMessage(),
        }
        subject = subject_of(record)
        found.update({key: value for key, value in subject._asdict().items() if value})
        if record.exc_info:
            found["traceback"] = self.formatException(record.exc_info)
        return json.dumps(found)


def configure(style: str, member: str) -> None:
    """From now on this process, which is ``member``, logs to stderr in that one of ``FORMATS``."""
    handler = QuotaHandler()
    handler.setFormatter(JsonFormatter(member) if style == "json" else TextFormatter())
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
