"""Exact comparison: every edge of every range, every variant, any number of parties, both kinds of security."""

from __future__ import annotations

import operator
from collections.abc import Callable
from itertools import islice
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import pytest

from mpc import fixed_point
from mpc.cost import Link, cost, objective_of
from mpc.errors import ProgramError, RangeError, UnsupportedError, UsageError
from mpc.objective import ANY, LATENCY, TRAFFIC, Objective
from mpc.program import Program
from mpc.rings import BITS, FIELD, field
from mpc.rings.small import small
from mpc.security import Security
from mpc.tensor_type import Form, TensorType
from protocols.lowering.comparison import MOST_DEALT, chosen, scaled
from protocols.operations.bit_comparison import Lifted, Sign
from protocols.operations.comparison import Compare, Join
from protocols.operations.digits import EXACTLY, Digits, Tables, Window, mistaken, tables_type
from protocols.operations.linear import Add, Index
from protocols.operations.mask import Mask
from protocols.operations.product import Multiply
from protocols.operations.residues import Factors, Residue, Residuosity
from protocols.operations.weighed import SignBits, Signed, Steps, Weighed
from protocols.readings.clear import clear
from protocols.readings.memory import run_in_memory

Integers = npt.NDArray[np.int64]
TESTS: dict[str, Callable[[Any, Any], Any]] = {
    name: getattr(operator, name) for name in ("lt", "le", "gt", "ge", "eq", "ne")
}
STRICT = Objective(ANY, Security.MALICIOUS)
VARIANTS = {"two rounds": LATENCY, "three rounds": TRAFFIC, "with MACs": Objective(0, Security.MALICIOUS)}
PARTIES = [(2, Security.SEMI_HONEST), (3, Security.SEMI_HONEST), (5, Security.SEMI_HONEST), (4, Security.MALICIOUS)]
RUNS = [(name, parties) for name in VARIANTS for parties in ((2, 3) if name == "with MACs" else (2, 4, 5))]


COMPARING = (Digits, Residue)
"""Operations that say how bits are cut."""


def around(magnitude: int) -> Integers:
    """Values up to ``magnitude``: ends, zero, powers of two, and one unit beside each."""
    marks = {0, magnitude, *(2**k for k in range(magnitude.bit_length()))}
    near = {m + d for m in marks for d in (-1, 0, 1)}
    return np.array(sorted(s * v for v in near for s in (-1, 1) if abs(v) <= magnitude), np.int64)


def computed(
    program: Program, *raw: Integers, parties: int = 2, security: Security | None = None
) -> list[npt.NDArray[np.float64]]:
    """What it reveals; without ``security``, in that for which it was planned."""
    security = program.objective.security if security is None else security
    run = run_in_memory(program, [field.from_signed(r) for r in raw], parties=parties, security=security)
    bits = [program.nodes[i].type.fraction_bits for i in program.outputs]
    found = [fixed_point.decode(out, b) for out, b in zip(run.outputs, bits, strict=True)]
    for real, i in zip(found, program.outputs, strict=True):
        t = program.nodes[i].type
        assert not real.size or (real.min() >= t.low and real.max() <= t.high)
    return found


def operations(program: Program, kind: type[Any] | tuple[type[Any], ...]) -> list[Any]:
    return [node.operation for node in program.nodes if isinstance(node.operation, kind)]


