"""What tells of masks is nobody's to see: who knows what is opened of a secret, and its mask, knows the secret."""

from __future__ import annotations

import re

import pytest

from mpc.errors import ProgramError
from mpc.objective import ANY, LATENCY, TRAFFIC, Objective
from mpc.operation import Constant, Input, Stored
from mpc.program import Expression, Program
from mpc.rings import BITS, FIELD
from mpc.security import Security
from mpc.tensor_type import Form
from protocols.lowering.comparison import compared
from protocols.lowering.in_range import within
from protocols.lowering.planner import Planner
from protocols.operations.bit_comparison import Lifted, Sign
from protocols.operations.comparison import Comparison
from protocols.operations.decomposed import Decomposed, Recomposed
from protocols.operations.digits import EXACTLY, Digits, Tables
from protocols.operations.in_range import Ends, Within
from protocols.operations.keep import Keep
from protocols.operations.linear import Add, Broadcast, Reshape, Transpose
from protocols.operations.mask import Mask
from protocols.operations.residues import Factors, Residue
from protocols.operations.weighed import Signed, Steps, Weighed

OBJECTIVES = (LATENCY, TRAFFIC, Objective(ANY, Security.MALICIOUS))
CUT = (EXACTLY, (8, 8, 8), BITS)


def weight(*shape: int) -> Expression:
    return Expression(Stored(shape, 14, -1.0, 1.0, "model", "w"))


def own(*shape: int) -> Expression:
    return Expression(Input(shape, 14, -1.0, 1.0))


def mask(x: Expression) -> Expression:
    return Expression(Mask(), (x,))


def tables(x: Expression) -> Expression:
    return Expression(Tables(*CUT), (x,))


def sign(x: Expression, found: Expression) -> Expression:
    """Of x, by digits that may be another's."""
    whole = mask(Expression(Sign(x.type.size, 3), (mask(found),)))
    return Expression(Lifted(EXACTLY, False, False, 0, False), (x, whole))


def refused(x: Expression, why: str) -> None:
    with pytest.raises(ProgramError, match=why):
        Program.of([x])


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_nothing_on_the_way_to_a_bit_is_revealed_kept_or_used_otherwise(objective: Objective) -> None:
    """Neither of a comparison nor of a check of ranges; the bit itself is."""
    x = own(3)
    bit = compared(Planner(objective=objective), weight(3), strictly=True, below=False)
    checks = [within(x, objective), within(weight(3), objective)]
    assert Program.of([bit])
    assert Program.of(checks)
    inner = [y for y in Program.order([bit, *checks]) if y.operation.inner or any(z.operation.inner for z in y.inputs)]
    inner += [y for y in Program.order([bit]) if isinstance(y.operation, Factors)]
    inner = [y for y in inner if y not in (bit, *checks)]
    wanted = {LATENCY: {Steps, Weighed}, TRAFFIC: {Tables, Digits}}.get(objective, {Factors, Residue})
    assert {type(y.operation) for y in inner} >= {*wanted, Ends, Mask}
    for y in inner:
        if isinstance(y.operation, Factors):
            refused(y, "known to nobody")
            refused(Expression(Reshape((y.type.size,)), (y,)), "serve nothing else")
            continue
        refused(y, "tells of masks")
        if y.type.ring == FIELD:
            refused(Expression(Reshape((y.type.size,)), (y,)), "tells of masks")
        if y.type.form is Form.SHARED and y.type.ring == FIELD:
            with pytest.raises(ProgramError, match="tells of masks"):
                Program.of([x], [Expression(Keep("y"), (y,))])
    assert isinstance(bit.operation, Comparison)
    assert isinstance(checks[1].operation, Within)
    if objective.security is Security.MALICIOUS:
        assert isinstance(checks[0].operation, Recomposed)
        assert any(isinstance(y.operation, Decomposed) for y in inner)


def test_numbers_are_compared_with_no_mask_but_their_own() -> None:
    """A client that knows what is opened of its own numbers would find another's mask by halving."""
    w, x = weight(4), own(4)
    assert Program.of([sign(w, Expression(Digits(*CUT), (w, tables(w))))])
    refused(sign(x, Expression(Digits(*CUT), (x, tables(w)))), re.escape("the tables of what is compared"))
    refused(sign(x, Expression(Digits(*CUT), (w, tables(w)))), re.escape("the digits of what is compared"))
    both = Expression(Add(), (w, x))
    refused(sign(both, Expression(Digits(*CUT), (both, tables(w)))), "tables of")
    ends = mask(Expression(Ends((9, 8), BITS), (x,)))
    bits = mask(Expression(Sign(8, 2), (ends,)))
    refused(
        Expression(Lifted(EXACTLY, False, False, 0, False), (Expression(Broadcast((2, 4)), (x,)), bits)), "takes digits"
    )


def test_nor_in_fewer_rounds() -> None:
    w, x = weight(4), own(4)

    def of(y: Expression, of_digits: Expression, *bases: Expression) -> Expression:
        widths = (6, 6, 8)
        tables = [Expression(Steps(EXACTLY, widths, f"mod{8 >> max(j - 1, 0)}", j), (b,)) for j, b in enumerate(bases)]
        found = mask(Expression(Weighed(EXACTLY, widths, "mod8"), (of_digits, *tables)))
        return Expression(Signed(EXACTLY, False, False, 0, False, 3), (y, found))

    assert Program.of([of(w, w, w, w, w)])
    refused(of(x, x, w, w, w), re.escape("the tables of what is compared"))
    refused(of(x, x, x, w, x), re.escape("the tables of what is compared"))
    refused(of(x, w, w, w, w), re.escape("the digits of what is compared"))
    y = Expression(Add(), (w, Expression(Constant((4,), 14, 0.0, 0.0, bytes(32)))))
    assert Program.of([of(y, y, w, w, w)])
    refused(of(y, y, w, y, w), "tables of one tensor")


def test_nor_with_that_of_another_element() -> None:
    w = weight(2, 3)
    turned = Expression(Transpose((1, 0)), (w,))
    refused(sign(turned, Expression(Digits(*CUT), (turned, tables(w)))), "tables of")
    row = weight(3)
    wide = Expression(Broadcast((2, 3)), (row,))
    refused(sign(wide, Expression(Digits(*CUT, 2), (wide, tables(row)))), "tables of")
    column = Expression(Broadcast((3, 2)), (Expression(Reshape((3, 1)), (row,)),))
    assert Program.of([sign(column, Expression(Digits(*CUT, 2), (column, tables(row))))])
