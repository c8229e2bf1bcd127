"""How much of what is stored one owner may have: names, what is said of secrets, rules.

Each owner has an even part of the names, so nobody can be told that others have taken them all.  Bytes on a disk have
a rule of their own (`parties.host.disk.check_part`), as stock has.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

from mpc.errors import ProgramError, ServerBusy
from parties.messages.check import Quota, QuotaSeen
from parties.messages.uploads import MAX_SECRETS

MAX_DESCRIPTION = 1 << 20
"""Bytes that are said of one secret: its description, and its tensors' names and shapes."""

MOST_DESCRIBED = 16 << 20
"""Bytes that are said of all secrets of one owner, at most; they are in memory, and again after a restart."""

MAX_RULES = 10_000
"""Of one owner: programs, each counted for every client that may run it."""

_BYTES_PER_TENSOR = 256


class Said(NamedTuple):
    """Of a secret that an owner has in use, or on its way."""

    name: str
    size: int
    """Bytes that are said of it."""


def said(name: str, description: bytes | memoryview, tensors: int) -> Said:
    """Of a secret of so many tensors."""
    return Said(name, len(description) + _BYTES_PER_TENSOR * tensors)


class Quotas:
    """Of one server.

    Args:
        server: its name.
        clients: how many there are in the cluster.
        memory: bytes that it has for runs; what is said of secrets takes an eighth as much, in all.
    """

    def __init__(self, server: str, clients: int, memory: int) -> None:
        self._server = server
        clients = max(1, clients)
        self.names = max(1, MAX_SECRETS // clients)
        """That one owner may have."""
        self.described = min(MOST_DESCRIBED, max(MAX_DESCRIPTION, memory // (8 * clients)))
        """Bytes that may be said of all of them."""

    def seen(self, have: Collection[Said]) -> tuple[QuotaSeen, ...]:
        """How much of them an owner has used up who has those."""
        return (
            QuotaSeen(Quota.NAMES, len({one.name for one in have}), self.names),
            QuotaSeen(Quota.SAID, sum(one.size for one in have), self.described),
        )

    def check(self, owner: str, new: Said, others: Collection[Said]) -> None:
        """Whether an owner who has those may have a new one, in place of what it has under that name.

        Raises ServerBusy, and ProgramError for a description that nobody may have.
        """
        if new.size > MAX_DESCRIPTION:
            raise ProgramError(
                f"what is said of {new.name!r} takes {new.size >> 10} KiB, and {MAX_DESCRIPTION >> 10} are taken:"
                " describe it in fewer words, or split it"
            )
        names = {one.name for one in others} | {new.name}
        if len(names) > self.names:
            raise ServerBusy(
                self._server, f"{owner} has {len(names) - 1} names, and an owner may have no more here: remove one"
                " first (tessera rm NAME)",
            )  # fmt: skip
        size = sum(one.size for one in others) + new.size
        if size > self.described:
            raise ServerBusy(
                self._server, f"what is said of the secrets of {owner} would take {size >> 10} KiB, and an owner may"
                f" have {self.described >> 10} here: remove one first (tessera rm NAME)",
            )  # fmt: skip
