"""Fits as torch activations, to train a network through the very function the parties evaluate.  Needs torch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import nn

from nn.activations import Activation, fit_bounds
from protocols.approximation import (
    Fit,
    FourierFit,
    PiecewiseFit,
    PolynomialFit,
    RootFit,
    TailedFit,
    default_fit,
)


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
        low, high = fit_bounds(self.fit) or (-math.inf, math.inf)
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
    if isinstance(fit, RootFit):
        y = _evaluate(fit.start, x)
        y = y * _evaluate(fit.correction, 1 - x * y**fit.order)
        return x * y if fit.power == "1/2" else y
    if isinstance(fit, PiecewiseFit):
        which = torch.bucketize(x.detach(), x.new_tensor(fit.starts[1:]), right=True)
        centres, scales = (x.new_tensor(of) for of in zip(*((p.centre, 2.0**-p.log2) for p in fit.pieces), strict=True))
        t = (x - centres[which]) * scales[which]
        y = torch.zeros_like(x)
        for column in zip(*(piece.coefficients[::-1] for piece in fit.pieces), strict=True):
            y = y * t + x.new_tensor(column)[which]
        return y
    if isinstance(fit, TailedFit):
        y = _evaluate(fit.pieces[0], x)
        for (first, last), piece in zip(fit.seams, fit.pieces[1:], strict=True):
            y = torch.where(x >= (first + last) / 2, _evaluate(piece, x), y)
        return y
    for stage in fit.stages:
        x = _evaluate(stage, x)
    return x


class _SineSeries(torch.autograd.Function):
    """``constant + sum_j sines[j-1] sin(j omega x)`` by Clenshaw's recurrence."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, constant: float, sines: Sequence[float], omega: float) -> torch.Tensor:
        angle = x * omega
        double_cosine = angle.cos().mul_(2)
        newer = torch.full_like(x, sines[-1])
        older = torch.zeros_like(x)
        for coefficient in reversed(sines[:-1]):
            older.neg_().addcmul_(double_cosine, newer).add_(coefficient)
            newer, older = older, newer
        value = newer.mul_(angle.sin_()).add_(constant)
        ctx.save_for_backward(value)
        return value

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None, None, None]:
        # Inside the interval y (1 - y) is the derivative to 4e-3, at a fraction of the cost.
        (value,) = ctx.saved_tensors
        return gradients[0] * value * (1 - value), None, None, None


class FourierActivation(nn.Module):
    """The sigmoid as the parties evaluate it: a sine series, good on the fit's interval, periodic outside.

    Elementwise on any shape.  ``constant``, ``sines`` and ``period`` are those of the project's default fit.
    """

    def __init__(self) -> None:
        super().__init__()
        fit = default_fit("sigmoid")
        self.constant = float(fit.constant)
        self.sines = tuple(float(value) for value in fit.sines)
        self.period = float(fit.period)
        self.low, self.high = float(fit.low), float(fit.high)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The series at ``x``; the gradient is that of the sigmoid."""
        omega = 2 * math.pi / self.period
        return cast(torch.Tensor, _SineSeries.apply(x, self.constant, self.sines, omega))  # type: ignore[no-untyped-call]

    def extra_repr(self) -> str:
        """Shown by ``print(module)``."""
        return f"terms={len(self.sines)}, period={self.period:g}, interval=[{self.low:g}, {self.high:g}]"
