"""What a layer is: one frozen record that says everything about one step of a network.

A layer holds no numbers of its own, only its arguments, under the names ``torch.nn`` gives them: an
architecture is data that can be sent, read and checked.  The weights come beside it, as float arrays in
torch's layout or as secret tensors in the layout the parties store (``tensors`` turns the one into the
other).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from mpc.errors import ShapeError, UnsupportedError
from mpc.tensor_type import Shape
from protocols.trace.secret_tensor import SecretTensor

Array = npt.NDArray[np.float64]
Arrays = Mapping[str, Array]
Secrets = Mapping[str, SecretTensor]
Pair = int | tuple[int, int]

MAX_SIZE = 2**24
"""Of a single argument: features, channels, window."""
MAX_WEIGHTS = 2**28
"""Elements of one weight."""


class WeightArray(NamedTuple):
    """A float array as the parties will store it, and the axes along which a linear layer sums over it.

    ``contracted`` is None for what is added or multiplied elementwise, such as a bias.  ``bits``: fraction bits to
    store it with, of which ``exact`` values are multiples; None: as many as its size and gain suggest.
    """

    values: Array
    contracted: tuple[int, ...] | None = None
    bits: int | None = None
    exact: bool = False


class Layer(
    msgspec.Struct,
    frozen=True,
    forbid_unknown_fields=True,
    tag_field="type",
    tag=True,
    repr_omit_defaults=True,
):
    """Base of every layer; subclasses are known by their class name, in JSON as well."""

    operands: ClassVar[int] = 1
    """How many tensors it takes; -1 for one or more."""

    @property
    def parameters(self) -> dict[str, Shape]:
        """Names and shapes of its weights, as in torch's ``state_dict``."""
        return {}

    @property
    def is_settled(self) -> bool:
        """Whether whoever reads it evaluates the same numbers, and at once: nothing is left to find out."""
        return True

    @property
    def settled(self) -> Layer:
        """The same with nothing left to find out."""
        return self

    def tensors(self, weights: Arrays) -> dict[str, WeightArray]:
        """What the parties store of its weights, by local name."""
        return {}

    def check_batch(self, shapes: Sequence[Shape], batched: Sequence[bool]) -> None:
        """Raise ShapeError for operands of these shapes if an image's result would depend on the others in its batch.

        ``batched``: which of them have the batch as their first axis, one at least; the others are the same for all.
        """

    def forward(self, *inputs: SecretTensor, weights: Secrets) -> SecretTensor:
        """The layer on secret tensors; ``weights`` are its stored tensors by local name.

        Raises ShapeError where shapes do not go together, and RangeError where values cannot be shown to fit.
        """
        raise NotImplementedError

    def plain(self, *inputs: Array, weights: Arrays, exact: bool = False) -> Array:
        """The same in float64, with the approximations the parties evaluate, or with ``exact`` functions.

        ``weights`` are in torch's layout, by local name.  Raises ShapeError.
        """
        raise NotImplementedError


class OneFormula(Layer, frozen=True):
    """A formula in NumPy's words of one tensor: of a secret one another, of an array another."""

    def forward(self, *inputs: SecretTensor, weights: Secrets) -> SecretTensor:
        y: SecretTensor = self._of(inputs[0])
        return y

    def plain(self, *inputs: Array, weights: Arrays, exact: bool = False) -> Array:
        return np.asarray(self._of(inputs[0]))

    def _of(self, x: Any) -> Any:
        raise NotImplementedError


def check_size(name: str, value: int, least: int = 1) -> None:
    """Raise UnsupportedError unless a layer's argument is an integer from ``least`` to ``MAX_SIZE``."""
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= MAX_SIZE:
        raise UnsupportedError(f"{name} must be an integer from {least} to {MAX_SIZE}, not {value!r}")


def check_pair(name: str, value: Pair, least: int = 1) -> None:
    """The same for one integer or two."""
    if isinstance(value, tuple) and len(value) != 2:
        raise UnsupportedError(f"{name} must be one integer or two, not {value!r}")
    for n in pair(value):
        check_size(name, n, least)


def check_groups(in_channels: int, out_channels: int, groups: int) -> None:
    """Raise UnsupportedError unless a convolution's channels, in and out, divide into as many groups."""
    if in_channels % groups or out_channels % groups:
        raise UnsupportedError(f"{in_channels} and {out_channels} channels do not divide into {groups} groups")


def check_weights(shape: Shape) -> None:
    """Raise UnsupportedError for a weight that is too large to be meant."""
    if math.prod(shape) > MAX_WEIGHTS:
        raise UnsupportedError(f"a weight of shape {shape} has more than {MAX_WEIGHTS} elements")


def check_finite(name: str, *values: float) -> None:
    """Raise UnsupportedError unless all are finite numbers."""
    if not all(isinstance(v, (int, float)) and math.isfinite(v) for v in values):
        raise UnsupportedError(f"{name} must be finite")


def check_images(x: SecretTensor | Array, layer: Layer, channels: int | None = None) -> None:
    """Raise ShapeError unless ``x`` is (N, C, H, W), with this many channels."""
    if x.ndim != 4 or (channels is not None and x.shape[1] != channels):
        wanted = "C" if channels is None else str(channels)
        raise ShapeError(f"{type(layer).__name__} takes (N, {wanted}, H, W), not a tensor of shape {x.shape}")


def pair(value: Pair) -> tuple[int, int]:
    """An integer means the same in both directions."""
    return value if isinstance(value, tuple) else (value, value)


def axis_of(axis: int, ndim: int) -> int:
    """A non-negative axis; ShapeError if there is none such."""
    if not -ndim <= axis < ndim:
        raise ShapeError(f"there is no dimension {axis} in a tensor of {ndim} dimensions")
    return axis % ndim
