"""Modules of few bits, as what they stand for: weights that their integers are, and nothing that rounds.  Needs torch.

The model is read from a copy in real numbers, with which it is compared as with any network; and that copy with the
network itself, which rounds on the way, within the network's own steps.
"""

from __future__ import annotations

import copy
import warnings
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.ao.nn import quantized
from torch.utils._pytree import tree_leaves

from mpc.errors import DiffersFromSource
from nn.importing.blockers import Blocker
from nn.importing.torch_trace import forward_line
from nn.layer import Array
from protocols import PrecisionWarning

STEPS = 255
"""Of eight bits."""
APIECE = 4.0
"""Steps by which each part that rounds may take the results: its own, of a scale that is larger than theirs."""

_Counterpart = Callable[[Any], nn.Module]


class _Adding(nn.Module):
    """A convolution, and what is added to it."""

    def __init__(self, convolution: nn.Module, after: nn.Module) -> None:
        super().__init__()
        self.convolution, self.after = convolution, after

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.after(self.convolution(x) + y)
        return result


def _linear(m: Any) -> nn.Module:
    weight, bias = m.weight(), m.bias()
    return _with(nn.Linear(m.in_features, m.out_features, bias is not None), weight=weight, bias=bias)


def _conv(kind: Callable[..., nn.Module]) -> _Counterpart:
    def make(m: Any) -> nn.Module:
        weight, bias = m.weight(), m.bias()
        options: dict[str, Any] = {"output_padding": m.output_padding} if m.transposed else {}
        made = kind(
            m.in_channels, m.out_channels, m.kernel_size, m.stride, m.padding, dilation=m.dilation, groups=m.groups,
            bias=bias is not None, padding_mode=m.padding_mode, **options,
        )  # fmt: skip
        return _with(made, weight=weight, bias=bias)

    return make


def _norm(kind: Callable[..., nn.Module]) -> _Counterpart:
    def make(m: Any) -> nn.Module:
        made = kind(m.num_features, m.eps)
        statistics = {"running_mean": m.running_mean, "running_var": m.running_var}
        return _with(made, weight=m.weight, bias=m.bias, **statistics)

    return make


def _instance_norm(kind: Callable[..., nn.Module]) -> _Counterpart:
    return lambda m: _with(kind(m.num_features, m.eps, affine=m.weight is not None), weight=m.weight, bias=m.bias)


def _group_norm(m: Any) -> nn.Module:
    made = nn.GroupNorm(m.num_groups, m.num_channels, m.eps, m.weight is not None)
    return _with(made, weight=m.weight, bias=m.bias)


def _layer_norm(m: Any) -> nn.Module:
    return _with(nn.LayerNorm(m.normalized_shape, m.eps, m.weight is not None), weight=m.weight, bias=m.bias)


def _embedding(m: Any) -> nn.Module:
    return _with(nn.Embedding(m.num_embeddings, m.embedding_dim), weight=m.weight())


def _recurrent(kind: Callable[..., nn.Module]) -> _Counterpart:
    def make(m: Any) -> nn.Module:
        names = "num_layers", "bias", "batch_first", "bidirectional"
        made = kind(m.input_size, m.hidden_size, **{name: getattr(m, name) for name in names})
        return _with(made, **m.get_weight(), **(m.get_bias() if m.bias else {}))

    return make


def _cell(kind: Callable[..., nn.Module], *options: str) -> _Counterpart:
    def make(m: Any) -> nn.Module:
        made = kind(m.input_size, m.hidden_size, m.bias, **{name: getattr(m, name) for name in options})
        return _with(made, **m.get_weight(), **(m.get_bias() if m.bias else {}))

    return make


def _then(make: _Counterpart, after: _Counterpart) -> _Counterpart:
    return lambda m: nn.Sequential(make(m), after(m))


def _added(make: _Counterpart, after: type[nn.Module]) -> _Counterpart:
    return lambda m: _Adding(make(m), after())


def _with(made: Any, **tensors: torch.Tensor | None) -> nn.Module:
    with torch.no_grad():
        for name, values in tensors.items():
            if values is not None:
                getattr(made, name).copy_(values.dequantize().to(torch.float32))
    module: nn.Module = made
    return module


def _relu(_: Any) -> nn.Module:
    return nn.ReLU()


