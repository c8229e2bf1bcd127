"""What a device has no memory for ends its run, wherever it is computed, by name; nothing else."""

from __future__ import annotations

from typing import Any

import pytest

from mpc.errors import TooLarge
from parties.servers import dealing, engine, online
from parties.worker import computation

from .stocked import program, right
from .workforces import on_workers

PLACES = {
    "dealing": (dealing, "dealing_of", "dealer: has no memory left"),
    "preparing": (engine, "first_part", "party[01]: has no memory left"),
    "computing": (online, "next_round", "party[01]: has no memory left"),
    "preparing on a worker": (computation, "first_part", "party[01]: has a worker without memory left"),
    "computing on a worker": (computation, "next_round", "party[01]: has a worker without memory left"),
}


@pytest.mark.parametrize("place", PLACES)
async def test_out_of_memory(site, monkeypatch, place):
    where, name, said = PLACES[place]
    if "worker" in place:
        await on_workers(site, count=1)

    def full(*_: Any, **__: Any) -> Any:
        # As torch has it on the processor; of a card's there is a class (tests/devices).
        raise RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory: 8 GiB")

    async with site.client() as client, site.client("company") as company:
        waits = await company.prepare(program(company))
        monkeypatch.setattr(where, name, full)
        with pytest.raises(TooLarge, match=said):
            await client.reveal(program(client))
        monkeypatch.undo()
        await company.finish(waits)
        await right(client)
    await site.settled()
