"""What a person at a page can do about a failure: one sentence per kind of error, beside the error's own.

An error says who is at fault and why, to whoever runs the servers; at the page sits somebody who does not.
"""

from __future__ import annotations

from collections.abc import Mapping

from mpc.errors import (
    AuthenticationError,
    CaughtCheating,
    MacCheckError,
    MaterialError,
    PeerError,
    PeerLost,
    PeerUnavailable,
    ProtocolViolation,
    RemoteError,
    ServerBusy,
    TesseraError,
    VersionMismatch,
)

Advice = Mapping[type[TesseraError], str]

EVERYWHERE: Advice = {
    PeerUnavailable: "Try again when it is back; if it stays away, tell whoever runs {peer}.",
    PeerLost: "Nothing was revealed. Try again; if it recurs, tell whoever runs {peer}.",
    ServerBusy: "Try again in a while.",
    # Above all when somebody else has taken up the key: what was cut off stays so until it is started again.
    RemoteError: "If another page or command runs with this key, end it and start {command} again. If none does,"
    " tell whoever runs {peer}.",
    ProtocolViolation: "Do not go on: tell whoever runs {peer}, who should keep its log.",
    AuthenticationError: "The keys here and in the cluster file have to be compared: tell whoever runs {peer}.",
    VersionMismatch: "All computers need the same release and the same cluster file: tell whoever runs {peer}.",
    PeerError: "Try again; if it recurs, tell whoever runs {peer}.",
    CaughtCheating: "Nothing was revealed. Do not go on: tell whoever runs the parties, who should keep the logs.",
    MacCheckError: "Nothing was revealed. Do not go on: tell whoever runs the parties.",
    MaterialError: "Nothing was revealed. Try again.",
}


def advice(error: TesseraError, command: str, here: Advice) -> str:
    """What to do at a page of that ``command``, or nothing where the error itself says it all.

    ``here``: what is to be done at this page, where there is something that others do not have.
    """
    peer = error.peer if isinstance(error, PeerError) else ""
    known = {**EVERYWHERE, **here}
    found = next((known[kind] for kind in type(error).__mro__ if kind in known), "")
    return found.format(peer=peer, command=command)
