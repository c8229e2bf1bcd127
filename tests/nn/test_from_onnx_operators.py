"""Operators of ONNX beyond those of plain networks of images, against onnx's own reference."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
from onnx import TensorProto, helper  # noqa: E402
from onnx.reference import ReferenceEvaluator  # noqa: E402

from mpc.errors import EncodingError, ShapeError, UnsupportedError, UsageError  # noqa: E402
from nn import SeveralInputs, from_onnx  # noqa: E402
from nn.importing import onnx_operators  # noqa: E402
from nn.importing.onnx_ml import MACHINE_LEARNING  # noqa: E402
from nn.importing.onnx_quantized import QUANTIZED  # noqa: E402
from protocols import PrecisionWarning  # noqa: E402
from tests.nn import test_from_onnx as plain  # noqa: E402

ROW, IMAGE, SEQUENCE, TABLE, VOLUME = (4,), (4, 6, 6), (4, 7), (5, 4), (2, 4, 4, 4)
weight, one, node, ints, agree, made = plain.weight, plain.one, plain.node, plain.ints, plain.agree, plain.made
Case = tuple[tuple[list[Any], dict[str, np.ndarray]], Sequence[int]]
HALF = np.float32(0.5)
MASK = np.array([[True, False, True, True]])


def turned(
    kind: str, *weights: np.ndarray, outputs: Sequence[str] = ("y_",), last: Any = None, **attributes: Any
) -> Any:
    """Of (N, T, C) a network that wants (T, N, C); its first result is (T, D, N, H)."""
    names = {f"w{i}": w for i, w in enumerate(weights)}
    nodes = [
        node("Transpose", ["x"], ["t"], perm=[1, 0, 2]),
        node(kind, ["t", *names], list(outputs), **attributes),
        *(last or [node("Transpose", ["y_"], ["y"], perm=[2, 0, 1, 3])]),
    ]
    return nodes, names


ROWS_OF = [
    node("Shape", ["x"], ["a"], start=0, end=1),
    node("Concat", ["a", "ends"], ["b"], axis=0),
    node("Expand", ["w", "b"], ["i"]),
]
"""Places w, for each input of the batch."""
ENDS = [
    node("Transpose", ["h"], ["h_"], perm=[1, 0, 2]),
    node("Transpose", ["c"], ["c_"], perm=[1, 0, 2]),
    node("Concat", ["h_", "c_"], ["y"], axis=2),
]
LSTM = (weight(2, 12, 4), weight(2, 12, 3), weight(2, 24))

NEW: dict[str, Case] = {
    "TopK": (([node("TopK", ["x", "k"], ["v", "i"], axis=1), node("Identity", ["v"], ["y"])], {"k": ints([2])}), TABLE),
    "TopK, where": (
        ([node("TopK", ["x", "k"], ["v", "i"], largest=0), node("Cast", ["i"], ["y"], to=1)], {"k": ints([2])}), TABLE,
    ),
    "OneHot": (
        ([node("ArgMax", ["x"], ["i"], axis=1, keepdims=0), node("OneHot", ["i", "n", "v"], ["y"])],
         {"n": np.array(4), "v": np.array([-1.0, 2.0], np.float32)}), ROW,
    ),
    "GatherElements, secret": (
        ([node("ArgMax", ["x"], ["i"], axis=1), node("GatherElements", ["x", "i"], ["y"], axis=1)], {}), TABLE,
    ),
    "GatherND": (
        ([*ROWS_OF, node("GatherND", ["x", "i"], ["y"], batch_dims=1)],
         {"ends": ints([2, 2]), "w": ints([[0, 1], [4, 3]])}),
        TABLE,
    ),
    "ScatterElements": (
        ([*ROWS_OF, node("Slice", ["x", "zero", "two", "one"], ["s"]),
          node("ScatterElements", ["x", "i", "s"], ["y"], axis=1)],
         {"zero": ints([0]), "two": ints([2]), "one": ints([1]), "ends": ints([2, 4]), "w": ints([[4], [2]])}), TABLE,
    ),
    "ScatterND": (
        ([node("Shape", ["x"], ["a"], start=0, end=1), node("Concat", ["a", "two"], ["b"], axis=0),
          node("ConstantOfShape", ["b"], ["o"], value=helper.make_tensor("v", TensorProto.INT64, [1], [1])),
          node("NonZero", ["o"], ["p"]), node("Transpose", ["p"], ["i"]), node("Shape", ["i"], ["c"], end=1),
          node("Concat", ["c", "four"], ["d"], axis=0), node("Expand", ["u", "d"], ["e"]),
          node("ScatterND", ["x", "i", "e"], ["y"])],
         {"two": ints([2]), "four": ints([4]), "u": np.array([[1.0, -2.0, 0.5, 0.0]], np.float32)}), TABLE,
    ),
    "GridSample": (one("GridSample", np.tile(weight(1, 3, 2, 2), (4, 1, 1, 1)), padding_mode="border"), IMAGE),
    "Einsum": (([node("Einsum", ["x", "x"], ["y"], equation="bij,bkj->bki")], {}), TABLE),
    "Einsum, of a weight": (one("Einsum", weight(4, 2), equation="bij,jk->bik"), TABLE),
    "Einsum, summed": (([node("Einsum", ["x"], ["y"], equation="bij->bj")], {}), TABLE),
    "Col2Im": (one("Col2Im", ints([5, 5]), ints([2, 2]), strides=[2, 1], pads=[1, 0, 1, 0]), (8, 12)),
    "IsInf": (([node("IsInf", ["x"], ["f"]), node("Where", ["f", "z", "x"], ["y"])], {"z": np.float32(3e8)}), ROW),
    "ReduceProd": (one("ReduceProd", ints([1]), keepdims=0), TABLE),
    "ReduceLogSum": (
        ([node("Mul", ["x", "x"], ["s"]), node("Add", ["s", "o"], ["a"]),
          node("ReduceLogSum", ["a", "w"], ["y"], keepdims=0)], {"o": np.float32(1), "w": ints([2])}), TABLE,
    ),
    "Exp, of a log-softmax": (
        ([node("ReduceLogSumExp", ["x", "w"], ["l"], keepdims=0), node("Unsqueeze", ["l", "w"], ["m"]),
          node("Sub", ["x", "m"], ["n"]), node("Exp", ["n"], ["y"])], {"w": ints([1])}), ROW,
    ),
    "Pow, between whole ones": (
        ([node("Mul", ["x", "x"], ["s"]), node("Add", ["s", "o"], ["a"]), node("Pow", ["a", "e"], ["y"])],
         {"o": np.float32(1), "e": np.float32(-1.5)}), TABLE,
    ),
    "ConvTranspose, grouped": (one("ConvTranspose", weight(4, 1, 3, 3), group=4, strides=[2, 2]), IMAGE),
    "Conv, of rows": (one("Conv", weight(2, 4, 3), weight(2), dilations=[2], pads=[1, 0]), SEQUENCE),
    "Conv, of volumes": (one("Conv", weight(4, 1, 2, 3, 3), group=2, pads=[0, 1, 1, 1, 1, 1]), VOLUME),
    "Conv, dilated": (one("Conv", weight(2, 4, 3, 3), dilations=[2, 2], auto_pad="SAME_UPPER"), IMAGE),
    "Conv, strided same": (one("Conv", weight(2, 4, 3, 3), strides=[2, 2], auto_pad="SAME_LOWER"), IMAGE),
    "ConvTranspose": (one("ConvTranspose", weight(4, 2, 3, 3), weight(2), strides=[2, 2], pads=[1] * 4), IMAGE),
    "ConvTranspose, uneven": (
        one("ConvTranspose", weight(4, 2, 3, 3), strides=[2, 2], pads=[0, 0, 1, 1], output_padding=[1, 1]), IMAGE,
    ),
    "ConvTranspose, of rows": (one("ConvTranspose", weight(4, 3, 4), strides=[2], pads=[1, 1]), SEQUENCE),
    "MaxPool, ceil": (one("MaxPool", kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1), IMAGE),
    "MaxPool, dilated": (one("MaxPool", kernel_shape=[2, 2], dilations=[2, 2]), IMAGE),
    "MaxPool, of rows": (one("MaxPool", kernel_shape=[2], strides=[2]), SEQUENCE),
    "AveragePool, of volumes": (one("AveragePool", kernel_shape=[2, 2, 2]), VOLUME),
    "GlobalAveragePool, of rows": (one("GlobalAveragePool"), SEQUENCE),
    "Pad": (one("Pad", ints([0, 0, 1, 2, 0, 0, 0, 1]), HALF), IMAGE),
    "Pad, reflect": (one("Pad", ints([0, 0, 1, 2, 0, 0, 0, 1]), mode="reflect"), IMAGE),
    "Pad, edge": (one("Pad", ints([2, 1]), np.float32(0), ints([3]), mode="edge"), IMAGE),
    "Resize": (
        ([node("Resize", ["x", "", "s"], ["y"], mode="nearest", coordinate_transformation_mode="asymmetric",
               nearest_mode="floor")], {"s": np.array([1, 1, 2, 1.5], np.float32)}), IMAGE,
    ),
    "Resize, linear": (
        ([node("Shape", ["x"], ["a"], start=0, end=2), node("Concat", ["a", "s"], ["b"], axis=0),
          node("Resize", ["x", "", "", "b"], ["y"], mode="linear", coordinate_transformation_mode="half_pixel")],
         {"s": ints([9, 5])}), IMAGE,
    ),
    "Resize, corners": (
        ([node("Resize", ["x", "", "s"], ["y"], mode="linear", coordinate_transformation_mode="align_corners")],
         {"s": np.array([1, 1, 2, 2], np.float32)}), IMAGE,
    ),
    "LSTM": (turned("LSTM", *LSTM, hidden_size=3, direction="bidirectional"), TABLE),
    "LSTM, ends": (
        turned("LSTM", *(w[:1] for w in LSTM), outputs=("", "h", "c"), last=ENDS, hidden_size=3), TABLE,
    ),
    "GRU": (
        turned("GRU", weight(1, 9, 4), weight(1, 9, 3), weight(1, 18), hidden_size=3, linear_before_reset=1), TABLE,
    ),
    "RNN": (turned("RNN", weight(1, 3, 4), weight(1, 3, 3), hidden_size=3, direction="reverse"), TABLE),
    "Slice": (one("Slice", ints([1, -1]), ints([5, -(2**60)]), ints([2, 3]), ints([2, -1])), IMAGE),
    "Split": (
        ([node("Split", ["x", "s"], ["a", "b"], axis=1), node("Concat", ["b", "a"], ["y"], axis=1)],
         {"s": ints([1, 3])}), IMAGE,
    ),
    "Squeeze": (
        ([node("Unsqueeze", ["x", "u"], ["a"]), node("Squeeze", ["a", "u"], ["y"])], {"u": ints([1, 4])}), IMAGE,
    ),
    "Unsqueeze": (one("Unsqueeze", ints([-1, 1])), ROW),
    "Expand": (([node("Unsqueeze", ["x", "u"], ["a"]), node("Expand", ["a", "s"], ["y"])],
                {"u": ints([1]), "s": ints([1, 3, 4])}), ROW),
    "Tile": (one("Tile", ints([1, 2, 1])), TABLE),
    "Gather": (one("Gather", ints([[2, -1], [0, 0]]), axis=1), TABLE),
    "Gather, of one": (one("Gather", np.array(2), axis=1), TABLE),
    "GatherElements": (
        ([node("Shape", ["x"], ["a"], start=0, end=1), node("Concat", ["a", "s"], ["b"], axis=0),
          node("Expand", ["w", "b"], ["c"]), node("GatherElements", ["x", "c"], ["y"], axis=1)],
         {"s": ints([2, 4]), "w": ints([[[2], [0]]])}), TABLE,
    ),
    "DepthToSpace": (one("DepthToSpace", blocksize=2), IMAGE),
    "DepthToSpace, by columns": (one("DepthToSpace", blocksize=2, mode="CRD"), IMAGE),
    "SpaceToDepth": (one("SpaceToDepth", blocksize=2), IMAGE),
    "Trilu": (one("Trilu", upper=0), (4, 4)),
    "Transpose, the batch": (
        ([node("Transpose", ["x"], ["a"], perm=[1, 0, 2]), node("Mul", ["a", "w"], ["b"]),
          node("Transpose", ["b"], ["y"], perm=[1, 2, 0])], {"w": weight(5, 1, 4)}), TABLE,
    ),
    "Reshape, the batch merged": (
        ([node("Reshape", ["x", "s"], ["a"]), node("Softmax", ["a"], ["b"]), node("Reshape", ["b", "t"], ["y"])],
         {"s": ints([-1, 2]), "t": ints([-1, 5, 4])}), TABLE,
    ),
    "Reshape, as exporters write it": (one("Reshape", ints([-1, 20]), allowzero=1), TABLE),
    "Shape": (
        ([node("Shape", ["x"], ["a"]), node("Gather", ["a", "zero"], ["b"]), node("Unsqueeze", ["b", "u"], ["c"]),
          node("Concat", ["c", "rest"], ["d"], axis=0), node("Reshape", ["x", "d"], ["y"])],
         {"zero": np.array(0), "u": ints([0]), "rest": ints([20])}), TABLE,
    ),
    "Sum": (([node("Sum", ["x", "w", "x"], ["y"])], {"w": weight(4)}), ROW),
    "Max": (one("Max", weight(4)), ROW),
    "Min": (([node("Neg", ["x"], ["a"]), node("Min", ["x", "a"], ["y"])], {}), ROW),
    "Pow": (one("Pow", np.float32(3)), ROW),
    "Pow, of a number": (one("Pow", np.float32(2), first=True), ROW),
    **{kind: (([node("Abs", ["x"], ["a"]), node("Add", ["a", "h"], ["b"]), node(kind, ["b"], ["y"])], {"h": HALF}), ROW)
       for kind in ("Sqrt", "Reciprocal", "Log", "Exp", "Sin", "Cos")},
    **{kind: (([node(kind, ["x", "w"], ["b"]), node("Cast", ["b"], ["y"], to=1)], {"w": weight(4)}), ROW)
       for kind in ("Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Equal")},
    "Where": (([node("Greater", ["x", "h"], ["c"]), node("Where", ["c", "x", "w"], ["y"])],
               {"h": HALF, "w": weight(4)}), ROW),
    "Where, before many sums": (
        ([node("Where", ["m", "x", "low"], ["s0"]),
          *(each for i in range(40) for each in (node("Add", [f"s{i}"] * 2, [f"t{i}"]),
                                                 node("Mul", [f"t{i}", "h"], [f"s{i + 1}"]))),
          node("Softmax", ["s40"], ["y"])], {"m": MASK, "h": HALF, "low": np.float32(-1e9)}), ROW,
    ),
    "Where, public": (([node("Where", ["m", "x", "h"], ["y"])], {"m": MASK, "h": HALF}), ROW),
    **{kind: (([node("Greater", ["x", "h"], ["c"]), node("Less", ["x", "z"], ["d"]), node(kind, ["c", "d"], ["e"]),
                node("Cast", ["e"], ["y"], to=1)], {"h": HALF, "z": np.float32(0)}), ROW)
       for kind in ("And", "Or", "Xor")},
    "Not": (([node("Greater", ["x", "h"], ["c"]), node("Not", ["c"], ["e"]), node("Cast", ["e"], ["y"], to=1)],
             {"h": HALF}), ROW),
    "IsNaN": (([node("IsNaN", ["x"], ["c"]), node("Where", ["c", "h", "x"], ["y"])], {"h": HALF}), ROW),
    "Cast": (one("Cast", to=1), ROW),
    "Sign": (one("Sign"), ROW),
    "CumSum": (one("CumSum", np.array(1)), TABLE),
    "ArgMax": (([node("ArgMax", ["x"], ["a"], axis=2), node("Cast", ["a"], ["y"], to=1)], {}), TABLE),
    "ArgMin": (([node("ArgMin", ["x"], ["a"], axis=1, keepdims=0), node("Cast", ["a"], ["y"], to=1)], {}), TABLE),
    "ReduceMax": (one("ReduceMax", ints([1, 2])), TABLE),
    "ReduceMin": (one("ReduceMin", ints([-1]), keepdims=0), TABLE),
    "ReduceSum": (one("ReduceSum", ints([1]), keepdims=0), TABLE),
    "ReduceSumSquare": (one("ReduceSumSquare", ints([2])), TABLE),
    "ReduceLogSumExp": (one("ReduceLogSumExp", ints([2])), TABLE),
    "ThresholdedRelu": (one("ThresholdedRelu", alpha=0.3), ROW),
    "Shrink": (one("Shrink", lambd=0.3), ROW),
    "Shrink, soft": (one("Shrink", lambd=0.3, bias=0.3), ROW),
    "HardSigmoid, its own": (one("HardSigmoid"), ROW),
    "Gather, a table": (
        ([node("ArgMax", ["x"], ["a"], axis=2, keepdims=0), node("Gather", ["w", "a"], ["y"])], {"w": weight(4, 3)}),
        TABLE,
    ),
    "folded": (
        ([node("Add", ["c", "c"], ["d"]), node("ConstantOfShape", ["s"], ["e"]), node("Mul", ["d", "e"], ["f"]),
          node("Add", ["x", "f"], ["y"])], {"c": weight(4), "s": ints([1])}), ROW,
    ),
}  # fmt: skip


@pytest.mark.sampled(4)
@pytest.mark.parametrize("name", NEW)
def test_each_operator(name: str) -> None:
    (nodes, weights), shape = NEW[name]
    agree(made(nodes, shape, weights), np.random.default_rng(1).standard_normal((3, *shape)))


SMALL, UNIT, ZERO, SIGNED = np.float32(0.02), np.float32(1 / 64), np.uint8(128), np.int8(0)
WHOLE = np.random.default_rng(5).integers(-100, 100, (4, 3)).astype(np.int8)
FEW_BITS: dict[str, Any] = {
    "QuantizeLinear": (
        [node("QuantizeLinear", ["x", "s", "z"], ["q"]), node("DequantizeLinear", ["q", "s", "z"], ["a"]),
         node("DequantizeLinear", ["w", "u", "n"], ["b"]), node("MatMul", ["a", "b"], ["y"])],
        {"s": SMALL, "z": ZERO, "w": WHOLE, "u": UNIT, "n": SIGNED}, ROW,
    ),
    "MatMulInteger": (
        [node("DynamicQuantizeLinear", ["x"], ["q", "s", "z"]), node("MatMulInteger", ["q", "w", "z", "n"], ["i"]),
         node("Cast", ["i"], ["f"], to=1), node("Mul", ["s", "u"], ["t"]), node("Mul", ["f", "t"], ["y"])],
        {"w": WHOLE, "u": UNIT, "n": SIGNED}, ROW,
    ),
    "ConvInteger": (
        [node("DynamicQuantizeLinear", ["x"], ["q", "s", "z"]), node("ConvInteger", ["q", "w", "z"], ["i"]),
         node("Cast", ["i"], ["f"], to=1), node("Mul", ["f", "s"], ["y"])],
        {"w": np.random.default_rng(6).integers(-5, 5, (2, 4, 3, 3)).astype(np.int8)}, IMAGE,
    ),
    "QLinearConv": (
        [node("QuantizeLinear", ["x", "s", "z"], ["q"]),
         node("QLinearConv", ["q", "s", "z", "w", "u", "n", "t", "z", "b"], ["r"]),
         node("DequantizeLinear", ["r", "t", "z"], ["y"])],
        {"s": SMALL, "z": ZERO, "w": np.random.default_rng(6).integers(-9, 9, (2, 4, 3, 3)).astype(np.int8), "u": UNIT,
         "n": SIGNED, "t": np.float32(0.05), "b": np.array([90, -50], np.int32)}, IMAGE,
    ),
    "QLinearMatMul": (
        [node("QuantizeLinear", ["x", "s", "z"], ["q"]),
         node("QLinearMatMul", ["q", "s", "z", "w", "u", "n", "t", "z"], ["r"]),
         node("DequantizeLinear", ["r", "t", "z"], ["y"])],
        {"s": SMALL, "z": ZERO, "w": WHOLE, "u": UNIT, "n": SIGNED, "t": np.float32(0.05)}, ROW,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FEW_BITS)
def test_few_bits(name: str) -> None:
    """Held against the rounded source within its own steps, which is said."""
    nodes, weights, shape = FEW_BITS[name]
    samples = np.random.default_rng(2).uniform(-1, 1, (8, *shape))
    with pytest.warns(PrecisionWarning, match="rounds . times to numbers of few bits"):
        model = from_onnx(made(nodes, shape, weights), samples)
    (wanted,) = plain.ReferenceEvaluator(onnx.load_model_from_string(made(nodes, shape, weights))).run(
        None, {"x": samples.astype(np.float32)}
    )
    assert np.abs(model.plain(samples) - wanted).max() < 0.05 * np.abs(wanted).max()


def of_rows(nodes: list[Any], outputs: Sequence[Any] | None = None) -> bytes:
    takes = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3])
    gives = outputs or [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", None])]
    graph = helper.make_graph(nodes, "g", [takes], gives)
    version = 5 if any(n.op_type == "TreeEnsemble" for n in nodes) else 3
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("ai.onnx.ml", version)]
    return bytes(helper.make_model(graph, opset_imports=opsets, ir_version=9).SerializeToString())


def learned(kind: str, outputs: Sequence[str] = ("y",), **attributes: Any) -> list[Any]:
    return [node(kind, ["x"], list(outputs), domain="ai.onnx.ml", **attributes)]


TREES = {
    "nodes_treeids": [0, 0, 0, 0, 0, 1, 1, 1], "nodes_nodeids": [0, 1, 2, 3, 4, 0, 1, 2],
    "nodes_featureids": [0, 2, 0, 0, 0, 1, 0, 0], "nodes_values": [0.25, -0.5, 0, 0, 0, 0.125, 0, 0],
    "nodes_modes": ["BRANCH_LEQ", "BRANCH_LEQ", *["LEAF"] * 3, "BRANCH_LEQ", "LEAF", "LEAF"],
    "nodes_truenodeids": [1, 3, 0, 0, 0, 1, 0, 0], "nodes_falsenodeids": [2, 4, 0, 0, 0, 2, 0, 0],
}  # fmt: skip
LEAVES = {"treeids": [0, 0, 0, 1, 1], "nodeids": [2, 3, 4, 1, 2], "ids": [0, 0, 1, 1, 0], "weights": [1, 2, 3, 0.5, -1]}
LABELS = {"classlabels_int64s": [0, 1]}
ML: dict[str, list[Any]] = {
    "Scaler": learned("Scaler", offset=[0.5, 0.0, -1.0], scale=[2.0, 0.5, 1.0]),
    "LinearRegressor": learned("LinearRegressor", coefficients=[1.0, -2.0, 0.5], intercepts=[0.25]),
    **{
        f"SVMRegressor, {kernel}": learned(
            "SVMRegressor", coefficients=[0.5, -0.25], kernel_params=[0.5, 0.25, 3.0], kernel_type=kernel, n_supports=2,
            rho=[0.125], support_vectors=[0.5, 0.25, -1.0, 1.0, 0.0, 0.5],
        )
        for kernel in ("LINEAR", "RBF", "SIGMOID", "POLY")
    },
    "SVMRegressor of features": learned(
        "SVMRegressor", coefficients=[0.5, -0.25, 1.0], kernel_type="LINEAR", n_supports=0, rho=[0.125]
    ),
    "LinearClassifier": learned(
        "LinearClassifier", ("label", "y"), coefficients=[1.0, -2.0, 0.5, 0.0, 1.0, 1.0, -1.0, 0.5, 0.5],
        intercepts=[0.1, 0.0, -0.1], classlabels_ints=[0, 1, 2], post_transform="SOFTMAX",
    ),
    "TreeEnsembleRegressor": learned(
        "TreeEnsembleRegressor", n_targets=2, base_values=[0.5, 1.0], **TREES,
        **{f"target_{name}": values for name, values in LEAVES.items()},
    ),
    "TreeEnsembleClassifier": [
        *learned("TreeEnsembleClassifier", ("label", "p"), **TREES, **LABELS,
                 **{f"class_{name}": values for name, values in LEAVES.items()}),
        node("ZipMap", ["p"], ["y"], domain="ai.onnx.ml", **LABELS),
    ],
    **{
        f"SVMClassifier, {kernel} of {classes}": learned(
            "SVMClassifier", ("label", "y"), kernel_type=kernel, kernel_params=[0.5, 0.25, 3.0],
            coefficients=[0.5, -0.25, 1.0, 0.5, -1.0, 0.25, 0.75, -0.5][: 4 * (classes - 1)],
            rho=[0.125, -0.25, 0.5][: 2 * classes - 3], vectors_per_class=[1, 2, 1] if classes == 3 else [2, 2],
            support_vectors=[0.5, 0.25, -1.0, 1.0, 0.0, 0.5, -0.5, 1.0, 0.25, 0.0, 0.75, -0.25],
            classlabels_ints=list(range(classes)),
        )
        for kernel, classes in (("RBF", 3), ("POLY", 2), ("LINEAR", 3))
    },
    **{
        f"TreeEnsemble, {rule}": learned(
            "TreeEnsemble", n_targets=2, tree_roots=[0, 2], nodes_featureids=[0, 2, 1],
            nodes_splits=helper.make_tensor("s", TensorProto.FLOAT, [3], [0.25, -0.5, 0.125]),
            nodes_modes=helper.make_tensor("m", TensorProto.UINT8, [3], [rule] * 3),
            nodes_truenodeids=[1, 1, 3], nodes_trueleafs=[0, 1, 1], nodes_falsenodeids=[0, 2, 4],
            nodes_falseleafs=[1, 1, 1], leaf_targetids=[0, 0, 1, 1, 0],
            leaf_weights=helper.make_tensor("w", TensorProto.FLOAT, [5], [1.0, 2.0, 3.0, 0.5, -1.0]),
        )
        for rule in range(4)
    },
    "ArrayFeatureExtractor": [
        node("Constant", [], ["c"], value=helper.make_tensor("c", TensorProto.INT64, [2], [2, 0])),
        node("ArrayFeatureExtractor", ["x", "c"], ["y"], domain="ai.onnx.ml"),
    ],
    "OneHotEncoder": [
        *learned("LabelEncoder", ("i",), keys_floats=[0.25, 0.5], values_floats=[1.0, 2.0], default_float=0.0),
        node("Constant", [], ["c"], value=helper.make_tensor("c", TensorProto.INT64, [3], [8, 0, 4])),
        node("OneHotEncoder", ["i"], ["h"], domain="ai.onnx.ml", cats_int64s=[0, 1, 2]),
        node("Flatten", ["h"], ["f"]),
        node("ArrayFeatureExtractor", ["f", "c"], ["y"], domain="ai.onnx.ml"),
    ],
    "Imputer": learned("Imputer", imputed_value_floats=[1.0, 2.0, 3.0], replaced_value_float=0.5),
    "Binarizer": learned("Binarizer", threshold=0.25),
    "FeatureVectorizer": [node("FeatureVectorizer", ["x"], ["y"], domain="ai.onnx.ml", inputdimensions=[3])],
    "Normalizer": learned("Normalizer", norm="MAX"),
    "ZipMap": [
        *learned("LinearClassifier", ("label", "p"), coefficients=[1.0, -2.0, 0.5, -1.0, 2.0, -0.5],
                 intercepts=[0.1, -0.1], classlabels_ints=[0, 1], post_transform="LOGISTIC"),
        node("Normalizer", ["p"], ["q"], domain="ai.onnx.ml", norm="L1"),
        node("ZipMap", ["q"], ["y"], domain="ai.onnx.ml", **LABELS),
    ],
}  # fmt: skip


@pytest.mark.sampled(4)
@pytest.mark.parametrize("name", ML)
def test_models_that_converters_write(name: str) -> None:
    """Their labels are left out; what a sample leads to is onnx's own."""
    label = helper.make_tensor_value_info("label", TensorProto.INT64, ["N"])
    real = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", None])
    outputs = [label, real] if "label" in [o for n in ML[name] for o in n.output] else [real]
    if ML[name][-1].op_type == "ZipMap":
        value = helper.make_tensor_type_proto(TensorProto.FLOAT, [])
        kind = helper.make_sequence_type_proto(helper.make_map_type_proto(TensorProto.INT64, value))
        outputs[-1] = helper.make_value_info("y", kind)
    samples = np.random.default_rng(7).uniform(-1, 1, (24, 3)).round(2)
    model = from_onnx(of_rows(ML[name], outputs), samples)
    assert model.plain(samples).shape[1] in (1, 2, 3)


