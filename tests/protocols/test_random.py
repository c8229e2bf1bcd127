"""Random values that nobody knows: right distributions, whoever draws last, in both kinds of security."""

from __future__ import annotations

import math
from decimal import Decimal, getcontext
from typing import Any

import numpy as np
import pytest
from scipy.stats import chisquare

from mpc import fixed_point
from mpc.cost import cost
from mpc.errors import MacCheckError, ProgramError, RangeError, ShapeError, UnsupportedError, UsageError
from mpc.objective import ANY, LATENCY, TRAFFIC, Objective
from mpc.program import Program
from mpc.rings import field, field_of
from mpc.security import Security
from mpc.tensor_type import Form, TensorType
from protocols.operations.draw import MOST_DRAWN, Bits, Draw
from protocols.readings.clear import clear, clear_values
from protocols.readings.dealer import deal
from protocols.readings.memory import MemoryRun, lockstep, party_randomness, run_in_memory
from protocols.readings.party import PartyRun, UnreducedOpening
from protocols.trace.random import BITS, Random, gaussian_thresholds, laplace_digits

STRICT = Objective(ANY, Security.MALICIOUS)
RANDOM = Random()
CHANCE = 1e-12
"""What parties draw is of the system's generator: in each run of the tests, of some twenty samples."""


def sampled(
    secure: Any, tensor: Any, *, parties: int = 2, objective: Objective = LATENCY, number: int = 0, **how: Any
) -> Any:
    program = secure.program(tensor, objective=objective)
    security = objective.security
    run = run_in_memory(program, [], parties=parties, security=security, seeds=secure.seeds(parties, number))
    return fixed_point.decode(run.outputs[0], program.nodes[program.outputs[0]].type.fraction_bits)


def fits(found: Any, expected: dict[float, float]) -> None:
    """The p-value of chance is above `CHANCE`: of all values that are expected 20 times at least, and of all others."""
    likely = [x for x, p in expected.items() if p * found.size >= 20]
    counts = np.array([(found == x).sum() for x in likely] + [0.0])
    chances = np.array([expected[x] for x in likely] + [0.0])
    counts[-1], chances[-1] = found.size - counts.sum(), max(1 - chances.sum(), 0.0)
    if chances[-1] * found.size < 5:
        assert counts[-1] <= 30
        counts, chances = counts[:-1], chances[:-1]
    assert chisquare(counts, chances / chances.sum() * counts.sum()).pvalue > CHANCE


