"""What a program tells of secrets: nothing linear is missed, however it is written, and copies are called copies."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from mpc import fixed_point
from mpc.operation import Linear, Source, Stored, registered
from mpc.program import Program
from protocols import concatenate
from protocols.approximation import fit_fourier
from protocols.lowering.plan import plan
from protocols.operations import fourier, gate, in_range, polynomial, product
from protocols.readings import explain
from protocols.readings.clear import clear
from protocols.readings.explain import Examined, Form
from protocols.readings.trial import SIGNS, results, sources
from protocols.trace.random import Random
from protocols.trace.secret_tensor import SecretTensor, graph_of, leaf

OURS, THEIRS = "hospital/trial", "lab/trial"


def secret(shape: tuple[int, ...] = (4, 3), slot: str = OURS, tensor: str = "x") -> SecretTensor:
    return leaf(Stored(shape, 16, -2.0, 2.0, slot, tensor))


def told(*tensors: SecretTensor, slots: tuple[str, ...] = (OURS,)) -> tuple[explain.Telling, ...]:
    return Examined(plan(graph_of(tensors))).telling(slots)


x = secret()
y = secret(slot=THEIRS)
ONE_HOT = np.eye(4)[[2]]

CASES: dict[str, tuple[Callable[[], SecretTensor], Form, int, int]] = {
    "a copy": (lambda: x * 1.0, Form.LINEAR, 12, 12),
    "rows of it": (lambda: x[1:3], Form.COPY, 6, 6),
    "upside down": (lambda: -x.T, Form.COPY, 12, 12),
    "a row, by a product": (lambda: ONE_HOT @ x, Form.LINEAR, 3, 3),
    "half of it": (lambda: x * 0.5, Form.LINEAR, 0, 12),
    "a sum": (lambda: x.sum(axis=0), Form.LINEAR, 0, 3),
    "the sum of all": (lambda: x.sum(), Form.LINEAR, 0, 1),
    "truncated": (lambda: (x * 0.3).truncate(12), Form.LINEAR, 0, 12),
    "with what another has": (lambda: x.T @ y, Form.LINEAR, 0, 9),
    "hidden by a square": (lambda: (x + 1.0) * (x + 1.0) - x * x, Form.MIXED, 0, 12),
    "a copy, hidden": (lambda: x * x + x - x * x, Form.MIXED, 12, 12),
    "a copy beside a square": (lambda: concatenate([x * x, x * 1.0], axis=0), Form.BENT, 12, 12),
    "a square": (lambda: x * x, Form.BENT, 0, 0),
    "a curve of each": (lambda: x.sigmoid(), Form.BENT, 0, 0),
    "a curve of a linear one": (lambda: (x @ np.ones(3)).within(-8, 8).sigmoid(), Form.BENT, 0, 0),
    "a norm": (lambda: (x * x).sum(), Form.MIXED, 0, 0),
    "a matrix of products": (lambda: x.T @ x, Form.MIXED, 0, 0),
    "a sign": (lambda: x > 0.5, Form.BENT, 0, 0),
    "the positive part": (lambda: x.relu(), Form.BENT, 12, 12),
    "of two": (lambda: np.where(x > y, x, y), Form.MIXED, 12, 12),
    "another's alone": (lambda: y * 1.0, Form.NOTHING, 0, 0),
    "a line as a polynomial": (lambda: x.polynomial([0.5, 0.25, 0.0]), Form.LINEAR, 0, 12),
}


@pytest.mark.parametrize("name", CASES)
def test_what_is_told(name: str) -> None:
    build, form, copied, linear = CASES[name]
    result = build()
    (found,) = told(result)
    assert replace(found, nearly=0) == explain.Telling(form, result.size, copied, linear, 0, tried=True)


def test_what_is_too_large_to_be_tried_is_judged_by_its_form(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(explain, "MOST_TRIED", 0)
    for name, count in (("rows of it", 6), ("a sum", 3), ("a square", 0), ("a copy beside a square", 0)):
        (found,) = told(CASES[name][0]())
        assert (found.linear, found.tried) == (count, False)


W = np.random.default_rng(3).uniform(-1, 1, (3, 2))
NEARLY: dict[str, tuple[SecretTensor, int]] = {
    "a line that was fitted": (x.apply(fit_fourier(lambda t: t, -2, 2, 9)) @ W, 8),
    "a little of a square": (x @ W + 0.002 * ((x * x) @ W), 8),
    "beside others": (concatenate([x + 0.001 * x * x, x * x], axis=0), 12),
    "squares": (x * x, 0),
    "moments": (x.T @ x, 0),
    "products": (x.T @ y + y.T @ x, 0),
    "linear itself": (x @ W, 0),
    "a curve": ((x * 2.0).sigmoid() @ W, 0),
}


@pytest.mark.parametrize("name", NEARLY)
def test_what_is_nearly_linear(name: str) -> None:
    result, nearly = NEARLY[name]
    (found,) = told(result, slots=(OURS, THEIRS))
    assert found.nearly == nearly


SUMS: dict[str, tuple[list[SecretTensor], int | None]] = {
    "a row behind a mask that comes out too": ([x[0] + (x * x).sum(axis=0), (x * x).sum(axis=0)], 3),
    "moments": ([x.T @ x, (x * x).sum()], 0),
    "a sum that is linear itself": ([x.sum(axis=0), x.T @ x], 0),
    "half hidden": ([x.sum(axis=0), (x * x).sum() + x[0, 0], (x * x).sum() * 2.0], 1),
    "many": ([secret((9, 9)) ** 2], None),
    "of others": ([y.T @ y, y.sum()], 0),
}


@pytest.mark.parametrize("name", SUMS)
def test_sums_of_what_comes_out(name: str) -> None:
    tensors, hidden = SUMS[name]
    assert Examined(plan(graph_of(tensors))).combined((OURS,)) == hidden


def test_trials_end_in_time() -> None:
    """And then, as for what is too large, the form is all there is."""
    examined = Examined(plan(graph_of([x.sum()])), seconds=0.0)
    assert examined.telling((OURS,)) == (explain.Telling(Form.LINEAR, 1, 0, 1, 0, tried=False),)
    assert examined.crowds(OURS, 4) is None


def test_each_owner_s_part_is_looked_at_beside_all_of_them() -> None:
    """A product of two owners' secrets is linear in each, and in both together it is not."""
    product = x.T @ y
    assert [told(product, slots=slots)[0].linear for slots in ((OURS,), (THEIRS,), (OURS, THEIRS))] == [9, 9, 0]


