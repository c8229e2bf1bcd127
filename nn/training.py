"""Training as programs: so many steps, unrolled, from what is stored of a network to what is stored of it next.

What a network is while it is trained lies on the parties as a model: its weights, with as many fraction bits as updates
of them take, and beside them what its optimizer remembers.  A program reads it, and rows that it draws of data sets
(``protocols.readings.drawing``), makes some steps, and has all of it kept in its place, jointly with whoever the data
belongs to; so one program goes from the first step to the last, and each state in between predicts as it is.

*What is watched*, in every step: that what the optimizer remembers of gradients, or gradients themselves, lie in their
range, so that what is promised of their size holds; that logits lie in theirs, and what functions are applied to in
their intervals (``SecretTensor.assumed``).  Weights are, in the last step, and whenever rates and remembered gradients
may have moved them by their range since they were: a watched value costs 64 B of what is dealt (136 with MACs), and of
what is remembered half of that, but where types promise it, as of a softmax regression's velocities.  Where one has
left its range, in whichever step, nothing is kept, and the state before stays; and it may where one is nearer to an end
than a ninth of the range, or of what is remembered a fifth.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import msgspec
import numpy as np

from mpc import fixed_point
from mpc.errors import RangeError, ShapeError, UnsupportedError, UsageError
from mpc.rings.field import FieldArray
from mpc.tensor_type import Shape
from nn import digits
from nn.activations import Approximated
from nn.architecture import Architecture, full_name
from nn.interface import NOTHING_SAID, Interface
from nn.layer import Array
from nn.losses import Loss
from nn.model import Description
from nn.optimizers import SGD, Optimizer
from nn.stored import StoredType
from protocols.lowering.plan import plan
from protocols.trace import mathematics as m
from protocols.trace.gradients import grad
from protocols.trace.secret_tensor import SecretTensor, concatenate, graph_of

WEIGHTS, REMEMBERED = 8.0, 16.0
"""Ends of the ranges of weights, and of what an optimizer remembers of their gradients."""
LOGITS = 8.0
"""And of what a network gives while it is trained."""

ROUNDING = 3e-3
"""By how much, at six standard deviations, the rounding of a series may take what it stands for: of fewer digits, more
are left for weights and gradients, so that nothing has to be opened twice."""


class Batch(NamedTuple):
    """Rows of several owners' data, which go into one step: what the network takes, and what it is to give."""

    x: Sequence[SecretTensor]
    y: Sequence[SecretTensor]


class Trained(NamedTuple):
    """After some steps: what is stored of a network, by name, and the mean loss of each step's batch, before it."""

    state: dict[str, SecretTensor]
    losses: list[SecretTensor]


