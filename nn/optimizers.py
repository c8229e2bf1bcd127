"""Optimisers, named and argued as in ``torch.optim``: pure functions from parameters, state and gradients to new ones.

Nothing is stored here: who trains keeps what comes back, and hands it in at the next step.  Parameters, gradients and
state are secret tensors by name.

*Digits.*  New state has the range and the fraction bits of the old, and each parameter likewise, so that one program
serves all steps; both are declared, not compared, but what is ``watched``.  Learning rates and momenta are public, and
what they are encoded as (``rate``, ``mu``) is what counts: a twin in the clear uses those.  What is rounded is rounded
up or down by chance, so that it is right on average, however small a rate is.

*Openings.*  A velocity is opened once, and a parameter never: with V' masked, W' = W - lr V' has the mask
b - lr v, which the dealer knows.  That takes parameters of as many fraction bits as V' and the rate have together
(``weight_bits``), and gradients of no more than V'.  Where they have more, what is opened is O, the gradient and what
is kept of V: from that one opening V' is rounded, and lr O to the digits of W; and W' is opened as well.  How many
digits are best where a network is trained, `nn.digits` finds out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import msgspec

from mpc.errors import RangeError, ShapeError, UnsupportedError, UsageError
from mpc.tensor_type import Shape
from nn.layer import check_finite
from nn.schedules import AnySchedule
from protocols.lowering.planner import MOST_BITS, usual_bits
from protocols.trace import mathematics as m
from protocols.trace.secret_tensor import SecretTensor

Tensors = Mapping[str, SecretTensor]
Updated = tuple[dict[str, SecretTensor], dict[str, SecretTensor]]

RATE_BITS, FINEST_RATE = 8, 36
"""Significant ones of a learning rate, and of a decay of weights, and fraction bits at most: what is rounded to 0 moves
nothing, and would move a weight by 2^-33 a step at most, in the default ranges; ..."""
MOMENTUM_BITS = 16
"""... and fraction bits of a momentum, and of other factors that are nearly 1."""
AVERAGE, SQUARES = ".exp_avg", ".exp_avg_sq"
"""Behind a parameter's name, its means of gradients and of their squares."""
RESOLVED = 2.0**4
"""Units of a mean of squares that the square of an eps is."""
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
        if not 2.0**-FINEST_RATE <= self.lr <= 2.0**10 or not 0 <= self.weight_decay <= 1:
            raise UnsupportedError(f"lr is from 2^-{FINEST_RATE} to 1024, and weight_decay from 0 to 1")
        if self.max_norm is not None and not 0 < self.max_norm < math.inf:
            raise UnsupportedError(f"max_norm is above 0, not {self.max_norm}")

    def rate(self, step: int) -> float:
        """The learning rate of a step, counted from 0, as it is encoded."""
        wanted = self.lr if self.schedule is None else self.schedule(self.lr, step)
        if not 0 <= wanted < math.inf:
            raise UnsupportedError(f"the schedule says {wanted} for step {step}: rates are from 0 on")
        return _significant(wanted)

    @property
    def rate_bits(self) -> int:
        """Fraction bits of the first step's rate."""
        return _bits_of(self.rate(0))

    @property
    def weight_bits(self) -> int:
        """Fraction bits of parameters with which the first step rounds none."""
        return self.fraction_bits + self.rate_bits

    def slots(self, shapes: Mapping[str, Shape]) -> dict[str, Shape]:
        """The state's tensors for parameters of these shapes.  All are 0 at first."""
        raise NotImplementedError

    def slot_bits(self, slot: str) -> int:
        """Fraction bits to store one of them with."""
        return self.fraction_bits

    def step(
        self, parameters: Tensors, state: Tensors, gradients: Tensors, step: int, *, watched: float | None = None
    ) -> Updated:
        """New parameters and new state.

        ``watched``: an end of a range around 0 that gradients are to lie in; new state is assumed to lie in the range
        of the old then, and where there is none gradients themselves, and not declared to (``SecretTensor.assumed``).
        Raises UsageError for what does not go together.
        """
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
        if decay := _significant(self.weight_decay):
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

    def step(
        self, parameters: Tensors, state: Tensors, gradients: Tensors, step: int, *, watched: float | None = None
    ) -> Updated:
        rate, mu = self.rate(step), self.mu
        weights, velocities = dict[str, SecretTensor](), dict[str, SecretTensor]()
        for name, g in self._prepared(parameters, state, gradients).items():
            weights[name] = w = parameters[name].labelled(LABEL)
            if not self.momentum:
                if rate:
                    g = g._new(m.Masked()) if watched is None else _watched(g, -watched, watched)
                    weights[name] = _like(w - _multiple(g, rate, w), w)
                continue
            v = state[_velocity(name)].labelled(LABEL)
            bits = v.type.fraction_bits
            kept = _times(v, mu)
            # Rounded from the opening of V, or, where the gradient has to be, together with it.
            total = g + (kept.truncate(bits) if g.type.fraction_bits <= bits else kept)
            total = _like(total._new(m.Masked()), v, watched is not None)
            velocities[_velocity(name)] = _like(total.truncate(bits), v)
            if not rate:
                continue
            if self.nesterov:
                # g is what is opened, less momentum V, which is opened as well.
                change = _multiple(total, rate * (1.0 + mu), w) - _multiple(kept, rate, w)
            else:
                change = _multiple(total, rate, w)
            weights[name] = _like(w - change, w)
        return weights, velocities


