"""Peers that die, freeze and come back, as processes of their own."""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mpc.errors import PeerLost
from parties.wire.events import Delivery, LinkFault, PeerDown, PeerRestarted
from parties.wire.messages import Incoming, Message

from .conftest import until

Expect = Callable[..., Awaitable[Any]]

PEER = Path(__file__).with_name("peer.py")
ROOT = PEER.parents[2]


class Echo(Message, frozen=True):
    pass


@pytest.fixture
def spawn(site: Any, tmp_path: Path) -> Iterator[Callable[[str], subprocess.Popen[str]]]:
    started: list[subprocess.Popen[str]] = []
    (tmp_path / "cluster.toml").write_text(site.cluster.dumps())

    def start(name: str) -> subprocess.Popen[str]:
        key = tmp_path / f"{name}.key"
        if not key.exists():
            site.keys[name].save(key)
        process = subprocess.Popen(
            [sys.executable, PEER, tmp_path / "cluster.toml", name, key],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        return process

    yield start
    for process in started:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


@pytest.mark.parametrize("name", ["p1", "dealer", "clinic"])
async def test_kill_9_is_noticed_at_once(site: Any, expect: Expect, spawn: Any, name: str) -> None:
    """By its connection, which closes, not by its silence."""
    p0 = await site.endpoint("p0")
    process = spawn(name)
    await p0.connect([name], 20)
    with p0.watch([name]):
        await asyncio.sleep(0.3)
        process.kill()
        event = await expect(p0, PeerDown)
    assert event.peer.name == name
    assert isinstance(event.error, PeerLost)
    assert str(event.error).startswith(f"{name}: its connection closed")
    assert not p0.connected(name)


@pytest.mark.parametrize("name", ["p1", "clinic"])
async def test_a_frozen_peer_is_noticed_and_may_recover(site: Any, expect: Expect, spawn: Any, name: str) -> None:
    p0 = await site.endpoint("p0")
    process = spawn(name)
    await p0.connect([name], 20)
    with p0.watch([name]):
        await asyncio.sleep(0.3)
        process.send_signal(signal.SIGSTOP)
        began = time.monotonic()
        event = await expect(p0, PeerDown)
        elapsed = time.monotonic() - began
        assert event.peer.name == name
        assert re.search(r"silent for [1-4]\.\d s", str(event.error))
        assert 0.7 < elapsed < 5, "peer_timeout is 1 s here"
        with pytest.raises(TimeoutError):
            await expect(p0, PeerDown, within=1.5)
        process.send_signal(signal.SIGCONT)
        await asyncio.sleep(0.3)
        await p0.ping(name, 10)
        process.send_signal(signal.SIGSTOP)
        assert (await expect(p0, PeerDown)).peer.name == name, "heard from meanwhile, so it is reported again"
        process.send_signal(signal.SIGCONT)


async def test_a_client_notices_a_dead_server(site: Any, expect: Expect, spawn: Any) -> None:
    clinic = await site.endpoint("clinic")
    process = spawn("p1")
    await clinic.connect(["p1"], 20)
    with clinic.watch(["p1"]):
        process.kill()
        down = await expect(clinic, PeerDown)
        assert down.peer.name == "p1" and "its connection closed" in str(down.error)


async def test_a_killed_peer_started_again_is_usable(site: Any, expect: Expect, spawn: Any) -> None:
    p0 = await site.endpoint("p0")
    spawn("p1").kill()
    spawn("p1")
    await p0.connect(["p1"], 20)
    with p0.watch(["p1"]), pytest.raises(TimeoutError):
        await expect(p0, PeerDown, LinkFault, within=0.8)
    p0.send("p1", Echo())
    await p0.ping("p1", 10)


async def test_who_was_never_there_is_reported_to_the_watch(site: Any, expect: Expect) -> None:
    p0 = await site.endpoint("p0")
    with p0.watch(["p1", "clinic"]):
        names = {(await expect(p0, PeerDown)).peer.name for _ in range(2)}
    assert names == {"p1", "clinic"}


async def test_nobody_is_accused_for_our_own_stall(site: Any, expect: Expect, spawn: Any) -> None:
    """Twice the timeout without a turn of the event loop, while the peer is well."""
    p0 = await site.endpoint("p0")
    spawn("p1")
    spawn("clinic")
    await p0.connect(["p1", "clinic"], 20)
    with p0.watch(["p1", "clinic"]):
        for _ in range(2):
            time.sleep(2.2)  # noqa: ASYNC251
            with pytest.raises(TimeoutError):
                await expect(p0, PeerDown, within=0.3)


async def test_unwatched_peers_are_not_reported(site: Any, expect: Expect, spawn: Any) -> None:
    p0 = await site.endpoint("p0")
    process = spawn("p1")
    await p0.connect(["p1"], 20)
    watch = p0.watch(["p1"])
    second = p0.watch(["p1"])
    watch.stop()
    watch.stop()
    second.stop()
    process.kill()
    with pytest.raises(TimeoutError):
        await expect(p0, PeerDown, within=1)


async def test_a_clean_close_is_noticed_too(site: Any, expect: Expect) -> None:
    p0, p1, clinic = await site.endpoints("p0", "p1", "clinic")
    with p0.watch(["p1", "clinic"]):
        for end in (clinic, p1):
            await end.close()
            down = await expect(p0, PeerDown)
            assert down.peer.name == end.me.name and "its connection closed" in str(down.error)
    await site.endpoint("clinic")
    assert isinstance(await expect(p0, PeerRestarted, Delivery), PeerRestarted)


async def test_silence_behind_a_big_message_is_excused(site: Any, expect: Expect) -> None:
    """A big message is announced, and then nothing comes for a while, as on a slow network."""
    p0 = await site.endpoint("p0")
    rogue = site.rogue("clinic", "p0")
    began = time.monotonic()
    rogue.greet()
    rogue.say(Incoming(8_000_000), 1)
    await p0.connect(["clinic"], 20)
    with p0.watch(["clinic"]):
        await expect(p0, PeerDown, within=10)
    assert time.monotonic() - began > 2.9, "2 s at 4 MB/s, and 1 s of peer_timeout"


async def test_the_excuse_ends_when_the_big_message_is_through(site: Any, expect: Expect, spawn: Any) -> None:
    p0 = await site.endpoint("p0")
    process = spawn("p1")
    await p0.connect(["p1"], 20)
    with p0.watch(["p1"]):
        p0.send("p1", Echo(), [bytes(32 << 20)])
        await until(lambda: p0._link("p1").excused == -math.inf)
        process.send_signal(signal.SIGSTOP)
        # It would have been excused for 8 s.
        assert (await expect(p0, PeerDown, within=7)).peer.name == "p1"
        process.send_signal(signal.SIGCONT)
