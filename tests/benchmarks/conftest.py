"""One cluster for all tests that need any: starting its processes takes longer than what they measure."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

from benchmarks import demonstration, inference, operations
from benchmarks.session import session
from parties import Client


@pytest.fixture(scope="session")
def shared_client() -> Iterator[Client]:
    with session(2, "semi-honest", 120.0) as client:
        yield client


@pytest.fixture
def shared_cluster(shared_client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands run in the shared cluster of 2 parties instead of starting their own."""

    @contextlib.contextmanager
    def borrowed(parties: int, security: str, timeout: float) -> Iterator[Client]:
        assert (parties, security) == (2, "semi-honest")
        assert timeout == 120.0
        yield shared_client

    for module in (demonstration, inference, operations):
        monkeypatch.setattr(module, "session", borrowed)
