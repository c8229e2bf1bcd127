"""The torch side: the shipped network reproduces its metrics, folding is exact, the training script runs."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import numpy as np
import torch

from nn.derm import load_image, load_weights, samples
from nn.derm.augment import dihedral_views, network_input, random_views, strange_images
from nn.derm.model import derm_model
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


def test_the_page_says_what_tails_cost_and_which_inputs_differ() -> None:
    """docs/models.md: rounds and bytes of both forms, and whom the fit's period answers otherwise."""
    page = (Path(__file__).parents[2] / "docs/models.md").read_text(encoding="utf-8")
    short, safe = derm_model(), derm_model(tails=True)
    for model, name in ((short, "on [-8, 8], and a bit that says whether an input left it"), (safe, "with tails")):
        rounds, sent, dealt = re.search(rf"\| {re.escape(name)} \| (\d+) \| (\d+) kB \| ([\d.]+) MB \|", page).groups()
        cost = model.cost((1, 3, 28, 28))
        assert cost.online_rounds == int(rounds)
        assert abs(cost.online_bytes_per_party / 1e3 - float(sent)) <= 0.03 * float(sent)
        assert abs(cost.offline_bytes / 1e6 - float(dealt)) <= 0.1

    def otherwise(x: np.ndarray) -> tuple[int, int]:
        wanted = safe.plain(x, exact=True).argmax(1)
        return tuple(int((model.plain(x).argmax(1) != wanted).sum()) for model in (short, safe))

    photographs = sample_inputs().double().numpy()
    lines = photographs.copy()
    for row in range(28):
        lines[:, :, row, row : row + 2] = -1.0
    assert otherwise(photographs) == otherwise(lines) == (0, 0)
    strange = strange_images(torch.Generator().manual_seed(0)).double().numpy()
    different, none = otherwise(strange)
    assert none == 0
    assert f"Of {len(strange)} inputs" in page
    assert f"answers {different} otherwise" in page
