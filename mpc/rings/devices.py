"""Algebras on a device of torch's, for whoever may have no torch."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator

from mpc.errors import ConfigurationError
from mpc.rings.ring import Rings


def rings_on(device: str) -> Rings:
    """As ``mpc.rings.on_torch.rings_on``.  Raises ConfigurationError without PyTorch, too."""
    try:
        from mpc.rings import on_torch
    except ImportError:
        raise ConfigurationError(f"to compute on {device!r} takes PyTorch: install tessera-mpc[gpu]") from None
    return on_torch.rings_on(device)


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
