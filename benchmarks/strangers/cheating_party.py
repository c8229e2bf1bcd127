"""A party's server that attacks another one while a file says so: ``tessera party``'s arguments, and all it does."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from pathlib import Path

from benchmarks.strangers.insiders import PARTY
from parties.commands.command_line import main
from parties.servers import process
from parties.servers.party import PartyServer

SIGN = "attack"
"""A file in the data folder: the attack's name, and the member that it is for, a line each."""


class CheatingParty(PartyServer):
    """Does its part in every run, so that the victim's go on."""

    folder: Path

    async def serve(self) -> None:
        self.spawn(self._attack())
        await super().serve()

    async def _attack(self) -> None:
        while True:
            await asyncio.sleep(0.05)
            with contextlib.suppress(OSError, ValueError):
                name, target = (self.folder / SIGN).read_text(encoding="ascii").splitlines()
                attack = asyncio.create_task(PARTY[name](self.endpoint, target))
                while (self.folder / SIGN).exists():  # noqa: ASYNC110 - another process writes it
                    await asyncio.sleep(0.05)
                attack.cancel()


if __name__ == "__main__":
    CheatingParty.folder = Path(sys.argv[1])
    process.PartyServer = CheatingParty  # type: ignore[attr-defined]
    raise SystemExit(main(sys.argv[2:]))
