"""Clusters of real processes; shared where a test leaves them as it found them."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from parties import LocalCluster, Settings

QUICK = Settings(threads=1, peer_timeout=1.5, round_timeout=20)


@pytest.fixture(scope="package")
def clusters() -> Iterator[Callable[[int], LocalCluster]]:
    """One running cluster per number of parties, with two clients, kept for the whole package."""
    running: dict[int, LocalCluster] = {}

    def get(parties: int) -> LocalCluster:
        if parties not in running:
            running[parties] = LocalCluster(parties, clients=("clinic", "company"), settings=Settings(threads=1))
            running[parties].__enter__()
        return running[parties]

    yield get
    for cluster in running.values():
        cluster.close()


@pytest.fixture(scope="module")
def breakable() -> Iterator[LocalCluster]:
    """Two parties that may be killed and frozen; a silent peer is lost after 1.5 s."""
    with LocalCluster(2, clients=("clinic", "company"), settings=QUICK) as cluster:
        yield cluster
