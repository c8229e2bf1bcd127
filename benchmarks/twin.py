"""A training in the clear, by torch in float64: with rates and momenta as they are encoded, and sigmoids as fitted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from nn.activations import Sigmoid
from nn.architecture import Architecture
from nn.layers import AvgPool2d, Conv2d, Flatten, Linear
from nn.optimizers import SGD
from protocols.approximation import Fit
from protocols.approximation.derivative import derivative

Reals = npt.NDArray[np.float64]


class Fitted(torch.autograd.Function):
    """A function as the parties have it, and its slope: by a fit."""

    @staticmethod
    def forward(ctx: Any, x: Any, fit: Fit) -> Any:
        ctx.x, ctx.fit = x, fit
        return torch.tensor(fit(x.detach().numpy()))

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        rises = derivative(ctx.fit)
        if rises is None:
            raise NotImplementedError(f"the slope of {ctx.fit}")
        return gradients[0] * torch.tensor(rises(ctx.x.detach().numpy())), None


class Twin:
    """Of convolutions padded by 1, means, dense layers and sigmoids, one after the other; by the mean cross entropy."""

    def __init__(
        self,
        architecture: Architecture,
        weights: Mapping[str, Reals],
        optimizer: SGD,
    ) -> None:
        self._layers, self._optimizer = architecture.layers, optimizer
        self._weights = {name: torch.tensor(w, dtype=torch.float64, requires_grad=True) for name, w in weights.items()}
        self._other = torch.optim.SGD(self._weights.values(), lr=1.0, momentum=optimizer.mu)

    @property
    def weights(self) -> dict[str, Reals]:
        """As in torch's ``state_dict``."""
        return {name: w.detach().numpy() for name, w in self._weights.items()}

    def step(self, number: int, x: Reals, y: Reals) -> float:
        """One, counted from 0; the loss before it."""
        self._other.param_groups[0]["lr"] = self._optimizer.rate(number)
        self._other.zero_grad()
        value = functional.cross_entropy(self._forward(torch.tensor(x)), torch.tensor(y))
        value.backward()  # type: ignore[no-untyped-call]
        self._other.step()
        return float(value.item())

    def _forward(self, x: Any) -> Any:
        for name, layer in self._layers.items():
            own: Any = [self._weights[f"{name}.{part}"] for part in ("weight", "bias")] if layer.parameters else []
            match layer:
                case Linear():
                    x = functional.linear(x, *own)
                case Conv2d():
                    weight, bias = own
                    x = functional.conv2d(x, weight, bias, padding=1)
                case AvgPool2d():
                    x = functional.avg_pool2d(x, 2)
                case Flatten():
                    x = x.flatten(1)
                case Sigmoid():
                    x = Fitted.apply(x, layer.fit)  # type: ignore[no-untyped-call]
                case _:
                    raise NotImplementedError(f"{name!r} in a twin")
        return x