@dataclass(frozen=True)
class Recipe:
    """How a network is trained; ``weights``, ``remembered`` and ``logits`` are the ends of ranges around 0.

    ``only``: the layers that are trained, all of them if none is named; the others stay as they are.
    """

    architecture: Architecture
    loss: Loss
    optimizer: Optimizer
    interface: Interface = NOTHING_SAID
    weights: float = WEIGHTS
    remembered: float = REMEMBERED
    logits: float = LOGITS
    only: tuple[str, ...] = ()

    @functools.cached_property
    def shapes(self) -> dict[str, Shape]:
        """Of the weights as they are stored, by name."""
        found = self.architecture.stored_shapes
        if not found:
            raise UnsupportedError("a network without weights has nothing to train")
        return found

    @functools.cached_property
    def learnt(self) -> dict[str, Shape]:
        """Of those that are trained.  Raises UsageError for a layer that has none."""
        owners = {name: self.architecture.owner(name) for name in self.shapes}
        if unknown := set(self.only) - set(owners.values()):
            raise UsageError(
                f"there is nothing to train in {', '.join(sorted(unknown))}: layers with weights are"
                f" {', '.join(dict.fromkeys(owners.values()))}"
            )
        return {name: shape for name, shape in self.shapes.items() if not self.only or owners[name] in self.only}

    @functools.cached_property
    def _coarse(self) -> Architecture:
        """What is computed on the way there and back."""
        layers = self.architecture.layers
        layers = {
            name: msgspec.structs.replace(layer, rounding=ROUNDING) if isinstance(layer, Approximated) else layer
            for name, layer in layers.items()
        }
        steps = tuple(msgspec.structs.replace(step, layer=layers[step.name]) for step in self.architecture.steps)
        return msgspec.structs.replace(self.architecture, steps=steps)

    def after(
        self, state: Mapping[str, SecretTensor], batches: Sequence[Batch], first: int, *, watched: bool = False
    ) -> Trained:
        """What a step with each of the batches leaves, the first of which is so many steps from the start.

        ``watched``: whether all of it lies in its range, on which what is kept hangs.
        """
        names, losses, drift = self.learnt, list[SecretTensor](), 0.0
        weights = {name: state[name] for name in names}
        others = {name: state[name] for name in self.shapes if name not in names}
        beside = {name: state[name] for name in self.optimizer.slots(names)}
        for number, batch in enumerate(batches, first):
            loss, gradients = self._gradients(weights, others, batch)
            losses.append(loss)
            watch = self.remembered if watched else None
            weights, beside = self.optimizer.step(weights, beside, gradients, number, watched=watch)
            drift += self.optimizer.rate(number) * self.remembered
            if watched and (drift > self.weights or number == first + len(batches) - 1):
                weights, drift = {name: self._watched(name, w) for name, w in weights.items()}, 0.0
        return Trained({**{name: (weights | others)[name] for name in self.shapes}, **beside}, losses)

    def _gradients(
        self, weights: Mapping[str, SecretTensor], others: Mapping[str, SecretTensor], batch: Batch
    ) -> tuple[SecretTensor, dict[str, SecretTensor]]:
        """And the loss."""
        x, y = _together(batch.x), _together(batch.y)
        logits = self._coarse.forward(x, {**weights, **others}).labelled("logits").assumed(-self.logits, self.logits)
        loss = self.loss(logits, y)
        return loss, grad(loss, weights, within=self._promised)

    @property
    def _promised(self) -> float:
        """How large gradients are at most.  Of what types say that it is no larger than what is watched, nothing is."""
        sums = isinstance(self.optimizer, SGD) and self.optimizer.momentum > 0
        return self.remembered if sums else 2 * self.remembered

    def kept(self, state: Mapping[str, SecretTensor], batches: Sequence[Batch], first: int) -> Trained:
        """The same, watched: what is to be kept in place of ``state``."""
        return self.after(state, batches, first, watched=True)

    def _watched(self, name: str, w: SecretTensor) -> SecretTensor:
        return _undeclared(w).assumed(-self._end(name), self._end(name))

    def described(self, batch: Batch) -> Description:
        """What is stored, for batches of such rows.

        Raises RangeError where a step would leave other fraction bits than there are: there is no room for them.
        """
        names, bits = self.shapes, self._digits(batch)
        types = self._types(bits)
        for name, x in self.after(_state(types), [batch], 0).state.items():
            if x.type.fraction_bits != bits[name]:
                raise RangeError(
                    f"a step leaves {x.type.fraction_bits} of {bits[name]} fraction bits of {name}: give the optimizer"
                    " fewer (fraction_bits), or declare tighter ranges (weights, remembered)"
                )
        training = {name: t for name, t in types.items() if name not in names}
        weights = {name: t for name, t in types.items() if name in names}
        return Description(self.architecture.settled, weights, self.interface, training)

    def beginning(self, stored: Mapping[str, SecretTensor], description: Description) -> dict[str, SecretTensor]:
        """What is stored before the first step of a network that is stored already: its weights, as they are described
        here, and zeros beside them.  Local, but for digits that are cut.

        Raises UsageError for weights of another network; RangeError for such as may be out of their range here.
        """
        types = description.tensors
        if {n: x.shape for n, x in stored.items()} != {n: t.shape for n, t in types.items()}:
            raise UsageError("the stored network has other weights than its architecture: nothing can begin with them")
        for name, x in stored.items():
            if x.type.magnitude > self.weights:
                raise RangeError(
                    f"{name} may be up to {x.type.magnitude:g} as it is stored, and is trained in a range up to"
                    f" {self.weights:g}: give weights={x.type.magnitude:g}"
                )
        found = {name: _as(x, types[name]) for name, x in stored.items()}
        (some, *_) = stored.values()
        zero = some.reshape((some.size,))[:1] * 0.0
        return found | {name: _as(zero.broadcast_to(t.shape), t) for name, t in description.training.items()}

    def _types(self, bits: Mapping[str, int]) -> dict[str, StoredType]:
        shapes = {**self.shapes, **self.optimizer.slots(self.learnt)}
        return {n: StoredType(s, bits[n], -self._end(n), self._end(n)) for n, s in shapes.items()}

    def _digits(self, batch: Batch) -> dict[str, int]:
        """Fraction bits of all that is stored."""
        names, optimizer = self.learnt, self.optimizer
        others = dict.fromkeys(self.shapes.keys() - names.keys(), digits.CHOICES[0])
        if not isinstance(optimizer, SGD):
            beside = {slot: optimizer.slot_bits(slot) for slot in optimizer.slots(names)}
            return dict.fromkeys(names, optimizer.weight_bits) | beside | others

        def tried(bits: digits.Digits) -> digits.Tried:
            state = _state(self._types({**bits, **others}))
            own, rest = ({name: state[name] for name in some} for some in (names, others))
            _, gradients = self._gradients(own, rest, batch)
            program = plan(graph_of(list(self.after(state, [batch], 0).state.values())))
            return digits.Tried(program, {name: g.type.fraction_bits for name, g in gradients.items()})

        slots = {name: next(iter(optimizer.slots({name: shape})), None) for name, shape in names.items()}
        return digits.chosen(slots, optimizer.fraction_bits, optimizer.rate_bits, tried) | others

    def _end(self, name: str) -> float:
        return self.weights if name in self.shapes else self.remembered