def test_every_operation_is_known() -> None:
    """Whoever adds one says what it makes of what is linear; what is not said is taken for linear."""
    said = (*explain._KEPT_AS_THEY_ARE, *explain._ELEMENTWISE, Linear, product.Product)
    bent = (
        gate.Gate,
        in_range.Coefficients,
        polynomial.Polynomial,
        polynomial.TruncatedPolynomial,
        fourier.Fourier,
        *explain._OF_DIGITS,
        *SIGNS,
        *explain._DRAWN,
    )
    ours = [kind for kind in registered().values() if kind.__module__.startswith(("mpc.", "protocols."))]
    assert [kind for kind in ours if not issubclass(kind, (*said, *bent, Source))] == []


def test_what_is_kept_is_told_as_what_is_revealed() -> None:
    program = plan(graph_of([(x * x).sum()], {"again": x * 1.0}))
    assert len(results(program)) == 2
    found = Examined(program).telling((OURS,))
    assert [(t.numbers, t.linear) for t in found] == [(1, 0), (12, 12)]


def test_what_goes_into_each_result() -> None:
    program = plan(graph_of([x.sum(), (x * y).sum()]))
    reads = [{program.nodes[i].operation.slot for i in sources(program)[o]} for o in program.outputs]  # type: ignore[attr-defined]
    assert reads == [{OURS}, {OURS, THEIRS}]


GROUPS: dict[str, tuple[Callable[[SecretTensor], SecretTensor], int | None]] = {
    "each row": (lambda rows: (rows * rows).sum(axis=1), 1),
    "one row": (lambda rows: (rows[4:5] * rows[4:5]).sum(), 1),
    "one row, by a product": (lambda rows: ((np.eye(60)[[7]] @ rows) ** 2).sum(), 1),
    "three rows": (lambda rows: (rows[5:8] * rows[5:8]).sum(), 3),
    "half of them": (lambda rows: (rows[::2] * rows[::2]).sum(), None),
    "all": (lambda rows: rows.T @ rows, None),
    "how many are above": (lambda rows: (rows[:, 0] > 0.25).sum(), None),
    "how many of a few are above": (lambda rows: (rows[:20, 0] > 0.25).sum(), None),
    "how many, and one": (lambda rows: concatenate([(rows > 0).sum(axis=0), (rows > 0)[3]], axis=0), 1),
    "the sum of those above": (lambda rows: ((rows[:, 0] > 0) * rows[:, 1]).sum(), None),
    "all, and one": (lambda rows: concatenate([(rows**2).sum(axis=0), (rows**2)[3]], axis=0), 1),
}


@pytest.mark.sampled(3)
@pytest.mark.parametrize("name", GROUPS)
def test_of_how_few_people_a_number_is(name: str) -> None:
    build, few = GROUPS[name]
    program = plan(graph_of([build(secret((60, 2)))]))
    (found,) = Examined(program).crowds(OURS, 60) or ()
    # About: three are told from one, and from many.
    assert found == few if few in (None, 1) else found in (2, 3, 4, 5)


# -- random programs -------------------------------------------------------------------------------------------------

