"""Algebras on a device of torch's, for whoever may have no torch."""

from __future__ import annotations

from mpc.errors import ConfigurationError
from mpc.rings.ring import Rings


def rings_on(device: str) -> Rings:
    """As ``mpc.rings.on_torch.rings_on``.  Raises ConfigurationError without PyTorch, too."""
    try:
        from mpc.rings import on_torch
    except ImportError:
        raise ConfigurationError(f"to compute on {device!r} takes PyTorch: install tessera-mpc[gpu]") from None
    return on_torch.rings_on(device)