class Untrained:
    """What is stored of a network before the first step, to be uploaded: its weights, and zeros beside them."""

    def __init__(self, description: Description, weights: Mapping[str, Array]) -> None:
        """``weights``, as in torch's ``state_dict``.  Raises EncodingError for one that is out of its range."""
        self._description = description
        arrays = {name: tensor.values for name, tensor in description.architecture.tensors(weights).items()}
        arrays.update({name: np.zeros(t.shape) for name, t in description.training.items()})
        self._elements = {
            name: fixed_point.encode(arrays[name], t.fraction_bits, t.low, t.high, name=name)
            for name, t in description.stored_types.items()
        }

    def encode(self) -> Mapping[str, FieldArray]:
        """The tensors to store, by name: secret."""
        return self._elements

    def describe(self) -> bytes:
        """The description as JSON."""
        return self._description.encode()


def initial(architecture: Architecture, seed: int = 0) -> dict[str, Array]:
    """Weights to begin with, as torch has them: uniform, up to 1 / sqrt of how many numbers each output is made of.

    Raises UsageError for layers that torch begins otherwise.
    """
    rng, found = np.random.default_rng(seed), {}
    for name, layer in architecture.layers.items():
        shapes = layer.parameters
        weight = shapes.get("weight", ())
        if shapes and (len(weight) < 2 or shapes.keys() - {"weight", "bias"}):
            raise UsageError(
                f"{name!r} is a {type(layer).__name__}: give a model with weights to begin with, ts.from_torch(net)"
            )
        end = 1.0 / math.sqrt(math.prod(weight[1:]) or 1)
        for local, shape in shapes.items():
            found[full_name(name, local)] = rng.uniform(-end, end, shape)
    return found


def shares(rows: Sequence[int], batch: int) -> tuple[int, ...]:
    """How many of a batch's rows are each owner's: as its rows are of all, one at least; by largest remainders.

    Raises UsageError for a batch of fewer rows than owners, or more than there are.
    """
    if not len(rows) <= batch <= sum(rows):
        raise UsageError(
            f"a batch of {batch} rows: from {len(rows)}, one of each data set, to {sum(rows)}, all there are"
        )
    exact = [batch * count / sum(rows) for count in rows]
    found = [max(1, math.floor(each)) for each in exact]
    order = sorted(range(len(rows)), key=lambda i: found[i] - exact[i])
    while sum(found) < batch:
        i = order.pop(0)
        found[i] += 1
    while sum(found) > batch:
        i = max(range(len(rows)), key=lambda i: found[i] - exact[i] if found[i] > 1 else -math.inf)
        found[i] -= 1
    return tuple(min(mine, count) for mine, count in zip(found, rows, strict=True))


def _state(types: Mapping[str, StoredType]) -> dict[str, SecretTensor]:
    return {name: t.source("training/network", name, weight=True) for name, t in types.items()}


def _together(parts: Sequence[SecretTensor]) -> SecretTensor:
    if len({x.shape[1:] for x in parts}) != 1:
        raise ShapeError(f"rows of several shapes: {', '.join(sorted({str(x.shape[1:]) for x in parts}))}")
    return parts[0] if len(parts) == 1 else concatenate(parts)


def _as(x: SecretTensor, wanted: StoredType) -> SecretTensor:
    """With the digits that are wanted, and the range: a half has one more, and so has twice as much."""
    x = x.truncate(wanted.fraction_bits)
    more = 2.0 ** (wanted.fraction_bits - x.type.fraction_bits)
    if more > 1.0:
        x = x / more * more
    return x.within(wanted.low, wanted.high)


def _undeclared(x: SecretTensor) -> SecretTensor:
    """``x`` without what was declared of it last."""
    node = x.node
    while isinstance(node.operation, m.Declare):
        (node,) = node.inputs
    return SecretTensor(node, x.label, x.precision)
