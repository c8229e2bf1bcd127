"""Any fit as a torch activation, to train a network through the very function the parties evaluate.  Needs torch."""

from __future__ import annotations

import math

import torch
from torch import nn

from nn.activations import Activation, fit_bounds
from protocols.approximation import Fit, FourierFit, PolynomialFit


class FitActivation(nn.Module):
    """``fit`` applied elementwise, differentiable; ``from_torch`` turns it into ``Activation(fit)``.

    Outside the fit's interval it does what the parties' evaluation does: a Fourier series repeats, a
    polynomial runs away.  Keep pre-activations inside by a penalty, or by normalisation.
    """

    def __init__(self, fit: Fit) -> None:
        super().__init__()
        self.fit = Activation(fit).fit

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The fit at ``x``, any shape."""
        return _evaluate(self.fit, x)

    def extra_repr(self) -> str:
        """Shown by ``print(module)``."""
        low, high = fit_bounds(self.fit)
        return f"{type(self.fit).__name__}, interval=[{low:g}, {high:g}]"


def _evaluate(fit: Fit, x: torch.Tensor) -> torch.Tensor:
    if isinstance(fit, FourierFit):
        angle = x * (2 * math.pi / fit.period)
        y = torch.full_like(x, fit.constant)
        for j, b in enumerate(fit.sines, start=1):
            y = y + b * torch.sin(j * angle)
        for j, b in enumerate(fit.cosines, start=1):
            y = y + b * torch.cos(j * angle)
        return y
    if isinstance(fit, PolynomialFit):
        y = torch.full_like(x, fit.coefficients[-1])
        for c in reversed(fit.coefficients[:-1]):
            y = y * x + c
        return y
    for stage in fit.stages:
        x = _evaluate(stage, x)
    return x
