"""Errors across processes: what a failure looks like on the wire, and what the client raises for it."""

from __future__ import annotations

from mpc import errors
from mpc.errors import PeerError, RemoteError, TesseraError
from parties.run_messages import Failed, StoreFailed

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
    )
}
_OTHER_ERRORS: dict[str, type[TesseraError]] = {
    kind.__name__: kind for kind in (errors.ProgramError, errors.RangeError, errors.MacCheckError)
}


def failed(run: str, error: TesseraError) -> Failed:
    """The message that tells the others of ``error``."""
    peer, reason = _parts(error)
    return Failed(run=run, error=type(error).__name__, peer=peer, reason=reason)


def store_failed(store: str, error: TesseraError) -> StoreFailed:
    """The message that tells an upload's owner of ``error``."""
    peer, reason = _parts(error)
    return StoreFailed(store=store, error=type(error).__name__, peer=peer, reason=reason)


def _parts(error: TesseraError) -> tuple[str, str]:
    peer, reason = (error.peer, error.reason) if isinstance(error, PeerError) else ("", str(error))
    return peer, reason[:_LONGEST]


def error_of(message: Failed | StoreFailed, sender: str) -> TesseraError:
    """The error a failure at ``sender`` stands for; naming whoever is at fault, and who noticed."""
    # The sender chose the words: no line breaks or escape sequences reach a terminal or a log.
    peer, reason = _printable(message.peer), _printable(message.reason)
    if peer and message.error in _PEER_ERRORS:
        kind = _PEER_ERRORS[message.error]
        return kind(peer, reason if peer == sender else f"{reason} (noticed by {sender})")
    if message.error in _OTHER_ERRORS:
        return _OTHER_ERRORS[message.error](f"{sender} says: {reason}")
    return RemoteError(sender, reason)


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else " " for c in text)
