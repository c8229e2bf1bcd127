"""Norms by stored statistics, taken into the linear layers before them: the same, by an opening less."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
import numpy as np

from mpc.errors import UnsupportedError
from nn.activations import Ranged
from nn.architecture import Architecture, Step, local_weights
from nn.dimensions import Conv1d, Conv3d, ConvTranspose1d
from nn.functional import Affine, Permute, Reshape
from nn.layer import Array, Layer
from nn.layers import AdaptivePool2d, BatchNorm, BatchNorm2d, Conv2d, Flatten, Identity, Linear, Pool2d, Rows
from nn.rectifiers import Elementwise, PReLU
from nn.transposed import ConvTranspose2d
from nn.transposed_volumes import ConvTranspose3d

Weights = Mapping[str, Array]
_Convolution = Conv1d | Conv2d | Conv3d | ConvTranspose1d | ConvTranspose2d | ConvTranspose3d
_DIMENSIONS: dict[type[Layer], int] = {
    Conv1d: 3,
    ConvTranspose1d: 3,
    Conv2d: 4,
    ConvTranspose2d: 4,
    Conv3d: 5,
    ConvTranspose3d: 5,
}
"""Of what each gives, the batch's and the channels' among them."""


def folded(architecture: Architecture, weights: Weights) -> tuple[Architecture, Weights]:
    """Without the BatchNorms that follow a Linear or a convolution of their own; the very same where there are none."""
    while (found := _one(architecture, weights)) is not None:
        architecture, weights = found
    return architecture, weights


def _one(architecture: Architecture, weights: Weights) -> tuple[Architecture, Weights] | None:
    """With the first of them gone; None if there is none."""
    names = [step.name for step in architecture.steps]
    # What is another's too stays as it is.
    tied = {architecture.owner(name) for pair in architecture.tied.items() for name in pair}
    for number, step in enumerate(architecture.steps):
        if not isinstance(step.layer, BatchNorm) or not (source := step.inputs[0]):
            continue
        before = architecture.steps[source - 1]
        alone = architecture.uses[source] == 1 and names.count(before.name) == 1 and names.count(step.name) == 1
        if not alone or before.name in tied or not isinstance(before.layer, Linear | _Convolution):
            continue
        if isinstance(before.layer, Linear):
            if before.layer.out_features != step.layer.num_features or 2 not in step.layer.ndims:
                continue
            # Channels are axis 1, a Linear's outputs the last one.
            ndim = _ndim(architecture, weights, source)
            if ndim in (2, None):
                return _without(architecture, weights, source - 1, number, guarded=ndim is None)
        elif (
            before.layer.out_channels == step.layer.num_features and _DIMENSIONS[type(before.layer)] in step.layer.ndims
        ):
            return _without(architecture, weights, source - 1, number, guarded=False)
    return None


def _ndim(architecture: Architecture, weights: Weights, value: int) -> int | None:
    """Axes of a value, the batch's included, as far as the architecture tells."""
    steps, shape = architecture.steps, architecture.input_shape
    if shape is not None:
        return architecture.values(np.zeros((1, *shape)), weights)[value].ndim
    while value:
        layer = steps[value - 1].layer
        if isinstance(layer, Conv2d | Pool2d | AdaptivePool2d | BatchNorm2d):
            return 4
        if isinstance(layer, Rows) or layer == Flatten():
            return 2
        if isinstance(layer, Reshape | Permute):
            return 1 + len(layer.shape) if isinstance(layer, Reshape) else len(layer.dims)
        if not isinstance(layer, Linear | Ranged | Elementwise | PReLU | Identity | Affine):
            return None
        (value,) = steps[value - 1].inputs
    return None


def _without(
    architecture: Architecture, weights: Weights, linear: int, norm: int, *, guarded: bool
) -> tuple[Architecture, Weights]:
    """``guarded``: a layer that takes (N, features) alone stays in the norm's place."""
    steps, changed = list(architecture.steps), dict(weights)
    before, after = steps[linear], steps[norm]
    if not isinstance(after.layer, BatchNorm) or not isinstance(before.layer, Linear | _Convolution):
        raise UnsupportedError("only a BatchNorm after a Linear or a convolution can be folded")
    scale, shift = after.layer.scale_and_shift(local_weights(after.name, changed))
    weight = f"{before.name}.weight"
    changed[weight] = _scaled(before.layer, changed[weight], scale)
    changed[f"{before.name}.bias"] = changed.get(f"{before.name}.bias", np.zeros_like(shift)) * scale + shift
    for local in after.layer.parameters:
        del changed[f"{after.name}.{local}"]

    steps[linear] = Step(before.name, msgspec.structs.replace(before.layer, bias=True), before.inputs)
    if guarded:
        steps[norm] = Step(after.name, Rows(), after.inputs)
        return msgspec.structs.replace(architecture, steps=tuple(steps)), changed

    def moved(i: int) -> int:
        """An index of a value once the norm's is the linear layer's."""
        return linear + 1 if i == norm + 1 else i - (i > norm + 1)

    kept = [Step(s.name, s.layer, tuple(map(moved, s.inputs))) for n, s in enumerate(steps) if n != norm]
    return msgspec.structs.replace(architecture, steps=tuple(kept)), changed


def _scaled(layer: Layer, weight: Array, scale: Array) -> Array:
    """Each output's numbers times its scale; a transposed convolution has (in, out of its group, ...)."""
    if not isinstance(layer, ConvTranspose1d | ConvTranspose2d | ConvTranspose3d):
        return weight * scale.reshape(-1, *(1,) * (weight.ndim - 1))
    groups = layer.groups
    parts = weight.reshape(groups, len(weight) // groups, *weight.shape[1:])
    return (parts * scale.reshape(groups, 1, -1, *(1,) * (weight.ndim - 2))).reshape(weight.shape)
