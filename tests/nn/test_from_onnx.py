"""``from_onnx``: the results that onnx's own reference gives, or a sentence that says all that stands in the way."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
from onnx import TensorProto, helper, numpy_helper, shape_inference  # noqa: E402
from onnx.reference import ReferenceEvaluator  # noqa: E402

from mpc.errors import (  # noqa: E402
    ConfigurationError,
    DiffersFromSource,
    EncodingError,
    ShapeError,
    TesseraError,
    UnsupportedError,
    UsageError,
)
from nn import Model, from_onnx  # noqa: E402
from nn.importing import onnx_operators  # noqa: E402
from nn.layers import Linear  # noqa: E402
from protocols import RangeWarning  # noqa: E402

RNG = np.random.default_rng(0)
IMAGE, ROW = (2, 6, 6), (4,)
Weights = dict[str, np.ndarray]


def weight(*shape: int) -> np.ndarray:
    return (0.5 * RNG.standard_normal(shape)).astype(np.float32)


def made(
    nodes: Sequence[Any],
    shape: Sequence[Any],
    weights: Weights | None = None,
    opset: int = 20,
    result: Sequence[Any] | None = None,
) -> bytes:
    """A file that takes (N, *shape), x, and gives y."""
    tensors = [numpy_helper.from_array(array, name) for name, array in (weights or {}).items()]
    takes = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", *shape])
    gives = helper.make_tensor_value_info("y", TensorProto.FLOAT, None if result is None else ["N", *result])
    graph = helper.make_graph(list(nodes), "g", [takes], [gives], tensors)
    proto = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", opset), helper.make_opsetid("me", 1)], ir_version=9
    )
    return bytes(shape_inference.infer_shapes(proto).SerializeToString())


def quietly(data: bytes) -> Model:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RangeWarning)
        return from_onnx(data)


def agree(data: bytes, x: np.ndarray) -> Model:
    """The model, whose exact functions are the reference's."""
    model = quietly(data)
    (wanted,) = ReferenceEvaluator(onnx.load_model_from_string(data)).run(None, {"x": x.astype(np.float32)})
    found = model.plain(x, exact=True)
    assert found.shape == wanted.shape
    np.testing.assert_allclose(found, wanted, atol=2e-5, rtol=1e-4)
    return model


node = helper.make_node
ints = np.array


def one(kind: str, *weights: np.ndarray, first: bool = False, **attributes: Any) -> tuple[list[Any], Weights]:
    names = {f"w{i}": w for i, w in enumerate(weights)}
    inputs = [*names, "x"] if first else ["x", *names]
    return [node(kind, inputs, ["y"], **attributes)], names


