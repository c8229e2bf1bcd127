"""Where the batch is in a tensor of somebody's network, which may put it anywhere, and split and merge it.

A model has the batch first.  A network may turn (N, T, C) into (T, N, C), and (N, heads, T, C) into (N heads, T, C).
It is looked at with a batch of a prime number of images that divides no other size of it: the one axis whose size it
divides is of ``before`` N ``after`` elements.  The model's tensor is (N, ...) with the other axes in order, and in the
place of that one what is before and after N in it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from mpc.tensor_type import Shape
from nn.importing.blockers import refused

BATCHES = (521, 1031, 2053, 4099)
"""Primes to choose from."""

_FIRST = "keep the batch an axis of its own, before or after whole axes, in each reshape"


class Layout(NamedTuple):
    """Of a tensor with the sizes ``shape``, in which axis ``axis`` is of ``before`` x batch x ``after`` elements."""

    shape: Shape
    axis: int
    before: int
    after: int

    @property
    def inner(self) -> Shape:
        """The sizes of the model's tensor, without its batch."""
        parts = tuple(n for n in (self.before, self.after) if n != 1)
        return (*self.shape[: self.axis], *parts, *self.shape[self.axis + 1 :])

    @property
    def is_plain(self) -> bool:
        """Whether it is the model's tensor as it stands."""
        return self.axis == 0 and self.before == self.after == 1

    def place(self, axis: int) -> int:
        """Where an axis other than the batch's is in the model's tensor.  Raises UnsupportedError."""
        axis %= len(self.shape)
        if axis == self.axis:
            raise refused("it would mix the images of the batch", "name other dimensions than the batch's")
        return axis + 1 if axis < self.axis else axis + (self.before != 1) + (self.after != 1)

    def places(self, axes: Sequence[int]) -> tuple[int, ...]:
        """Of several."""
        return tuple(self.place(axis) for axis in axes)

    def reshaped(self, shape: Shape, batch: int) -> Layout:
        """Of the same elements in the same order.  Raises UnsupportedError where the batch would not stay together."""
        leading = math.prod(self.shape[: self.axis]) * self.before
        found = list[Layout]()
        for axis, size in enumerate(shape):
            before, rest = divmod(leading, max(1, math.prod(shape[:axis])))
            if before and not rest and size and size % (batch * before) == 0:
                found.append(Layout(shape, axis, before, size // batch // before))
        # Where a batch of one could be any of several axes, an axis of its own.
        if found:
            return min(found, key=lambda each: (each.before * each.after, each.axis))
        raise refused("it splits the batch", _FIRST)

    def permuted(self, order: Sequence[int]) -> tuple[Layout, tuple[int, ...]]:
        """Of axes in another order, and that of the model's tensor."""
        order = [axis % len(self.shape) for axis in order]
        made = Layout(tuple(self.shape[i] for i in order), order.index(self.axis), self.before, self.after)
        own = [self.axis + 1 + i for i in range((self.before != 1) + (self.after != 1))]
        dims = [0]
        for axis in order:
            dims += own if axis == self.axis else [self.place(axis)]
        return made, tuple(dims)

    def resized(self, shape: Shape) -> Layout:
        """With other sizes of other axes."""
        return self._replace(shape=shape)


def without_batch(argument: object, batch: int) -> object:
    """Sizes as they are for a batch of one."""
    if isinstance(argument, bool):
        return argument
    if isinstance(argument, int):
        return argument // batch if argument and argument % batch == 0 else argument
    if isinstance(argument, (tuple, list)):
        return [without_batch(each, batch) for each in argument]
    return argument
