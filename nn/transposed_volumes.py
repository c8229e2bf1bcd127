"""Transposed convolutions of volumes: each of the places that a plane becomes has a kernel of its own in depth, and all
are one transposed convolution of planes, whose channels are those of the planes that it takes.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from mpc.errors import ShapeError, UnsupportedError
from mpc.tensor_type import Shape
from nn.dimensions import Triple, triple, volume
from nn.layer import MAX_SIZE, Array, Arrays, Layer, Secrets, WeightArray, check_size, check_weights
from nn.transposed import ConvTranspose2d
from protocols.trace.secret_tensor import SecretTensor


class ConvTranspose3d(Layer, frozen=True):
    """The transpose of a ``Conv3d`` of these arguments, of (N, C, D, H, W).

    The input is opened once for each plane of the kernel, over the stride.
    """

    in_channels: int
    out_channels: int
    kernel_size: Triple
    stride: Triple = 1
    padding: Triple = 0
    output_padding: Triple = 0
    groups: int = 1
    bias: bool = True
    dilation: Triple = 1

    def __post_init__(self) -> None:
        for name in ("kernel_size", "stride", "dilation"):
            for n in triple(getattr(self, name)):
                check_size(name, n)
        for name in ("padding", "output_padding"):
            for n in triple(getattr(self, name)):
                check_size(name, n, least=0)
        for name in ("in_channels", "out_channels"):
            check_size(name, getattr(self, name))
        if triple(self.output_padding)[0] >= max(triple(self.stride)[0], triple(self.dilation)[0]):
            raise UnsupportedError("output_padding is smaller than stride or dilation")
        if max(self.in_channels * self._parts, self.out_channels * triple(self.stride)[0]) > MAX_SIZE:
            raise UnsupportedError(f"a kernel of {self.kernel_size} with {self.in_channels} channels")
        _ = self._plane
        check_weights(self._shape)

    @property
    def _parts(self) -> int:
        """Planes that each result is made of, at most."""
        return -(-(triple(self.dilation)[0] * (triple(self.kernel_size)[0] - 1) + 1) // triple(self.stride)[0])

    @property
    def _shape(self) -> Shape:
        return (self.in_channels, self.out_channels // self.groups, *triple(self.kernel_size))

    @property
    def _plane(self) -> ConvTranspose2d:
        (_, *kernel), (s, *stride), (_, *padding), (_, *more), (_, *dilation) = map(
            triple, (self.kernel_size, self.stride, self.padding, self.output_padding, self.dilation)
        )
        *sizes, gap = [(pair[0], pair[1]) for pair in (kernel, stride, padding, more, dilation)]
        channels, out = self.in_channels * self._parts, self.out_channels * s
        return ConvTranspose2d(channels, out, sizes[0], sizes[1], sizes[2], sizes[3], self.groups, False, gap)

    @property
    def parameters(self) -> dict[str, Shape]:
        bias: dict[str, Shape] = {"bias": (self.out_channels,)} if self.bias else {}
        return {"weight": self._shape, **bias}

    def _merged(self, weights: Arrays) -> Arrays:
        """The kernel's planes as channels: (in, parts) of what is taken, turned, and (out, places) of what is given."""
        weight, parts, s = weights["weight"], self._parts, triple(self.stride)[0]
        channels, out, depth, *sizes = weight.shape
        whole = np.zeros((channels, out, parts * s, *sizes))
        whole[:, :, triple(self.dilation)[0] * np.arange(depth)] = weight
        apart = whole.reshape(channels, out, parts, s, *sizes)[:, :, ::-1]
        return {"weight": apart.transpose(0, 2, 1, 3, 4, 5).reshape(channels * parts, out * s, *sizes)}

    def tensors(self, weights: Arrays) -> dict[str, WeightArray]:
        bias = {"bias": WeightArray(weights["bias"])} if self.bias else {}
        return {**self._plane.tensors(self._merged(weights)), **bias}

    def forward(self, *inputs: SecretTensor, weights: Secrets) -> SecretTensor:
        plane = {"weight": weights["weight"]}
        y: SecretTensor = self._of(inputs[0], lambda x: self._plane.forward(x, weights=plane), SecretTensor.pad)
        return y + weights["bias"].reshape(1, -1, 1, 1, 1) if self.bias else y

    def plain(self, *inputs: Array, weights: Arrays, exact: bool = False) -> Array:
        merged = self._merged(weights)
        y = np.asarray(self._of(inputs[0], lambda x: self._plane.plain(x, weights=merged), np.pad))
        return y + weights["bias"].reshape(1, -1, 1, 1, 1) if self.bias else y

    def _of(self, x: Any, plane: Any, pad: Any) -> Any:
        n, c, depth, h, w = volume(self, x, self.in_channels)
        parts, s = self._parts, triple(self.stride)[0]
        count = depth + parts - 1
        x = pad(x, ((0, 0), (0, 0), (parts - 1, parts - 1), (0, 0), (0, 0)))
        taken = x.take(np.arange(count)[:, None] + np.arange(parts), 2)
        y = plane(taken.transpose(0, 2, 1, 3, 4, 5).reshape(n * count, c * parts, h, w))
        h, w = y.shape[2:]
        y = y.reshape(n, count, self.out_channels, s, h, w).transpose(0, 2, 1, 3, 4, 5)
        y = y.reshape(n, self.out_channels, count * s, h, w)
        before, extra = triple(self.padding)[0], triple(self.output_padding)[0]
        size = (depth - 1) * s - 2 * before + triple(self.dilation)[0] * (triple(self.kernel_size)[0] - 1) + extra + 1
        if size < 1:
            raise ShapeError(f"{self} leaves nothing of a tensor of shape {x.shape}")
        last = min(before + size, count * s)
        y = y[:, :, before:last]
        missing = before + size - last
        return pad(y, ((0, 0), (0, 0), (0, missing), (0, 0), (0, 0))) if missing else y
