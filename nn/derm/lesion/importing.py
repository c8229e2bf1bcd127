"""From the trained torch module to the model that ships.  Needs torch."""

from __future__ import annotations

import copy
from pathlib import Path

import msgspec
import numpy as np
import torch
from torch import nn

from mpc import fixed_point
from nn.assuming import assuming
from nn.derm.lesion.fit import network_input
from nn.derm.lesion.model import INTERFACE
from nn.importing.from_torch import from_torch
from nn.layer import Array
from nn.layers import Conv2d, Linear
from nn.model import Model
from nn.rectifiers import Assumed, ReLU
from nn.saved import Saved, save

MARGIN = 2.0
"""By which ranges exceed what images show, those among them that go farthest of many: of 748 one goes four times as far
as 128 do."""


def imported(net: nn.Sequential, images: torch.Tensor) -> Model:
    """``folded(net)`` as a model: with what its blocks give assumed to lie where ``images`` lead to.

    What a block gives has a sixth of the values, or less, that each of its rectifiers takes.
    """
    model = kept(from_torch(net, example_input=torch.zeros(1, 3, *images.shape[2:]), interface=INTERFACE))
    return assuming(model, inputs(images), after=narrow(model), margin=MARGIN)


def wider(model: Model, other: Model) -> Model:
    """With each range as wide as the wider one of both, whose steps are the same."""
    both = zip(model.architecture.steps, other.architecture.steps, strict=True)
    steps = [
        msgspec.structs.replace(step, layer=max(step.layer, its.layer, key=lambda layer: layer.interval[1]))
        if isinstance(step.layer, Assumed) and isinstance(its.layer, Assumed)
        else step
        for step, its in both
    ]
    return Model(msgspec.structs.replace(model.architecture, steps=tuple(steps)), model.weights, model.interface)


def kept(model: Model) -> Model:
    """With weights rounded as parties keep them, so that these compute what it does but for the last places.

    A number that float16 has, rounded to a multiple of a power of two, is one that float16 has.
    """
    types = Model(model.architecture, model.weights).stored_types()
    bits = {name: t.fraction_bits for name, t in types.items()}
    weights = {n: fixed_point.decode(fixed_point.encode(w, bits[n]), bits[n]) for n, w in model.weights.items()}
    return Model(model.architecture, weights, model.interface)


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


def rewritten(net: nn.Sequential, model: Model) -> nn.Sequential:
    """``folded(net)`` with the weights of the ``model`` that was made of it."""
    plain = copy.deepcopy(net)
    plain.load_state_dict({name: torch.from_numpy(array) for name, array in model.weights.items()})
    return plain


def write(model: Model, path: Path) -> None:
    """With weights as float16, which they are already: see ``folded``."""
    weights = {name: array.astype(np.float16) for name, array in model.weights.items()}
    save(path, Saved(model.architecture, model.interface), weights)
