"""Fraction bits as a parameter of a computation: ``Planner.fraction_bits`` and ``SecretTensor.precise``."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpc import fixed_point
from mpc.errors import RangeError, UnsupportedError
from mpc.program import Program
from mpc.rings import field
from mpc.tensor_type import FIELD_BITS
from protocols.lowering.plan import plan
from protocols.lowering.planner import FEWEST_BITS, FRACTION_BITS, MOST_BITS, Planner
from protocols.readings.clear import clear
from protocols.readings.memory import run_in_memory
from protocols.trace.secret_tensor import SecretTensor, concatenate, graph_of, stack

BITS = st.integers(FEWEST_BITS, MOST_BITS)


def digest(*tensors: SecretTensor) -> str:
    return plan(graph_of(tensors)).digest


def expressions(x: SecretTensor, y: SecretTensor) -> list[SecretTensor]:
    """One of each kind that depends on the number of bits."""
    return [x * 0.3, (x / 3) @ (1.1 - y), 0.7 + x, x.sigmoid(interval=(-4, 4)), x.polynomial([0.3, 0.7]), -x / 7.0]


def test_the_default_is_16_bits(secure: Any) -> None:
    x, y = secure.secret((3,)), secure.secret((3,))
    assert Planner().fraction_bits == FRACTION_BITS == 16
    assert x.precision is None
    for usual, said in zip(expressions(x, y), expressions(x.precise(16), y), strict=True):
        assert digest(usual) == digest(said)
        assert (usual.precision, said.precision) == (None, 16)
    assert digest(x * x * x * y, x**9) == digest(x.precise(16) * x * x * y, x.precise(16) ** 9)


def test_a_program_says_with_how_many_bits_it_was_written(secure: Any) -> None:
    x = secure.secret((3,))
    assert plan(graph_of([x * 2])).precision == 16
    assert plan(graph_of([x.precise(12) * 2])).precision == 12
    several = plan(graph_of([x * 2, x.precise(9) * 2], {"kept": x.precise(20) * 2}))
    assert Program.decode(several.encode()).precision == several.precision == 20
    # Nothing is rounded here: the nodes are the same, and the programs are not.
    assert digest(x + x) != digest((x + x).precise(12))


def test_another_number_changes_what_depends_on_it(secure: Any) -> None:
    x, y = secure.secret((3,)), secure.secret((3,))
    for usual, few in zip(expressions(x, y), expressions(x.precise(10), y), strict=True):
        assert digest(usual) != digest(few)
    assert (x.precise(10) * 0.1).type.fraction_bits == 16 + 10 + 3
    assert (x.precise(20) * 0.1).type.fraction_bits == 16 + 20 + 3


@settings(max_examples=30)
@given(BITS, BITS)
def test_the_greater_of_two_counts(secure: Any, a: int, b: int) -> None:
    x, y, plain = secure.secret((2, 2)).precise(a), secure.secret((2, 2)).precise(b), secure.secret((2, 2))
    for result in (x + y, x - y, x * y, x @ y, concatenate([x, y]), stack([x, y])):
        assert result.precision == max(a, b)
    for result in (x + plain, plain - x, plain * x, plain @ x, concatenate([plain, x]), 1 - x, np.ones((2, 2)) @ x):
        assert result.precision == a
    for result in (x.labelled("it"), x.T, x[0], x.sum(), x.reshape(4), x.sin(interval=(-4, 4)), x.truncate(7)):
        assert result.precision == a
    image, kernel = x.reshape(1, 1, 2, 2), y.reshape(1, 1, 2, 2)
    assert image.conv2d(kernel).precision == max(a, b)


@pytest.mark.parametrize("bits", [-1, 0, FEWEST_BITS - 1, MOST_BITS + 1, 60, 10**9])
def test_numbers_of_bits_that_do_not_fit(secure: Any, bits: int) -> None:
    reason = "noise" if bits < FEWEST_BITS else "do not fit the field of 61 bits"
    with pytest.raises(RangeError, match=f"not {bits}: .*{reason}"):
        secure.secret((3,)).precise(bits)
    with pytest.raises(RangeError, match="fraction bits"):
        Planner(fraction_bits=bits)


def test_only_whole_numbers_of_bits(secure: Any) -> None:
    with pytest.raises(UnsupportedError, match=r"a whole number, not 12\.5"):
        secure.secret((3,)).precise(12.5)


@settings(max_examples=80)
@given(st.data(), BITS)
def test_results_are_right_with_any_number_of_bits(secure: Any, data: st.DataObject, bits: int) -> None:
    """Random chains: RangeError, or within tolerance of the clear reading, and nearer the real numbers with more."""
    x = secure.secret((4,), -2.0, 2.0, bits).precise(bits)
    y = secure.secret((4,), -1.0, 1.0, bits)
    result = x
    for _ in range(data.draw(st.integers(1, 5))):
        step = data.draw(st.sampled_from(["*", "+", "scale", "third", "sigmoid"]))
        try:
            match step:
                case "*":
                    result = result * y
                case "+":
                    result = result + x
                case "scale":
                    result = result * 0.37
                case "third":
                    result = result / 3
                case "sigmoid":
                    result = result.sigmoid(interval=(-16, 16))
        except RangeError as error:
            assert "\n" not in str(error)
    assert result.precision == bits
    assert result.type.fits(FIELD_BITS)
    program = secure.program(result)
    rng = np.random.default_rng(0)
    inputs = [
        fixed_point.encode(rng.uniform(t.low, t.high, t.shape), t.fraction_bits)
        for t in (program.nodes[i].type for i in program.inputs)
    ]
    (out,) = run_in_memory(program, inputs).outputs
    difference = np.abs(field.to_signed(field.subtract(out, clear(program, inputs)[0])))
    assert difference.max() <= secure.bound(program)[program.outputs[0]]


def test_more_bits_are_more_precise(secure: Any) -> None:
    """A chain that has to be truncated on its way, against the same in float64."""
    reals = np.random.default_rng(1).uniform(-1, 1, 200)
    errors = []
    for bits in (8, 12, 16, 20):
        x = secure.secret((200,), -1.0, 1.0, bits).precise(bits)
        y, plain = x, reals
        for _ in range(6):
            y, plain = y * x + 0.1, plain * reals + 0.1
        run = run_in_memory(plan(graph_of([y])), [fixed_point.encode(reals, bits)])
        errors.append(float(np.abs(fixed_point.decode(run.outputs[0], y.type.fraction_bits) - plain).max()))
    for few, more in itertools.pairwise(errors):
        assert more < few / 4
