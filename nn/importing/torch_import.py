"""A torch module into a model: copied, traced, converted, and compared with its source.  Needs torch."""

from __future__ import annotations

import contextlib
import copy
import warnings
from collections.abc import Iterator, Mapping

import msgspec
import torch
from torch import fx, nn
from torch._ops import OpOverload
from torch.nn.parameter import is_lazy

from mpc.errors import ShapeError, UsageError
from mpc.tensor_type import Shape
from nn.activations import Interval
from nn.architecture import Architecture
from nn.importing.aten import OPERATORS
from nn.importing.blockers import Blocker, refuse, said_by
from nn.importing.compared import checked
from nn.importing.export_graph import exported
from nn.importing.remedies import EXPORTED
from nn.importing.samples import Samples
from nn.importing.shown import unshown
from nn.importing.torch_graph import Converted, convert
from nn.importing.torch_inputs import Given, TorchTakes
from nn.importing.torch_layers import MODULES
from nn.importing.torch_modules import OPTIONS, has_global_hooks
from nn.importing.torch_quantized import check_steps, rounds, without_rounding
from nn.importing.torch_source import TorchSource
from nn.importing.torch_trace import VALUES, WHOLE, Trace, forward_line, forward_needs, trace
from nn.importing.torch_walk import note_shapes
from nn.importing.tying import tied
from nn.interface import Interface
from nn.model import Model
from protocols import RangeWarning

_LAYERS = {kind.__name__ for kind in MODULES}

_MADE_OF = "give the torch.nn.Module that it was made of"
_NOT_FOLLOWED = (
    "torch.export does not follow it",
    "write forward with torch's functions of tensors alone: no branch on values, and no sizes that depend on them",
)
Example = torch.Tensor | Mapping[str, torch.Tensor]
"""A batch of inputs, or of each of several, by name."""
_STATELESS = (
    "keep what forward computes in variables of its own, and leave statistics out in evaluation (self.training)"
)


def load(
    module: nn.Module,
    samples: Samples | Mapping[str, Samples] | None,
    example: torch.Tensor | None,
    tolerance: float,
    interval: Interval | None,
    interface: Interface,
) -> Model:
    """``nn.from_torch`` does this; see there."""
    network = _module(module)
    if samples is not None and (interval is not None or example is not None):
        raise UsageError("samples say where activations are approximated, and what shape inputs have: give them alone")
    if not 0 < tolerance < 1:
        raise UsageError(f"a tolerance is a part of the results' scale, above 0 and below 1, not {tolerance!r}")
    if example is not None and (not isinstance(example, torch.Tensor) or example.ndim < 1):
        raise ShapeError("example_input is a tensor that holds a batch of inputs, (N, ...)")
    with _evaluating(network):
        few_bits = rounds(network) > 0
        own = without_rounding(network) if few_bits else _copy(network)
        given = None if samples is None else Given.of(samples, own)
        first: Example | None = example if given is None else given.example(_dtype(own))
        converted = _read(network, own, first, interval)
        takes = TorchTakes(given, converted.takes) if given is not None and converted.takes else None
        if takes is not None:
            shape: Shape | None = takes.input.shape
            interface = msgspec.structs.replace(interface, input=interface.input or takes.input)
        else:
            shape = tuple(first.shape[1:]) if isinstance(first, torch.Tensor) else None
        if converted.results:
            interface = msgspec.structs.replace(interface, results=converted.results)
        try:
            model = Model(Architecture(converted.steps, shape), converted.weights, interface)
            model = tied(model, converted.origins)
            folded = model.fold()
        except UsageError as error:
            raise refuse(type(network).__name__, [Blocker.of("the network", error, "", OPTIONS)]) from None
        if given is not None:
            if few_bits:
                rows = next(iter(given.arrays.values())) if takes is None else takes.samples
                check_steps(network, own, lambda each: TorchSource(network, each, takes, copied=False)(rows), tolerance)
            source = TorchSource(network, own, takes)
            if takes is not None:
                return checked(model, source, takes.samples, tolerance, converted.sources, takes.others)
            (batch,) = given.arrays.values()
            return checked(model, source, batch, tolerance, converted.sources)
    for said in unshown(folded, "from_torch(net, samples)"):
        warnings.warn(said, RangeWarning, stacklevel=3)
    return folded


def _module(module: object) -> nn.Module:
    """What is meant by it.  Raises UnsupportedError."""
    scripted = isinstance(module, torch.jit.ScriptModule | torch.jit.ScriptFunction)
    if scripted or isinstance(module, torch.export.ExportedProgram):
        what = "a scripted or traced module" if scripted else "a program of torch.export"
        raise refuse(
            type(module).__name__,
            [
                Blocker(
                    f"{type(module).__name__}",
                    f"{what} shows no forward",
                    _MADE_OF,
                )
            ],
        )
    if not isinstance(module, nn.Module):
        what = f"{type(module).__name__} is not a torch.nn.Module"
        raise refuse(
            what, [Blocker(what, "nothing else can be imported", "wrap a function in a module with a forward")]
        )
    for path, part in module.named_modules():
        if isinstance(part, fx.GraphModule) and any(isinstance(node.target, OpOverload) for node in part.graph.nodes):
            where = f"layer {path or '0'!r} is {type(part).__name__}"
            raise refuse(where, [Blocker(where, "torch.export has taken the module apart", _MADE_OF)])
    compiled = getattr(module, "_orig_mod", None)
    return compiled if isinstance(compiled, nn.Module) else module


