"""An ONNX file into a model: parsed, converted, and compared with onnx's own reference.  Needs onnx."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence

import msgspec
import numpy as np
import onnx
import onnx.checker
import onnx.defs
from onnx import ModelProto, TensorProto
from onnx.helper import make_tensor_value_info
from onnx.reference import ReferenceEvaluator

from mpc.errors import ConfigurationError, EncodingError, ShapeError, UsageError
from mpc.tensor_type import Shape
from nn.architecture import MAX_STEPS, Architecture
from nn.importing.blockers import Blocker, refuse, refused, said_by
from nn.importing.compared import checked
from nn.importing.onnx_file import READ, Signature, Taken, said, signature
from nn.importing.onnx_graph import Graph, Input
from nn.importing.onnx_operators import OPERATORS
from nn.importing.onnx_quantized import STEPS
from nn.importing.onnx_reference import evaluator
from nn.importing.onnx_tokens import vocabulary
from nn.importing.samples import Samples, read_samples
from nn.importing.shown import unshown
from nn.importing.sklearn_trees import Read, check_grid
from nn.importing.takes import Takes, check_as_many
from nn.importing.tying import tied
from nn.interface import Interface
from nn.layer import Array
from nn.model import Model
from protocols import PrecisionWarning, RangeWarning

PRIMES = (101, 103, 107, 109, 113, 127, 131, 137, 139, 149, 151, 157, 163, 167, 173, 179, 181, 191, 193, 197, 199)
"""Inputs in a batch that sizes are followed for: few, since what is computed of sizes is made."""

FEW = 32
"""Samples that tell how large what is rounded is."""

OLDEST = 13
"""The opset since which softmaxes are of one axis."""

FIRST = 7
SINCE_FIRST = frozenset(
    ("Add", "Cast", "Concat", "Div", "Identity", "MatMul", "Mul", "Reshape", "Sigmoid", "Sub", "Tanh", "ZipMap")
)
"""What converters of trees write in older opsets, and means the same since that one."""


def load(
    data: bytes, name: str, samples: Samples | Mapping[str, Samples] | None, tolerance: float, interface: Interface
) -> Model:
    """``nn.from_onnx`` does this; see there."""
    if not 0 < tolerance < 1:
        raise UsageError(f"a tolerance is a part of the results' scale, above 0 and below 1, not {tolerance!r}")
    proto = _without_dicts(_parsed(data, name))
    try:
        given = _checked(proto)
    except UsageError as error:
        raise refuse(name, [Blocker.of(name, error, "the whole file", READ)]) from None
    arrays = None if samples is None else _read(given, samples)
    shapes = [each.shape if arrays is None else arrays[each.name].shape[1:] for each in given.inputs]
    stored = {t.name: t for t in proto.graph.initializer}
    inputs, blockers = list[Input](), list[Blocker]()
    for each, shape in zip(given.inputs, shapes, strict=True):
        if shape is None:
            reason = "it leaves sizes of its input open, which layers depend on"
            remedy = "give from_onnx samples, or export it with fixed sizes"
            blockers.append(Blocker(name, reason, remedy, f"input {said(each.name)!r}"))
            continue
        tokens = vocabulary(each.name, proto.graph.node, stored) if each.is_whole else 0
        inputs.append(Input(each, shape, tokens))
    takes = None
    if len(given.inputs) > 1 or given.inputs[0].is_whole:
        if arrays is None:
            reason = "nothing says what its inputs hold, of which there are several, or which are whole numbers"
            blockers.append(Blocker(name, reason, "give from_onnx samples, of several a dict by name", "its inputs"))
        elif not blockers:
            whole = frozenset(each.name for each in given.inputs if each.is_whole)
            takes = Takes(arrays, {each.taken.name: each.tokens for each in inputs}, whole)
    if blockers:
        raise refuse(name, blockers)
    if takes is not None:
        interface = msgspec.structs.replace(interface, input=interface.input or takes.input)
    shape = inputs[0].shape if takes is None else takes.input.shape
    graph = Graph(proto, given.batch or _prime(proto, [(*each.shape, each.tokens) for each in inputs]))
    if arrays is not None and takes is None and len(shape) == 1:
        graph.read = Read(arrays[given.inputs[0].name])
    blockers = graph.walk(inputs, OPERATORS, given.outputs)
    if blockers:
        raise refuse(name, blockers)
    interface = msgspec.structs.replace(interface, results=graph.outputs) if graph.outputs else interface
    try:
        onnx.checker.check_model(proto)
        reference = evaluator(proto)
    except Exception as error:  # noqa: BLE001 - whatever the checker raises of a stranger's file
        raise ConfigurationError(f"{name} is no valid ONNX: {said_by(error)}") from None
    try:
        model = tied(Model(Architecture(tuple(graph.steps), shape), graph.weights, interface), graph.origins)
        folded = model.fold()
    except UsageError as error:
        raise refuse(name, [Blocker.of(name, error, "the whole file", READ)]) from None
    if arrays is not None:
        read = graph.read if graph.has_trees else None
        source = OnnxSource(name, reference, given, graph.results, takes, read, rounds=bool(graph.roundings))
        batch = arrays[given.inputs[0].name] if takes is None else takes.samples
        if read is not None:
            check_grid(source.results(batch), source(batch), tolerance)
        if graph.roundings:
            tolerance = _of_few_bits(model, graph.roundings, batch, tolerance)
        return checked(model, source, batch, tolerance, graph.sources, None if takes is None else takes.others)
    for sentence in unshown(folded, "from_onnx(file, samples)"):
        warnings.warn(sentence, RangeWarning, stacklevel=3)
    return folded


def _prime(proto: ModelProto, shapes: Sequence[Shape]) -> int:
    """How many inputs sizes are followed for: no size of the file's is a multiple of it."""
    sizes = {*(n for shape in shapes for n in shape), *(n for t in proto.graph.initializer for n in t.dims)}
    return next((p for p in PRIMES if all(n % p for n in sizes if n)), PRIMES[-1])


