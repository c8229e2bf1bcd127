"""torch's modules and functions, and the layers they become.  Needs torch."""

from __future__ import annotations

import math
import operator
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from mpc.errors import UnsupportedError
from nn import activations as a
from nn import functional as f
from nn import layers as ly
from nn import rectifiers as r
from nn import softmax as s
from nn.importing import torch_windows as windows
from nn.importing.blockers import refused
from nn.importing.torch_activation import FitActivation, FourierActivation
from nn.importing.torch_functions import BY_TARGET
from nn.importing.torch_norms import NORM_FUNCTIONS, NORM_MODULES
from nn.importing.torch_windows import Make, ints
from nn.layer import Layer
from protocols.operations.fourier import MAX_TERMS


def _interval(options: dict[str, Any]) -> Any:
    return options.get("interval")


def _batch_norm(kind: type[ly.BatchNorm]) -> Make:
    def make(m: Any, **_: Any) -> Layer:
        if m.running_mean is None:
            raise UnsupportedError("it keeps no statistics: train it with track_running_stats=True")
        return kind(m.num_features, m.eps, affine=m.affine)

    return make


def _softmax(kind: type[s.Softmax]) -> Make:
    def make(dim: Any = None, **_: Any) -> Layer:
        if dim is None:
            raise refused("it does not say along which dimension", "give it dim=1, or another that is not the batch's")
        return kind(operator.index(dim))

    return make


MODULES: dict[type[nn.Module], Make] = {
    **windows.MODULES,
    nn.Linear: lambda m, **_: ly.Linear(m.in_features, m.out_features, m.bias is not None),
    nn.BatchNorm1d: _batch_norm(ly.BatchNorm1d),
    nn.BatchNorm2d: _batch_norm(ly.BatchNorm2d),
    nn.BatchNorm3d: _batch_norm(ly.BatchNorm3d),
    **NORM_MODULES,
    nn.Flatten: lambda m, **_: ly.Flatten(m.start_dim, m.end_dim),
    nn.Identity: lambda m, **_: ly.Identity(),
    nn.Dropout: lambda m, **_: ly.Dropout(m.p),
    nn.Dropout1d: lambda m, **_: ly.Dropout(m.p),
    nn.Dropout2d: lambda m, **_: ly.Dropout(m.p),
    nn.Dropout3d: lambda m, **_: ly.Dropout(m.p),
    nn.FeatureAlphaDropout: lambda m, **_: ly.Dropout(m.p),
    nn.AlphaDropout: lambda m, **_: ly.Dropout(m.p),
    nn.Sigmoid: lambda m, **o: a.Sigmoid(interval=_interval(o)),
    nn.Tanh: lambda m, **o: a.Tanh(interval=_interval(o)),
    nn.SiLU: lambda m, **o: a.SiLU(interval=_interval(o)),
    nn.GELU: lambda m, **o: a.GELU(m.approximate, interval=_interval(o)),
    nn.Softplus: lambda m, **o: a.Softplus(m.beta, m.threshold, interval=_interval(o)),
    nn.Mish: lambda m, **o: a.Mish(interval=_interval(o)),
    nn.ELU: lambda m, **_: r.ELU(float(m.alpha)),
    nn.SELU: lambda m, **_: r.SELU(),
    nn.CELU: lambda m, **_: r.CELU(float(m.alpha)),
    nn.LogSigmoid: lambda m, **_: r.LogSigmoid(),
    nn.Softsign: lambda m, **_: r.Softsign(),
    nn.ReLU: lambda m, **_: r.ReLU(),
    nn.LeakyReLU: lambda m, **_: r.LeakyReLU(m.negative_slope),
    nn.ReLU6: lambda m, **_: r.ReLU6(),
    nn.Hardtanh: lambda m, **_: r.Hardtanh(float(m.min_val), float(m.max_val)),
    nn.Hardsigmoid: lambda m, **_: r.Hardsigmoid(),
    nn.Hardswish: lambda m, **_: r.Hardswish(),
    nn.Softshrink: lambda m, **_: r.Softshrink(float(m.lambd)),
    nn.PReLU: lambda m, **_: r.PReLU(m.num_parameters),
    nn.Softmax: lambda m, **_: _softmax(s.Softmax)(m.dim),
    nn.LogSoftmax: lambda m, **_: _softmax(s.LogSoftmax)(m.dim),
    FitActivation: lambda m, **_: a.Activation(m.fit),
    FourierActivation: lambda m, **_: a.Sigmoid(interval=(m.low, m.high)),
}
"""torch's class -> its layer.  A maker's UnsupportedError gives the reason; the caller names the layer, and what to do
where the error does not say (``refused`` does)."""


