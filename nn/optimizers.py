"""Optimisers, named and argued as in ``torch.optim``: pure functions from parameters, state and gradients to new ones.

Nothing is stored here: who trains keeps what comes back, and hands it in at the next step.  Parameters, gradients and
state are secret tensors by name.

*Digits.*  New state has the range and the fraction bits of the old, and each parameter likewise, so that one program
serves all steps; both are declared, not compared.  Learning rates and momenta are public, and what they are encoded as
(``rate``, ``mu``) is what counts: a twin in the clear uses those.  What is rounded is rounded up or down by chance, so
that it is right on average, however small a rate is.

*Openings.*  A velocity is opened once, and a parameter never: with V' masked, W' = W - lr V' has the mask
b - lr v, which the dealer knows.  That takes parameters of as many fraction bits as V' and the rate have together
(``weight_bits``), and gradients of no more than V'; where they have more, V' is rounded, and W' is opened as well.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import msgspec

from mpc.errors import ShapeError, UnsupportedError, UsageError
from mpc.tensor_type import Shape
from nn.layer import check_finite
from nn.schedules import AnySchedule
from protocols.lowering.planner import MOST_BITS, usual_bits
from protocols.trace import mathematics as m
from protocols.trace.secret_tensor import SecretTensor

Tensors = Mapping[str, SecretTensor]
Updated = tuple[dict[str, SecretTensor], dict[str, SecretTensor]]

RATE_BITS = 8
"""Significant ones of a learning rate, ..."""
MOMENTUM_BITS = 16
"""... and fraction bits of a momentum, and of other factors that are nearly 1."""
LABEL = "update"
"""What an optimiser's operations are counted under."""


