"""Messages to their handlers, answers to their senders, and tasks that end with the server."""

from __future__ import annotations

import asyncio
import contextvars
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Any, TypeVar

from mpc.errors import ServerBusy, TesseraError, TooLarge
from mpc.rings.devices import memory_errors
from parties.members.cluster import Member, Role
from parties.messages.conversation import RequestFailed, RequestMessage
from parties.messages.failures import fault_of, internal_error
from parties.messages.runs import RunMessage
from parties.operate.site import Handler, Refusal
from parties.servers.governor import Governor
from parties.wire.events import Delivery
from parties.wire.messages import Message, Payload
from parties.wire.transport import Endpoint

log = logging.getLogger(__name__)

MessageT = TypeVar("MessageT", bound=Message)

_asking: contextvars.ContextVar[str] = contextvars.ContextVar("tessera_asking", default="")
"""Whose request is being handled; empty for what belongs to a run, and for the server's own."""


class Dispatcher(ABC):
    """What a server is beside its runs."""

    endpoint: Endpoint
    member: Member

    def __init__(self, governor: Governor) -> None:
        self.governor = governor
        self._handlers: dict[type[Message], tuple[Handler, Refusal]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def on(
        self,
        kind: type[MessageT],
        handler: Callable[[Member, MessageT, Payload], None],
        refuse: Callable[[Member, MessageT, TesseraError], None] | None = None,
    ) -> None:
        """``handler(sender, message, payload)`` takes the messages of this class.

        ``refuse(sender, message, error)`` is called with what it raises; by default ``refuse``.
        """
        self._handlers[kind] = handler, self.refuse if refuse is None else refuse

    def take(self, delivery: Delivery) -> None:
        """Hand the message to its handler."""
        sender, message = delivery.sender, delivery.message
        handlers = self._handlers.get(type(message))
        if handlers is None:
            self.endpoint.in_vain(sender.name)
            log.warning("%s sent %s, which is not for us", sender.name, type(message).__name__)
            return
        handler, refuse = handlers
        # Runs have bounds of their own.
        asking = _asking.set("" if isinstance(message, RunMessage) else sender.name)
        try:
            if _asking.get() and sender.role is not Role.DEALER:
                try:
                    self.governor.admit(sender)
                    if isinstance(message, RequestMessage) and not sender.is_server:
                        self.governor.admit_question(sender, message.weight)
                except ServerBusy:
                    if self.governor.hears(sender):
                        raise
                    if not sender.is_server:
                        self.endpoint.show_out(sender.name, f"{sender.name} asks far more than it may")
                    return
            with memory_errors():
                handler(sender, message, delivery.buffers)
        except TesseraError as error:
            self.endpoint.in_vain(sender.name)
            refuse(sender, message, error)
        except MemoryError:
            refuse(sender, message, TooLarge(self.member.name, "has no memory left for this"))
        except Exception:  # a bug of ours must not take the server down with it
            log.exception("%s from %s could not be handled", type(message).__name__, sender.name)
            refuse(sender, message, internal_error())
        finally:
            _asking.reset(asking)

    @abstractmethod
    def refuse(self, sender: Member, message: Message, error: TesseraError) -> None:
        """What is done with the error that a handler has raised."""

    def answer(self, client: Member, message: RequestMessage, work: Coroutine[Any, Any, None]) -> None:
        """``work``, as ``spawn`` does it; where it fails, the request is refused."""

        async def refused() -> None:
            try:
                await work
            except TesseraError as error:
                self.refuse_request(client, message, error)

        self.spawn(refused())

    def refuse_request(self, sender: Member, message: RequestMessage, error: TesseraError) -> None:
        """Tell the sender that it cannot have what it asks for."""
        log.warning("%s of %s refused: %s", type(message).__name__, sender.name, error)
        self.tell([sender.name], RequestFailed(request=message.request, fault=fault_of(error)))

    def tell(self, names: Iterable[str], message: Message, payload: Sequence[bytes] = ()) -> None:
        """Send to whoever can be reached."""
        for name in names:
            try:
                self.endpoint.send(name, message, payload)
            except TesseraError as error:
                log.debug("%s cannot be told: %s", name, error)

    def spawn(self, coroutine: Coroutine[Any, Any, object]) -> None:
        """A task that ends with the server, and whose failure is its own.

        It counts as a request of whoever's message is being handled, until it is over.
        """
        member = _asking.get()
        self.governor.begun(member)

        async def guarded() -> None:
            try:
                await coroutine
            except TesseraError as error:
                log.warning("%s", error)
            except Exception:
                log.exception("internal error")

        def over(task: asyncio.Task[None]) -> None:
            # Also of one that was cancelled before its first step, in which nothing of ``guarded`` has run.
            coroutine.close()
            self.governor.ended(member)
            self._tasks.discard(task)

        task = asyncio.get_running_loop().create_task(guarded())
        self._tasks.add(task)
        task.add_done_callback(over)

    async def end_tasks(self) -> None:
        """Cancel them, and wait until they are over."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
