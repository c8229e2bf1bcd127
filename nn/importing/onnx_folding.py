"""What an ONNX graph computes from constants and sizes: computed here, by onnx's own reference.  Needs onnx.

Only of operators that are named here, and of results whose size is known to be small.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnx.defs
import onnx.shape_inference
from onnx import NodeProto, TensorProto, TypeProto, numpy_helper
from onnx.helper import make_opsetid, make_tensor_type_proto, np_dtype_to_tensor_dtype
from onnx.reference import ReferenceEvaluator

from mpc.tensor_type import Shape
from nn.importing.blockers import refused
from nn.importing.building import Known
from nn.importing.onnx_file import READ

MOST_SIZES = 64
"""Numbers of a constant that onnx looks at to tell a result's sizes."""
MOST_FOLDED = 1 << 24
"""Numbers that are computed at a time."""

FOLDED = frozenset(
    """
    Abs Add And Cast CastLike Ceil Clip Concat ConstantOfShape Cos CumSum DequantizeLinear Div Equal Exp Expand EyeLike
    Flatten Floor Gather GatherElements GatherND Gemm Greater GreaterOrEqual Identity IsInf IsNaN Less LessOrEqual Log
    MatMul Max Min Mod Mul Neg NonZero Not OneHot Or Pad Pow QuantizeLinear Range Reciprocal ReduceL2 ReduceMax
    ReduceMean ReduceMin ReduceProd ReduceSum Relu Reshape Round ScatterElements ScatterND Shape Sigmoid Sign Sin Size
    Slice Softmax Split Sqrt Squeeze Sub Sum Tanh Tile Transpose Trilu Unsqueeze Where Xor
    """.split()  # noqa: SIM905 - so many
)
"""Operators without graphs of their own, or any that draws random numbers."""


def folded(
    proto: NodeProto,
    fed: Mapping[str, np.ndarray],
    opsets: Mapping[str, int],
    sizes_of: Callable[[str], Shape | None],
) -> list[Known]:
    """What a node gives.  Raises UnsupportedError for what may be too large."""
    for name in filter(None, proto.output):
        sizes = sizes_of(name)
        if proto.op_type == "NonZero":
            sizes = tuple(n for each in fed.values() for n in (each.ndim, each.size))
        if sizes is None or math.prod(sizes) > MOST_FOLDED:
            raise refused("it is computed from constants, and may be of any size", READ)
    with np.errstate(all="ignore"):
        found = ReferenceEvaluator(proto, opsets=dict(opsets)).run(None, dict(fed))
    return [Known(_plain(np.asarray(each))) for each in found]


def _plain(values: np.ndarray) -> np.ndarray:
    """Real numbers in float64."""
    return values.astype(np.float64) if values.dtype.kind == "f" else values


def inferred(
    proto: NodeProto, types: Mapping[str, TypeProto], data: Mapping[str, TensorProto], opsets: Mapping[str, int]
) -> dict[str, TypeProto]:
    """Types of a node's results, as far as onnx can tell."""
    domain = "" if proto.domain == "ai.onnx" else proto.domain
    try:
        schema = onnx.defs.get_schema(proto.op_type, opsets.get(domain, 1), domain)
        found: Any = onnx.shape_inference.infer_node_outputs(
            schema, proto, dict(types), dict(data), opset_imports=[make_opsetid(*each) for each in opsets.items()]
        )
    except Exception:  # noqa: BLE001 - of a stranger's node; who needs sizes is refused
        return {}
    return dict(found)


def type_of(values: np.ndarray) -> TypeProto:
    """A constant's; real numbers are all of one kind."""
    return make_tensor_type_proto(_kind(values), values.shape)


def as_proto(values: np.ndarray, name: str) -> TensorProto:
    """A constant, as onnx has it."""
    return numpy_helper.from_array(values.astype(np.float32) if values.dtype.kind == "f" else values, name)


def _kind(values: np.ndarray) -> int:
    return TensorProto.FLOAT if values.dtype.kind == "f" else int(np_dtype_to_tensor_dtype(values.dtype))
