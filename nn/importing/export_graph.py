"""What torch.export makes of a module, to an architecture and its weights, operation by operation.  Needs torch.

Python is gone from it, and so is everything that a trace of ``forward`` stumbles on: what is left are torch's own
operations on tensors of known sizes.  What depends on no input is computed here, and becomes a weight.
"""

from __future__ import annotations

import contextlib
import logging
import math
import operator
import re
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

import torch
from torch import fx, nn
from torch.utils._pytree import keystr, tree_flatten_with_path, tree_unflatten

from mpc.tensor_type import Shape
from nn.activations import Interval
from nn.importing.batch_layout import BATCHES, Layout, without_batch
from nn.importing.blockers import SMOOTH, Blocker, line_of, refused
from nn.importing.building import Building, Known, Tensor
from nn.importing.export_aliases import OF_SIZES, is_clear, name_of
from nn.importing.export_tokens import as_numbers, of_tokens, vocabulary
from nn.importing.remedies import not_here
from nn.importing.tokens import Tokens
from nn.importing.torch_graph import Converted
from nn.importing.torch_modules import weight_array
from nn.inputs import Result
from nn.layer import Array
from nn.norms import Normalize
from nn.parts import Part

_FRAME = re.compile(r'File "([^"]+)", line (\d+)')


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
    for name in (
        "add",
        "masked_fill",
        "where",
        "view",
        "reshape",
        "flatten",
        "to",
        "_to_copy",
        "clone",
        "dropout",
        "unsqueeze",
        "squeeze",
        "expand",
        "slice",
        "select",
    )
)

Operator = Callable[..., Any]


def exported(
    module: nn.Module,
    example: torch.Tensor | Mapping[str, torch.Tensor],
    operators: Mapping[str, Operator],
    interval: Interval | None,
) -> Converted | None:
    """A module's layers and weights, and all that has none; None if torch.export cannot follow it, or what it changes.

    ``example``: a batch of inputs, or of each of several inputs, by name.  torch runs nothing of it: sizes alone go
    through ``forward``.
    """
    given = [example] if isinstance(example, torch.Tensor) else list(example.values())
    sizes = {n for tensor in (*module.parameters(), *module.buffers(), *given) for n in tensor.shape}
    batch = next((p for p in BATCHES if all(n % p for n in sizes if n)), None)
    if batch is None:
        return None
    try:
        with warnings.catch_warnings(), _unlogged(), torch.no_grad():
            warnings.simplefilter("ignore")
            # Memory that nobody touches.
            images = [torch.empty((batch, *each.shape[1:]), dtype=each.dtype) for each in given]
            by_name = {} if isinstance(example, torch.Tensor) else dict(zip(example, images, strict=True))
            program = torch.export.export(module, () if by_name else tuple(images), by_name)
            taken = [str(each) for each in program.graph_signature.user_inputs]
            if not is_clear(program.graph, taken):
                return None
            program = program.run_decompositions(_taken_apart(program, operators))
    except Exception:  # noqa: BLE001 - whatever forward, or torch of it, raises
        return None
    graph = Graph(program, batch, operators, interval)
    graph.walk()
    several = not isinstance(example, torch.Tensor)
    takes = graph.inputs if several or any(graph.inputs.values()) else {}
    return Converted(
        tuple(graph.steps),
        graph.weights,
        graph.sources,
        graph.blockers,
        takes=takes,
        results=graph.results,
        origins=graph.origins,
    )


def _memory(tensor: torch.Tensor) -> int:
    """Where its numbers lie, the same for views."""
    return tensor.untyped_storage().data_ptr()


def _taken_apart(program: Any, operators: Mapping[str, Operator]) -> dict[Any, Callable[..., Any]]:
    """What operations that are not known are made of, where torch says it; nothing for those that are known."""
    known = torch.export.default_decompositions()
    table: dict[Any, Callable[..., Any]] = {}
    for node in program.graph.nodes:
        if isinstance(node.target, torch._ops.OpOverload) and name_of(node) not in operators and node.target in known:
            table[node.target] = known[node.target]
    return table


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


