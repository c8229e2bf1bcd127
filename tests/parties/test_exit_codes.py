"""docs/exit-codes.md: every error has its row, under the code that the command exits with, and no row lies."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from mpc import errors
from mpc.errors import PeerError, TesseraError
from mpc.security import Security
from parties import DataSet
from parties.commands import command_line
from parties.host import disk
from parties.messages.failures import error_of, fault_of
from parties.servers.admission import Admission

PAGE = Path(__file__).resolve().parents[2] / "docs" / "exit-codes.md"


def rows() -> dict[int, list[str]]:
    """Names of errors by code, as documented."""
    found = re.findall(r"^\| (\d+) \| ([^|]+) \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    codes = [int(code) for code, _ in found]
    assert codes == sorted(set(codes))
    return {int(code): re.findall(r"`(\w+)`", names) for code, names in found}


def tree(kind: type[TesseraError] = TesseraError) -> Iterator[type[TesseraError]]:
    yield kind
    for derived in kind.__subclasses__():
        yield from tree(derived)


PUBLIC = sorted({kind for kind in tree() if kind.__module__ == errors.__name__}, key=lambda kind: kind.__name__)


@pytest.mark.parametrize("kind", PUBLIC, ids=lambda kind: kind.__name__)
def test_every_error_is_documented_under_its_code(kind):
    assert [code for code, names in rows().items() if kind.__name__ in names] == [kind.exit_code]


def test_nothing_else_is_documented():
    assert {name for names in rows().values() for name in names} == {kind.__name__ for kind in PUBLIC}
    assert {code for code, names in rows().items() if not names} == {0, command_line.INTERRUPTED}


def test_errors_elsewhere_have_a_code_that_is_documented():
    assert {kind.exit_code for kind in tree()} <= set(rows())
    assert errors.NotPermitted.exit_code == 14


def advice() -> dict[int, str]:
    """What to do by code, as documented, without markup."""
    found = re.findall(r"^\| +(\d+) \|.*\| ([^|]*?) ?\|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    return {int(code): re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", text).replace("`", "") for code, text in found}


@pytest.mark.parametrize("kind", PUBLIC, ids=lambda kind: kind.__name__)
def test_every_error_gives_the_advice_that_is_documented(kind):
    assert kind.advice == advice()[kind.exit_code]


OWN = set(tree(errors.UsageError)) - {errors.RangeError} | {TesseraError, PeerError, errors.NotAsPromised}
TOLD = [kind for kind in PUBLIC if kind not in OWN]


@pytest.mark.parametrize("kind", TOLD, ids=lambda kind: kind.__name__)
def test_what_a_server_raises_is_the_same_at_the_client(kind):
    """By its class, its code and whom it names.  What is the caller's own, or a benchmark's, never gets to a server."""
    raised = kind("party1", "says why") if issubclass(kind, PeerError) else kind("says why")
    for fault in (fault_of(raised), fault_of(type("Local", (kind,), {})(*raised_with(raised)))):
        heard = error_of(fault, "party1")
        assert (type(heard), heard.exit_code) == (kind, kind.exit_code)
        assert "party1" in str(heard)
        assert "says why" in str(heard)


def raised_with(error: TesseraError) -> tuple[str, ...]:
    return (error.peer, error.reason) if isinstance(error, PeerError) else (str(error),)


@pytest.mark.parametrize(
    ("what", "code", "peers"),
    [
        ("a run too large for memory", 16, {"dealer", "party0", "party1"}),
        ("a full disk", 17, {"dealer", "party0", "party1"}),
        ("a name of somebody else's", 14, {None}),
        ("a missing name, to use", 14, {None}),
        ("a missing name, to remove", 19, {None}),
        ("a missing name, to allow", 19, {None}),
    ],
)
async def test_what_servers_refuse_has_the_code_that_the_page_says(site, what, code, peers, monkeypatch):
    data = DataSet({"x": [0.5]}, low=0, high=1)
    async with site.client() as client, site.client("company") as company:
        await company.upload(data, "theirs")
        with pytest.raises(TesseraError) as caught:
            match what:
                case "a run too large for memory":
                    for server in site.servers.values():
                        name = server.member.name
                        server.governor.admission = Admission(name, 1 << 20, Security.SEMI_HONEST, clients=2)
                    await client.reveal(client.share(np.zeros(100_000)) * 2)
                case "a full disk":
                    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=disk.RESERVE, total=1))
                    await client.upload(data, "mine")
                case "a name of somebody else's":
                    await client.data("company/theirs")
                case "a missing name, to use":
                    await client.data("nothing")
                case "a missing name, to remove":
                    await client.remove("nothing")
                case _:
                    await client.allow("nothing", "company")
    assert caught.value.exit_code == code, repr(caught.value)
    assert getattr(caught.value, "peer", None) in peers
    assert type(caught.value).__name__ in rows()[code]