NORM = (weight(2), weight(2), weight(2), np.abs(weight(2)) + 0.1)
SCALAR = np.float32(1.5)
OPERATORS: dict[str, tuple[tuple[list[Any], Weights], Sequence[int]]] = {
    "Gemm": (one("Gemm", weight(4, 3), weight(3)), ROW),
    "Gemm, all": (one("Gemm", weight(3, 4), weight(1, 1), transB=1, alpha=0.5, beta=-2.0), ROW),
    "Gemm, bare": (one("Gemm", weight(4, 3)), ROW),
    "MatMul": (one("MatMul", weight(4, 3)), ROW),
    "MatMul, of matrices": (one("MatMul", weight(6, 3)), IMAGE),
    "MatMul, constant first": (one("MatMul", weight(3, 6), first=True), IMAGE),
    "MatMul, of itself": (([node("MatMul", ["x", "x"], ["y"])], {}), IMAGE),
    "Add": (one("Add", weight(2, 1, 1)), IMAGE),
    "Add, first": (one("Add", SCALAR, first=True), ROW),
    "Sub": (one("Sub", SCALAR), ROW),
    "Sub, first": (one("Sub", weight(4), first=True), ROW),
    "Sub, number first": (one("Sub", SCALAR, first=True), ROW),
    "Mul": (one("Mul", weight(1, 4)), ROW),
    "Mul, of itself": (([node("Mul", ["x", "x"], ["y"])], {}), ROW),
    "Div": (one("Div", SCALAR), ROW),
    "Div, of rows": (one("Div", np.abs(weight(4)) + 1), ROW),
    "Conv": (one("Conv", weight(4, 2, 3, 3), weight(4), pads=[1, 0, 1, 0], strides=[2, 1]), IMAGE),
    "Conv, grouped": (one("Conv", weight(4, 1, 3, 3), group=2, kernel_shape=[3, 3], dilations=[1, 1]), IMAGE),
    "Conv, same": (one("Conv", weight(1, 2, 2, 2), pads=[0, 0, 1, 1]), IMAGE),
    "Conv, automatic": (one("Conv", weight(1, 2, 3, 3), auto_pad="SAME_LOWER"), IMAGE),
    "AveragePool": (one("AveragePool", kernel_shape=[2, 3]), IMAGE),
    "AveragePool, padded": (one("AveragePool", kernel_shape=[2, 2], strides=[2, 2], pads=[1] * 4), IMAGE),
    "AveragePool, counted": (one("AveragePool", kernel_shape=[2, 2], pads=[1] * 4, count_include_pad=1), IMAGE),
    "GlobalAveragePool": (one("GlobalAveragePool"), IMAGE),
    "MaxPool": (one("MaxPool", kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4), IMAGE),
    "GlobalMaxPool": (one("GlobalMaxPool"), IMAGE),
    "BatchNormalization": (one("BatchNormalization", *NORM, epsilon=1e-3, momentum=0.5), IMAGE),
    "BatchNormalization, of rows": (one("BatchNormalization", *NORM), (2,)),
    "Relu": (one("Relu"), ROW),
    "LeakyRelu": (one("LeakyRelu", alpha=0.2), ROW),
    "Clip": (one("Clip", np.float32(-0.5), np.float32(1)), ROW),
    "Clip, six": (one("Clip", np.float32(0), np.float32(6)), ROW),
    "Clip, below": (one("Clip", np.float32(-0.5)), ROW),
    "Clip, above": (([node("Clip", ["x", "", "w"], ["y"])], {"w": np.float32(0.25)}), ROW),
    "Clip, largest": (one("Clip", np.float32(0), np.finfo(np.float32).max), ROW),
    "PRelu": (one("PRelu", weight(2, 1, 1)), IMAGE),
    "PRelu, of one": (one("PRelu", weight(1)), IMAGE),
    "PRelu, of rows": (one("PRelu", weight(4)), ROW),
    "HardSigmoid": (one("HardSigmoid", alpha=1 / 6, beta=0.5), ROW),
    "HardSwish": (one("HardSwish"), ROW),
    "Sigmoid": (one("Sigmoid"), ROW),
    "Tanh": (one("Tanh"), ROW),
    "Softplus": (one("Softplus"), ROW),
    "Gelu": (one("Gelu"), ROW),
    "Mish": (one("Mish"), ROW),
    "Erf": (one("Erf"), ROW),
    "Elu": (one("Elu", alpha=0.5), ROW),
    "Celu": (one("Celu", alpha=2.0), ROW),
    "Selu": (one("Selu"), ROW),
    "Softsign": (one("Softsign"), ROW),
    "Gelu, tanh": (one("Gelu", approximate="tanh"), ROW),
    "Softmax": (one("Softmax", axis=1), IMAGE),
    "LogSoftmax": (one("LogSoftmax"), ROW),
    "Flatten": (one("Flatten"), IMAGE),
    "Flatten, from behind": (one("Flatten", axis=-3), IMAGE),
    "Reshape": (one("Reshape", ints([0, -1, 4])), IMAGE),
    "Reshape, batch open": (one("Reshape", ints([-1, 72])), IMAGE),
    "Transpose": (one("Transpose", perm=[0, 2, 3, 1]), IMAGE),
    "Concat": (([node("Concat", ["x", "x"], ["y"], axis=-1)], {}), IMAGE),
    "Identity": (one("Identity"), ROW),
    "Dropout": (one("Dropout", np.float32(0.3)), ROW),
    "Abs": (one("Abs"), ROW),
    "Neg": (one("Neg"), ROW),
    "ReduceMean": (one("ReduceMean", ints([-1, 2])), IMAGE),
    "ReduceMean, without": (one("ReduceMean", ints([1]), keepdims=0), IMAGE),
    "ReduceL1": (one("ReduceL1", ints([2])), IMAGE),
    "ReduceL2": (one("ReduceL2", ints([-1, 1]), keepdims=0), IMAGE),
    "LayerNormalization": (one("LayerNormalization", weight(6), weight(6)), IMAGE),
    "LayerNormalization, of two": (one("LayerNormalization", weight(6, 6), axis=2, epsilon=0.1), IMAGE),
    "InstanceNormalization": (one("InstanceNormalization", weight(2), weight(2), epsilon=1e-3), IMAGE),
    "GroupNormalization": (one("GroupNormalization", weight(2), weight(2), num_groups=1), IMAGE),
    "RMSNormalization": (one("RMSNormalization", weight(6)), IMAGE),
    "LpNormalization": (one("LpNormalization", axis=1, p=2), IMAGE),
    "Constant": (
        ([node("Constant", [], ["c"], value_floats=[1.0, 2, 3, 4]), node("Add", ["x", "c"], ["y"])], {}),
        ROW,
    ),
}

