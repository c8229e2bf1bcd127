"""A model that is written step after step."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from nn.architecture import AnyLayer, Step
from nn.layer import Array


class Written:
    """Steps and weights so far; ``stage`` is what names of layers begin with."""

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self.weights: dict[str, Array] = {}
        self.stage = ""

    @property
    def value(self) -> int:
        """The last step's result, as an index for ``add``; 0 is the model's input."""
        return len(self.steps)

    def add(self, local: str, layer: AnyLayer, *inputs: int, **weights: npt.ArrayLike) -> int:
        """One more step, of the last value or of ``inputs``; returns its value."""
        name = f"{self.stage}.{local}" if self.stage else local
        self.steps.append(Step(name, layer, inputs or (self.value,)))
        for key, values in weights.items():
            self.weights[f"{name}.{key}"] = np.asarray(values, np.float64)
        return self.value


Fitted = Any
"""An estimator: its attributes are scikit-learn's, which ends those that come of fitting with an underscore."""
