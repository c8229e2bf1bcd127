"""Algebras on a device of torch's, for whoever may have no torch."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

from mpc.errors import ConfigurationError
from mpc.rings.ring import Rings

if TYPE_CHECKING:
    from mpc.rings.on_torch.wiping import DeviceMemory


def rings_on(device: str) -> Rings:
    """As ``mpc.rings.on_torch.rings_on``.  Raises ConfigurationError without PyTorch, too."""
    try:
        from mpc.rings import on_torch
    except ImportError:
        raise ConfigurationError(f"to compute on {device!r} takes PyTorch: install tessera-mpc[gpu]") from None
    return on_torch.rings_on(device)


def memory_on(device: str) -> DeviceMemory | None:
    """What this process has of a card's memory; None where nothing is computed on one.  After ``rings_on``."""
    if not device:
        return None
    from mpc.rings import on_torch

    return on_torch.memory_on(device)


@contextlib.contextmanager
def memory_errors() -> Iterator[None]:
    """What a device has no memory for raises MemoryError, as NumPy does."""
    try:
        yield
    except RuntimeError as error:
        torch = sys.modules.get("torch")
        # On the processor torch raises no class of its own.
        full = torch is not None and isinstance(error, torch.OutOfMemoryError)
        if full or "DefaultCPUAllocator: can't allocate memory" in str(error):
            raise MemoryError("the device has no memory left") from None
        raise
