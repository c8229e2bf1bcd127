"""What torch.export makes of a module, to an architecture and its weights, operation by operation.  Needs torch.

Python is gone from it, and so is everything that a trace of ``forward`` stumbles on: what is left are torch's own
operations on tensors of known sizes.  What depends on no input is computed here, and becomes a weight.
"""

from __future__ import annotations

import contextlib
import logging
import operator
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import fx, nn

from mpc.tensor_type import Shape
from nn import functional as f
from nn import layers as ly
from nn.activations import Interval
from nn.architecture import Step
from nn.importing.batch_layout import BATCHES, Layout, without_batch
from nn.importing.blockers import SMOOTH, Blocker, line_of, refused
from nn.importing.export_aliases import OF_SIZES, is_clear, name_of
from nn.importing.remedies import not_here
from nn.importing.torch_graph import Converted
from nn.importing.torch_modules import weight_array
from nn.layer import Array, Layer

_FRAME = re.compile(r'File "([^"]+)", line (\d+)')
_OWN = re.compile(r"[^A-Za-z0-9_.\-]+")


@dataclass(frozen=True, slots=True)
class Tensor:
    """One that depends on the input: its place among the architecture's values."""

    place: int
    layout: Layout


@dataclass(frozen=True, slots=True, repr=False)
class Known:
    """One that depends on no input, for a batch of one; ``name`` if it is a parameter or buffer of the module."""

    values: torch.Tensor
    name: str = ""

    def __repr__(self) -> str:
        """Without its numbers: it may be named in an error."""
        return f"weight {self.name!r}"


class _LostError(Exception):
    """An operand comes from what stands in the way already."""


_LOST = object()

_OFF = frozenset((
    "aten.dropout", "aten.native_dropout", "aten.scaled_dot_product_attention", "aten.rrelu", "aten.lstm", "aten.gru",
    "aten.rnn_tanh", "aten.rnn_relu",
))  # fmt: skip
"""Random in training alone; their operators look at that."""

_SOFTMAX = frozenset(("aten.softmax", "aten._softmax", "aten.log_softmax", "aten._log_softmax"))
_PAST = frozenset(
    f"aten.{name}"
    for name in ("add", "masked_fill", "where", "view", "reshape", "flatten", "to", "_to_copy", "clone", "dropout")
)

Operator = Callable[..., Any]


def exported(
    module: nn.Module, example: torch.Tensor, operators: Mapping[str, Operator], interval: Interval | None
) -> Converted | None:
    """A module's layers and weights, and all that has none; None if torch.export cannot follow it, or what it changes.

    ``example``: a batch of inputs.  torch runs nothing of it: sizes alone go through ``forward``.
    """
    sizes = {n for tensor in (*module.parameters(), *module.buffers(), example) for n in tensor.shape}
    batch = next((p for p in BATCHES if all(n % p for n in sizes if n)), None)
    if batch is None:
        return None
    try:
        with warnings.catch_warnings(), _unlogged(), torch.no_grad():
            warnings.simplefilter("ignore")
            # Memory that nobody touches.
            images = torch.empty((batch, *example.shape[1:]), dtype=example.dtype)
            program = torch.export.export(module, (images,))
            (taken,) = program.graph_signature.user_inputs
            if not is_clear(program.graph, str(taken)):
                return None
            program = program.run_decompositions({})
    except Exception:  # noqa: BLE001 - whatever forward, or torch of it, raises
        return None
    graph = Graph(program, batch, operators, interval)
    graph.walk()
    return Converted(tuple(graph.steps), graph.weights, graph.sources, graph.blockers)


@contextlib.contextmanager
def _unlogged() -> Iterator[None]:
    """torch logs what fails before it raises it; whoever imports is told in one sentence."""
    found = [logging.getLogger(name) for name in list(logging.root.manager.loggerDict) if name.split(".")[0] == "torch"]
    loggers = [logger for logger in found if not logger.disabled]
    for logger in loggers:
        logger.disabled = True
    try:
        yield
    finally:
        for logger in loggers:
            logger.disabled = False


