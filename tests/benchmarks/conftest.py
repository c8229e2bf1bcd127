"""One cluster for all tests of a file: starting its processes takes longer than what they measure."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

from benchmarks import demonstration, inference, operations, scale
from benchmarks.session import Session, watched_session
from parties import Client


@pytest.fixture(scope="module")
def shared_session() -> Iterator[Session]:
    with watched_session(2, "semi-honest", 120.0) as session:
        yield session


@pytest.fixture(scope="module")
def shared_client(shared_session: Session) -> Client:
    return shared_session.client


@pytest.fixture
def shared_cluster(shared_session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands run in the shared cluster of 2 parties instead of starting their own."""

    @contextlib.contextmanager
    def borrowed(parties: int, security: str, timeout: float, objective: str = "latency") -> Iterator[Session]:
        assert (parties, security, objective) == (2, "semi-honest", "latency")
        assert timeout == 120.0
        yield shared_session

    @contextlib.contextmanager
    def borrowed_client(parties: int, security: str, timeout: float, objective: str) -> Iterator[Client]:
        with borrowed(parties, security, timeout, objective) as session:
            yield session.client

    monkeypatch.setattr(demonstration, "session", borrowed_client)
    for module in (inference, operations, scale):
        monkeypatch.setattr(module, "watched_session", borrowed)
