"""Models stay on the parties as shares, under a name, for this client and for others."""

from __future__ import annotations

import numpy as np
import pytest

from mpc.errors import NotPermitted, RemoteError, TesseraError, UsageError
from nn import Conv2d, Flatten, Linear, Model, Sequential, Sigmoid
from parties import Client

RNG = np.random.default_rng(3)


def small_model(scale=1.0):
    net = Sequential({"conv": Conv2d(1, 2, 3), "act": Sigmoid(), "flat": Flatten(), "out": Linear(2 * 4 * 4, 3)})
    architecture = net.architecture((1, 6, 6))
    return Model(architecture, {n: RNG.uniform(-scale, scale, s) for n, s in architecture.parameters.items()})


@pytest.mark.parametrize("security", ["semi-honest", "malicious"])
@pytest.mark.parametrize("parties", [2, 3])
def test_one_uploads_and_another_uses(clusters, parties, security):
    cluster = clusters(parties, security)
    model = small_model()
    x = RNG.uniform(-1, 1, (5, 1, 6, 6))
    with Client(cluster, name="company") as company, Client(cluster, name="clinic") as clinic:
        uploaded = company.upload(model, "small")
        assert "small" in repr(uploaded)
        with pytest.raises(NotPermitted, match="nothing called 'small' for us"):
            clinic.model("small")
        company.allow("small", "clinic")
        found = clinic.model("small")
        assert found.owner == "company"
        for _ in range(2):
            result = clinic.reveal(found(clinic.share(x, low=-1, high=1)))
            assert np.abs(result - model.plain(x)).max() < 2e-3
        report = clinic.last_run
        assert report.online.rounds == report.predicted.online_rounds == (4 if security == "semi-honest" else 6)
        assert report.online.bytes == report.predicted.online_bytes_per_party
        assert report.offline.bytes == report.predicted.offline_bytes
        assert {"conv", "act", "out"} <= set(report.layers)
        opened = sum(layer.bytes for layer in report.layers.values())
        assert opened + report.predicted.online_output_bytes == report.online.bytes


def test_each_owner_has_names_of_its_own(clusters):
    with Client(clusters(2), name="company") as company, Client(clusters(2), name="clinic") as clinic:
        first, second = small_model(), small_model(0.5)
        company.upload(first, "mine")
        company.allow("mine", "clinic")
        former = clinic.model("mine")
        company.upload(second, "mine")
        x = RNG.uniform(-1, 1, (2, 1, 6, 6))
        shared = clinic.share(x, low=-1, high=1)
        assert np.abs(clinic.reveal(clinic.model("mine")(shared)) - second.plain(x)).max() < 2e-3
        with pytest.raises(TesseraError, match="upload it again"):
            clinic.reveal(former(shared))
        # What the clinic calls so is its own, and the company's is where it was.
        clinic.upload(first, "mine")
        for name, model in (("mine", first), ("clinic/mine", first), ("company/mine", second)):
            assert np.abs(clinic.reveal(clinic.model(name)(shared)) - model.plain(x)).max() < 2e-3
        assert clinic.reveal(shared.sum()) == pytest.approx(x.sum(), abs=1e-2)


def test_an_unknown_model_names_what_there_is(clusters):
    with Client(clusters(2), name="company") as company:
        company.upload(small_model(), "known")
        with pytest.raises(NotPermitted, match=r"nothing called 'unknown' for us: it has .*known"):
            company.model("unknown")
        with pytest.raises(UsageError, match="not a name"):
            company.model("../secret")


def test_remote_errors_are_typed():
    assert issubclass(RemoteError, TesseraError)
