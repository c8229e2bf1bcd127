"""Pools, convolutions, resizing and pads in all of torch's forms: parties, plain reference and torch agree."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn as tn
from torch.nn import functional as F

import nn
from mpc.errors import ShapeError, UnsupportedError
from mpc.operation import Input
from nn import Layer, from_torch
from protocols.trace.secret_tensor import leaf

UNIT = 2.0**-16

LAYERS: list[tuple[Layer, tn.Module, tuple[int, ...]]] = [
    (nn.MaxPool2d(3, 2, ceil_mode=True), tn.MaxPool2d(3, 2, ceil_mode=True), (1, 2, 6, 4)),
    (nn.MaxPool2d(2, 3, 1, ceil_mode=True), tn.MaxPool2d(2, 3, 1, ceil_mode=True), (1, 1, 5, 6)),
    (nn.MaxPool2d((3, 2), 1, (1, 0), (2, 3)), tn.MaxPool2d((3, 2), 1, (1, 0), (2, 3)), (1, 1, 6, 5)),
    (nn.MaxPool2d(2, 2, 0, 2, True), tn.MaxPool2d(2, 2, 0, 2, ceil_mode=True), (1, 1, 6, 5)),
    (nn.AvgPool2d(3, 2, ceil_mode=True), tn.AvgPool2d(3, 2, ceil_mode=True), (1, 2, 6, 4)),
    (nn.AvgPool2d(3, 2, 1, True), tn.AvgPool2d(3, 2, 1, True), (1, 1, 6, 5)),
    (nn.AvgPool2d(3, 2, 1, True, False), tn.AvgPool2d(3, 2, 1, True, False), (1, 1, 6, 5)),
    (nn.AvgPool2d(2, 2, 0, True, True, 3), tn.AvgPool2d(2, 2, 0, True, True, 3), (1, 1, 5, 4)),
    (nn.AdaptiveAvgPool2d((2, 3)), tn.AdaptiveAvgPool2d((2, 3)), (1, 2, 5, 7)),
    (nn.AdaptiveAvgPool2d((None, 1)), tn.AdaptiveAvgPool2d((None, 1)), (1, 2, 3, 5)),
    (nn.AdaptiveAvgPool2d((2, 1)), tn.AdaptiveAvgPool2d((2, 1)), (1, 1, 4, 4)),
    (nn.AdaptiveAvgPool2d((4, 5)), tn.AdaptiveAvgPool2d((4, 5)), (1, 1, 3, 2)),
    (nn.AdaptiveMaxPool2d((2, 3)), tn.AdaptiveMaxPool2d((2, 3)), (1, 1, 5, 7)),
    (nn.AdaptiveMaxPool2d((None, 2)), tn.AdaptiveMaxPool2d((None, 2)), (1, 1, 2, 4)),
    (nn.Conv2d(2, 3, 3, dilation=2), tn.Conv2d(2, 3, 3, dilation=2), (2, 2, 7, 6)),
    (
        nn.Conv2d(2, 2, (3, 2), 2, (2, 1), (3, 2), 2, False),
        tn.Conv2d(2, 2, (3, 2), 2, (2, 1), (3, 2), 2, False),
        (1, 2, 6, 5),
    ),
    (
        nn.Conv2d(1, 2, (3, 4), padding="same", dilation=2),
        tn.Conv2d(1, 2, (3, 4), padding="same", dilation=2),
        (1, 1, 5, 4),
    ),
    *(
        (
            nn.Conv2d(1, 2, 3, padding=(2, 1), padding_mode=mode),
            tn.Conv2d(1, 2, 3, padding=(2, 1), padding_mode=mode),
            (1, 1, 4, 4),
        )
        for mode in ("reflect", "replicate", "circular")
    ),
    (
        nn.Conv2d(1, 1, (2, 3), padding="same", dilation=2, padding_mode="reflect"),
        tn.Conv2d(1, 1, (2, 3), padding="same", dilation=2, padding_mode="reflect"),
        (1, 1, 4, 4),
    ),
    (nn.Upsample(scale_factor=2.0), tn.Upsample(scale_factor=2), (1, 2, 2, 3)),
    (nn.Upsample((3, 5)), tn.Upsample((3, 5)), (1, 1, 2, 4)),
    (nn.Upsample((3, 5), mode="nearest-exact"), tn.Upsample((3, 5), mode="nearest-exact"), (1, 1, 4, 2)),
    (nn.Upsample(scale_factor=2.0, mode="bilinear"), tn.Upsample(scale_factor=2, mode="bilinear"), (1, 2, 3, 2)),
    (
        nn.Upsample(scale_factor=(1.7, 0.6), mode="bilinear"),
        tn.Upsample(scale_factor=(1.7, 0.6), mode="bilinear"),
        (1, 1, 3, 5),
    ),
    (
        nn.Upsample((4, 5), mode="bilinear", align_corners=True),
        tn.Upsample((4, 5), mode="bilinear", align_corners=True),
        (1, 1, 3, 2),
    ),
    (nn.Upsample((1, 5), mode="bicubic"), tn.Upsample((1, 5), mode="bicubic"), (1, 1, 4, 3)),
    (
        nn.Upsample(scale_factor=1.5, mode="bicubic", align_corners=True),
        tn.Upsample(scale_factor=1.5, mode="bicubic", align_corners=True),
        (1, 1, 4, 3),
    ),
    (nn.Upsample(5, mode="linear"), tn.Upsample(5, mode="linear"), (1, 2, 3)),
    (nn.Upsample(scale_factor=2.0, mode="trilinear"), tn.Upsample(scale_factor=2, mode="trilinear"), (1, 1, 2, 2, 2)),
    (nn.Pad((1, 2, 0, 1), value=0.75), tn.ConstantPad2d((1, 2, 0, 1), 0.75), (1, 2, 2, 3)),
    (nn.Pad((1, -1), value=0.5), tn.ConstantPad1d((1, -1), 0.5), (1, 2, 3)),
    (nn.Pad((1, 1, 1, 0, 0, 1)), tn.ZeroPad3d((1, 1, 1, 0, 0, 1)), (1, 1, 2, 2, 2)),
    (nn.Pad((2, 1, 0, 2), "reflect"), tn.ReflectionPad2d((2, 1, 0, 2)), (1, 1, 3, 4)),
    (nn.Pad((5, 1), "replicate"), tn.ReplicationPad1d((5, 1)), (1, 1, 3)),
    (nn.Pad((3, 1, 0, 2), "circular"), tn.CircularPad2d((3, 1, 0, 2)), (1, 1, 2, 3)),
    (nn.PixelShuffle(2), tn.PixelShuffle(2), (1, 8, 2, 3)),
    (nn.PixelUnshuffle(2), tn.PixelUnshuffle(2), (1, 2, 4, 6)),
    (nn.ChannelShuffle(3), tn.ChannelShuffle(3), (1, 6, 2, 1)),
    (nn.Unfold((2, 3), (1, 2), (1, 0), 2), tn.Unfold((2, 3), (1, 2), (1, 0), 2), (1, 2, 3, 6)),
    (
        nn.Fold((2, 2), 1, (1, 0), (2, 1), output_size=(3, 4)),
        tn.Fold((3, 4), (2, 2), 1, (1, 0), (2, 1)),
        (1, 8, 6),
    ),
    (nn.Conv1d(4, 2, 3, 2, 1, groups=2), tn.Conv1d(4, 2, 3, 2, 1, groups=2), (2, 4, 6)),
    (
        nn.Conv1d(1, 2, 3, 1, "same", 2, 1, False, "circular"),
        tn.Conv1d(1, 2, 3, 1, "same", 2, 1, False, "circular"),
        (1, 1, 5),
    ),
    (nn.ConvTranspose1d(2, 3, 3, 2, 1, 1), tn.ConvTranspose1d(2, 3, 3, 2, 1, 1), (1, 2, 4)),
    (nn.ConvTranspose2d(3, 2, 2, 2), tn.ConvTranspose2d(3, 2, 2, 2), (2, 3, 2, 3)),
    (
        nn.ConvTranspose2d(2, 2, (3, 4), (2, 3), (1, 2), (1, 0), 2, False),
        tn.ConvTranspose2d(2, 2, (3, 4), (2, 3), (1, 2), (1, 0), 2, False),
        (1, 2, 3, 3),
    ),
    (nn.ConvTranspose2d(1, 2, 3, 2, 0, 1, 1, True, 2), tn.ConvTranspose2d(1, 2, 3, 2, 0, 1, 1, True, 2), (1, 1, 2, 3)),
    (nn.ConvTranspose2d(1, 1, 1, 3, 0, 2), tn.ConvTranspose2d(1, 1, 1, 3, 0, 2), (1, 1, 2, 2)),
    (
        nn.ConvTranspose2d(1, 1, 1, 2, 0, (0, 2), dilation=3),
        tn.ConvTranspose2d(1, 1, 1, 2, 0, (0, 2), dilation=3),
        (1, 1, 2, 2),
    ),
    (
        nn.ConvTranspose3d(2, 4, (3, 2, 1), (2, 1, 2), (1, 0, 0), (1, 0, 1), 2, dilation=(2, 1, 1)),
        tn.ConvTranspose3d(2, 4, (3, 2, 1), (2, 1, 2), (1, 0, 0), (1, 0, 1), 2, dilation=(2, 1, 1)),
        (1, 2, 3, 2, 2),
    ),
    (
        nn.ConvTranspose3d(1, 1, 1, 3, 0, 2, bias=False),
        tn.ConvTranspose3d(1, 1, 1, 3, 0, 2, bias=False),
        (2, 1, 2, 1, 2),
    ),
    (
        nn.Conv3d(2, 3, (2, 1, 3), (1, 2, 1), (1, 0, 1), (2, 1, 1)),
        tn.Conv3d(2, 3, (2, 1, 3), (1, 2, 1), (1, 0, 1), (2, 1, 1)),
        (1, 2, 3, 3, 3),
    ),
    (nn.Conv3d(2, 2, 2, groups=2, bias=False), tn.Conv3d(2, 2, 2, groups=2, bias=False), (2, 2, 3, 2, 2)),
    (nn.Conv3d(1, 1, 3, padding=2, dilation=2), tn.Conv3d(1, 1, 3, padding="same", dilation=2), (1, 1, 2, 3, 2)),
    (nn.AvgPool1d(3, 2, 1, True, False), tn.AvgPool1d(3, 2, 1, True, False), (1, 2, 6)),
    (nn.AvgPool3d(2), tn.AvgPool3d(2), (1, 1, 4, 2, 3)),
    (
        nn.AvgPool3d((3, 2, 1), 2, (1, 1, 0), True, False),
        tn.AvgPool3d((3, 2, 1), 2, (1, 1, 0), True, False),
        (1, 1, 4, 3, 3),
    ),
    (nn.MaxPool1d(3, 2, 1, 1, True), tn.MaxPool1d(3, 2, 1, 1, ceil_mode=True), (1, 2, 6)),
    (nn.MaxPool3d((2, 2, 1), (1, 2, 1)), tn.MaxPool3d((2, 2, 1), (1, 2, 1)), (1, 1, 3, 2, 2)),
    (nn.AdaptiveAvgPool1d(3), tn.AdaptiveAvgPool1d(3), (1, 2, 5)),
    (nn.AdaptiveMaxPool1d(2), tn.AdaptiveMaxPool1d(2), (1, 2, 5)),
    (nn.AdaptiveAvgPool3d((2, None, 1)), tn.AdaptiveAvgPool3d((2, None, 1)), (1, 1, 3, 2, 4)),
    (nn.AdaptiveMaxPool3d((1, None, 2)), tn.AdaptiveMaxPool3d((1, None, 2)), (1, 1, 2, 1, 4)),
    (nn.Threshold(0.25, -0.5), tn.Threshold(0.25, -0.5), (2, 9)),
    (nn.Hardshrink(0.25), tn.Hardshrink(0.25), (2, 9)),
]


@pytest.mark.sampled(4)
@pytest.mark.parametrize(("layer", "module", "shape"), LAYERS, ids=lambda v: repr(v) if isinstance(v, Layer) else "")
def test_parties_plain_and_torch_agree(
    layer: Layer, module: tn.Module, shape: tuple[int, ...], rng: Any, evaluate: Any
) -> None:
    x = np.round(rng.uniform(-1, 1, shape) / UNIT) * UNIT
    module = module.double().eval()
    model = from_torch(module)
    (step,) = model.architecture.steps
    assert type(step.layer) is type(layer)
    wanted = module(torch.tensor(x)).detach().numpy()
    weights = {name.partition(".")[2]: values for name, values in model.weights.items()}
    assert np.array_equal(layer.plain(x, weights=weights), model.plain(x))
    assert model.plain(x).shape == wanted.shape
    assert np.abs(model.plain(x) - wanted).max() < 1e-9
    found = evaluate(model, x)
    assert found.result.shape == wanted.shape
    assert np.abs(found.result - wanted).max() <= 2e-4


class Joined(tn.Module):
    """Several functions of one input, flattened and beside each other."""

    def __init__(self, functions: Any, **layers: tn.Module) -> None:
        super().__init__()
        self.functions = functions
        for name, layer in layers.items():
            self.add_module(name, layer)

    def forward(self, x: Any) -> Any:
        return torch.cat([function(self, x).flatten(1) for function in self.functions], 1)


TRACED: list[Any] = [
    lambda _, x: F.max_pool2d(x, 3, 2, 1, ceil_mode=True),
    lambda _, x: F.avg_pool2d(x, 3, 2, ceil_mode=True, divisor_override=5),
    lambda _, x: F.adaptive_max_pool2d(x, (None, 3)),
    lambda _, x: F.max_pool1d(x.flatten(2), 2, 3),
    lambda _, x: F.avg_pool1d(x.flatten(2), 2),
    lambda _, x: F.interpolate(x, scale_factor=(2, 1.5), mode="bilinear", align_corners=False),
    lambda _, x: F.interpolate(x, size=[3, 2], mode="area"),
    lambda _, x: F.pad(x, (1, 0, 2, 1), "reflect"),
    lambda _, x: F.pad(x, (1, 0), value=2),
    lambda _, x: F.pixel_unshuffle(x, 2),
    lambda _, x: x.clamp(min=0.25),
    lambda _, x: torch.clamp_max(x, 0.25),
    lambda _, x: x.amax((1, 3), keepdim=True),
    lambda _, x: torch.amin(x, -1),
    lambda _, x: torch.cumsum(x, 1),
    lambda _, x: torch.maximum(x, x * -0.5),
    lambda _, x: torch.minimum(x, x * -0.5),
    lambda _, x: F.threshold(x, 0.0, 0.5),
    lambda _, x: F.hardshrink(x, 0.5),
    lambda _, x: F.unfold(x, 2, stride=2),
    lambda _, x: F.fold(F.unfold(x, (2, 3)), 4, (2, 3)),
]

EXPORTED: list[Any] = [
    lambda m, x: m.conv1(x.flatten(2)),
    lambda m, x: F.conv_transpose2d(x, m.up.weight, m.up.bias, stride=2, padding=1),
    lambda m, x: m.conv3(x.unsqueeze(2)),
    lambda _, x: F.max_pool3d(x.unsqueeze(2), (1, 2, 2)),
    lambda _, x: F.max_pool2d(x, 2, ceil_mode=True),
    lambda _, x: F.adaptive_avg_pool1d(x.flatten(2), 5),
    lambda _, x: F.adaptive_max_pool2d(x, 3),
    lambda _, x: F.interpolate(x, size=x.shape[2], mode="bicubic", align_corners=True),
    lambda _, x: F.interpolate(x, scale_factor=0.6, mode="nearest"),
    lambda _, x: F.interpolate(x, scale_factor=0.6, mode="bilinear", recompute_scale_factor=True),
    lambda _, x: F.pad(x, (1, 1, 2, 0), "circular"),
    lambda _, x: F.pad(x.transpose(0, 1), (0, 1, 0, 0, 0, 0, 1, 0)).transpose(0, 1),
    lambda _, x: F.channel_shuffle(x, 2),
    lambda _, x: x.roll((1, -1), (1, 3)),
    lambda _, x: x.index_select(2, torch.tensor([2, 0, 2])),
    lambda _, x: x[:, :, :, [1, -1]],
    lambda _, x: x.gather(2, torch.tensor([3, 1]).reshape(1, 1, 2, 1).expand(len(x), 2, 2, 4)),
    lambda _, x: x.cumsum(-1),
    lambda _, x: F.glu(x, 1),
    lambda _, x: x.max(2)[0],
    lambda _, x: torch.min(x, 1, keepdim=True).values,
    lambda _, x: torch.max(x, x.flip(3)),
    lambda _, x: x.amin((2, 3)),
    lambda _, x: x.clamp(max=0.5),
    lambda _, x: x.clamp_min(-0.25),
    lambda _, x: F.threshold(x, 0.1, -1.0),
]


def test_functions_of_torch(rng: Any) -> None:
    x = rng.uniform(-1, 1, (3, 4, 4, 4))
    net = Joined(TRACED)
    assert np.abs(from_torch(net).plain(x) - net(torch.tensor(x)).numpy()).max() < 1e-9


@pytest.mark.filterwarnings("ignore")
def test_operations_of_exported_programs(rng: Any) -> None:
    layers = {"conv1": tn.Conv1d(2, 1, 3, padding="same"), "up": tn.ConvTranspose2d(2, 1, 3)}
    net = Joined(EXPORTED, **layers, conv3=tn.Conv3d(2, 1, (1, 2, 2))).double().eval()
    x = torch.tensor(rng.uniform(-1, 1, (3, 2, 4, 4)))
    with torch.no_grad():
        wanted = net(x).numpy()
    assert np.abs(from_torch(net, x).plain(x.numpy(), exact=True) - wanted).max() < 1e-9


def test_pools_and_pads_of_large_factors_stay_in_range(evaluate: Any) -> None:
    """The extremes of an interval come out as they went in, through many weights that do not end in binary."""
    for layer in (nn.AdaptiveAvgPool2d((3, 3)), nn.Upsample((5, 7), mode="bilinear", align_corners=True)):
        for end in (-1.0, 1.0):
            x = np.full((1, 1, 4, 5), end)
            assert np.abs(evaluate(nn.Model(nn.Sequential({"it": layer})), x).result - end).max() < 2e-4


@pytest.mark.parametrize(
    ("layer", "opens"),
    [
        (nn.TopK(2, 3, positions=True), True),
        (nn.TopK(3, 2, smallest=True), True),
        (nn.GridSample((-1.25, 0.5, 0.1, -0.3, 0.9, 1.0), (1, 3), padding_mode="border"), False),
        (nn.Unfold(2, padding=1, stride=2), False),
    ],
)
def test_values_in_order_and_at_places_between_pixels(rng: Any, evaluate: Any, layer: Layer, opens: bool) -> None:
    """Ties, too: of equal values the first."""
    x = rng.integers(-4, 5, (2, 2, 5, 4)) / 4
    run = evaluate(nn.Model(nn.Sequential({"it": layer})), x)
    assert np.abs(run.result - layer.plain(x, weights={})).max() < 1e-3
    assert (run.cost.online_rounds > 2) == opens


def test_a_dilated_convolution_opens_no_more_than_its_input(rng: Any, evaluate: Any) -> None:
    x = rng.uniform(-1, 1, (1, 2, 8, 8))
    found = []
    for dilation, padding in ((1, 1), (2, 2)):
        layer = nn.Conv2d(2, 2, 3, padding=padding, dilation=dilation)
        weights = {"it.weight": rng.normal(0, 1, (2, 2, 3, 3)), "it.bias": np.zeros(2)}
        found.append(evaluate(nn.Model(nn.Sequential({"it": layer}), weights), x).cost.online_bytes_per_party)
    # Four parts, each with its own margin of zeros.
    assert found[1] <= 1.5 * found[0]


@pytest.mark.parametrize(
    "make",
    [
        lambda: nn.Upsample(),
        lambda: nn.Upsample(2, 2.0),
        lambda: nn.Upsample(scale_factor=float("inf")),
        lambda: nn.Upsample(scale_factor=0.0),
        lambda: nn.Upsample(2, align_corners=True),
        lambda: nn.Pad(()),
        lambda: nn.Pad((1,)),
        lambda: nn.Pad((2**25, 0)),
        lambda: nn.Pad((1, 1), value=float("nan")),
        lambda: nn.PixelShuffle(0),
        lambda: nn.Unfold(0),
        lambda: nn.Fold(1, output_size=(0, 2)),
        lambda: nn.GridSample((0.0,) * 7, (2, 2)),
        lambda: nn.GridSample((float("nan"), 0.0), (1, 1)),
        lambda: nn.GridSample((), (2**20, 2**20)),
        lambda: nn.TopK(0, 1),
        lambda: nn.TopK(1, 0),
        lambda: nn.AvgPool2d(2, divisor_override=0),
        lambda: nn.AdaptiveAvgPool2d((2, 0)),
        lambda: nn.ConvTranspose2d(2, 3, 2, groups=2),
        lambda: nn.ConvTranspose2d(2, 2, 2, output_padding=1),
        lambda: nn.ConvTranspose2d(1, 1, 2**20, 2),
        lambda: nn.Conv1d(1, 1, 0),
        lambda: nn.Conv3d(1, 1, (1, 2, 0)),
        lambda: nn.MaxPool3d(2, padding=(0, 2, 0)),
        lambda: nn.Conv2d(1, 1, 2, padding_mode="wide"),
        lambda: nn.Take(0, (1,)),
        lambda: nn.Take(1, ()),
        lambda: nn.Take(1, (-1,)),
        lambda: nn.CumSum(0),
        lambda: nn.Amax((0, 1)),
        lambda: nn.Clamp(),
        lambda: nn.Clamp(2.0, 1.0),
        lambda: nn.Threshold(float("nan"), 0.0),
    ],
)
def test_what_makes_no_sense(make: Any) -> None:
    with pytest.raises(UnsupportedError):
        make()


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.Upsample(2, mode="bilinear"), (1, 2, 3)),
        (nn.Upsample((2, 3)), (1, 2, 3)),
        (nn.Upsample(scale_factor=0.1), (1, 1, 4)),
        (nn.Upsample(2), (1, 2)),
        (nn.Upsample((2**24, 2**24), mode="bilinear"), (1, 1, 4, 4)),
        (nn.Pad((2**24,) * 4, "replicate"), (1, 1, 4, 4)),
        (nn.Pad((4, 0), "reflect"), (1, 4)),
        (nn.Pad((0, 5), "circular"), (1, 4)),
        (nn.Pad((-2, -2)), (1, 4)),
        (nn.Pad((0, 0, 1, 0)), (1, 4)),
        (nn.Pad((0, 0, 0, 0, 1, 1)), (1, 4)),
        (nn.MaxPool2d(2, 4, 1, 4), (1, 1, 2, 2)),
        (nn.MaxPool2d(3, dilation=2), (1, 1, 4, 4)),
        (nn.AdaptiveAvgPool2d(2), (1, 2, 3)),
        (nn.AdaptiveAvgPool2d(2), (1, 1, 0, 3)),
        (nn.PixelShuffle(2), (1, 3, 2, 2)),
        (nn.PixelUnshuffle(2), (1, 3, 2, 3)),
        (nn.ChannelShuffle(2), (1, 3, 2, 2)),
        (nn.Unfold(3), (1, 1, 2, 4)),
        (nn.Unfold(2), (1, 2, 3)),
        (nn.Unfold(1, padding=2**20), (1, 1, 4, 4)),
        (nn.Fold(2, output_size=(3, 3)), (1, 3, 4)),
        (nn.Fold(2, output_size=(3, 3)), (1, 4, 3)),
        (nn.Fold(1, padding=2**20, output_size=(3, 3)), (1, 4, 3)),
        (nn.GridSample((0.0, 0.0), (1, 1)), (1, 1, 4)),
        (nn.GridSample((0.0, 0.0), (1, 1)), (1, 1, 0, 4)),
        (nn.TopK(1, 4), (1, 3)),
        (nn.MaxPool1d(2), (1, 4)),
        (nn.AvgPool3d(2), (1, 1, 4, 4)),
        (nn.Take(1, (3,)), (1, 3)),
        (nn.Take(-2, (0,)), (2, 3)),
        (nn.CumSum(-1), (3,)),
        (nn.Amin((-2,)), (2, 3)),
    ],
    ids=repr,
)
def test_shapes_that_do_not_go_together(layer: Layer, shape: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError):
        layer.plain(np.zeros(shape), weights={})
    with pytest.raises(ShapeError):
        layer.forward(leaf(Input(shape, 16, -1.0, 1.0)), weights={})