@pytest.mark.parametrize(("parties", "objective"), [(2, LATENCY), (5, TRAFFIC), (3, STRICT)])
def test_samples_have_the_distribution(secure: Any, parties: int, objective: Objective) -> None:
    """With power: one off by a hundredth of the probability of each value would be seen of 4,000, mostly."""
    size = 4000 if objective is not STRICT else 1500

    def of(tensor: Any, number: int) -> Any:
        return sampled(secure, tensor, parties=parties, objective=objective, number=number)

    grid = {-1 + k / 8: 1 / 16 for k in range(16)}
    fits(of(RANDOM.uniform(-1, 1, size, fraction_bits=3), 1), grid)
    fits(of(RANDOM.bernoulli(0.5, size), 2), {0.0: 0.5, 1.0: 0.5})
    fits(of(RANDOM.bernoulli(0.125, size), 3), {0.0: 0.875, 1.0: 0.125})
    q = math.exp(-1 / 2)
    fits(of(RANDOM.discrete_laplace(2.0, size // 2), 4), {x: (1 - q) / (1 + q) * q ** abs(x) for x in range(-40, 41)})
    weights = {float(x): math.exp(-x * x / 4.5) for x in range(-20, 21)}
    total = sum(weights.values())
    fits(of(RANDOM.discrete_gaussian(1.5, size // 2), 5), {x: w / total for x, w in weights.items()})


def test_how_far_distributions_are_from_the_ideal() -> None:
    """Total variation below 2^-40, by exact arithmetic on what is compared with, tails counted."""
    getcontext().prec = 60
    whole = Decimal(2) ** BITS
    for sigma in (0.3, 1.0, 3.7, 20.0, 256.0):
        marks = [Decimal(int(t)) / whole for t in gaussian_thresholds(sigma)]
        most = len(marks) // 2
        found = [b - a for a, b in zip([Decimal(0), *marks], [*marks, Decimal(1)], strict=True)]
        s = Decimal(sigma)
        ideal = [(-(Decimal(x) ** 2) / (2 * s * s)).exp() for x in range(2 * most + 1)]
        total = ideal[0] + 2 * sum(ideal[1:])
        near = sum(abs(f - ideal[abs(x - most)] / total) for x, f in enumerate(found))
        beyond = 2 * sum(ideal[most + 1 :]) / total
        assert min(found) >= 0
        assert (near + beyond) / 2 < Decimal(2) ** -40
    for scale in (0.1, 1.0, 10.0, 2.0**20):
        digits = laplace_digits(scale)
        q = (-1 / Decimal(scale)).exp()
        off = sum(abs(Decimal(int(d)) / whole - q ** (2**j) / (1 + q ** (2**j))) for j, d in enumerate(digits))
        assert 2 * (off + q ** (2 ** len(digits))) < Decimal(2) ** -40


def drawn(program: Program, run: MemoryRun) -> list[Any]:
    """What the draws of a run came to be: of what was opened, and of the masks that the dealer knows."""
    found = []
    for i in program.draws:
        opened, bits = run.runs[0]._shares.value(i).public, program.nodes[i].operation.bits  # type: ignore[attr-defined]
        shares = [one._shares.value(i).share for one in run.runs]
        total = shares[0]
        for share in shares[1:]:
            total = field.add(total, share)
        found.append((opened ^ total) & np.uint64((1 << bits) - 1))
    return found


@pytest.mark.parametrize("objective", [LATENCY, TRAFFIC, STRICT])
def test_the_clear_reading_says_the_same_of_the_same_coins(secure: Any, objective: Objective) -> None:
    x = secure.secret((7,))
    tensors = [
        RANDOM.uniform(-2, 2, (7,)) + x, RANDOM.bernoulli([0.1, 0.9, 0.5, 0, 1, 0.25, 1e-3]) * x,
        RANDOM.discrete_laplace(3.0, 7), RANDOM.discrete_gaussian(2.0, 7), RANDOM.bernoulli(0.5, 7),
    ]  # fmt: skip
    program = secure.program(*tensors, objective=objective)
    raw = fixed_point.encode(secure.draw(0, (7,)), 16)
    run = run_in_memory(program, [raw], parties=3, security=objective.security)
    wanted = clear(program, [raw], drawn=drawn(program, run))
    assert all(np.array_equal(a, b) for a, b in zip(run.outputs, wanted, strict=True))
    with pytest.raises(ProgramError, match="draws"):
        clear_values(program, [raw])


def test_what_is_opened_is_what_parties_draw_and_says_nothing(secure: Any) -> None:
    """Uniform in each run, with the same seeds of the dealer's: E is the parties' alone, and the bits are not E's."""
    program = secure.program(RANDOM.bernoulli(0.5, 2000))
    runs = [run_in_memory(program, [], seeds=secure.seeds(2, 1)) for _ in range(2)]
    opened = [run.runs[0]._shares.value(program.draws[0]).public for run in runs]
    assert not np.array_equal(*opened)
    for total, run in zip(opened, runs, strict=True):
        assert chisquare(np.bincount((total >> np.uint64(55)).astype(int), minlength=64)).pvalue > CHANCE
        same = (total & np.uint64(1)) == run.outputs[0]
        assert chisquare([same.sum(), (~same).sum()]).pvalue > CHANCE


@pytest.mark.parametrize("objective", [LATENCY, STRICT])
def test_who_draws_last_gains_nothing(secure: Any, objective: Objective) -> None:
    """A party that waits for the others' draws, and makes the sum 0: results are as uniform, and as unknown to it."""
    size, security = 3000, objective.security
    program = secure.program(RANDOM.bernoulli(0.5, size), objective=objective)
    dealing = deal(program, 2, {}, security, secure.seeds(2, 3))
    honest, cheat = (
        PartyRun(
            program, party=k, parties=2, randomness=party_randomness(dealing, program, k, security), stored={},
            security=security,
        )
        for k in range(2)
    )  # fmt: skip
    seen: list[Any] = []

    def watched(exchange: Any) -> Any:
        outgoing = next(exchange)
        seen.append(outgoing[0][:size].copy())
        while True:
            received = yield outgoing
            try:
                outgoing = exchange.send(received)
            except StopIteration as end:
                return end.value

    usual = cheat._differences

    def last(evaluation: Any, opened: Any) -> Any:
        return field.negate(seen[0]) if evaluation is cheat._shares else usual(evaluation, opened)

    cheat._differences = last  # type: ignore[method-assign]
    parts = lockstep([watched(honest.online([])), cheat.online([])])
    (i,) = program.draws
    assert not honest._shares.value(i).public.any()
    bits = field.subtract(field.add(parts[0][0], parts[1][0]), dealing.output_masks[0])
    assert set(field.to_signed(bits)) == {0, 1}
    assert chisquare(np.bincount(bits.astype(int))).pvalue > CHANCE
    # Nor does its own share tell more of them than a coin.
    agrees = int((bits == (cheat._shares.value(i).share & np.uint64(1))).sum())
    assert chisquare([agrees, size - agrees]).pvalue > CHANCE


@pytest.mark.parametrize("cheat", ["equivocates", "is no element", "is short"])
def test_a_disturbed_draw_ends_the_run(secure: Any, cheat: str) -> None:
    program = secure.program(RANDOM.discrete_laplace(1.0, 3), objective=STRICT)

    def disturb(number: int, sender: int, receiver: int, vector: Any) -> Any:
        if number == 0 and sender == 2 and receiver == 0:
            if cheat == "is short":
                return vector[:-1]
            vector = vector.copy()
            vector[0] = field.P if cheat == "is no element" else (int(vector[0]) + 1) % field.P
        return vector

    with pytest.raises((MacCheckError, UnreducedOpening, ProgramError)):
        run_in_memory(program, [], parties=3, security=Security.MALICIOUS, tamper=disturb)


def test_rounds_and_bytes(secure: Any) -> None:
    """Below 0.06 s and 11.6 MB a sample of 16 parties by orders of magnitude, in bytes that are predicted."""
    for objective in (LATENCY, TRAFFIC, STRICT):
        for tensor in (RANDOM.discrete_laplace(10.0, 100), RANDOM.discrete_gaussian(10.0, 100)):
            program = secure.program(tensor, objective=objective)
            predicted = cost(program, 16, objective.security)
            assert program.rounds <= 4
            assert predicted.offline_bytes + 16 * predicted.online_bytes_per_party < 100 * 11.6e6
    assert secure.program(RANDOM.bernoulli(0.5, 9)).rounds == 1
    assert secure.program(RANDOM.uniform(0, 3, 9)).rounds == 1


def test_what_cannot_be_drawn_is_refused() -> None:
    for refused in (
        lambda: RANDOM.uniform(1, 1), lambda: RANDOM.uniform(0, math.inf),
        lambda: RANDOM.uniform(0, 1, fraction_bits=60),
        lambda: RANDOM.bernoulli(1.1), lambda: RANDOM.bernoulli([0.5, math.nan]), lambda: RANDOM.discrete_laplace(0),
        lambda: RANDOM.discrete_laplace(2.0**21), lambda: RANDOM.discrete_gaussian(-1.0),
        lambda: RANDOM.discrete_gaussian(257.0),
    ):  # fmt: skip
        with pytest.raises(RangeError):
            refused()
    with pytest.raises(UsageError):
        RANDOM.bernoulli(0.5, (-1,))
    t = TensorType((3,), 0, 0.0, 7.0, Form.MASKED)
    assert Draw((3,), 3).result() == t
    for make in (
        lambda: Draw((3,), 0).result(), lambda: Draw((3,), MOST_DRAWN + 1).result(), lambda: Draw((3,), 3).result(t),
        lambda: Bits(4).result(t), lambda: Bits(0).result(t), lambda: Bits(3).result(t.replace(form=Form.SHARED)),
        lambda: Bits(3).result(),
    ):  # fmt: skip
        with pytest.raises(ProgramError):
            make()


def test_arrays_are_the_rings_own(secure: Any, opaque: Any) -> None:
    for objective in (LATENCY, STRICT):
        program = secure.program(RANDOM.bernoulli(0.3, 50), objective=objective)
        (bits,) = run_in_memory(program, [], security=objective.security, rings=opaque).outputs
        assert set(field_of(opaque).to_signed(bits)) <= {0, 1}


def test_extreme_parameters_are_right_or_refused(secure: Any) -> None:
    for small in (0.001, 1e-300):
        assert not sampled(secure, RANDOM.discrete_laplace(small, (20,))).any()
        assert not sampled(secure, RANDOM.discrete_gaussian(small, (20,))).any()
    with pytest.raises(ShapeError, match="broadcast"):
        RANDOM.bernoulli([0.5, 0.4], (3,))
    with pytest.raises(UnsupportedError, match="fraction_bits is a whole number"):
        RANDOM.uniform(0, 1000, (3,), fraction_bits=2.5)  # type: ignore[arg-type]
