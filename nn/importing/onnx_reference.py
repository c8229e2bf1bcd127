"""onnx's own reference, with what it gets wrong or leaves out: pools of stride 1, grouped transposes, and old names.

Written from the text of the operators, and from nothing of ours.  Needs onnx.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from onnx import ModelProto
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun
from onnx.reference.ops import op_grid_sample


def evaluator(proto: ModelProto) -> ReferenceEvaluator:
    """Of a file that has been checked."""
    return ReferenceEvaluator(proto, new_ops=[MaxPool, ConvTranspose, GridSample])


class MaxPool(OpRun):
    """The largest of each window."""

    op_domain = ""

    def _run(
        self, x: Any, auto_pad: Any = None, ceil_mode: Any = None, dilations: Any = None, kernel_shape: Any = None,
        pads: Any = None, storage_order: Any = None, strides: Any = None,
    ) -> tuple[Any]:  # fmt: skip
        count = len(kernel_shape)
        strides, dilations = strides or [1] * count, dilations or [1] * count
        spans = [d * (k - 1) + 1 for k, d in zip(kernel_shape, dilations, strict=True)]
        sides = _sides(auto_pad, pads, x.shape[2:], spans, strides)
        sizes = []
        for size, span, stride, (before, after) in zip(x.shape[2:], spans, strides, sides, strict=True):
            room = size + before + after - span
            last = -(-room // stride) if ceil_mode else room // stride
            if ceil_mode and last * stride >= size + before:
                last -= 1  # windows begin in the input, or before it
            sizes.append(last + 1)
        more = [
            (before, max(after, (n - 1) * stride + span - size - before))
            for size, n, span, stride, (before, after) in zip(x.shape[2:], sizes, spans, strides, sides, strict=True)
        ]
        padded = np.pad(x, [(0, 0), (0, 0), *more], constant_values=-np.inf if x.dtype.kind == "f" else 0)
        view = sliding_window_view(padded, spans, axis=tuple(range(2, 2 + count)))
        outer = tuple(slice(None, (n - 1) * s + 1, s) for n, s in zip(sizes, strides, strict=True))
        inner = tuple(slice(None, None, d) for d in dilations)
        found = view[(slice(None), slice(None), *outer, *inner)]
        return (found.max(tuple(range(-count, 0))).astype(x.dtype),)


class ConvTranspose(OpRun):
    """Each number of the input, times the kernel, added up where it falls."""

    op_domain = ""

    def _run(
        self, x: Any, w: Any, b: Any = None, auto_pad: Any = None, dilations: Any = None, group: Any = None,
        kernel_shape: Any = None, output_padding: Any = None, output_shape: Any = None, pads: Any = None,
        strides: Any = None,
    ) -> tuple[Any]:  # fmt: skip
        kernel = w.shape[2:]
        count, groups = len(kernel), group or 1
        strides, dilations = strides or [1] * count, dilations or [1] * count
        more, pads = output_padding or [0] * count, pads or [0] * (2 * count)
        if auto_pad not in (None, "NOTSET") or output_shape:
            raise NotImplementedError("a transpose with its pads left to the operator")
        whole = [
            (n - 1) * s + d * (k - 1) + 1 + extra
            for n, s, d, k, extra in zip(x.shape[2:], strides, dilations, kernel, more, strict=True)
        ]
        each, out = x.shape[1] // groups, w.shape[1]
        y = np.zeros((len(x), groups, out, *whole))
        apart = x.reshape(len(x), groups, each, *x.shape[2:]).astype(np.float64)
        kernels = w.reshape(groups, each, out, *kernel).astype(np.float64)
        for place in itertools.product(*map(range, kernel)):
            part = np.einsum("ngc...,gco->ngo...", apart, kernels[(..., *place)])
            where = tuple(
                slice(d * p, d * p + (n - 1) * s + 1, s)
                for p, d, n, s in zip(place, dilations, x.shape[2:], strides, strict=True)
            )
            y[(slice(None), slice(None), slice(None), *where)] += part
        y = y.reshape(len(x), groups * out, *whole)
        inside = tuple(slice(a, n - e) for n, a, e in zip(whole, pads[:count], pads[count:], strict=True))
        y = y[(slice(None), slice(None), *inside)]
        if b is not None:
            y = y + b.reshape(1, -1, *(1,) * count)
        return (y.astype(x.dtype),)


class GridSample(op_grid_sample.GridSample):
    """By its names of before opset 20, too."""

    op_domain = ""

    def _run(self, x: Any, grid: Any, mode: Any = None, padding_mode: Any = None, align_corners: Any = None) -> Any:
        mode = {"bilinear": "linear", "bicubic": "cubic"}.get(mode or "linear", mode)
        return super()._run(  # type: ignore[no-untyped-call]
            x, grid, mode=mode, padding_mode=padding_mode or "zeros", align_corners=align_corners or 0
        )


def _sides(
    auto: str | None, pads: Sequence[int] | None, sizes: Sequence[int], spans: Sequence[int], strides: Sequence[int]
) -> list[tuple[int, int]]:
    """Before and after, of each dimension."""
    count = len(spans)
    if auto in ("SAME_UPPER", "SAME_LOWER"):
        found = []
        for size, span, stride in zip(sizes, spans, strides, strict=True):
            missing = max((-(-size // stride) - 1) * stride + span - size, 0)
            less, more = missing // 2, missing - missing // 2
            found.append((less, more) if auto == "SAME_UPPER" else (more, less))
        return found
    own = pads if pads and auto != "VALID" else [0] * (2 * count)
    return list(zip(own[:count], own[count:], strict=True))
