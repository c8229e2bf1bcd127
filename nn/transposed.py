"""Transposed convolutions, without a zero that is multiplied: each of the s x s places that a pixel becomes has a
kernel of its own, every s-th row and column of the whole one, and all are one convolution of as many more channels.
"""

from __future__ import annotations

import numpy as np

from mpc.errors import ShapeError, UnsupportedError
from mpc.tensor_type import Shape
from nn import windows
from nn.layer import (
    Array,
    Arrays,
    Layer,
    Pair,
    Secrets,
    WeightArray,
    check_groups,
    check_images,
    check_pair,
    check_size,
    check_weights,
    pair,
)
from nn.resizing import Tensor
from protocols.trace.secret_tensor import SecretTensor


class ConvTranspose2d(Layer, frozen=True):
    """The transpose of a ``Conv2d`` of these arguments, of (N, C, H, W)."""

    in_channels: int
    out_channels: int
    kernel_size: Pair
    stride: Pair = 1
    padding: Pair = 0
    output_padding: Pair = 0
    groups: int = 1
    bias: bool = True
    dilation: Pair = 1

    def __post_init__(self) -> None:
        for name in ("in_channels", "out_channels", "groups"):
            check_size(name, getattr(self, name))
        for name in ("kernel_size", "stride", "dilation"):
            check_pair(name, getattr(self, name))
        for name in ("padding", "output_padding"):
            check_pair(name, getattr(self, name), least=0)
        check_groups(self.in_channels, self.out_channels, self.groups)
        for more, s, d in zip(pair(self.output_padding), pair(self.stride), pair(self.dilation), strict=True):
            if more >= max(s, d):
                raise UnsupportedError("output_padding is smaller than stride or dilation")
        check_weights(self._stored)

    @property
    def _parts(self) -> tuple[int, int]:
        """Height and width of the kernel of each place."""
        sizes = zip(pair(self.kernel_size), pair(self.stride), pair(self.dilation), strict=True)
        height, width = (-(-(d * (k - 1) + 1) // s) for k, s, d in sizes)
        return height, width

    @property
    def _stored(self) -> Shape:
        s, t = pair(self.stride)
        return (self.out_channels * s * t, self.in_channels // self.groups, *self._parts)

    @property
    def parameters(self) -> dict[str, Shape]:
        bias: dict[str, Shape] = {"bias": (self.out_channels,)} if self.bias else {}
        shape = (self.in_channels, self.out_channels // self.groups, *pair(self.kernel_size))
        return {"weight": shape, **bias}

    def tensors(self, weights: Arrays) -> dict[str, WeightArray]:
        bias = {"bias": WeightArray(weights["bias"])} if self.bias else {}
        return {"weight": WeightArray(self._kernels(weights["weight"]), contracted=(1, 2, 3)), **bias}

    def _kernels(self, weight: Array) -> Array:
        """(in, out / groups, kh, kw) as the kernels of all places, turned: (out s s', in / groups, mh, mw)."""
        (height, width), (s, t), (d, e) = self._parts, pair(self.stride), pair(self.dilation)
        each, out = self.in_channels // self.groups, self.out_channels // self.groups
        whole = np.zeros((self.in_channels, out, height * s, width * t))
        rows, columns = (step * np.arange(k) for step, k in zip((d, e), weight.shape[2:], strict=True))
        whole[:, :, rows[:, None], columns] = weight
        parts = whole.reshape(self.groups, each, out, height, s, width, t)[:, :, :, ::-1, :, ::-1, :]
        return np.ascontiguousarray(parts.transpose(0, 2, 4, 6, 1, 3, 5).reshape(self._stored))

    def forward(self, *inputs: SecretTensor, weights: Secrets) -> SecretTensor:
        check_images(inputs[0], self, self.in_channels)
        height, width = self._parts
        around = (height - 1, width - 1)
        y = self._shuffled(inputs[0].conv2d(weights["weight"], padding=around, groups=self.groups))
        first, last, more = self._sides(inputs[0].shape)
        y = y[:, :, first[0] : last[0], first[1] : last[1]]
        if any(more):
            y = y.pad(((0, 0), (0, 0), (0, more[0]), (0, more[1])))
        return y + weights["bias"].reshape(1, -1, 1, 1) if self.bias else y

    def plain(self, *inputs: Array, weights: Arrays, exact: bool = False) -> Array:
        check_images(inputs[0], self, self.in_channels)
        height, width = self._parts
        around = ((height - 1, height - 1), (width - 1, width - 1))
        kernels = self._kernels(weights["weight"])
        y = self._shuffled(windows.conv2d(inputs[0], kernels, (1, 1), around, self.groups))
        first, last, more = self._sides(inputs[0].shape)
        y = np.pad(y[:, :, first[0] : last[0], first[1] : last[1]], ((0, 0), (0, 0), (0, more[0]), (0, more[1])))
        return y + weights["bias"].reshape(1, -1, 1, 1) if self.bias else y

    def _shuffled(self, y: Tensor) -> Tensor:
        """Each pixel's places beside each other."""
        (n, _, height, width), (s, t) = y.shape, pair(self.stride)
        parts = y.reshape(n, self.out_channels, s, t, height, width).transpose(0, 1, 4, 2, 5, 3)
        return parts.reshape(n, self.out_channels, height * s, width * t)

    def _sides(self, shape: Shape) -> tuple[list[int], list[int], list[int]]:
        """Of all places: from which to which there are results, and how many more have nothing but the bias."""
        first, last, more = [], [], []
        options = (self.kernel_size, self.stride, self.padding, self.output_padding, self.dilation)
        for size, part, k, s, p, extra, d in zip(shape[2:], self._parts, *map(pair, options), strict=True):
            had, count = (size + part - 1) * s, (size - 1) * s - 2 * p + d * (k - 1) + extra + 1
            if size < 1 or count < 1:
                raise ShapeError(f"{self} leaves nothing of a tensor of shape {shape}")
            first.append(p)
            last.append(min(p + count, had))
            more.append(max(p + count - had, 0))
        return first, last, more