class Optimizer(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", tag=True, kw_only=True):
    """Base of all.  ``fraction_bits``: of velocities, as ``slots`` has them made."""

    lr: float
    weight_decay: float = 0.0
    max_norm: float | None = None
    schedule: AnySchedule | None = None
    fraction_bits: int = 20

    def __post_init__(self) -> None:
        check_finite("lr and weight_decay", self.lr, self.weight_decay)
        if not 0 < self.lr <= 2.0**10 or not 0 <= self.weight_decay <= 1:
            raise UnsupportedError("lr is above 0 and up to 1024, and weight_decay from 0 to 1")
        if self.max_norm is not None and not 0 < self.max_norm < math.inf:
            raise UnsupportedError(f"max_norm is above 0, not {self.max_norm}")

    def rate(self, step: int) -> float:
        """The learning rate of a step, counted from 0, as it is encoded."""
        wanted = self.lr if self.schedule is None else self.schedule(self.lr, step)
        if not 0 <= wanted < math.inf:
            raise UnsupportedError(f"the schedule says {wanted} for step {step}: rates are from 0 on")
        return _rounded(wanted, RATE_BITS - math.frexp(wanted)[1])

    @property
    def weight_bits(self) -> int:
        """Fraction bits of parameters with which the first step rounds none."""
        return self.fraction_bits + _bits_of(self.rate(0))

    def slots(self, shapes: Mapping[str, Shape]) -> dict[str, Shape]:
        """The state's tensors for parameters of these shapes.  All are 0 at first."""
        raise NotImplementedError

    def step(self, parameters: Tensors, state: Tensors, gradients: Tensors, step: int) -> Updated:
        """New parameters and new state.  Raises UsageError for what does not go together."""
        raise NotImplementedError

    def _prepared(self, parameters: Tensors, state: Tensors, gradients: Tensors) -> dict[str, SecretTensor]:
        """Gradients, clipped, and with the decay of weights."""
        slots = self.slots({name: w.shape for name, w in parameters.items()})
        if set(gradients) != set(parameters) or {name: v.shape for name, v in state.items()} != slots:
            raise UsageError("an optimiser takes a gradient for each parameter, and the state that its slots say")
        for name, w in parameters.items():
            if gradients[name].shape != w.shape:
                raise ShapeError(f"the gradient of {name} has shape {gradients[name].shape}, not {w.shape}")
        found = {name: g.labelled(LABEL) for name, g in gradients.items()}
        if self.max_norm is not None:
            found = clipped(found, self.max_norm)
        if self.weight_decay:
            decay = _rounded(self.weight_decay, RATE_BITS - math.frexp(self.weight_decay)[1])
            for name, g in found.items():
                # Of what is opened already, so that this is rounded without an opening.
                found[name] = g + _times(parameters[name], decay).truncate(g.type.fraction_bits)
        return found


class SGD(Optimizer, frozen=True, kw_only=True):
    """V' = momentum V + g, W' = W - lr V'; with ``nesterov`` W - lr (g + momentum V').

    g is the gradient, clipped to ``max_norm`` in all, and ``weight_decay`` W more.  Without momentum V' is g.
    """

    momentum: float = 0.0
    nesterov: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.momentum < 1:
            raise UnsupportedError(f"momentum is from 0 to below 1, not {self.momentum}")
        if self.nesterov and not self.momentum:
            raise UnsupportedError("nesterov takes a momentum")

    @property
    def mu(self) -> float:
        """The momentum, as it is encoded."""
        return _rounded(self.momentum, MOMENTUM_BITS)

    def slots(self, shapes: Mapping[str, Shape]) -> dict[str, Shape]:
        return {_velocity(name): shape for name, shape in shapes.items()} if self.momentum else {}

    def step(self, parameters: Tensors, state: Tensors, gradients: Tensors, step: int) -> Updated:
        rate, mu = self.rate(step), self.mu
        weights, velocities = dict[str, SecretTensor](), dict[str, SecretTensor]()
        for name, g in self._prepared(parameters, state, gradients).items():
            w = parameters[name].labelled(LABEL)
            if not self.momentum:
                weights[name] = _moved(w, _times(_settled(g, self.fraction_bits), rate))
                continue
            v = state[_velocity(name)].labelled(LABEL)
            bits = v.type.fraction_bits
            kept = _times(v, mu)
            # Rounded from the opening of V, or, where the gradient has to be, together with it.
            new = _like(_settled(g + (kept.truncate(bits) if g.type.fraction_bits <= bits else kept), bits), v)
            velocities[_velocity(name)] = new
            # g is V' - momentum V, both of which are opened.
            change = _times(new, 1.0 + mu) - kept if self.nesterov else new
            weights[name] = _moved(w, _times(change, rate))
        return weights, velocities


def clipped(gradients: Tensors, max_norm: float) -> dict[str, SecretTensor]:
    """All by the same factor, so that the root of the sum of all squares is ``max_norm`` at most, as by
    ``torch.nn.utils.clip_grad_norm_``.  Gradients are opened, rounded; the rounds of a maximum and 1 / sqrt, and two.
    """
    cut = {name: g.truncate(usual_bits(g.type.low, g.type.high)) for name, g in gradients.items()}
    squares = [g.square().sum() for g in cut.values()]
    total = sum(squares[1:], squares[0]).maximum(max_norm**2)
    factor = (total.within(max_norm**2, total.type.high).rsqrt() * max_norm).within(0.0, 1.0)
    return {name: g * factor for name, g in cut.items()}


def _settled(g: SecretTensor, bits: int) -> SecretTensor:
    """With so many fraction bits at most: opened as it is where it has no more, and what is made of it is masked."""
    return g.truncate(bits) if g.type.fraction_bits > bits else g._new(m.Masked())


def _moved(w: SecretTensor, by: SecretTensor) -> SecretTensor:
    return _like(w - by.truncate(w.type.fraction_bits), w)


def _like(new: SecretTensor, old: SecretTensor) -> SecretTensor:
    """In the range of what it takes the place of, with the same label and precision."""
    bounded = new.within(old.type.low, old.type.high)
    return SecretTensor(bounded.node, old.label, old.precision)


def _times(x: SecretTensor, number: float) -> SecretTensor:
    """To the last digit of the number."""
    product = x.precise(MOST_BITS) * number
    return SecretTensor(product.node, x.label, x.precision)


def _velocity(name: str) -> str:
    return f"{name}.momentum"


def _rounded(value: float, bits: int) -> float:
    return math.ldexp(round(math.ldexp(value, bits)), -bits)


def _bits_of(value: float) -> int:
    """Fraction bits that a number takes exactly."""
    return next(bits for bits in range(64) if math.ldexp(value, bits).is_integer())