@pytest.mark.sampled(4)
@pytest.mark.parametrize(("variant", "parties"), RUNS)
@pytest.mark.parametrize("magnitude", [1, 7, 2**18 + 1, 2**38, 2**58])
def test_signs_at_every_edge(secure: Any, magnitude: int, variant: str, parties: int) -> None:
    raw = around(magnitude)
    x, y = (secure.secret(raw.shape, -magnitude, magnitude, 0) for _ in range(2))
    tests = [test(x, 0) for test in TESTS.values()]
    program = secure.program(*tests, x.relu(), (x >= 0) * y, (x < 0) * y, objective=VARIANTS[variant])
    wanted = [test(raw, 0) for test in TESTS.values()]
    other = raw[::-1].copy()
    *bits, relu, kept, rest = computed(program, raw, other, parties=parties)
    assert all(np.array_equal(found, w) for found, w in zip(bits, wanted, strict=True))
    assert np.array_equal(relu, np.maximum(raw, 0))
    assert np.array_equal(kept, np.where(raw >= 0, other, 0))
    assert np.array_equal(rest, np.where(raw < 0, other, 0))


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("name", TESTS)
def test_all_pairs_of_small_numbers(secure: Any, name: str, variant: str) -> None:
    x, y = (side.reshape(-1) for side in np.meshgrid(np.arange(-8, 9), np.arange(-8, 9)))
    tensors = [secure.secret(x.shape, -8, 8, 0) for _ in range(2)]
    test = TESTS[name]
    program = secure.program(test(*tensors), np.where(test(*tensors), *tensors), objective=VARIANTS[variant])
    bit, let = computed(program, x, y, parties=3)
    assert np.array_equal(bit, test(x, y))
    assert np.array_equal(let, np.where(test(x, y), x, y))
    assert program.rounds == 1 + (variant == "three rounds")


@pytest.mark.parametrize("name", TESTS)
@pytest.mark.parametrize("threshold", [0.0, 0.1, -0.1, 3.99999, -4.0, 17.0, -1e300, np.inf])
def test_public_numbers_wherever_they_lie(secure: Any, name: str, threshold: float) -> None:
    raw = around(2**18)
    x, array = secure.secret(raw.shape), np.full(raw.shape, threshold)
    found, reflected = computed(secure.program(TESTS[name](x, threshold), TESTS[name](array, x)), raw)
    assert np.array_equal(found, TESTS[name](raw / 2**16, threshold))
    assert np.array_equal(reflected, TESTS[name](threshold, raw / 2**16))


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("spare", [1, 7, 13])
def test_ignored_bits_change_the_sign_of_small_values_alone(secure: Any, spare: int, variant: str) -> None:
    """relu of products: right to one unit of what is kept, over all places of the masks' low bits."""
    raw = np.concatenate([around(2**20 - 1), np.arange(-(2**spare) - 2, 2**spare + 3)])
    bits = 16 + spare
    x = secure.secret(raw.shape, -(2.0 ** (20 - bits)), 2.0 ** (20 - bits), bits)
    program = secure.program(x.precise(16).relu(), objective=VARIANTS[variant])
    digits = operations(program, COMPARING)[-1]
    (found,) = computed(program, raw)
    unit = 2.0**-bits
    error = np.abs(found - np.maximum(raw, 0) * unit)
    assert error.max() <= mistaken(digits.ignored) * unit <= 2.0**-16
    wrong = np.abs(raw)[error > 0]
    assert not wrong.size or wrong.max() <= mistaken(digits.ignored)


@pytest.mark.parametrize("parties", [2, 3, 5])
@pytest.mark.parametrize("variant", VARIANTS)
def test_rounds_and_bytes_are_as_predicted(secure: Any, variant: str, parties: int) -> None:
    x, w = secure.secret((3, 7)), secure.secret((7, 5))
    # What is let through is cut on the way.
    y = ((x @ w).relu() @ (w.T * 2) > 0.5) * 3
    program = secure.program(y, objective=VARIANTS[variant])
    raw = [fixed_point.encode(secure.draw(i, shape), 16) for i, shape in enumerate(((3, 7), (7, 5)))]
    secure.as_predicted(program, raw, parties, program.objective.security)


def test_a_relu_is_dealt_as_few_bytes_as_is_said(secure: Any) -> None:
    """At 20 bits: 176 in two rounds, 31 in three, and with MACs 656 in three and 1,256 in two."""

    def dealt(objective: Objective) -> float:
        program = secure.program(secure.secret((1000,)).relu(), objective=objective)
        digits = operations(program, COMPARING)[-1]
        assert sum(digits.widths) == 20
        return (cost(program, 2, objective.security).offline_dealer_bytes[-1] - 16) / 1000

    assert dealt(LATENCY) == 176
    assert dealt(TRAFFIC) == 31.25
    # What does not fall to the comparison: the MAC of the input's mask.
    assert dealt(STRICT) - 8 == 656 <= MOST_DEALT
    assert [each.bytes - 8 * each.rounds for each in islice(scaled(20, 1, False), 4)] == [1264, 656, 496, 368]
    assert [each.bytes - 8 * each.rounds for each in islice(scaled(30, 1, False), 4)] == [5104, 1488, 1008, 800]


