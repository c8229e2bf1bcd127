"""Compiled loops: everything that touches field elements one by one.

A kernel is a function on flat, C-contiguous arrays, compiled by Numba for one fixed signature and cached on disk.  It
releases the GIL, checks no bounds and allocates nothing that it returns:  `mpc.rings.field`, `mpc.rings.matrix` and
`mpc.rings.prg` are the checked, shaped face of this module.  Kernels are compiled on first use, or all
at once by `mpc.rings.compiling`.

Field elements are uint64 in [0, p), p = 2^61 - 1.  Loops are written so that LLVM turns them into vector
code: no branch depends on data (which also keeps the time independent of secrets), and the 61 x 61-bit
product is built from 32 x 32 -> 64-bit products, the widest multiplication that vector units of every kind
have.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import numba
import numpy as np
import numpy.typing as npt
from numba import types

from mpc.rings.fingerprints import fingerprint

log = logging.getLogger(__name__)

F = TypeVar("F", bound=Callable[..., Any])
Words = npt.NDArray[np.uint64]

P = np.uint64(2**61 - 1)
_LOW = np.uint64(2**32 - 1)
_LOW_29 = np.uint64(2**29 - 1)
_U3, _U29, _U32, _U60, _U61 = (np.uint64(k) for k in (3, 29, 32, 60, 61))

# Types for signatures.  An input is declared read-only, so that both arrays one may write to and buffers that
# came off the wire are accepted by the same compiled code.
READ = types.Array(types.uint64, 1, "C", readonly=True)
WRITE = types.Array(types.uint64, 1, "C")
READ_INT = types.Array(types.int64, 1, "C", readonly=True)
WRITE_INT = types.Array(types.int64, 1, "C")
READ_BITS = types.Array(types.boolean, 1, "C", readonly=True)
INT = types.intp
WORD = types.uint64

registered: list[Kernel] = []
"""All of the modules imported so far."""

_loading = threading.Lock()

_PYTHON = "py{}{}".format(*sys.version_info)
"""As Numba writes it into the names of files."""


def inline(function: F) -> F:
    """Compile a scalar helper that kernels call; LLVM inlines it into them."""
    return cast(F, numba.njit(nogil=True)(function))


@functools.cache
def _warn_of_no_cache() -> None:
    log.warning(
        "compiled kernels cannot be kept, and every start will compile them for some seconds: "
        "set NUMBA_CACHE_DIR to a folder that this user, and nobody else, can write"
    )


def kernel(*signature: Any) -> Callable[[F], F]:
    """Compile the decorated function for exactly these argument types, on first use, with a cache on disk.

    Arguments of any other type raise `TypeError` instead of being compiled for or converted.  Result types
    are inferred.
    """

    def register(function: F) -> F:
        made = Kernel(function, signature)
        registered.append(made)
        return cast(F, made)

    return register


class Kernel:
    """Compiled, or loaded from the disk, by its first call."""

    __slots__ = ("_call", "_dispatcher", "_signature", "kept", "name", "py_func")

    def __init__(self, function: Callable[..., Any], signature: tuple[Any, ...]) -> None:
        self.name = f"{function.__module__}.{function.__name__}"
        self.py_func = function
        self.kept = True
        """There is a folder on the disk for what is compiled."""
        self._signature = signature
        self._dispatcher: Any = None
        self._call = self._first_call

    def load(self) -> bool:
        """Makes it ready.  Whether it had to be compiled for that."""
        # Threads may meet here: a second compilation would find compiling disabled by the first.
        with _loading:
            if self._dispatcher is not None:
                return False
            self._dispatcher = self._made()
            compiled = not self._dispatcher.stats.cache_hits
            if compiled and self.kept:
                # One of each kernel is kept.
                self._remove(self._dispatcher, others=True)
            return compiled

    def _made(self) -> Any:
        # Its name on the disk.
        self.py_func.__qualname__ = f"{self.py_func.__name__}.{fingerprint(self.py_func)}"
        made = self._dispatched()
        try:
            made.compile(self._signature)
        except Exception as error:
            if not self.kept:
                raise
            # It was cut short when the machine went down, say, or the disk is full.
            log.warning("kernel %s on the disk is of no use, and compiled anew: %s", self.name, error)
            self._remove(made, others=False)
            made, self.kept = numba.njit(nogil=True)(self.py_func), False
            made.compile(self._signature)
        made.disable_compile()
        return made

    def _dispatched(self) -> Any:
        try:
            return numba.njit(cache=True, nogil=True)(self.py_func)
        except RuntimeError:
            _warn_of_no_cache()
            self.kept = False
            return numba.njit(nogil=True)(self.py_func)

    def _remove(self, dispatcher: Any, *, others: bool) -> None:
        """What this Python was given before, from ``others``, that is, other code or other versions; or from this."""
        module, line = self.py_func.__module__.rpartition(".")[2], self.py_func.__code__.co_firstlineno
        ours = f"{module}.{self.py_func.__qualname__}-{line}.{_PYTHON}."
        for file in Path(dispatcher.stats.cache_path).glob(f"{module}.{self.py_func.__name__}.*{_PYTHON}.*"):
            if file.name.startswith(ours) is not others:
                # Another process may have done so, or another user owns it.
                with contextlib.suppress(OSError):
                    file.unlink()

    def _first_call(self, *arguments: Any) -> Any:
        self.load()
        self._call = self._dispatcher
        return self._dispatcher(*arguments)

    def __call__(self, *arguments: Any) -> Any:
        return self._call(*arguments)


def flat(x: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """One row, as kernels take it; no copy of what lies in a row already."""
    return np.ascontiguousarray(x).reshape(-1)


# Scalars ----------------------------------------------------------------------------------------------------


@inline
def reduce_once(x: np.uint64) -> np.uint64:
    """x mod p for x < 2p: x - p wraps around to a huge number exactly when x < p."""
    return min(x, x - P)


@inline
def of_halves(low: np.int64, high: np.int64) -> np.uint64:
    """high 2^31 + low mod p, of signed sums of products with the halves of elements."""
    p = np.int64(P)
    # high mod 2^30 moves up by 31 bits, the rest wraps around (2^61 = 1).
    rest = (low >> np.int64(61)) + (high >> np.int64(30))
    total = (low & p) + ((high & np.int64(2**30 - 1)) << np.int64(31)) + rest
    total = (total & p) + (total >> np.int64(61))
    total += p & (total >> np.int64(63))
    return np.uint64(total - (p if total >= p else np.int64(0)))


@inline
def fold(x: np.uint64) -> np.uint64:
    """A number congruent to x and at most p + 7, from 2^61 = 1 (mod p)."""
    return (x & P) + (x >> _U61)


@inline
def partial_product(x: np.uint64, y: np.uint64) -> np.uint64:
    """A number below 2^63 and congruent to x y, for x, y < 2^61.

    With x = x1 2^32 + x0 and y alike: x y = x1 y1 2^64 + m 2^32 + x0 y0, where 2^64 = 8 and, for
    m = m1 2^29 + m0, m 2^32 = m1 + m0 2^32.  The four terms are below 2^61, 2^33 + 2^61, 2^61 and 2^3.
    """
    x0, x1 = x & _LOW, x >> _U32
    y0, y1 = y & _LOW, y >> _U32
    low = x0 * y0
    middle = x1 * y0 + x0 * y1
    return ((x1 * y1) << _U3) + (middle >> _U29) + ((middle & _LOW_29) << _U32) + fold(low)


@inline
def product(x: np.uint64, y: np.uint64) -> np.uint64:
    """x y mod p."""
    return reduce_once(fold(partial_product(x, y)))


@inline
def rotate(x: np.uint64, k: np.uint64) -> np.uint64:
    """x 2^k, a number in [0, p], for x in [0, p]: doubling mod 2^61 - 1 is a rotation of 61 bits."""
    return ((x << k) & P) | (x >> (_U61 - k))


# Elementwise ------------------------------------------------------------------------------------------------
# `y` is repeated over `x`: x has the shape (outer, period, inner), y has (period,).  Loops run over slices
# from 0, because for `x[start + i]` Numba would look at the sign of every index, and the loop would not
# become vector code.


@kernel(READ, READ, WRITE, INT, INT)
def add(x: Words, y: Words, out: Words, period: int, inner: int) -> None:
    step = period if inner == 1 else inner
    for block in range(x.size // step):
        u, v = x[block * step : (block + 1) * step], out[block * step : (block + 1) * step]
        if inner == 1:
            for i in range(step):
                v[i] = reduce_once(u[i] + y[i])
        else:
            constant = y[block % period]
            for i in range(step):
                v[i] = reduce_once(u[i] + constant)


@kernel(READ, READ, WRITE, INT, INT)
def subtract(x: Words, y: Words, out: Words, period: int, inner: int) -> None:
    step = period if inner == 1 else inner
    for block in range(x.size // step):
        u, v = x[block * step : (block + 1) * step], out[block * step : (block + 1) * step]
        if inner == 1:
            for i in range(step):
                v[i] = reduce_once(u[i] + (P - y[i]))
        else:
            constant = P - y[block % period]
            for i in range(step):
                v[i] = reduce_once(u[i] + constant)


@kernel(READ, READ, WRITE, INT, INT)
def multiply(x: Words, y: Words, out: Words, period: int, inner: int) -> None:
    step = period if inner == 1 else inner
    for block in range(x.size // step):
        u, v = x[block * step : (block + 1) * step], out[block * step : (block + 1) * step]
        if inner == 1:
            for i in range(step):
                v[i] = product(u[i], y[i])
        else:
            constant = y[block % period]
            for i in range(step):
                v[i] = product(u[i], constant)


@kernel(READ, READ, READ, WRITE, INT, INT)
def multiply_add(x: Words, y: Words, z: Words, out: Words, period: int, inner: int) -> None:
    step = period if inner == 1 else inner
    for block in range(x.size // step):
        u, v = x[block * step : (block + 1) * step], out[block * step : (block + 1) * step]
        w = z[block * step : (block + 1) * step]
        if inner == 1:
            for i in range(step):
                v[i] = reduce_once(fold(partial_product(u[i], y[i]) + w[i]))
        else:
            constant = y[block % period]
            for i in range(step):
                v[i] = reduce_once(fold(partial_product(u[i], constant) + w[i]))


@kernel(READ_BITS, READ, READ, WRITE)
def choose(bits: Any, x: Words, y: Words, out: Words) -> None:
    """x where the bit is set, else y, with the bits repeated over both."""
    for block in range(out.size // max(bits.size, 1)):
        start = np.uintp(block * bits.size)
        for i in range(np.uintp(bits.size)):
            mask = np.uint64(0) - np.uint64(bits[i])
            out[start + i] = y[start + i] ^ ((x[start + i] ^ y[start + i]) & mask)


@kernel(READ_BITS, READ, WRITE)
def select(bits: Any, x: Words, out: Words) -> None:
    """x where the bit is set, else 0."""
    for i in range(x.size):
        out[i] = x[i] & (np.uint64(0) - np.uint64(bits[i]))


@kernel(INT, READ, READ, READ, READ, WRITE, WRITE)
def halve(less: int, x: Words, share: Words, sign: Words, product: Words, half: Words, out: Words) -> None:
    """x / 2, and share / 2 + (x sign + product), or less it: a half is 2^60 times the whole."""
    for i in range(x.size):
        half[i] = rotate(x[i], _U60)
    if less:
        for i in range(x.size):
            made = reduce_once(fold(partial_product(x[i], sign[i]) + product[i]))
            out[i] = reduce_once(rotate(share[i], _U60) + (P - made))
    else:
        for i in range(x.size):
            out[i] = reduce_once(fold(partial_product(x[i], sign[i]) + product[i] + rotate(share[i], _U60)))


@kernel(READ, WRITE)
def negate(x: Words, out: Words) -> None:
    for i in range(x.size):
        out[i] = reduce_once(P - x[i])


@kernel(READ_INT, WRITE)
def from_signed(x: npt.NDArray[np.int64], out: Words) -> None:
    for i in range(x.size):
        # x = top 2^61 + low with top in [-4, 3]; adding p keeps the sum of the two positive.
        out[i] = reduce_once(fold((np.uint64(x[i]) & P) + (P + np.uint64(x[i] >> 61))))


@kernel(READ, WRITE_INT)
def to_signed(x: Words, out: npt.NDArray[np.int64]) -> None:
    for i in range(x.size):
        # (p + 1) / 2 = 2^60 and above stand for negative numbers.
        out[i] = np.int64(x[i]) - np.int64(P) * np.int64(x[i] >> _U60)


@kernel(WRITE, READ)
def accumulate(total: Words, x: Words) -> bool:
    """total += x, and whether x was reduced throughout."""
    outside = np.uint64(0)
    for i in range(x.size):
        outside |= np.uint64(x[i] >= P)
        total[i] = reduce_once(total[i] + x[i])
    return bool(outside == 0)


@kernel(READ, READ, WRITE)
def accumulated(total: Words, x: Words, out: Words) -> bool:
    """total + x into ``out``, and whether x was reduced throughout."""
    outside = np.uint64(0)
    for i in range(x.size):
        outside |= np.uint64(x[i] >= P)
        out[i] = reduce_once(total[i] + x[i])
    return bool(outside == 0)


@kernel(READ)
def is_reduced(x: Words) -> bool:
    outside = np.uint64(0)
    for i in range(x.size):
        outside |= np.uint64(x[i] >= P)
    return bool(outside == 0)


@inline
def join(low: np.uint64, high: np.uint64) -> np.uint64:
    """low + high 2^32 mod p, for any two words.

    Sums of up to 2^32 words are taken as sums of their halves, which become vector code and cannot overflow.
    """
    return reduce_once(fold(fold(low) + product(reduce_once(fold(high)), np.uint64(2**32))))


@kernel(READ, WRITE, INT, INT)
def total(x: Words, out: Words, length: int, inner: int) -> None:
    """Sum the middle axis of (outer, length, inner)."""
    for block in range(out.size // inner):
        if inner == 1:
            u = x[block * length : (block + 1) * length]
            low, high = np.uint64(0), np.uint64(0)
            for i in range(length):
                low += u[i] & _LOW
                high += u[i] >> _U32
            out[block] = join(low, high)
        else:
            v = out[block * inner : (block + 1) * inner]
            for i in range(inner):
                v[i] = 0
            for j in range(block * length, (block + 1) * length):
                u = x[j * inner : (j + 1) * inner]
                for i in range(inner):
                    v[i] = reduce_once(v[i] + u[i])


@kernel(READ, READ, READ, WRITE)
def dots(x: Words, y: Words, z: Words, out: Words) -> None:
    """The sums of all x y, and of all x z."""
    low_y, high_y, low_z, high_z = np.uint64(0), np.uint64(0), np.uint64(0), np.uint64(0)
    for i in range(x.size):
        u, v = partial_product(x[i], y[i]), partial_product(x[i], z[i])
        low_y += u & _LOW
        high_y += u >> _U32
        low_z += v & _LOW
        high_z += v >> _U32
    out[0], out[1] = join(low_y, high_y), join(low_z, high_z)


# Pseudo-random elements -------------------------------------------------------------------------------------


@kernel(READ, WRITE)
def mask(x: Words, out: Words) -> bool:
    """Keep 61 bits of each word; whether any of them is p, which is not a field element."""
    rejected = np.uint64(0)
    for i in range(x.size):
        word = x[i] & P
        rejected |= np.uint64(word == P)
        out[i] = word
    return bool(rejected != 0)


@kernel(WRITE, READ)
def mask_accumulate(total: Words, x: Words) -> bool:
    """total += the low 61 bits of x; whether any of them is p."""
    rejected = np.uint64(0)
    for i in range(x.size):
        word = x[i] & P
        rejected |= np.uint64(word == P)
        total[i] = reduce_once(total[i] + word)
    return bool(rejected != 0)


@kernel(READ, WORD, READ, WRITE)
def mask_less(x: Words, factor: np.uint64, words: Words, out: Words) -> bool:
    """factor x less the low 61 bits of words; whether any of them is p."""
    rejected = np.uint64(0)
    if factor == 1:
        for i in range(out.size):
            word = words[i] & P
            rejected |= np.uint64(word == P)
            out[i] = reduce_once(x[i] + (P - word))
    else:
        for i in range(out.size):
            word = words[i] & P
            rejected |= np.uint64(word == P)
            out[i] = reduce_once(fold(partial_product(x[i], factor) + (P - word)))
    return bool(rejected != 0)
