"""How the learning rate changes from step to step, named and argued as in ``torch.optim.lr_scheduler``: public numbers.

Steps count from 0, and are those of the optimiser: a schedule that torch's users move once an epoch takes as many steps
as the epoch has for one of its own.
"""

from __future__ import annotations

import math

import msgspec

from mpc.errors import UnsupportedError
from nn.layer import check_finite, check_size


class Schedule(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", tag=True):
    """Base of all."""

    def __call__(self, lr: float, step: int) -> float:
        """The rate of a step, of the rate that the optimiser was given."""
        raise NotImplementedError


class StepLR(Schedule, frozen=True):
    """``gamma`` times as much after each ``step_size`` steps."""

    step_size: int
    gamma: float = 0.1

    def __post_init__(self) -> None:
        check_size("step_size", self.step_size)
        check_finite("gamma", self.gamma)

    def __call__(self, lr: float, step: int) -> float:
        return lr * self.gamma ** (step // self.step_size)


class CosineAnnealingLR(Schedule, frozen=True):
    """Down to ``eta_min`` in ``T_max`` steps, and up again in as many, along a cosine."""

    T_max: int
    eta_min: float = 0.0

    def __post_init__(self) -> None:
        check_size("T_max", self.T_max)
        check_finite("eta_min", self.eta_min)

    def __call__(self, lr: float, step: int) -> float:
        return self.eta_min + (lr - self.eta_min) * (1 + math.cos(math.pi * step / self.T_max)) / 2


class OneCycleLR(Schedule, frozen=True):
    """Up from ``max_lr`` / ``div_factor`` in the part ``pct_start`` of all steps, and down to a ``final_div_factor``-th
    of that where it began; both along a cosine.  The optimiser's own rate is not asked.
    """

    max_lr: float
    total_steps: int
    pct_start: float = 0.3
    div_factor: float = 25.0
    final_div_factor: float = 1e4

    def __post_init__(self) -> None:
        check_size("total_steps", self.total_steps, least=2)
        check_finite("arguments of OneCycleLR", self.max_lr, self.pct_start, self.div_factor, self.final_div_factor)
        if not 0 <= self.pct_start <= 1 or min(self.div_factor, self.final_div_factor) <= 0:
            raise UnsupportedError("pct_start is from 0 to 1, and the factors are above 0")

    def __call__(self, lr: float, step: int) -> float:
        first = self.max_lr / self.div_factor
        last = first / self.final_div_factor
        top = self.pct_start * self.total_steps - 1
        if step <= top:
            return _between(first, self.max_lr, step / top if top > 0 else 1.0)
        return _between(self.max_lr, last, min(1.0, (step - top) / (self.total_steps - 1 - top)))


def _between(start: float, end: float, part: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * part)) / 2


AnySchedule = StepLR | CosineAnnealingLR | OneCycleLR
