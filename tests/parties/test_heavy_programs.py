"""Two clients send programs of 16,000 nodes to servers in processes of their own, which have little memory for runs."""

import sys
import time

import numpy as np
import pytest

from benchmarks.processes import Processes
from benchmarks.strangers import insiders
from benchmarks.strangers.insiders import CLIENTS, VICTIM
from benchmarks.strangers.process import another_attacks
from benchmarks.strangers.siege import SLACK
from parties import Client, LocalCluster, Settings

pytestmark = pytest.mark.slow

MIB = 1 << 20
MEMORY = 128
"""MiB for runs."""
SECONDS = (10.0, 20.0, 40.0)
"""Of attacks, until there was one: whoever attacks takes what a machine leaves it."""


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
@pytest.mark.parametrize("security", ["semi-honest", "malicious"])
def test_heavy_programs_take_no_more_memory_than_there_is_for_runs(security):
    settings = Settings(threads=1, round_timeout=60.0, memory_mb=MEMORY)
    members = (VICTIM, *CLIENTS)
    with (
        LocalCluster(2, security=security, settings=settings, clients=members, observable=True) as cluster,
        Client(cluster, name=VICTIM) as client,
    ):
        processes = Processes({name: process.pid for name, process in cluster.processes.items()})
        x = np.linspace(-1.0, 1.0, 5)
        before = {name: usage.peak_bytes for name, usage in processes.usage().items()}
        for seconds in SECONDS:
            with another_attacks(insiders.__name__, "heavy programs", str(cluster.folder)) as tally:
                until = time.monotonic() + seconds
                while time.monotonic() < until:
                    np.testing.assert_allclose(client.reveal(client.share(x) * 2), 2 * x, atol=1e-3)
            if tally["sent"] > 100 and tally["refused"].get("ServerBusy", 0) > 10:
                break
        peaks = {name: usage.peak_bytes for name, usage in processes.usage().items()}
    assert tally["sent"] > 100
    assert tally["refused"]["ServerBusy"] > 10
    assert max(peaks.values()) <= (MEMORY + SLACK) * MIB
    assert all(peak - before[name] <= MEMORY * MIB for name, peak in peaks.items()), (before, peaks)
