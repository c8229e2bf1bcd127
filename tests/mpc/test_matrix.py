"""Products, convolutions and pooling against Python integers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpc.errors import ShapeError
from mpc.rings import FieldRing, convolution, matrix
from mpc.rings.convolution import ConvKernel, conv2d, sum_pool2d
from mpc.rings.field import FieldArray, P, add
from mpc.rings.matrix import BLOCK, Limbs, matmul
from mpc.rings.prg import Seed

# Limbs that are all as large as they get, with one sign, with both signs, and the ends of the field.
LOWEST = (-(2**19) - 2**39 - (2**60 - 2**40)) % P
HIGHEST = 2**19 - 1 + ((2**19 - 1) << 20) + ((2**20 - 1) << 40)
WORST = [
    LOWEST,
    HIGHEST % P,
    P // 2,
    P // 2 + 1,
    P - 1,
    2**60,
    2**60 - 2**39 - 2**19,
    2**60 - 2**39 - 2**19 - 1,
]


def random(*shape: int) -> FieldArray:
    return np.random.default_rng(sum(shape)).integers(0, P, shape, dtype=np.uint64)


def exact(x: FieldArray, y: FieldArray) -> Any:
    return np.matmul(x.astype(object), y.astype(object)) % P


@pytest.fixture(params=["integers", "blas"])
def path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of the two ways to multiply, whatever the shapes."""
    monkeypatch.setattr(matrix, "_integers_win", lambda *_: request.param == "integers")


@pytest.mark.parametrize("inner", [1, 3, 4, 2047, 2048, 2049, BLOCK - 1, BLOCK, BLOCK + 1, 5000, 2 * BLOCK + 1])
def test_worst_limbs_at_every_inner_size(path: None, inner: int) -> None:
    for value in WORST:
        for other in (value, P - value):
            x, y = np.full((2, inner), value, np.uint64), np.full((inner, 9), other, np.uint64)
            assert np.array_equal(matmul(x, y), np.full((2, 9), inner * value * other % P))


@pytest.mark.parametrize("inner", [1, 7, 2049, 5000])
def test_random_matrices(path: None, inner: int) -> None:
    x, y = random(3, inner), random(inner, 17)
    x[0, 0], y[0, 0] = P - 1, P - 1
    assert np.array_equal(matmul(x, y), exact(x, y))


def test_the_largest_block_stays_within_53_bits() -> None:
    largest = max(abs(part) for value in WORST for part in matrix.split(np.array([value], np.uint64)).reshape(-1))
    assert 2**22 - 4 <= largest <= 2**22
    assert 2**44 * BLOCK <= 2**53


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ((4,), (4,)),
        ((4,), (4, 3)),
        ((3, 4), (4,)),
        ((2, 3, 4), (4, 5)),
        ((3, 4), (2, 4, 5)),
        ((2, 1, 3, 4), (5, 4, 2)),
        ((2, 3, 4), (2, 4, 1)),
        ((4,), (2, 4, 3)),
        ((2, 3, 4), (4,)),
        ((1, 1), (1, 1)),
        ((3, 0), (0, 2)),
        ((0, 3), (3, 2)),
        ((2, 0, 3), (3, 2)),
        ((0,), (0,)),
    ],
)
def test_shapes_are_numpys(path: None, left: tuple[int, ...], right: tuple[int, ...]) -> None:
    x, y = random(*left), random(*right)
    wanted = exact(x, y) if x.size and y.size else np.matmul(x.astype(float), y.astype(float))
    result = matmul(x, y)
    assert result.shape == np.shape(wanted)
    assert result.dtype == np.uint64
    assert np.array_equal(result, wanted)


def test_split_operands_on_either_side(path: None) -> None:
    x, y, z = random(3, 40), random(40, 20), random(2, 40, 20)
    for a in (x, Limbs(x)):
        for b in (y, Limbs(y)):
            assert np.array_equal(matmul(a, b), exact(x, y))
    assert np.array_equal(matmul(Limbs(x), z), exact(x, z))
    assert np.array_equal(matmul(x, Limbs(z)), exact(x, z))
    assert np.array_equal(matmul(x[0], Limbs(y)), exact(x[0], y))
    assert Limbs(z).shape == z.shape


