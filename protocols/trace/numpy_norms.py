"""NumPy's ``std`` and ``linalg.norm``, called with secret tensors."""

from __future__ import annotations

import numpy as np

from mpc.errors import UnsupportedError
from protocols.trace.arguments import Axis
from protocols.trace.numpy_protocol import registered
from protocols.trace.secret_tensor import SecretTensor


@registered(np.std)
def _std(a: SecretTensor, axis: Axis = None, *, ddof: int = 0, keepdims: bool = False) -> SecretTensor:
    return a.std(axis, ddof, keepdims)


@registered(np.linalg.norm)
def _norm(x: SecretTensor, ord: float | str | None = None, axis: Axis = None, keepdims: bool = False) -> SecretTensor:
    axes = x.ndim if axis is None else len(axis) if isinstance(axis, tuple) else 1
    if ord is not None and axes != (2 if ord == "fro" else 1):
        raise UnsupportedError(
            f"norm of order {ord!r} of {axes} axes: of matrices there is 'fro', of vectors 1, 2, inf"
        )
    return x.norm(ord, axis, keepdims)
