"""A module of torch's own as a layer, and a tensor of it as a weight; or why not.  Needs torch."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn
from torch.nn.modules import module as registry
from torch.nn.parameter import is_lazy

from mpc.errors import EncodingError
from nn.activations import Interval
from nn.importing.blockers import INSTEAD, refused
from nn.importing.remedies import not_here
from nn.importing.torch_layers import MODULES
from nn.layer import Array, Layer

OPTIONS = "give it options that are supported, and train through it"
"""What to do where a layer says what is wrong with an argument, and no more."""

_HOOKS = ("_forward_hooks", "_forward_pre_hooks")


def unusable(reason: str, remedy: str) -> EncodingError:
    """Of a weight that is no array of real numbers."""
    return EncodingError(f"{reason}{INSTEAD}{remedy}")


def make_layer(module: nn.Module, interval: Interval | None) -> Layer:
    """The layer that a module becomes.  Raises UnsupportedError, mostly ``refused``."""
    make = MODULES.get(type(module))
    if make is None:
        raise not_here(type(module).__name__)
    check_as_it_is(module)
    return make(module, interval=interval)


def check_as_it_is(module: nn.Module) -> None:
    """Raise UnsupportedError where something was done to it that a layer cannot keep."""
    if any(getattr(module, hooks) for hooks in _HOOKS):
        raise refused("it has forward hooks, which a layer cannot keep", "remove them, or do what they do in forward")
    if "forward" in vars(module):
        raise refused("its forward has been replaced", "make it a class of its own, whose forward can be traced")
    if module.training and (isinstance(module, nn.modules.dropout._DropoutNd) or list(module.buffers())):
        raise refused("it is in training mode even in evaluation", "make it in __init__, so that eval() reaches it")


def has_global_hooks() -> bool:
    """Whether every module of this process has hooks: a model would leave them out."""
    return any(getattr(registry, f"_global{hooks}") for hooks in _HOOKS)


def check_weight(name: str, tensor: torch.Tensor) -> None:
    """Raise EncodingError unless it is in memory, dense, and of real numbers."""
    if is_lazy(tensor):
        raise unusable(f"{name} has no values yet", "run the module once on an example, and import it then")
    if tensor.is_meta:
        raise unusable(f"{name} is a meta tensor, which has no values", "load the weights: net.load_state_dict")
    if tensor.layout is not torch.strided:
        raise unusable(f"{name} is sparse ({tensor.layout})", "make it dense: tensor.to_dense()")
    if tensor.is_quantized:
        raise unusable(f"{name} is quantized", "import the module as it was before, or tensor.dequantize()")
    if tensor.is_complex():
        reason = f"{name} has dtype {tensor.dtype}: only real floating-point weights are supported"
        raise unusable(reason, "keep real and imaginary parts as two weights")


def weight_array(name: str, tensor: torch.Tensor) -> Array:
    """Its values, float64.  Raises EncodingError."""
    check_weight(name, tensor)
    values = np.asarray(tensor.detach().to("cpu", torch.float64).numpy())
    if not np.isfinite(values).all():
        raise unusable(f"{name} holds values that are not finite", "train it again: it is not usable as it is")
    return values


def is_torchs_own(module: nn.Module) -> bool:
    """Whether its class is one of ``torch.nn``."""
    return type(module).__module__.startswith(("torch.nn.", "torch.ao.nn."))
