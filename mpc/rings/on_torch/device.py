"""Which device a process computes on, and what is left there."""

from __future__ import annotations

import torch

from mpc.errors import ConfigurationError
from mpc.rings.bits import BITS
from mpc.rings.on_torch.bits import TorchBits
from mpc.rings.on_torch.field import TorchField
from mpc.rings.on_torch.steps import TorchSmall
from mpc.rings.on_torch.wiping import DeviceMemory, TorchCard
from mpc.rings.on_torch.words import negate
from mpc.rings.prime_field import FIELD
from mpc.rings.ring import Rings
from mpc.rings.small import MOST_BITS, small

VERSION = "2.13"
"""Of torch, with which these were compared with the processor's."""


def rings_on(device: str) -> Rings:
    """All algebras on a device as torch calls it ("cuda", "cuda:1", "cpu").

    Raises ConfigurationError where there is no such device, none that computes in float64, or none for which torch can
    compile; where torch is of another version; and for what is neither a card of CUDA's nor the processor.
    """
    found = _usable(device)
    few = {small(bits): TorchSmall(found, bits) for bits in range(1, MOST_BITS + 1)}
    return {FIELD: TorchField(found), BITS: TorchBits(found), **few}


def memory_on(device: str) -> DeviceMemory | None:
    """What a process has of a card's memory; None on the processor."""
    found = torch.device(device)
    return DeviceMemory(TorchCard(found)) if found.type == "cuda" else None


def _usable(device: str) -> torch.device:
    if not torch.__version__.startswith(f"{VERSION}."):
        raise ConfigurationError(
            f"torch {torch.__version__} is installed, and to compute with it takes {VERSION}: install tessera-mpc[gpu]"
        )
    try:
        found = torch.device(device)
    except RuntimeError:
        found = None
    if found is None or found.type not in ("cuda", "cpu"):
        # Of others it is not known how what is left in their memory is overwritten.
        raise ConfigurationError(f"{device!r} is neither a card of CUDA's nor the processor: nothing else is used")
    try:
        square = torch.ones(2, 2, dtype=torch.float64, device=found)
        (square @ square).cpu()
        # Its kernels are compiled at first use: better now than in the midst of a run.
        negate(torch.zeros(1, dtype=torch.int64, device=found)).cpu()
    except (RuntimeError, AssertionError, TypeError) as error:
        said = str(error).partition("\n")[0]
        raise ConfigurationError(f"torch {torch.__version__} cannot compute on {device!r} here: {said}") from None
    return found