def _of_few_bits(model: Model, roundings: Mapping[int, float], samples: Array, tolerance: float) -> float:
    """By how much results may differ: for each time that the file rounds, a step, in parts of what is rounded."""
    values = model.values(samples[:FEW], exact=True)
    steps = [
        step / (float(np.abs(values[place]).max()) or 1.0) if step else 1 / STEPS for place, step in roundings.items()
    ]
    wider = max(tolerance, min(0.5, sum(steps)))
    warnings.warn(
        f"the file rounds {len(steps)} times to numbers of few bits, and the model computes without: by their steps"
        f" they are held to {wider:.2g} of the results' scale",
        PrecisionWarning,
        stacklevel=4,
    )
    return wider


class OnnxSource:
    """The graph, as onnx's reference evaluates it, in NumPy: only once every node is one that we have read."""

    seen = "export the network again, and report it if it still differs: the file was not read as it is meant"

    def __init__(
        self,
        name: str,
        reference: ReferenceEvaluator,
        given: Signature,
        results: Mapping[str, str],
        takes: Takes | None,
        read: Read | None,
        *,
        rounds: bool,
    ) -> None:
        """``takes``: what a model takes, if not the file's one input; ``read``: what trees, which jump, take rows for
        once they are rounded as inputs are; ``rounds``: whether the file rounds what it computes to few bits."""
        self._rounds = rounds
        self.kind = name
        self.line = f"input {', '.join(repr(said(each.name)) for each in given.inputs)}"
        self._takes = takes
        self._read = read
        self._given = given
        self._results = results
        self._evaluator = reference

    @property
    def rounding(self) -> float | None:
        """None for what has few bits."""
        kinds = [each.dtype for each in self._given.inputs if not each.is_whole] or [np.float32]
        return None if self._rounds else {np.float64: 1e-6, np.float32: 1e-3}.get(kinds[0])

    def __call__(self, x: Array) -> Array:
        """Its results.  Raises ShapeError for inputs that it does not take."""
        return self.results(x if self._read is None else self._read(x))

    def results(self, x: Array) -> Array:
        """The same of numbers that are not rounded."""
        names = self._given.outputs
        found = self._values(x, set(names), intermediate=False)
        if len(names) == 1:
            return found[names[0]]
        return np.concatenate([found[name].reshape(len(x), -1) for name in names], axis=1)

    def told_apart(self, x: Array) -> tuple[int, ...]:
        return ()

    def layers(self, x: Array, names: set[str]) -> dict[str, list[Array]]:
        """What the nodes that steps of these names were made of give."""
        values = self._values(
            x if self._read is None else self._read(x), set(self._results.values()), intermediate=True
        )
        return {step: [values[name]] for step, name in self._results.items() if step in names}

    def _values(self, x: Array, names: set[str], intermediate: bool) -> dict[str, Array]:
        """In batches of the size that the file asks for."""
        each = self._given.batch or len(x)
        padded = np.concatenate([x, np.repeat(x[-1:], -len(x) % each, axis=0)])
        arrays = {self._given.inputs[0].name: padded} if self._takes is None else self._takes.given(padded)
        found: dict[str, list[Array]] = {name: [] for name in names}
        try:
            for i in range(0, len(padded), each):
                fed = {own.name: arrays[own.name][i : i + each].astype(own.dtype) for own in self._given.inputs}
                run = self._evaluator.run(None, fed, intermediate=intermediate)
                part = dict(zip(self._evaluator.output_names, run, strict=True)) if isinstance(run, list) else run
                for name in names:
                    found[name].append(np.asarray(part[name], np.float64))
            return {name: np.concatenate(parts)[: len(x)] for name, parts in found.items()}
        except Exception as error:  # noqa: BLE001 - whatever the reference raises
            reason = f"onnx's reference does not evaluate it on inputs of shape {x.shape}: {said_by(error)}"
            remedy = "give a batch (N, ...) of what it does take, or export it without what the reference lacks"
            raise refuse(self.kind, [Blocker(self.kind, reason, remedy, self.line, ShapeError)]) from None


