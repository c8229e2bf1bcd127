"""Pieces of kernels on several threads: the same results, all of it, once each."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from mpc.errors import UsageError
from mpc.rings import bit_chains, bit_planes, convolution, field, matrix, steps, threads
from mpc.rings.field import P
from mpc.rings.prg import Seed, elements_less, elements_sum


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """So that small arrays are cut."""
    for module, name, value in (
        (threads, "LEAST", 64), (bit_planes, "_LEAST", 64), (bit_chains, "_LEAST", 64), (matrix, "LEAST", 64),
        (steps, "_LEAST", 64),
        (convolution, "LEAST", 64), (convolution, "NARROW", 64), (convolution, "STRIP", 1 << 17),
    ):  # fmt: skip
        monkeypatch.setattr(module, name, value)
    yield
    threads.use(1)


def elements(*shape: int) -> Any:
    return np.random.default_rng(sum(shape)).integers(0, P, shape, dtype=np.uint64)


def octets(*shape: int) -> Any:
    return np.random.default_rng(sum(shape)).integers(0, 256, shape, dtype=np.uint8)


SEED, OTHER = Seed(bytes(range(16))), Seed(bytes(16))
CASES: dict[str, Callable[[], Any]] = {
    "add": lambda: field.add(elements(3, 1001), elements(3, 1001)),
    "a scalar": lambda: field.multiply(elements(3003), elements(1)[0]),
    "a row": lambda: field.subtract(elements(50, 61), elements(61)),
    "a channel": lambda: field.multiply(elements(1, 30, 11, 10), elements(30, 1, 1)),
    "channels of images": lambda: field.add(elements(7, 5, 11, 10), elements(5, 1, 1)),
    "multiply and add": lambda: field.multiply_add(elements(9, 500), elements(9, 1), elements(9, 500)),
    "negate": lambda: field.negate(elements(3001)),
    "signed": lambda: field.to_signed(elements(3001)),
    "total of rows": lambda: field.total(elements(70, 61), 1),
    "total of columns": lambda: field.total(elements(9, 61, 70), 1),
    "reduced": lambda: [field.is_reduced(elements(3001)), field.is_reduced(np.full(3001, P, np.uint64))],
    "elements": lambda: SEED.elements(70_001),
    "sum of elements": lambda: elements_sum([SEED, OTHER], 70_001),
    "less elements": lambda: elements_less(elements(70_001), [SEED, OTHER]),
    "raw": lambda: SEED.raw(500_001),
    "product": lambda: matrix.matmul(elements(101, 97), elements(97, 103)),
    "long product": lambda: matrix.matmul(elements(20, 2500), elements(2500, 30)),
    "batch": lambda: matrix.matmul(elements(3, 4, 21, 40), matrix.Limbs(elements(4, 40, 33))),
    "stack of rows": lambda: matrix.matmul(elements(3, 40, 40), elements(40, 33)),
    "convolution": lambda: convolution.conv2d(elements(1, 7, 30, 30), elements(24, 7, 3, 3), (1, 1), (1, 1)),
    "large windows": lambda: convolution.conv2d(elements(9, 3, 8, 8), elements(8, 3, 7, 7), (1, 1), (1, 1)),
    "images": lambda: convolution.conv2d(elements(9, 3, 8, 8), elements(8, 3, 3, 3), (2, 2), (1, 1)),
    "depthwise": lambda: convolution.conv2d(elements(2, 30, 9, 9), elements(30, 1, 3, 3), (2, 1), (1, 1), 30),
    "windows": lambda: convolution.sum_pool2d(elements(3, 20, 9, 9), (2, 2), (2, 2)),
    "table": lambda: bit_planes.table(elements(9001), 3, [2, 3, 2]),
    "look-up": lambda: bit_planes.look_up(elements(9001), 3, [2, 3], octets(11, 1126), 1, 1, False),
    "kept": lambda: [bit_planes.kept(octets(1126), elements(9001)), bit_planes.turned(octets(1126), elements(9001))],
    "monomials": lambda: bit_chains.packed_monomials(octets(5, 1126)),
    "chain": lambda: [bit_chains.chain(octets(5, 1126), None), bit_chains.chain(octets(5, 1126), octets(10, 1126))],
    "steps": lambda: steps.table(elements(9001), 3, 7, True, 2),
    "weighed": lambda: steps.weighed(elements(9001), 3, (5, 5), [elements(9001, 1), elements(9001, 1)], 1, 1, False),
    "small signs": lambda: steps.signs(elements(429), 3, 9001),
    "small sign": lambda: steps.sign(elements(429), 3, 9001, elements(4, 9001)),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_results_do_not_depend_on_threads(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    alone = CASES[name]()
    pieces: list[int] = []
    each = threads.each
    monkeypatch.setattr(threads, "each", lambda work, count: (pieces.append(count), each(work, count))[1])
    for count in (2, 3):
        threads.use(count)
        for got, wanted in zip(_list(CASES[name]()), _list(alone), strict=True):
            assert np.array_equal(got, wanted)
    assert max(pieces) > 1


def _list(result: Any) -> list[Any]:
    return result if isinstance(result, list) else [result]


def test_every_piece_is_done_once_and_threads_share_them() -> None:
    threads.use(3)
    met, seen = threading.Barrier(3), []
    threads.each(lambda i: (met.wait(60), seen.append((i, threading.get_ident()))), 3)
    assert sorted(i for i, _ in seen) == [0, 1, 2]
    assert len({thread for _, thread in seen}) == 3


def test_pieces_may_be_cut_once_more_and_calls_may_meet() -> None:
    threads.use(2)
    seen: list[tuple[int, int]] = []
    threads.each(lambda i: threads.each(lambda j: seen.append((i, j)), 5), 6)
    assert sorted(seen) == [(i, j) for i in range(6) for j in range(5)]


def test_what_a_piece_raises_is_raised() -> None:
    def work(i: int) -> None:
        if i == 3:
            raise MemoryError("of piece 3")

    for count in (1, 3):
        threads.use(count)
        with pytest.raises(MemoryError, match="of piece 3"):
            threads.each(work, 8)


def test_pieces_cover_everything_and_begin_at_steps() -> None:
    threads.use(2)
    for size, step in ((0, 1), (1, 1), (63, 1), (1000, 7), (129, 64), (640, 64)):
        found: list[tuple[int, int]] = []
        threads.cut(lambda start, stop, found=found: found.append((start, stop)), size, step)
        found.sort()
        assert [start for start, _ in found] == [0, *(stop for _, stop in found[:-1])]
        assert found[-1][1] == size
        assert all(start % step == 0 for start, _ in found)


def test_at_least_one() -> None:
    with pytest.raises(UsageError):
        threads.use(0)
