"""The dermatology CNN as a torch module.  Needs torch; party and dealer processes never import this."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import cast

import torch
from torch import nn

from nn.derm.reference import load_weights
from nn.importing.torch_activation import FourierActivation

CHANNELS = (3, 16, 32)
FEATURES = (1568, 64, 7)


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
