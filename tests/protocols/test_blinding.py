"""A coefficient that nobody knows hides one result: a program that has it known, or hide two, is refused."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from mpc.errors import ProgramError
from mpc.objective import LATENCY
from mpc.operation import Input, Stored
from mpc.program import Expression, Program
from protocols.lowering.in_range import within
from protocols.operations.in_range import Coefficients
from protocols.operations.linear import Add, Reshape
from protocols.operations.nonzero import Nonzero

WIDE = -(2.0**59), 2.0**59


def count(slot: str = "north/d") -> Expression:
    return Expression(Stored((1,), 0, 0.0, 100.0, slot, "x"))


def nobodys() -> Expression:
    return Expression(Coefficients(1))


def bit(s: Expression, of: Expression | None = None) -> Expression:
    """Whether it is 0, if ``s`` is as it has to be; else what it is, to who knows ``s``."""
    return Expression(Nonzero(), (count() if of is None else of, s))


def shared() -> list[Expression]:
    """Their quotient is that of the counts, one of which the client has chosen."""
    s = nobodys()
    return [bit(s), bit(s, Expression(Input((1,), 0, 1.0, 1.0)))]


def revealed() -> list[Expression]:
    s = nobodys()
    return [bit(s), s]


def computed_with(make: Callable[[Expression], Expression]) -> Callable[[], list[Expression]]:
    def forged() -> list[Expression]:
        s = nobodys()
        return [bit(s), make(s)]

    return forged


def of_a_check() -> list[Expression]:
    x = Expression(Input((1,), 0, 0.0, 1.0))
    checked = within(x, LATENCY)
    (s,) = (y for y in checked.inputs if isinstance(y.operation, Coefficients))
    return [bit(s, x), checked]


FORGED: dict[str, Callable[[], list[Expression]]] = {
    "the client's": lambda: [bit(Expression(Input((1,), 0, *WIDE)))],
    "an owner's": lambda: [bit(Expression(Stored((1,), 0, *WIDE, "south/d", "s")))],
    "of two counts": shared,
    "revealed": revealed,
    "in a sum": computed_with(lambda s: Expression(Add(), (s, Expression(Input((1,), 0, 0.0, 0.0))))),
    "laid out anew": computed_with(lambda s: Expression(Reshape((1, 1)), (s,))),
    "of a check of ranges": of_a_check,
}


@pytest.mark.parametrize("way", FORGED)
def test_a_coefficient_that_is_known_or_hides_two_results_is_refused(way: str) -> None:
    with pytest.raises(ProgramError, match=r"coefficients .*nobody|known to nobody"):
        Program.of(FORGED[way]())


def test_one_for_each_is_right() -> None:
    assert len(Program.of([bit(nobodys()), bit(nobodys())]).outputs) == 2
