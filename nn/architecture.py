"""An architecture is data: the steps of a network and what goes into each, without a single weight.

It is written as JSON and read back with every argument checked: a stranger's architecture can be large or
useless, but not run anything or ask for more than the stated limits.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TypeVar

import msgspec
import numpy as np

from mpc.decoders import json_decoder
from mpc.errors import ShapeError, TesseraError, UnsupportedError, UsageError, printable
from mpc.program import MAX_LABEL
from mpc.tensor_type import MAX_DIMENSIONS, Shape
from nn import activations as a
from nn import attention as e
from nn import choosing as ch
from nn import columns as c
from nn import dimensions as d
from nn import functional as f
from nn import kernels as k
from nn import layers as ly
from nn import lookups as lk
from nn import norms as n
from nn import parts as p
from nn import rectifiers as r
from nn import recurrent as rn
from nn import resizing as rs
from nn import sampling as sm
from nn import softmax as s
from nn import transposed as tc
from nn import transposed_volumes as tv
from nn import trees as t
from nn.layer import MAX_WEIGHTS, Array, Layer, WeightArray
from protocols.trace.secret_tensor import SecretTensor

MAX_STEPS = 4096
MAX_BYTES = 16 * 2**20
MAX_ELEMENTS = 2**30
"""Of all weights together."""

_Value = TypeVar("_Value")
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]*")

AnyLayer = (
    ly.Linear | ly.Conv2d | ly.AvgPool2d | ly.AdaptiveAvgPool2d | ly.BatchNorm1d | ly.BatchNorm2d
    | ly.BatchNorm3d | ly.Flatten | ly.Identity | ly.Rows | ly.Dropout
    | a.Sigmoid | a.Tanh | a.SiLU | a.GELU | a.Softplus | a.Mish | a.Function | a.Polynomial | a.Activation
    | r.ReLU | r.Assumed | r.LeakyReLU | r.ReLU6 | r.Hardtanh | r.Hardsigmoid | r.Hardswish
    | r.ELU | r.SELU | r.CELU | r.LogSigmoid | r.Softsign | r.Softshrink | r.Abs | r.PReLU
    | r.MaxPool2d | r.AdaptiveMaxPool2d | s.Softmax | s.LogSoftmax
    | n.LayerNorm | n.RMSNorm | n.GroupNorm | n.InstanceNorm1d | n.InstanceNorm2d | n.InstanceNorm3d
    | n.Norm | n.Normalize | n.CosineSimilarity | e.ScaledDotProductAttention
    | f.Add | f.Subtract | f.Multiply | f.Matmul | f.Affine | f.Parameter
    | f.Maximum | f.Minimum
    | rs.Upsample | rs.Pad | rs.PixelShuffle | rs.PixelUnshuffle | rs.ChannelShuffle
    | d.Conv1d | d.Conv3d | d.ConvTranspose1d | tc.ConvTranspose2d
    | tv.ConvTranspose3d
    | d.AvgPool1d | d.AvgPool3d | d.AdaptiveAvgPool1d | d.AdaptiveAvgPool3d
    | d.MaxPool1d | d.MaxPool3d | d.AdaptiveMaxPool1d | d.AdaptiveMaxPool3d
    | ch.Take | ch.CumSum | ch.Amax | ch.Amin | ch.Clamp | ch.Threshold | ch.Hardshrink
    | lk.Embedding | lk.OneHot | lk.ArgMax | lk.Compare | lk.Where
    | sm.Unfold | sm.Fold | sm.GridSample | sm.TopK
    | rn.RNN | rn.LSTM | rn.GRU
    | f.Concatenate | f.Mean | f.Reshape | f.Permute | p.Part
    | t.Trees | k.RBF | k.OneAgainstOne | c.Columns
)  # fmt: skip


class Step(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One layer at work.  ``inputs`` are indices of earlier values: 0 is the model's input, k the result of
    step k - 1.

    ``name`` is the layer's path, as in torch; its weights are ``name.weight`` and so on.  Two steps of one
    name are the same layer used twice.
    """

    name: str
    layer: AnyLayer
    inputs: tuple[int, ...]


