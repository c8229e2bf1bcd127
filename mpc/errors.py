"""Every error Tessera raises on purpose, as one tree.

    TesseraError
    ├── UsageError             you: bad input, caught before anything is shared or sent
    │   ├── EncodingError      a value that is not finite, or does not fit the fixed-point range
    │   ├── ShapeError         shapes that do not go together
    │   ├── RangeError         an expression whose values cannot be shown to fit the field
    │   ├── UnsupportedError   a layer, function or option that Tessera does not have
    │   └── ConfigurationError a cluster file, key file or option that is missing or wrong
    ├── ProgramError           a program that is malformed, or not what another process was given
    ├── NotPermitted           the owner of a secret has not allowed this client to use it so
    ├── PeerError              another process; ``.peer`` names it
    │   ├── PeerUnavailable    cannot be reached
    │   ├── PeerLost           died, froze, or went silent in the middle of a run
    │   ├── ProtocolViolation  sent something malformed: length, shape, field range, sequence, kind
    │   ├── AuthenticationError  a key that is not in the cluster file, or in the wrong role
    │   ├── VersionMismatch    another version of Tessera, or another cluster file
    │   ├── ServerBusy         has as much to do as it takes on, and began nothing: try again later
    │   └── RemoteError        the other side refused or failed, and says why
    ├── MaterialError          preprocessing that is not fresh: refused before anything was sent
    └── MacCheckError          somebody cheated (malicious security): nothing was revealed

No message ever holds a secret, a share, or key material.  ``exit_code`` is what the command line exits with.
"""

from __future__ import annotations

from typing import ClassVar


def printable(text: str) -> str:
    """``text`` that a stranger chose, without line breaks or escape sequences: fit for a terminal or a log."""
    return "".join(c if c.isprintable() else " " for c in text)


class TesseraError(Exception):
    """Base of every error raised on purpose."""

    exit_code: ClassVar[int] = 1


class UsageError(TesseraError):
    """The caller's input is wrong; nothing has been shared or sent."""

    exit_code = 2


class EncodingError(UsageError):
    """A value is not finite or does not fit the fixed-point range; the message names its position."""


class ShapeError(UsageError):
    """Shapes do not go together."""


class RangeError(UsageError):
    """Values of an expression cannot be shown to fit the field; the message says what to declare or reduce."""


class UnsupportedError(UsageError):
    """A layer, function or option that Tessera does not have."""


class ConfigurationError(UsageError):
    """A cluster file, key file or option is missing or wrong."""

    exit_code = 3


class ProgramError(TesseraError):
    """A program is malformed, or is not the one another process was given."""

    exit_code = 4


class PeerError(TesseraError):
    """Another process is at fault; ``peer`` is its name in the cluster file."""

    exit_code = 5

    def __init__(self, peer: str, message: str) -> None:
        super().__init__(f"{peer}: {message}")
        self.peer = peer
        self.reason = message


class PeerUnavailable(PeerError):  # noqa: N818 - says what happened
    """The peer cannot be reached."""

    exit_code = 6


class PeerLost(PeerError):  # noqa: N818 - says what happened
    """The peer died, froze or went silent in the middle of a run."""

    exit_code = 7


class ProtocolViolation(PeerError):  # noqa: N818 - says what happened
    """The peer sent something malformed: length, shape, field range, sequence or kind."""

    exit_code = 8


class AuthenticationError(PeerError):
    """The peer's key is not in the cluster file, or has the wrong role."""

    exit_code = 9


class VersionMismatch(PeerError):  # noqa: N818 - says what happened
    """The peer runs another version of Tessera or has another cluster file."""

    exit_code = 10


class RemoteError(PeerError):
    """The peer refused or failed, and says why."""

    exit_code = 11


class ServerBusy(PeerError):  # noqa: N818 - says what happened
    """The server has as much to do, for this client or for all, as it takes on.  Nothing was begun: try again later."""

    exit_code = 15


class MacCheckError(TesseraError):
    """A MAC check failed: somebody deviated from the protocol.  Nothing was revealed."""

    exit_code = 12


class MaterialError(TesseraError):
    """Preprocessing that was dealt ahead of time is not fresh at some party.  Nothing that depends on it was sent."""

    exit_code = 13


class NotPermitted(TesseraError):  # noqa: N818 - says what happened
    """A client may not use a secret of another one in this way.  Nothing was dealt or computed."""

    exit_code = 14
