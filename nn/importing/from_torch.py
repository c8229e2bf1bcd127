"""A torch module as a model, whatever Python its ``forward`` is written in.  torch is imported when this is called."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from mpc.errors import ConfigurationError
from nn.activations import Interval
from nn.importing.samples import Samples
from nn.interface import NOTHING_SAID, Interface, as_read
from nn.model import Model

if TYPE_CHECKING:
    import torch

TOLERANCE = 0.01
"""A hundredth of the largest result: what differs by less leaves all but the closest of decisions as they are."""


def from_torch(
    module: torch.nn.Module,
    samples: Samples | Mapping[str, Samples] | None = None,
    *,
    example_input: torch.Tensor | None = None,
    tolerance: float = TOLERANCE,
    interval: Interval | None = None,
    interface: Interface = NOTHING_SAID,
) -> Model:
    """The same function as ``module.eval()``, in layers of ``nn``, BatchNorm folded where it can be.

    ``samples`` are inputs like those to come: a batch (N, ...), or several one after the other, of which up to 1,024
    inputs are looked at.  Intervals are chosen to cover them (``calibrate``), and module and model are evaluated on
    them and on perturbed copies: a model whose results differ by more than ``tolerance`` times the largest of the
    module's results is not returned, nor one that fixed-point numbers take so far from them (looked at for one input,
    of networks of up to 2^30 products).  Without samples nothing is compared, and a RangeWarning names each layer whose
    interval cannot be shown to hold.

    Whole numbers that the network looks up (``nn.Embedding``) are tokens: the model says so (``TokenInput``), and
    whoever asks it gives whole numbers, which are shared as one-hot vectors.  For a forward of several inputs,
    ``samples`` is a dict of batches by forward's names; the model takes such dicts (``SeveralInputs``).  Of several
    results, in a tuple or a dict, the model gives a row, and ``interface.named`` tells them apart.

    A model is one function of each input.  Batches of the samples' size and of 1, 2, 3 are compared, and of the sizes
    with which ``forward`` compares its own (``if x.shape[0] == 7``), up to 2^24 numbers a batch: only a ``forward``
    that is another function by ``len(x)``, or by a dict of sizes, is not noticed.

    Without samples, ``example_input`` is a batch (N, ...) that fixes the input's shape and the sizes that ``forward``
    reads from tensors, and ``interval`` is where activation layers are approximated (default: each one's own).
    ``interface`` is what the model says of itself.  Module, samples and random numbers are left as they were.

    Raises UnsupportedError naming each layer that has no counterpart, its line, the reason and what to do instead;
    EncodingError naming the parameter for weights that are not finite real numbers; ShapeError for inputs that the
    module does not take; RangeError for a layer whose inputs no approximation covers; DiffersFromSource, with the first
    layer that differs.
    """
    try:
        from nn.importing import torch_import
    except ImportError as error:
        raise ConfigurationError(f"from_torch needs PyTorch: install tessera-mpc[torch] ({error})") from None
    return torch_import.load(module, samples, example_input, tolerance, interval, as_read(interface))
