"""Programs to cheat in: small ones that have every kind of operation between them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from mpc import fixed_point
from mpc.objective import Objective
from mpc.operation import Input, Stored
from mpc.program import Program
from mpc.security import Security
from protocols.lowering.in_range import within
from protocols.lowering.plan import lowered, plan
from protocols.readings.clear import clear
from protocols.trace.mathematics import Keep, Multiply, Node
from protocols.trace.random import Random
from protocols.trace.secret_tensor import SecretTensor, concatenate, graph_of


@dataclass(frozen=True)
class Case:
    """A program, what to run it on, and what must come out."""

    name: str
    program: Program
    inputs: list[np.ndarray]
    weights: dict[str, np.ndarray]
    wanted: list[np.ndarray]
    bounds: list[float]


Built = tuple[list[Any], dict[str, np.ndarray]]
"""Outputs, in the end maybe what is kept, and stored tensors (with 14 fraction bits)."""


def linear(s: Any) -> Built:
    """Nothing to open: what goes out is what came in, moved about."""
    x, y = s.secret((2, 3)), s.secret((3,))
    z = concatenate([x.reshape(3, 2).T, (x - y)[:, 1:]], axis=1)
    return [z.pad(((0, 0), (1, 0))).take([2, 0], 1).cumsum(1).sum(axis=1), -x / 4, y.broadcast_to((2, 3)) + x * 3], {}


def kept(s: Any) -> Built:
    """A value that stays on the parties, and is gone on with."""
    x = s.secret((3,))
    y = SecretTensor(Node(Keep("y"), ((x * x).node,)))
    return [y * x], {}


def one_opening(s: Any) -> Built:
    x = s.secret((3,))
    return [(x * x * 0.5).truncate(12), (x * x) / 1000003], {}


def powers(s: Any) -> Built:
    x = s.secret((2,), -1, 1)
    return [x**3 * x, (x * x * x * x).within(-1, 1)], {}


def fourier(s: Any) -> Built:
    x = s.secret((2,))
    return [x.sigmoid(interval=(-8, 8)) * x], {}


def tails(s: Any) -> Built:
    """Of what is opened already, and of what is not: its middle's values are opened beside digits."""
    x = s.secret((2,), -64, 64)
    return [x.silu() * x, (x * 0.5 + 1).sigmoid(), x.elu()], {}


def comparisons(s: Any) -> Built:
    """Of what is opened already, and of what is not; bits, and what they let through, whole or cut."""
    x, y = s.secret((3,)), s.secret((3,))
    return [x >= y, (x < 0.5) * y, (x * y).relu() - y, (x * y).relu().truncate(20) * x], {}


def places(s: Any) -> Built:
    """Few thresholds, and many, which share tables; equality, and a function by table of what is opened for it."""
    x, y, bit = s.secret((2,)), s.secret((2,), 0, 3, 0), s.secret((2,), 0, 1, 0)
    many = (x[:1] >= np.linspace(-3, 3, 64)).sum()
    return [x.clip(-1, 1), (x == y) * x, (y * bit).chosen_from([1.0, 2.0, 4.0, 0.5]), many], {}


def polynomial_after_truncation(s: Any) -> Built:
    x, y = s.secret((3,), -1, 1), s.secret((3,), -1, 1)
    return [(x * y).polynomial([0.5, 1.0, -0.25, 0.5]), (x * y + x).sum()], {}


def stored_product(s: Any) -> Built:
    """By a stored matrix; one output before anything is opened, one after."""
    h = s.secret((2, 3), -1, 1) @ s.stored("w", (3, 2)) + s.stored("b", (2,))
    return [h, (h * h).mean(axis=0)], {"w": s.draw(1, (3, 2), -1, 1, 14), "b": s.draw(2, (2,), -1, 1, 14)}


def stored_alone(s: Any) -> Built:
    """A stored tensor in a program that opens nothing."""
    return [s.secret((3,), -1, 1) * s.stored("w", (3,)) + 1], {"w": s.draw(3, (3,), -1, 1, 14)}