def test_the_objective_weighs_rounds_and_bytes() -> None:
    few, many = chosen(20, 10, Objective(10_000)), chosen(20, 10_000, Objective(10_000))
    assert (few.rounds, many.rounds) == (1, 2)
    assert (chosen(20, 50_000, LATENCY).rounds, chosen(20, 10**6, LATENCY).rounds) == (1, 2)
    assert chosen(20, 10**6, Objective(ANY)).rounds == 1
    assert chosen(20, 1, TRAFFIC).rounds == 2
    # With MACs, of few values, a round is worth what is cheap beside it; of many never more than is said of each.
    assert [chosen(20, size, STRICT).rounds for size in (1, 64, 873, 874, 10**6)] == [1, 1, 1, 2, 2]
    assert [chosen(32, size, STRICT).rounds for size in (64, 128, 10**6)] == [1, 2, 2]
    assert chosen(13, 10**6, STRICT).rounds == 1
    assert objective_of("traffic", Security.SEMI_HONEST) == TRAFFIC
    assert objective_of(Link(2e-3, 8e6), Security.MALICIOUS) == Objective(1000, Security.MALICIOUS)
    assert objective_of(Link(1.0, float("inf")), Security.SEMI_HONEST) == Objective(ANY)
    with pytest.raises(UsageError, match="'latency', 'traffic' or a link"):
        objective_of("speed", Security.SEMI_HONEST)  # type: ignore[arg-type]


def test_what_has_one_variant_is_one_program(secure: Any) -> None:
    x = secure.secret((3,))
    assert len({secure.program(x * x, objective=o).digest for o in VARIANTS.values()}) == 1
    assert len({secure.program(x > 0, objective=o).digest for o in VARIANTS.values()}) == 3


def test_what_a_range_tells_is_not_compared(secure: Any) -> None:
    x = secure.secret((3,), 1, 4)
    program = secure.program(x >= 0, x < 1, x.relu(), (-x).relu(), x > 5, x <= 4)
    assert program.rounds == 0
    raw = fixed_point.encode(np.array([1.0, 2.5, 4.0]), 16)
    outputs = zip(clear(program, [raw]), program.outputs, strict=True)
    values = [fixed_point.decode(v, program.nodes[i].type.fraction_bits).tolist() for v, i in outputs]
    assert values == [[1] * 3, [0] * 3, [1, 2.5, 4], [0] * 3, [0] * 3, [1] * 3]


@pytest.mark.parametrize("name", sorted(TESTS))
@pytest.mark.parametrize(("low", "high"), [(0.0, 7.0), (-7.0, -0.5), (3.0, 3.5)])
def test_what_a_range_tells_is_a_bit_like_any_other(secure: Any, name: str, low: float, high: float) -> None:
    """For logic, `where`, `any` and `all`: with no fraction bits, whatever the value has."""
    x, y = secure.secret((2, 2), low, high), secure.secret((2, 2), 0.0, 1.0, 0)
    for mark in (-100.0, 100.0):
        known, value = TESTS[name](x, mark), float(TESTS[name](low, mark))
        assert (known.type.fraction_bits, known.type.low, known.type.high) == (0, value, value)
        assert known.error.absolute == 0
        raw, bits = np.full((2, 2), round(low * 2**16)), np.array([[0, 1], [1, 0]])
        results = (known & y, y | known, known ^ y, ~known, np.any(known), np.all(known), np.where(known, x, -x))
        both = computed(secure.program(*results), raw, bits)
        one = bool(value)
        wanted = (
            one & bits,
            one | bits,
            one ^ bits,
            np.full((2, 2), not one),
            one,
            one,
            np.full((2, 2), low if one else -low),
        )
        assert all(np.array_equal(a, b) for a, b in zip(both, wanted, strict=True))


