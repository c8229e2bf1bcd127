"""A model: an architecture and its weights; and its description, which is all that others need to run it."""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, NoReturn

import msgspec
import numpy as np
import numpy.typing as npt

from mpc.cost import Cost, Wanted, cost, objective_of
from mpc.errors import EncodingError, ShapeError, UnsupportedError, UsageError
from mpc.objective import LATENCY, Objective
from mpc.operation import MAX_NAME, Input
from mpc.program import Program
from mpc.rings.field import FieldArray
from mpc.security import Security
from mpc.tensor_type import Shape
from nn.activations import Approximated
from nn.architecture import Architecture, Sequential, decode_json, full_name
from nn.folding import folded
from nn.interface import NOTHING_SAID, Interface, as_read
from nn.layer import Array, Layer, WeightArray
from nn.layers import Conv2d, Linear
from nn.lookups import Embedding
from nn.saved import OnDisk, Saved, load, save
from nn.stored import Encoded, StoredType, bits_for_depth, bits_of
from protocols.lowering.plan import plan
from protocols.operations import product as operations
from protocols.operations.product import Product
from protocols.trace.secret_tensor import SecretTensor, graph_of, leaf

FORMAT = 1


class Description(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A model without its weights: architecture, types of the stored tensors, and what it says of itself.  Public, and
    enough to run it.

    Checked when made.  Raises UnsupportedError.
    """

    architecture: Architecture
    tensors: dict[str, StoredType]
    interface: Interface = NOTHING_SAID
    training: dict[str, StoredType] = {}
    """Stored beside them, of what is being trained: what its optimizer remembers."""
    format: int = FORMAT

    def __post_init__(self) -> None:
        if self.format != FORMAT:
            raise UnsupportedError(f"description format {self.format} is not {FORMAT}: another version wrote it")
        wanted = self.architecture.stored_shapes
        found = {name: t.shape for name, t in self.tensors.items()}
        if wanted != found:
            odd = sorted(name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name))
            raise UnsupportedError(f"stored tensors do not belong to the architecture: {', '.join(odd[:3])}")
        if found.keys() & self.training.keys() or not all(
            0 < len(n) <= MAX_NAME and n.isprintable() for n in self.training
        ):
            raise UnsupportedError("what is stored for training has short names, and others than the weights")
        takes, says = self.architecture.input_shape, self.interface.input
        if takes is not None and says is not None and takes != says.shape:
            raise UnsupportedError(f"the model takes inputs of shape {takes}, and says that it takes {says.shape}")

    @property
    def input_shape(self) -> Shape | None:
        """One input's, without the batch, where it is known."""
        said = self.interface.input
        return self.architecture.input_shape if said is None else said.shape

    @property
    def stored_types(self) -> dict[str, StoredType]:
        """Of all tensors that are stored, by name."""
        return {**self.tensors, **self.training}

    def encode(self) -> bytes:
        """As JSON."""
        return msgspec.json.encode(self)

    @classmethod
    def decode(cls, data: bytes) -> Description:
        """Read and check a description from a stranger.  Raises UnsupportedError."""
        return decode_json(data, cls)

    @property
    def products(self) -> dict[str, Product]:
        """By which operation something is multiplied by a stored tensor, of those that nothing else is done with."""
        found: dict[str, Product] = {}
        for name, layer in self.architecture.layers.items():
            if isinstance(layer, Conv2d):
                found[f"{name}.weight"] = operations.Conv2d((1, 1), (0, 0), layer.groups)
            elif isinstance(layer, Linear | Embedding):
                found[f"{name}.weight"] = operations.Matmul()
        for name, held in self.architecture.tied.items():
            if found.pop(name, None) != found.get(held):
                found.pop(held, None)
        return found

    def stored(self, slot: str) -> dict[str, SecretTensor]:
        """The model's tensors as leaves of expressions, of whatever version of it is bound to ``slot``."""
        return {name: t.source(slot, name, weight=True) for name, t in self.tensors.items()}

    def forward(self, x: SecretTensor, stored: Mapping[str, SecretTensor]) -> SecretTensor:
        """The model on a secret batch (N, ...); nothing runs until the result is revealed."""
        missing = self.tensors.keys() - stored.keys()
        if missing:
            raise UsageError(f"the stored model lacks {', '.join(sorted(missing))}: upload it again")
        return self.architecture.forward(x, stored)

    def program(
        self,
        shape: Shape,
        *,
        low: float | None = None,
        high: float | None = None,
        fraction_bits: int | None = None,
        precision: int | None = None,
        objective: Objective = LATENCY,
    ) -> Program:
        """What the parties run for a batch of ``shape`` (N, ...) with values in [low, high] (``Interface.bounds``).

        ``fraction_bits`` are the batch's, as in ``Client.share`` (default: 16, of tokens 0); ``precision``, 6 to 29, is
        the number of fraction bits that is computed with (default: 16), as in ``SecretTensor.precise``.  Stored tensors
        keep theirs.
        ``objective`` is what it is planned for.  Raises RangeError for what does not fit the field.
        """
        bits = self.interface.fraction_bits if fraction_bits is None else fraction_bits
        x = leaf(Input(tuple(shape), bits, *self.interface.bounds(low, high)))
        if precision is not None:
            x = x.precise(precision)
        return plan(graph_of([self.forward(x, self.stored("model"))]), objective, checked=True)

    def check(self) -> None:
        """Raises what a first prediction would: RangeError where values do not fit the field, ShapeError where the
        results are not what it says they are, for inputs of the shape that it is known to take.
        """
        if self.input_shape is not None:
            program = self.program((1, *self.input_shape))
            if self.interface.output is not None:
                self.interface.output.check(program.nodes[program.outputs[0]].type.shape)

    def cost(
        self,
        shape: Shape,
        parties: int = 2,
        security: Security = Security.SEMI_HONEST,
        objective: Wanted = "latency",
        **options: Any,
    ) -> Cost:
        """Rounds and bytes of one prediction of a batch of ``shape``; ``objective`` as for a client, options as for
        ``program``."""
        planned = self.program(shape, objective=objective_of(objective, security), **options)
        return cost(planned, parties, security)


class Model:
    """A network whose weights this process knows.

    ``weights`` are arrays under torch's names and in torch's layout (``conv1.weight`` ...); without them,
    give them later by ``load_state_dict``.  ``interface`` is what it says of itself to whoever uses it.  Raises
    UnsupportedError, ShapeError or EncodingError naming the weight.
    """

    def __init__(
        self,
        architecture: Architecture | Sequential,
        weights: Mapping[str, npt.ArrayLike] | None = None,
        interface: Interface = NOTHING_SAID,
    ) -> None:
        self.architecture = _architecture(architecture)
        self.interface = as_read(interface)
        self._weights: Mapping[str, Array] | None = None
        if weights is not None or not self.architecture.parameters:
            self.load_state_dict(weights or {})

    def __call__(self, x: object) -> NoReturn:
        raise UsageError(
            "a model computes on secrets once its weights are: remote = client.upload(model, name), then remote(x);"
            " model.plain(x) is what it makes of public numbers"
        )

    def load_state_dict(self, weights: Mapping[str, npt.ArrayLike]) -> Model:
        """Take these weights, all of them and no others; returns the model."""
        if not isinstance(weights, Mapping):
            raise UsageError(f"weights are arrays by name, as net.state_dict() has them, not {type(weights).__name__}")
        wanted = self.architecture.parameters
        if self.architecture.tied.keys() & weights.keys():
            weights = _once(self.architecture.tied, weights)
        given = {name for name in weights if not name.endswith("num_batches_tracked")}
        for problem, names in (
            ("lack", wanted.keys() - given),
            ("have unknown", given - wanted.keys()),
        ):
            if names:
                raise UsageError(f"the weights {problem} {', '.join(sorted(names))}")
        if isinstance(weights, OnDisk) and weights.shapes == wanted:
            self._weights = weights
        else:
            self._weights = {name: _float_array(name, weights[name], shape) for name, shape in wanted.items()}
        self.__dict__.pop("description", None)
        return self

    def state_dict(self) -> dict[str, Array]:
        """The weights, float64, under torch's names and in torch's layout; what is tied under each of its names."""
        return {**self.weights, **{name: self.weights[held] for name, held in self.architecture.tied.items()}}

    @property
    def weights(self) -> Mapping[str, Array]:
        """By name, float64; of a large model that was loaded, each is read when it is asked for.  Raises UsageError
        without any."""
        if self._weights is None:
            raise UsageError("the model has no weights yet: call load_state_dict")
        return self._weights

    def plain(self, x: npt.ArrayLike, exact: bool = False) -> Array:
        """The model on public numbers (N, ...) in float64: with the approximations the parties evaluate, or
        ``exact``.
        """
        return self.values(x, exact)[-1]

    def values(self, x: npt.ArrayLike, exact: bool = False) -> list[Array]:
        """Every value on the way: the input, then each step's result."""
        return self.architecture.values(_float_array("the input", self.interface.encoded(x)), self.weights, exact)

    def forward(self, x: SecretTensor, stored: Mapping[str, SecretTensor]) -> SecretTensor:
        """The model on a secret batch, given its stored tensors by name."""
        return self.description.forward(x, stored)

    def stored_types(self) -> dict[str, StoredType]:
        """Types of the tensors to store, by name: public, see ``nn.stored`` for what they reveal."""
        return self.description.tensors

    def encode(self) -> Mapping[str, FieldArray]:
        """The tensors to store as field elements, by name: secret, and each made when it is asked for."""
        architecture, weights = self.architecture, self.weights

        def of(name: str) -> WeightArray:
            return architecture.tensors_of(architecture.owner(name), weights)[name]

        return Encoded(of, self.stored_types())

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write all of it, weights included, to a file in safetensors.  Raises ConfigurationError, DiskFull."""
        save(Path(path), Saved(self.architecture, self.interface), self.weights)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Model:
        """The model that ``save`` wrote.  Raises ConfigurationError for what is none; runs nothing of what it reads."""
        saved, weights = load(Path(path))
        return cls(saved.architecture, weights, saved.interface)

    @functools.cached_property
    def description(self) -> Description:
        """What others may know: everything but the weights.  Fits that had to be found are in it."""
        layers = self.architecture.layers
        more = more_bits(layers.values())
        tied = self.architecture.tied_tensors(self.weights)
        # What serves several has the digits of the one that wants most.
        bits = {name: max(bits_of(array, more) for array in arrays) for name, arrays in tied.items()}
        types = {
            name: StoredType.of(array._replace(bits=bits.get(name, array.bits)), name, more)
            for layer in layers
            for name, array in self.architecture.tensors_of(layer, self.weights).items()
        }
        return Description(self.architecture.settled, types, self.interface)

    def describe(self) -> bytes:
        """The description as JSON; ``Description.decode`` reads it."""
        return self.description.encode()

    def cost(self, shape: Shape, parties: int = 2, security: Security = Security.SEMI_HONEST, **options: Any) -> Cost:
        """Rounds and bytes of one prediction of a batch of ``shape`` (N, ...); options as ``Description.cost``'s."""
        return self.description.cost(shape, parties, security, **options)

    def fold(self) -> Model:
        """The same function without the BatchNorms that follow a Linear or a convolution of their own.

        After a Linear of (N, C, L) a BatchNorm1d stays: its channels are not the Linear's outputs.  Where neither an
        ``input_shape`` nor the layers before say which it is, it is taken to be of (N, C), and refuses all else.
        """
        architecture, weights = folded(self.architecture, self.weights)
        return self if architecture is self.architecture else Model(architecture, weights, self.interface)

    def summary(self, shape: Shape, parties: int = 2) -> str:
        """A table for a batch of ``shape``: each layer's weights, rounds, and elements opened and dealt."""
        total = self.cost(shape, parties)
        rows: list[tuple[str, ...]] = [("layer", "kind", "weights", "rounds", "opened", "dealt")]
        for name, layer in self.architecture.layers.items():
            own = (s for local, s in layer.parameters.items() if full_name(name, local) not in self.architecture.tied)
            weights = sum(map(math.prod, own))
            spent = total.layers.get(name)
            figures = (spent.rounds, spent.opened, spent.dealt) if spent else (0, 0, 0)
            rows.append((name, type(layer).__name__, f"{weights:,}", *(f"{n:,}" for n in figures)))
        widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
        lines = [
            "  ".join(c.ljust(w) if i < 2 else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True)))
            for row in rows
        ]
        return "\n".join([*lines, str(total)])

    def __repr__(self) -> str:
        return repr(self.architecture).replace("Architecture(", "Model(", 1)


