"""kill -9 of dealer and parties at every stage of a training, and of its client: it goes on from the last checkpoint.

A server kills itself exactly at a chosen point (``crashing_server.py``), and is started again on the data it left.
That no step is lost, or made twice, is read from the weights: they are those of the same steps in the clear.  That no
mask serves two values, from what each process wrote down before it handed it to a socket.
"""

import hashlib
import importlib.util
import json
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from nn import SGD, CrossEntropyLoss, Linear, Sequential
from nn.training import initial
from parties import Client, DataSet, LocalCluster, Settings

PROGRAM = Path(__file__).with_name("crashing_server.py")
_spec = importlib.util.spec_from_file_location("crashing_server", PROGRAM)
crashing = importlib.util.module_from_spec(_spec)
sys.modules["crashing_server"] = crashing
_spec.loader.exec_module(crashing)
Crash = crashing.Crash

FEATURES, CLASSES, ROWS = 4, 3, 12
NET = Sequential({"out": Linear(FEATURES, CLASSES)}).architecture((FEATURES,))
OPTIMIZER = SGD(lr=0.125, momentum=0.5)
PATIENCE = 20.0

STAGES = [
    ("dealer", Crash("Dealt", "before")),
    ("dealer", Crash("Dealt", "after")),
    ("dealer", Crash("RunJob", "after")),
    ("dealer", Crash("GoOn", "before")),
    ("dealer", Crash("GoOn", "after")),
    ("dealer", Crash("commit", "before")),
    ("dealer", Crash("commit", "after")),
    ("dealer", Crash("VersionCommit", "after")),
    ("party0", Crash("prepared", "after")),
    ("party0", Crash("Ready", "after")),
    ("party0", Crash("Opening 0", "after")),
    ("party1", Crash("Opening 7", "before")),
    ("party1", Crash("write_result", "before")),
    ("party1", Crash("write_result", "after")),
    ("party1", Crash("begin", "before")),
    ("dealer", Crash("begin", "after")),
    ("party0", Crash("prepare", "before")),
    ("party0", Crash("prepare", "after")),
    ("party1", Crash("VersionPrepared", "after")),
    ("party1", Crash("commit", "before")),
    ("party1", Crash("commit", "after")),
    ("party0", Crash("VersionReady", "before")),
]

STAGES_AHEAD = [
    ("dealer", Crash("assign_next", "after")),
    ("party1", Crash("take", "before")),
    ("party1", Crash("Opening 7", "before")),
    ("dealer", Crash("commit", "before")),
    ("dealer", Crash("commit", "after")),
    ("party0", Crash("VersionReady", "before")),
]
"""With three checkpoints dealt ahead each time: of a run that is kept the next goes on with its item."""


NOTHING = {hashlib.sha256(b"".join([hashlib.sha256(b"").digest()] * buffers)).hexdigest() for buffers in range(4)}
"""Of openings in which parties compare what they were sent, and open nothing."""


class Observed(LocalCluster):
    """Every server writes down what it sends, and dies where it is told to."""

    def _program(self, name):
        return [sys.executable, str(PROGRAM)]


def data():
    rng = np.random.default_rng(1)
    x = np.round(rng.uniform(-1, 1, (ROWS, FEATURES)) * 256) / 256
    return x, np.eye(CLASSES)[x[:, :CLASSES].argmax(1)]


def begun(client, checkpoints):
    options = {"batch": 6, "steps": 1, "epochs": checkpoints / 2, "logits": 4.0}
    return client.training(NET, [client.data("data")], CrossEntropyLoss(), OPTIMIZER, name="net", **options)


def twin(training, checkpoints):
    """The weights after so many steps in float64, with the rows that are drawn."""
    weights, (xs, ys) = initial(NET), data()
    w, b = weights["out.weight"].T.copy(), weights["out.bias"].copy()
    v, vb = np.zeros_like(w), np.zeros_like(b)
    for checkpoint in range(checkpoints):
        ((rows,),) = training.drawn(checkpoint)
        z = xs[rows] @ w + b
        q = (np.exp(z) / np.exp(z).sum(1, keepdims=True) - ys[rows]) / len(rows)
        v, vb = OPTIMIZER.mu * v + xs[rows].T @ q, OPTIMIZER.mu * vb + q.sum(0)
        w, b = w - OPTIMIZER.rate(checkpoint) * v, b - OPTIMIZER.rate(checkpoint) * vb
    return w


def started_again(cluster, member):
    """As a service manager would, once it has died."""
    if cluster.processes[member].wait(PATIENCE) == -signal.SIGKILL:
        cluster.start_process(member)


def no_mask_served_two_values(cluster, runs_at_least):
    """Whatever was opened is uniform, and of another mask each time, those of runs that failed included."""
    for party in ("party0", "party1"):
        lines = [json.loads(line) for line in (cluster.folder / f"{party}.wire").read_text().splitlines()]
        openings = [line for line in lines if line["kind"] == "Opening" and line["sha"] not in NOTHING]
        assert len({line["run"] for line in openings}) >= runs_at_least
        (_, most), *_ = Counter(line["sha"] for line in openings).most_common(1)
        assert most == 1, "one share of one opening, sent twice"


