"""NumPy's ``maximum``, ``minimum`` and ``clip``, called with secret tensors."""

from __future__ import annotations

from typing import Any

import numpy as np

from protocols.trace.numpy_protocol import registered
from protocols.trace.selection import Selection


@registered(np.maximum)
def _maximum(x: Any, y: Any) -> Any:
    return x.maximum(y) if isinstance(x, Selection) else y.maximum(x)


@registered(np.minimum)
def _minimum(x: Any, y: Any) -> Any:
    return x.minimum(y) if isinstance(x, Selection) else y.minimum(x)


@registered(np.clip)
def _clip(a: Any, a_min: Any = None, a_max: Any = None, *, min: Any = None, max: Any = None) -> Any:
    return a.clip(a_min if min is None else min, a_max if max is None else max)