class Graph(Building):
    """Steps and weights, as far as it has been walked; operators ask it for operands, and add to it."""

    def __init__(self, program: Any, batch: int, operators: Mapping[str, Operator], interval: Interval | None) -> None:
        super().__init__(batch)
        self.interval = interval
        """Where activations are approximated, if that was said."""
        self.blockers: list[Blocker] = []
        self.inputs: dict[str, int] = {}
        """By name: how many tokens there are, of those that are looked up; 0 for numbers."""
        self.results: tuple[Result, ...] = ()
        """Of several: they are a row, one after the other."""
        self._start = 0
        self._behind: Shape = ()
        self._program = program
        self._operators = operators
        self._values: dict[fx.Node, Any] = {}
        self._origins: dict[int, str] = {}
        """Of memory of the network's own, the first name of a tensor there."""
        self._node: fx.Node
        self._source = ""

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
        taken = [n for n in self._program.graph.nodes if n.op == "placeholder" and n.name in signature.user_inputs]
        self.inputs = {node.name: vocabulary(node) for node in taken}
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
            values = (self._program.constants[name] if found is None else found).detach()
            self._origins.setdefault(_memory(values), name)
            return Known(values, name)
        if node.name in constants:
            return Known(self._program.constants[constants[node.name]].detach())
        shape, tokens = tuple(node.meta["val"].shape), self.inputs[node.name]
        whole = Layout((*shape, tokens) if tokens else shape, 0, 1, 1)
        tensor = Tensor(0, whole)
        if len(self.inputs) > 1:
            # Its part of a row.
            count = math.prod(whole.inner)
            row = Layout((self.batch, count), 0, 1, 1)
            tensor = self.add(Part(((self._start, 1, count),)), tensor, layout=row)
            tensor, self._start = self.laid_out(tensor, whole), self._start + count
        return Tokens(tensor, torch.arange(tokens)) if tokens else tensor

    def origin(self, known: Known) -> str:
        return self._origins.get(_memory(known.values), "")

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
        if name_of(node) in OF_SIZES and isinstance(args[0], Tensor | Tokens):
            layout = args[0].layout
            sizes = without_batch(layout.shape, self.batch)
            args[0] = Known(torch.empty(sizes, dtype=node.all_input_nodes[0].meta["val"].dtype))  # type: ignore[call-overload]
        if any(isinstance(each, Tokens) for each in _flat((args, kwargs))):
            found = of_tokens(self, node, args, kwargs)
            if found is not None:
                return found
            args, kwargs = (as_numbers(self, each) for each in (args, kwargs))
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
        if result is None:
            return None  # an assertion, which has held
        if not isinstance(result, torch.Tensor):
            return [Known(each) if isinstance(each, torch.Tensor) else each for each in result]
        if tuple(result.shape) != tuple(without_batch(tuple(self.shape), self.batch)):  # type: ignore[arg-type]
            raise refused("its sizes depend on the batch's", "make what depends on no input without its sizes")
        return Known(result)

    def _ended(self, node: fx.Node) -> None:
        """The result is the last step's, and has the batch first; several are joined to rows."""
        if self.blockers:
            return
        returned: Any = node.args[0]
        found = {}
        for name, each in zip(self._result_names(len(returned)), returned, strict=True):
            value = self._values[each] if isinstance(each, fx.Node) else each
            if value is not None:
                found[name] = as_numbers(self, value)
        for name, result in found.items() or [("", None)]:
            which = f"its result {name!r}" if len(found) > 1 else "its result"
            remedy = "wrap it in a module whose forward returns what is wanted, with the batch first"
            if not isinstance(result, Tensor):
                reason = f"{which} does not depend on its input"
                self.blockers.append(Blocker("the result of forward", reason, remedy))
            elif not result.layout.is_plain:
                reason = f"{which} has the batch in dimension {result.layout.axis}"
                self.blockers.append(Blocker("the result of forward", reason, remedy))
        if self.blockers:
            return
        self.results = self.ended(list(found.items()))

    def _result_names(self, count: int) -> list[str]:
        """Of all that forward returns, in the order of the program's results: keys, attributes and places."""
        spec = self._program.call_spec.out_spec
        paths, _ = tree_flatten_with_path(tree_unflatten(list(range(count)), spec))
        return [".".join(re.findall(r"\w+", keystr(path))) or "result" for path, _ in paths]

    # -- what operators ask for ----------------------------------------------------------------------------------------

    @property
    def shape(self) -> Shape:
        """Of what the operation gives, for the batch that was looked at."""
        return (*self._node.meta["val"].shape, *self._behind)

    def moved(self, node: fx.Node, args: list[Any], kwargs: dict[str, Any], behind: int) -> Tensor:
        """What an operation that moves numbers makes of a tensor with one more axis, the last, of this size."""
        self._behind = (behind,)
        try:
            made: Tensor = self._operators[name_of(node)](self, *args, **kwargs)
        finally:
            self._behind = ()
        return made

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
    def was_floating(self) -> bool:
        """Whether its first operand is of numbers that need not be whole."""
        return bool(self._node.all_input_nodes[0].meta["val"].is_floating_point())

    def is_bits(self, tensor: Tensor) -> bool:
        """Whether it is known to be of 0 and 1."""
        return any(
            isinstance(value, Tensor) and value.place == tensor.place and node.meta["val"].dtype == torch.bool
            for node, value in self._values.items()
        )

    def unit_of(self, x: Any, y: Any) -> Tensor | None:
        """x over the root of the sum of its squares, or over a number that is more, if that is what ``y`` is."""
        node: Any = self._node.args[1]
        while isinstance(node, fx.Node) and name_of(node) in ("aten.expand", "aten.expand_as", "aten.clone"):
            node = node.args[0]
        least: Any = 0.0
        if isinstance(node, fx.Node) and name_of(node) in ("aten.clamp_min", "aten.clamp") and len(node.args) == 2:
            node, least = node.args
        if not isinstance(node, fx.Node) or name_of(node) != "aten.linalg_vector_norm" or not isinstance(least, float):
            return None
        said: list[Any] = [*node.args, *(2, None, False)[len(node.args) - 1 :]]
        of, order, dims, keep = said[:4]
        if not isinstance(x, Tensor) or self._values.get(of) != x or order != 2 or not dims or not keep:
            return None
        axes = [dims] if isinstance(dims, int) else dims
        return self.add(Normalize(x.layout.places(axes), least), x, layout=x.layout)

    def feeds(self, names: Collection[str]) -> bool:
        """Whether all that it gives goes to these, past what moves numbers alone."""
        return _feeds(self._node, names)

    @property
    def feeds_softmax(self) -> bool:
        """Whether all that it gives goes to a softmax, past sums and what moves numbers alone."""
        return _feeds(self._node, _SOFTMAX)

    def array(self, known: Known) -> Array:
        return weight_array(known.name or "a constant", known.values)

    @property
    def source(self) -> str:
        return self._source

    def named(self, weights: Mapping[str, Known]) -> str:
        """The path of the module whose weights these are, if they are one module's; else that which does it."""
        paths = {known.name.rpartition(".")[0] if known.name else "" for known in weights.values()}
        own = all(known.name.rpartition(".")[2] == local for local, known in weights.items())
        if weights and own and len(paths) == 1:
            return paths.pop() or "0"
        path, _ = self._module_of(self._node)
        return f"{path}.{self._node.name}" if path else self._node.name

    # -- names ---------------------------------------------------------------------------------------------------------

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


def _feeds(node: fx.Node, names: Collection[str]) -> bool:
    waiting, seen = [node], {node}
    while waiting:
        users = waiting.pop().users
        past = {user for user in users if name_of(user) not in names}
        if not users or any(name_of(user) not in _PAST for user in past):
            return False
        waiting += past - seen
        seen |= past
    return True


def _flat(argument: Any) -> list[Any]:
    if isinstance(argument, (Tensor, Known, Tokens)):
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
