"""torch's functions of single numbers, and the layers they become: called by name, or as operations.  Needs torch."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch.nn import functional

from mpc.errors import UnsupportedError
from nn import activations as a
from nn import rectifiers as r
from nn.importing.blockers import refused
from nn.importing.torch_windows import Make
from nn.layer import Layer


def _gelu(approximate: str = "none", interval: Any = None, **_: Any) -> Layer:
    if approximate not in ("none", "tanh"):
        raise UnsupportedError(f"approximate={approximate!r}")
    return a.GELU("tanh" if approximate == "tanh" else "none", interval=interval)


def _softplus(beta: float = 1.0, threshold: float = 20.0, interval: Any = None, **_: Any) -> Layer:
    return a.Softplus(float(beta), float(threshold), interval=interval)


def _elu(alpha: float = 1.0, scale: float = 1.0, input_scale: float = 1.0, **_: Any) -> Layer:
    if (scale, input_scale) != (1, 1):
        raise refused("it is an ELU with scales of its own", "multiply before and after it")
    return r.ELU(float(alpha))


def _hardtanh(min_val: float = -1.0, max_val: float = 1.0, *_: Any, **__: Any) -> Layer:
    return r.ReLU6() if (min_val, max_val) == (0, 6) else r.Hardtanh(float(min_val), float(max_val))


def _named(name: str, interval: Any = None, **_: Any) -> Layer:
    return a.Function(name, interval=interval if name == "erf" else None)


FUNCTIONS: dict[str, Make] = {
    "sigmoid": lambda *_, interval=None, **__: a.Sigmoid(interval=interval),
    "tanh": lambda *_, interval=None, **__: a.Tanh(interval=interval),
    "silu": lambda *_, interval=None, **__: a.SiLU(interval=interval),
    "mish": lambda *_, interval=None, **__: a.Mish(interval=interval),
    "gelu": _gelu,
    "softplus": _softplus,
    "relu": lambda *_, **__: r.ReLU(),
    "relu6": lambda *_, **__: r.ReLU6(),
    "leaky_relu": lambda negative_slope=0.01, *_, **__: r.LeakyReLU(float(negative_slope)),
    "hardtanh": _hardtanh,
    "hardsigmoid": lambda *_, **__: r.Hardsigmoid(),
    "hardswish": lambda *_, **__: r.Hardswish(),
    "softshrink": lambda lambd=0.5, **_: r.Softshrink(float(lambd)),
    "elu": _elu,
    "selu": lambda *_, **__: r.SELU(),
    "celu": lambda alpha=1.0, *_, **__: r.CELU(float(alpha)),
    "logsigmoid": lambda **_: r.LogSigmoid(),
    "softsign": lambda **_: r.Softsign(),
    "abs": lambda **_: r.Abs(),
    **{name: partial(_named, name) for name in ("erf", "exp", "log", "sqrt", "rsqrt", "reciprocal", "sin", "cos")},
}
"""By name; of torch's further arguments, and ``interval``, where activations are approximated if that was said."""

OPERATIONS: dict[str, Make] = {("log_sigmoid" if name == "logsigmoid" else name): f for name, f in FUNCTIONS.items()}
"""As torch's own operations are called."""


def _targets() -> Iterator[tuple[Any, Make]]:
    for name, make in FUNCTIONS.items():
        for called in (name, f"{name}_"):
            for place in (torch, functional, torch.special, torch.Tensor):
                found = getattr(place, called, None)
                if found is not None:
                    yield called if place is torch.Tensor else found, make
    yield abs, FUNCTIONS["abs"]


BY_TARGET: dict[Any, Make] = dict(_targets())
"""By what a trace calls: functions, and names of methods."""
