"""Parties and a dealer on Ray: workers are processes of its, which come, go, and leave nothing behind."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from pathlib import Path

import numpy as np
import pytest

from mpc.errors import PeerError
from mpc.security import Security
from parties import AsyncClient, Cluster, KeyPair, Settings
from parties.local.ports import reserved_ports
from parties.servers.process import make_server
from parties.wire.socket_wires import SocketWires
from parties.worker.ray_workforce import RayWorkforce

pytest.importorskip("ray", reason="needs the extra `cluster`")

PARTIES = ("party0", "party1")
PATIENCE = 60.0
"""s for processes to start."""


def children() -> dict[int, str]:
    """What this process has started, and that, by number."""
    found = {}
    parents = {os.getpid()}
    stats = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            stats[int(folder.name)] = parent, (folder / "cmdline").read_bytes().decode(errors="replace")
        except OSError:
            continue
    while more := {pid for pid, (parent, _) in stats.items() if parent in parents and pid not in parents}:
        parents |= more
        found |= {pid: stats[pid][1] for pid in more}
    return found


async def until(condition) -> None:
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110 - servers know nothing of being watched
            await asyncio.sleep(0.05)


async def test_runs_go_on_when_a_worker_is_killed(tmp_path, monkeypatch):
    names = ("dealer", *PARTIES)
    keys = {name: KeyPair.generate() for name in (*names, "clinic")}
    reserved = contextlib.ExitStack()
    ports = reserved.enter_context(reserved_ports(3))
    cluster = Cluster.build(
        "on-ray",
        dealer=(f"127.0.0.1:{ports[0]}", keys["dealer"].public),
        parties=[(name, f"127.0.0.1:{ports[i + 1]}", keys[name].public) for i, name in enumerate(PARTIES)],
        clients=[("clinic", keys["clinic"].public)],
        settings=Settings(threads=1, security=Security.MALICIOUS, peer_timeout=20, round_timeout=30),
    )
    before = children()
    # One Ray for all, as it takes seconds to start, with a processor for each.
    monkeypatch.setattr(os, "cpu_count", lambda: len(names))
    forces = {name: RayWorkforce(1) for name in names}
    servers = {
        name: make_server(
            cluster, cluster.member(name), keys[name], tmp_path / name, SocketWires, workforce=forces.get(name)
        )
        for name in names
    }
    tasks = [asyncio.create_task(server.serve()) for server in servers.values()]

    def processes(*of: str) -> list[int]:
        return [worker.process for name in of or names for worker in servers[name]._engine.crew.workers.values()]

    try:
        await until(lambda: len(processes()) == 3)
        async with AsyncClient(cluster, keys["clinic"], transport=SocketWires) as client:
            x = client.share(np.array([0.5, -0.25]), low=-1, high=1).relu()
            assert await client.reveal(x) == pytest.approx([0.5, 0], abs=1e-3)
            prepared = await client.prepare(x)
            assert os.getpid() not in processes()
            (killed,) = processes("party1")
            os.kill(killed, signal.SIGKILL)
            with pytest.raises(PeerError, match=r"party1.*run it again"):
                await client.finish(prepared)
            await until(lambda: len(processes()) == 3 and killed not in processes())
            assert await client.reveal(x) == pytest.approx([0.5, 0], abs=1e-3)
            (killed,) = processes("dealer")
            os.kill(killed, signal.SIGKILL)
            await until(lambda: len(processes()) == 3 and killed not in processes())
            await client.stock(x, 2)
            assert await client.reveal(x) == pytest.approx([0.5, 0], abs=1e-3)
            assert client.last_run.from_stock
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for force in forces.values():
            force.close()
        reserved.close()
    await until(lambda: not children().keys() - before.keys())
