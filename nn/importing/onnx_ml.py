"""Operators that converters of scikit-learn, XGBoost and LightGBM write: scalers, linear models, trees."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from nn import activations as a
from nn import functional as f
from nn import layers as ly
from nn import softmax as s
from nn.importing import onnx_support as sv
from nn.importing.blockers import refused
from nn.importing.building import Known, Tensor, affine, linear, part
from nn.importing.onnx_file import READ
from nn.importing.onnx_nodes import Node, Value
from nn.importing.sklearn_trees import Read, Tree, below, complete
from nn.layer import Array
from nn.norms import Norm, Normalize

_ENDS = {"NONE": "", "LOGISTIC": "sigmoid", "SOFTMAX": "softmax"}
WIDEST = 2.0**20


def _rows(node: Node) -> Tensor:
    x = node.plain(0)
    if node.rank(x) != 2:
        raise refused("it takes rows (N, features)", READ)
    return x


def _numbers(node: Node, name: str, usual: float = 0.0) -> Array:
    """However many there are of an attribute."""
    found = node.attribute(name)
    return np.asarray((usual,) if found is None else found, np.float64).reshape(-1)


def _scaler(node: Node) -> Value:
    x = _rows(node)
    count = x.layout.shape[1]
    offset, scale = (
        np.broadcast_to(_numbers(node, name, usual), (count,)) for name, usual in (("offset", 0.0), ("scale", 1.0))
    )
    weights = {"weight": scale, "bias": -offset * scale, "running_mean": np.zeros(count), "running_var": np.ones(count)}
    return node.same(ly.BatchNorm1d(count, 0.0), x, **weights)


def _linear(node: Node, outputs: int) -> Tensor:
    x = _rows(node)
    weight = _numbers(node, "coefficients").reshape(outputs, -1)
    bias = np.broadcast_to(_numbers(node, "intercepts"), (outputs,))
    return linear(node.graph, x, Known(weight), Known(bias))


def _ended(node: Node, x: Tensor, ends: str) -> Tensor:
    """What is made of sums."""
    if ends not in _ENDS:
        raise refused(f"its post_transform is {ends}", "export it with NONE, LOGISTIC or SOFTMAX")
    if not _ENDS[ends]:
        return x
    return node.same(a.Sigmoid() if _ENDS[ends] == "sigmoid" else s.Softmax(1), x)


def _two(node: Node, x: Tensor, ends: str) -> Tensor:
    """Of one number for the second of two classes: what there is of each."""
    made = x.layout.resized((x.layout.shape[0], 2))
    if _ENDS.get(ends) == "sigmoid":
        x = node.same(a.Sigmoid(), x)
        return node.add(f.Concatenate(1), affine(node.graph, x, -1.0, 1.0), x, layout=made)
    both = node.add(f.Concatenate(1), affine(node.graph, x, -1.0), x, layout=made)
    return _ended(node, both, ends)


def _linear_regressor(node: Node) -> Value:
    outputs = node.take("targets", 1)
    return _ended(node, _linear(node, outputs), node.take("post_transform", "NONE"))


def _labels(node: Node) -> int:
    """How many classes there are."""
    found = [node.attribute(name) for name in ("classlabels_ints", "classlabels_strings", "classlabels_int64s")]
    return max(len(each) if each is not None else 0 for each in found)


def _linear_classifier(node: Node) -> Value:
    """Its label is left out; it gives a number for each class."""
    node.take("multi_class", 0)
    classes, ends = _labels(node), node.take("post_transform", "NONE")
    count = next((len(a.floats) for a in node.proto.attribute if a.name == "intercepts"), 0)
    found = _linear(node, count or classes)
    return [None, _two(node, found, ends) if found.layout.shape[1] == 1 else _ended(node, found, ends)]


def _normalizer(node: Node) -> Value:
    """To a sum of 1, of what is above 0; to a length of 1."""
    x, kind = _rows(node), node.take("norm", "MAX")
    if kind == "L2":
        return node.same(Normalize((1,), 0.0), x)
    if kind != "L1":
        raise refused(f"its norm is {kind}", "export it with L1 or L2")
    total = node.add(Norm((1,), True, "1"), x, layout=x.layout.resized((x.layout.shape[0], 1)))
    inverse = node.same(a.Function("reciprocal"), total)
    return node.add(f.Multiply(), x, inverse, layout=x.layout)


# -- trees -------------------------------------------------------------------------------------------------------------

_RULES = ("BRANCH_LEQ", "BRANCH_LT")


def _trees(node: Node, prefix: str, outputs: int) -> tuple[list[Tree], str, str]:
    """All trees of a node, the rule that they branch by, and how their leaves are put together."""
    ids, numbers, features, modes, yes, no = (
        node.attribute(f"nodes_{name}")
        for name in ("treeids", "nodeids", "featureids", "modes", "truenodeids", "falsenodeids")
    )
    values, weights = _either(node, "nodes_values"), _either(node, f"{prefix}_weights")
    owners, places, columns = (node.attribute(f"{prefix}_{name}") for name in ("treeids", "nodeids", "ids"))
    for name in ("nodes_hitrates", "nodes_hitrates_as_tensor", "nodes_missing_value_tracks_true"):
        node.attribute(name)
    if any(each is None for each in (ids, numbers, features, modes, yes, no, values, weights, owners, places, columns)):
        raise refused("it lacks a part of its trees", READ)
    rules = sorted({mode for mode in modes if mode != "LEAF"})
    if len(rules) > 1 or (rules and rules[0] not in _RULES):
        raise refused(f"its trees branch by {', '.join(rules)}", "export them with BRANCH_LEQ, or BRANCH_LT")
    found = []
    for tree in sorted(set(ids)):
        rows = [i for i, own in enumerate(ids) if own == tree]
        at = {numbers[i]: k for k, i in enumerate(rows)}
        leaf = np.zeros((len(rows), outputs))
        for owner, place, column, weight in zip(owners, places, columns, weights, strict=True):
            if owner == tree:
                leaf[at[place], column] += weight
        inner = np.array([modes[i] != "LEAF" for i in rows])
        feature = np.where(inner, [features[i] for i in rows], -1)
        left, right = (
            np.array([at[way[i]] if is_inner else 0 for i, is_inner in zip(rows, inner, strict=True)])
            for way in (yes, no)
        )
        threshold = np.array([values[i] for i in rows], np.float64)
        found.append(Tree(feature, threshold, left, right, leaf))
    return found, rules[0] if rules else _RULES[0], node.take("aggregate_function", "SUM")


def _either(node: Node, name: str) -> Any:
    """Numbers of an attribute, or of the tensor that some write for it."""
    found = node.attribute(name)
    return node.attribute(f"{name}_as_tensor") if found is None else found


def _ensemble(node: Node, prefix: str, outputs: int) -> Tensor:
    x = _rows(node)
    trees, rule, together = _trees(node, prefix, outputs)
    base = _either(node, "base_values")
    if together == "AVERAGE":
        trees = [tree._replace(leaf=tree.leaf / len(trees)) for tree in trees]
    elif together != "SUM":
        raise refused(f"it takes the {together} of its trees", "export it with SUM or AVERAGE")
    bias = np.zeros(outputs) if base is None else np.broadcast_to(np.asarray(base, np.float64), (outputs,))
    if rule == "BRANCH_LT":
        trees = [tree._replace(threshold=below(tree.threshold.astype(np.float32))) for tree in trees]
    features = x.layout.shape[1]
    read = Read(np.zeros((0, features)))

    def given(rows: Array) -> Array:
        return read(rows).astype(np.float32)

    layer, weights = complete(trees, features, bias, given, -WIDEST, WIDEST)
    made = x.layout.resized((x.layout.shape[0], outputs))
    return node.add(layer, x, layout=made, **weights)


def _tree_regressor(node: Node) -> Value:
    outputs = node.take("n_targets", 1)
    return _ended(node, _ensemble(node, "target", outputs), node.take("post_transform", "NONE"))


def _tree_classifier(node: Node) -> Value:
    """Its label is left out; it gives a number for each class."""
    classes, ends = _labels(node), node.take("post_transform", "NONE")
    columns: Any = next((a.ints for a in node.proto.attribute if a.name == "class_ids"), ())
    if classes == 2 and len(set(columns)) == 1:
        # One number, for the class that is named: of the other it is what is missing to 1.
        found = _ensemble(node, "class", 1 + max(columns))
        return [None, _binary_trees(node, found, ends, max(columns))]
    return [None, _ended(node, _ensemble(node, "class", classes), ends)]


def _binary_trees(node: Node, found: Tensor, ends: str, column: int) -> Tensor:
    own = part(node.graph, found, 1, column, 1, 1)
    made = own.layout.resized((own.layout.shape[0], 2))
    if ends == "NONE":
        return node.add(f.Concatenate(1), affine(node.graph, own, -1.0, 1.0), own, layout=made)
    return _two(node, own, ends)


MACHINE_LEARNING: dict[str, Callable[[Node], Value]] = {
    f"ai.onnx.ml.{name}": read
    for name, read in {
        "Scaler": _scaler,
        "Normalizer": _normalizer,
        "LinearRegressor": _linear_regressor,
        "LinearClassifier": _linear_classifier,
        "SVMRegressor": sv.regressor,
        "SVMClassifier": sv.classifier,
        "TreeEnsembleRegressor": _tree_regressor,
        "TreeEnsembleClassifier": _tree_classifier,
    }.items()
}
"""By operator, with its domain."""