class Adam(Optimizer, frozen=True, kw_only=True):
    """M' = b1 M + (1 - b1) g, V' = b2 V + (1 - b2) g^2, and W' = W - lr m / sqrt(v + eps^2), where m and v are M' and
    V' over 1 - b1^t and 1 - b2^t: as torch's, but that ``eps`` is under the root, and larger.

    Dear: 1 / sqrt of each weight goes by comparison, over all orders of magnitude from eps^2 on (about ten thresholds),
    and five elements a weight are opened.  State is ``.exp_avg``, and ``.exp_avg_sq``, of ``square_bits``.
    """

    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-4

    def __post_init__(self) -> None:
        super().__post_init__()
        if not all(0 <= b < 1 for b in self.betas) or not 2.0**-16 <= self.eps <= 1:
            raise UnsupportedError("betas are from 0 to below 1, and eps from 2^-16 to 1")

    @property
    def square_bits(self) -> int:
        """Fraction bits of the mean of squares that resolve ``eps`` from the first step on."""
        return math.ceil(math.log2(RESOLVED / (self.eps**2 * (1.0 - self.coefficients[1]))))

    @property
    def coefficients(self) -> tuple[float, float]:
        """``betas`` as they are encoded."""
        return _rounded(self.betas[0], MOMENTUM_BITS), _rounded(self.betas[1], MOMENTUM_BITS)

    def slots(self, shapes: Mapping[str, Shape]) -> dict[str, Shape]:
        return {f"{name}{kind}": shape for name, shape in shapes.items() for kind in (AVERAGE, SQUARES)}

    def slot_bits(self, slot: str) -> int:
        return self.square_bits if slot.endswith(SQUARES) else self.fraction_bits

    def step(
        self, parameters: Tensors, state: Tensors, gradients: Tensors, step: int, *, watched: float | None = None
    ) -> Updated:
        (b1, b2), rate = self.coefficients, self.rate(step)
        left = 1.0 - b2 ** (step + 1)
        factor = math.sqrt(left) / (1.0 - b1 ** (step + 1))
        # No ratio of a mean and of the root of a mean of squares is larger.
        most = 2.0 * max(1.0, (1.0 - b1) / math.sqrt(1.0 - b2)) / factor
        weights, found = dict[str, SecretTensor](), dict[str, SecretTensor]()
        for name, g in self._prepared(parameters, state, gradients).items():
            mean, squares = (state[f"{name}{kind}"].labelled(LABEL) for kind in (AVERAGE, SQUARES))
            if squares.type.fraction_bits < self.square_bits:
                raise RangeError(
                    f"{squares.type.fraction_bits} fraction bits of squares leave nothing of eps {self.eps:g}: it takes"
                    f" {self.square_bits}"
                )
            g = _settled(g, mean.type.fraction_bits)
            mean = _like(_mixed(mean, g, b1)._new(m.Masked()), mean, watched is not None)
            squares = _like(_mixed(squares, g.square(), b2), squares, watched is not None)
            least = self.eps**2 * left
            above = (squares + least).within(least / 2, squares.type.high + least)
            change = mean._joined(m.Multiply(at_once=True), mean, above.rsqrt()).within(-most, most)
            w = parameters[name].labelled(LABEL)
            weights[name] = _like(w - _times(change, rate * factor).truncate(w.type.fraction_bits), w)
            found |= {f"{name}{AVERAGE}": mean, f"{name}{SQUARES}": squares}
        return weights, found


