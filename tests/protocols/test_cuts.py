"""Truncations that comparisons take upon themselves: no round, no opening, and no value further off than is said."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from mpc import fixed_point
from mpc.cost import cost
from mpc.objective import ANY, LATENCY, TRAFFIC, Objective
from mpc.program import Program
from mpc.security import Security
from protocols.operations.comparison import Comparison
from protocols.operations.truncation import Truncate
from protocols.readings.memory import run_in_memory
from protocols.trace.mathematics import Known

STRICT = Objective(ANY, Security.MALICIOUS)
VARIANTS = {"two rounds": (LATENCY, 2), "three rounds": (Objective(1000), 3), "with MACs": (STRICT, 2)}
"""With how many rounds until something is let through, of 20 bits or more."""

HIDDEN: dict[str, Callable[[Any], Any]] = {
    "relu": lambda h: np.maximum(h, 0),
    "mean": lambda h: np.maximum(h, 0).reshape(2, 8, 2).mean(axis=2),
    "sum": lambda h: np.maximum(h, 0).reshape(2, 8, 2).sum(axis=2),
    "running sum": lambda h: np.maximum(h, 0).cumsum(axis=1),
    "moved": lambda h: -np.maximum(h, 0)[:, ::2].T.reshape(2, 8)[:, [3, 3, 1, 0]],
    "clip": lambda h: np.clip(h, -1, 6),
    "abs": lambda h: abs(h),
    "of two": lambda h: np.maximum(h[:, :8], 0) - np.maximum(h[:, 8:], 0) + 0.25,
    "joined": lambda h: np.concatenate([np.maximum(h[:, :4], 0), np.minimum(h, 0)], axis=1),
    "leaky": lambda h: 0.01 * h + 0.99 * np.where(h >= 0, h, 0),
    "scaled": lambda h: np.maximum(h + 1, 0).reshape(2, 8, 2).sum(axis=2) * -0.3,
}
"""Of what a linear layer leaves, (2, 16), to (2, something)."""
SCALED = {"leaky", "scaled"}


def layers(name: str, x: Any, y: Any, w: Any, v: Any) -> Any:
    """A layer, a function that compares, and a layer that has no room for it uncut."""
    hidden = HIDDEN[name]((x + y if name in SCALED else x * y) @ w)
    return hidden @ v[: hidden.shape[1]]


def found(program: Program, arrays: list[Any], bits: int = 16, parties: int = 2) -> Any:
    raw = [fixed_point.encode(a, bits) for a in arrays]
    run = run_in_memory(program, raw, parties=parties, security=program.objective.security)
    return fixed_point.decode(run.outputs[0], program.nodes[program.outputs[0]].type.fraction_bits)


def dropped(program: Program) -> list[int]:
    gates = (n.operation for n in program.nodes if isinstance(n.operation, Comparison) and len(n.inputs) == 3)
    return [gate.dropped for gate in gates]


def truncated(program: Program) -> int:
    return sum(isinstance(node.operation, Truncate) for node in program.nodes)


@pytest.mark.sampled(4)
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("name", HIDDEN)
def test_what_is_let_through_takes_no_opening_to_be_cut(secure: Any, name: str, variant: str) -> None:
    objective, rounds = VARIANTS[variant]
    # A factor has to fit as well.
    size = 1.0 if name in SCALED else 4.0
    secrets = [secure.secret(shape, -size, size) for shape in ((2, 5), (2, 5), (5, 16), (20, 3))]
    result = layers(name, *secrets)
    program = secure.program(result, objective=objective)
    # What is multiplied in either layer, besides.
    assert program.rounds == rounds + (1 if name in SCALED else 2)
    assert min(dropped(program)) > 0
    for parties in (2, 3):
        arrays = [secure.draw(parties + k, x.shape, -size, size) for k, x in enumerate(secrets)]
        off = np.abs(found(program, arrays, parties=parties) - layers(name, *arrays)).max()
        assert off <= result.error.absolute


@pytest.mark.sampled(3)
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize(("size", "bits"), [(2.0, 6), (2.0**18, 20), (2.0**27 - 1, 13), (2.0**38 - 1, 13)])
def test_at_every_edge_a_quotient_is_off_by_less_than_a_unit(secure: Any, size: float, bits: int, variant: str) -> None:
    """Of numbers with 20 fraction bits, compared exactly, let through by their own sign and by that of others."""
    marks = [size, 0.0, *(2.0**k for k in range(-20, int(np.log2(size))))]
    near = np.array([s * (m + d * 2.0**-20) for m in marks for d in (-1, 0, 1) for s in (-1, 1)])
    x = np.tile(near[np.abs(near) <= size], 8)
    y = np.random.default_rng(1).permutation(x)
    own, other = (secure.secret(x.shape, -size, size, 20).precise(20) for _ in range(2))
    for secret, inputs, wanted in (
        (own.relu(), [x], np.maximum(x, 0)),
        ((own < 0) * other, [x, y], np.where(x < 0, y, 0)),
    ):
        program = secure.program(secret.truncate(20 - bits), objective=VARIANTS[variant][0])
        assert (dropped(program), truncated(program)) == ([bits], 0)
        for parties in (2, 5):
            assert np.abs(found(program, inputs, 20, parties) - wanted).max() < 2.0 ** (bits - 20)


def test_what_nobody_has_opened_is_opened(secure: Any) -> None:
    x, y, w = secure.secret((2, 5)), secure.secret((2, 5)), secure.secret((5, 5))
    h = (x * y) @ w
    one, other = (secure.program((h.relu() + more) @ w) for more in (h, (y * x) @ w))
    assert dropped(one)[0] > 0
    assert one.rounds < other.rounds
    assert dropped(other) == [0]


def test_digits_count_more_than_a_round(secure: Any) -> None:
    """A sum of 64 quotients would be off by more than a unit of what the computation keeps."""
    x = secure.secret((2, 64), bits=30)
    few, many = (secure.program(x.relu().sum(axis=1).truncate(left)) for left in (21, 22))
    assert (dropped(few), truncated(few)) == ([0], 1)
    assert (dropped(many), truncated(many)) == ([8], 0)


def test_bytes_may_count_more_than_a_round(secure: Any) -> None:
    x, w, v = secure.secret((4, 5)), secure.secret((5, 64)), secure.secret((16, 3))
    result = ((x * x) @ w).relu().reshape(4, 16, 4).mean(axis=2) @ v
    programs = [secure.program(result, objective=objective) for objective in (LATENCY, TRAFFIC)]
    assert dropped(programs[0])[0] > 0
    assert dropped(programs[1]) == [0]
    quick, small = (cost(program, 2) for program in programs)
    assert quick.online_rounds + 1 < small.online_rounds
    assert quick.offline_bytes + quick.online_bytes_per_party > small.offline_bytes + small.online_bytes_per_party


def test_who_asks_twice_has_one(secure: Any) -> None:
    x, w = secure.secret((2, 5)), secure.secret((5, 5))
    hidden = ((x * x) @ w).relu()
    assert len(dropped(secure.program(hidden @ w, hidden @ w[:, :2]))) == 1


def test_a_maximum_is_off_by_what_one_of_two_is(secure: Any) -> None:
    x, y = (secure.secret((50,), bits=24).precise(20) for _ in range(2))
    result = np.maximum(x, y).truncate(22)
    program = secure.program(result)
    assert program.rounds == 1
    assert result.error.absolute <= 2 * 2.0**-20
    arrays = [secure.draw(k, (50,)) for k in range(2)]
    assert np.abs(found(program, arrays, 24) - np.maximum(*arrays)).max() <= result.error.absolute


def test_what_is_known_better_stays_so(secure: Any) -> None:
    """What is meant as it is computed has lost what it is cut by, and nothing before."""
    x = secure.secret((5,), bits=30)
    for scale in (1.0, 0.5):
        result = (x.relu()._new(Known(0.0, 4.0, as_it_is=True)) * scale).truncate(20)
        program = secure.program(result)
        assert (dropped(program), truncated(program)) == ([10 if scale == 1.0 else 11], 0)
        assert result.error.absolute == pytest.approx(2.0**-20)
    assert x.relu().truncate(20).error.absolute > 2.0**-20
