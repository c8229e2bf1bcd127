"""Which device a process computes on, and what is left there."""

from __future__ import annotations

import torch

from mpc.errors import ConfigurationError
from mpc.rings.bits import BITS
from mpc.rings.on_torch.bits import TorchBits
from mpc.rings.on_torch.field import TorchField
from mpc.rings.on_torch.steps import TorchSmall
from mpc.rings.prime_field import FIELD
from mpc.rings.ring import Rings
from mpc.rings.small import MOST_BITS, small


def rings_on(device: str) -> Rings:
    """All algebras on a device as torch calls it ("cuda", "cuda:1", "cpu").

    Raises ConfigurationError where there is no such device, or none that computes in float64.
    """
    try:
        found = torch.device(device)
        (
            torch.ones(2, 2, dtype=torch.float64, device=found) @ torch.ones(2, 2, dtype=torch.float64, device=found)
        ).cpu()
    except (RuntimeError, AssertionError, TypeError) as error:
        said = str(error).partition("\n")[0]
        raise ConfigurationError(f"torch {torch.__version__} cannot compute on {device!r} here: {said}") from None
    few = {small(bits): TorchSmall(found, bits) for bits in range(1, MOST_BITS + 1)}
    return {FIELD: TorchField(found), BITS: TorchBits(found), **few}