def _parsed(data: bytes, name: str) -> ModelProto:
    try:
        return onnx.load_model_from_string(data)
    except Exception as error:  # noqa: BLE001 - whatever protobuf raises of a stranger's bytes
        raise ConfigurationError(f"{name} cannot be read as ONNX: {said_by(error)}") from None


def _without_dicts(proto: ModelProto) -> ModelProto:
    """With rows of numbers in the place of outputs that are dicts of them by class."""
    made = {node.output[0]: node for node in proto.graph.node if node.op_type == "ZipMap" and node.output}
    for output in proto.graph.output:
        node = made.get(output.name)
        if node is not None and node.input:
            output.CopyFrom(make_tensor_value_info(node.input[0], TensorProto.FLOAT, [None, None]))
            proto.graph.node.remove(node)
    return proto


def _checked(proto: ModelProto) -> Signature:
    """What it takes and gives; all that is not the nodes' is as it should be.  Raises UsageError."""
    if not proto.HasField("graph") or not proto.graph.node:
        raise refused("it holds no graph with nodes", "export the network again")
    versions = sorted({o.version for o in proto.opset_import if o.domain in ("", "ai.onnx")})  # some say it twice
    if any(o.domain == "ai.onnx.ml" and o.version > 5 for o in proto.opset_import):
        raise refused("its version of ai.onnx.ml is unknown", "export it with version 5 or older")
    newest = onnx.defs.onnx_opset_version()
    plain = {node.op_type for node in proto.graph.node if node.domain in ("", "ai.onnx")}
    oldest = FIRST if plain <= SINCE_FIRST else OLDEST
    if (versions or plain) and (len(versions) != 1 or not oldest <= versions[0] <= newest):
        said = ", ".join(map(str, versions[:3])) or "none"
        raise refused(f"its opset is {said}", f"export it with opset_version={OLDEST} to {newest}")
    if proto.functions or proto.training_info:
        raise refused("it brings functions or training of its own", "export it with them written out")
    if len(proto.graph.node) > 4 * MAX_STEPS:
        raise refused(f"it has {len(proto.graph.node)} nodes", f"make do with {MAX_STEPS} layers")
    return signature(proto.graph)


def _read(given: Signature, samples: Samples | Mapping[str, Samples]) -> dict[str, Array]:
    """Samples of each input, by name.  Raises ShapeError if the file takes others."""
    names = [each.name for each in given.inputs]
    if not isinstance(samples, Mapping):
        if len(names) > 1:
            raise ShapeError(f"samples of several inputs are a dict by name: {', '.join(map(said, names))}")
        samples = {names[0]: samples}
    if set(samples) != set(names):
        raise ShapeError(f"the file takes inputs called {', '.join(map(said, names))}: give samples of each, by name")
    arrays = {each.name: read_samples(samples[each.name]) for each in given.inputs}
    check_as_many(arrays)
    for each in given.inputs:
        _check_sizes(each, arrays[each.name])
    return arrays


def _check_sizes(given: Taken, array: Array) -> None:
    """Raises ShapeError if it takes others, EncodingError if it takes whole numbers."""
    wanted = given.sizes
    if len(wanted) != array.ndim or any(n not in (None, m) for n, m in zip(wanted[1:], array.shape[1:], strict=True)):
        shape = ", ".join("?" if n is None else str(n) for n in wanted)
        raise ShapeError(f"the file takes inputs of shape ({shape}), and samples have shape {array.shape}")
    if given.is_whole and not (np.rint(array) == array).all():
        raise EncodingError(f"the file's input {said(given.name)!r} takes whole numbers, and samples are others")
