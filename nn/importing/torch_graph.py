"""From a traced torch module to an architecture and its weights.  Needs torch; the way in is ``nn.from_torch``."""

from __future__ import annotations

import copy
import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import fx
from torch.nn import functional

from mpc.errors import UnsupportedError
from nn import activations as a
from nn import functional as f
from nn import layers as ly
from nn.activations import Interval
from nn.architecture import Step
from nn.importing.blockers import Blocker, refused
from nn.importing.remedies import not_here
from nn.importing.torch_attention import SEVERAL, attention
from nn.importing.torch_layers import BINARY, TWO_TENSORS, UNARY, with_number
from nn.importing.torch_modules import OPTIONS, check_as_it_is, check_weight, make_layer, weight_array
from nn.importing.torch_norms import WEIGHTED_NORMS, similarity
from nn.importing.torch_trace import Trace
from nn.importing.torch_walk import LOST, SHAPE, Walk, _LostOperandError, name_of, path_of
from nn.inputs import Result
from nn.layer import Array, Layer

_RESHAPES = (torch.reshape, "reshape", "view")
_JOINS = (torch.cat, torch.concat, torch.concatenate)
_PERMUTES = (torch.permute, "permute")
_WEIGHTED = (functional.linear, functional.conv2d, functional.cosine_similarity, *WEIGHTED_NORMS)
_OF_SIZES = (getattr, operator.getitem, "size")
_FROM_EXAMPLE = (torch.squeeze, torch.unsqueeze, torch.unflatten, "squeeze", "unsqueeze", "unflatten")

_SIZES = "give from_torch samples, or an example_input"


class _Value(NamedTuple):
    """A tensor of the graph: its place among the architecture's values."""

    place: int


class _Weight(NamedTuple):
    """A parameter or buffer that ``forward`` names."""

    path: str
    tensor: torch.Tensor

    def __repr__(self) -> str:
        """Without its numbers: it may be named in an error."""
        return f"weight {self.path!r}"


class _Shape(NamedTuple):
    """What ``x.shape`` is: sizes, the first of them the batch's; None where no example tells."""

    sizes: tuple[int, ...] | None


class _Batch(NamedTuple):
    """The number of images in a batch, whatever it will be."""


class Converted(NamedTuple):
    """What became of a graph, or why nothing could."""

    steps: tuple[Step, ...]
    weights: dict[str, Array]
    sources: dict[str, str]
    """Of each step, by its name: the line of forward."""
    blockers: list[Blocker]
    refused: frozenset[str] = frozenset()
    """Classes of torch's own layers that have no parts, and no counterpart."""
    takes: Mapping[str, int] = {}
    """Of several inputs, and of tokens, by name: of how many tokens, 0 for numbers."""
    results: tuple[Result, ...] = ()
    """Where there are several."""
    origins: Mapping[str, str] = {}
    """Of weights, by name: which of the network's tensors each is."""


def convert(traced: Trace, interval: Interval | None) -> Converted:
    """The graph's layers and weights, and all that has none.  Changes the graph."""
    conversion = _Conversion(traced, interval)
    conversion.walk()
    return Converted(
        tuple(conversion.steps),
        conversion.weights,
        conversion.sources,
        conversion.blockers,
        frozenset(conversion.refused),
        origins=conversion.origins,
    )


