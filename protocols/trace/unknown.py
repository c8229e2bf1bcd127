"""What Python asks of values, and nobody can say of a secret: each is an error, never an answer.

Without these methods Python and NumPy would answer by themselves, and wrongly: ``x in [3]`` with False, whatever x is,
and ``np.array(x)`` with an array of objects.
"""

from __future__ import annotations

from typing import NoReturn

from mpc.errors import UnknownValueError, UnsupportedError


class Unknown:
    """Base of ``SecretTensor``."""

    __slots__ = ()

    def __contains__(self, item: object) -> bool:
        raise UnsupportedError("whether a secret tensor contains a value is secret: reveal a function of it instead")

    # -- values ----------------------------------------------------------------------------------------------------

    def __bool__(self) -> bool:
        raise UnknownValueError("a secret has no truth value that this process may know")

    def __float__(self) -> float:
        raise _no_value("float()")

    def __int__(self) -> int:
        raise _no_value("int()")

    def __complex__(self) -> complex:
        raise _no_value("complex()")

    def __index__(self) -> int:
        raise UnknownValueError("a secret is no index: places.chosen_from(table) looks up what lies at secret ones")

    def __array__(self, *_: object, **__: object) -> NoReturn:
        raise _no_value("a NumPy array")

    def item(self, *_: object) -> NoReturn:
        """Raises UnknownValueError: the number is secret."""
        raise _no_value("item()")

    def tolist(self) -> NoReturn:
        """Raises UnknownValueError: the numbers are secret."""
        raise _no_value("tolist()")

    def __setitem__(self, key: object, value: object) -> NoReturn:
        raise UnsupportedError(
            "a secret tensor does not change: write a new one, with numpy.where or numpy.concatenate"
        )

    # -- arithmetic that there is none of -----------------------------------------------------------------------------

    def __floordiv__(self, other: object) -> NoReturn:
        raise _no_rounding("//")

    __rfloordiv__ = __floordiv__

    def __mod__(self, other: object) -> NoReturn:
        raise _no_rounding("%")

    __rmod__ = __mod__

    def __divmod__(self, other: object) -> NoReturn:
        raise _no_rounding("divmod()")

    __rdivmod__ = __divmod__

    def __round__(self, digits: object = None) -> NoReturn:
        raise _no_rounding("round()")

    def __trunc__(self) -> NoReturn:
        raise _no_rounding("trunc()")

    def __floor__(self) -> NoReturn:
        raise _no_rounding("floor()")

    def __ceil__(self) -> NoReturn:
        raise _no_rounding("ceil()")

    def __lshift__(self, other: object) -> NoReturn:
        raise UnsupportedError("there is no shift of secrets: multiply or divide by a power of two")

    __rlshift__ = __rshift__ = __rrshift__ = __lshift__


def _no_value(what: str) -> UnknownValueError:
    return UnknownValueError(f"a secret has no value for {what} here: client.reveal(x) has it computed, and returns it")


def _no_rounding(what: str) -> UnsupportedError:
    return UnsupportedError(f"{what} of a secret: there is no rounding to whole numbers; use / and truncate()")