def test_trees_that_ask_for_less_than_a_sample() -> None:
    """As XGBoost's do, whose thresholds are numbers of its samples: rounded as inputs are, they stay on their side."""
    rng = np.random.default_rng(8)
    samples = rng.uniform(-1, 1, (40, 3)).astype(np.float32)
    trees = TREES | {
        "nodes_modes": [mode.replace("LEQ", "LT") for mode in TREES["nodes_modes"]],
        "nodes_values": [float(samples[i, j]) for i, j in ((3, 0), (5, 2), *[(0, 0)] * 3, (9, 1), *[(0, 0)] * 2)],
    }
    leaves = {f"target_{name}": values for name, values in LEAVES.items()}
    data = of_rows(learned("TreeEnsembleRegressor", n_targets=2, **trees, **leaves))
    model = from_onnx(data, samples)
    wanted = ReferenceEvaluator(onnx.load_model_from_string(data)).run(None, {"x": samples})[0]
    np.testing.assert_allclose(model.plain(np.rint(samples.astype(float) * 2**16) / 2**16), wanted, atol=1e-6)


def test_probabilities_that_are_found_step_by_step() -> None:
    nodes = learned(
        "SVMClassifier", ("label", "y"), kernel_type="RBF", kernel_params=[0.5, 0.0, 3.0], coefficients=[0.5, -0.5],
        rho=[0.125], vectors_per_class=[1, 1], support_vectors=[0.5, 0.25, -1.0, 1.0, 0.0, 0.5],
        classlabels_ints=[0, 1], prob_a=[-1.5], prob_b=[0.25],
    )  # fmt: skip
    with pytest.raises(UnsupportedError, match="probability=False"):
        from_onnx(of_rows(nodes))


