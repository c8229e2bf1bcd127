"""Errors across processes: what a failure looks like on the wire, and what the client raises for it."""

from __future__ import annotations

from mpc import errors
from mpc.errors import PeerError, RemoteError, TesseraError, printable
from parties.messages.check import Fault
from parties.messages.runs import Failed, UploadFailed
from parties.messages.stock import StockFailed, StockRefused

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
    )
}


def internal_error() -> TesseraError:
    """What the others learn of a fault of ours: where to look, and nothing of what was computed."""
    return TesseraError("internal error; see this process's log")


def failed(run: str, error: TesseraError) -> Failed:
    """The message that tells the others of ``error``."""
    return Failed(run=run, **_parts(error))


def upload_failed(version: str, error: TesseraError) -> UploadFailed:
    """The message that tells an upload's owner of ``error``."""
    return UploadFailed(version=version, **_parts(error))


def stock_failed(request: str, error: TesseraError) -> StockFailed:
    """The message that tells who asked for preprocessing of ``error``."""
    return StockFailed(request=request, **_parts(error))


def stock_refused(session: str, number: int, error: TesseraError) -> StockRefused:
    """The message that tells the dealer of ``error``."""
    return StockRefused(session=session, number=number, **_parts(error))


def _parts(error: TesseraError) -> dict[str, str]:
    """Class, peer at fault and reason."""
    kinds = (kind.__name__ for kind in type(error).__mro__)
    name = next((kind for kind in kinds if kind in _PEER_ERRORS or kind in _OTHER_ERRORS), TesseraError.__name__)
    peer, reason = (error.peer, error.reason) if isinstance(error, PeerError) else ("", str(error))
    return {"error": name, "peer": peer, "reason": reason[:_LONGEST]}


def fault_of(error: PeerError) -> Fault:
    """What ``error`` looks like in an answer to a check."""
    return Fault(**_parts(error))


def error_in(fault: Fault) -> PeerError:
    """The error that ``fault`` stands for."""
    return _PEER_ERRORS.get(fault.error, RemoteError)(fault.peer, printable(fault.reason))


def error_of(message: Failed | UploadFailed | StockFailed | StockRefused, sender: str) -> TesseraError:
    """The error a failure at ``sender`` stands for; naming whoever is at fault, and who noticed."""
    # The sender chose the words: no line breaks or escape sequences reach a terminal or a log.
    peer, reason = printable(message.peer), printable(message.reason)
    if message.error in _OTHER_ERRORS:
        return _OTHER_ERRORS[message.error](f"{sender} says: {reason}")
    kind = _PEER_ERRORS.get(message.error, RemoteError) if peer else RemoteError
    return kind(peer or sender, reason if peer in ("", sender) else f"{reason} (noticed by {sender})")
