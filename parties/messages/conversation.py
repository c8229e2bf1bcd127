"""What belongs together: a client's runs, uploads and requests are conversations, and messages carry their id."""

from __future__ import annotations

from typing import ClassVar

from parties.cluster import Role
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
    def failure(self) -> Fault | None:
        """Why it has come to nothing, if that is what the message says."""
        return None


class RequestMessage(ConversationMessage, frozen=True):
    """Base of what is asked and answered once, or until all of it is done."""

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
