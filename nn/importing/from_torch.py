"""A torch module as a model, whatever Python its ``forward`` is written in.  torch is imported when this is called."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mpc.errors import ConfigurationError
from nn.activations import Interval
from nn.interface import NOTHING_SAID, Interface
from nn.model import Model

if TYPE_CHECKING:
    import torch


def from_torch(
    module: torch.nn.Module,
    example_input: torch.Tensor | None = None,
    *,
    interval: Interval | None = None,
    interface: Interface = NOTHING_SAID,
) -> Model:
    """The same function as ``module.eval()``, in layers of ``nn``, BatchNorm folded where it can be.

    ``example_input`` is a batch (N, ...): it fixes the input's shape, which the model then checks, and the
    sizes that ``forward`` reads from tensors.  ``interval`` is where activation layers are approximated (default:
    each one's own); ``calibrate`` chooses better from samples.  ``interface`` is what the model says of itself.
    The module is left as it was.

    Raises UnsupportedError naming the layer, its class and the reason for anything that has no counterpart,
    and EncodingError naming the parameter for weights that are not finite real numbers.
    """
    try:
        from nn.importing import torch_graph
    except ImportError as error:
        raise ConfigurationError(f"from_torch needs PyTorch: install tessera-mpc[torch] ({error})") from None
    return torch_graph.convert(module, example_input, interval, interface)