def test_files_of_old_opsets() -> None:
    """As converters of trees write them: with operators that mean the same, or with none of their own."""
    proto = onnx.load_model_from_string(of_rows(ML["Scaler"]))
    proto.opset_import[0].version = 8
    assert from_onnx(proto.SerializeToString(), np.ones((4, 3))).plain(np.ones((1, 3))).shape == (1, 3)
    proto.graph.node.insert(0, node("Softmax", ["x"], ["unused"]))
    with pytest.raises(UnsupportedError, match="its opset is 8"):
        from_onnx(proto.SerializeToString())
    del proto.graph.node[0], proto.opset_import[0]
    assert from_onnx(proto.SerializeToString(), np.ones((4, 3))).plain(np.ones((1, 3))).shape == (1, 3)


def test_several_inputs() -> None:
    """By name, numbers and tokens; the model takes them so, too."""
    nodes = [
        node("Gather", ["w", "words"], ["e"]), node("Equal", ["words", "none"], ["p"]), node("Not", ["p"], ["q"]),
        node("Cast", ["q"], ["m"], to=1), node("Unsqueeze", ["m", "last"], ["n"]), node("Mul", ["e", "n"], ["f"]),
        node("ReduceSum", ["f", "first"], ["g"], keepdims=0), node("Concat", ["g", "numbers"], ["y"], axis=1),
    ]  # fmt: skip
    held = {"w": weight(6, 3), "none": np.array(0), "last": ints([-1]), "first": ints([1])}
    takes = [
        helper.make_tensor_value_info("words", TensorProto.INT64, ["N", 4]),
        helper.make_tensor_value_info("numbers", TensorProto.FLOAT, ["N", 2]),
    ]
    gives = [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 5])]
    tensors = [onnx.numpy_helper.from_array(array, name) for name, array in held.items()]
    graph = helper.make_graph(nodes, "g", takes, gives, tensors)
    data = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9).SerializeToString()
    rng = np.random.default_rng(3)
    samples = {"words": rng.integers(0, 6, (5, 4)), "numbers": rng.uniform(-1, 1, (5, 2)).astype(np.float32)}
    model = from_onnx(data, samples)
    wanted = ReferenceEvaluator(onnx.load_model_from_string(data)).run(None, samples)[0]
    np.testing.assert_allclose(model.plain(model.interface.encoded(samples)), wanted, atol=1e-5)
    assert isinstance(model.interface.input, SeveralInputs)
    with pytest.raises(UsageError, match="nothing says what its inputs hold"):
        from_onnx(data)
    with pytest.raises(ShapeError, match="inputs called words, numbers"):
        from_onnx(data, {"words": samples["words"]})
    with pytest.raises(ShapeError, match="a dict by name"):
        from_onnx(data, samples["words"])
    with pytest.raises(EncodingError, match="'words' takes whole numbers"):
        from_onnx(data, samples | {"words": samples["words"] + 0.5})


