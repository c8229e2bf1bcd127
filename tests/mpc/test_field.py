"""The field against Python integers."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpc.rings import field
from mpc.rings.field import FieldArray, P

EXTREMES = [
    0,
    1,
    2,
    P - 1,
    P - 2,
    P // 2,
    P // 2 + 1,
    2**60,
    2**60 - 1,
    *(2**k for k in range(61)),
    2**32 - 1,
]
elements = st.one_of(st.sampled_from(EXTREMES), st.integers(0, P - 1))


def array(values: list[int]) -> FieldArray:
    return np.array(values, np.uint64)


def random(*shape: int) -> FieldArray:
    return np.random.default_rng(sum(shape)).integers(0, P, shape, dtype=np.uint64)


def exact(x: FieldArray) -> Any:
    return x.astype(object)


@given(st.lists(st.tuples(elements, elements, elements), min_size=1, max_size=40))
def test_elementwise_operations_agree_with_python_integers(triples: list[tuple[int, int, int]]) -> None:
    x, y, z = (array(list(column)) for column in zip(*triples, strict=True))
    assert field.add(x, y).tolist() == [(a + b) % P for a, b, _ in triples]
    assert field.subtract(x, y).tolist() == [(a - b) % P for a, b, _ in triples]
    assert field.multiply(x, y).tolist() == [a * b % P for a, b, _ in triples]
    assert field.multiply_add(x, y, z).tolist() == [(a * b + c) % P for a, b, c in triples]
    assert field.negate(x).tolist() == [-a % P for a, _, _ in triples]


def test_every_pair_of_extremes() -> None:
    x, y = np.array(EXTREMES, np.uint64)[:, None], np.array(EXTREMES, np.uint64)[None, :]
    assert np.array_equal(field.multiply(x, y), exact(x) * exact(y) % P)
    assert np.array_equal(field.add(x, y), (exact(x) + exact(y)) % P)
    assert np.array_equal(field.subtract(x, y), (exact(x) - exact(y)) % P)


@pytest.mark.parametrize(
    "shapes",
    [
        ((), ()),
        ((5,), ()),
        ((), (3, 4)),
        ((2, 3, 4), (4,)),
        ((2, 3, 4), (3, 1)),
        ((2, 3, 4, 5), (3, 1, 1)),
        ((2, 3, 4, 5), (3, 4, 1)),
        ((2, 3, 4, 5), (2, 1, 4, 1)),
        ((2, 1, 4), (3, 1)),
        ((3, 1), (1, 1, 5)),
        ((1, 1, 1), (1,)),
        ((1,), (1, 1, 1)),
        ((0, 3), (3,)),
        ((0,), (1,)),
    ],
)
def test_broadcasting_is_numpys(shapes: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    x, y = random(*shapes[0]), random(*shapes[1])
    for a, b in ((x, y), (y, x)):
        for result, wanted in (
            (field.add(a, b), exact(a) + exact(b)),
            (field.subtract(a, b), exact(a) - exact(b)),
            (field.multiply(a, b), exact(a) * exact(b)),
            (field.multiply_add(a, b, a), exact(a) * exact(b) + exact(a)),
        ):
            wanted = np.asarray(wanted % P)
            assert result.shape == wanted.shape
            assert np.array_equal(result, wanted)


def test_views_that_are_not_contiguous() -> None:
    x = random(6, 8)[::2, ::-1].T
    y = np.asfortranarray(random(8, 3))
    assert np.array_equal(field.multiply(x, y), exact(x) * exact(y) % P)
    assert np.array_equal(field.negate(x), -exact(x) % P)


def test_out_may_be_an_operand_or_a_view() -> None:
    x, y = random(4, 6), random(1, 6)
    wanted = exact(x) * exact(y) % P
    strided = np.zeros((4, 12), np.uint64)[:, ::2]
    assert field.multiply(x, y, strided) is strided
    assert np.array_equal(strided, wanted)
    assert field.multiply(x, y, x) is x
    assert np.array_equal(x, wanted)
    with pytest.raises(ValueError, match="shape"):
        field.add(x, y, np.empty((4, 5), np.uint64))


def test_read_only_operands() -> None:
    x = np.frombuffer(random(7).tobytes(), np.uint64)
    assert np.array_equal(field.add(x, x), 2 * exact(x) % P)
    assert field.is_reduced(x)


def test_another_dtype_is_refused() -> None:
    with pytest.raises(TypeError):
        field.add(random(3), np.ones(3, np.int64))
    with pytest.raises(TypeError):
        field.negate(np.ones(3))  # type: ignore[arg-type]


@given(st.lists(elements, min_size=1, max_size=10), st.integers(-(2**200), 2**200))
def test_scale_takes_any_integer(values: list[int], k: int) -> None:
    assert field.scale(array(values), k).tolist() == [v * k % P for v in values]


@given(st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=20))
def test_from_signed_reduces_any_int64(values: list[int]) -> None:
    assert field.from_signed(np.array(values, np.int64)).tolist() == [v % P for v in values]


def test_from_signed_at_multiples_of_p() -> None:
    values = [k * P + d for k in range(-3, 4) for d in range(-9, 10)]
    assert field.from_signed(np.array(values, np.int64)).tolist() == [v % P for v in values]


@given(st.lists(st.integers(-(P // 2), P // 2), min_size=1, max_size=20))
def test_to_signed_undoes_from_signed(values: list[int]) -> None:
    signed = np.array(values, np.int64)
    assert np.array_equal(field.to_signed(field.from_signed(signed)), signed)


@pytest.mark.parametrize("axis", [None, 0, 1, -1, (0, 1), (0, 2), (-1, 0), (0, 1, 2, 3), (1, 2), ()])
@pytest.mark.parametrize("keepdims", [False, True])
def test_total_over_any_axes(axis: Any, keepdims: bool) -> None:
    x = random(3, 4, 5, 6)
    x[0] = P - 1
    wanted = np.asarray(np.sum(exact(x), axis=axis, keepdims=keepdims) % P)
    result = field.total(x, axis, keepdims)
    assert result.shape == wanted.shape
    assert np.array_equal(result, wanted)


@pytest.mark.parametrize("size", [0, 1, 100_003])
def test_two_sums_of_products_in_one_pass(size: int) -> None:
    x, y, z = random(size), random(size), np.full(size, P - 1, np.uint64)
    x[::2] = P - 1
    assert [int(n) for n in field.dots(x, y, z)] == [int(np.sum(exact(x) * exact(other)) % P) for other in (y, z)]


def test_total_of_many_and_of_none() -> None:
    assert int(field.total(np.full(1_000_003, P - 1, np.uint64))) == -1_000_003 % P
    assert np.array_equal(field.total(field.zeros((0, 3)), 0), [0, 0, 0])
    assert field.total(field.zeros((3, 0)), 0).shape == (0,)
    assert int(field.total(array([5])[0:1].reshape(()))) == 5
    with pytest.raises(ValueError, match="axes"):
        field.total(random(2, 2), 2)


@pytest.mark.parametrize("bad", [P, P + 1, 2**61, 2**63, 2**64 - 1])
@pytest.mark.parametrize("position", [0, 40, 99])
def test_accumulate_notices_what_is_not_a_field_element(bad: int, position: int) -> None:
    x, y = random(100), random(100)[::-1].copy()
    wanted = (exact(x) + exact(y)) % P
    acc = x.copy()
    assert field.accumulate(acc, y)
    assert np.array_equal(acc, wanted)
    assert np.array_equal(field.accumulated(x, y), wanted)
    y[position] = bad
    assert not field.accumulate(x.copy(), y)
    assert field.accumulated(x, y) is None
    assert not field.is_reduced(y)
    with pytest.raises(ValueError, match="accumulate"):
        field.accumulate(acc, y[:50])
    with pytest.raises(ValueError, match="accumulate"):
        field.accumulated(acc, y[:50])


def test_where_no_compiled_code_can_be_kept_it_is_compiled_all_the_same() -> None:
    """As on a read-only file system without a home: once said, what to do about it."""
    script = (
        "from numba.core import caching\n"
        "caching.CacheImpl._locator_classes = []\n"
        "from mpc.rings import compiling, field\n"
        "import numpy as np\n"
        "print(field.add(np.array([3], np.uint64), np.array([2**61 - 2], np.uint64))[0])\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.strip() == "2"
    assert done.stderr.count("NUMBA_CACHE_DIR") == 1
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "shapes", [((3,), (3,), (3,)), ((5,), (2, 5), (2, 5)), ((), (4,), (4,)), ((2, 1), (2, 3), ()), ((0,), (2, 0), (0,))]
)
def test_choosing_by_bits(shapes: tuple[tuple[int, ...], ...]) -> None:
    generator = np.random.default_rng(5)
    bits = np.asarray(generator.integers(0, 2, shapes[0]) == 1)
    x, y = (np.asarray(generator.integers(0, field.P, shape, dtype=np.uint64)) for shape in shapes[1:])
    assert np.array_equal(field.choose(bits, x, y), np.where(bits, x, y))


@pytest.mark.parametrize("less", [False, True])
def test_halves(less: bool) -> None:
    """Of the ends of the field, and of what is drawn, in pieces or not."""
    ends = np.array([0, 1, field.P - 1, field.P // 2], np.uint64)
    for x in (np.array(field.P - 1, np.uint64), np.concatenate([np.repeat(ends, 4), random(9)])):
        share, sign, product = x[..., ::-1] if x.ndim else x, np.resize(ends, x.shape), np.resize(ends[::-1], x.shape)
        half, out = field.halve(x, share, sign, product, less)
        added = exact(x) * exact(sign) + exact(product)
        assert np.array_equal(exact(half) * 2 % P, exact(x))
        assert np.array_equal(exact(out) * 2 % P, (exact(share) + 2 * (-added if less else added)) % P)
        assert int(np.max(half)) < P > int(np.max(out))


def test_selecting_by_bits() -> None:
    for x in (random(), random(3, 4), random(0)):
        bits = x < np.uint64(1 << 60)
        assert np.array_equal(field.select(bits, x), np.where(bits, x, 0))
    with pytest.raises(ValueError, match="bits"):
        field.select(np.ones(2, bool), random(3))
