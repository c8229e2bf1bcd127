"""A peer that breaks a connection of which much is unread: whoever does not read it then goes on all the same."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from parties.wire.messages import Pong

CLIENT = """
import asyncio, sys, time
from parties.members.cluster import Cluster
from parties.members.keys import KeyPair
from parties.wire.transport import Endpoint

async def main(folder):
    cluster = Cluster.load(folder + "/cluster.toml")
    keys = KeyPair.load(folder + "/clinic.key")
    async with Endpoint(cluster, cluster.member("clinic"), keys, bind=False) as endpoint:
        await endpoint.connect(["p0"], 10)
        print("there", flush=True)
        time.sleep(5)
        print("back", flush=True)

asyncio.run(main(sys.argv[1]))
"""


@pytest.mark.slow
async def test_a_client_that_is_held_up_while_a_server_ends(site: Any, tmp_path: Path) -> None:
    (tmp_path / "cluster.toml").write_text(site.cluster.dumps(), encoding="utf-8")
    site.keys["clinic"].save(tmp_path / "clinic.key")
    p0 = await site.endpoint("p0")
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", CLIENT, str(tmp_path), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    assert await asyncio.wait_for(process.stdout.readline(), 30) == b"there\n"
    for number in range(2000):
        p0.send("clinic", Pong(number))
    await asyncio.sleep(0.5)
    p0._wires._door.show_out(site.cluster.member("clinic").curve)
    said, complaints = await asyncio.wait_for(process.communicate(), 30)
    assert (process.returncode, said) == (0, b"back\n"), complaints.decode()