NEWER = ("GroupNormalization", "RMSNormalization")
"""Since opset 21 of a number for each channel, or known at all since 23."""


@pytest.mark.sampled(4)
@pytest.mark.parametrize("name", OPERATORS)
def test_each_operator(name: str) -> None:
    (nodes, weights), shape = OPERATORS[name]
    # What a function of other operators gives has no shape for its checker.
    gives = shape if name in NEWER else None
    data = made(nodes, shape, weights, 23 if name in NEWER else 20, gives)
    agree(data, np.random.default_rng(1).standard_normal((3, *shape)))


def test_quotients() -> None:
    x = np.random.default_rng(1).uniform(1, 3, (3, 4))
    for nodes, weights in (one("Div", SCALAR, first=True), ([node("Div", ["x", "x"], ["y"])], {})):
        agree(made(nodes, ROW, weights), x)


def cnn() -> bytes:
    """With a residual, a join, and a batch's norm."""
    nodes = [
        node("Conv", ["x", "k", "kb"], ["a"], name="/body/conv", pads=[1] * 4),
        node("BatchNormalization", ["a", "s", "t", "m", "v"], ["b"], name="/body/norm"),
        node("Relu", ["b"], ["c"]),
        node("Add", ["c", "x"], ["d"]),
        node("Concat", ["d", "c"], ["e"], axis=1),
        node("MaxPool", ["e"], ["f"], kernel_shape=[2, 2], strides=[2, 2]),
        node("Tanh", ["f"], ["g"]),
        node("GlobalAveragePool", ["g"], ["h"]),
        node("Flatten", ["h"], ["i"]),
        node("MatMul", ["i", "w"], ["j"], name="out"),
        node("Add", ["wb", "j"], ["l"]),
        node("Softmax", ["l"], ["y"]),
    ]
    k, kb, w, wb = weight(2, 2, 3, 3), weight(2), weight(4, 3), weight(3)
    norm = dict(zip("stmv", NORM, strict=True))
    return made(nodes, IMAGE, {"k": k, "kb": kb, "w": w, "wb": wb, **norm})


def test_a_network_compared_on_samples(tmp_path: Path) -> None:
    samples = np.random.default_rng(2).uniform(-1, 1, (12, *IMAGE))
    (tmp_path / "net.onnx").write_bytes(cnn())
    model = from_onnx(tmp_path / "net.onnx", samples)
    assert model.architecture.input_shape == IMAGE
    (wanted,) = ReferenceEvaluator(onnx.load(tmp_path / "net.onnx")).run(None, {"x": samples.astype(np.float32)})
    assert np.abs(model.plain(samples) - wanted).max() < 0.01
    names = list(model.architecture.layers)
    assert names[0] == "body_conv"
    assert "body_norm" not in names
    # The sum after the product is its bias.
    assert model.architecture.layers["out"] == Linear(4, 3)


def test_without_samples_what_nothing_shows_is_said() -> None:
    nodes = [node("Mul", ["x", "w"], ["a"]), node("Div", ["w", "a"], ["y"], name="act")]
    data = made(nodes, ROW, {"w": np.float32(99)})
    with pytest.warns(RangeWarning, match=r"layer 'act' is Function: .*from_onnx\(file, samples\)"):
        from_onnx(data)


def test_a_fixed_batch() -> None:
    """A file that was exported for two inputs at a time is compared in twos, and asked with any number."""
    nodes = [node("Reshape", ["x", "s"], ["a"]), node("Gemm", ["a", "w"], ["y"])]
    data = onnx.load_model_from_string(made(nodes, (2, 2), {"s": ints([2, 4]), "w": weight(4, 3)}))
    data.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 2
    model = from_onnx(data.SerializeToString(), np.random.default_rng(0).uniform(-1, 1, (5, 2, 2)))
    assert model.plain(np.zeros((3, 2, 2))).shape == (3, 3)


