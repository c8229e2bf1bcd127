"""What systemd is told, by its protocol; and nothing where there is none."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from parties.servers import service_manager
from parties.servers.service_manager import feed_watchdog, notify


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.settimeout(20)
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
    pauses: list[float] = []

    async def pause(seconds: float) -> None:
        assert manager.recv(100) == b"WATCHDOG=1"
        pauses.append(seconds)
        if len(pauses) == 3:
            raise asyncio.CancelledError

    monkeypatch.setenv("WATCHDOG_USEC", "100000")
    monkeypatch.setattr(service_manager, "asyncio", SimpleNamespace(sleep=pause))
    with pytest.raises(asyncio.CancelledError):
        await feed_watchdog()
    assert pauses == pytest.approx([0.05] * 3)
    manager.setblocking(False)
    with pytest.raises(BlockingIOError):
        manager.recv(100)


@pytest.mark.parametrize("given", [None, "", "0", "-5", "soon", "²"])
async def test_no_watchdog_no_food(manager: socket.socket, monkeypatch: pytest.MonkeyPatch, given: str | None) -> None:
    monkeypatch.delenv("WATCHDOG_USEC", raising=False)
    if given is not None:
        monkeypatch.setenv("WATCHDOG_USEC", given)
    await asyncio.wait_for(feed_watchdog(), 20)
    manager.setblocking(False)
    with pytest.raises(BlockingIOError):
        manager.recv(100)
