"""Programs that draw rows of what is stored: each as often as any, the same ones at all members, one digest."""

import numpy as np
import pytest

from mpc import fixed_point
from mpc.errors import ProgramError
from mpc.operation import Stored
from mpc.rings import field
from mpc.security import Security
from protocols.lowering.plan import plan
from protocols.readings.clear import clear_values
from protocols.readings.drawing import Order
from protocols.readings.explain import Examined
from protocols.readings.memory import run_in_memory
from protocols.trace.secret_tensor import graph_of, leaf

ROWS, BITS = 7, 16
X = np.random.default_rng(5).integers(-(1 << BITS), 1 << BITS, (ROWS, 3))


def drawn(count, rows=ROWS, tensor="x", shape=(3,)):
    return Stored((count, *shape), BITS, -1.0, 1.0, "model", tensor, rows=rows)


@pytest.mark.parametrize("count", [1, 2, 3, 5, 7])
def test_every_row_comes_as_often_as_any(count):
    """Whatever a part's size: after as many parts as make whole epochs, and in each epoch once."""
    read = np.concatenate([Order({"model": "seed"}, part).positions(drawn(count)) for part in range(ROWS)])
    assert len(read) == count * ROWS
    for epoch in range(count):
        assert sorted(read[epoch * ROWS : (epoch + 1) * ROWS]) == list(range(ROWS))


def test_orders_differ_and_are_the_same_for_all_who_know():
    def of(said, part, **changes):
        return tuple(Order({"model": said}, part).positions(drawn(20, 20, **changes)))

    assert of("a", 0) == of("a", 0) == of("a", 0, tensor="y", shape=()), "tensors of one data set go together"
    assert len({of("a", 0), of("a", 1), of("b", 0)}) == 3
    assert tuple(Order({"model": "a", "other": "b"}).positions(drawn(20, 20))) == of("a", 0), "by no other's version"
    assert Order({"model": "a"}, 0).positions(drawn(20, 20)).tolist() == [
        7, 11, 3, 10, 4, 6, 2, 12, 8, 14, 9, 0, 1, 17, 5, 15, 18, 16, 13, 19,
    ], "every release draws the same"  # fmt: skip


@pytest.mark.parametrize("security", Security)
@pytest.mark.parametrize("part", [0, 1, 2])
def test_parties_read_the_rows_that_are_drawn(secure, security, part):
    """Beside the whole tensor, in one program; and no mask is new."""
    raw = field.from_signed(X)
    x, whole = leaf(drawn(3)), leaf(Stored((ROWS, 3), BITS, -1.0, 1.0, "model", "x"))
    program = plan(graph_of([x * x, whole[:2] + x[:2], x * whole[:3]]))
    order = Order({"model": "version"}, part)
    run = run_in_memory(program, [], store=secure.store({"x": raw}, 2), security=security, order=order)
    exact = clear_values(program, [], {("model", "x"): raw}, order=order)
    bound = secure.bound(program)
    for i, found in zip(program.outputs, run.outputs, strict=True):
        assert np.abs(field.to_signed(field.subtract(found, exact[i]))).max() <= bound[i]
    rows = order.positions(drawn(3))
    real = fixed_point.decode(run.outputs[0], program.nodes[program.outputs[0]].type.fraction_bits)
    assert real == pytest.approx((X[rows] / 2.0**BITS) ** 2, abs=1e-4)
    assert program.drawn == ("model",)


@pytest.mark.parametrize(("count", "rows"), [(8, 7), (0, 7), (1, -1), (1, 1 << 40)])
def test_more_rows_than_there_are_or_none(count, rows):
    with pytest.raises(ProgramError, match="draws some of the rows"):
        drawn(count, rows).result()


def test_a_scalar_has_no_rows():
    with pytest.raises(ProgramError, match="draws some of the rows"):
        Stored((), BITS, -1.0, 1.0, "model", "x", rows=3).result()


@pytest.mark.parametrize("rows", [ROWS - 1, ROWS + 1])
def test_of_a_tensor_that_has_other_rows(secure, rows):
    program = plan(graph_of([leaf(drawn(3, rows)) * 2.0]))
    with pytest.raises(ProgramError, match="has no tensor 'x' of shape"):
        run_in_memory(program, [], store=secure.store({"x": field.from_signed(X)}, 2))


def test_what_is_drawn_is_looked_at_as_what_is_read():
    """A sum of drawn rows is linear in them, a product is not."""
    x = leaf(drawn(3))
    (linear, bent) = Examined(plan(graph_of([x.sum(0), x[0] * x[1]]))).telling({"model"})
    assert (linear.linear, bent.linear) == (3, 0)
