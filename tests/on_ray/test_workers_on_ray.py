"""Parties and a dealer on Ray: workers are processes of its, which come, go, and leave nothing behind."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
from pathlib import Path

import numpy as np
import pytest

from mpc.errors import PeerError, PeerLost
from mpc.security import Security
from parties import AsyncClient, Cluster, KeyPair, Settings
from parties.commands.status import watching
from parties.local.ports import reserved_ports
from parties.servers.process import make_server
from parties.wire.socket_wires import SocketWires
from parties.worker.ray_workforce import RayWorkforce
from parties.worker.within import Within

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


@contextlib.asynccontextmanager
async def serving(folder, forces):
    """A cluster, its client's key, and its servers, with these workforces."""
    names = ("dealer", *PARTIES)
    keys = {name: KeyPair.generate() for name in (*names, "clinic")}
    with reserved_ports(3) as ports:
        cluster = Cluster.build(
            "on-ray",
            dealer=(f"127.0.0.1:{ports[0]}", keys["dealer"].public),
            parties=[(name, f"127.0.0.1:{ports[i + 1]}", keys[name].public) for i, name in enumerate(PARTIES)],
            clients=[("clinic", keys["clinic"].public)],
            settings=Settings(threads=1, security=Security.MALICIOUS, peer_timeout=20, round_timeout=30),
        )
        servers = {
            name: make_server(
                cluster, cluster.member(name), keys[name], folder / name, SocketWires, workforce=forces.get(name)
            )
            for name in names
        }
        tasks = [asyncio.create_task(server.serve()) for server in servers.values()]
        try:
            yield cluster, keys["clinic"], servers
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for force in forces.values():
                force.close()


async def test_runs_go_on_when_a_worker_is_killed(tmp_path, monkeypatch):
    names = ("dealer", *PARTIES)
    before = children()
    # One Ray for all, as it takes seconds to start, with a processor for each.
    monkeypatch.setattr(os, "cpu_count", lambda: len(names))
    # The last party's keeps what is dealt ahead, which outlives it.
    forces = {name: RayWorkforce(1, stock=str(tmp_path / "stock") * (name == "party1")) for name in names}
    async with serving(tmp_path, forces) as (cluster, key, servers):

        def processes(*of: str) -> list[int]:
            return [worker.process for name in of or names for worker in servers[name]._engine.crew.workers.values()]

        await until(lambda: len(processes()) == 3)
        async with AsyncClient(cluster, key, transport=SocketWires) as client:
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
            assert sum(servers["party1"].material.ledger.shelved.counts().values()) == 2
            (killed,) = processes("party1")
            os.kill(killed, signal.SIGKILL)
            await until(lambda: len(processes()) == 3 and killed not in processes())
            assert await client.reveal(x) == pytest.approx([0.5, 0], abs=1e-3)
            assert client.last_run.from_stock
    await until(lambda: not children().keys() - before.keys())


async def test_a_machine_that_goes_takes_its_own_runs_alone(tmp_path, monkeypatch):
    """Two nodes of a party's Ray, with a processor each, of which one is removed while runs are in progress."""
    import ray
    from ray.cluster_utils import Cluster as Nodes

    # Of 15, by default: whatever else is at work here would come first.
    monkeypatch.setenv("RAY_worker_niceness", "0")
    nodes = Nodes(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        going = nodes.add_node(num_cpus=1)
        forces = {"party0": Within(2), "party1": RayWorkforce(2, nodes.address)}
        async with serving(tmp_path, forces) as (cluster, key, servers):
            party = servers["party1"]
            await until(lambda: len(party.workers.runs) == 2)
            async with AsyncClient(cluster, key, transport=SocketWires) as client:
                x = client.share(np.array([0.5, -0.25]), low=-1, high=1).relu()
                prepared = [await client.prepare(x) for _ in range(4)]
                assert sorted(party.workers.runs.values()) == [2, 2]
                await asyncio.to_thread(nodes.remove_node, going)
                found = await asyncio.gather(*map(client.finish, prepared), return_exceptions=True)
                failed = [error for error in found if isinstance(error, BaseException)]
                assert len(failed) == 2
                assert all(isinstance(error, PeerLost) for error in failed)
                assert re.match(r"party1: .*run it again", str(failed[0]))
                right = [result for result in found if not isinstance(result, BaseException)]
                assert right == [pytest.approx([0.5, 0], abs=1e-3)] * 2
                assert await client.reveal(x) == pytest.approx([0.5, 0], abs=1e-3)
            async with watching(cluster, key, PATIENCE) as watcher:
                rows = {row.server.name: row.status for row in (await watcher.look()).rows}
            assert (len(rows["party1"].workers.runs), rows["party1"].workers.wanted) == (1, 2)
    finally:
        ray.shutdown()
        nodes.shutdown()
