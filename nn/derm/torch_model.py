"""The dermatology CNN as a torch module.  Needs torch; party and dealer processes never import this."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from torch import nn

from nn.derm.reference import load_weights
from protocols.approximation import default_fit

CHANNELS = (3, 16, 32)
FEATURES = (1568, 64, 7)


class _SineSeries(torch.autograd.Function):
    """``constant + sum_j sines[j-1] sin(j omega x)`` by Clenshaw's recurrence."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, constant: float, sines: Sequence[float], omega: float) -> torch.Tensor:
        angle = x * omega
        double_cosine = angle.cos().mul_(2)
        newer = torch.full_like(x, sines[-1])
        older = torch.zeros_like(x)
        for coefficient in reversed(sines[:-1]):
            older.neg_().addcmul_(double_cosine, newer).add_(coefficient)
            newer, older = older, newer
        value = newer.mul_(angle.sin_()).add_(constant)
        ctx.save_for_backward(value)
        return value

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None, None, None]:
        # Inside the interval y (1 - y) is the derivative to 4e-3, at a fraction of the cost.
        (value,) = ctx.saved_tensors
        return gradients[0] * value * (1 - value), None, None, None


class FourierActivation(nn.Module):
    """The sigmoid as the parties evaluate it: a sine series, good on the fit's interval, periodic outside.

    Elementwise on any shape.  ``constant``, ``sines`` and ``period`` are those of the project's default fit.
    """

    def __init__(self) -> None:
        super().__init__()
        fit = default_fit("sigmoid")
        self.constant = float(fit.constant)
        self.sines = tuple(float(value) for value in fit.sines)
        self.period = float(fit.period)
        self.low, self.high = float(fit.low), float(fit.high)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The series at ``x``; the gradient is that of the sigmoid."""
        omega = 2 * math.pi / self.period
        return cast(torch.Tensor, _SineSeries.apply(x, self.constant, self.sines, omega))  # type: ignore[no-untyped-call]

    def extra_repr(self) -> str:
        """Shown by ``print(module)``."""
        return f"terms={len(self.sines)}, period={self.period:g}, interval=[{self.low:g}, {self.high:g}]"


def network(activation: Callable[[], nn.Module], normalised: bool = False) -> nn.Sequential:
    """The architecture with fresh weights: ``(N, 3, 28, 28)`` in [-1, 1] to ``(N, 7)`` logits.

    ``normalised`` puts batch normalisation (``norm1``..``norm3``) before each activation, for training only;
    :func:`folded` takes it out again.
    """
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for index in (1, 2):
        layers[f"conv{index}"] = nn.Conv2d(CHANNELS[index - 1], CHANNELS[index], 3, padding=1)
        if normalised:
            layers[f"norm{index}"] = nn.BatchNorm2d(CHANNELS[index])
        layers[f"act{index}"] = activation()
        layers[f"pool{index}"] = nn.AvgPool2d(2)
    layers["flatten"] = nn.Flatten()
    layers["fc1"] = nn.Linear(FEATURES[0], FEATURES[1])
    if normalised:
        layers["norm3"] = nn.BatchNorm1d(FEATURES[1])
    layers["act3"] = activation()
    layers["fc2"] = nn.Linear(FEATURES[1], FEATURES[2])
    return nn.Sequential(layers)


def folded(model: nn.Sequential) -> nn.Sequential:
    """The same function in evaluation mode without batch normalisation: exactly the shipped layers."""
    source = dict(model.named_children())
    plain = network(FourierActivation)
    target = dict(plain.named_children())
    with torch.no_grad():
        for name, norm_name in (("conv1", "norm1"), ("conv2", "norm2"), ("fc1", "norm3"), ("fc2", "")):
            layer, new = cast(nn.Linear, source[name]), cast(nn.Linear, target[name])
            weight: torch.Tensor = layer.weight
            bias: torch.Tensor = layer.bias
            if norm_name:
                norm = cast(nn.BatchNorm2d, source[norm_name])
                mean, variance = cast(torch.Tensor, norm.running_mean), cast(torch.Tensor, norm.running_var)
                scale = norm.weight / torch.sqrt(variance + norm.eps)
                weight = weight * scale.reshape(-1, *[1] * (weight.dim() - 1))
                bias = (bias - mean) * scale + norm.bias
            new.weight.copy_(weight)
            new.bias.copy_(bias)
    return plain


def build_torch(exact_sigmoid: bool = False) -> nn.Sequential:
    """The shipped network in evaluation mode, float32.

    ``exact_sigmoid`` takes ``torch.nn.Sigmoid``; otherwise the activations are :class:`FourierActivation`,
    what the parties evaluate.
    """
    model = network(nn.Sigmoid if exact_sigmoid else FourierActivation)
    model.load_state_dict({name: torch.from_numpy(array) for name, array in load_weights().items()})
    return model.eval()