class _Conversion(Walk):
    def __init__(self, traced: Trace, interval: Interval | None) -> None:
        super().__init__(traced, interval)
        self.steps: list[Step] = []
        self.weights: dict[str, Array] = {}
        self.sources: dict[str, str] = {}
        self.origins: dict[str, str] = {}
        self._owned: dict[int, str] = {}
        for name, tensor in self.holder.named_parameters(remove_duplicate=False):
            self._owned.setdefault(id(tensor), name)
        self.taken = {path_of(node.target) for node in traced.graph.nodes if node.op in ("call_module", "get_attr")}

    def _placeholder(self, node: fx.Node) -> Any:
        return _Value(0)

    def _get_attr(self, node: fx.Node) -> Any:
        value: Any = operator.attrgetter(str(node.target))(self.holder)
        if not isinstance(value, torch.Tensor):
            raise UnsupportedError(f"{path_of(node.target)!r} is {type(value).__name__}, not a tensor")
        return _Weight(path_of(node.target), value)

    def _output(self, node: fx.Node) -> None:
        result = self.values.get(node.args[0]) if isinstance(node.args[0], fx.Node) else None
        if result is LOST:
            return
        if not isinstance(result, _Value):
            raise refused(
                "forward must return one tensor that depends on its input",
                "wrap it in a module whose forward returns that one",
            )
        if not self.steps:
            self._add("output", ly.Identity(), [result])
        elif result.place != len(self.steps):
            self._add(self._fresh("output"), ly.Identity(), [result])

    def _call_module(self, node: fx.Node) -> Any:
        module = self.holder.get_submodule(str(node.target))
        if type(module) in SEVERAL:
            return self._several(node, module)
        layer = make_layer(module, self.interval)
        if len(node.args) != layer.operands or node.kwargs:
            raise refused("it is called with another number of tensors", f"call it with {layer.operands}")
        path = path_of(node.target)
        for local in layer.parameters:
            self._keep(f"{path}.{local}", getattr(module, local))
        operands = self._resolve(node.args)
        if all(isinstance(each, _Weight) for each in operands):
            return _Weight(self._fresh(node.name), copy.deepcopy(module).double()(*map(_exact, operands)))
        return self._add(path, layer, self._tensors(node.args))

    def _several(self, node: fx.Node, module: Any) -> Any:
        check_as_it_is(module)
        path = path_of(node.target)

        def build(name: str, layer: Layer, *inputs: _Value, **weights: torch.Tensor | None) -> _Value:
            for local, weight in weights.items():
                if weight is not None:
                    self._keep(f"{path}.{name}.{local}", weight)
            return self._add(f"{path}.{name}", layer, list(inputs))

        return SEVERAL[type(module)](module, build, self._tensors(node.args), self._resolve(dict(node.kwargs)))

    def _call_method(self, node: fx.Node) -> Any:
        return self._call_function(node)

    def _call_function(self, node: fx.Node) -> Any:
        target, kwargs = node.target, dict(node.kwargs)
        args = list(node.args) or [kwargs.pop("input", None)]
        try:
            args, kwargs = self._resolve(args), self._resolve(kwargs)
        except _LostOperandError:
            if _is_known(target):
                raise
            raise not_here(name_of(target)) from None
        if not any(isinstance(each, _Value | _Shape | _Batch) for each in _inside([args, kwargs])):
            return self._computed_here(node, args, kwargs)
        if kwargs.get("out") is not None:
            raise refused("it writes its result into another tensor (out=)", "use what it returns")
        if target in _OF_SIZES and (size := self._size(target, args, node)) is not None:
            return size
        name = self._fresh(node.name)
        if target in BINARY and len(args) == 2:
            return self._binary(name, BINARY[target], args, kwargs)
        if target in _JOINS:
            tensors = self._tensors(kwargs.get("tensors") or args[0])
            dim = args[1] if len(args) > 1 else kwargs.get("dim", kwargs.get("axis", 0))
            return self._add(name, f.Concatenate(int(dim)), tensors)
        if target is functional.linear:
            return self._linear(name, *args, **kwargs)
        if target is functional.conv2d:
            return self._conv2d(name, *args, **kwargs)
        if target in WEIGHTED_NORMS:
            return self._norm(name, node, args, kwargs)
        if target is functional.cosine_similarity:
            pair = [*args, kwargs.get("x2")][:2]
            return self._add(name, _called(similarity, args[1:], kwargs), self._tensors(pair))
        if target is functional.scaled_dot_product_attention and len(args) > 2:
            return self._add(name, _called(attention, args[3:], kwargs), self._tensors(args[:3]))
        if target in _RESHAPES:
            return self._add(name, self._reshape(args, kwargs, node), self._tensors(args[:1]))
        if target in _FROM_EXAMPLE:
            return self._add(name, self._as_in_example(node), self._tensors(args[:1]))
        if target in _PERMUTES:
            dims = args[1] if len(args) > 1 and isinstance(args[1], tuple | list) else (kwargs.get("dims") or args[1:])
            return self._add(name, f.Permute(tuple(int(d) for d in dims)), self._tensors(args[:1]))
        if target in UNARY:
            layer = _called(UNARY[target], args[1:], kwargs | {"interval": self.interval})
            return self._add(name, layer, self._tensors(args[:1]))
        raise not_here(name_of(target))

    def _computed_here(self, node: fx.Node, args: list[Any], kwargs: dict[str, Any]) -> Any:
        """What depends on no input: on sizes that are known, or on weights, which become one more weight."""
        target: Any = node.target
        args, kwargs = _plain(args), _plain(kwargs)
        with torch.no_grad():
            result = (
                getattr(args[0], target)(*args[1:], **kwargs) if isinstance(target, str) else target(*args, **kwargs)
            )
        return _Weight(self._fresh(node.name), result) if isinstance(result, torch.Tensor) else result

    def _binary(self, name: str, kind: str, args: list[Any], kwargs: dict[str, Any]) -> Any:
        inverse: Any
        if kwargs.pop("alpha", 1) != 1 or kwargs.pop("rounding_mode", None) is not None or kwargs:
            raise refused("only its plain form is supported", "write it with + - * / of tensors alone")
        if isinstance(args[0], int | float) or isinstance(args[1], int | float):
            first = isinstance(args[0], int | float)
            if kind == "divide" and first:
                inverse = self._add(self._fresh(f"{name}_inverse"), a.Function("reciprocal"), self._tensors(args[1:]))
                return self._add(name, with_number("multiply", float(args[0]), True), [inverse])
            number, tensor = (args[0], args[1]) if first else (args[1], args[0])
            return self._add(name, with_number(kind, float(number), first), self._tensors([tensor]))
        if kind == "divide":
            if isinstance(args[1], _Weight):
                inverse = _Weight(self._fresh(f"{name}_inverse"), _exact(args[1]).reciprocal())
            else:
                inverse = self._add(self._fresh(f"{name}_inverse"), a.Function("reciprocal"), self._tensors(args[1:]))
            args = [args[0], inverse]
            return self._add(name, f.Multiply(), self._tensors(args))
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
            each * groups, out_channels, (kernel[0], kernel[1]), stride, padding, dilation, groups, bias is not None
        )
        return self._add(name, layer, self._tensors([x]))

    def _norm(self, name: str, node: fx.Node, args: list[Any], kwargs: dict[str, Any]) -> Any:
        layer, weights = _called(WEIGHTED_NORMS[node.target], [_shape_of(node.args[0]), *args[1:]], kwargs)
        for local, weight in weights.items():
            self._keep(f"{name}.{local}", weight.tensor)
        return self._add(name, layer, self._tensors(args[:1]))

    def _parts(self, name: str, weight: Any, bias: Any) -> torch.Tensor:
        """Keep a functional layer's weights under its own name."""
        if not isinstance(weight, _Weight) or not (bias is None or isinstance(bias, _Weight)):
            raise refused("its weight and bias must be parameters of the module", "use matmul, + and * of two tensors")
        self._keep(f"{name}.weight", weight.tensor)
        if bias is not None:
            self._keep(f"{name}.bias", bias.tensor)
        return weight.tensor

    def _size(self, target: Any, args: list[Any], node: fx.Node) -> Any:
        """``x.shape``, ``x.size()``, ``x.size(i)`` and ``shape[i]``; None if the node is something else."""
        if target is getattr:
            if args[1] != "shape":
                raise refused(
                    f"attribute {args[1]!r} of a tensor is not known", "leave it out; sizes are x.shape and x.size()"
                )
            return _Shape(_shape_of(node.args[0]))
        if target == "size":
            whole = _Shape(_shape_of(node.args[0]))
            return whole if len(args) == 1 else _one_size(whole, args[1])
        if type(args[0]) is list:  # of the results of a module that has several
            return args[0][args[1]]
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
            raise refused("the result's shape is not known", _SIZES)
        if before[0] != after[0]:
            raise refused("the batch must stay first", "leave its dimension where it is")
        return f.Reshape(after[1:])

    def _resolve(self, argument: Any) -> Any:
        """Arguments with nodes replaced by what they stand for.  Raises _LostOperandError."""
        if isinstance(argument, fx.Node):
            return self.operand(argument)
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
                raise refused("an operand is not a tensor", "use sizes in reshapes alone, and numbers with + - * /")
        return found

    def _add(self, name: str, layer: Layer, inputs: list[_Value]) -> _Value:
        self.sources.setdefault(name, self.source)
        self.steps.append(Step(name, layer, tuple(value.place for value in inputs)))  # type: ignore[arg-type]
        return _Value(len(self.steps))

    def _fresh(self, name: str) -> str:
        """A name for a step that is not a module's."""
        names = self.taken | {step.name for step in self.steps}
        while name in names:
            name += "_"
        return name

    def _keep(self, name: str, tensor: torch.Tensor) -> None:
        self.weights[name] = weight_array(name, tensor)
        self.origins[name] = self._owned.get(id(tensor), "")


