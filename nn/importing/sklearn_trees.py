"""Trees of scikit-learn, LightGBM and XGBoost: read, made complete, with thresholds at numbers that inputs can be."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from mpc.errors import DiffersFromSource
from nn.importing.blockers import refused
from nn.importing.written import Fitted
from nn.layer import Array
from nn.trees import GRID_BITS, MAX_DEPTH, Trees, on_grid
from protocols import PrecisionWarning

SHALLOWER = f"train it with max_depth={MAX_DEPTH} or less"
Numbers = npt.NDArray[np.int64]
Given = Callable[[Array], Array]
"""What the trees are given for rows of the model's inputs: of each column, something that grows with it."""


class Read:
    """What a row of multiples of 2^-16 is taken for: of each number, the sample that is rounded to it, if there is one.

    Ties are frequent in data of few digits: a threshold half-way between two samples is often a third, and the last
    bit decides.
    """

    def __init__(self, samples: Array) -> None:
        self._known = []
        for column in samples.T:
            rounded, first = np.unique(on_grid(column), return_index=True)
            self._known.append((rounded, column[first]))

    def __call__(self, x: Array) -> Array:
        """(N, columns) of any numbers; they are rounded first."""
        found = on_grid(x)
        for at, (rounded, own) in enumerate(self._known):
            if len(rounded):
                place = np.searchsorted(rounded, found[:, at]).clip(max=len(rounded) - 1)
                found[:, at] = np.where(rounded[place] == found[:, at], own[place], found[:, at])
        return found


def check_grid(own: Array, rounded: Array, tolerance: float) -> None:
    """Of results of rows, and of the same once their numbers are rounded as inputs are.

    Raises DiffersFromSource where many are others, and warns where some are.
    """
    off = np.abs(own - rounded).max(axis=1) > tolerance * max(float(np.abs(own).max()), 1e-300)
    if not off.any():
        return
    said = (
        f"{int(off.sum())} of {len(own)} samples have other results once their numbers are rounded to multiples of"
        f" 2^-{GRID_BITS}, as inputs are: give columns in smaller units, so that what tells them apart is larger"
    )
    if off.mean() > tolerance:
        raise DiffersFromSource(said)
    warnings.warn(said, PrecisionWarning, stacklevel=5)


class Tree(NamedTuple):
    """Nodes by number, the root first.  ``feature`` is -1 for leaves; x <= threshold goes to ``left``."""

    feature: Numbers
    threshold: Array
    left: Numbers
    right: Numbers
    leaf: Array
    """(nodes, outputs)."""


def of_sklearn(fitted: Fitted, scale: float = 1.0, column: int = 0, outputs: int = 1) -> Tree:
    """Of a DecisionTree: fractions of classes, or numbers.  ``scale`` times its results, from ``column`` on of them."""
    tree = fitted.tree_
    value = np.asarray(tree.value, np.float64)
    if hasattr(fitted, "classes_"):
        if value.shape[1] != 1:
            raise refused("it has several targets", "train one for each")
        own = value[:, 0, :] / value[:, 0, :].sum(axis=1, keepdims=True)
    else:
        own = value[:, :, 0]
    leaf = np.zeros((len(own), max(outputs, own.shape[1])))
    leaf[:, column : column + own.shape[1]] = own * scale
    inner = tree.children_left >= 0
    feature = np.where(inner, tree.feature, -1)
    return Tree(feature, np.asarray(tree.threshold), tree.children_left, tree.children_right, leaf)


def of_histogram(nodes: Any, column: int, outputs: int) -> Tree:
    """Of HistGradientBoosting's record of nodes."""
    inner = nodes["is_leaf"] == 0
    if (nodes["is_categorical"][inner] != 0).any():
        raise refused("it asks for categories", "encode them as numbers, one column each")
    leaf = np.zeros((len(nodes), outputs))
    leaf[:, column] = nodes["value"]
    feature = np.where(inner, nodes["feature_idx"], -1)
    return Tree(feature, nodes["num_threshold"], nodes["left"].astype(int), nodes["right"].astype(int), leaf)


