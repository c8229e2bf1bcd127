"""What members say about runs that this server does not know yet: kept until it does, in a bounded number."""

from __future__ import annotations

from collections import OrderedDict
from typing import Generic, TypeVar

from parties.members.cluster import Member

MessageT = TypeVar("MessageT")

MAX_EARLY = 512
"""Of one member; the one it said first is forgotten for the next, so false ids push out its own words alone."""


class EarlyWords(Generic[MessageT]):
    """One message of each member about each run; of no payload, so their number bounds their memory."""

    def __init__(self) -> None:
        self._by_member: dict[str, OrderedDict[str, tuple[Member, MessageT]]] = {}

    def keep(self, sender: Member, run: str, message: MessageT) -> bool:
        """Until ``take``; False if there is one of that sender's about that run already."""
        said = self._by_member.setdefault(sender.name, OrderedDict())
        if run in said:
            return False
        said[run] = sender, message
        if len(said) > MAX_EARLY:
            said.popitem(last=False)
        return True

    def take(self, run: str) -> list[tuple[Member, MessageT]]:
        """What was said about the run, which is known now."""
        found = (said.pop(run, None) for said in self._by_member.values())
        return [words for words in found if words is not None]

    def __len__(self) -> int:
        return sum(map(len, self._by_member.values()))
