"""Clusters, of real processes unless said otherwise; shared where a test leaves them as it found them."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from parties import LocalCluster, MemoryCluster, Settings

QUICK = Settings(threads=1, peer_timeout=1.5, round_timeout=20)


@pytest.fixture(scope="module")
def clusters() -> Iterator[Callable[..., LocalCluster | MemoryCluster]]:
    """One running cluster per number of parties and security, with two clients, kept to the end of the file.

    No longer: nobody knows which worker has the next file, and one that does nothing takes 2 % of a core for it.

    Two parties are processes; more of them live in this one, and such as check MACs, as what differs then is no matter
    of processes (three that are processes, and check, are in ``tests/adversary/test_zeromq.py``).
    """
    running: dict[tuple[int, str], LocalCluster | MemoryCluster] = {}

    def get(parties: int, security: str = "semi-honest") -> LocalCluster | MemoryCluster:
        key = parties, security
        if key not in running:
            kind = LocalCluster if key == (2, "semi-honest") else MemoryCluster
            settings = Settings(threads=1)
            running[key] = kind(parties, security=security, clients=("clinic", "company"), settings=settings)
            running[key].__enter__()
        return running[key]

    yield get
    for cluster in running.values():
        cluster.close()


@pytest.fixture(scope="module")
def breakable() -> Iterator[LocalCluster]:
    """Two parties that may be killed and frozen; a silent peer is lost after 1.5 s."""
    with LocalCluster(2, clients=("clinic", "company"), settings=QUICK) as cluster:
        yield cluster
