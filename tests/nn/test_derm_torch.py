"""The torch side: the shipped network reproduces its metrics, folding is exact, the training script runs."""

from __future__ import annotations

import json
import math

import numpy as np
import torch

from nn.derm import load_image, load_weights, samples
from nn.derm.augment import dihedral_views, network_input, random_views, strange_images
from nn.derm.reference import ASSETS
from nn.derm.torch_model import build_torch, folded, network
from nn.importing.torch_activation import FourierActivation

METRICS = json.loads((ASSETS / "metrics.json").read_text(encoding="utf-8"))


def sample_inputs() -> torch.Tensor:
    return torch.from_numpy(np.stack([load_image(sample.path) for sample in samples()]).astype(np.float32))


def test_shipped_layers_are_the_ones_promised() -> None:
    names = [name for name, _ in build_torch().named_children()]
    assert names == ["conv1", "act1", "pool1", "conv2", "act2", "pool2", "flatten", "fc1", "act3", "fc2"]
    assert not build_torch().training
    assert set(build_torch().state_dict()) == set(load_weights())


def test_samples_give_the_recorded_logits() -> None:
    recorded = np.array(METRICS["samples"]["logits"])
    assert [sample.id for sample in samples()] == METRICS["samples"]["ids"]
    with torch.no_grad():
        logits = build_torch()(sample_inputs()).numpy()
        exact = build_torch(exact_sigmoid=True)(sample_inputs()).numpy()
    np.testing.assert_allclose(logits, recorded, atol=2e-4)
    np.testing.assert_allclose(exact, recorded, atol=1e-2)
    np.testing.assert_array_equal(exact.argmax(1), recorded.argmax(1))


def test_series_is_the_sigmoid_on_its_interval() -> None:
    series = FourierActivation()
    x = torch.linspace(series.low, series.high, 4001, requires_grad=True)
    y = series(x)
    assert float((y - torch.sigmoid(x)).detach().abs().max()) < 1e-4
    angle = 2 * math.pi / series.period * x.detach().double()
    direct = series.constant + sum(c * torch.sin((j + 1) * angle) for j, c in enumerate(series.sines))
    assert float((y.detach() - direct).abs().max()) < 2e-6
    (gradient,) = torch.autograd.grad(y.sum(), x)
    assert float((gradient - torch.sigmoid(x) * (1 - torch.sigmoid(x))).detach().abs().max()) < 1e-3


def test_folding_keeps_the_function() -> None:
    torch.manual_seed(0)
    model = network(FourierActivation, normalised=True)
    for _ in range(3):
        model(torch.rand(16, 3, 28, 28) * 2 - 1)
    model.eval()
    x = torch.rand(8, 3, 28, 28) * 2 - 1
    with torch.no_grad():
        assert float((model(x) - folded(model).eval()(x)).abs().max()) < 1e-4


def test_views_keep_shape_and_range_and_follow_the_seed() -> None:
    images = torch.rand(6, 3, 28, 28)
    one, two = (random_views(images, torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(one, two)
    assert one.shape == images.shape
    assert float(one.min()) >= 0
    assert float(one.max()) <= 1
    inputs = network_input(one)
    assert inputs.dtype == torch.float32
    assert float(inputs.abs().max()) <= 1
    turned = dihedral_views(images)
    assert len(turned) == 8
    assert len({tuple(view.flatten().tolist()) for view in turned}) == 8
    assert float(strange_images(torch.Generator().manual_seed(0)).abs().max()) <= 1
