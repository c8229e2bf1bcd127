"""Errors across processes: what a failure looks like on the wire, and what the client raises for it."""

from __future__ import annotations

from mpc import errors
from mpc.errors import PeerError, RemoteError, TesseraError
from parties.run_messages import Failed

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
    peer, reason = (error.peer, error.reason) if isinstance(error, PeerError) else ("", str(error))
    return Failed(run=run, error=type(error).__name__, peer=peer, reason=reason[:2000])


def error_of(message: Failed, sender: str) -> TesseraError:
    """The error a failure at ``sender`` stands for; naming whoever is at fault, and who noticed."""
    return rebuild(message.error, message.peer, message.reason, sender)


def rebuild(name: str, peer: str, reason: str, sender: str) -> TesseraError:
    """An error of class ``name``, reported by ``sender``."""
    reason = "".join(c if c.isprintable() else " " for c in reason)
    if peer and name in _PEER_ERRORS:
        kind = _PEER_ERRORS[name]
        return kind(peer, reason if peer == sender else f"{reason} (noticed by {sender})")
    if name in _OTHER_ERRORS:
        return _OTHER_ERRORS[name](f"{sender} says: {reason}")
    return RemoteError(sender, reason)
