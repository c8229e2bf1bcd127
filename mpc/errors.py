"""Every error Tessera raises on purpose, as one tree.

    TesseraError
    ├── UsageError             you: bad input, caught before anything is shared or sent
    │   ├── EncodingError      a value that is not finite, or does not fit the fixed-point range
    │   ├── ShapeError         shapes that do not go together
    │   │   └── PositionError  an index that lies outside of its axis
    │   ├── RangeError         an expression whose values cannot be shown to fit the field
    │   ├── DiffersFromSource  an imported network that does not give its source's results
    │   ├── UnsupportedError   a layer, function or option that Tessera does not have
    │   │   └── UnknownValueError  a value that Python asks for, and that is secret
    │   └── ConfigurationError a cluster file, key file or option that is missing or wrong
    ├── ProgramError           a program that is malformed, or not what another process was given
    ├── NotPermitted           the owner of a secret has not allowed this client to use it so
    ├── LimitReached           the owner of a secret allows no more runs of it, today or at all
    ├── RunExpired             a run that was prepared has waited too long for its inputs
    ├── NoSuchName             nothing of the caller's own is called so
    ├── PeerError              another process; ``.peer`` names it
    │   ├── PeerUnavailable    cannot be reached
    │   ├── PeerLost           died, froze, or went silent in the middle of a run
    │   ├── ProtocolViolation  sent something malformed: length, shape, field range, sequence, kind
    │   ├── AuthenticationError  a key that is not in the cluster file, or in the wrong role
    │   ├── VersionMismatch    another version of Tessera, or another cluster file
    │   ├── ServerBusy         has as much to do as it takes on, and began nothing: try again later
    │   ├── TooLarge           has not the memory for it, ever
    │   ├── DiskFull           has no room on its disk
    │   ├── InconsistentInputs a client that sent different inputs, or an owner different parts, to different parties
    │   ├── InputOutOfRange    a client, or an owner of data, whose values do not lie in the range that it has said
    │   ├── CaughtCheating     a party whose own messages show that it deviated (malicious security)
    │   └── RemoteError        the other side refused or failed, and says why
    ├── NoAnswer               on the way to a result, a value left the interval of a function: nobody has it
    ├── AuditError             an audit log that is not what its server wrote, or contradicts another one
    ├── NotAsPromised          a benchmark has found that something promised does not hold
    ├── MaterialError          preprocessing that is not fresh: refused before anything was sent
    └── MacCheckError          somebody cheated, nothing says who (malicious security): nothing was revealed

No message ever holds a secret, a share, or key material.  ``exit_code`` is what the command line exits with, and
``advice`` what to do then, beside what the message says; docs/exit-codes.md has both.
"""

from __future__ import annotations

import errno
from typing import ClassVar

NO_SPACE = frozenset((errno.ENOSPC, errno.EDQUOT))
"""Of an OSError: the disk, or what this user may have of it, is full."""

HERE = "this host"
"""Instead of a member's name, which has no spaces: where the error was raised."""


def printable(text: str) -> str:
    """``text`` that a stranger chose, without line breaks or escape sequences: fit for a terminal or a log."""
    return "".join(c if c.isprintable() else " " for c in text)


class TesseraError(Exception):
    """Base of every error raised on purpose."""

    exit_code: ClassVar[int] = 1
    advice: ClassVar[str] = "Read the sentence; for an internal error, the log of the server that it names."

    def to_dict(self) -> dict[str, object]:
        """For JSON: its class in this module, its code, who is at fault if that is known, why, and what to do."""
        kind = next(kind for kind in type(self).__mro__ if kind.__module__ == __name__)
        peer = getattr(self, "peer", HERE)
        return {
            "error": kind.__name__,
            "code": self.exit_code,
            "member": None if peer == HERE else peer,
            "message": str(self),
            "advice": self.advice,
        }


class UsageError(TesseraError):
    """The caller's input is wrong; nothing has been shared or sent."""

    exit_code = 2
    advice = "Correct it as the sentence says."


class EncodingError(UsageError):
    """A value is not finite or does not fit the fixed-point range; the message names its position."""


class ShapeError(UsageError):
    """Shapes do not go together."""


class PositionError(ShapeError, IndexError):
    """An index lies outside of its axis."""


class RangeError(UsageError):
    """Values of an expression cannot be shown to fit the field; the message says what to declare or reduce."""


class DiffersFromSource(UsageError):  # noqa: N818 - says what happened
    """What a network became does not give its results, within the tolerance; the message names the first such layer."""


class UnsupportedError(UsageError):
    """A layer, function or option that Tessera does not have."""


class UnknownValueError(UnsupportedError, TypeError):
    """Python itself asks for a value that is secret: a truth value, a number, an array."""


class ConfigurationError(UsageError):
    """A cluster file, key file or option is missing or wrong."""

    exit_code = 3
    advice = "Correct it on this host, and start again."


class ProgramError(TesseraError):
    """A program is malformed, or is not the one another process was given."""

    exit_code = 4
    advice = "Run one release everywhere; ask for the model or the data again, and write the program anew."


class PeerError(TesseraError):
    """Another process is at fault; ``peer`` is its name in the cluster file."""

    exit_code = 5
    advice = "See the log of the process named."

    def __init__(self, peer: str, message: str) -> None:
        super().__init__(f"{peer}: {message}")
        self.peer = peer
        self.reason = message


