"""Operators that converters of scikit-learn, XGBoost and LightGBM write: scalers, linear models, trees."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from nn import activations as a
from nn import functional as f
from nn import layers as ly
from nn import softmax as s
from nn.importing import onnx_support as sv
from nn.importing.blockers import refused
from nn.importing.building import Known, Tensor, affine, beside, binary, linear, part, taken
from nn.importing.onnx_file import READ
from nn.importing.onnx_nodes import Node, Value
from nn.importing.onnx_norms import divided_by_norm
from nn.importing.sklearn_trees import SHALLOWER, Read, Tree, below, complete
from nn.layer import Array
from nn.lookups import Compare, Where
from nn.norms import Normalize
from nn.trees import MAX_DEPTH

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
    """To a largest magnitude, a sum or a length of 1."""
    x, kind = _rows(node), node.take("norm", "MAX")
    if kind == "L2":
        return node.same(Normalize((1,), 0.0), x)
    if kind not in ("L1", "MAX"):
        raise refused(f"its norm is {kind}", "export it with L1, L2 or MAX")
    return divided_by_norm(node, x, 1, "1" if kind == "L1" else "inf")


# -- columns -----------------------------------------------------------------------------------------------------------


def _columns(node: Node) -> Value:
    """Some of the last axis."""
    x, places = node.place(0), node.known(1).reshape(-1)
    return taken(node.graph, x, node.rank(x) - 1, [int(n) for n in places])


def _marks(node: Node, x: Tensor, keys: Array) -> Tensor:
    """A last axis more: which of these a number is."""
    apart = node.graph.laid_out(x, x.layout.resized((*x.layout.shape, 1)))
    return binary(node.graph, Compare("eq"), apart, Known(keys), (*x.layout.shape, len(keys)))


def _one_hot(node: Node) -> Value:
    """Whole numbers; what is none of the categories is zeros, since nobody may say that it is."""
    node.take("zeros", 1)
    keys = node.attribute("cats_int64s")
    if keys is None:
        raise refused("its categories are texts", "encode them as numbers before")
    return _marks(node, node.place(0), np.asarray(keys, np.float64))


def _first(node: Node, names: Sequence[str]) -> Any:
    """Of attributes, one of which may be there; None for none."""
    found = [node.attribute(name) for name in names]
    return next((each for each in found if each is not None), None)


def _encoded(node: Node) -> Value:
    """Numbers by numbers."""
    keys, values = (
        _first(node, [f"{name}_{kind}" for kind in ("floats", "int64s", "tensor")]) for name in ("keys", "values")
    )
    given = _first(node, ("default_float", "default_int64", "default_tensor"))
    node.attribute("default_string")
    if keys is None or values is None or len(keys) != len(values):
        raise refused("it encodes texts", "encode them as numbers before")
    other = -1.0 if given is None else float(np.asarray(given).item())
    x = node.place(0)
    marks = _marks(node, x, np.asarray(keys, np.float64))
    row = linear(node.graph, marks, Known(np.asarray(values, np.float64)[None] - other))
    return affine(node.graph, node.graph.laid_out(row, x.layout), 1.0, other)


def _imputer(node: Node) -> Value:
    """What is missing is no number, which nobody can share; else a number that stands for it."""
    x = _rows(node)
    values = _first(node, ("imputed_value_floats", "imputed_value_int64s"))
    gone = _first(node, ("replaced_value_float", "replaced_value_int64"))
    if values is None or gone is None or np.isnan(gone):
        return x
    filled = Known(np.broadcast_to(np.asarray(values, np.float64), (x.layout.shape[1],)))
    at = node.same(Compare("eq", float(gone)), x)
    return node.add(Where(), at, beside(node.graph, filled, x.layout), x, layout=x.layout)


def _binarizer(node: Node) -> Value:
    return node.same(Compare("gt", node.take("threshold", 0.0)), node.place(0))


def _joined(node: Node) -> Value:
    node.attribute("inputdimensions")
    rows = [node.plain(i) for i in range(node.count)]
    width = sum(each.layout.shape[1] for each in rows)
    return node.add(f.Concatenate(1), *rows, layout=rows[0].layout.resized((rows[0].layout.shape[0], width)))


# -- trees -------------------------------------------------------------------------------------------------------------

_RULES = ("BRANCH_LEQ", "BRANCH_LT")
_TURNED = {"BRANCH_GT": "BRANCH_LEQ", "BRANCH_GTE": "BRANCH_LT"}
"""The rule that sends the other way."""


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
    yes, no = (
        tuple(b if mode in _TURNED else a for a, b, mode in zip(*ways, modes, strict=True))
        for ways in ((yes, no), (no, yes))
    )
    rules = sorted({_TURNED.get(mode, mode) for mode in modes if mode != "LEAF"})
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
    trees, rule, together = _trees(node, prefix, outputs)
    if together not in ("SUM", "AVERAGE"):
        raise refused(f"it takes the {together} of its trees", "export it with SUM or AVERAGE")
    base = _either(node, "base_values")
    return _of_trees(node, trees, rule, outputs, base, mean=together == "AVERAGE")


def _of_trees(node: Node, trees: list[Tree], rule: str, outputs: int, base: Any, *, mean: bool) -> Tensor:
    x = _rows(node)
    if mean:
        trees = [tree._replace(leaf=tree.leaf / len(trees)) for tree in trees]
    bias = np.zeros(outputs) if base is None else np.broadcast_to(np.asarray(base, np.float64), (outputs,))
    if rule == "BRANCH_LT":
        trees = [tree._replace(threshold=below(tree.threshold.astype(np.float32))) for tree in trees]
    features = x.layout.shape[1]
    read = node.graph.read_by_trees(x) or Read(np.zeros((0, features)))

    def given(rows: Array) -> Array:
        return read(rows).astype(np.float32)

    layer, weights = complete(trees, features, bias, given, -WIDEST, WIDEST)
    made = x.layout.resized((x.layout.shape[0], outputs))
    return node.add(layer, x, layout=made, **weights)


_MODES = ("BRANCH_LEQ", "BRANCH_LT", "BRANCH_GTE", "BRANCH_GT")


def _tree_ensemble(node: Node) -> Value:
    """Of version 5: inner nodes and leaves apart."""
    splits, modes, weights, features, yes, no, yes_leaf, no_leaf, targets, roots = (
        node.attribute(name)
        for name in (
            "nodes_splits", "nodes_modes", "leaf_weights", "nodes_featureids", "nodes_truenodeids",
            "nodes_falsenodeids", "nodes_trueleafs", "nodes_falseleafs", "leaf_targetids", "tree_roots",
        )
    )  # fmt: skip
    for name in ("nodes_hitrates", "nodes_missing_value_tracks_true"):
        node.attribute(name)
    outputs, together = node.take("n_targets", 1), node.take("aggregate_function", 1)
    if node.take("post_transform", 0) or together not in (0, 1) or node.attribute("membership_values") is not None:
        raise refused("it has sets, an end, or another aggregate than SUM and AVERAGE", READ)
    names = [_MODES[int(mode)] if int(mode) < len(_MODES) else "sets" for mode in modes]
    rules = sorted({_TURNED.get(name, name) for name in names})
    if len(rules) != 1 or rules[0] not in _RULES:
        raise refused(f"its trees branch by {', '.join(rules)}", "export them with one rule")
    ways = [list(way) for way in zip(zip(yes, yes_leaf, strict=True), zip(no, no_leaf, strict=True), strict=True)]
    ways = [way[::-1] if name in _TURNED else way for way, name in zip(ways, names, strict=True)]
    found = []
    for root in roots:
        rows: list[list[float]] = []  # feature, threshold, left, right, and the leaf
        leaves = list[Array]()
        alone = yes_leaf[root] and no_leaf[root] and yes[root] == no[root]
        waiting = [(int(root), bool(alone), -1, 0)]
        while waiting:
            at, is_leaf, parent, side = waiting.pop()
            if len(rows) >= 2 ** (MAX_DEPTH + 1):
                raise refused("it has a tree of too many nodes", SHALLOWER)
            if parent >= 0:
                rows[parent][2 + side] = len(rows)
            leaf = np.zeros(outputs)
            if is_leaf:
                leaf[targets[at]] = float(weights[at])
                rows.append([-1, 0.0, 0, 0])
            else:
                rows.append([features[at], float(splits[at]), 0, 0])
                waiting += [(*ways[at][side], len(rows) - 1, side) for side in (0, 1)]
            leaves.append(leaf)
        feature, threshold, left, right = np.array(rows).T
        found.append(Tree(feature.astype(int), threshold, left.astype(int), right.astype(int), np.array(leaves)))
    return _of_trees(node, found, rules[0], outputs, None, mean=together == 0)


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
        "ArrayFeatureExtractor": _columns,
        "OneHotEncoder": _one_hot,
        "LabelEncoder": _encoded,
        "Imputer": _imputer,
        "Binarizer": _binarizer,
        "FeatureVectorizer": _joined,
        "TreeEnsemble": _tree_ensemble,
        "TreeEnsembleRegressor": _tree_regressor,
        "TreeEnsembleClassifier": _tree_classifier,
    }.items()
}
"""By operator, with its domain."""