def test_narrow_ranges_take_few_bits(secure: Any) -> None:
    def bits(low: float, high: float, fraction_bits: int = 16) -> int:
        program = secure.program(secure.secret((2,), low, high, fraction_bits) >= 0)
        (digits,) = operations(program, Digits)
        return sum(digits.widths)

    assert bits(-1, 1, 0) == 2
    assert bits(-4, 4) == 20
    assert bits(-16, 16) == 22


@pytest.mark.parametrize("shape", [(), (0,), (2, 1, 3)])
@pytest.mark.parametrize("variant", VARIANTS)
def test_any_shape(secure: Any, variant: str, shape: tuple[int, ...]) -> None:
    x = secure.secret(shape)
    values = secure.draw(3, shape)
    program = secure.program(x > 1, (x > 1) * (x - 1), objective=VARIANTS[variant])
    bit, beyond = computed(program, field.to_signed(fixed_point.encode(values, 16)))
    assert np.array_equal(bit, values > 1)
    assert np.array_equal(beyond, np.maximum(values - 1, 0))


def test_what_is_too_large_is_refused(secure: Any) -> None:
    with pytest.raises(RangeError, match="too large to compare"):
        _ = secure.secret((2,), -(2.0**59), 2.0**59, 0) >= 0
    with pytest.raises(UnsupportedError, match="0 and 1"):
        np.where(secure.secret((2,)), 1.0, 0.0)


X = TensorType((3,), 16, -4.0, 4.0, Form.MASKED)


def digits_of(x: TensorType, ignored: int, widths: tuple[int, ...], ring: str) -> TensorType:
    return Digits(ignored, widths, ring).result(x, Tables(ignored, widths, ring).result(x))


@pytest.mark.parametrize(
    ("ignored", "widths", "ring"),
    [
        (EXACTLY, (4, 4), FIELD), (EXACTLY, (), FIELD), (EXACTLY, (11, 9), BITS), (-2, (10,) * 3, BITS),
        (0, (8,) * 8, BITS), (0, (5, 0, 8, 8), FIELD), (50, (8, 8), FIELD), (EXACTLY, (10, 10), "words"),
        (0, (1,) * 21, FIELD),
    ],
)  # fmt: skip
def test_what_a_stranger_may_not_compare(ignored: int, widths: tuple[int, ...], ring: str) -> None:
    assert not Window(EXACTLY, (4, 4)).takes(X)
    assert digits_of(X, EXACTLY, (7, 7, 6), FIELD).shape == (5, 3)
    assert digits_of(X, EXACTLY, (7, 7, 6), BITS).shape == (5, 1)
    with pytest.raises(ProgramError):
        Tables(ignored, widths, ring).result(X)
    with pytest.raises(ProgramError):
        Digits(ignored, widths, ring).result(X, tables_type(3, widths, ring))


