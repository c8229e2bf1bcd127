"""From a traced torch module to an architecture and its weights.  Needs torch; the way in is ``nn.from_torch``."""

from __future__ import annotations

import contextlib
import operator
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import fx, nn
from torch.fx.passes.shape_prop import ShapeProp
from torch.fx.proxy import TraceError
from torch.nn import functional

from mpc.errors import EncodingError, ShapeError, UnsupportedError
from nn import activations as a
from nn import functional as f
from nn import layers as ly
from nn.activations import Interval
from nn.architecture import Architecture, Step
from nn.importing.torch_layers import BINARY, MODULES, REASONS, TWO_TENSORS, UNARY, with_number
from nn.interface import Interface
from nn.layer import Array, Layer
from nn.model import Model

_RESHAPES = (torch.reshape, "reshape", "view")
_FROM_EXAMPLE = (torch.squeeze, torch.unsqueeze, torch.unflatten, "squeeze", "unsqueeze", "unflatten")


class _Value(NamedTuple):
    """A tensor of the graph: its place among the architecture's values."""

    place: int


class _Weight(NamedTuple):
    """A parameter or buffer that ``forward`` names."""

    path: str
    tensor: torch.Tensor


class _Shape(NamedTuple):
    """What ``x.shape`` is: sizes, the first of them the batch's; None where no example tells."""

    sizes: tuple[int, ...] | None


class _Batch(NamedTuple):
    """The number of images in a batch, whatever it will be."""


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return type(m) in MODULES or super().is_leaf_module(m, module_qualified_name)


def convert(module: nn.Module, example: torch.Tensor | None, interval: Interval | None, interface: Interface) -> Model:
    """``nn.from_torch`` does this; see there."""
    if not isinstance(module, nn.Module):
        raise UnsupportedError(f"{type(module).__name__} is not a torch.nn.Module")
    if example is not None and (not isinstance(example, torch.Tensor) or example.ndim < 1):
        raise ShapeError("example_input is a tensor that holds a batch of inputs, (N, ...)")
    _refuse_hooks(module, type(module).__name__)  # tracing begins at its forward, and would leave them out
    with _evaluating(module):
        traced = _trace(module)
        if example is not None:
            _propagate(traced, type(module).__name__, example)
        conversion = _Conversion(traced, interval)
        conversion.run()
    shape = None if example is None else tuple(example.shape[1:])
    return Model(Architecture(tuple(conversion.steps), shape), conversion.weights, interface).fold()


