"""Servers that compute on torch's tensors work together with servers that do not, in processes of their own."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import tessera as ts
from mpc.errors import PeerUnavailable

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("security", ["semi-honest", "malicious"])
@pytest.mark.parametrize("on_torch", [["party1"], ["dealer", "party0", "party1"]])
def test_a_network_is_evaluated_by_both_kinds_of_servers(security: str, on_torch: list[str]) -> None:
    torch.manual_seed(0)
    net = torch.nn.Sequential(
        torch.nn.Conv2d(2, 4, 3, padding=1), torch.nn.ReLU(), torch.nn.MaxPool2d(2), torch.nn.Flatten(),
        torch.nn.Linear(64, 5), torch.nn.Sigmoid(),
    ).double()  # fmt: skip
    images = np.random.default_rng(1).uniform(-1, 1, (3, 2, 8, 8))
    model = ts.from_torch(net, images)
    devices = dict.fromkeys(on_torch, "cpu")
    with ts.LocalCluster(security=security, devices=devices) as cluster, ts.Client(cluster) as client:
        uploaded = client.upload(model, "net")
        found = client.reveal(uploaded(client.share(images, low=-1, high=1)))
        assert np.abs(found - net(torch.from_numpy(images)).detach().numpy()).max() < 2e-3


def test_a_device_that_is_not_there_is_said_at_the_start() -> None:
    with pytest.raises(PeerUnavailable, match="cannot compute on 'cuda:77' here"):
        ts.LocalCluster(devices={"party1": "cuda:77"}).start()
