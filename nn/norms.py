"""Layers that divide by a norm of their own input, named and argued as in ``torch.nn``; weights are stored secrets.

Over any number of orders of magnitude (``protocols/trace/norms.py``), in 5 to 7 rounds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import numpy as np

from mpc.errors import ShapeError, UnsupportedError
from mpc.tensor_type import MAX_DIMENSIONS, Shape
from nn.functional import mixing
from nn.layer import Array, Arrays, Layer, Secrets, WeightArray, axis_of, check_finite, check_size, check_weights
from protocols.trace.secret_tensor import SecretTensor

SINGLE = 2.0**-23
"""``eps`` of an RMSNorm that has none: the machine epsilon of torch's usual numbers."""


class _Normed(Layer, frozen=True):
    """What norms with weights have in common; ``_weighted`` says which they have, of which shape."""

    @property
    def _weighted(self) -> dict[str, Shape]:
        raise NotImplementedError

    @property
    def parameters(self) -> dict[str, Shape]:
        return self._weighted

    def tensors(self, weights: Arrays) -> dict[str, WeightArray]:
        return {name: WeightArray(weights[name]) for name in self._weighted}

    def _check(self, x: SecretTensor | Array) -> None:
        """Raise ShapeError for what it does not take."""
        raise NotImplementedError


def _check_eps(eps: float) -> None:
    check_finite("eps", eps)
    if eps < 0:
        raise UnsupportedError("eps is at least 0")


def _standardised(x: Array, axes: tuple[int, ...], eps: float, *, centred: bool = True) -> Array:
    centre = x - x.mean(axis=axes, keepdims=True) if centred else x
    return np.asarray(centre / np.sqrt((centre**2).mean(axis=axes, keepdims=True) + eps))


class _OverLast(_Normed, frozen=True):
    normalized_shape: Shape

    def __post_init__(self) -> None:
        if not 0 < len(self.normalized_shape) < MAX_DIMENSIONS:
            raise UnsupportedError(f"normalized_shape {self.normalized_shape}")
        for n in self.normalized_shape:
            check_size("normalized_shape", n)
        check_weights(self.normalized_shape)

    def _check(self, x: SecretTensor | Array) -> None:
        count = len(self.normalized_shape)
        if x.ndim <= count or x.shape[-count:] != self.normalized_shape:
            raise ShapeError(
                f"{type(self).__name__} takes a batch of tensors that end with {self.normalized_shape}, not one of"
                f" shape {x.shape}"
            )

    @property
    def _axes(self) -> tuple[int, ...]:
        return tuple(range(-len(self.normalized_shape), 0))


class LayerNorm(_OverLast, frozen=True):
    """Less the mean, over the standard deviation, of the last dimensions, which have this shape."""

    eps: float = 1e-5
    elementwise_affine: bool = True
    bias: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_eps(self.eps)

    @property
    def _weighted(self) -> dict[str, Shape]:
        names = ("weight", "bias") if self.bias else ("weight",)
        return dict.fromkeys(names if self.elementwise_affine else (), self.normalized_shape)

    def forward(self, *inputs: SecretTensor, weights: Secrets) -> SecretTensor:
        self._check(inputs[0])
        return inputs[0].layer_norm(self.normalized_shape, weights.get("weight"), weights.get("bias"), self.eps)

    def plain(self, *inputs: Array, weights: Arrays, exact: bool = False) -> Array:
        self._check(inputs[0])
        y = _standardised(inputs[0], self._axes, self.eps)
        return y * weights.get("weight", 1.0) + weights.get("bias", 0.0)


class RMSNorm(_OverLast, frozen=True):
    """Over the root of the mean square of the last dimensions, which have this shape."""

    eps: float | None = None
    elementwise_affine: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_eps(self._eps)

    @property
    def _eps(self) -> float:
        return SINGLE if self.eps is None else self.eps

    @property
    def _weighted(self) -> dict[str, Shape]:
        return {"weight": self.normalized_shape} if self.elementwise_affine else {}

    def forward(self, *inputs: SecretTensor, weights: Secrets) -> SecretTensor:
        self._check(inputs[0])
        return inputs[0].rms_norm(self.normalized_shape, weights.get("weight"), self._eps)

    def plain(self, *inputs: Array, weights: Arrays, exact: bool = False) -> Array:
        self._check(inputs[0])
        return _standardised(inputs[0], self._axes, self._eps, centred=False) * weights.get("weight", 1.0)


