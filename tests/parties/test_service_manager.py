"""What systemd is told, by its protocol; and nothing where there is none."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from parties.servers.service_manager import feed_watchdog, notify


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.settimeout(5)
        if request.param == "path":
            listening.bind(str(tmp_path / "notify"))
            monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        else:
            listening.bind("")  # the kernel chooses an abstract name
            monkeypatch.setenv("NOTIFY_SOCKET", "@" + listening.getsockname()[1:].decode())
        yield listening


def test_states_arrive(manager: socket.socket) -> None:
    notify("READY=1")
    assert manager.recv(100) == b"READY=1"


@pytest.mark.parametrize(
    "where", [None, "", "/nobody/listens/here", "@nobody-listens-here", "relative", "/" + "x" * 200]
)
def test_nobody_is_there(monkeypatch: pytest.MonkeyPatch, where: str | None) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    if where is not None:
        monkeypatch.setenv("NOTIFY_SOCKET", where)
    notify("READY=1")


def test_a_manager_that_does_not_read_blocks_nobody(manager: socket.socket) -> None:
    for _ in range(5000):
        notify("WATCHDOG=1")
    assert manager.recv(100) == b"WATCHDOG=1"


async def test_the_watchdog_is_fed_twice_in_its_time(manager: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "100000")
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(feed_watchdog(), 0.28)
    manager.setblocking(False)
    fed = 0
    with contextlib.suppress(BlockingIOError):
        while manager.recv(100) == b"WATCHDOG=1":
            fed += 1
    assert 2 <= fed <= 6


@pytest.mark.parametrize("given", [None, "", "0", "-5", "soon", "²"])
async def test_no_watchdog_no_food(manager: socket.socket, monkeypatch: pytest.MonkeyPatch, given: str | None) -> None:
    monkeypatch.delenv("WATCHDOG_USEC", raising=False)
    if given is not None:
        monkeypatch.setenv("WATCHDOG_USEC", given)
    await asyncio.wait_for(feed_watchdog(), 1)
    manager.setblocking(False)
    with pytest.raises(BlockingIOError):
        manager.recv(100)