def test_a_value_of_two_names_keeps_its_bias_apart() -> None:
    nodes = [
        node("MatMul", ["x", "w"], ["a"]),
        node("Identity", ["a"], ["b"]),
        node("Add", ["b", "c"], ["d"]),
        node("Mul", ["a", "d"], ["y"]),
    ]
    agree(made(nodes, ROW, {"w": weight(4, 3), "c": weight(3)}), np.random.default_rng(1).standard_normal((3, 4)))


def test_another_function_is_not_returned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Were an operator read wrongly, whoever gives samples is told, and where."""
    from nn.rectifiers import Abs

    monkeypatch.setitem(onnx_operators.OPERATORS, "Relu", lambda node: node.add(Abs(), node.place(0)))
    data = made([node("Relu", ["x"], ["a"], name="one"), node("Neg", ["a"], ["y"])], ROW)
    with pytest.raises(DiffersFromSource, match=r"layer 'one' is Abs: .* it is the first to differ.*\[node 0 of the"):
        from_onnx(data, np.random.default_rng(0).uniform(-1, 1, (8, 4)))


def test_all_that_is_missing_in_one_message() -> None:
    nodes = [
        node("Tan", ["x"], ["a"], name="first"),
        node("Relu", ["a"], ["b"]),
        node("Conv", ["x", "k"], ["c"], name="second", group=0),
        node("Add", ["b", "c"], ["d"]),
        node("Mine", ["d"], ["e"], domain="me"),
        node("Relu", ["x"], ["f"], odd=1),
        node("Hardmax", ["e"], ["h"]),
        node("Add", ["f", "h"], ["y"]),
    ]
    with pytest.raises(UnsupportedError) as caught:
        from_onnx(made(nodes, IMAGE, {"k": weight(1, 2, 3, 3)}))
    lines = str(caught.value).splitlines()
    assert lines[0] == "5 things of the network stand in the way:"
    assert lines[1].startswith("- node 'first' is Tan: operator Tan is not read; instead: export the network with")
    assert [line.split(": ")[0][2:] for line in lines[1:]] == [
        "node 'first' is Tan", "node 'second' is Conv", "node 'Mine_4' is Mine", "node 'Relu_5' is Relu",
        "node 'Hardmax_6' is Hardmax",
    ]  # fmt: skip
    assert "[node 2 of the graph]" in lines[2]
    assert "its odd: not known of Relu" in lines[4]


REFUSED: dict[str, tuple[list[Any], Weights, Sequence[int]]] = {
    "transA": (*one("Gemm", weight(4, 3), transA=1), ROW),
    "one input": (*one("Gemm"), ROW),
    "group": (*one("Conv", weight(4, 2, 3, 3), group=0), IMAGE),
    "pads": (*one("MaxPool", kernel_shape=[2, 2], pads=[1, 0, 0, 0]), IMAGE),
    "four dimensions": (*one("Conv", weight(4, 2, 1, 1, 1, 1)), (2, 6, 6, 6, 6)),
    "dilated means": (*one("AveragePool", kernel_shape=[2, 2], dilations=[2, 2]), IMAGE),
    "the indices": ([node("MaxPool", ["x"], ["a", "y"], kernel_shape=[2, 2])], {}, IMAGE),
    "training": (*one("BatchNormalization", *NORM, training_mode=1), IMAGE),
    "the batch's axis": (*one("Softmax", axis=0), ROW),
    "the batch in it": (*one("Reshape", ints([6, -1])), IMAGE),
    "the batch flattened": (*one("Flatten", axis=2), IMAGE),
    "the batch moved": (*one("Transpose"), ROW),
    "the batch joined": ([node("Concat", ["x", "x"], ["y"], axis=0)], {}, ROW),
    "the batch's mean": (*one("ReduceMean", ints([0])), ROW),
    "the mean of all": (*one("ReduceMean"), ROW),
    "zero": (*one("Div", np.float32(0)), ROW),
    "not a number": (*one("Add", np.float32("nan")), ROW),
    "integers": (*one("Add", ints([1, 2, 3, 4])), ROW),
    "a huge constant": (
        [node("ConstantOfShape", ["s"], ["d"]), node("Add", ["x", "d"], ["y"])],
        {"s": ints([2**40])},
        ROW,
    ),
    "drawn at random": ([node("RandomNormal", [], ["d"], shape=[4]), node("Add", ["x", "d"], ["y"])], {}, ROW),
    "no result": ([node("Identity", ["c"], ["y"])], {"c": weight(4)}, ROW),
    "twice": ([node("Relu", ["x"], ["y"]), node("Neg", ["x"], ["y"])], {}, ROW),
    "before it is made": ([node("Add", ["x", "y"], ["a"]), node("Neg", ["a"], ["y"])], {}, ROW),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused(name: str) -> None:
    nodes, weights, shape = REFUSED[name]
    with pytest.raises((UnsupportedError, EncodingError, ShapeError), match="; instead: "):
        from_onnx(made(nodes, shape, weights))


def changed(change: Any) -> bytes:
    proto = onnx.load_model_from_string(made(*one("Gemm", weight(4, 3))[:1], ROW, {"w0": weight(4, 3)}))
    change(proto)
    return bytes(proto.SerializeToString())


def external(proto: Any) -> None:
    tensor = proto.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/passwd")


HOSTILE = {
    "empty": lambda p: p.Clear(),
    "huge": lambda p: p.graph.initializer[0].dims.__setitem__(0, 2**40),
    "many": lambda p: p.graph.initializer[0].dims.extend([1] * 1000),
    "negative": lambda p: p.graph.initializer[0].dims.__setitem__(0, -1),
    "short": lambda p: p.graph.initializer[0].dims.__setitem__(0, 400),
    "a huge input": lambda p: p.graph.input[0].type.tensor_type.shape.dim.add(dim_value=2**60),
    "a negative input": lambda p: p.graph.input[0].type.tensor_type.shape.dim.add(dim_value=-3),
    "no type": lambda p: p.graph.input[0].ClearField("type"),
    "other numbers": lambda p: p.graph.initializer[0].__setattr__("data_type", 99),
    "strings": lambda p: p.graph.initializer[0].__setattr__("data_type", TensorProto.STRING),
    "elsewhere": external,
    "old": lambda p: p.opset_import[0].__setattr__("version", 12),
    "of the future": lambda p: p.opset_import[0].__setattr__("version", 10**6),
    "no version": lambda p: p.ClearField("opset_import"),
    "two outputs": lambda p: p.graph.output.add(name="z"),
    "two inputs": lambda p: p.graph.input.add(name="z"),
    "functions": lambda p: p.functions.add(name="Gemm"),
    "a reference": lambda p: p.graph.node[0].attribute.add(name="alpha", ref_attr_name="a", type=1),
    "a graph": lambda p: p.graph.node[0].attribute.add(name="alpha", type=5),
    "another type": lambda p: p.graph.node[0].attribute.add(name="alpha", type=7, ints=[1]),
    "no outputs": lambda p: p.graph.node[0].ClearField("output"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_strangers_file(name: str) -> None:
    with pytest.raises(UsageError) as caught:
        from_onnx(changed(HOSTILE[name]))
    assert len(str(caught.value)) < 1000


def test_a_strangers_bytes(tmp_path: Path) -> None:
    """Whatever they are, the error is one of ours; most often there is one."""
    data, rng, refused = cnn(), np.random.default_rng(3), 0
    some = [b"", b"\x00", data[: len(data) // 2], data[:-1], rng.bytes(500), b"\x08" * 10_000]
    for _ in range(60):
        flipped = bytearray(data)
        flipped[int(rng.integers(len(data)))] = int(rng.integers(256))
        some.append(bytes(flipped))
    for each in some:
        try:
            quietly(each)
        except TesseraError:
            refused += 1
    assert refused > 6
    with pytest.raises(ConfigurationError, match="there is no file"):
        from_onnx(tmp_path)
    with pytest.raises(UsageError, match="a file's path or its bytes, not int"):
        from_onnx(3)  # type: ignore[arg-type]


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    import nn.importing

    monkeypatch.delattr(nn.importing, "onnx_import", raising=False)
    monkeypatch.setitem(sys.modules, "nn.importing.onnx_import", None)
    with pytest.raises(ConfigurationError, match=r"from_onnx needs the onnx package: install tessera-mpc\[onnx\]"):
        from_onnx(cnn())


def test_samples_of_another_shape() -> None:
    with pytest.raises(ShapeError, match=r"takes inputs of shape \(\?, 2, 6, 6\), and samples have shape \(3, 2, 6\)"):
        from_onnx(cnn(), np.zeros((3, 2, 6)))