class _OverChannels(_Normed, frozen=True):
    """Of (N, C, ...), by groups of channels."""

    @property
    def _channels(self) -> int:
        raise NotImplementedError

    @property
    def _groups(self) -> int:
        raise NotImplementedError

    @property
    def _eps(self) -> float:
        raise NotImplementedError

    def forward(self, *inputs: SecretTensor, weights: Secrets) -> SecretTensor:
        self._check(inputs[0])
        return inputs[0].group_norm(self._groups, weights.get("weight"), weights.get("bias"), self._eps)

    def plain(self, *inputs: Array, weights: Arrays, exact: bool = False) -> Array:
        self._check(inputs[0])
        (x,) = inputs
        split = x.reshape(x.shape[0], self._groups, -1)
        y = _standardised(split, (2,), self._eps).reshape(x.shape)
        if not weights:
            return y
        scale, shift = (weights[name].reshape(-1, *(1,) * (x.ndim - 2)) for name in ("weight", "bias"))
        return y * scale + shift


class GroupNorm(_OverChannels, frozen=True):
    """Less the mean, over the standard deviation, of each group of neighbouring channels of (N, C, ...)."""

    num_groups: int
    num_channels: int
    eps: float = 1e-5
    affine: bool = True

    def __post_init__(self) -> None:
        check_size("num_groups", self.num_groups)
        check_size("num_channels", self.num_channels)
        _check_eps(self.eps)
        if self.num_channels % self.num_groups:
            raise UnsupportedError(f"{self.num_channels} channels do not divide into {self.num_groups} groups")

    @property
    def _weighted(self) -> dict[str, Shape]:
        return dict.fromkeys(("weight", "bias") if self.affine else (), (self.num_channels,))

    @property
    def _groups(self) -> int:
        return self.num_groups

    @property
    def _eps(self) -> float:
        return self.eps

    def _check(self, x: SecretTensor | Array) -> None:
        if x.ndim < 2 or x.shape[1] != self.num_channels:
            raise ShapeError(f"GroupNorm takes (N, {self.num_channels}, ...), not a tensor of shape {x.shape}")


class InstanceNorm(_OverChannels, frozen=True):
    """Less the mean, over the standard deviation, of each channel of each input; one that keeps statistics is a
    ``BatchNorm``.
    """

    ndim: ClassVar[int] = 0

    num_features: int
    eps: float = 1e-5
    affine: bool = False

    def __post_init__(self) -> None:
        check_size("num_features", self.num_features)
        _check_eps(self.eps)

    @property
    def _weighted(self) -> dict[str, Shape]:
        return dict.fromkeys(("weight", "bias") if self.affine else (), (self.num_features,))

    @property
    def _groups(self) -> int:
        return self.num_features

    @property
    def _eps(self) -> float:
        return self.eps

    def _check(self, x: SecretTensor | Array) -> None:
        if x.ndim != self.ndim or x.shape[1] != self.num_features:
            raise ShapeError(
                f"{type(self).__name__} takes {self.ndim} dimensions, (N, {self.num_features}, ...), not a tensor of"
                f" shape {x.shape}"
            )


class InstanceNorm1d(InstanceNorm, frozen=True):
    """Of (N, C, L)."""

    ndim: ClassVar[int] = 3


class InstanceNorm2d(InstanceNorm, frozen=True):
    """Of (N, C, H, W)."""

    ndim: ClassVar[int] = 4


class InstanceNorm3d(InstanceNorm, frozen=True):
    """Of (N, C, D, H, W)."""

    ndim: ClassVar[int] = 5


