"""Clusters and clients that nobody closes: the interpreter ends without a traceback, and tells who wants to know."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings

import pytest

from parties.unclosed import _close_all, closed, opened

PROGRAM = """
import warnings
import tessera as ts

warnings.simplefilter("always", ResourceWarning)
cluster = ts.MemoryCluster().start()
client = ts.Client(cluster).start()
print(client.reveal(client.share([2.0]) ** 2))
closed = ts.MemoryCluster().start()
closed.close()
ts.MemoryCluster().start()
"""


@pytest.mark.slow
def test_a_program_that_closes_nothing() -> None:
    """Its last cluster is begun just before its end: the servers are still greeting one another."""
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "[4.]\n"
    assert "Traceback" not in done.stderr
    assert "internal error" not in done.stderr
    said = [line.partition("ResourceWarning: ")[2] for line in done.stderr.splitlines() if "unclosed" in line]
    cluster = "unclosed <MemoryCluster of 2 parties, semi-honest, running>"
    assert said == [cluster, "unclosed <Client client of cluster local>", cluster]


class Thing:
    def __init__(self, name: str, log: list[str]) -> None:
        self.name, self.log = name, log

    def __repr__(self) -> str:
        return self.name

    def close(self) -> None:
        self.log.append(self.name)
        closed(self)


def test_the_last_is_closed_first_and_each_by_its_own_process(monkeypatch: pytest.MonkeyPatch) -> None:
    # Those of other tests in this process are theirs.
    monkeypatch.setattr("parties.unclosed._open", {})
    log: list[str] = []
    cluster, client, other = (Thing(name, log) for name in ("cluster", "client", "other"))
    opened(cluster)
    opened(client)
    opened(other)
    other.close()
    with monkeypatch.context() as forked:
        forked.setattr(os, "getpid", lambda: -1)
        _close_all()
    assert log == ["other"]
    with pytest.warns(ResourceWarning, match="unclosed cl") as said:
        _close_all()
    assert log == ["other", "client", "cluster"]
    assert [str(one.message) for one in said] == ["unclosed client", "unclosed cluster"]
    _close_all()
    assert len(log) == 3


class Broken(Thing):
    def close(self) -> None:
        super().close()
        raise OSError("broken")


def test_each_is_closed_whatever_becomes_of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where a warning is an error: `python -W error`."""
    monkeypatch.setattr("parties.unclosed._open", {})
    log: list[str] = []
    things = Thing("first", log), Broken("second", log), Thing("third", log)
    for thing in things:
        opened(thing)
    with warnings.catch_warnings():
        warnings.simplefilter("error", ResourceWarning)
        with pytest.raises(ResourceWarning, match="unclosed first"):
            _close_all()
    assert log == ["third", "second", "first"]