def _once(tied: Mapping[str, str], weights: Mapping[str, npt.ArrayLike]) -> dict[str, npt.ArrayLike]:
    """What is one tensor under one name.  Raises EncodingError if it is not one."""
    found = {name: each for name, each in weights.items() if name not in tied}
    for name in tied.keys() & weights.keys():
        if not np.array_equal(np.asarray(found.setdefault(tied[name], weights[name])), np.asarray(weights[name])):
            raise EncodingError(f"{name} and {tied[name]} are one tensor of the model, and differ")
    return found


def more_bits(layers: Collection[Layer]) -> int:
    """Of weights, for how deep the network is.

    The angle of a series has no room for more, nor have grouped convolutions, which lose less: they add up few
    products, of larger weights.
    """
    linear = [layer for layer in layers if isinstance(layer, Conv2d | Linear)]
    grouped = any(isinstance(layer, Conv2d) and layer.groups > 1 for layer in linear)
    return 0 if grouped or any(isinstance(layer, Approximated) for layer in layers) else bits_for_depth(len(linear))


def _architecture(layers: object) -> Architecture:
    if isinstance(layers, Sequential):
        return layers.architecture()
    if isinstance(layers, Architecture):
        return layers
    what = type(layers).__name__
    raise UsageError(f"a model is made of layers of ts.nn, ts.Sequential(...), or by ts.from_torch(net), not of {what}")


def _float_array(name: str, values: npt.ArrayLike, shape: Shape | None = None) -> Array:
    """Finite real numbers as float64; errors name them."""
    array = np.asarray(values)
    if array.dtype.kind not in "biuf":
        raise EncodingError(f"{name} must hold real numbers, not {array.dtype}")
    if shape is not None and array.shape != shape:
        raise ShapeError(f"{name} has shape {array.shape}, and the model's is {shape}")
    reals = array.astype(np.float64)
    if not np.isfinite(reals).all():
        raise EncodingError(f"{name} holds values that are not finite")
    return reals