SHAPE = (3, 3)
PUBLIC = np.random.default_rng(1).integers(-2, 3, SHAPE) / 2.0
STEPS: dict[str, Callable[[SecretTensor, SecretTensor], SecretTensor]] = {
    "add": lambda a, b: a + b,
    "subtract": lambda a, b: a - b,
    "negate": lambda a, _: -a,
    "double": lambda a, _: a * 2.0,
    "scale": lambda a, _: a * PUBLIC,
    "matrix": lambda a, _: a @ PUBLIC,
    "transpose": lambda a, _: a.T,
    "sum": lambda a, _: a - a.sum(axis=0, keepdims=True) * 0.5,
    "shift": lambda a, _: a + 1.0,
    "multiply": lambda a, b: a * b,
    "square": lambda a, _: a * a,
    "product": lambda a, b: a @ b,
    "cube": lambda a, _: a.polynomial([0.0, 0.5, 0.0, 1.0]),
    "rows": lambda a, b: concatenate([a[:1], b[1:]], axis=0),
    "hide": lambda a, b: (a + b + 1.0) * (a + b + 1.0) - (a + b) * (a + b),
    "beside": lambda a, b: concatenate([(a * b)[:1], b[1:]], axis=0),
}


def random_result(seed: int) -> SecretTensor:
    """Of a few random steps; biased towards what is linear, or it would hardly ever be."""
    rng = np.random.default_rng(seed)
    values = [secret(SHAPE), secret(SHAPE, tensor="z"), secret(SHAPE, slot=THEIRS)]
    names = list(STEPS)
    weights = np.array([1.0 if name in ("multiply", "square", "product", "cube") else 3.0 for name in names])
    for _ in range(int(rng.integers(1, 7))):
        a, b = (values[int(rng.integers(len(values)))] for _ in range(2))
        step = STEPS[str(rng.choice(names, p=weights / weights.sum()))]
        values.append(step(a, b).within(-2, 2))
    return values[-1]


def linear_by_numbers(program: Program, rng: np.random.Generator) -> int:
    """How many elements of the one output are affine in our secrets, and depend on them, by the clear reading alone.

    Along a few random lines, with steps so coarse that rounding does not matter.
    """
    types = {(n.operation.slot, n.operation.tensor): n.type for n in program.nodes if isinstance(n.operation, Stored)}
    (output,) = program.outputs
    bits = program.nodes[output].type.fraction_bits

    def at(point: dict[tuple[str, str], Any]) -> Any:
        encoded = {name: fixed_point.encode(value, 16, -2.0, 2.0) for name, value in point.items()}
        return fixed_point.decode(clear(program, [], encoded)[0], bits)

    affine, depends = np.ones(program.nodes[output].type.shape, bool), np.zeros(program.nodes[output].type.shape, bool)
    for _ in range(4):
        start = {name: rng.uniform(-0.5, 0.5, t.shape) for name, t in types.items()}
        step = {name: rng.uniform(-0.5, 0.5, t.shape) * (name[0] == OURS) for name, t in types.items()}
        values = [at({name: start[name] + k * step[name] for name in types}) for k in range(3)]
        affine &= np.abs(values[2] - 2 * values[1] + values[0]) < 2e-3
        depends |= np.abs(values[1] - values[0]) > 1e-2
    return int((affine & depends).sum())


@pytest.mark.parametrize("seed", range(50))
def test_nothing_that_is_linear_is_missed(seed: int) -> None:
    result = random_result(seed)
    program = plan(graph_of([result]))
    (found,) = Examined(program).telling((OURS,))
    assert found.linear >= linear_by_numbers(program, np.random.default_rng(seed)), seed


def test_what_is_drawn_is_nobodys() -> None:
    """Noise does not make a mean less linear in the data that it hides, and a draw alone says nothing of them."""
    noise = Random().uniform(-1, 1, ())
    noisy, alone = told(x.sum() + noise, noise)
    assert (noisy.linear, alone.linear) == (1, 0)


DECLARED: dict[str, Callable[[], SecretTensor]] = {
    "the largest": lambda: x.max(axis=0),
    "in order": lambda: np.sort(x, axis=0),
    "of one": lambda: x.softmax(),
    "normalised": lambda: (abs(x) + 1.0).log() + (abs(x) + 1.0) ** -0.5,
    "a fit": lambda: x.apply(fit_fourier(np.tanh, -4, 4, 8)).relu(),
    "cut": lambda: (x * x * 0.3).sigmoid().clip(0.1, 0.6),
    "assumed": lambda: (x @ np.full(3, 9.0)).assumed(-1, 1).sigmoid().relu() * 3,
}


@pytest.mark.parametrize("name", [*CASES, *DECLARED])
def test_what_the_planner_declares_is_so(name: str) -> None:
    """Where what is assumed holds; elsewhere nobody has a result."""
    of = DECLARED[name] if name in DECLARED else CASES[name][0]
    assert Examined(plan(graph_of([of()]), checked=True)).astray() == 0


def test_ranges_that_are_declared_and_left_are_seen() -> None:
    """As separate results, each a bit of a secret that is no sign: no sum of theirs is straight to who has one line."""
    bits = [(x.within(1.0 - 2.0**-j, 2.0 - 2.0**-j) > 1.5) for j in range(1, 9)]
    assert Examined(plan(graph_of(bits))).astray() >= 8