def test_what_does_not_go_together() -> None:
    field_digits, packed = (digits_of(X, EXACTLY, (7, 7, 6), ring) for ring in (FIELD, BITS))
    tables = tables_type(3, (7, 7, 6), BITS)
    opened, packed_opened = (t.replace(form=Form.MASKED) for t in (field_digits, packed))
    assert Compare(EXACTLY, False, False, 0, False).result(X, opened).shape == (3,)
    steps = [Steps(EXACTLY, (6, 6, 8), small(3 - max(j - 1, 0)), j) for j in range(3)]
    weighed, of = Weighed(EXACTLY, (6, 6, 8), "mod8"), [step.result(X) for step in steps]
    sums = weighed.result(X, *of).replace(form=Form.MASKED)
    assert Signed(EXACTLY, False, False, 0, False, 3).result(X, sums).shape == (3,)
    sign = Sign(3, 3).result(packed_opened)
    assert SignBits(3, 3).result(sums) == sign
    assert Lifted(EXACTLY, False, False, 0, False).result(X, sign.replace(form=Form.MASKED)).shape == (3,)
    uniform = TensorType((3,), 0, -(2.0**59), 2.0**59, Form.MASKED)
    first, second = Residue(EXACTLY, (4, 4, 4, 4, 3, 2), 0, 5), Residue(EXACTLY, (4, 4, 4, 4, 3, 2), 5, 1)
    assert first.result(X, uniform) == second.result(X, uniform, uniform) == Factors(3).result() == uniform
    shown = Residuosity(EXACTLY, False, False, 0, False)
    assert shown.result(X, uniform).shape == (3,)
    refused = [
        lambda: first.result(X, uniform, uniform),
        lambda: second.result(X, uniform),
        lambda: first.result(X, uniform.replace(shape=(1,))),
        lambda: first.result(uniform, uniform),
        lambda: Residue(EXACTLY, (4, 4, 4, 4, 3, 2), 0, 6).result(X, uniform),
        lambda: Residue(EXACTLY, (4, 4, 4, 4, 3, 2), 1, 5).result(X, uniform, uniform),
        lambda: Residue(EXACTLY, (4, 4, 4, 4, 3, 2), 5, 2).result(X, uniform, uniform),
        lambda: Residue(EXACTLY, (4, 4, 4, 4, 3, 2), -1, 4).result(X, uniform, uniform),
        lambda: Residue(EXACTLY, (4, 4, 4, 4, 3, 1), 5, 1).result(X, uniform, uniform),
        lambda: Residue(EXACTLY, (4, 4), 0, 2).result(X, uniform),
        lambda: Residue(EXACTLY, (1,) * 61, 0, 4).result(X, uniform),
        lambda: Residue(0, (10, 10), 0, 2, True).result(X, uniform),
        lambda: Factors(-1).result(),
        lambda: shown.result(X, opened),
        lambda: Compare(EXACTLY, False, False, 0, False).result(X, field_digits),
        lambda: Compare(EXACTLY, False, False, 0, False).result(X, packed_opened),
        lambda: Compare(EXACTLY, False, False, 0, False).result(X, opened, X.replace(shape=(1,))),
        lambda: Compare(EXACTLY, False, False, 0, False).result(X, opened.replace(shape=(4, 3))),
        lambda: Compare(EXACTLY, False, False, 0, False).result(X, opened.replace(shape=(17, 3))),
        lambda: Compare(-2, False, False, 0, False).result(X, opened),
        lambda: Signed(EXACTLY, False, False, 0, False, 3).result(X, opened),
        lambda: Signed(EXACTLY, False, False, 0, False, 3).result(X, packed_opened),
        lambda: Signed(EXACTLY, False, False, 0, False, 2).result(X, sums),
        lambda: Signed(EXACTLY, False, False, 0, False, 10**6).result(X, sums),
        lambda: Lifted(EXACTLY, False, False, 0, False).result(X, sums),
        lambda: weighed.result(X, *of[::-1]),
        lambda: weighed.result(X, *of[:2]),
        lambda: weighed.result(X),
        lambda: msgspec.structs.replace(weighed, ring="mod4").result(X, *of),
        lambda: msgspec.structs.replace(weighed, thresholds=3).result(X, *of),
        lambda: msgspec.structs.replace(weighed, widths=(2,) * 8, ring="bits").result(X, *of),
        # Where highest digits may be the same.
        lambda: weighed.result(X.replace(high=7.99), *of),
        lambda: weighed.result(X.replace(low=-7.99), *of),
        lambda: msgspec.structs.replace(steps[0], ring="mod4").result(X),
        lambda: msgspec.structs.replace(steps[0], place=3).result(X),
        lambda: msgspec.structs.replace(steps[0], place=-1).result(X),
        lambda: msgspec.structs.replace(steps[0], widths=(3,) * 8).result(X),
        lambda: Add().result(of[0], of[0]),
        lambda: Digits(EXACTLY, (7, 7, 6), FIELD).result(X, tables),
        lambda: Digits(EXACTLY, (7, 7, 7), BITS).result(X, tables),
        lambda: Digits(EXACTLY, (7, 7, 6), BITS).result(X.replace(shape=(9,)), tables),
        lambda: Digits(EXACTLY, (7, 7, 6), BITS).result(X, tables.replace(shape=(318, 2))),
        lambda: Digits(EXACTLY, (7, 7, 6), BITS).result(X, tables.replace(shape=())),
        lambda: Digits(EXACTLY, (7, 7, 6), BITS).result(X),
        lambda: Digits(EXACTLY, (7, 7, 6), BITS, 2).result(X, tables),
        lambda: Digits(EXACTLY, (7, 7, 6), BITS, 0).result(X, tables),
        lambda: Digits(0, (7, 7, 6), BITS, 1, True).result(X.replace(fraction_bits=10), tables),
        lambda: Compare(EXACTLY, False, False, 1, False).result(X, opened),
        lambda: Compare(EXACTLY, False, False, -1, False).result(X, opened, X),
        lambda: Compare(EXACTLY, False, False, 17, False).result(X, opened, X),
        lambda: Sign(3, 10).result(packed_opened.replace(shape=(19, 1))),
        lambda: Sign(-1, 3).result(packed_opened),
        lambda: SignBits(3, 8).result(sums),
        lambda: SignBits(-1, 3).result(sums),
        lambda: SignBits(30, 3).result(sums),
        lambda: SignBits(3, 2).result(sums),
        lambda: SignBits(3, 3).result(sums.replace(form=Form.SHARED)),
        lambda: SignBits(3, 3).result(packed_opened),
        lambda: Sign(9, 3).result(packed_opened),
        lambda: Lifted(EXACTLY, False, False, 0, False).result(X, opened),
        lambda: Join((2, 2)).result(opened),
        lambda: Join(()).result(opened),
        lambda: Join((9,)).result(opened.replace(shape=(17, 3))),
        lambda: Join((3,)).result(field_digits),
        # Packed bits are no numbers.
        lambda: Add().result(packed, packed),
        lambda: Multiply().result(packed_opened, packed_opened),
        lambda: Index(((0, 1, 1),)).result(packed),
    ]
    for refuse in refused:
        with pytest.raises(ProgramError):
            refuse()
    assert Mask().result(packed).ring == BITS


