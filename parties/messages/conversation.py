"""What belongs together: a client's runs, uploads and requests are conversations, and messages carry their id."""

from __future__ import annotations

from typing import ClassVar

from parties.members.cluster import Role
from parties.messages.failures import Fault
from parties.messages.fields import Id
from parties.wire.messages import SERVERS, Message


class ConversationMessage(Message, frozen=True):
    """Base of what belongs to a conversation of a client's."""

    @property
    def conversation(self) -> str:
        """Its id, drawn by the client."""
        raise NotImplementedError

    @property
    def lane(self) -> str:
        return self.conversation

    @property
    def failure(self) -> Fault | None:
        """Why it has come to nothing, if that is what the message says."""
        return None


WRITTEN = 5
"""Questions that something counts as which is checked for a signature, or written to the disk before it is answered."""


class RequestMessage(ConversationMessage, frozen=True):
    """Base of what is asked and answered once, or until all of it is done."""

    weight: ClassVar[int] = 1
    """Questions that it counts as, of those that a client may ask (``parties.servers.governor``)."""

    request: Id

    @property
    def conversation(self) -> str:
        return self.request


class RequestFailed(RequestMessage, frozen=True):
    """What was asked for cannot be had, or will not be done."""

    senders: ClassVar[frozenset[Role]] = SERVERS
    fault: Fault

    @property
    def failure(self) -> Fault:
        return self.fault