@pytest.mark.parametrize("rows", [None, 2])
def test_matrices_that_are_expanded_row_by_row(monkeypatch: pytest.MonkeyPatch, rows: int | None) -> None:
    """On either side, with and without a known part: as if they were there."""
    if rows is not None:
        monkeypatch.setattr(matrix, "AT_ONCE", rows * 9)
    seed, known = Seed(bytes(16)), random(7, 9)
    for some in (None, known, known.T.copy().T):
        streamed = matrix.Streamed(some, seed, (7, 9))
        whole = seed.elements((7, 9)) if some is None else add(seed.elements((7, 9)), known)
        for left in (random(3, 7), random(7), random(2, 3, 7), Limbs(random(4, 7))):
            assert np.array_equal(matmul(left, streamed), matmul(left, whole))
        for right in (random(9, 2), random(9), random(2, 9, 3)):
            assert np.array_equal(matmul(streamed, right), matmul(whole, right))
    with pytest.raises(ShapeError):
        matmul(random(3, 6), streamed)
    for shape in ((7, 9, 1), (9, 7)):
        with pytest.raises(ShapeError):
            matrix.Streamed(known, seed, shape)
    assert not matmul(random(3, 0), matrix.Streamed(None, seed, (0, 4))).any()


def test_views_that_are_not_contiguous(path: None) -> None:
    x, y = random(6, 10)[::2, ::2], random(7, 5).T
    assert np.array_equal(matmul(x, y), exact(x, y))
    batch = random(2, 7, 5).swapaxes(1, 2)
    assert np.array_equal(matmul(x, batch), exact(x, batch))


@settings(max_examples=40)
@given(st.integers(1, 20), st.integers(1, 40), st.integers(1, 20), st.integers(0, 2**32 - 1), st.booleans())
def test_any_small_shape(m: int, k: int, n: int, seed: int, split: bool) -> None:
    rng = np.random.default_rng(seed)
    x, y = rng.choice(WORST, (m, k)).astype(np.uint64), rng.integers(0, P, (k, n), dtype=np.uint64)
    assert np.array_equal(matmul(Limbs(x) if split else x, Limbs(y) if split else y), exact(x, y))


@pytest.mark.parametrize(
    ("left", "right"), [((2, 3), (2, 3)), ((), (2, 2)), ((2, 3), ()), ((2, 3, 4), (3, 4, 5)), ((3,), (4,))]
)
def test_shapes_that_do_not_go_together(left: tuple[int, ...], right: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError):
        matmul(random(*left), random(*right))


def test_only_matrices_are_split_ahead() -> None:
    with pytest.raises(ShapeError):
        Limbs(random(3))


def windows(x: Any, kernel: tuple[int, int], stride: tuple[int, int], padding: tuple[int, int]) -> Any:
    """(N, C, rows, columns, kh, kw) of Python integers."""
    (top, left), (down, right) = padding, stride
    padded = np.pad(x, ((0, 0), (0, 0), (top, top), (left, left))).astype(object)
    return np.lib.stride_tricks.sliding_window_view(padded, kernel, (2, 3))[:, :, ::down, ::right]


def exact_conv(x: FieldArray, w: FieldArray, stride: Any, padding: Any, groups: int) -> Any:
    views = windows(x, (w.shape[2], w.shape[3]), stride, padding)
    pairs = zip(np.split(views, groups, 1), np.split(w.astype(object), groups), strict=True)
    parts = [np.tensordot(view, part, ((1, 4, 5), (1, 2, 3))) for view, part in pairs]
    return np.moveaxis(np.concatenate(parts, axis=-1), -1, 1) % P