def _power(exponent: Any, **_: Any) -> Layer:
    if isinstance(exponent, bool) or not isinstance(exponent, int) or not 1 <= exponent <= MAX_TERMS:
        raise UnsupportedError(f"only whole powers from 1 to {MAX_TERMS}, not {exponent!r}")
    return a.Polynomial((*(0.0,) * exponent, 1.0))


def _mean(dim: Any = None, keepdim: bool = False, **_: Any) -> Layer:
    if dim is None:
        raise UnsupportedError("a mean over everything would mix the images of the batch")
    return f.Mean(ints(dim) if isinstance(dim, tuple | list) else (int(dim),), bool(keepdim))


def _flatten(start_dim: int = 0, end_dim: int = -1, **_: Any) -> Layer:
    return ly.Flatten(int(start_dim), int(end_dim))


def _identity(*_: Any, **__: Any) -> Layer:
    return ly.Identity()


def _dropout(always: bool) -> Make:
    """``always``: what ``training`` is where nobody says."""

    def make(p: float = 0.5, training: bool = always, inplace: bool = False, **_: Any) -> Layer:
        if training and p:
            raise refused("it drops values at random in evaluation too", "write F.dropout(x, p, self.training)")
        return ly.Dropout(float(p))

    return make


UNARY: dict[Any, Make] = {
    **windows.FUNCTIONS,
    **BY_TARGET,
    **dict.fromkeys((torch.softmax, functional.softmax, "softmax"), _softmax(s.Softmax)),
    **dict.fromkeys((torch.log_softmax, functional.log_softmax, "log_softmax"), _softmax(s.LogSoftmax)),
    **dict.fromkeys((torch.pow, operator.pow, "pow"), _power),
    **dict.fromkeys((torch.square, "square"), lambda **_: a.Polynomial((0.0, 0.0, 1.0))),
    **dict.fromkeys((torch.neg, operator.neg, "neg"), lambda **_: f.Affine(-1.0)),
    **dict.fromkeys((torch.mean, "mean"), _mean),
    **dict.fromkeys((torch.flatten, "flatten"), _flatten),
    **dict.fromkeys(("contiguous", "clone", "detach"), _identity),
    **dict.fromkeys(
        (functional.dropout, functional.dropout1d, functional.dropout2d, functional.dropout3d), _dropout(True)
    ),
    **dict.fromkeys((functional.alpha_dropout, functional.feature_alpha_dropout), _dropout(False)),
    **NORM_FUNCTIONS,
}
"""Functions (and names of methods) of one tensor; further arguments are passed on as they are."""

BINARY: dict[Any, str] = {
    **dict.fromkeys((operator.add, operator.iadd, torch.add, "add", "add_"), "add"),
    **dict.fromkeys((operator.sub, operator.isub, torch.sub, "sub", "sub_"), "subtract"),
    **dict.fromkeys((operator.mul, operator.imul, torch.mul, "mul", "mul_"), "multiply"),
    **dict.fromkeys((operator.truediv, operator.itruediv, torch.div, "div"), "divide"),
    **dict.fromkeys((torch.maximum, torch.fmax, "maximum", "fmax"), "maximum"),
    **dict.fromkeys((torch.minimum, torch.fmin, "minimum", "fmin"), "minimum"),
    **dict.fromkeys((operator.matmul, torch.matmul, torch.mm, torch.bmm, "matmul", "mm", "bmm"), "matmul"),
}
"""Functions (and names of methods) of two operands, tensors or numbers."""

TWO_TENSORS: dict[str, type[Layer]] = {
    "add": f.Add,
    "subtract": f.Subtract,
    "multiply": f.Multiply,
    "matmul": f.Matmul,
    "maximum": f.Maximum,
    "minimum": f.Minimum,
}


def with_number(kind: str, number: float, number_first: bool) -> Layer:
    """A binary function whose other operand is a public number."""
    if not math.isfinite(number):
        raise UnsupportedError("a constant that is not finite")
    match kind, number_first:
        case "add", _:
            return f.Affine(1.0, number)
        case "subtract", False:
            return f.Affine(1.0, -number)
        case "subtract", True:
            return f.Affine(-1.0, number)
        case "multiply", _:
            return f.Affine(number)
        case "divide", False if number:
            return f.Affine(1.0 / number)
    raise UnsupportedError(f"{kind} of a tensor and a number in this order")
