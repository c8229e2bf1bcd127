"""Support vector machines, as converters of scikit-learn write them."""

from __future__ import annotations

import numpy as np

from nn import activations as a
from nn import functional as f
from nn.importing.blockers import refused
from nn.importing.building import Known, Tensor, affine, linear
from nn.importing.one_against_one import one_against_one
from nn.importing.onnx_file import READ
from nn.importing.onnx_nodes import Node, Value
from nn.kernels import RBF
from nn.layer import Array

MOST_DEGREE = 7


def regressor(node: Node) -> Value:
    """A sum of kernels with secret vectors; of one without vectors, of the features."""
    x, count, kind = node.plain(0), node.take("n_supports", 0), node.take("kernel_type", "LINEAR")
    node.only("one_class", 0, 0)
    node.only("post_transform", "NONE", "NONE")
    gamma, offset, degree = (*_floats(node, "kernel_params"), 0.0, 0.0, 0.0)[:3]
    shares, rho = _floats(node, "coefficients"), _floats(node, "rho")[:1]
    vectors = _floats(node, "support_vectors").reshape(max(count, 1), -1)
    if node.rank(x) != 2 or len(rho) != 1:
        raise refused("it takes rows (N, features), and has one number rho", READ)
    if not count or kind == "LINEAR":
        weight = shares[None] @ vectors if count else shares[None]
        return linear(node.graph, x, Known(weight), Known(rho))
    return linear(node.graph, _kernel(node, x, kind, vectors, (gamma, offset, degree)), Known(shares[None]), Known(rho))


def _kernel(node: Node, x: Tensor, kind: str, vectors: Array, parameters: tuple[float, float, float]) -> Tensor:
    """What each vector makes of a row."""
    gamma, offset, degree = parameters
    if kind == "RBF":
        made = x.layout.resized((x.layout.shape[0], len(vectors)))
        layer = RBF(vectors.shape[1], len(vectors))
        return node.add(layer, x, layout=made, weight=vectors, gamma=np.array([gamma]))
    if kind == "SIGMOID" or (kind == "POLY" and degree in range(1, MOST_DEGREE + 1)):
        near = linear(node.graph, x, Known(gamma * vectors), Known(np.full(len(vectors), offset)))
        if kind == "SIGMOID":
            return node.same(a.Tanh(), near)
        return near if degree == 1 else node.same(a.Polynomial((0.0,) * int(degree) + (1.0,)), near)
    raise refused(f"its kernel is {kind}, of degree {degree:g}", f"take LINEAR, RBF, SIGMOID, or POLY to {MOST_DEGREE}")


def _floats(node: Node, name: str) -> Array:
    found = node.attribute(name)
    return np.asarray(() if found is None else found, np.float64).reshape(-1)


def classifier(node: Node) -> Value:
    """What speaks for the first of each pair of classes, in order, or two numbers of two; its label is left out."""
    x, kind = node.plain(0), node.take("kernel_type", "LINEAR")
    names = ("classlabels_ints", "classlabels_strings")
    classes = max(len(each) for name in names if (each := node.attribute(name)) is not None)
    gamma, offset, degree = (*_floats(node, "kernel_params"), 0.0, 0.0, 0.0)[:3]
    shares, rho, vectors = _floats(node, "coefficients"), _floats(node, "rho"), _floats(node, "support_vectors")
    counts = node.attribute("vectors_per_class") or ()
    ends = node.take("post_transform", "NONE")
    if node.rank(x) != 2 or ends != "NONE" or not counts:
        raise refused("it takes rows (N, features), with vectors of each class, and post_transform NONE", READ)
    if len(_floats(node, "prob_a")) or len(_floats(node, "prob_b")):
        raise refused(
            "its probabilities are found step by step, to no fixed precision", "train it with probability=False"
        )
    total = sum(counts)
    pairs = one_against_one(shares.reshape(classes - 1, total), counts)
    if len(rho) != len(pairs):
        raise refused("it has another number of rho than of pairs of classes", READ)
    rows = vectors.reshape(total, -1)
    if kind == "LINEAR":
        found = linear(node.graph, x, Known(pairs @ rows), Known(rho))
    else:
        kernel = _kernel(node, x, kind, rows, (gamma, offset, degree))
        found = linear(node.graph, kernel, Known(pairs), Known(rho))
    if classes != 2:
        return [None, found]
    made = found.layout.resized((found.layout.shape[0], 2))
    return [None, node.add(f.Concatenate(1), affine(node.graph, found, -1.0), found, layout=made)]