@pytest.fixture(params=[0, 100], ids=["by matrices", "directly"])
def direct(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(convolution, "DIRECT", request.param)


@pytest.mark.usefixtures("direct")
@pytest.mark.parametrize(
    ("x", "w", "stride", "padding", "groups"),
    [
        ((1, 3, 8, 8), (4, 3, 3, 3), (1, 1), (1, 1), 1),
        ((2, 3, 7, 9), (4, 3, 3, 2), (2, 1), (0, 2), 1),
        ((2, 4, 6, 6), (6, 2, 3, 3), (1, 2), (1, 1), 2),
        ((3, 4, 5, 5), (4, 1, 3, 3), (1, 1), (1, 1), 4),
        ((2, 5, 6, 7), (3, 5, 1, 1), (1, 1), (0, 0), 1),
        ((2, 4, 6, 7), (6, 2, 1, 1), (2, 3), (0, 0), 2),
        ((2, 5, 4, 4), (3, 5, 1, 1), (1, 1), (1, 1), 1),
        ((1, 2, 4, 5), (3, 2, 4, 5), (1, 1), (0, 0), 1),
        ((1, 1, 1, 1), (1, 1, 1, 1), (1, 1), (0, 0), 1),
        ((1, 1, 2, 3), (2, 1, 5, 5), (3, 3), (2, 2), 1),
        ((2, 2, 11, 9), (3, 2, 2, 3), (3, 2), (1, 0), 1),
        ((1, 2, 9, 4), (4, 1, 5, 1), (2, 1), (2, 0), 2),
        ((1, 2, 4, 9), (3, 2, 1, 1), (2, 4), (1, 1), 1),
        ((1, 350, 3, 3), (2, 350, 3, 3), (1, 1), (1, 1), 1),
        ((0, 3, 5, 5), (2, 3, 3, 3), (1, 1), (0, 0), 1),
        ((5, 6, 9, 8), (12, 3, 7, 6), (2, 1), (1, 2), 2),
        ((3, 20, 8, 30), (5, 20, 7, 28), (1, 1), (1, 1), 1),
    ],
)
def test_convolutions(x: Any, w: Any, stride: Any, padding: Any, groups: int) -> None:
    images, weights = random(*x), random(*w)
    weights.flat[0] = P - 1
    wanted = exact_conv(images, weights, stride, padding, groups)
    result = conv2d(images, weights, stride, padding, groups)
    assert result.shape == wanted.shape
    assert np.array_equal(result, wanted)
    assert np.array_equal(conv2d(images, ConvKernel(weights, groups), stride, padding, groups), wanted)
    settled = FieldRing().settled(weights.copy())
    assert np.array_equal(settled, weights)
    kernel = ConvKernel(settled, groups)
    assert kernel.direct or np.shares_memory(kernel.rows, settled)
    assert np.array_equal(conv2d(images, kernel, stride, padding, groups), wanted)


def test_convolution_in_several_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    x = random(7, 2, 6, 6)
    for w, stride in ((random(5, 2, 3, 3), (1, 1)), (random(5, 2, 3, 3), (2, 1)), (random(5, 2, 5, 6), (1, 1))):
        whole = conv2d(x, w, stride)
        for size in (2 * 40 * 6 * 4 * 8, 40 * 6 * 8, 1):
            monkeypatch.setattr(convolution, "STRIP", size)
            monkeypatch.setattr(convolution, "TOGETHER", size)
            assert np.array_equal(conv2d(x, w, stride), whole)


@pytest.mark.parametrize(
    ("x", "w", "groups"),
    [
        ((1, 3, 5, 5), (4, 2, 3, 3), 1),
        ((1, 3, 5), (4, 3, 3, 3), 1),
        ((1, 3, 5, 5), (4, 3, 3), 1),
        ((1, 3, 2, 5), (4, 3, 3, 3), 1),
        ((1, 4, 5, 5), (3, 2, 3, 3), 2),
    ],
)
def test_convolutions_that_do_not_go_together(x: Any, w: Any, groups: int) -> None:
    with pytest.raises(ShapeError):
        conv2d(random(*x), random(*w), groups=groups)


def test_convolution_options_out_of_range() -> None:
    x, w = random(1, 2, 5, 5), random(2, 2, 3, 3)
    for stride, padding in (((0, 1), (0, 0)), ((1, 1), (-1, 0))):
        with pytest.raises(ShapeError):
            conv2d(x, w, stride, padding)
    with pytest.raises(ShapeError):
        conv2d(x, ConvKernel(w), groups=2)


@pytest.mark.parametrize(
    ("x", "kernel", "stride", "padding"),
    [
        ((2, 3, 8, 8), (2, 2), (2, 2), (0, 0)),
        ((1, 2, 7, 9), (3, 2), (2, 1), (1, 1)),
        ((1, 1, 4, 5), (4, 5), (1, 1), (0, 0)),
        ((0, 1, 4, 4), (2, 2), (2, 2), (0, 0)),
    ],
)
def test_sum_pooling(x: Any, kernel: Any, stride: Any, padding: Any) -> None:
    images = random(*x)
    images[..., 0] = P - 1
    wanted = windows(images, kernel, stride, padding).sum((4, 5)) % P
    result = sum_pool2d(images, kernel, stride, padding)
    assert result.shape == wanted.shape
    assert np.array_equal(result, wanted)
