"""Deep networks: ranges that samples show, in the place of the worst case that types know."""

from __future__ import annotations

import math
from collections.abc import Collection

import msgspec
import numpy as np
import numpy.typing as npt

from mpc.errors import UsageError
from nn.architecture import Step
from nn.attention import ScaledDotProductAttention
from nn.calibrate import chunks
from nn.model import Model
from nn.rectifiers import Assumed, ReLU
from nn.softmax import LogSoftmax, Softmax
from protocols.trace.softmax import FURTHEST

_SOFT = (Softmax, ScaledDotProductAttention)

MARGIN = 1.0
"""By which an assumed range exceeds what the samples showed, times its larger end."""
STEP = 0.25
"""Of how far scores are from their mean."""
ROOM = 1 / 3
"""By which it does at least: nearer than about a ninth of the range to an end there may be no answer."""


def assuming(
    model: Model, samples: npt.ArrayLike, *, after: Collection[str] | None = None, margin: float = MARGIN
) -> Model:
    """The model that assumes that inputs of its ``ReLU`` layers lie where ``samples`` (N, ...) lead to, widened by
    ``margin`` (a third at least); or results of the steps that ``after`` names.  And so of what softmaxes take, how far
    from its mean it is, where that is no further than they can do with: no maximum is looked for then.

    Ends become public: powers of two, or of scores multiples of a quarter.  Where one does not hold there is no answer.
    Each value that is assumed to lie somewhere is compared with both ends, so the best places are where there are few,
    and none so far from the one before that what is worst between them outgrows the field.
    """
    steps = model.architecture.steps
    if after is not None and (unknown := set(after) - {step.name for step in steps}):
        raise UsageError(f"there is no layer {', '.join(sorted(unknown))}")
    # Of each step with an assumption, the value that it is made of.
    places = {
        number: step.inputs[0] if after is None else number + 1
        for number, step in enumerate(steps)
        if (isinstance(step.layer, ReLU) if after is None else step.name in after)
    }
    softened = {number: step.layer for number, step in enumerate(steps) if isinstance(step.layer, _SOFT)}
    reach = dict.fromkeys((steps[number].name for number in (*places, *softened)), 0.0)
    for some in chunks(np.atleast_1d(samples)):
        values = model.values(some, exact=True)
        for number, value in places.items():
            most = float(np.abs(values[value]).max(initial=0.0))
            reach[steps[number].name] = max(most, reach[steps[number].name])
        for number, soft in softened.items():
            most = soft.from_mean(*(values[i] for i in steps[number].inputs))
            reach[steps[number].name] = max(most, reach[steps[number].name])
    wider = 1.0 + max(margin, ROOM)
    ends = {name: 2.0 ** math.ceil(math.log2(max(most * wider, 2.0**-8))) for name, most in reach.items()}
    made: list[Step] = []
    # Where each value of the model is in what is made.
    at = [0]
    for step in steps:
        layer, inputs = step.layer, tuple(at[i] for i in step.inputs)
        end = ends.get(step.name)
        if end is not None and after is None and isinstance(layer, ReLU):
            layer = msgspec.structs.replace(layer, interval=(-end, end))
        if isinstance(layer, _SOFT) and not isinstance(layer, LogSoftmax):
            # Finer than a power of two: up to about 3.4 it takes no comparison.
            far = math.ceil(max(reach[step.name] * wider, STEP) / STEP) * STEP
            layer = msgspec.structs.replace(layer, reach=far if far <= FURTHEST else None)
        made.append(Step(step.name, layer, inputs))
        if end is not None and after is not None and step.name in after:
            made.append(Step(f"{step.name}.assumed", Assumed((-end, end)), (len(made),)))
        at.append(len(made))
    return Model(msgspec.structs.replace(model.architecture, steps=tuple(made)), model.weights, model.interface)
