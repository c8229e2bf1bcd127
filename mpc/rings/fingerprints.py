"""What a compiled kernel follows from: the code of the function and of all that it calls, and the compiler's version.

Numba keeps what it has compiled under the function's name and looks, before it loads that, at the file which defines
the function alone, and at a list which another process may have just replaced.  So an edited helper would leave a
kernel as it was, and two versions of Numba, or of this package, that start at once would load each other's.  Under a
name that says all of this, each finds its own or nothing.
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Iterator
from types import CodeType, FunctionType, ModuleType
from typing import Any

import numba

OURS = {__name__.partition(".")[0]}
"""Packages whose modules are looked into."""


def fingerprint(function: Callable[..., Any]) -> str:
    """16 hexadecimal digits."""
    said = [numba.__version__, *_follows_from(function, set())]
    return hashlib.sha256("\0".join(said).encode()).hexdigest()[:16]


def _follows_from(value: Any, seen: set[int]) -> Iterator[str]:
    """In the order in which it is met, each function once."""
    function = getattr(value, "py_func", value)
    if not isinstance(function, FunctionType):
        yield repr(value)
    elif id(function) not in seen:
        seen.add(id(function))
        yield inspect.getsource(function)
        free = inspect.getclosurevars(function).nonlocals
        for name in sorted(free):
            yield name
            yield from _follows_from(free[name], seen)
        for name in sorted(_names(function.__code__)):
            for found in _called(name, function.__globals__):
                yield name
                yield from _follows_from(found, seen)


def _names(code: CodeType) -> set[str]:
    inner = (constant for constant in code.co_consts if isinstance(constant, CodeType))
    return set(code.co_names).union(*map(_names, inner))


def _called(name: str, known: dict[str, Any]) -> Iterator[Any]:
    """A global; or, since names of attributes are met alike, what a module of this package has under it."""
    if name in known and not isinstance(known[name], ModuleType):
        yield known[name]
    for module in known.values():
        if isinstance(module, ModuleType) and module.__name__.partition(".")[0] in OURS and name in vars(module):
            yield vars(module)[name]
