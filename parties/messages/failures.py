"""Errors across processes: what a failure looks like on the wire, and what the client raises for it."""

from __future__ import annotations

from typing import Annotated

import msgspec

from mpc import errors
from mpc.errors import PeerError, RemoteError, TesseraError, printable
from parties.messages.fields import Text

_LONGEST = 2000
_PEER_ERRORS: dict[str, type[PeerError]] = {
    kind.__name__: kind
    for kind in (
        errors.PeerUnavailable,
        errors.PeerLost,
        errors.ProtocolViolation,
        errors.AuthenticationError,
        errors.VersionMismatch,
        errors.RemoteError,
        errors.ServerBusy,
        errors.TooLarge,
        errors.DiskFull,
        errors.InconsistentInputs,
        errors.InputOutOfRange,
        errors.CaughtCheating,
    )
}
_OTHER_ERRORS: dict[str, type[TesseraError]] = {
    kind.__name__: kind
    for kind in (
        errors.ProgramError,
        errors.RangeError,
        errors.MacCheckError,
        errors.MaterialError,
        errors.NotPermitted,
        errors.LimitReached,
        errors.RunExpired,
        errors.NoSuchName,
        errors.AuditError,
        errors.NoAnswer,
    )
}


class Fault(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An error on the wire: a class of ``mpc.errors``, who is at fault, if known, and why."""

    error: Annotated[str, msgspec.Meta(max_length=64)]
    peer: Annotated[str, msgspec.Meta(max_length=64)]
    reason: Text


def internal_error() -> TesseraError:
    """What the others learn of a fault of ours: where to look, and nothing of what was computed."""
    return TesseraError("internal error; see this process's log")


def fault_of(error: TesseraError) -> Fault:
    """What ``error`` looks like to others."""
    kinds = (kind.__name__ for kind in type(error).__mro__)
    name = next((kind for kind in kinds if kind in _PEER_ERRORS or kind in _OTHER_ERRORS), TesseraError.__name__)
    peer, reason = (error.peer, error.reason) if isinstance(error, PeerError) else ("", str(error))
    return Fault(name, peer, reason[:_LONGEST])


def error_of(fault: Fault, sender: str) -> TesseraError:
    """The error that a fault told by ``sender`` stands for; naming whoever is at fault, and who noticed."""
    # The sender chose the words: no line breaks or escape sequences reach a terminal or a log.
    peer, reason = printable(fault.peer), printable(fault.reason)
    if fault.error in _OTHER_ERRORS:
        return _OTHER_ERRORS[fault.error](f"{sender} says: {reason}")
    kind = _PEER_ERRORS.get(fault.error, RemoteError) if peer else RemoteError
    return kind(peer or sender, reason if peer in ("", sender) else f"{reason} (noticed by {sender})")


def own_error(fault: Fault) -> TesseraError:
    """The error that a fault stands for which was met here, if in another process."""
    kind = _OTHER_ERRORS.get(fault.error)
    if kind is not None:
        return kind(fault.reason)
    return _PEER_ERRORS[fault.error](fault.peer, fault.reason) if fault.peer else TesseraError(fault.reason)


def error_on_link(fault: Fault) -> PeerError:
    """The error that one end of a link has met there: of the other end, and who noticed goes without saying."""
    return _PEER_ERRORS.get(fault.error, RemoteError)(printable(fault.peer), printable(fault.reason))
