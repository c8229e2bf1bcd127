"""NumPy's own protocols: how its functions, called with secret tensors, find what they mean here.

NumPy hands its functions over (``__array_function__``, NEP 18; ``__array_ufunc__``, NEP 13), and ``SecretTensor``
passes them on to ``call`` and ``call_ufunc``.  What is not registered raises UnsupportedError, and never makes an array
of objects.  `protocols.trace.numpy_functions` registers.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np

from mpc.errors import UnsupportedError
from protocols.trace.unknown import Unknown

Implementation = TypeVar("Implementation", bound=Callable[..., Any])

_FUNCTIONS: dict[Any, Callable[..., Any]] = {}
_UFUNCS: dict[Any, Callable[..., Any]] = {}
_ADVICE = "write it with +, -, *, /, @, sums and the methods of a secret tensor, or reveal its argument first"


def registered(*functions: Any) -> Callable[[Implementation], Implementation]:
    """Makes what it decorates the meaning of these functions of NumPy's, for secret tensors."""

    def register(implementation: Implementation) -> Implementation:
        for function in functions:
            (_UFUNCS if isinstance(function, np.ufunc) else _FUNCTIONS)[function] = implementation
        return implementation

    return register


def call(function: Any, arguments: Sequence[Any], options: dict[str, Any]) -> Any:
    """What a function of NumPy's is of secret tensors.  Raises UnsupportedError for one that is not here."""
    name = f"{function.__module__}.{function.__name__}"
    implementation = _FUNCTIONS.get(function)
    if implementation is None:
        raise UnsupportedError(f"{name} does not take secret tensors: {_ADVICE}")
    signature = inspect.signature(implementation)
    try:
        bound = signature.bind(*arguments, **options)
    except TypeError as error:
        raise UnsupportedError(f"{name} of a secret tensor: {error}") from None
    first = next(iter(signature.parameters.values()))
    if first.annotation == "SecretTensor" and not isinstance(bound.arguments[first.name], Unknown):
        raise UnsupportedError(f"{name} takes a secret tensor as its first argument, and only there")
    return implementation(*arguments, **options)


def call_ufunc(ufunc: np.ufunc, method: str, operands: Sequence[Any], options: dict[str, Any]) -> Any:
    """Likewise for a universal function."""
    implementation = _UFUNCS.get(ufunc)
    name = f"numpy.{ufunc.__name__}"
    if method == "reduce" and ufunc is np.add:
        # Along the first axis, where none is named: numpy.sum is of all.
        return call(np.sum, operands, {"axis": 0, **{k: v for k, v in options.items() if v is not None or k == "axis"}})
    if implementation is None or method != "__call__":
        raise UnsupportedError(f"{name}{'' if method == '__call__' else '.' + method} does not take secrets: {_ADVICE}")
    if options:
        raise UnsupportedError(f"{name} of a secret tensor takes no {', '.join(sorted(options))}")
    return implementation(*operands)


def either(test: Callable[[Any, Any], Any], reflected: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """``test``, which a secret tensor is asked for whichever operand it is: NumPy's arrays would ask NumPy again."""
    return lambda x, y: test(x, y) if isinstance(x, Unknown) else reflected(y, x)
