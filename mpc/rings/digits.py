"""Digits of public numbers and of masks, and what a public digit finds in a table of thresholds of a secret one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mpc.rings.field import FieldArray, P
from mpc.rings.kernels import INT, READ, READ_INT, WRITE, kernel

_P = np.uint64(P)


def thresholds(x: FieldArray, ignored: int, widths: Sequence[int]) -> FieldArray:
    """See `PrimeField.thresholds`."""
    out = np.zeros((x.size, sum((1 << width) - 1 for width in widths)), np.uint64)
    _thresholds(np.ascontiguousarray(x).reshape(-1), ignored, np.array(widths, np.int64), out.reshape(-1))
    return out


def look_up(x: FieldArray, ignored: int, widths: Sequence[int], table: FieldArray, one: int) -> FieldArray:
    """See `PrimeField.look_up`."""
    out = np.empty((2 * len(widths) - 1, x.size), np.uint64)
    flat, digits = np.ascontiguousarray(x).reshape(-1), np.array(widths, np.int64)
    _look_up(flat, ignored, digits, np.ascontiguousarray(table).reshape(-1), one % P, out.reshape(-1))
    return out


@kernel(READ, INT, READ_INT, WRITE)
def _thresholds(x: Any, ignored: Any, widths: Any, out: Any) -> None:
    row = 0
    for j in range(widths.size):
        row += (1 << widths[j]) - 1
    for i in range(x.size):
        rest, start = x[i] >> np.uint64(ignored), i * row
        for j in range(widths.size):
            count = (np.int64(1) << widths[j]) - 1
            digit = np.int64(rest) & count
            for v in range(count):
                out[start + v] = np.uint64(v < digit)
            rest >>= np.uint64(widths[j])
            start += count


@kernel(READ, INT, READ_INT, READ, INT, WRITE)
def _look_up(x: Any, ignored: Any, widths: Any, table: Any, one: Any, out: Any) -> None:
    n, digits, row = x.size, widths.size, 0
    for j in range(digits):
        row += (1 << widths[j]) - 1
    for i in range(n):
        rest, start = x[i] >> np.uint64(ignored), i * row
        for j in range(digits):
            count = (np.int64(1) << widths[j]) - 1
            digit = np.int64(rest) & count
            # Where a public digit is the least or the greatest there is no threshold: all, or none, are beyond.
            above = table[start + digit] if digit < count else np.uint64(0)
            out[j * n + i] = above
            if j:
                least = table[start + digit - 1] if digit else np.uint64(one)
                difference = least - above
                out[(digits + j - 1) * n + i] = min(difference, difference + _P)
            rest >>= np.uint64(widths[j])
            start += count