def _read(network: nn.Module, own: nn.Module, example: Example | None, interval: Interval | None) -> Converted:
    """Steps and weights: from a trace of forward, layer by layer as it is written, or where that is not enough from
    what torch.export makes of it.  Raises what ``refuse`` makes of all that stands in the way."""
    kind = type(network).__name__
    several = isinstance(example, Mapping)
    blockers = [] if several and not has_global_hooks() else list(_of_the_whole(network))
    if blockers:
        raise refuse(kind, blockers)
    if isinstance(example, Mapping) or (example is not None and not example.is_floating_point()):
        again = exported(own, example, OPERATORS, interval)
        if again is None:
            raise refuse(kind, [Blocker(f"forward of {kind}", *_NOT_FOLLOWED, forward_line(network))])
        if again.blockers:
            raise refuse(kind, again.blockers)
        return again
    converted, followed = _traced(network, own, example, interval)
    if not converted.blockers:
        return converted
    # A branch on values is one way of two.
    by_values = any(VALUES[0] in blocker.reason for blocker in converted.blockers)
    if example is not None and not by_values and not any(map(is_lazy, own.parameters())):
        again = exported(own, example, OPERATORS, interval)
        if again is not None and not again.blockers:
            return again
        # What stands in the way of a trace alone is no matter then, nor that a layer has no counterpart as it is.
        by_program = converted.refused - _LAYERS or any(b.reason == EXPORTED[0] for b in converted.blockers)
        if again is not None and (not followed or by_program):
            converted = again
    raise refuse(kind, converted.blockers)


def _traced(
    network: nn.Module, own: nn.Module, example: torch.Tensor | None, interval: Interval | None
) -> tuple[Converted, bool]:
    """What became of a trace, and whether it came to an end."""
    kind = type(network).__name__
    blockers: list[Blocker] = []
    before = _state(own)
    with _keeping_attributes(own):
        traced = trace(own)
        changed = before != _state(own)
    if changed:
        reason = "it changes the module's own weights or buffers"
        blockers.append(Blocker(f"forward of {kind}", reason, _STATELESS, forward_line(network)))
    misfit = _note_shapes(traced, kind, example)
    converted = convert(traced, interval)
    blockers += converted.blockers
    if misfit is not None and not converted.blockers:
        blockers.append(misfit)
    return converted._replace(blockers=blockers), not traced.stopped


def _of_the_whole(network: nn.Module) -> Iterator[Blocker]:
    """What can be said before anything is traced."""
    kind = type(network).__name__
    needs, takes = forward_needs(network)
    if needs > 1 or takes == 0:
        reason = "forward takes more than one input: only one is supported" if needs > 1 else "forward takes no input"
        yield Blocker(
            kind,
            reason,
            "join inputs into one tensor, and take it apart in forward by Linear or Conv2d",
            forward_line(network),
        )
    if has_global_hooks():
        yield Blocker(kind, "every module of this process has forward hooks", "remove the global hooks of torch.nn")


def _note_shapes(traced: Trace, kind: str, example: torch.Tensor | None) -> Blocker | None:
    """Why the example cannot be run through, if it cannot."""
    if example is None or traced.stopped or any(map(is_lazy, traced.holder.parameters())):
        return None
    try:
        note_shapes(traced, example)
    except Exception as error:  # noqa: BLE001 - whatever forward raises
        reason = f"it does not take inputs of shape {tuple(example.shape)}: {said_by(error)}"
        return Blocker(
            kind,
            reason,
            "give a batch (N, ...) of what it does take",
            forward_line(traced.holder.get_submodule(WHOLE)),
            ShapeError,
        )
    return None


def _state(module: nn.Module) -> list[tuple[str, int, int]]:
    """Which tensors are its own, and how often they were changed."""
    tensors = [*module.named_parameters(), *module.named_buffers()]
    return [(name, id(t), getattr(t, "_version", 0)) for name, t in tensors]


def _copy(network: nn.Module) -> nn.Module:
    """One of its own to run and to trace; itself, where it holds what cannot be copied."""
    try:
        return copy.deepcopy(network)
    except Exception:  # noqa: BLE001 - whatever its attributes raise
        return network


def _dtype(own: nn.Module) -> torch.dtype:
    """Of the module's weights, or its buffers."""
    kinds = [t.dtype for t in (*own.parameters(), *own.buffers()) if t.is_floating_point()]
    return kinds[0] if kinds else torch.get_default_dtype()


@contextlib.contextmanager
def _keeping_attributes(module: nn.Module) -> Iterator[None]:
    """What forward leaves in its attributes meanwhile are no tensors, and nobody else may see them."""
    own = [m for m in module.modules() if not isinstance(m, torch.jit.ScriptModule)]
    tables = [table for m in own for table in (vars(m), m._parameters, m._buffers, m._modules)]
    before = [dict(table) for table in tables]
    try:
        yield
    finally:
        for table, contents in zip(tables, before, strict=True):
            table.clear()
            table.update(contents)


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
