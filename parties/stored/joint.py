"""Joint owners, in words: those to whom something belongs beside who has its name (`parties.stored.policy`)."""

from __future__ import annotations

from parties.members.keys import is_public_key


def is_gone(owner: str) -> bool:
    """Whether it is no client any more: then it has no name, and is known by its key."""
    return is_public_key(owner)


def called(owner: str) -> str:
    """For people."""
    return "somebody whom the cluster file lists no longer" if is_gone(owner) else owner


def without_leave(client: str, slot: str, owner: str) -> str:
    """Why ``client`` may not run a program on what is in the slot: that joint owner does not let it."""
    said = f"{client} may not run this program on {slot!r}, which belongs to {called(owner)} as well"
    if is_gone(owner):
        return f"{said}: until it is back, nobody may"
    return f"{said}: it has to allow it (tessera request, or tessera allow {slot} {client})"