@contextlib.contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    """In evaluation mode for a while."""
    modes = [(m, m.training) for m in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for m, training in modes:
            m.training = training


def _trace(module: nn.Module) -> fx.GraphModule:
    tracer = _Tracer()
    root = module
    if tracer.is_leaf_module(module, ""):  # a single layer: give it something to be a layer of
        root = nn.Sequential(module)
    try:
        graph = tracer.trace(root)
    except (TraceError, TypeError, ValueError, RuntimeError, AttributeError, NotImplementedError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UnsupportedError(
            f"forward of {type(module).__name__} cannot be traced: it must not branch or loop on a tensor's"
            f" values ({reason})"
        ) from None
    traced = fx.GraphModule(root, graph)
    traced.graph.eliminate_dead_code()
    return traced


def _propagate(traced: fx.GraphModule, kind: str, example: torch.Tensor) -> None:
    """Note every value's shape, by running the example through."""
    try:
        with torch.no_grad():
            ShapeProp(traced).propagate(example)
    except RuntimeError as error:
        reason = (str(error).strip().splitlines() or [""])[0]
        shape = tuple(example.shape)
        raise ShapeError(f"{kind} does not take example_input of shape {shape}: {reason}") from None


class _Conversion:
    """One pass over the graph."""

    def __init__(self, traced: fx.GraphModule, interval: Interval | None) -> None:
        self.root = traced
        self.graph = traced.graph
        self.interval = interval
        self.steps: list[Step] = []
        self.weights: dict[str, Array] = {}
        self.values: dict[fx.Node, Any] = {}
        self.taken = {node.target for node in traced.graph.nodes if node.op in ("call_module", "get_attr")}

    def run(self) -> None:
        for node in self.graph.nodes:
            try:
                self.values[node] = getattr(self, f"_{node.op}")(node)
            except (ShapeError, UnsupportedError) as error:
                raise type(error)(f"{self._where(node)}: {error}") from None

    def _where(self, node: fx.Node) -> str:
        if node.op == "call_module":
            module = self.root.get_submodule(str(node.target))
            return f"layer {node.target!r} is {type(module).__name__}"
        if node.op in ("call_function", "call_method"):
            path = next(reversed(node.meta.get("nn_module_stack", {"": None})), "")
            return f"{_name(node.target)!r} in forward of {path or 'the model'}"
        return node.op

    def _placeholder(self, node: fx.Node) -> Any:
        if any(isinstance(value, _Value) for value in self.values.values()):
            raise UnsupportedError("forward takes more than one input: only one is supported")
        return _Value(0)

    def _get_attr(self, node: fx.Node) -> Any:
        value: Any = operator.attrgetter(str(node.target))(self.root)
        if not isinstance(value, torch.Tensor):
            raise UnsupportedError(f"{node.target!r} is {type(value).__name__}, not a tensor")
        return _Weight(str(node.target), value)

    def _output(self, node: fx.Node) -> None:
        result = self.values.get(node.args[0]) if isinstance(node.args[0], fx.Node) else None
        if not isinstance(result, _Value):
            raise UnsupportedError("forward must return one tensor that depends on its input")
        if not self.steps:
            self._add("output", ly.Identity(), [result])
        elif result.place != len(self.steps):
            self._add(self._fresh("output"), ly.Identity(), [result])

    def _call_module(self, node: fx.Node) -> Any:
        module = self.root.get_submodule(str(node.target))
        make = MODULES.get(type(module))
        name = type(module).__name__
        if make is None:
            raise UnsupportedError(REASONS.get(name, "it has no counterpart here"))
        _refuse_hooks(module, "it")
        if len(node.args) != 1 or node.kwargs:
            raise UnsupportedError("it is called with more than one tensor")
        layer = make(module, interval=self.interval)
        path = str(node.target)
        for local in layer.parameters:
            self._keep(f"{path}.{local}", getattr(module, local))
        return self._add(path, layer, self._tensors(node.args))

    def _call_method(self, node: fx.Node) -> Any:
        return self._call_function(node)

    def _call_function(self, node: fx.Node) -> Any:
        target, kwargs = node.target, dict(node.kwargs)
        args = list(node.args) or [kwargs.pop("input", None)]
        args, kwargs = self._resolve(args), self._resolve(kwargs)
        if target in (getattr, operator.getitem, "size") and (size := self._size(target, args, node)) is not None:
            return size
        name = self._fresh(node.name)
        if callable(target) and target in BINARY and len(args) == 2 and all(isinstance(v, int) for v in args):
            return target(*args)  # sizes
        if target in BINARY and len(args) == 2:
            return self._binary(name, BINARY[target], args, kwargs)
        if target in (torch.cat, torch.concat, torch.concatenate):
            tensors = self._tensors(kwargs.get("tensors") or args[0])
            dim = args[1] if len(args) > 1 else kwargs.get("dim", kwargs.get("axis", 0))
            return self._add(name, f.Concatenate(int(dim)), tensors)
        if target is functional.linear:
            return self._linear(name, *args, **kwargs)
        if target is functional.conv2d:
            return self._conv2d(name, *args, **kwargs)
        if target in _RESHAPES:
            return self._add(name, self._reshape(args, kwargs, node), self._tensors(args[:1]))
        if target in _FROM_EXAMPLE:
            return self._add(name, self._as_in_example(node), self._tensors(args[:1]))
        if target in (torch.permute, "permute"):
            dims = args[1] if len(args) > 1 and isinstance(args[1], tuple | list) else (kwargs.get("dims") or args[1:])
            return self._add(name, f.Permute(tuple(int(d) for d in dims)), self._tensors(args[:1]))
        if target in UNARY:
            try:
                layer = UNARY[target](*args[1:], **kwargs, interval=self.interval)
            except TypeError:
                raise UnsupportedError("it is called with arguments that are not supported") from None
            return self._add(name, layer, self._tensors(args[:1]))
        raise UnsupportedError(REASONS.get(_name(target), "it has no counterpart here"))

    def _binary(self, name: str, kind: str, args: list[Any], kwargs: dict[str, Any]) -> Any:
        if kwargs.get("alpha", 1) != 1 or kwargs.get("rounding_mode") is not None:
            raise UnsupportedError("only its plain form is supported")
        if isinstance(args[0], int | float) or isinstance(args[1], int | float):
            first = isinstance(args[0], int | float)
            number, tensor = (args[0], args[1]) if first else (args[1], args[0])
            return self._add(name, with_number(kind, float(number), first), self._tensors([tensor]))
        if kind == "divide":
            inverse = self._add(f"{name}_inverse", a.Function("reciprocal"), self._tensors(args[1:]))
            return self._add(name, f.Multiply(), [*self._tensors(args[:1]), inverse])
        return self._add(name, TWO_TENSORS[kind](), self._tensors(args))

    def _linear(self, name: str, x: Any, weight: Any, bias: Any = None) -> Any:
        out_features, in_features = self._parts(name, weight, bias).shape
        return self._add(name, ly.Linear(in_features, out_features, bias is not None), self._tensors([x]))

    def _conv2d(
        self,
        name: str,
        x: Any,
        weight: Any,
        bias: Any = None,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
    ) -> Any:
        out_channels, each, *kernel = self._parts(name, weight, bias).shape
        stride, padding, dilation = (tuple(v) if isinstance(v, list) else v for v in (stride, padding, dilation))
        layer = ly.Conv2d(
            each * groups,
            out_channels,
            (kernel[0], kernel[1]),
            stride,
            padding,
            dilation,
            groups,
            bias is not None,
        )
        return self._add(name, layer, self._tensors([x]))

    def _parts(self, name: str, weight: Any, bias: Any) -> torch.Tensor:
        """Keep a functional layer's weights under its own name."""
        if not isinstance(weight, _Weight) or not (bias is None or isinstance(bias, _Weight)):
            raise UnsupportedError("its weight and bias must be parameters of the module")
        self._keep(f"{name}.weight", weight.tensor)
        if bias is not None:
            self._keep(f"{name}.bias", bias.tensor)
        return weight.tensor

    def _size(self, target: Any, args: list[Any], node: fx.Node) -> Any:
        """``x.shape``, ``x.size()``, ``x.size(i)`` and ``shape[i]``; None if the node is something else."""
        if target is getattr:
            if args[1] != "shape":
                raise UnsupportedError(f"attribute {args[1]!r} of a tensor")
            return _Shape(_shape_of(node.args[0]))
        if target == "size":
            whole = _Shape(_shape_of(node.args[0]))
            return whole if len(args) == 1 else _one_size(whole, args[1])
        return _one_size(args[0], args[1]) if isinstance(args[0], _Shape) else None

    def _reshape(self, args: list[Any], kwargs: dict[str, Any], node: fx.Node) -> Layer:
        rest = args[1:] or [kwargs.get("shape")]
        dims = list(rest[0]) if len(rest) == 1 and isinstance(rest[0], tuple | list) else rest
        batch = (_shape_of(node.args[0]) or (None,))[0]
        first = dims[0] if dims else None
        keeps = (
            isinstance(first, _Batch) or (first == -1 and -1 not in dims[1:]) or (first is not None and first == batch)
        )
        if not keeps or not all(isinstance(d, int) for d in dims[1:]):
            raise UnsupportedError(
                "the batch must stay first, and other sizes be known: write x.reshape(x.size(0), ...)"
            )
        return f.Reshape(tuple(int(d) for d in dims[1:]))

    def _as_in_example(self, node: fx.Node) -> Layer:
        before, after = _shape_of(node.args[0]), _shape_of(node)
        if not before or not after:
            raise UnsupportedError("the result's shape is not known: give from_torch an example_input")
        if before[0] != after[0]:
            raise UnsupportedError("the batch must stay first")
        return f.Reshape(after[1:])

    def _resolve(self, argument: Any) -> Any:
        """Arguments with nodes replaced by what they stand for."""
        if isinstance(argument, fx.Node):
            return self.values[argument]
        if isinstance(argument, tuple | list) and not isinstance(argument, _Value | _Weight | _Shape | _Batch):
            return [self._resolve(each) for each in argument]
        if isinstance(argument, dict):
            return {key: self._resolve(each) for key, each in argument.items()}
        return argument

    def _tensors(self, arguments: Any) -> list[_Value]:
        """Operands as values of the architecture; a parameter becomes a step of its own."""
        found = []
        for argument in self._resolve(arguments):
            if isinstance(argument, _Weight):
                self._keep(argument.path, argument.tensor)
                found.append(self._add(argument.path, f.Parameter(tuple(argument.tensor.shape)), []))
            elif isinstance(argument, _Value):
                found.append(argument)
            else:
                raise UnsupportedError("an operand is not a tensor")
        return found

    def _add(self, name: str, layer: Layer, inputs: list[_Value]) -> _Value:
        self.steps.append(Step(name, layer, tuple(value.place for value in inputs)))  # type: ignore[arg-type]
        return _Value(len(self.steps))

    def _fresh(self, name: str) -> str:
        """A name for a step that is not a module's."""
        names = self.taken | {step.name for step in self.steps}
        while name in names:
            name += "_"
        return name

    def _keep(self, name: str, tensor: torch.Tensor) -> None:
        if not tensor.is_floating_point():
            raise EncodingError(f"{name} has dtype {tensor.dtype}: only real floating-point weights are supported")
        self.weights[name] = np.asarray(tensor.detach().to("cpu", torch.float64).numpy())
        if not np.isfinite(self.weights[name]).all():
            raise EncodingError(f"{name} holds values that are not finite: the module is not usable as it is")


def _refuse_hooks(module: nn.Module, name: str) -> None:
    if module._forward_hooks or module._forward_pre_hooks:
        raise UnsupportedError(f"{name} has forward hooks, which a model cannot keep: remove them")


def _shape_of(node: Any) -> tuple[int, ...] | None:
    meta = node.meta.get("tensor_meta") if isinstance(node, fx.Node) else None
    return None if meta is None else tuple(int(n) for n in meta.shape)


def _one_size(shape: _Shape, index: Any) -> Any:
    if index == 0 or (shape.sizes and index == -len(shape.sizes)):
        return _Batch()
    if shape.sizes is None or not isinstance(index, int):
        raise UnsupportedError("sizes other than the batch's are not known: give from_torch an example_input")
    return shape.sizes[index]


def _name(target: Any) -> str:
    return target if isinstance(target, str) else str(getattr(target, "__name__", target))
