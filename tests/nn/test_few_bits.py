"""Networks of ``torch.ao``'s eight bits: read as what their integers stand for, and held to the networks' own steps."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn as tn
from torch.ao import quantization as q
from torch.ao.nn import quantized

from mpc.errors import DiffersFromSource, UnsupportedError
from nn import from_torch
from protocols import PrecisionWarning

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")


class Joined(tn.Module):
    """Arithmetic between quantised tensors, as quantised residual networks have it."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.out = tn.Conv2d(2, 2, 3, padding=1), tn.Linear(4 * 16, 3)
        self.added, self.times, self.joined = (quantized.FloatFunctional() for _ in range(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.added.add_relu(x, self.convolution(x))
        both = self.joined.cat([y, self.times.mul(y, x)], 1)
        result: torch.Tensor = self.out(both.flatten(1))
        return result


class Last(tn.Module):
    """What a recurrent layer ends with."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.out = tn.LSTM(3, 4, batch_first=True), tn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.out(self.layer(x)[0][:, -1])
        return result


def _static(*layers: tn.Module, seen: float = 1.0, fused: list[list[str]] | None = None) -> tn.Module:
    net: tn.Module = tn.Sequential(q.QuantStub(), *layers, q.DeQuantStub()).eval()
    net = q.fuse_modules(net, fused) if fused else net
    net.qconfig = q.get_default_qconfig("fbgemm")  # type: ignore[assignment]
    net = q.prepare(net)
    net(seen * _images())
    return q.convert(net)


def _dynamic(net: tn.Module) -> tn.Module:
    return q.quantize_dynamic(net.eval(), {tn.Linear, tn.LSTM}, dtype=torch.qint8)


def _images() -> torch.Tensor:
    return torch.rand(16, 2, 4, 4, generator=torch.Generator().manual_seed(1)) * 2 - 1


def _sequences() -> torch.Tensor:
    return torch.rand(16, 5, 3, generator=torch.Generator().manual_seed(1)) * 2 - 1


def _convolution() -> tn.Module:
    return tn.Conv2d(2, 3, 3, padding=1)


NETWORKS: dict[str, tuple[Callable[[], tn.Module], Callable[[], torch.Tensor]]] = {
    "dynamic LSTM": (lambda: _dynamic(Last()), _sequences),
    "residual": (lambda: _static(Joined()), _images),
    "batch norm and pools": (
        lambda: _static(
            _convolution(), tn.BatchNorm2d(3), tn.ReLU6(), tn.MaxPool2d(2), tn.AdaptiveAvgPool2d(1), tn.Flatten()
        ),
        _images,
    ),
    "fused": (
        lambda: _static(
            _convolution(), tn.BatchNorm2d(3), tn.ReLU(), tn.Flatten(), tn.Linear(48, 2), fused=[["1", "2", "3"]]
        ),
        _images,
    ),
    "activations": (
        lambda: _static(_convolution(), tn.Hardswish(), tn.LeakyReLU(), tn.ELU(), tn.Sigmoid(), tn.Flatten()),
        _images,
    ),
    "norms": (lambda: _static(tn.GroupNorm(1, 2), tn.InstanceNorm2d(2), tn.Flatten(), tn.LayerNorm(32)), _images),
}


@pytest.mark.sampled(3)
@pytest.mark.parametrize("name", NETWORKS)
def test_it_is_what_its_integers_stand_for(name: str) -> None:
    torch.manual_seed(0)
    make, samples = NETWORKS[name]
    net, x = make(), samples()
    with pytest.warns(PrecisionWarning, match=r"rounds in \d+ layers to numbers of 8 bits"):
        model = from_torch(net, x)
    with torch.no_grad():
        wanted = net(x).numpy()
    assert np.abs(model.plain(x.numpy()) - wanted).max() < 0.05 * np.abs(wanted).max()


def test_its_weights_are_the_integers_and_no_others() -> None:
    torch.manual_seed(0)
    net = _dynamic(tn.Sequential(tn.Flatten(), tn.Linear(32, 2)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = from_torch(net, _images())
    part: Any = net[1]  # type: ignore[index]
    (weight,) = (w for name, w in model.weights.items() if name.endswith("weight"))
    assert np.array_equal(weight, part.weight().dequantize().numpy().astype(np.float64))


def test_one_that_clips_what_it_was_not_prepared_for_is_refused_with_its_first_such_layer() -> None:
    torch.manual_seed(0)
    net = _static(_convolution(), tn.Flatten(), tn.Linear(48, 2), seen=0.1)
    with (
        pytest.warns(PrecisionWarning),
        pytest.raises(DiffersFromSource, match=r"layer '0' is Quantize.*prepare it with more samples"),
    ):
        from_torch(net, _images())


def test_what_has_no_counterpart_is_named() -> None:
    net = _static(_convolution(), tn.Flatten())
    net[1].__class__ = type("Strange", (quantized.Conv2d,), {"__module__": quantized.Conv2d.__module__})  # type: ignore[index,assignment]
    with pytest.raises(UnsupportedError, match="layer '1' is Strange"):
        from_torch(net, _images())