class _Along(Layer, frozen=True):
    """Along dimensions of each image."""

    def _axes(self, dims: tuple[int, ...], ndim: int) -> tuple[int, ...]:
        axes = tuple(sorted({axis_of(d, ndim) for d in dims}))
        if 0 in axes:
            raise ShapeError(f"a norm over dimensions {dims} of {ndim} would mix the images of the batch")
        return axes


def _check_dims(dims: tuple[int, ...]) -> None:
    if not dims or 0 in dims:
        raise UnsupportedError("a norm over the batch would mix its images: name other dimensions")


class Norm(_Along, frozen=True):
    """The norm of vectors along ``dim``: of order 1, 2 or infinity."""

    dim: tuple[int, ...]
    keepdim: bool = False
    order: Literal["1", "2", "inf"] = "2"

    def __post_init__(self) -> None:
        _check_dims(self.dim)

    def forward(self, *inputs: SecretTensor, weights: Secrets) -> SecretTensor:
        return inputs[0].norm(float(self.order), self._axes(self.dim, inputs[0].ndim), self.keepdim)

    def plain(self, *inputs: Array, weights: Arrays, exact: bool = False) -> Array:
        (x,) = inputs
        axes, sizes = self._axes(self.dim, x.ndim), np.abs(x)
        match self.order:
            case "1":
                return np.asarray(sizes.sum(axis=axes, keepdims=self.keepdim))
            case "2":
                return np.asarray(np.sqrt((x**2).sum(axis=axes, keepdims=self.keepdim)))
        return np.asarray(sizes.max(axis=axes, keepdims=self.keepdim))


class Normalize(_Along, frozen=True):
    """Unit vectors along ``dim``: over the root of the sum of squares, or ``eps`` where that is less."""

    dim: tuple[int, ...] = (1,)
    eps: float = 1e-12

    def __post_init__(self) -> None:
        _check_dims(self.dim)
        _check_eps(self.eps)

    def forward(self, *inputs: SecretTensor, weights: Secrets) -> SecretTensor:
        return inputs[0].normalize(self._axes(self.dim, inputs[0].ndim), self.eps)

    def plain(self, *inputs: Array, weights: Arrays, exact: bool = False) -> Array:
        return _unit(inputs[0], self._axes(self.dim, inputs[0].ndim), self.eps)


def _unit(x: Array, axes: tuple[int, ...], eps: float) -> Array:
    size = np.sqrt((x**2).sum(axis=axes, keepdims=True))
    return np.asarray(x / np.maximum(size, eps or math.ulp(0.0)))


class CosineSimilarity(_Along, frozen=True):
    """The products of unit vectors of two tensors, summed along ``dim``."""

    operands: ClassVar[int] = 2

    dim: int = 1
    eps: float = 1e-8

    def __post_init__(self) -> None:
        _check_dims((self.dim,))
        _check_eps(self.eps)

    def check_batch(self, shapes: Sequence[Shape], batched: Sequence[bool]) -> None:
        """As for sums."""
        ndim = max(map(len, shapes))
        for shape, own in zip(shapes, batched, strict=True):
            if len(shape) != ndim or (not own and shape[0] != 1):
                raise mixing(self, shapes)

    def forward(self, *inputs: SecretTensor, weights: Secrets) -> SecretTensor:
        x, y = self._aligned(*inputs)
        both: SecretTensor = x.normalize(self.dim, self.eps) * y.normalize(self.dim, self.eps)
        return both.sum(self.dim)

    def plain(self, *inputs: Array, weights: Arrays, exact: bool = False) -> Array:
        x, y = self._aligned(*inputs)
        axes = (axis_of(self.dim, x.ndim),)
        return np.asarray((_unit(x, axes, self.eps) * _unit(y, axes, self.eps)).sum(axis=self.dim))

    def _aligned(self, x: Any, y: Any) -> tuple[Any, Any]:
        """Both of one number of dimensions, one of which is that of the vectors."""
        (axis,) = self._axes((self.dim,), x.ndim)
        if x.ndim != y.ndim or x.shape[axis] != y.shape[axis]:
            raise ShapeError(f"CosineSimilarity of shapes {x.shape} and {y.shape}")
        return x, y
