"""A model without weights is a model: stored, listed, used by whoever may, replaced and removed as any other."""

from __future__ import annotations

import numpy as np
import pytest

from nn import AvgPool2d, Flatten, Model, Sequential, Sigmoid
from nn.layer import Layer
from parties import Client, LocalCluster, MemoryCluster

IMAGE = np.linspace(-1, 1, 32).reshape(2, 1, 4, 4)


def check(cluster: MemoryCluster | LocalCluster, *layers: Layer) -> None:
    model = Model(Sequential(*layers))
    with Client(cluster, name="owner") as owner:
        owner.upload(model, "pool")
        owner.upload(model, "pool")
        owner.allow("pool", "clinic")
        with Client(cluster, name="clinic") as clinic:
            assert [entry.name for entry in clinic.models()] == ["pool"]
            result = clinic.reveal(clinic.model("pool")(clinic.share(IMAGE, low=-1, high=1)))
            assert np.abs(result - model.plain(IMAGE)).max() < 1e-3
        owner.remove("pool")
        assert owner.models() == []


@pytest.mark.parametrize("security", ["semi-honest", "malicious"])
@pytest.mark.parametrize("layers", [(AvgPool2d(2),), (Sigmoid(), Flatten())])
def test_in_one_process(layers: tuple[Layer, ...], security: str) -> None:
    with MemoryCluster(2, clients=("owner", "clinic"), security=security) as cluster:
        check(cluster, *layers)


@pytest.mark.slow
def test_among_processes() -> None:
    with LocalCluster(2, clients=("owner", "clinic")) as cluster:
        check(cluster, AvgPool2d(2))
