"""Properties that are computed when they are first asked for, in whichever thread."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, Self, TypeVar, overload

Value = TypeVar("Value")


class lazy(Generic[Value]):  # noqa: N801 - used as a decorator
    """As ``functools.cached_property``, which until Python 3.12 has one lock for all objects of a class.

    With that, whoever asks for a property of a small program waits until another thread is done with a large one.  Two
    threads that ask for the same at the same time compute it twice: it is the same.
    """

    def __init__(self, compute: Callable[[Any], Value]) -> None:
        self._compute = compute
        self.__doc__ = compute.__doc__

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    @overload
    def __get__(self, instance: None, owner: type) -> Self: ...
    @overload
    def __get__(self, instance: object, owner: type) -> Value: ...
    def __get__(self, instance: object | None, owner: type) -> Self | Value:
        if instance is None:
            return self
        # Found there the next time, before this is looked for.
        value: Value = instance.__dict__.setdefault(self._name, self._compute(instance))
        return value
