"""Deep networks of rectifiers: ranges that samples show, in the place of the worst case that types know."""

from __future__ import annotations

import math

import msgspec
import numpy as np
import numpy.typing as npt

from nn.architecture import Architecture, Step
from nn.calibrate import chunks
from nn.model import Model
from nn.rectifiers import ReLU

MARGIN = 1.0
"""By which an assumed range exceeds what the samples showed, times its larger end."""


def assuming(model: Model, samples: npt.ArrayLike, *, margin: float = MARGIN) -> Model:
    """The model whose ``ReLU`` layers assume that inputs lie where ``samples`` (N, ...) lead to, widened by ``margin``.

    Ends are powers of two, which become public.  Where an assumption fails, ``RunReport.in_range`` says so.
    """
    reach: dict[str, float] = {}
    for some in chunks(np.atleast_1d(samples)):
        values = model.values(some, exact=True)
        for step in model.architecture.steps:
            if isinstance(step.layer, ReLU):
                most = float(np.abs(values[step.inputs[0]]).max(initial=0.0))
                reach[step.name] = max(most, reach.get(step.name, 0.0))
    ends = {name: 2.0 ** math.ceil(math.log2(max(most * (1.0 + margin), 2.0**-8))) for name, most in reach.items()}
    steps = tuple(
        Step(s.name, msgspec.structs.replace(s.layer, interval=(-ends[s.name], ends[s.name])), s.inputs)
        if isinstance(s.layer, ReLU)
        else s
        for s in model.architecture.steps
    )
    return Model(Architecture(steps, model.architecture.input_shape), model.weights, model.interface)