def _kinds() -> dict[str, _Counterpart]:
    found: dict[str, _Counterpart] = {
        "Linear": _linear, "LinearReLU": _then(_linear, _relu), "LinearTanh": _then(_linear, lambda m: nn.Tanh()),
        "LinearLeakyReLU": _then(_linear, lambda m: nn.LeakyReLU(m.negative_slope)), "Embedding": _embedding,
        "ReLU6": lambda m: nn.ReLU6(), "Hardswish": lambda m: nn.Hardswish(), "Sigmoid": lambda m: nn.Sigmoid(),
        "LeakyReLU": lambda m: nn.LeakyReLU(m.negative_slope), "ELU": lambda m: nn.ELU(m.alpha),
        "Softmax": lambda m: nn.Softmax(m.dim), "GroupNorm": _group_norm, "LayerNorm": _layer_norm,
        "QFunctional": lambda m: quantized.FXFloatFunctional(), "LSTM": _recurrent(nn.LSTM), "GRU": _recurrent(nn.GRU),
        "LSTMCell": _cell(nn.LSTMCell), "GRUCell": _cell(nn.GRUCell), "RNNCell": _cell(nn.RNNCell, "nonlinearity"),
    }  # fmt: skip
    for n, kind, back, instances in (
        (1, nn.Conv1d, nn.ConvTranspose1d, nn.InstanceNorm1d),
        (2, nn.Conv2d, nn.ConvTranspose2d, nn.InstanceNorm2d),
        (3, nn.Conv3d, nn.ConvTranspose3d, nn.InstanceNorm3d),
    ):
        found |= {f"Conv{n}d": _conv(kind), f"ConvReLU{n}d": _then(_conv(kind), _relu)}
        found |= {f"ConvTranspose{n}d": _conv(back), f"InstanceNorm{n}d": _instance_norm(instances)}
    for n, norm in ((2, nn.BatchNorm2d), (3, nn.BatchNorm3d)):
        found |= {f"BatchNorm{n}d": _norm(norm), f"BNReLU{n}d": _then(_norm(norm), _relu)}
    added = _conv(nn.Conv2d)
    return found | {"ConvAdd2d": _added(added, nn.Identity), "ConvAddReLU2d": _added(added, nn.ReLU)}


_KINDS = _kinds()
"""By the name of the class."""
_ROUNDS = (*_KINDS, "Quantize")
_NOTHING = ("Quantize", "DeQuantize", "QuantStub", "DeQuantStub", "Dropout")
_OF_FEW_BITS = ("torch.ao.nn.quantized.modules", "torch.ao.nn.quantized.dynamic", "torch.ao.nn.intrinsic.quantized")


def rounds(module: nn.Module) -> int:
    """How many parts of a network are of few bits."""
    return sum(_of_few_bits(part) and type(part).__name__ in _ROUNDS for part in module.modules())


def _of_few_bits(module: nn.Module) -> bool:
    return type(module).__module__.startswith(_OF_FEW_BITS) or type(module).__name__ in _NOTHING[:4]


def without_rounding(module: nn.Module) -> nn.Module:
    """A copy with real numbers in the place of few bits; modules that have no counterpart stay as they are."""
    made = copy.deepcopy(module)
    if (own := _counterpart(made)) is not None:
        return own.eval()
    for path, part in list(made.named_modules()):
        if path and (own := _counterpart(part)) is not None:
            owner, _, name = path.rpartition(".")
            setattr(made.get_submodule(owner), name, own)
    return made.eval()


def _counterpart(module: nn.Module) -> nn.Module | None:
    name = type(module).__name__
    if not _of_few_bits(module):
        return None
    if name in _NOTHING:
        return nn.Identity()
    # Static recurrent ones are made of parts that have weights.
    known = name in _KINDS and (name not in ("LSTM", "GRU") or hasattr(module, "get_weight"))
    return _KINDS[name](module) if known else None


def check_steps(network: nn.Module, own: nn.Module, run: Callable[[nn.Module], Array], tolerance: float) -> None:
    """That ``network`` is its copy in real numbers, but for a step of eight bits for each part that rounds; says so.

    ``run``: a network's results for the samples.  Raises DiffersFromSource, with the first part that differs.
    """
    count = rounds(network)
    wider = max(tolerance, min(0.5, APIECE * count / STEPS))
    warnings.warn(
        f"the network rounds in {count} layers to numbers of 8 bits, and the model computes without: by their steps"
        f" they are held to {wider:.2g} of the results' scale",
        PrecisionWarning,
        stacklevel=4,
    )
    parts = {path: type(part).__name__ for path, part in network.named_modules() if not [*part.children()]}
    given, theirs = _given(own, parts, run), _given(network, parts, run)

    def off(path: str) -> tuple[float, float]:
        """By how much, and of how much, where both give the like."""
        pairs = [(a, b) for a, b in zip(given[path], theirs[path], strict=False) if a.shape == b.shape]
        return max(((_most(a - b), _most(b)) for a, b in pairs), default=(0.0, 0.0))

    by, reach = off("")
    if by <= wider * reach:
        return
    path = next((path for path in parts if off(path)[0] > wider * off(path)[1]), "")
    where = f"layer {path!r} is {parts[path]}" if path else f"forward of {type(network).__name__}"
    reason = (
        f"by rounding it is the first to be off by {off(path)[0]:.2g} of {off(path)[1]:.2g}; results are by {by:.2g} of"
        f" {reach:.2g}, and {count} such layers may by {wider:.2g} of that"
    )
    remedy = "prepare it with more samples, or give the network that it was made of"
    raise DiffersFromSource(str(Blocker(where, reason, remedy, forward_line(network))))


def _most(values: Array) -> float:
    return float(np.abs(values).max(initial=0.0))


def _given(network: nn.Module, parts: Mapping[str, str], run: Callable[[nn.Module], Array]) -> dict[str, list[Array]]:
    """What these parts give, call after call, and under no name the results."""
    found: dict[str, list[Array]] = defaultdict(list)

    def keep(path: str) -> Any:
        def hook(module: nn.Module, inputs: Any, result: Any) -> None:
            found[path] += [t.detach().dequantize().double().numpy() for t in tree_leaves(result)]

        return hook

    hooks = [part.register_forward_hook(keep(path)) for path, part in network.named_modules() if path in parts and path]
    try:
        results = run(network)
    finally:
        for hook in hooks:
            hook.remove()
    found[""] = [results]
    return found