class Architecture(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The steps of a network in order; the last one's value is the result.  Checked when made.

    ``input_shape`` is one input's, without the batch, where it is known.  ``tied``: parameters that are another one, by
    full name, as an output projection that is the table of words; what is stored is the other's.  That they are one is
    public.  Raises UnsupportedError.
    """

    steps: tuple[Step, ...]
    input_shape: Shape | None = None
    tied: dict[str, str] = {}

    def __post_init__(self) -> None:
        if not 0 < len(self.steps) <= MAX_STEPS:
            raise UnsupportedError(f"a model has 1 to {MAX_STEPS} layers, not {len(self.steps)}")
        if self.input_shape is not None and (
            len(self.input_shape) >= MAX_DIMENSIONS or any(not 0 < n <= MAX_WEIGHTS for n in self.input_shape)
        ):
            raise UnsupportedError(f"{self.input_shape} is not an input's shape")
        layers: dict[str, Layer] = {}
        for number, step in enumerate(self.steps):
            if len(step.name) > MAX_LABEL or not _NAME.fullmatch(step.name):
                raise UnsupportedError(f"the name of layer {number} is not letters, digits, dots and underscores")
            if any(not 0 <= i <= number for i in step.inputs):
                raise UnsupportedError(f"layer {step.name!r} takes values that no earlier layer makes")
            wanted = step.layer.operands
            if (not step.inputs) if wanted < 0 else (len(step.inputs) != wanted):
                raise UnsupportedError(f"layer {step.name!r} takes {wanted} inputs, not {len(step.inputs)}")
            if layers.setdefault(step.name, step.layer) != step.layer:
                raise UnsupportedError(f"two different layers are named {step.name!r}")
        shapes = [shape for layer in layers.values() for shape in layer.parameters.values()]
        if sum(math.prod(shape) for shape in shapes) > MAX_ELEMENTS:
            raise UnsupportedError(f"a model of more than {MAX_ELEMENTS} weights")
        for name, held in self.tied.items():
            kept = self._kept(name, layers)
            if held in self.tied or kept is None or kept != self._kept(held, layers):
                raise UnsupportedError(
                    f"{printable(name)} and {printable(held)} are no parameters that are stored as one tensor"
                )

    @staticmethod
    def _kept(name: str, layers: Mapping[str, Layer]) -> tuple[Shape, Shape] | None:
        """The shapes of a parameter and of what is stored of it, under its name; None if that is not the parameter."""
        owner, _, local = name.rpartition(".")
        layer = layers.get(owner)
        shape = None if layer is None else layer.parameters.get(local)
        if layer is None or shape is None:
            return None
        stored = layer.tensors({name: np.broadcast_to(1.0, shape) for name, shape in layer.parameters.items()})
        return (shape, stored[local].values.shape) if local in stored else None

    @property
    def layers(self) -> dict[str, Layer]:
        """Every layer once, by name, in order of first use."""
        return {step.name: step.layer for step in self.steps}

    @property
    def is_settled(self) -> bool:
        """Whether all of its layers are: see ``Layer.is_settled``."""
        return all(layer.is_settled for layer in self.layers.values())

    @property
    def settled(self) -> Architecture:
        """The same with nothing left to find out; itself if it is so already."""
        if self.is_settled:
            return self
        layers = {name: layer.settled for name, layer in self.layers.items()}
        steps = tuple(msgspec.structs.replace(step, layer=layers[step.name]) for step in self.steps)
        return msgspec.structs.replace(self, steps=steps)

    @property
    def parameters(self) -> dict[str, Shape]:
        """Names and shapes of all weights, as in torch's ``state_dict``, each once."""
        found = {
            full_name(name, local): shape
            for name, layer in self.layers.items()
            for local, shape in layer.parameters.items()
        }
        return {name: shape for name, shape in found.items() if name not in self.tied}

    @property
    def stored_shapes(self) -> dict[str, Shape]:
        """Names and shapes of what the parties store of them."""
        found = {}
        for name, layer in self.layers.items():
            # Views of a single number: a stranger's shapes take no memory to check.
            blank = {local: np.broadcast_to(1.0, shape) for local, shape in layer.parameters.items()}
            found.update({full_name(name, local): t.values.shape for local, t in layer.tensors(blank).items()})
        return {name: shape for name, shape in found.items() if name not in self.tied}

    def tensors(self, weights: Mapping[str, Array]) -> dict[str, WeightArray]:
        """What the parties store of these weights, by name."""
        return {name: tensor for layer in self.layers for name, tensor in self.tensors_of(layer, weights).items()}

    def tensors_of(self, layer: str, weights: Mapping[str, Array]) -> dict[str, WeightArray]:
        """Of one layer, by full name; without those that are another's."""
        tensors = self._tensors(layer, weights)
        return {name: tensor for name, tensor in tensors.items() if name not in self.tied}

    def tied_tensors(self, weights: Mapping[str, Array]) -> dict[str, list[WeightArray]]:
        """Those that are stored once for several parameters, by name: as each of these would be stored."""
        found: dict[str, list[WeightArray]] = {}
        for name, held in self.tied.items():
            first = [] if held in found else [held]
            each = [self._tensors(self.owner(one), weights)[one] for one in (*first, name)]
            found.setdefault(held, []).extend(each)
        return found

    def _tensors(self, layer: str, weights: Mapping[str, Array]) -> dict[str, WeightArray]:
        it = self.layers[layer]
        tensors = it.tensors(self.weights_of(layer, it, weights))
        return {full_name(layer, local): tensor for local, tensor in tensors.items()}

    def weights_of(self, name: str, layer: Layer, weights: Mapping[str, _Value]) -> dict[str, _Value]:
        """The weights of one layer, by local name, those among them that are another's."""
        found = local_weights(name, weights)
        if self.tied:
            tied = {local: self.tied.get(full_name(name, local)) for local in layer.parameters}
            found |= {local: weights[held] for local, held in tied.items() if held is not None}
        return found

    def owner(self, tensor: str) -> str:
        """The layer that stores it.  Raises KeyError."""
        layers, name = self.layers, tensor
        while name not in layers:
            if not name:
                raise KeyError(tensor)
            name = name.rpartition(".")[0]
        return name

    @property
    def uses(self) -> Counter[int]:
        """How many operands each value is."""
        return Counter(i for step in self.steps for i in step.inputs)

    @property
    def _batched(self) -> list[bool]:
        """Of each value, whether it is computed from the input; else it is the same for all images."""
        batched = [True]
        for step in self.steps:
            batched.append(any(batched[i] for i in step.inputs))
        return batched

    def forward(self, x: SecretTensor, stored: Mapping[str, SecretTensor]) -> SecretTensor:
        """The network on a secret batch; operations are counted under their layer's name.

        ``stored`` holds the stored tensors by full name.  Errors of a layer name it.
        """
        self.check_input(x.shape)
        values, batched = [x], self._batched
        for step in self.steps:
            own = self.weights_of(step.name, step.layer, stored)
            weights = {local: w.labelled(step.name) for local, w in own.items()}
            inputs = [values[i].labelled(step.name) for i in step.inputs]
            try:
                _check_batch(step, inputs, batched)
                values.append(step.layer.forward(*inputs, weights=weights))
            except UsageError as error:
                raise type(error)(f"layer {step.name!r}: {error}") from None
        return values[-1].labelled("")

    def values(self, x: Array, weights: Mapping[str, Array], exact: bool = False) -> list[Array]:
        """Every value of the plain network: the input, then each step's result."""
        self.check_input(x.shape)
        values, batched = [x], self._batched
        for step in self.steps:
            inputs = [values[i] for i in step.inputs]
            try:
                _check_batch(step, inputs, batched)
                own = self.weights_of(step.name, step.layer, weights)
                values.append(step.layer.plain(*inputs, weights=own, exact=exact))
            except UsageError as error:
                raise type(error)(f"layer {step.name!r}: {error}") from None
        return values

    def check_input(self, shape: Shape) -> None:
        """Raise ShapeError unless ``shape`` is a batch of this model's inputs."""
        if not shape:
            raise ShapeError("a model takes a batch of inputs, not a single number")
        if self.input_shape is not None and shape[1:] != self.input_shape:
            wanted = ", ".join(map(str, ("N", *self.input_shape)))
            raise ShapeError(f"the model takes inputs of shape ({wanted}), not {shape}")

    def __repr__(self) -> str:
        return describe_steps(self)


def _check_batch(step: Step, inputs: Sequence[SecretTensor | Array], batched: Sequence[bool]) -> None:
    own = [batched[i] for i in step.inputs]
    if any(own):
        step.layer.check_batch([value.shape for value in inputs], own)


class Sequential:
    """Layers one after the other, as ``torch.nn.Sequential``.

    ``Sequential(a, b)``, or ``Sequential({"name": a, ...})`` with names in place of numbers.
    Layers may be ``Sequential`` themselves; names are joined by dots.
    """

    def __init__(self, *layers: Layer | Sequential | Mapping[str, Layer | Sequential]) -> None:
        named: Sequence[tuple[str, object]]
        if len(layers) == 1 and isinstance(layers[0], Mapping):
            named = list(layers[0].items())
        else:
            named = [(str(number), layer) for number, layer in enumerate(layers)]
        self.layers: list[tuple[str, Layer]] = []
        for name, layer in named:
            if isinstance(layer, Sequential):
                self.layers += [(f"{name}.{inner}", each) for inner, each in layer.layers]
            elif isinstance(layer, Layer):
                self.layers.append((name, layer))
            else:
                raise UnsupportedError(f"{name!r} is {type(layer).__name__}, which is not a layer of nn")

    def architecture(self, input_shape: Shape | None = None) -> Architecture:
        """The same as an architecture."""
        names = [name for name, _ in self.layers]
        if len(set(names)) != len(names):
            raise UnsupportedError("two layers have the same name")
        steps = tuple(Step(name, layer, (number,)) for number, (name, layer) in enumerate(self.layers))  # type: ignore[arg-type]
        return Architecture(steps, input_shape)


def full_name(name: str, local: str) -> str:
    """A weight's name in the model: ``conv1`` and ``weight`` make ``conv1.weight``; a parameter is its own."""
    return f"{name}.{local}" if local else name


def local_weights(name: str, weights: Mapping[str, _Value]) -> dict[str, _Value]:
    """The weights of layer ``name``, by local name."""
    prefix = f"{name}."
    found = {full[len(prefix) :]: weights[full] for full in weights if full.startswith(prefix)}
    return found | ({"": weights[name]} if name in weights else {})


def decode_architecture(data: bytes) -> Architecture:
    """Read an architecture from a stranger.  Raises UnsupportedError; runs nothing of what it reads."""
    return decode_json(data, Architecture)


def decode_json(data: bytes, kind: type[_Value]) -> _Value:
    """Read a checked record from JSON; anything wrong with it is an UnsupportedError."""
    if len(data) > MAX_BYTES:
        raise UnsupportedError(f"a description of {len(data)} bytes is over the limit of {MAX_BYTES}")
    try:
        value: _Value = json_decoder(kind).decode(data)
        return value
    except (TesseraError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError, ArithmeticError) as error:
        raise UnsupportedError(f"not a model's description: {printable(str(error))}") from None


def describe_steps(architecture: Architecture) -> str:
    """One line per layer, as torch prints a module; inputs are named where they are not the line before."""
    lines = []
    for number, step in enumerate(architecture.steps):
        source = ""
        if step.inputs != (number,):
            names = ("input" if i == 0 else architecture.steps[i - 1].name for i in step.inputs)
            source = f" <- {', '.join(names)}" if step.inputs else ""
        lines.append(f"  ({step.name}): {step.layer!r}{source}")
    return "Architecture(\n" + "\n".join(lines) + "\n)"