def _mixed(old: SecretTensor, new: SecretTensor, beta: float) -> SecretTensor:
    """``beta`` times the old, and the rest of the new, with the digits of the old."""
    return (_times(old, beta) + _times(new, 1.0 - beta)).truncate(old.type.fraction_bits)


def clipped(gradients: Tensors, max_norm: float) -> dict[str, SecretTensor]:
    """All by the same factor, so that the root of the sum of all squares is ``max_norm`` at most, as by
    ``torch.nn.utils.clip_grad_norm_``.  Gradients are opened, rounded; the rounds of a maximum and 1 / sqrt, and two.
    """
    cut = {name: g.truncate(usual_bits(g.type.low, g.type.high)) for name, g in gradients.items()}
    squares = [g.square().sum() for g in cut.values()]
    total = sum(squares[1:], squares[0])
    if total.type.high <= max_norm**2:
        # None can be so long.
        return dict(gradients)
    total = total.maximum(max_norm**2)
    factor = (total.within(max_norm**2, total.type.high).rsqrt() * max_norm).within(0.0, 1.0)
    return {name: g * factor for name, g in cut.items()}


def _settled(g: SecretTensor, bits: int) -> SecretTensor:
    """With so many fraction bits at most: opened as it is where it has no more, and what is made of it is masked."""
    return g.truncate(bits) if g.type.fraction_bits > bits else g._new(m.Masked())


def _multiple(x: SecretTensor, number: float, w: SecretTensor) -> SecretTensor:
    """``number`` times what is opened, with the digits of ``w`` at most: rounded, if it is, by that same opening."""
    exact = _times(x, number)
    return (
        exact if exact.type.fraction_bits <= w.type.fraction_bits else x._new(m.Truncate(w.type.fraction_bits, number))
    )


def _like(new: SecretTensor, old: SecretTensor, watched: bool = False) -> SecretTensor:
    """In the range of what it takes the place of, with the same label and precision."""
    low, high = old.type.low, old.type.high
    bounded = _watched(new, low, high) if watched else new.within(low, high)
    return SecretTensor(bounded.node, old.label, old.precision)


def _watched(x: SecretTensor, low: float, high: float) -> SecretTensor:
    """Roughly: values are far below their ranges, and there are as many of them as weights in each step."""
    return x._new(m.Assume(low, high, roughly=True))


def _times(x: SecretTensor, number: float) -> SecretTensor:
    """To the last digit of the number."""
    product = x.precise(MOST_BITS) * number
    return SecretTensor(product.node, x.label, x.precision)


def _velocity(name: str) -> str:
    return f"{name}.momentum"


def _rounded(value: float, bits: int) -> float:
    return math.ldexp(round(math.ldexp(value, bits)), -bits)


def _significant(value: float) -> float:
    """Rounded to ``RATE_BITS`` of them, and to ``FINEST_RATE`` fraction bits."""
    return _rounded(value, min(RATE_BITS - math.frexp(value)[1], FINEST_RATE))


def _bits_of(value: float) -> int:
    """Fraction bits that a number takes exactly."""
    return next(bits for bits in range(64) if math.ldexp(value, bits).is_integer())
