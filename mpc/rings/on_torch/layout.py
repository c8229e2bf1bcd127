"""What both rings do alike with tensors, whatever is in them: memory, axes and wires."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from mpc.rings.on_torch.words import Tensor
from mpc.rings.ring import Buffer, Pair, Ring, Shape, as_array


class TorchRing(Ring):
    """Of tensors on one device, which nobody else looks into."""

    dtype: torch.dtype
    wire: str
    """NumPy's name for what goes over one."""

    # What is one pass over arrays, or saves one, is several functions of torch's.
    sample_less, streamed, settled = Ring.sample_less, Ring.streamed, Ring.settled

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def zeros(self, shape: Shape) -> Any:
        return torch.zeros(shape, dtype=self.dtype, device=self.device)

    def here(self, array: npt.NDArray[Any]) -> Tensor:
        """An array of this host's on the device.  A copy: torch takes no memory that may only be read."""
        own = np.array(array, order="C", copy=True).view("i8" if self.dtype == torch.int64 else "u1")
        return torch.from_numpy(own).to(self.device)

    def is_zero(self, x: Any) -> bool:
        return not bool(x.any())

    def buffer(self, x: Any) -> Buffer:
        there: Buffer = x.contiguous().cpu().numpy()
        return there.view(self.wire)

    def read(self, data: bytes | memoryview, shape: Shape) -> Any:
        if len(data) != self.bytes_of(prod(shape)):
            raise ValueError(f"{len(data)} bytes for an array of shape {shape}")
        return self.here(as_array(data, self.wire)).reshape(shape)

    def transpose(self, x: Any, axes: Shape) -> Any:
        return x.permute(axes).contiguous()

    def broadcast(self, x: Any, shape: Shape) -> Any:
        return x.broadcast_to(shape).contiguous()

    def index(self, x: Any, key: tuple[slice, ...]) -> Any:
        # torch has no steps backwards.
        turned: list[int] = []
        forwards: list[slice] = []
        for axis, some in enumerate(key):
            places = range(*some.indices(x.shape[axis]))
            if places.step < 0:
                turned.append(axis)
                places = places[::-1]
            forwards.append(slice(places.start, places.stop, places.step) if places else slice(0, 0))
        return x[tuple(forwards)].flip(turned).contiguous()

    def take(self, x: Any, positions: npt.NDArray[np.int64], axis: int) -> Any:
        axis %= x.dim()
        places = torch.from_numpy(np.where(positions < 0, positions + x.shape[axis], positions)).to(self.device)
        taken = x.index_select(axis, places.flatten())
        return taken.reshape(*x.shape[:axis], *positions.shape, *x.shape[axis + 1 :])

    def concatenate(self, xs: Sequence[Any], axis: int) -> Any:
        return torch.cat(tuple(xs), dim=axis)

    def pad(self, x: Any, widths: Sequence[Pair]) -> Any:
        return torch.nn.functional.pad(x, [width for pair in reversed(widths) for width in pair])

    def copy(self, x: Any) -> Any:
        return x.clone()

    def vector(self, shapes: Sequence[Shape]) -> Any:
        return torch.empty(sum(map(prod, shapes)), dtype=self.dtype, device=self.device)
