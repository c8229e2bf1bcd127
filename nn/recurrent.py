"""RNN, LSTM and GRU, unrolled over a sequence: (N, T, features), with the batch first, from a state of zeros.

What is multiplied with the inputs is one product for all steps.  Each step takes the rounds of its activations, which
are right on any range, and of two products; layers wait for each other, directions do not.
"""

from __future__ import annotations

from typing import Any, ClassVar, Final, Literal

import numpy as np

from mpc.errors import ShapeError, UnsupportedError
from mpc.tensor_type import Shape
from nn.activations import Sigmoid, Tanh
from nn.layer import Array, Arrays, Layer, Secrets, WeightArray, check_size, check_weights
from protocols.trace.secret_tensor import SecretTensor, concatenate

MOST_LAYERS: Final = 64
"""On top of each other: each has weights, and rounds, of its own."""


class _Recurrent(Layer, frozen=True):
    """What they have in common.

    The result is (N, T, D H): what the last layer gives at each step, of D directions beside each other.  With
    ``states`` come, as further steps, the last hidden state of each layer, and after them the cells' of an LSTM.
    """

    gates: ClassVar[int]
    has_cell: ClassVar[bool] = False

    input_size: int
    hidden_size: int
    num_layers: int = 1
    bias: bool = True
    bidirectional: bool = False
    states: bool = False

    def __post_init__(self) -> None:
        for name in ("input_size", "hidden_size", "num_layers"):
            check_size(name, getattr(self, name))
        if self.num_layers > MOST_LAYERS:
            raise UnsupportedError(f"{self.num_layers} layers on top of each other: at most {MOST_LAYERS}")
        check_weights((self.gates * self.hidden_size, max(self.input_size, 2 * self.hidden_size)))

    @property
    def _directions(self) -> tuple[str, ...]:
        return ("", "_reverse") if self.bidirectional else ("",)

    @property
    def parameters(self) -> dict[str, Shape]:
        found: dict[str, Shape] = {}
        rows = self.gates * self.hidden_size
        for layer in range(self.num_layers):
            width = self.hidden_size * len(self._directions) if layer else self.input_size
            for direction in self._directions:
                of = f"l{layer}{direction}"
                found |= {f"weight_ih_{of}": (rows, width), f"weight_hh_{of}": (rows, self.hidden_size)}
                if self.bias:
                    found |= {f"bias_ih_{of}": (rows,), f"bias_hh_{of}": (rows,)}
        return found

    def tensors(self, weights: Arrays) -> dict[str, WeightArray]:
        return {
            name: WeightArray(w.T, contracted=(0,)) if name.startswith("weight") else WeightArray(w)
            for name, w in weights.items()
        }

    def forward(self, *inputs: SecretTensor, weights: Secrets) -> SecretTensor:
        y: SecretTensor = self._run(inputs[0], weights, concatenate, _forward)
        return y

    def plain(self, *inputs: Array, weights: Arrays, exact: bool = False) -> Array:
        def activated(layer: Sigmoid | Tanh, x: Array) -> Array:
            return layer.plain(x, weights={}, exact=exact)

        turned = {name: w.T if name.startswith("weight") else w for name, w in weights.items()}
        return np.asarray(self._run(inputs[0], turned, np.concatenate, activated))

    def _run(self, x: Any, weights: Any, joined: Any, activated: Any) -> Any:
        if x.ndim != 3 or x.shape[2] != self.input_size or not x.shape[1]:
            wanted = f"(N, T, {self.input_size})"
            raise ShapeError(f"{type(self).__name__} takes {wanted}, not a tensor of shape {x.shape}")
        ends: list[list[Any]] = [[], []]
        for layer in range(self.num_layers):
            outputs, last = [], []
            for direction in self._directions:
                own = {
                    kind: weights[f"{kind}_l{layer}{direction}"]
                    for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
                    if self.bias or not kind.startswith("bias")
                }
                steps, state = self._along(x, own, bool(direction), activated)
                outputs.append(joined([step[:, None] for step in steps], 1))
                last.append(state)
            x = joined(outputs, 2)
            for end, values in zip(ends, zip(*last, strict=True), strict=False):
                end.append(joined(values, 1)[:, None])
        return joined([x, *ends[0], *ends[1]], 1) if self.states else x

    def _along(self, x: Any, own: Any, backwards: bool, activated: Any) -> tuple[list[Any], tuple[Any, ...]]:
        """One direction of a layer: its outputs, in the order of the inputs, and its last states."""
        given = x @ own["weight_ih"]
        if self.bias:
            given = given + own["bias_ih"]
        count = x.shape[1]
        outputs: list[Any] = [None] * count
        state: tuple[Any, ...] | None = None
        for t in reversed(range(count)) if backwards else range(count):
            recurrent = None if state is None else state[0] @ own["weight_hh"]
            if self.bias:
                recurrent = own["bias_hh"] if recurrent is None else recurrent + own["bias_hh"]
            state = self.step(given[:, t], recurrent, state, activated)
            outputs[t] = state[0]
        return outputs, state or ()

    def step(self, given: Any, recurrent: Any, state: tuple[Any, ...] | None, activated: Any) -> tuple[Any, ...]:
        """The state after one step; ``recurrent`` is None, and so is the state before it, where they are zero."""
        raise NotImplementedError

    def _gates(self, x: Any) -> list[Any]:
        """The parts of (..., gates H)."""
        return [x[..., i * self.hidden_size : (i + 1) * self.hidden_size] for i in range(self.gates)]


class RNN(_Recurrent, frozen=True):
    """tanh, or ReLU, of a sum of what comes and what was."""

    gates: ClassVar[int] = 1

    nonlinearity: Literal["tanh", "relu"] = "tanh"

    def step(self, given: Any, recurrent: Any, state: tuple[Any, ...] | None, activated: Any) -> tuple[Any, ...]:
        total = _sum(given, recurrent)
        return (activated(Tanh(), total) if self.nonlinearity == "tanh" else np.maximum(total, 0.0),)


class LSTM(_Recurrent, frozen=True):
    """Cells that gates write, keep and show."""

    gates: ClassVar[int] = 4
    has_cell: ClassVar[bool] = True

    def step(self, given: Any, recurrent: Any, state: tuple[Any, ...] | None, activated: Any) -> tuple[Any, ...]:
        write, keep, value, show = self._gates(_sum(given, recurrent))
        cell = activated(Sigmoid(), write) * activated(Tanh(), value)
        if state is not None:
            cell = cell + activated(Sigmoid(), keep) * state[1]
        return activated(Sigmoid(), show) * activated(Tanh(), cell), cell


class GRU(_Recurrent, frozen=True):
    """A state that one gate keeps, and another lets into what is new."""

    gates: ClassVar[int] = 3

    def step(self, given: Any, recurrent: Any, state: tuple[Any, ...] | None, activated: Any) -> tuple[Any, ...]:
        reset, keep, new = self._gates(given)
        if recurrent is not None:
            was = self._gates(recurrent)
            reset, keep = reset + was[0], keep + was[1]
            new = new + activated(Sigmoid(), reset) * was[2]
        new, kept = activated(Tanh(), new), activated(Sigmoid(), keep)
        return (new - kept * new,) if state is None else (new + kept * (state[0] - new),)


def _sum(x: Any, y: Any) -> Any:
    return x if y is None else x + y


def _forward(layer: Sigmoid | Tanh, x: SecretTensor) -> SecretTensor:
    return layer.forward(x, weights={})
