"""The program that tests of stock and of blame run, and whether its result is right."""

from __future__ import annotations

from typing import Any

import numpy as np

VALUES = (0.5, -0.25)


def program(client: Any, values: tuple[float, ...] = VALUES) -> Any:
    """Three openings."""
    x = client.share(values, low=-1, high=1)
    return x * x * x * x


async def right(client: Any, *, from_stock: bool | None = None) -> None:
    """``from_stock``: whether it has to be, or must not be; None where either will do."""
    result = await client.reveal(program(client))
    assert np.abs(result - np.array(VALUES) ** 4).max() < 1e-3
    assert from_stock is None or client.last_run.from_stock is from_stock
