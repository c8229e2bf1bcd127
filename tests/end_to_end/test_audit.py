"""Audit logs of real servers, of which one is killed again and again: whole, and without a contradiction."""

from __future__ import annotations

import itertools
import threading
import time

import pytest

from mpc.errors import TesseraError
from parties import Client, LocalCluster
from parties.operate.audit import compare as compare_module
from parties.operate.audit.compare import compare
from parties.operate.audit.facts import OK, Cut, Run, Started
from parties.operate.audit.verify import Walk

from .conftest import QUICK

SERVERS = ("dealer", "party0", "party1")


@pytest.mark.slow
def test_logs_of_servers_that_are_killed_are_whole_and_go_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compare_module, "SLACK", 900)
    with LocalCluster(2, settings=QUICK) as cluster:
        over, done = threading.Event(), 0

        def work() -> None:
            nonlocal done
            with Client(cluster) as client:
                x = client.share([1.0, 2.0], low=-4, high=4)
                while not over.is_set():
                    try:
                        client.reveal(x * x)
                        done += 1
                    except TesseraError:
                        time.sleep(0.05)

        def goes_on() -> None:
            """For 2.5 s, and as many runs as are worth a comparison."""
            wanted, give_up = done + 15, time.monotonic() + 60
            time.sleep(2.5)
            while done < wanted:
                assert time.monotonic() < give_up
                time.sleep(0.05)

        worker = threading.Thread(target=work)
        worker.start()
        for name in (*SERVERS, "party1"):
            goes_on()
            cluster.processes[name].kill()
            cluster.processes[name].wait()
            time.sleep(0.5)
            cluster.start_process(name)
        goes_on()
        over.set()
        worker.join()
        time.sleep(0.5)
        places, found = {name: cluster.data_path(name) for name in SERVERS}, {}
        for name, place in places.items():
            walk = Walk(place, (cluster.cluster,))
            found[name] = [entry.what for entry, _ in walk]
            assert walk.problems == []
            # What a kill tears is a line at most.
            assert all(what.bytes < 2000 for what in found[name] if isinstance(what, Cut))
            starts = [what.clean for what in found[name] if isinstance(what, Started)]
            assert starts == [True, *[False] * (2 if name == "party1" else 1)]
        for pair in itertools.combinations(SERVERS, 2):
            differences = compare(*(Walk(places[name], (cluster.cluster,)) for name in pair))
            assert [difference.text for difference in differences if difference.contradiction] == []
        # A kill costs the entries of the last moment, at the one that is killed.
        for name in SERVERS:
            assert sum(isinstance(what, Run) and what.outcome == OK for what in found[name]) > 0.9 * done > 20
