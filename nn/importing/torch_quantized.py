"""Modules of few bits, as what they stand for: weights that their integers are, and nothing that rounds.  Needs torch.

What such a network rounds on the way a model does not; it is compared with it within the network's own steps.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from protocols import PrecisionWarning

STEPS = 255
"""Of eight bits."""


def _linear(m: Any) -> nn.Module:
    weight, bias = m.weight(), m.bias()
    made = nn.Linear(m.in_features, m.out_features, bias is not None)
    return _with(made, weight, bias)


def _conv(kind: Callable[..., nn.Module]) -> Callable[[Any], nn.Module]:
    def make(m: Any) -> nn.Module:
        weight, bias = m.weight(), m.bias()
        made = kind(
            m.in_channels, m.out_channels, m.kernel_size, m.stride, m.padding, m.dilation, m.groups, bias is not None,
            m.padding_mode,
        )  # fmt: skip
        return _with(made, weight, bias)

    return make


def _rectified(make: Callable[[Any], nn.Module]) -> Callable[[Any], nn.Module]:
    return lambda m: nn.Sequential(make(m), nn.ReLU())


def _with(made: Any, weight: torch.Tensor, bias: torch.Tensor | None) -> nn.Module:
    with torch.no_grad():
        made.weight.copy_(weight.dequantize())
        if bias is not None:
            made.bias.copy_(bias)
    module: nn.Module = made
    return module


def _kinds() -> dict[str, Callable[[Any], nn.Module]]:
    found: dict[str, Callable[[Any], nn.Module]] = {"Linear": _linear, "LinearReLU": _rectified(_linear)}
    for n, kind in ((1, nn.Conv1d), (2, nn.Conv2d), (3, nn.Conv3d)):
        found |= {f"Conv{n}d": _conv(kind), f"ConvReLU{n}d": _rectified(_conv(kind))}
    nothing = dict.fromkeys(("Quantize", "DeQuantize", "QuantStub", "DeQuantStub"), lambda m: nn.Identity())
    return found | nothing


_KINDS = _kinds()
_OF_FEW_BITS = ("torch.ao.nn.quantized", "torch.ao.nn.intrinsic.quantized", "torch.nn.quantized")


def rounds(module: nn.Module) -> int:
    """How many parts of a network are of few bits."""
    return sum(_of_few_bits(part) and hasattr(part, "weight") for part in module.modules())


def _of_few_bits(module: nn.Module) -> bool:
    return type(module).__module__.startswith(_OF_FEW_BITS) or type(module).__name__ in ("QuantStub", "DeQuantStub")


def without_rounding(module: nn.Module) -> nn.Module:
    """A copy with real numbers in the place of few bits; modules that have no counterpart stay as they are."""
    made = copy.deepcopy(module)
    if _of_few_bits(made) and type(made).__name__ in _KINDS:
        return _KINDS[type(made).__name__](made).eval()
    for path, part in list(made.named_modules()):
        if path and _of_few_bits(part) and type(part).__name__ in _KINDS:
            owner, _, name = path.rpartition(".")
            setattr(made.get_submodule(owner), name, _KINDS[type(part).__name__](part))
    return made.eval()


def held_to(count: int, tolerance: float) -> float:
    """By how much results may differ: a step of eight bits for each part that rounds; says so."""
    wider = max(tolerance, min(0.5, 2.0 * count / STEPS))
    warnings.warn(
        f"the network rounds in {count} layers to numbers of 8 bits, and the model computes without: by their steps"
        f" they are held to {wider:.2g} of the results' scale",
        PrecisionWarning,
        stacklevel=5,
    )
    return wider
