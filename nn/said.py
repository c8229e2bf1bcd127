"""What a model says of itself may be made by hand: what is of another type than a decoder would take is refused too."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TypeVar

import msgspec

from mpc.errors import UnsupportedError

Struct = TypeVar("Struct", bound=msgspec.Struct)


def of_its_types(check: Callable[[Struct], None]) -> Callable[[Struct], None]:
    """A ``__post_init__`` whose comparisons fail with an UnsupportedError for values of other types than the fields."""

    @functools.wraps(check)
    def checked(self: Struct) -> None:
        try:
            check(self)
        except (TypeError, AttributeError):
            fields = ", ".join(f"{name}: {kind}" for name, kind in type(self).__annotations__.items())
            raise UnsupportedError(f"{type(self).__name__} is made of ({fields})") from None

    return checked
