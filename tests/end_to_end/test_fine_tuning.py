"""A network that was trained on shares is trained further on another's data, in processes: unseen all the while."""

import numpy as np
import pytest

from mpc.errors import NotPermitted
from nn import SGD, CrossEntropyLoss, Linear, Sequential
from parties import Client, DataSet, LocalCluster, Settings

NET = Sequential({"out": Linear(4, 3)}).architecture((4,))
FIRST, SECOND = SGD(lr=0.25, momentum=0.5), SGD(lr=0.125, momentum=0.5)
HOW = {"batch": 6, "steps": 1, "logits": 4.0}


def rows(seed, count):
    rng = np.random.default_rng(seed)
    x = np.round(rng.uniform(-1, 1, (count, 4)) * 256) / 256
    return x, np.eye(3)[x[:, :3].argmax(1)]


def uploaded(client, seed, count):
    x, y = rows(seed, count)
    return client.upload(DataSet({"x": x, "y": y}, ranges={"x": (-1, 1), "y": (0, 1)}, fraction_bits=8), "data")


def asked(client, kept, why, *owners):
    program = client.request(kept, why)
    for owner in owners:
        owner.approve(program, runs=10)
    assert client.approved(program, timeout=30)


def steps(weights, bias, x, y, drawn, optimizer):
    v, vb = np.zeros_like(weights), np.zeros_like(bias)
    for number, places in enumerate(drawn):
        z = x[places] @ weights + bias
        q = (np.exp(z) / np.exp(z).sum(1, keepdims=True) - y[places]) / len(places)
        v, vb = optimizer.mu * v + x[places].T @ q, optimizer.mu * vb + q.sum(0)
        weights, bias = weights - optimizer.rate(number) * v, bias - optimizer.rate(number) * vb
    return weights, bias


@pytest.mark.slow
def test_a_network_that_was_trained_is_trained_further():
    """What it had drawn of other data counts no more; and all whose data it has learnt from have a say."""
    settings, names = Settings(threads=1), ("north", "south", "study")
    with (
        LocalCluster(2, security="malicious", settings=settings, clients=names) as cluster,
        Client(cluster, name="north") as north,
        Client(cluster, name="south") as south,
        Client(cluster, name="study") as study,
    ):
        for owner, seed in ((north, 1), (south, 2)):
            uploaded(owner, seed, 12)
            owner.allow("data", "study", schema=True)
        data, other = [study.data("north/data")], [study.data("south/data")]
        loss = CrossEntropyLoss()
        training = study.training(NET, data, loss, FIRST, name="base", epochs=2, **HOW)
        asked(study, training.kept, "a base", north)
        base = study.train(NET, data, loss, FIRST, name="base", epochs=2, **HOW)
        assert base.parts == 4
        how = {**HOW, "name": "tuned", "epochs": 1}
        asked(study, study.beginning(base, other, loss, SECOND, **how), "to begin with", north)
        base = study.model("base")
        tuning = study.training(base, other, loss, SECOND, **how)
        asked(study, tuning.kept, "of the south", north, south)
        tuned = study.train(base, other, loss, SECOND, **how)
        assert (tuned.parts, tuned.joint) == (2, ("north", "south"))
        wanted = ["out.weight", "out.bias"]
        with pytest.raises(NotPermitted):
            study.reveal([tuned[name] for name in wanted])
        for model in (base, tuned):
            program = study.digest([model[name] for name in wanted])
            for owner in (north, south) if model is tuned else (north,):
                owner.allow(f"study/{model.name}", "study", [program])
        before, after = ([study.model(m)[name] for name in wanted] for m in ("base", "tuned"))
        (w, b), found = study.reveal(before), study.reveal(after)
        drawn = [places for checkpoint in range(2) for (places,) in tuning.drawn(checkpoint)]
        for got, expected in zip(found, steps(w, b, *rows(2, 12), drawn, SECOND), strict=True):
            assert got == pytest.approx(expected, abs=1e-3)