class PeerUnavailable(PeerError):  # noqa: N818 - says what happened
    """The peer cannot be reached."""

    exit_code = 6
    advice = "Start it; tessera check tells a closed port from a firewall."


class PeerLost(PeerError):  # noqa: N818 - says what happened
    """The peer died, froze or went silent in the middle of a run."""

    exit_code = 7
    advice = "Try again: the next run needs no repair. If it recurs, see that process's log, and round_timeout."


class ProtocolViolation(PeerError):  # noqa: N818 - says what happened
    """The peer sent something malformed: length, shape, field range, sequence or kind."""

    exit_code = 8
    advice = "See who is named: another release, a fault, or an attack. Keep its log."


class AuthenticationError(PeerError):
    """The peer's key is not in the cluster file, or has the wrong role."""

    exit_code = 9
    advice = "Compare public keys with the cluster file on both hosts."


class VersionMismatch(PeerError):  # noqa: N818 - says what happened
    """The peer runs another version of Tessera or has another cluster file."""

    exit_code = 10
    advice = "The same release everywhere; the newest file, where it does not follow from yours by itself (cluster.md)."


class RemoteError(PeerError):
    """The peer refused or failed, and says why."""

    exit_code = 11
    advice = "Do as it says, at that server."


class ServerBusy(PeerError):  # noqa: N818 - says what happened
    """The server has as much to do, for this client or for all, as it takes on.  Nothing was begun: try again later."""

    exit_code = 15
    advice = "Try again later, or with smaller batches; the sentence says what there is too much of."


class TooLarge(PeerError):  # noqa: N818 - says what happened
    """What was asked for takes more memory than the server has for any one client.  Nothing was begun."""

    exit_code = 16
    advice = "Use smaller batches, or raise memory_mb in everybody's cluster file."


class DiskFull(PeerError):  # noqa: N818 - says what happened
    """The disk has no room for it, there or `HERE`.  Nothing of it is kept."""

    exit_code = 17
    advice = "Make room on the disk of the host that is named, and try again."


class InconsistentInputs(PeerError):  # noqa: N818 - says what happened
    """The peer, a client, sent different inputs to different parties, or different parts of what it stores there.

    Found out before anything was computed with them; it costs nobody else anything.
    """

    exit_code = 21
    advice = "Ask whoever is named why: it has signed both, and servers keep that (tessera audit evidence)."


class InputOutOfRange(PeerError):  # noqa: N818 - says what happened
    """The peer, a client or an owner of data, has sent values that do not lie in the range that it has said.

    Found out by the parties, on shares, before anything was revealed that depends on them.
    """

    exit_code = 24
    advice = "No client of ours sends such values: ask whoever is named; tessera audit shows its runs that ended so."


class CaughtCheating(PeerError):  # noqa: N818 - says what happened
    """The peer's own messages show that it deviated from the protocol.  Nothing was revealed."""

    exit_code = 22
    advice = (
        "Do not go on before it is known why: what proves it, if anything does, servers keep (tessera audit evidence)."
    )


class MacCheckError(TesseraError):
    """A MAC check failed: somebody deviated from the protocol.  Nothing was revealed."""

    exit_code = 12
    advice = "docs/security.md says how to find out."


class MaterialError(TesseraError):
    """Preprocessing that was dealt ahead of time is not fresh at some party.  Nothing that depends on it was sent."""

    exit_code = 13
    advice = "Try again; if it recurs, docs/security.md."


class NotPermitted(TesseraError):  # noqa: N818 - says what happened
    """A client may not use a secret of another one in this way, or not any more.  Nothing was revealed."""

    exit_code = 14
    advice = "Ask the owner for tessera allow; tessera models lists what you may use."


class LimitReached(TesseraError):  # noqa: N818 - says what happened
    """All runs that a rule of a secret's owner allows have been made.  Nothing was revealed."""

    exit_code = 18
    advice = "Wait for the next day (UTC) where it is a daily limit, or ask the owner for tessera allow."


class RunExpired(TesseraError):  # noqa: N818 - says what happened
    """A prepared run was not given its inputs in time.  Nothing was revealed."""

    exit_code = 20
    advice = "Prepare another one; raise prepared_timeout in the cluster file if that recurs."


class NoSuchName(TesseraError):  # noqa: N818 - says what happened
    """Nothing is called so that the caller would have to know of: nothing of its own, no member, no installed model."""

    exit_code = 19
    advice = "Look for the name with tessera models, or in the cluster file."


class NoAnswer(TesseraError):  # noqa: N818 - says what there is
    """Nobody has a result: on the way to it a value left the interval of a function, or the range assumed of it."""

    exit_code = 25
    advice = "The input is unlike those that the model was made for: look at it, or ask the model's owner."


class AuditError(TesseraError):
    """An audit log is not what its server wrote, or two servers' logs contradict each other."""

    exit_code = 23
    advice = "Read docs/security.md, section 10; keep copies of all logs as they are."


class NotAsPromised(TesseraError):  # noqa: N818 - says what happened
    """A benchmark has found that something promised does not hold; its table says what."""

    exit_code = 26
    advice = "Measure again while the machine does nothing else; what remains is a fault: report it."


def unwritable(what: str, error: OSError) -> TesseraError:
    """The error of ``what``, a file or folder on this host, that cannot be written."""
    if error.errno in NO_SPACE:
        return DiskFull(HERE, f"{what} cannot be written: the disk is full")
    return ConfigurationError(f"{what} cannot be written: {error.strerror or error}")
