"""Errors say who is at fault and what happened, in text that is fit for a terminal."""

from __future__ import annotations

import pytest

from mpc import errors
from mpc.errors import PeerError, ServerBusy, printable


@pytest.mark.parametrize(
    "text", ["\x1b[2Jgone", "two\nlines", "carriage\rreturn", "\x00", "\u202eright to left", "\x9b2J"]
)
def test_what_a_stranger_chose_is_printable(text: str) -> None:
    assert printable(text).isprintable()
    assert len(printable(text)) == len(text)


def test_plain_text_stays_as_it_is() -> None:
    assert printable("naïve Größe, 10 µs: 模型") == "naïve Größe, 10 µs: 模型"


def test_a_peer_is_named_beside_the_reason() -> None:
    error = ServerBusy("party 1", "three runs are waiting")
    assert str(error) == "party 1: three runs are waiting"
    assert (error.peer, error.reason) == ("party 1", "three runs are waiting")


@pytest.mark.parametrize(
    ("base", "names"),
    [
        ("UsageError", "EncodingError ShapeError RangeError UnsupportedError ConfigurationError"),
        (
            "PeerError",
            "PeerUnavailable PeerLost ProtocolViolation AuthenticationError VersionMismatch ServerBusy TooLarge "
            "DiskFull RemoteError",
        ),
        (
            "TesseraError",
            "UsageError ProgramError NotPermitted LimitReached RunExpired NoSuchName PeerError MaterialError"
            " MacCheckError",
        ),
    ],
)
def test_the_tree(base: str, names: str) -> None:
    """Callers catch a branch: what is somebody else's fault must not be taken for the caller's."""
    for name in names.split():
        kind = getattr(errors, name)
        assert kind.__bases__ == (getattr(errors, base),), name
        assert issubclass(kind, PeerError) == (base == "PeerError" or name == "PeerError")
