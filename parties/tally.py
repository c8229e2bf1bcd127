"""How many messages of a run, and how much payload, one process has sent to each other, counted where they are sent."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import msgspec

Link = tuple[str, str]
"""From which process to which, by name."""


class Sent(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Messages of one run to one process, and the bytes of their payload frames."""

    messages: Annotated[int, msgspec.Meta(ge=0)] = 0
    payload: Annotated[int, msgspec.Meta(ge=0)] = 0

    def __add__(self, other: Sent) -> Sent:
        return Sent(self.messages + other.messages, self.payload + other.payload)


class Tally(dict[str, Sent]):
    """What one process has sent in one phase of a run, by receiver."""

    def add(self, receiver: str, payload: int) -> None:
        """One more message, with so many bytes of payload."""
        self[receiver] = self.get(receiver, Sent()) + Sent(1, payload)


def total(sent: Mapping[Any, Sent]) -> Sent:
    """Of a table, by whatever it is kept."""
    return sum(sent.values(), Sent())


def merged(*tables: Mapping[Link, Sent]) -> dict[Link, Sent]:
    """The sums, link by link."""
    links: dict[Link, Sent] = {}
    for table in tables:
        for link, sent in table.items():
            links[link] = links.get(link, Sent()) + sent
    return links