def test_bits_have_no_macs(secure: Any) -> None:
    program = secure.program(secure.secret((2,)) > 0)
    with pytest.raises(UnsupportedError, match="no MACs"):
        run_in_memory(program, [field.zeros((2,))], security=Security.MALICIOUS)


@pytest.mark.parametrize("variant", ["two rounds", "three rounds"])
@pytest.mark.parametrize("value", [-4.0, 0.0, 4.0])
def test_opened_bits_are_uniform(secure: Any, variant: str, value: float) -> None:
    """Of any value, however often each place is opened: one bit in two, and no two of a value the same more often."""
    count = 20_000
    program = secure.program(secure.secret((count,)) >= 0, objective=VARIANTS[variant])
    for number in range(program.rounds):
        raw = fixed_point.encode(np.full(count, value), 16)
        sent = secure.watch(program, [raw], 2, secure.seeds(2, 5 + number)).sent[number]
        signed = 1.0 - 2.0 * secure.opened_bits(program, sent, count)
        # Six standard deviations of a sum of that many independent signs.
        assert np.abs(signed.sum(axis=0)).max() < 6 * count**0.5
        together = signed.T @ signed - count * np.eye(signed.shape[1])
        assert np.abs(together).max() < 6 * count**0.5


@pytest.mark.parametrize("variant", ["two rounds", "three rounds"])
@pytest.mark.parametrize("cheat", ["flipped", "longer", "shorter"])
def test_openings_of_bits_that_are_disturbed(secure: Any, variant: str, cheat: str) -> None:
    """Without MACs a wrong bit makes results wrong, and nothing else; another length ends it, with a typed error."""
    program = secure.program(secure.secret((9,)).relu(), objective=VARIANTS[variant])
    raw = fixed_point.encode(secure.draw(1, (9,)), 16)

    def disturb(number: int, sender: int, receiver: int, vector: Any) -> Any:
        if sender == 1:
            if cheat == "flipped":
                return vector ^ vector.dtype.type(0x5A)
            return np.append(vector, vector[:1]) if cheat == "longer" else vector[:-1]
        return vector

    if cheat == "flipped":
        (out,) = run_in_memory(program, [raw], tamper=disturb).outputs
        assert out.shape == (9,)
        assert field.is_reduced(out)
    else:
        with pytest.raises(ProgramError, match="the same buffers"):
            run_in_memory(program, [raw], tamper=disturb)
