"""What ``tessera doctor`` finds, on a computer to which one thing after another happens."""

from __future__ import annotations

import asyncio
import importlib.metadata
import json
import os
import resource
import socket
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import zmq

from mpc.errors import ConfigurationError
from mpc.rings import compiling
from parties import Cluster, KeyPair
from parties.commands.command_line import main
from parties.host import memory
from parties.local.ports import reserved_ports
from parties.operate.doctor import computer, network, packages
from parties.operate.doctor.findings import Verdict


def cluster(*addresses: str) -> Cluster:
    dealer, *parties = addresses
    return Cluster.build(
        "site",
        dealer=(dealer, KeyPair.generate().public),
        parties=[(f"party{i}", address, KeyPair.generate().public) for i, address in enumerate(parties)],
        clients=[("clinic", KeyPair.generate().public)],
    )


def test_here_nothing_is_wrong(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["ok"]
    found = {each["what"]: each for each in said["findings"]}
    assert found["numpy"]["found"] == importlib.metadata.version("numpy")
    assert {"Python", "libzmq", "AES", "kernels", "clock", "loopback", "randomness"} <= set(found)
    assert main(["doctor"]) == 0
    assert "Nothing is wrong." in capsys.readouterr().out


def test_what_is_wrong_has_an_exit_code(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(zmq, "has", lambda capability: False)
    assert main(["doctor"]) == ConfigurationError.exit_code
    said = capsys.readouterr().out
    assert "without CURVE" in said
    assert "Something is wrong." in said
    assert main(["doctor", "--json"]) == ConfigurationError.exit_code
    assert not json.loads(capsys.readouterr().out)["ok"]


@pytest.mark.parametrize(
    ("version", "bounds", "expected"),
    [
        ("1.2.3", ">=1.2,<2", True),
        ("2.0", ">=1.2,<2", False),
        ("1.10", ">=1.9,<2", True),
        ("1.1.9", ">=1.2", False),
        ("2.13.0+cpu", "==2.13.0", True),
        ("2.14", "==2.13.0", False),
        ("3.0rc1", "<3", False),
        ("7", "", True),
    ],
)
def test_versions_are_compared_as_numbers(version: str, bounds: str, expected: bool) -> None:
    assert packages.within(version, bounds) is expected


def test_packages_that_are_missing_or_not_tested(monkeypatch: pytest.MonkeyPatch) -> None:
    def version(name: str) -> str:
        if name in ("numpy", "aiohttp"):
            raise importlib.metadata.PackageNotFoundError(name)
        return "99.0" if name == "scipy" else real(name)

    real = importlib.metadata.version
    needed = ["numpy<2.5,>=2.1", "scipy<1.18,>=1.14.1", 'aiohttp<3.15,>=3.12; extra == "clinic"']
    monkeypatch.setattr(importlib.metadata, "requires", lambda _: needed)
    monkeypatch.setattr(importlib.metadata, "version", version)
    found = {each.what: each for each in packages.versions()}
    assert found["numpy"].verdict is Verdict.BAD
    assert found["numpy"].advice.startswith("pip install 'numpy")
    assert found["scipy"].verdict is Verdict.SLOW
    assert found["extra clinic"].found == "not installed: aiohttp"
    assert "pip install 'tessera-mpc[clinic]'" in found["extra clinic"].advice


def test_ports_of_this_computer() -> None:
    with reserved_ports(2) as (taken, port), closing(socket.create_server(("127.0.0.1", taken))):
        found = list(network.members(cluster(f"127.0.0.1:{taken}", f"127.0.0.1:{port}", "no.such.host.invalid:7001")))
    assert [each.verdict for each in found] == [Verdict.GOOD, Verdict.GOOD, Verdict.BAD]
    assert found[0].found == f"port {taken} is in use: it serves already, or something else does"
    assert found[1].found == f"port {port} is free"
    assert "no host is called no.such.host.invalid" in found[2].advice


def test_an_address_in_brackets_is_bound_as_what_it_is() -> None:
    try:
        with closing(socket.create_server(("::1", 0), family=socket.AF_INET6)) as held:
            taken = held.getsockname()[1]
            (found, *_) = network.members(cluster(f"[::1]:{taken}", "127.0.0.1:7000", "127.0.0.1:7001"))
    except OSError:
        pytest.skip("this computer has no IPv6")
    assert (found.verdict, found.what) == (Verdict.GOOD, "dealer (here)")
    assert found.found.startswith(f"port {taken} is in use")
    (found, *_) = network.members(cluster(f"[::1]:{taken}", "127.0.0.1:7000", "127.0.0.1:7001"))
    assert found.found == f"port {taken} is free"


@pytest.mark.parametrize(
    ("error", "advice"),
    [(TimeoutError(), "firewalls"), (ConnectionRefusedError(111, "Connection refused"), "start it there")],
)
def test_servers_elsewhere(monkeypatch: pytest.MonkeyPatch, error: OSError, advice: str) -> None:
    async def connect(*_: Any) -> None:
        raise error

    monkeypatch.setattr(asyncio, "open_connection", connect)
    # Documentation's own addresses (RFC 5737), which no computer has.
    found = list(network.members(cluster("203.0.113.1:7000", "203.0.113.2:7001", "203.0.113.3:7001")))
    assert [each.verdict for each in found] == [Verdict.BAD] * 3
    assert all(advice in each.advice for each in found)


def test_a_computer_that_lacks_things(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(computer, "cpu_info", lambda: {"model name": "Old", "flags": "sse2"})
    old = {each.what: each for each in computer.processor()}
    assert old["AES"].verdict is old["vectors"].verdict is Verdict.SLOW
    with monkeypatch.context() as small:
        small.setattr(memory, "_CGROUP_LIMIT", tmp_path / "limit")
        (tmp_path / "limit").write_text(f"{1 << 29}\n")
        assert computer.memory().found == "0.5 GiB"
        assert computer.memory().verdict is Verdict.SLOW
    monkeypatch.setattr(os, "sysconf", lambda name: 1024)
    assert computer.memory().verdict is Verdict.SLOW
    monkeypatch.setattr(resource, "getrlimit", lambda _: (256, 1024))
    assert "1,024 at most" in computer.descriptors().found
    monkeypatch.setattr(computer, "_synchronised", lambda: False)
    assert "NTP" in computer.clock().advice
    monkeypatch.setattr(computer, "COMPILES", 0.0)
    monkeypatch.setattr(compiling, "warm_up", lambda: None)
    assert "NUMBA_CACHE_DIR" in computer.compiled().advice

    def unseeded(*_: Any) -> bytes:
        raise BlockingIOError

    monkeypatch.setattr(os, "getrandom", unseeded)
    assert computer.randomness().verdict is Verdict.BAD
