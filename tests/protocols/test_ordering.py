"""Order, logic and counts among secrets, against NumPy: axes, ties, signs, both kinds of security."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpc.errors import RangeError, ShapeError, UnsupportedError, UsageError
from mpc.objective import ANY, Objective
from mpc.rings import BITS
from mpc.security import Security
from tests.protocols.test_comparison import computed

SHAPES = [
    ((3, 7), 1),
    ((5, 2), 0),
    ((2, 3, 4), -2),
    ((2, 9), -1),
    ((2, 1), 1),
    ((2, 18), 1),
    ((6,), None),
    ((2, 3), None),
]
ALONG: dict[str, Callable[[Any, Any], Any]] = {
    "max": lambda x, axis: np.max(x, axis),
    "min": lambda x, axis: np.min(x, axis, keepdims=True),
    "ptp": np.ptp,
    "argmax": lambda x, axis: np.argmax(x, axis, keepdims=True),
    "argmin": lambda x, axis: np.argmin(x, axis),
    "sort": np.sort,
    "argsort": lambda x, axis: np.argsort(x, axis, stable=True),
    "count": np.count_nonzero,
}


@pytest.mark.sampled(4)
@pytest.mark.parametrize("name", ALONG)
@pytest.mark.parametrize(("shape", "axis"), SHAPES)
def test_whole_numbers_are_exact(secure: Any, name: str, shape: tuple[int, ...], axis: int | None) -> None:
    raw = np.random.default_rng(len(name)).integers(-3, 4, shape)
    x = secure.secret(shape, -3, 3, 0)
    (found,) = computed(secure.program(ALONG[name](x, axis)), raw, parties=2, security=Security.SEMI_HONEST)
    wanted = ALONG[name](raw, axis)
    assert found.shape == np.shape(wanted)
    assert np.array_equal(found, wanted)


@pytest.mark.parametrize("security", Security)
def test_in_one_program_with_macs_too(secure: Any, security: Security) -> None:
    raw = np.random.default_rng(1).integers(-9, 10, (4, 5))
    x = secure.secret((4, 5), -9, 9, 0)
    outputs = [np.max(x, 0), x.argmax(1), np.sort(x), x.topk(2).indices, (x > 0) & (x < 5), x.histogram([-9, 0, 3, 9])]
    found = computed(secure.program(*outputs, objective=Objective(ANY, security)), raw, parties=3, security=security)
    largest = np.argsort(-raw, axis=1, kind="stable")[:, :2]
    wanted = [
        raw.max(0),
        raw.argmax(1),
        np.sort(raw),
        largest,
        (raw > 0) & (raw < 5),
        np.histogram(raw, [-9, 0, 3, 9])[0],
    ]
    for one, other in zip(found, wanted, strict=True):
        assert np.array_equal(one, other)


@pytest.mark.parametrize(("q", "axis"), [(0.5, None), (0.25, 0), ([0.0, 0.1, 1.0], 1), ([[0.3, 0.7]], -1)])
@pytest.mark.parametrize("keepdims", [False, True])
def test_quantiles_are_numpys(secure: Any, q: Any, axis: int | None, keepdims: bool) -> None:
    raw = np.random.default_rng(2).integers(-(2**18), 2**18, (3, 6))
    x = secure.secret((3, 6), -4.0, 4.0, 16)
    program = secure.program(np.quantile(x, q, axis, keepdims=keepdims), np.median(x, axis), np.percentile(x, 10, axis))
    found = computed(program, raw, parties=2, security=Security.SEMI_HONEST)
    real = raw / 2**16
    wanted = np.quantile(real, q, axis, keepdims=keepdims), np.median(real, axis), np.percentile(real, 10, axis)
    for one, other in zip(found, wanted, strict=True):
        assert one.shape == np.shape(other)
        assert np.abs(one - other).max() <= 3 * 2.0**-16


def test_of_no_rows_there_is_nothing(secure: Any) -> None:
    x = secure.secret((3, 0), -1, 1, 0)
    for y, wanted in ((np.amax(x, 0), (0,)), (x.argmax(0), (0,)), (np.sort(x, 0, kind="stable"), (3, 0))):
        assert y.shape == wanted


def test_the_largest_of_few_takes_four_rounds(secure: Any) -> None:
    """Three, where they are inputs; the fourth gives the result to the client."""
    x = secure.secret((100, 7))
    for y in (x.argmax(1), x.max(1), x.sort(1)):
        assert secure.program(y).rounds == 3
    assert secure.program(secure.secret((2, 9)).max(1)).rounds == 7


def test_the_largest_values_and_where_they_are(secure: Any) -> None:
    raw = np.array([[3, -1, 3, 0, 7, 7], [0, 0, 0, 0, 0, 1]])
    for count in (6, 18):
        rows = np.tile(raw, count // 6)
        values, indices = secure.secret(rows.shape, -1, 7, 0).topk(3)
        found = computed(secure.program(values, indices), rows, parties=2, security=Security.SEMI_HONEST)
        order = np.argsort(-rows, axis=1, kind="stable")[:, :3]
        assert np.array_equal(found[0], np.take_along_axis(rows, order, 1))
        assert np.array_equal(found[1], order)


@settings(max_examples=5)
@given(st.lists(st.integers(-(2**20), 2**20), min_size=17, max_size=40))
def test_networks_sort(secure: Any, values: list[int]) -> None:
    raw = np.array(values)
    x = secure.secret(raw.shape, -16.0, 16.0, 16)
    found = computed(secure.program(x.sort(), x.argsort()), raw, parties=2, security=Security.SEMI_HONEST)
    assert np.array_equal(found[0] * 2**16, np.sort(raw))
    assert np.array_equal(found[1], np.argsort(raw, kind="stable"))


LOGIC: dict[str, Callable[[Any, Any], Any]] = {
    "and": operator.and_,
    "or": operator.or_,
    "xor": operator.xor,
    "not": lambda a, b: np.logical_not(a) & b,
    "with a public one": lambda a, b: np.logical_or(a, np.array([True, False, True])) ^ b,
    "reflected": lambda a, b: np.array([1, 0, 1]) & a | b,
    "of conditions": lambda a, b: (a > 0) & (b < 1) | (a == b),
}


@pytest.mark.parametrize("name", LOGIC)
def test_logic_of_bits(secure: Any, name: str) -> None:
    a, b = (side.reshape(-1, 1) * np.ones(3, int) for side in np.meshgrid([0, 1], [0, 1]))
    x, y = (secure.secret((4, 3), 0, 1, 0) for _ in range(2))
    (found,) = computed(secure.program(LOGIC[name](x, y)), a, b, parties=2, security=Security.SEMI_HONEST)
    assert np.array_equal(found, LOGIC[name](a == 1, b == 1))


def test_places_and_counts(secure: Any) -> None:
    raw = np.array([[0, 1, 4], [2, 2, 3]])
    x = secure.secret((2, 3), 0, 4, 0)
    table = np.arange(30.0).reshape(2, 5, 3) / 8
    edges = [-1, 0, 2, 2, 3]
    outputs: list[tuple[Any, Any]] = [
        (x.one_hot(5), np.eye(5)[raw]),
        (np.any(x > 2, 0), np.any(raw > 2, 0)),
        (np.all(x > 1, axis=1, keepdims=True), np.all(raw > 1, axis=1, keepdims=True)),
        (np.clip(x, 1, np.inf) + (x < 10**30), np.maximum(raw, 1) + 1),
        (x.one_hot(8), np.eye(8)[raw]),
        (x.one_hot(2), np.eye(5)[raw][..., :2]),
        (x.one_hot(1), np.eye(5)[raw][..., :1]),
        (x.chosen_from(table, 1), np.take(table, raw, 1)),
        (x.chosen_from(table[0]), np.take(table[0], raw, 0)),
        (np.searchsorted(edges, x), np.searchsorted(edges, raw)),
        (np.searchsorted(edges, x, side="right"), np.searchsorted(edges, raw, side="right")),
        (np.digitize(x, edges), np.digitize(raw, edges)),
        (np.histogram(x, edges)[0], np.histogram(raw, edges)[0]),
        (np.bincount(x, minlength=5), np.bincount(raw.reshape(-1), minlength=5)),
        (np.bincount(x, minlength=3), np.bincount(raw.reshape(-1))[:3]),
        (np.sign(x - 2), np.sign(raw - 2)),
    ]
    program = secure.program(*(secret for secret, _ in outputs))
    found = computed(program, raw, parties=2, security=Security.SEMI_HONEST)
    for one, (_, wanted) in zip(found, outputs, strict=True):
        assert one.shape == wanted.shape
        assert np.array_equal(one, wanted)
    (rows,) = computed(
        secure.program(x.chosen_from(secure.secret((5, 2), 0, 9, 0))),
        raw,
        np.arange(10).reshape(5, 2),
        parties=2,
        security=Security.SEMI_HONEST,
    )
    assert np.array_equal(rows, np.arange(10).reshape(5, 2)[raw])


def test_what_makes_no_sense_is_an_error(secure: Any) -> None:
    x, whole = secure.secret((2, 3)), secure.secret((2, 3), -1, 3, 0)
    for error, make in (
        (ShapeError, lambda: secure.secret((2, 0)).max(1)),
        (ShapeError, lambda: secure.secret((2, 0)).argmin(1)),
        (ShapeError, lambda: secure.secret((0,)).median()),
        (ShapeError, lambda: x.topk(4)),
        (ShapeError, lambda: secure.secret((2,), 0, 3, 0).chosen_from(np.zeros((0, 3)))),
        (UnsupportedError, lambda: np.any(x)),
        (ShapeError, lambda: secure.secret((2,), 0, 3, 0).one_hot(0)),
        (UnsupportedError, lambda: x.quantile(1.5)),
        (UnsupportedError, lambda: x.quantile([])),
        (UnsupportedError, lambda: x.one_hot(3)),
        (UnsupportedError, lambda: x & x),
        (UnsupportedError, lambda: (x > 0) | 2),
        (UnsupportedError, lambda: ~whole),
        (UnsupportedError, lambda: np.histogram(x, 10)),
        (UnsupportedError, lambda: np.searchsorted(x, x)),
        (UsageError, lambda: x.searchsorted([1.0, 0.0])),
        (UsageError, lambda: x.searchsorted([0.0], side="middle")),
        (UsageError, lambda: x.histogram([0.0])),
        (RangeError, lambda: whole.one_hot(3)),
    ):
        with pytest.raises(error):
            make()


def test_pairs_of_elements_have_masks_of_elements(secure: Any) -> None:
    """Of 7 values all 21 differences are compared, and 7 numbers opened for them."""
    x = secure.secret((10, 7))
    program = secure.program((x * x).argmax(axis=1))
    opened = [node.type for node in program.nodes if node.operation.opens]
    assert opened[0].size == 70
    assert all(t.size < 210 or t.ring == BITS for t in opened)
