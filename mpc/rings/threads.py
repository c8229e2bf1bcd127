"""The threads that a process computes with: large arrays are cut into pieces, each of which any thread may do.

A piece writes what no other piece reads or writes, by compiled kernels, BLAS and AES, which leave the interpreter to
others: results do not depend on how many threads there are.  Whoever calls works along, and waits for nobody who has
not begun: however many calls meet, none stands in another's way.  What is not much larger than `LEAST` elements is done
where it is, since a hop to another thread takes as long.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from mpc.errors import UsageError

LEAST = 1 << 16
"""Elements of a piece, at least."""
FOR_EACH = 4
"""Pieces for each thread: one that is held up leaves its own to the others."""


class _Team:
    def __init__(self, count: int) -> None:
        self.count = count
        self.pool = ThreadPoolExecutor(count - 1, thread_name_prefix="tessera-kernels") if count > 1 else None


_team = _Team(1)


def use(count: int) -> None:
    """From now on so many, the caller's counted.  One until then.  Raises UsageError for less."""
    global _team
    if count < 1:
        raise UsageError(f"{count} threads: at least 1")
    former, _team = _team, _Team(count)
    if former.pool is not None:
        former.pool.shutdown(wait=False)


def in_use() -> int:
    """How many there are."""
    return _team.count


def each(work: Callable[[int], object], count: int) -> None:
    """``work(i)`` for all i below ``count``, in any order; what one of them raises is raised."""
    team = _team
    if team.pool is None or count < 2:
        for i in range(count):
            work(i)
        return
    numbers = itertools.count()

    def take() -> None:
        for i in numbers:
            if i >= count:
                return
            work(i)

    helpers = [team.pool.submit(take) for _ in range(min(team.count, count) - 1)]
    try:
        take()
    finally:
        begun = [helper for helper in helpers if not helper.cancel()]
        for helper in begun:
            helper.result()


def cut(work: Callable[[int, int], object], size: int, step: int = 1, least: int | None = None) -> None:
    """``work(start, stop)`` for pieces of [0, size), which begin at multiples of ``step``; several if each of them can
    be about as long as ``least``, by default `LEAST`."""
    count = min(FOR_EACH * _team.count, size // max(LEAST if least is None else least, step))
    if count < 2 or _team.pool is None:
        work(0, size)
        return
    ends = [size * i // count // step * step for i in range(count)] + [size]
    each(lambda i: work(ends[i], ends[i + 1]), count)


def _after_fork() -> None:
    # Threads are the parent's alone.
    global _team
    _team = _Team(_team.count)


os.register_at_fork(after_in_child=_after_fork)