def test_an_opset_that_is_said_twice() -> None:
    """As converters do for pipelines."""
    proto = onnx.load_model_from_string(of_rows(ML["Scaler"]))
    proto.opset_import.append(helper.make_opsetid("", 20))
    assert from_onnx(proto.SerializeToString(), np.ones((4, 3))).plain(np.ones((1, 3))).shape == (1, 3)
    proto.opset_import.append(helper.make_opsetid("", 19))
    with pytest.raises(UnsupportedError, match="its opset is 19, 20"):
        from_onnx(proto.SerializeToString())


def test_several_outputs() -> None:
    nodes = [node("Relu", ["x"], ["a"]), node("Neg", ["x"], ["b"])]
    gives = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 3]) for name in "ab"]
    x = np.random.default_rng(7).uniform(-1, 1, (4, 3))
    model = from_onnx(of_rows(nodes, gives), x)
    found = model.interface.named(model.plain(x))
    np.testing.assert_allclose(found["a"], np.maximum(x, 0), atol=1e-6)
    np.testing.assert_allclose(found["b"], -x, atol=1e-6)


def test_none_is_left_out() -> None:
    tested = {name.partition(",")[0] for name in (*plain.OPERATORS, *NEW)}
    folded = {"Shape", "folded"}
    assert tested - folded == set(onnx_operators.OPERATORS) - set(QUANTIZED) - set(MACHINE_LEARNING)
    written = {n.op_type for nodes, *_ in FEW_BITS.values() for n in nodes}
    assert set(QUANTIZED) <= written
    learnt = {f"ai.onnx.ml.{n.op_type}" for nodes in ML.values() for n in nodes if n.domain}
    assert learnt - {"ai.onnx.ml.ZipMap"} == set(MACHINE_LEARNING)
