"""docs/exit-codes.md: every error has its row, under the code that the command exits with, and no row lies."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from mpc import errors
from mpc.errors import PeerError, TesseraError
from parties.commands import command_line
from parties.messages.failures import error_of, fault_of

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


OWN = set(tree(errors.UsageError)) - {errors.RangeError} | {TesseraError, PeerError}
TOLD = [kind for kind in PUBLIC if kind not in OWN]


@pytest.mark.parametrize("kind", TOLD, ids=lambda kind: kind.__name__)
def test_what_a_server_raises_is_the_same_at_the_client(kind):
    """By its class, its code and whom it names.  Mistakes of the caller's own never get to a server."""
    raised = kind("party1", "says why") if issubclass(kind, PeerError) else kind("says why")
    for fault in (fault_of(raised), fault_of(type("Local", (kind,), {})(*raised_with(raised)))):
        heard = error_of(fault, "party1")
        assert (type(heard), heard.exit_code) == (kind, kind.exit_code)
        assert "party1" in str(heard)
        assert "says why" in str(heard)


def raised_with(error: TesseraError) -> tuple[str, ...]:
    return (error.peer, error.reason) if isinstance(error, PeerError) else (str(error),)