def _called(make: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """What torch's arguments make.  Raises UnsupportedError for those it does not know."""
    try:
        return make(*args, **kwargs)
    except (TypeError, AttributeError):
        raise refused("it is called with arguments that are not supported", OPTIONS) from None


def _inside(argument: Any) -> Iterator[Any]:
    """What arguments hold, however deep."""
    if isinstance(argument, _Value | _Weight | _Shape | _Batch):
        yield argument
    elif isinstance(argument, tuple | list):
        for each in argument:
            yield from _inside(each)
    elif isinstance(argument, dict):
        yield from _inside(list(argument.values()))


def _plain(argument: Any) -> Any:
    """Arguments with weights as tensors."""
    if isinstance(argument, _Weight):
        return _exact(argument)
    if isinstance(argument, tuple | list):
        return type(argument)(map(_plain, argument))
    return {key: _plain(each) for key, each in argument.items()} if isinstance(argument, dict) else argument


def _exact(weight: _Weight) -> torch.Tensor:
    check_weight(weight.path, weight.tensor)
    return weight.tensor.detach().to("cpu", torch.float64)


def _is_known(target: Any) -> bool:
    """Whether there may be a way to convert it."""
    tables = (BINARY, UNARY, _RESHAPES, _FROM_EXAMPLE, _JOINS, _PERMUTES, _WEIGHTED, _OF_SIZES)
    if any(target in table for table in tables):
        return True
    return getattr(target, "__module__", "") in ("_operator", "math") and target is not operator.setitem


def _shape_of(node: Any) -> tuple[int, ...] | None:
    return node.meta.get(SHAPE) if isinstance(node, fx.Node) else None


def _one_size(shape: _Shape, index: Any) -> Any:
    """Or several, after the batch's."""
    if isinstance(index, slice) and shape.sizes is not None and 0 not in range(len(shape.sizes))[index]:
        return shape.sizes[index]
    if index == 0 or (shape.sizes and index == -len(shape.sizes)):
        return _Batch()
    if shape.sizes is None or not isinstance(index, int):
        raise refused("sizes other than the batch's are not known", _SIZES)
    return shape.sizes[index]
