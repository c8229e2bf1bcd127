"""From the trained torch module to the model that ships.  Needs torch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import nn

from nn.assuming import assuming
from nn.derm.lesion.fit import network_input
from nn.derm.lesion.model import INTERFACE
from nn.importing.from_torch import from_torch
from nn.layer import Array
from nn.layers import Conv2d, Linear
from nn.model import Model
from nn.rectifiers import Assumed, ReLU
from nn.saved import Saved, save

MARGIN = 7.0
"""By which ranges exceed what training images show: one validation image of 748 goes twice as far as 128 of them."""


def imported(net: nn.Sequential, images: torch.Tensor) -> Model:
    """``folded(net)`` as a model: with what its blocks give assumed to lie where training ``images`` lead to.

    What a block gives has a sixth of the values, or less, that each of its rectifiers takes.
    """
    model = from_torch(net, example_input=torch.zeros(1, 3, *images.shape[2:]), interface=INTERFACE)
    return assuming(model, inputs(images), after=narrow(model), margin=MARGIN)


def narrow(model: Model) -> list[str]:
    """The steps whose results a linear layer takes as they are: what blocks give."""
    steps = model.architecture.steps
    taken = {step.inputs[0] for step in steps if isinstance(step.layer, Conv2d | Linear)}
    return [
        step.name
        for number, step in enumerate(steps, 1)
        if number in taken and not isinstance(step.layer, ReLU | Assumed)
    ]


def inputs(images: torch.Tensor) -> Array:
    """uint8 photographs after colour constancy, as the model takes them."""
    return network_input(images.float().div_(255)).numpy().astype(np.float64)


def write(model: Model, path: Path) -> None:
    """With weights as float16, which they are already: see ``folded``."""
    weights = {name: array.astype(np.float16) for name, array in model.weights.items()}
    save(path, Saved(model.architecture, model.interface), weights)
