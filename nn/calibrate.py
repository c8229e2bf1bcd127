"""Intervals from samples: where a model's activations really take their inputs, and fits that cover it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import msgspec
import numpy as np
import numpy.typing as npt

from mpc.errors import RangeError, UnsupportedError
from nn.activations import Activation, Approximated, Interval, Polynomial, Ranged, fit_error
from nn.architecture import Step
from nn.layer import Array, Layer
from nn.model import Model
from protocols.approximation import FUNCTIONS

WIDEST = 2.0**19
"""An activation whose inputs go further than this has something wrong before it: no interval reaches twice as far."""

MARGIN = 0.25
"""By which an interval exceeds what the samples showed."""

ROOM, ASSUMED_ROOM, POLE_ROOM = 1 / 18, 1 / 6, 1 / 6
"""By which it exceeds it at least, as parts of what they showed, on each side: of a function's interval 1/33 may be
without an answer on each side, of what is assumed 1/9, and somewhat more where grains do not go into it; and above 0
of the lower end (`protocols.operations.astray`)."""

CHUNK = 1 << 18
"""Numbers of inputs that are evaluated at a time."""

NEAREST_POLE = 2.0**-10
"""Of functions that are only defined above 0, the lowest end of an interval."""


@dataclass(frozen=True)
class InputRange:
    """What one activation's inputs were on the samples, and where its approximation holds."""

    low: float
    high: float
    interval: Interval | None
    """None: any input will do."""
    error: float | None = None
    """The approximation's largest error on the interval, where it has one."""

    @property
    def inside(self) -> bool:
        """Whether every input was in the interval."""
        return self.interval is None or (self.interval[0] <= self.low and self.high <= self.interval[1])

    def __str__(self) -> str:
        where = "anywhere" if self.interval is None else f"[{self.interval[0]:g}, {self.interval[1]:g}]"
        error = "" if self.error is None else f", error {self.error:.1e}"
        outside = "" if self.inside else ", OUTSIDE"
        return f"inputs {self.low:.3g} to {self.high:.3g}, approximated {where}{error}{outside}"


def check_ranges(model: Model, samples: npt.ArrayLike) -> dict[str, InputRange]:
    """Per activation, by layer name: the inputs that ``samples`` (N, ...) lead to, against its interval.

    Measured with the true functions, as the approximations are meant to be.
    """
    return {
        name: InputRange(*found, layer.bounds, fit_error(layer, found))
        for name, (layer, found) in _ranges(model, samples).items()
    }


def calibrate(
    model: Model,
    samples: npt.ArrayLike,
    *,
    margin: float = MARGIN,
    error: float | None = None,
    everywhere: bool = False,
) -> tuple[Model, dict[str, InputRange]]:
    """The model with its activations' intervals chosen to cover what ``samples`` (N, ...) lead to.

    One round each, and wrong beyond its interval: whoever calls this takes that risk.  ``everywhere``: activations that
    are right on any input, in two rounds where types do not bound it, stay so, and only the others get intervals.

    Each interval is what the samples showed, widened on either side by ``margin`` times the larger end, and
    rounded outwards to a multiple of 1/4; and by so much at least that all samples are answered, as parties who watch
    whether values stay give no answer near an end.  A Fourier fit gets the fewest terms whose error is at most
    ``error`` (default: the function's own target), and where one round cannot reach it, more rounds.  A second a layer
    at most, or nearly; what takes longer is said on the terminal.  ``Activation`` layers keep the fit they were made
    with.  Returns the model, and what was chosen.

    Samples should look like what is to come: use training images, not noise.  Intervals are public: they are
    part of the architecture.  Raises RangeError, naming the layer, for inputs beyond ±2^19, or that a fixed
    fit does not cover.
    """
    if not (math.isfinite(margin) and margin >= 0):
        raise RangeError(f"a margin is at least 0, not {margin}")
    chosen: dict[str, Layer] = {}
    for name, (layer, (low, high)) in _ranges(model, samples).items():
        if everywhere and layer.bounds is None:
            continue
        if max(abs(low), abs(high)) > WIDEST:
            raise RangeError(
                f"layer {name!r}: inputs from {low:.3g} to {high:.3g} are beyond ±{WIDEST:g}: normalise the model's"
                " inputs, or put a BatchNorm before it"
            )
        if isinstance(layer, Activation):
            if not InputRange(low, high, layer.bounds).inside:
                raise RangeError(f"layer {name!r}: inputs from {low:.3g} to {high:.3g} leave its fit's {layer.bounds}")
        elif isinstance(layer, Approximated | Polynomial):
            chosen[name] = _covering(layer, name, low, high, margin, error)
    steps = tuple(Step(s.name, chosen.get(s.name, s.layer), s.inputs) for s in model.architecture.steps)  # type: ignore[arg-type]
    calibrated = Model(msgspec.structs.replace(model.architecture, steps=steps), model.weights, model.interface)
    return calibrated, check_ranges(calibrated, samples)


def _ranges(model: Model, samples: npt.ArrayLike) -> Mapping[str, tuple[Ranged, tuple[float, float]]]:
    found: dict[str, tuple[Ranged, tuple[float, float]]] = {}
    for some in chunks(np.atleast_1d(samples)):
        values = model.values(some, exact=True)
        for step in model.architecture.steps:
            x = values[step.inputs[0]] if step.inputs else None
            if not isinstance(step.layer, Ranged) or x is None or not x.size:
                continue
            low, high = float(x.min()), float(x.max())
            if not (math.isfinite(low) and math.isfinite(high)):
                raise RangeError(f"layer {step.name!r}: some inputs are not finite")
            if step.name in found:
                before = found[step.name][1]
                low, high = min(low, before[0]), max(high, before[1])
            found[step.name] = (step.layer, (low, high))
    return found


def chunks(samples: Array) -> Iterator[Array]:
    """A batch (N, ...) in pieces of ``CHUNK`` numbers: every value of a network on the way is in memory at a time."""
    each = max(1, CHUNK // max(1, math.prod(samples.shape[1:])))
    for first in range(0, len(samples), each):
        yield samples[first : first + each]


def _covering(
    layer: Approximated | Polynomial, name: str, low: float, high: float, margin: float, error: float | None
) -> Layer:
    """The layer with an interval that covers [low, high] and the margin."""
    if isinstance(layer, Polynomial):
        return msgspec.structs.replace(layer, interval=_widened(low, high, margin, ASSUMED_ROOM))
    function = FUNCTIONS[layer.function]
    if function.low == -function.high:  # symmetric, and an odd one then needs sines alone
        most = max(-low, high)
        low, high = -most, most
    interval = _widened(low, high, margin, ROOM)
    if function.low > 0:
        if low <= 0:
            raise RangeError(f"layer {name!r}: {layer.function} of inputs down to {low:.3g} is not supported")
        interval = (max(NEAREST_POLE, low / (1 + max(margin, POLE_ROOM))), interval[1])
    covering = msgspec.structs.replace(layer, interval=interval, terms=None, found=None)
    if layer.method != "fourier":
        return covering
    try:
        return covering.within(error)
    except UnsupportedError as refused:
        raise RangeError(
            f"layer {name!r}: {refused}. A larger error= may be reached, and a BatchNorm makes inputs smaller"
        ) from None


def _widened(low: float, high: float, margin: float, room: float) -> Interval:
    wider = max(margin * max(abs(low), abs(high), 0.25), room * max(high - low, 0.25))
    return math.floor((low - wider) * 4) / 4, math.ceil((high + wider) * 4) / 4