class Graph:
    """Steps and weights, as far as it has been walked; operators ask it for operands, and add to it."""

    def __init__(self, program: Any, batch: int, operators: Mapping[str, Operator], interval: Interval | None) -> None:
        self.batch = batch
        self.interval = interval
        """Where activations are approximated, if that was said."""
        self.steps: list[Step] = []
        self.weights: dict[str, Array] = {}
        self.sources: dict[str, str] = {}
        self.blockers: list[Blocker] = []
        self._program = program
        self._operators = operators
        self._values: dict[fx.Node, Any] = {}
        self._node: fx.Node
        self._source = ""
        self._names: set[str] = set()

    # -- the walk ------------------------------------------------------------------------------------------------------

    def walk(self) -> None:
        """Visit all operations in order; what cannot be converted is noted down, and the walk goes on."""
        signature = self._program.graph_signature
        stored = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
        constants = signature.inputs_to_lifted_tensor_constants
        changed = [*signature.buffers_to_mutate.values(), *signature.user_inputs_to_mutate.values()]
        if changed:
            reason = f"it changes {changed[0]!r}, which is the module's own"
            self.blockers.append(Blocker("forward", reason, "leave that out in evaluation (self.training)"))
        for node in self._program.graph.nodes:
            self._node, self._source = node, _source_of(node)
            if node.op == "placeholder":
                self._values[node] = self._given(node, stored, constants)
            elif node.op == "output":
                self._ended(node)
            else:
                self._values[node] = self._visited(node)

    def _given(self, node: fx.Node, stored: Mapping[str, str], constants: Mapping[str, str]) -> Any:
        if node.name in stored:
            name = stored[node.name]
            found = self._program.state_dict.get(name)
            return Known((self._program.constants[name] if found is None else found).detach(), name)
        if node.name in constants:
            return Known(self._program.constants[constants[node.name]].detach())
        return Tensor(0, Layout(tuple(node.meta["val"].shape), 0, 1, 1))

    def _visited(self, node: fx.Node) -> Any:
        try:
            return self._converted(node)
        except _LostError:
            return _LOST
        except Exception as error:  # noqa: BLE001 - arguments are whatever forward makes of them
            path, kind = self._module_of(node)
            where = f"{name_of(node)!r} in forward of " + (f"layer {path!r}, {kind}" if path else "the model")
            self.blockers.append(Blocker.of(where, error, self._source))
            return _LOST

    def _converted(self, node: fx.Node) -> Any:
        args, kwargs = self._resolved(node.args), self._resolved(node.kwargs)
        if torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ()) and name_of(node) not in _OFF:
            raise refused("it draws random numbers", "leave it out in evaluation (self.training)")
        if name_of(node) in OF_SIZES and isinstance(args[0], Tensor):
            sizes = without_batch(args[0].layout.shape, self.batch)
            args[0] = Known(torch.empty(sizes, dtype=node.all_input_nodes[0].meta["val"].dtype))  # type: ignore[call-overload]
        if not any(isinstance(each, Tensor) for each in _flat((args, kwargs))):
            return self._computed(node, args, kwargs)
        if not isinstance(node.target, torch._ops.OpOverload):
            results, number = args  # a list that an operator gave
            if number >= len(results):
                raise refused("its further results, such as where a maximum is, have no counterpart", SMOOTH)
            return results[number]
        operator = self._operators.get(name_of(node))
        if operator is None:
            raise not_here(name_of(node).removeprefix("aten."))
        return operator(self, *args, **kwargs)

    def _computed(self, node: fx.Node, args: Any, kwargs: Any) -> Any:
        """What depends on no input, for a batch of one."""
        args, kwargs = (_plain(without_batch(each, self.batch)) for each in (args, list(kwargs.values())))
        with torch.no_grad():
            result = node.target(*args, **dict(zip(node.kwargs, kwargs, strict=True)))  # type: ignore[operator]
        if not isinstance(result, torch.Tensor):
            return [Known(each) if isinstance(each, torch.Tensor) else each for each in result]
        if tuple(result.shape) != tuple(without_batch(tuple(self.shape), self.batch)):  # type: ignore[arg-type]
            raise refused("its sizes depend on the batch's", "make what depends on no input without its sizes")
        return Known(result)

    def _ended(self, node: fx.Node) -> None:
        """The result is the last step's, and has the batch first."""
        returned: Any = node.args[0]
        results = [self._values[each] if isinstance(each, fx.Node) else each for each in returned]
        results = [each for each in results if each is not None]
        if any(each is _LOST for each in results) or self.blockers:
            return
        (result, *more) = results or [None]
        if more or not isinstance(result, Tensor):
            reason = f"forward returns {len(results)} tensors" if more else "its result does not depend on its input"
            remedy = "wrap it in a module whose forward returns the one that is wanted"
            self.blockers.append(Blocker("the result of forward", reason, remedy))
        elif not result.layout.is_plain:
            reason = f"its result has the batch in dimension {result.layout.axis}"
            self.blockers.append(Blocker("the result of forward", reason, "return it with the batch first"))
        elif result.place != len(self.steps) or not self.steps:
            self._step("output", ly.Identity(), [result.place], {})

    # -- what operators ask for ----------------------------------------------------------------------------------------

    @property
    def shape(self) -> Shape:
        """Of what the operation gives, for the batch that was looked at."""
        return tuple(self._node.meta["val"].shape)

    @property
    def dtype(self) -> torch.dtype:
        """Of what it gives."""
        found: torch.dtype = self._node.meta["val"].dtype
        return found

    @property
    def shapes(self) -> list[Shape]:
        """Of the several tensors that it gives."""
        return [tuple(each.shape) for each in self._node.meta["val"]]

    @property
    def used(self) -> set[int]:
        """Which of the several tensors that it gives are taken from it."""
        return {user.args[1] for user in self._node.users if user.target is operator.getitem}  # type: ignore[misc]

    @property
    def feeds_softmax(self) -> bool:
        """Whether all that it gives goes to a softmax, past sums and what moves numbers alone."""
        return _feeds_softmax(self._node)

    def tensor(self, value: Any) -> Tensor:
        """One that depends on the input.  Raises UnsupportedError."""
        if not isinstance(value, Tensor):
            raise refused("its first operand depends on no input", "compute it before")
        return value

    def plain(self, value: Any) -> Tensor:
        """The same with the batch first and alone, as layers of images want it."""
        tensor = self.tensor(value)
        if not tensor.layout.is_plain:
            raise refused("the batch is not its first dimension, alone", "keep the batch first where it is used")
        return tensor

    def known(self, value: Any) -> Known:
        """One that depends on no input.  Raises UnsupportedError."""
        if not isinstance(value, Known):
            raise refused("it computes weights from the input", "use matmul, + and * of two tensors")
        return value

    def add(self, layer: Layer, *inputs: Tensor, layout: Layout | None = None, **weights: Known | None) -> Tensor:
        """A step, named as the module whose weights it takes.

        ``layout``: of the result; else the first operand's, with the sizes of the operation's result.
        """
        held = {local: known for local, known in weights.items() if known is not None}
        name = self._named(held)
        values = {f"{name}.{local}": weight_array(known.name or local, known.values) for local, known in held.items()}
        place = self._step(name, layer, [each.place for each in inputs], values)
        return Tensor(place, inputs[0].layout.resized(self.shape) if layout is None else layout)

    def parameter(self, known: Known, like: Layout) -> int:
        """The place of what depends on no input, so that it broadcasts with tensors of this layout."""
        values = known.values
        missing = len(like.shape) - values.ndim
        if missing < 0:
            raise refused("it has more dimensions than the tensor that it meets", "reshape it before")
        sizes = [*(1,) * missing, *values.shape]
        own = sizes[like.axis]
        whole = like.before * like.after
        if own not in (1, whole):
            raise refused("it differs from image to image of a batch", "use the same numbers for all images")
        parts = [n if own == whole else 1 for n in (like.before, like.after) if n != 1]
        inner = (*sizes[: like.axis], *parts, *sizes[like.axis + 1 :])
        shape = (1, *inner) if missing < like.axis + 1 or parts else tuple(values.shape)
        array = weight_array(known.name or "a constant", values)
        name = self._fresh(known.name or self._node.name)
        return self._step(name, f.Parameter(shape), [], {name: array.reshape(shape)})

    def reshaped(self, tensor: Tensor, shape: Shape) -> Tensor:
        """The same elements in the same order."""
        layout = tensor.layout.reshaped(shape, self.batch)
        if layout.inner == tensor.layout.inner:
            return Tensor(tensor.place, layout)
        return self.add(f.Reshape(layout.inner), tensor, layout=layout)

    def permuted(self, tensor: Tensor, order: Sequence[int]) -> Tensor:
        """Axes in another order."""
        layout, dims = tensor.layout.permuted(order)
        if dims == tuple(range(len(dims))):
            return Tensor(tensor.place, layout)
        return self.add(f.Permute(dims), tensor, layout=layout)

    # -- names ---------------------------------------------------------------------------------------------------------

    def _named(self, weights: Mapping[str, Known]) -> str:
        """The path of the module whose weights these are, if they are one module's; else that which does it."""
        paths = {known.name.rpartition(".")[0] if known.name else "" for known in weights.values()}
        named = all(known.name.rpartition(".")[2] == local for local, known in weights.items())
        if weights and named and len(paths) == 1:
            return self._fresh(paths.pop() or "0")
        path, _ = self._module_of(self._node)
        return self._fresh(f"{path}.{self._node.name}" if path else self._node.name)

    def _fresh(self, said: str) -> str:
        name = plain = _OWN.sub("_", said).strip("_.") or "step"
        number = 1
        while name in self._names or any(taken.startswith(f"{name}.") for taken in self.weights):
            name, number = f"{plain}_{number}", number + 1
        self._names.add(name)
        return name

    def _step(self, name: str, layer: Layer, inputs: list[int], weights: Mapping[str, Array]) -> int:
        self.sources.setdefault(name, self._source)
        self.weights.update(weights)
        self.steps.append(Step(name, layer, tuple(inputs)))  # type: ignore[arg-type]
        return len(self.steps)

    def _module_of(self, node: fx.Node) -> tuple[str, str]:
        """The innermost module in whose forward it is: its path and its class's name."""
        stack = list(node.meta.get("nn_module_stack", {}).values())
        path, kind = stack[-1] if stack else ("", "")
        return str(path), str(kind).rpartition(".")[2].rstrip("'>")

    def _resolved(self, argument: Any) -> Any:
        if isinstance(argument, fx.Node):
            value = self._values[argument]
            if value is _LOST:
                raise _LostError
            return value
        if isinstance(argument, (tuple, list)):
            return [self._resolved(each) for each in argument]
        if isinstance(argument, dict):
            return {key: self._resolved(each) for key, each in argument.items()}
        return argument


def _feeds_softmax(node: fx.Node) -> bool:
    return bool(node.users) and all(
        name_of(user) in _SOFTMAX or (name_of(user) in _PAST and _feeds_softmax(user)) for user in node.users
    )


def _flat(argument: Any) -> list[Any]:
    if isinstance(argument, (Tensor, Known)):
        return [argument]
    if isinstance(argument, (tuple, list)):
        return [inner for each in argument for inner in _flat(each)]
    return _flat(list(argument.values())) if isinstance(argument, dict) else [argument]


def _plain(argument: Any) -> Any:
    if isinstance(argument, Known):
        return argument.values
    return [_plain(each) for each in argument] if isinstance(argument, list) else argument


def _source_of(node: fx.Node) -> str:
    """The innermost line of forward that is not torch's own."""
    frames = _FRAME.findall(node.meta.get("stack_trace") or "")
    own = [frame for frame in frames if "/torch/" not in frame[0]] or frames
    return line_of(own[-1][0], int(own[-1][1])) if own else ""


def numbers(known: Known) -> Array:
    """Of a constant, float64."""
    return np.asarray(known.values.detach().to("cpu", torch.float64).numpy())
