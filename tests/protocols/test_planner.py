"""The planner's decisions: where fraction bits go, when something is truncated, what is opened and in which round."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpc import fixed_point
from mpc.errors import RangeError
from mpc.operation import Constant
from mpc.rings import field
from mpc.tensor_type import FIELD_BITS, TRUNCATION_BITS, Form
from protocols.lowering.plan import lowered, plan
from protocols.lowering.planner import FRACTION_BITS, Planner, constant
from protocols.operations.product import Multiply
from protocols.readings.clear import clear
from protocols.readings.memory import run_in_memory
from protocols.trace.secret_tensor import SecretTensor, graph_of


def names(*tensors: SecretTensor) -> Counter[str]:
    return Counter(n.operation.name for n in plan(graph_of(tensors)).nodes)


def rounds(*tensors: SecretTensor) -> int:
    return plan(graph_of(tensors)).rounds


def test_nothing_is_truncated_before_it_has_to_be(secure: Any) -> None:
    x, y = secure.secret((3,)), secure.secret((3,))
    assert (x * y).type.fraction_bits == 32
    # 0.1 x is below 1, and right to half a unit of 2^-17; 0.01 x of 2^-20.
    assert (x * 0.1).type.fraction_bits == 16 + 2 + 17
    assert (x * 0.1 * 0.1).type.fraction_bits == 16 + 2 + 17 + (20 - 1)
    assert names(x * y + 1, x * 0.1, (x - y).mean(), x.sum() / 8)["truncate"] == 0


def test_products_are_truncated_when_the_next_one_would_not_fit(secure: Any) -> None:
    x = secure.secret((3,))
    once = x * x
    assert names(once * 0.3)["truncate"] == 0
    # 16 + 4 and 32 + 8 bits of magnitude do not fit 59 together with another 20: one operand is cut down.
    assert names(once * once * once)["truncate"] >= 1
    assert (once * once).type.bits <= TRUNCATION_BITS


def test_the_operand_with_more_bits_is_truncated_and_to_the_usual_ones(secure: Any) -> None:
    x = secure.secret((3,), -1, 1)
    deep = x * x * x  # 48 bits
    program = plan(graph_of([deep * x]))
    truncations = [n.operation.bits for n in program.nodes if n.operation.name == "truncate"]  # type: ignore[attr-defined]
    assert len(truncations) == 1
    assert (deep * x).type.fraction_bits <= TRUNCATION_BITS
    assert (deep * x).type.fraction_bits >= 2 * FRACTION_BITS


def test_inputs_and_stored_tensors_need_no_opening(secure: Any) -> None:
    x, w = secure.secret((3, 3)), secure.stored("w", (3, 3))
    assert rounds(x @ w) == 0
    assert rounds(x @ w + secure.stored("b", (3,), bits=30)) == 0
    assert rounds((x + 1)[1:].sum(0) * 2 @ w) == 0
    assert rounds(x.sigmoid(interval=(-4, 4))) == 0


def test_a_tensor_is_masked_once_however_often_it_is_used(secure: Any) -> None:
    x = secure.secret((3,), -1, 1, 12)
    y = x * x
    z = y * y + y**2 + y.sigmoid(interval=(-8, 8)) + y * x
    assert names(z)["mask"] == 1
    assert rounds(z) == 1


def test_a_truncation_of_the_same_tensor_is_made_once(secure: Any) -> None:
    y = secure.secret((3,)) * secure.secret((3,))
    assert lowered(y.truncate(16).node) is lowered(y.truncate(16).node)
    assert lowered(y.truncate(32).node) is lowered(y.node)
    assert names(y.truncate(16), y.truncate(16), y.truncate(10))["truncate"] == 2
    assert rounds(y.truncate(16), y.truncate(10)) == 1


def test_masked_after_pooling_not_before(secure: Any) -> None:
    x = secure.secret((1, 1, 8, 8), -1, 1, 10)
    y = (x * x).avg_pool2d(2)
    program = plan(graph_of([y * y]))
    assert sum(n.type.size for n in program.nodes if n.operation.opens) == 16


def test_parallel_branches_take_as_many_rounds_as_the_deeper_one(secure: Any) -> None:
    x = secure.secret((3,)).truncate(12)
    shallow = x.sigmoid(interval=(-4, 4))
    deep = shallow.sigmoid(interval=(-4, 4)).sigmoid(interval=(-4, 4))
    other = x * x * x
    assert (rounds(shallow), rounds(deep)) == (1, 3)
    assert rounds(deep, other) == 3
    # One round to truncate, one to open what is left.
    assert rounds(deep * other) == max(rounds(deep), rounds(other)) + 2
    assert rounds(deep + other) == 3


def test_sums_align_upwards_for_free(secure: Any) -> None:
    x, y = secure.secret((3,)), secure.secret((3,))
    total = x * y + x
    assert total.type.fraction_bits == 32
    assert names(total)["truncate"] == 0
    assert names(total)["raise"] == 1


def test_sums_align_downwards_when_they_must(secure: Any) -> None:
    fine = secure.secret((3,), -1, 1) * secure.secret((3,), -1, 1) * 0.3  # 47 bits or so
    large = secure.secret((3,), -(2.0**20), 2.0**20)
    total = fine + large
    assert names(total)["truncate"] == 1
    assert total.type.fraction_bits == 38
    assert total.type.fits(FIELD_BITS)


def test_sums_of_many_elements_are_truncated_first(secure: Any) -> None:
    x = secure.secret((2**16,))
    y = x * x * 0.3
    assert names(y.sum())["truncate"] == 1
    assert y.sum().type.fits(TRUNCATION_BITS)
    assert names((x * 2).sum())["truncate"] == 0


def test_division(secure: Any) -> None:
    x = secure.secret((3,))
    assert (x / 8).type.fraction_bits == 19
    assert names(x / 8) == {"input": 1, "divide": 1}
    assert names(x / 24)["divide"] == 1
    assert names(x / 24)["multiply"] == 1
    assert names(x / 3.7)["divide"] == 0
    # Fraction bits that would not fit the field are taken off before.
    deep = x * x * 0.3
    y = deep / 2**20
    assert y.type.fraction_bits <= FIELD_BITS
    assert (x / 2**29 / 2**29).type.fraction_bits <= FIELD_BITS


def test_fraction_bits_stay_within_the_field(secure: Any) -> None:
    """Small values have room for more bits than the field counts: still at most 60."""
    x = secure.secret((3,), -(2.0**-12), 2.0**-12)
    y = x
    for _ in range(6):
        y = y * 0.3
    assert y.type.fraction_bits <= FIELD_BITS


@pytest.mark.parametrize(
    ("values", "bits"),
    [(0.0, 0), (3.0, 0), ([0.5, 2.0], 1), ([0.75], 2), (0.1, FRACTION_BITS), ([1e-9, 5.0], FRACTION_BITS)],
)
def test_constants_take_the_fewest_bits_that_are_exact(values: Any, bits: int) -> None:
    c = constant(values)
    assert c.type.fraction_bits == bits
    assert c.type.form is Form.PUBLIC
    assert isinstance(c.operation, Constant)
    real = fixed_point.decode(c.operation.array(), bits)
    assert np.abs(real - np.asarray(values)).max() <= 2.0**-15
    assert (c.type.low, c.type.high) == (real.min(), real.max())


@pytest.mark.parametrize("value", [1e-3, 0.0009997, -3e-5, 0.3, 0.9999, 7.3, 1e-9, 1e9])
@pytest.mark.parametrize("bound", [2.0**-20, 1.0, 4.0, 2.0**20])
def test_factors_keep_their_digits(secure: Any, value: float, bound: float) -> None:
    x = lowered(secure.secret((3,), -bound, bound).node)
    cut, c = Planner().scaling(x, value)
    assert isinstance(c.operation, Constant)
    real = float(fixed_point.decode(c.operation.array(), c.type.fraction_bits))
    assert abs(real / value - 1) < 2.0**-17 / min(1.0, bound * abs(value)) / (bound * abs(value)) + 2.0**-18
    product = Planner().product(Multiply(), cut, c)
    assert product.type.fits(TRUNCATION_BITS)
    assert cut is x or cut.type.fraction_bits >= 6


@pytest.mark.parametrize(
    "build",
    [
        lambda s: s.secret((3,), -(2.0**40), 2.0**40) * s.secret((3,), -(2.0**40), 2.0**40),
        lambda s: s.secret((2**20,), -(2.0**40), 2.0**40).sum(),
        lambda s: s.secret((3,), -(2.0**43), 2.0**43) + 2.0**54,
        lambda s: s.secret((3,), -(2.0**30), 2.0**30) ** 2 * 2.0**20,
        lambda s: s.secret((4, 2**20), -(2.0**20), 2.0**20) @ s.secret((2**20,), -(2.0**20), 2.0**20),
        lambda s: s.secret((3,), -(2.0**43), 2.0**43).truncate(3),
        lambda s: s.secret((3,)).within(5, 6),
        lambda s: s.secret((3,)).within(1, 0),
        lambda s: s.secret((3,), -(2.0**50), 2.0**50),
    ],
)
def test_what_cannot_be_shown_to_fit_is_refused_with_a_sentence(secure: Any, build: Any) -> None:
    with pytest.raises(RangeError) as caught:
        build(secure)
    message = str(caught.value)
    assert "declare" in message or "cannot lie in" in message
    assert "\n" not in message


@settings(max_examples=150)
@given(st.data())
def test_any_expression_fits_the_field_or_is_refused(secure: Any, data: st.DataObject) -> None:
    """Random expressions over random ranges: RangeError, or a result within tolerance of the clear reading."""
    magnitudes = st.integers(-12, 25).map(lambda k: 2.0**k)
    pool = [
        secure.secret((2,), -m, m, data.draw(st.integers(6, 20))) for m in data.draw(st.tuples(magnitudes, magnitudes))
    ]
    for _ in range(data.draw(st.integers(1, 6))):
        x, y = data.draw(st.sampled_from(pool)), data.draw(st.sampled_from(pool))
        scale = data.draw(st.sampled_from([0.001, 0.3, 5.0, 1000.0, -2.0]))
        step = data.draw(st.sampled_from(["+", "-", "*", "scale", "shift", "divide", "power"]))
        try:
            match step:
                case "+":
                    pool.append(x + y)
                case "-":
                    pool.append(x - y)
                case "*":
                    pool.append(x * y)
                case "scale":
                    pool.append(x * scale)
                case "shift":
                    pool.append(x + scale)
                case "divide":
                    pool.append(x / data.draw(st.integers(1, 2**20)))
                case "power":
                    pool.append(x ** data.draw(st.integers(2, 3)))
        except RangeError as error:
            assert "\n" not in str(error)
    result = pool[-1]
    assert result.type.fits(FIELD_BITS)
    program = secure.program(result)
    rng = np.random.default_rng(0)
    inputs = []
    for i in program.inputs:
        t = program.nodes[i].type
        inputs.append(fixed_point.encode(rng.choice([t.low, t.high, 0.0], t.shape), t.fraction_bits))
    (out,) = run_in_memory(program, inputs, parties=2).outputs
    difference = np.abs(field.to_signed(field.subtract(out, clear(program, inputs)[0])))
    assert difference.max() <= secure.bound(program)[program.outputs[0]]


def test_a_product_of_constants_is_refused() -> None:
    with pytest.raises(RangeError, match="before sharing"):
        Planner().product(Multiply(), constant(1.0), constant(2.0))