def data(s: Any) -> Built:
    """Stored numbers that are checked, as they are where they meet another owner's."""
    return [s.stored("d", (2,)) * s.secret((2,), -1, 1)], {"d": s.draw(4, (2,), -1, 1, 14)}


def convolutions(s: Any) -> Built:
    """A small network: two convolutions, an activation, pooling and a dense layer."""
    image = s.secret((1, 1, 4, 4), -1, 1)
    hidden = image.conv2d(s.stored("k", (2, 1, 3, 3)), padding=1) + np.array([0.25, -0.5]).reshape(1, 2, 1, 1)
    pooled = (hidden * hidden).within(-4, 4).avg_pool2d(2)
    flat = pooled.conv2d(s.stored("l", (2, 2, 2, 2))).flatten(1)
    weights = {"k": (2, 1, 3, 3), "l": (2, 2, 2, 2), "d": (2, 2)}
    return [flat @ s.stored("d", (2, 2))], {name: s.draw(7, shape, -0.25, 0.25, 14) for name, shape in weights.items()}


def gated(s: Any) -> Built:
    """By what is assumed of some numbers, of each sample for itself; and it is so."""
    x, w = s.secret((2, 3), -1, 1), s.stored("w", (3, 2))
    return [(x @ w).assumed(-1, 1) + x[:, :2]], {"w": s.draw(4, (3, 2), -0.25, 0.25, 14)}


def hanging(s: Any) -> Built:
    """What is kept, and given, if all is where it is assumed to be."""
    x, w = s.secret((3,), -1, 1), s.stored("w", (3,))
    y = (x * w * 2).assumed(-1, 1)
    # As deep as what it hangs on: nobody makes anything of a round in which 0 is opened by making it 0.
    return [x + 1, {"y": y * x * x * x * x}], {"w": s.draw(4, (3,), -0.25, 0.25, 14)}


def truncated_product(s: Any) -> Built:
    """Of a factor that is truncated by the opening that it is multiplied by."""
    x = s.secret((3,), -1, 1, 20)
    return [x._joined(Multiply(at_once=True), x * x, x)], {}


def mixed(s: Any) -> Built:
    """Rows in an order that nobody knows, of which the result says nothing."""
    x, y = Random().permutation(s.secret((4,)), s.secret((4,)))
    return [(x * y).sum()], {}


PROGRAMS: tuple[Callable[[Any], Built], ...] = (
    linear,
    one_opening,
    kept,
    powers,
    fourier,
    tails,
    comparisons,
    places,
    polynomial_after_truncation,
    truncated_product,
    stored_product,
    stored_alone,
    data,
    convolutions,
    gated,
    hanging,
    mixed,
)
STRICT = Objective(0, Security.MALICIOUS)
"""Comparisons take a level of nodes, which has operations of its own."""


def build(secure: Any) -> list[Case]:
    cases = []
    for make in PROGRAMS:
        outputs, stored = make(secure)
        kept = outputs.pop() if isinstance(outputs[-1], dict) else None
        program = Program.decode(plan(graph_of(outputs, kept), STRICT, checked=True).encode())
        if make is data:
            results = [lowered(x.node, STRICT) for x in outputs]
            checks = [within(x, STRICT) for x in Program.order(results) if isinstance(x.operation, Input | Stored)]
            program = Program.of(results, checks, objective=STRICT)
        inputs = []
        for i in program.inputs:
            source: Any = program.nodes[i].operation
            values = secure.draw(i, source.shape, source.low, source.high)
            inputs.append(fixed_point.encode(values, source.fraction_bits))
        weights = {name: fixed_point.encode(values, 14) for name, values in stored.items()}
        wanted = clear(program, inputs, {("model", name): array for name, array in weights.items()})
        bound = secure.bound(program)
        cases.append(Case(make.__name__, program, inputs, weights, wanted, [bound[i] for i in program.outputs]))
    return cases
