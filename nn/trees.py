"""Decision trees, one or many: which feature each node asks for, its threshold and the leaves are secret.

All trees are complete, of one public depth.  Values that nodes ask for are one product with a secret 0/1 matrix; all
nodes compare at once, exactly; and what leads to each leaf is a product of bits, half of the way at a time.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from mpc.errors import ShapeError, UnsupportedError
from mpc.tensor_type import Shape
from nn.layer import Array, Arrays, Layer, Secrets, WeightArray, check_size, check_weights
from nn.stored import BIAS_BITS
from protocols.trace.secret_tensor import SecretTensor, concatenate, stack

MAX_DEPTH: Final = 12
"""A tree is evaluated whole: 2^depth leaves."""

GRID_BITS: Final = 16
"""Fraction bits of inputs: thresholds are multiples of 2^-16, and so is, once rounded, what is compared with them."""


class Trees(Layer, frozen=True):
    """Of a row of ``features`` numbers: the sum of the leaves that it leads to, ``outputs`` numbers each, and ``bias``.

    Nodes are in rows from the root on, those of one tree after those of the one before: ``selection`` (features, trees
    (2^depth - 1)) has a 1 for the feature that a node asks for, zeros else; ``threshold``: x <= threshold goes left.
    ``leaf`` (trees 2^depth, outputs) is from left to right.  Each row ends in the leaf that its numbers, rounded to
    multiples of 2^-16, lead to, ties included.  Rounds: a comparison's, ceil(log2 depth), and one for the leaves.
    """

    depth: int
    features: int
    trees: int = 1
    outputs: int = 1

    def __post_init__(self) -> None:
        for name in ("depth", "features", "trees", "outputs"):
            check_size(name, getattr(self, name))
        if self.depth > MAX_DEPTH:
            raise UnsupportedError(
                f"trees of depth {self.depth}: each is evaluated whole, 2^depth leaves, and at most {MAX_DEPTH} deep"
            )
        for shape in self.parameters.values():
            check_weights(shape)

    @property
    def parameters(self) -> dict[str, Shape]:
        nodes = self.trees * (2**self.depth - 1)
        return {
            "selection": (self.features, nodes),
            "threshold": (nodes,),
            "leaf": (self.trees * 2**self.depth, self.outputs),
            "bias": (self.outputs,),
        }

    def tensors(self, weights: Arrays) -> dict[str, WeightArray]:
        return {
            "selection": WeightArray(weights["selection"], (0,), bits=0, exact=True),
            "threshold": WeightArray(weights["threshold"], bits=GRID_BITS, exact=True),
            "leaf": WeightArray(weights["leaf"], (0,), bits=BIAS_BITS),
            "bias": WeightArray(weights["bias"]),
        }

    def forward(self, *inputs: SecretTensor, weights: Secrets) -> SecretTensor:
        (x,) = inputs
        self._check(x)
        if x.type.fraction_bits > GRID_BITS:
            raise UnsupportedError(
                f"Trees tell multiples of 2^-{GRID_BITS} apart: share at most {GRID_BITS} fraction bits,"
                f" not {x.type.fraction_bits}"
            )
        left = x @ weights["selection"] <= weights["threshold"]
        leads = self._leads(left.reshape(len(x), self.trees, -1), 0, self.depth)
        leaf = weights["leaf"]
        reached = leads.reshape(len(x), -1) @ leaf
        return reached.within(self.trees * leaf.type.low, self.trees * leaf.type.high) + weights["bias"]

    def _leads(self, left: SecretTensor, level: int, depth: int) -> SecretTensor:
        """(N, trees, 2^level, 2^depth): where each node of a level leads to, so much deeper, one 1 for each."""
        batch, nodes = left.shape[:2], 2**level
        if depth == 1:
            own = left[:, :, nodes - 1 : 2 * nodes - 1]
            return stack([own, 1 - own], axis=-1)
        first = depth // 2
        above = self._leads(left, level, first)
        below = self._leads(left, level + first, depth - first).reshape(*batch, nodes, 2**first, -1)
        # They add up to what leads to the node above them: the last is what the others leave.
        others = above.expand_dims(-1) * below[..., :-1]
        last = (above - others.sum(-1)).within(0.0, 1.0)
        return concatenate([others, last.expand_dims(-1)], axis=-1).reshape(*batch, nodes, 2**depth)

    def plain(self, *inputs: Array, weights: Arrays, exact: bool = False) -> Array:
        (x,) = inputs
        self._check(x)
        asked = on_grid(x) @ weights["selection"]
        right = (asked > weights["threshold"]).reshape(len(x), self.trees, -1)
        at = np.zeros((len(x), self.trees, 1), np.int64)
        for level in range(self.depth):
            at = 2 * at + np.take_along_axis(right, 2**level - 1 + at, axis=2)
        leaves = weights["leaf"].reshape(self.trees, -1, self.outputs)
        return np.asarray(leaves[np.arange(self.trees), at[:, :, 0]].sum(axis=1) + weights["bias"])

    def _check(self, x: SecretTensor | Array) -> None:
        if x.ndim != 2 or x.shape[1] != self.features:
            raise ShapeError(f"Trees take (N, {self.features}), not a tensor of shape {x.shape}")


def on_grid(x: Array) -> Array:
    """As it is shared: to the nearest multiple of 2^-16."""
    return np.asarray(np.rint(x * 2.0**GRID_BITS) / 2.0**GRID_BITS)
