"""What a bound says of results of comparisons: how far apart values must be for it to be a good one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from mpc import fixed_point
from mpc.operation import Input
from mpc.program import Program
from protocols.readings.clear import clear_values
from protocols.trace.secret_tensor import SecretTensor, concatenate, leaf

BITS = 6
"""Few, so that what is shared is off by much."""

CASES: dict[str, tuple[Callable[[SecretTensor], Any], Callable[[Any], Any]]] = {
    "greater": (lambda x: x > 0.3, lambda x: x > 0.3),
    "between": (lambda x: (x > -1) & (x < 0.7), lambda x: (x > -1) & (x < 0.7)),
    "argmax": (lambda x: x.argmax(), lambda x: x.argmax()),
    "argsort": (lambda x: x.argsort(), lambda x: x.argsort(kind="stable")),
    "sign of a product": (lambda x: (x * x - 0.5).sign(), lambda x: np.sign(x * x - 0.5)),
    "histogram": (lambda x: x.histogram([-2.0, -0.4, 1.1, 2.0]), lambda x: np.histogram(x, [-2.0, -0.4, 1.1, 2.0])[0]),
    "counted": (lambda x: (x > 0.3).sum() * 0.5, lambda x: (x > 0.3).sum() * 0.5),
}


def clear(program: Program, x: Any) -> Any:
    (output,) = program.outputs
    raw = clear_values(program, [fixed_point.encode(x, BITS)])[output]
    return fixed_point.decode(raw, program.nodes[output].type.fraction_bits)


def apart(x: Any, margin: float) -> bool:
    """Whether all numbers that the cases compare of ``x`` differ by more."""
    ends = np.array([0.3, -1.0, 0.7, -0.4, 1.1, -2.0, 2.0])
    with_ends, pairs = x[:, None] - ends, (x[:, None] - x)[~np.eye(len(x), dtype=bool)]
    return bool(min(np.abs(with_ends).min(), np.abs(pairs).min(), np.abs(x * x - 0.5).min()) > margin)


@pytest.mark.parametrize("name", CASES)
def test_what_is_further_apart_than_the_margin_compares_as_it_should(secure: Any, name: str) -> None:
    build, real = CASES[name]
    result = build(leaf(Input((5,), BITS, -2.0, 2.0)))
    error = result.error
    assert error.margin > 0
    assert error.apart < error.absolute
    rng, tried, wrong = np.random.default_rng(7), 0, 0
    program = secure.program(result)
    for _ in range(150):
        x = rng.uniform(-2, 2, 5)
        meant, found = np.asarray(real(x), float), clear(program, x)
        if apart(x, error.margin):
            tried += 1
            assert np.abs(found - meant).max() <= error.apart
        wrong += bool(np.abs(found - meant).max() > error.apart)
        assert np.abs(found - meant).max() <= error.absolute
    assert tried > 20


def test_a_margin_is_no_larger_than_what_is_off() -> None:
    x = leaf(Input((5,), BITS, -2.0, 2.0))
    assert (x > 0).error.margin == pytest.approx(2.0 ** -(BITS + 1))
    assert repr((x > 0).error) == (
        "<ErrorBound 1, 1 of the range: mostly a comparison of what is not exact; 0 where what is compared differs by"
        " more than 0.0078>"
    )


def test_values_that_are_chosen_need_none() -> None:
    """The greatest is as exact as all are; whole numbers compare exactly."""
    x = leaf(Input((5,), BITS, -2.0, 2.0))
    for y in (x.max(), x.relu()):
        assert y.error.margin == 0
        assert y.error.apart == y.error.absolute == pytest.approx(x.error.absolute)
    whole = leaf(Input((5,), 0, -9.0, 9.0))
    assert (whole > 3).error.absolute == whole.argmax().error.absolute == 0.0


def test_no_whole_number_is_off_by_more_than_there_are() -> None:
    x = leaf(Input((3,), BITS, -2.0, 2.0))
    assert x.argmax().error.absolute == 2.0
    assert concatenate([x, x]).argmax().error.absolute == 5.0
