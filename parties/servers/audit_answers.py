"""Clients ask what a server's audit log says of them and of their secrets."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

from mpc.errors import ConfigurationError, TesseraError
from parties.members.cluster import Member
from parties.messages.audit import AskAudit, AuditShown, Place
from parties.messages.failures import internal_error
from parties.operate.audit.looking import look
from parties.servers.server import Server

log = logging.getLogger(__name__)

SECONDS = 0.05
"""That a look at a piece of the log takes at most, about."""


class AuditAnswers:
    """Registers its handler at ``server`` when it is made."""

    def __init__(self, server: Server[Any], folder: str | os.PathLike[str]) -> None:
        self._server, self._folder = server, Path(folder)
        server.on(AskAudit, lambda client, message, _: server.spawn(self._answer(client, message)))

    async def _answer(self, client: Member, message: AskAudit) -> None:
        def work() -> tuple[bytes, Place | None]:
            # Or whoever asks at once would miss what it has just done.
            self._server.audit.flush()
            return look(self._folder, client.name, message.since, message.place)

        try:
            text, more = await self._server.governor.desk.run(client.name, work, seconds=SECONDS)
        except ConfigurationError as error:
            # Where the log lies is nobody else's business.
            log.warning("%s", error)
            self._server.refuse_request(client, message, internal_error())
        except TesseraError as error:
            self._server.refuse_request(client, message, error)
        else:
            self._server.tell([client.name], AuditShown(request=message.request, more=more), [text])