def no_item_served_two_runs(cluster):
    """Nor one run two: wherever one asks; how many were used."""
    runs = {}
    for party in ("party0", "party1"):
        for line in map(json.loads, (cluster.folder / f"{party}.wire").read_text().splitlines()):
            if line["item"]:
                assert runs.setdefault(line["item"], line["run"]) == line["run"]
    assert len(set(runs.values())) == len(runs)
    return len(runs)


def train_through(stages, security, ahead=0):
    settings = Settings(threads=1, peer_timeout=1.5, round_timeout=4)
    with Observed(2, security=security, settings=settings) as cluster:
        with Client(cluster) as client:
            x, y = data()
            tensors = DataSet({"x": x, "y": y}, ranges={"x": (-1, 1), "y": (0, 1)}, fraction_bits=8)
            client.upload(tensors, "data")
            begun(client, len(stages))
            for done, (member, where) in enumerate(stages, start=1):
                if ahead:
                    client.stock(begun(client, done + ahead), ahead)
                watching = threading.Thread(target=started_again, args=(cluster, member))
                where.write(cluster.folder, member)
                watching.start()
                before = cluster.processes[member]
                model = client.train(
                    NET, [client.data("data")], CrossEntropyLoss(), OPTIMIZER, name="net", batch=6, steps=1,
                    epochs=done / 2, logits=4.0,
                )  # fmt: skip
                assert model.parts == done
                watching.join(2 * PATIENCE)
                assert before.returncode == -signal.SIGKILL, f"{member} did not come to {where}"
                give_up = time.monotonic() + PATIENCE
                while True:
                    # It may have died when its part was done, and be on its way back.
                    try:
                        found = client.reveal(client.model("net")["out.weight"])
                        break
                    except Exception:
                        if time.monotonic() > give_up:
                            raise
                        time.sleep(0.2)
                assert np.abs(found - twin(begun(client, len(stages)), done)).max() < 1e-3, f"{member}, {where}"
        no_mask_served_two_values(cluster, len(stages))
        if ahead:
            # But for those stages that come before one is taken.
            assert no_item_served_two_runs(cluster) >= len(stages) - 2


@pytest.mark.slow
def test_whoever_is_killed_while_there_is_stock():
    """Nothing that was dealt for a state which never came to be is used, and what was for one that did, once."""
    train_through(STAGES_AHEAD, "malicious", ahead=3)


@pytest.mark.slow
@pytest.mark.parametrize("security", ["semi-honest", "malicious"])
def test_whoever_is_killed_at_whatever_stage(security):
    train_through(STAGES, security)


SNIPPET = str(Path(__file__).parents[1] / "snippet.py")
CLIENT = """
from nn import SGD, CrossEntropyLoss, Linear, Sequential
from parties import Client
net = Sequential({{"out": Linear(4, 3)}}).architecture((4,))
with Client({path!r}, {key!r}) as client:
    client.train(
        net, [client.data("data")], CrossEntropyLoss(), SGD(lr=0.125, momentum=0.5), name="net", batch=6, steps=1,
        epochs=50.0, logits=8.0, progress=lambda made: print(made.step, flush=True),
    )
"""


@pytest.mark.slow
def test_a_client_that_is_killed():
    """At three moments, whatever it was at then: another process looks on; and with none it comes to its end."""
    settings = Settings(threads=1, peer_timeout=1.5, round_timeout=4)
    with Observed(2, settings=settings) as cluster:
        with Client(cluster) as client:
            x, y = data()
            client.upload(DataSet({"x": x, "y": y}, ranges={"x": (-1, 1), "y": (0, 1)}, fraction_bits=8), "data")
        program = CLIENT.format(path=str(cluster.path), key=str(cluster.key_path("client")))
        reached, done = 0, 100
        for pause in (0.0, 0.05, 0.1):
            process = subprocess.Popen([sys.executable, SNIPPET, program], stdout=subprocess.PIPE, text=True)
            # The first checkpoint that it says, and a moment after it.
            line = process.stdout.readline()
            assert int(line) > reached, "it goes on, and not anew"
            time.sleep(pause)
            process.kill()
            process.wait()
            reached = int(line)
        # Nobody is there any more who would have asked for it.
        with Client(cluster) as client:
            give_up = time.monotonic() + 10 * PATIENCE
            while time.monotonic() < give_up and client.model("net").parts < done:
                time.sleep(0.1)
            model = client.model("net")
            assert model.parts == done > reached
            wanted = twin(begun(client, done), done)
            assert np.abs(client.reveal(model["out.weight"]) - wanted).max() < 1e-3
        no_mask_served_two_values(cluster, done)