def of_lightgbm(structure: dict[str, Any], column: int, outputs: int) -> Tree:
    """Of a ``tree_structure`` of LightGBM's ``dump_model``."""
    waiting, rows = [structure], list[tuple[int, float, int, int, float]]()
    for node in waiting:  # that grows on the way
        if "leaf_value" in node:
            rows.append((-1, 0.0, 0, 0, float(node["leaf_value"])))
            continue
        if node["decision_type"] != "<=":
            raise refused("it asks for categories", "encode them as numbers, one column each")
        if node["missing_type"] == "Zero":
            raise refused("it takes zeros for missing values", "train it with zero_as_missing=False")
        rows.append((int(node["split_feature"]), float(node["threshold"]), len(waiting), len(waiting) + 1, 0.0))
        waiting += [node["left_child"], node["right_child"]]
    feature, threshold, left, right, value = map(np.array, zip(*rows, strict=True))
    leaf = np.zeros((len(rows), outputs))
    leaf[:, column] = value
    return Tree(feature, threshold, left, right, leaf)


def of_xgboost(tree: dict[str, Any], column: int, outputs: int) -> Tree:
    """Of a tree of XGBoost's record: x < its condition goes left."""
    left, right = np.array(tree["left_children"]), np.array(tree["right_children"])
    if any(tree.get("split_type", ())) or len(tree["base_weights"]) != len(left):
        raise refused("it asks for categories, or has leaves of several numbers", "encode them as numbers")
    inner, conditions = left >= 0, np.array(tree["split_conditions"], np.float32)
    leaf = np.zeros((len(left), outputs))
    leaf[:, column] = np.where(inner, 0.0, conditions)
    return Tree(np.where(inner, tree["split_indices"], -1), below(conditions), left, right, leaf)


def below(conditions: npt.NDArray[np.float32]) -> Array:
    """Thresholds of x <= t that are x < these: of float32, the numbers before them."""
    found: Array = np.nextafter(conditions, np.float32(-np.inf)).astype(np.float64)
    return found


def complete(
    trees: Sequence[Tree], features: int, bias: Array, given: Given, low: float, high: float
) -> tuple[Trees, dict[str, Array]]:
    """All of them as one layer, and its weights.  For inputs in [low, high] they decide as ``given`` does.

    Raises UnsupportedError for trees that are too deep.
    """
    depth = max(1, *map(_depth, trees))
    if depth > MAX_DEPTH:
        raise refused(f"a tree is {depth} deep, and each is evaluated whole, 2^depth leaves", SHALLOWER)
    parts = [_complete(tree, depth) for tree in trees]
    feature, threshold = (np.concatenate([part[i] for part in parts]) for i in (0, 1))
    layer = Trees(depth, features, len(trees), parts[0][2].shape[1])
    asks = np.flatnonzero(feature >= 0)
    selection = np.zeros((features, len(feature)))
    selection[feature[asks], asks] = 1.0
    threshold[asks] = _on_grid(feature[asks], threshold[asks], features, given, low, high)
    leaf = np.concatenate([part[2] for part in parts])
    return layer, {"selection": selection, "threshold": threshold, "leaf": leaf, "bias": bias}


def _depth(tree: Tree) -> int:
    """How many questions lead to its deepest leaf."""
    at, depth = np.array([0]), 0
    while (at := at[tree.feature[at] >= 0]).size:
        at, depth = np.concatenate([tree.left[at], tree.right[at]]), depth + 1
    return depth


def _complete(tree: Tree, depth: int) -> tuple[Numbers, Array, Array]:
    """Features (-1: whatever comes goes to the same leaf), thresholds and leaves, row by row from the root on."""
    at = np.array([0])
    features, thresholds = [], []
    for _ in range(depth):
        inner = tree.feature[at] >= 0
        features.append(tree.feature[at])
        thresholds.append(np.where(inner, tree.threshold[at], 0.0))
        at = np.where(inner, [tree.left[at], tree.right[at]], at).T.reshape(-1)
    return np.concatenate(features).astype(np.int64), np.concatenate(thresholds), tree.leaf[at]


def _on_grid(feature: Numbers, threshold: Array, features: int, given: Given, low: float, high: float) -> Array:
    """Of each node, the largest multiple of 2^-16 that goes left, found by halving between the ends of the range."""
    unit = 2.0**-GRID_BITS
    left = np.full(feature.shape, np.floor(low / unit) - 1)
    right = np.full(feature.shape, np.ceil(high / unit) + 1)
    each = max(1, (1 << 22) // features)  # numbers at a time
    for begin in range(0, len(feature), each):
        part = slice(begin, begin + each)
        nodes = np.arange(len(feature[part]))
        while (right[part] - left[part] > 1).any():
            middle = np.floor((left[part] + right[part]) / 2)
            rows = np.zeros((len(nodes), features))
            rows[nodes, feature[part]] = middle * unit
            goes = given(rows)[nodes, feature[part]] <= threshold[part]
            left[part] = np.where(goes, middle, left[part])
            right[part] = np.where(goes, right[part], middle)
    return np.asarray(left * unit)
