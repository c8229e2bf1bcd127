"""Fourier series: the integer kernels against Python's integers, and the same value whatever the mask."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import pytest

from mpc.errors import ProgramError
from mpc.operation import Input, PartyContext, Value
from mpc.program import Expression, Program
from mpc.rings import Turn, angles, field, known_rings
from mpc.tensor_type import Form, TensorType
from protocols.operations.fourier import MAX_DEALT_BITS, MAX_MULTIPLIER, MAX_PUBLIC_BITS, MAX_TERMS, Fourier, Waves
from protocols.trace.gradients import grad
from protocols.trace.secret_tensor import concatenate

Raw = npt.NDArray[np.uint64]
SHIFT = angles.SINE_BITS + 4
SIGMOID = Fourier(11, 24, 1 << 19, (0,) * 3, (700_000, -1234, 99_999), 16, 18, -2.0, 2.0)


def waves_of(series: Fourier) -> Waves:
    return Waves(series.multiplier, series.period_bits, series.terms, series.dealt_bits)


def masks(count: int) -> Raw:
    out = np.random.default_rng(0).integers(0, field.P, count, dtype=np.uint64)
    special = [0, 1, field.P - 1, field.P - 2] + [k << j for j in range(16, 60) for k in (1, 3, 11)]
    out[: len(special)] = [s % field.P for s in special]
    return out


@pytest.mark.parametrize("multiplier", [1, 3, 11, MAX_MULTIPLIER])
@pytest.mark.parametrize("period_bits", [16, 20, 31, 32, 33, 60, 61])
def test_turns(multiplier: int, period_bits: int) -> None:
    x = masks(2000)
    wanted = [((int(v) * multiplier % field.P) % 2**period_bits << 32) >> period_bits for v in x]
    assert angles.turns(x, Turn(multiplier, period_bits)).tolist() == wanted


@pytest.mark.parametrize("bits", [4, 16, MAX_DEALT_BITS])
def test_dealt_waves(bits: int) -> None:
    """Within one unit of the true wave at the lowest bits, and within 32 steps' rounding at the most."""
    turns = np.random.default_rng(1).integers(0, 2**32, 5000, dtype=np.uint32)
    turns[:6] = 0, 1, 2**30, 2**31, 3 * 2**30, 2**32 - 1
    waves = angles.waves(turns, MAX_TERMS, bits)
    angle = turns.astype(np.longdouble) * (2 * np.arctan2(np.longdouble(0), np.longdouble(-1)) / 2**32)
    for j in range(1, MAX_TERMS + 1):
        for row, true in ((waves[j - 1], np.cos(j * angle)), (waves[MAX_TERMS + j - 1], np.sin(j * angle))):
            error = np.abs(field.to_signed(row) / np.longdouble(2.0**bits) - true).max() * 2.0**bits
            assert error < 0.5 + (6 * j + 2) * 2.0 ** (bits - 30)


def test_exact_values_at_quarter_turns() -> None:
    turns = np.array([0, 2**30, 2**31, 3 * 2**30], np.uint32)
    signed = field.to_signed(angles.waves(turns, 1, 20))
    assert signed.tolist() == [[2**20, 0, -(2**20), 0], [0, 2**20, 0, -(2**20)]]


def combined(turns: Any, cosines: Any, sines: Any, dealt: Raw) -> list[int]:
    """``combine_waves`` in Python's integers: the public factors, found with unit shares, times any shares."""
    rows, count = dealt.shape
    total = [0] * count
    for k in range(rows):
        unit = np.zeros(dealt.shape, np.uint64)
        unit[k] = 1
        factors = field.to_signed(angles.combine_waves(turns, cosines, sines, SHIFT, unit))
        total = [(t + int(f) * int(s)) % field.P for t, f, s in zip(total, factors, dealt[k], strict=True)]
    return total


@pytest.mark.parametrize("seed", range(3))
def test_combination_is_exact(seed: int) -> None:
    rng = np.random.default_rng(seed)
    terms, count = (1, 5, MAX_TERMS)[seed], 1500
    turns = rng.integers(0, 2**32, count, dtype=np.uint32)
    cosines, sines = rng.integers(-(2**20), 2**20, (2, terms)).astype(np.int32)
    dealt = rng.integers(0, field.P, (2 * terms, count), dtype=np.uint64)
    assert angles.combine_waves(turns, cosines, sines, SHIFT, dealt).tolist() == combined(turns, cosines, sines, dealt)


@pytest.mark.parametrize("signs", [(1, 1), (1, -1), (-1, -1), (1, 0), (0, -1)])
@pytest.mark.parametrize("share", [0, 1, field.P - 1, 2**31 - 1, 2**60])
def test_nothing_overflows_at_the_limits(signs: tuple[int, int], share: int) -> None:
    """The largest coefficients that are allowed, in all 32 terms, at angles where all of them add up."""
    limit = (8 << (MAX_PUBLIC_BITS + 4)) - 1
    share_of = limit // max(1, abs(signs[0]) + abs(signs[1]))
    cosines = np.full(MAX_TERMS, signs[0] * share_of, np.int32)
    sines = np.full(MAX_TERMS, signs[1] * share_of, np.int32)
    turns = np.array([0, 1, 2**29, 2**30, 2**31, 3 * 2**29, 2**32 - 1, 5 * 2**29], np.uint32)
    dealt = np.full((2 * MAX_TERMS, len(turns)), share, np.uint64)
    result = angles.combine_waves(turns, cosines, sines, SHIFT, dealt)
    assert field.is_reduced(result)
    assert result.tolist() == combined(turns, cosines, sines, dealt)
    # And the factors are what they should be, so that the oracle did not overflow with the kernel.
    unit = np.zeros(dealt.shape, np.uint64)
    unit[0] = 1
    angle = turns * (2 * math.pi / 2**32)
    true = (cosines[0] * np.cos(angle) + sines[0] * np.sin(angle)) / 16
    assert np.abs(field.to_signed(angles.combine_waves(turns, cosines, sines, SHIFT, unit)) - true).max() < 2


@pytest.mark.parametrize("operation", [
    SIGMOID,
    Fourier(1, 20, 77, (5000, 3), (-9000, 12), 10, 8, -1.0, 1.0),
    Fourier(63, 60, -5, (1 << 22,) * 6, (0,) * 6, 20, 24, -1.0, 1.0),
    Fourier(3, 40, 0, (1000,) * MAX_TERMS, (-(1 << 12),) * MAX_TERMS, MAX_PUBLIC_BITS, MAX_DEALT_BITS, -1.0, 1.0),
])  # fmt: skip
@pytest.mark.parametrize("x", [0, 1, -1, 123_456, -(2**22), 2**58, -(2**58)])
def test_the_same_value_whatever_the_mask(operation: Fourier, x: int) -> None:
    count = 100_000 if operation is SIGMOID else 2_000
    x_type = TensorType((count,), 16, -1.0, 1.0, Form.MASKED)
    waves = waves_of(operation)
    types = (x_type, waves.result(x_type).check())
    operation.result(*types).check()
    raw = field.from_signed(np.full(count, x, np.int64))
    mask = masks(count)
    opened = field.subtract(raw, mask)
    (correlation,) = waves.correlations(x_type)
    (dealt,) = correlation.make(known_rings(), [mask])
    assert [dealt.shape] == [part.shape for part in correlation.parts]
    rng = np.random.default_rng(5)
    share = rng.integers(0, field.P, dealt.shape, dtype=np.uint64)
    total = field.zeros(raw.shape)
    for index, prepared in enumerate((share, field.subtract(dealt, share))):
        context = PartyContext(index, 2)
        held = waves.evaluate(context, types[:1], [Value(opened, mask)], [prepared])
        value = operation.evaluate(context, types, [Value(opened, mask), held], None)
        total = field.add(total, context.fold(value, types[0]))
    of_zero = waves.clear(known_rings(), types[:1], [raw])
    difference = field.to_signed(field.subtract(total, operation.clear(known_rings(), types, [raw, of_zero])))
    assert np.abs(difference).max() <= operation.tolerance(*types)
    # The real function, in floats, to what coefficients and waves of these bits can say.
    bits = operation.public_bits + operation.dealt_bits
    angle = 2 * math.pi * (operation.multiplier * x % 2**operation.period_bits) / 2**operation.period_bits
    true = operation.constant + sum(
        c * math.cos(j * angle) + s * math.sin(j * angle)
        for j, (c, s) in enumerate(zip(operation.cosines, operation.sines, strict=True), start=1)
    )
    real = field.to_signed(total) * 2.0**-bits - true * 2.0 ** -(operation.public_bits + 4)
    assert np.abs(real).max() <= 2 * (operation.tolerance(*types) + 2.0**operation.dealt_bits) * 2.0**-bits


@pytest.mark.parametrize("shape", [(), (0,), (2, 1, 3)])
@pytest.mark.parametrize("parties", [2, 3])
def test_any_shape(secure: Any, shape: tuple[int, ...], parties: int) -> None:
    x = secure.draw(1, shape)
    secure.check(lambda x: x.sigmoid(), x, reference=lambda x: 1 / (1 + np.exp(-x)), error=5e-4, parties=(parties,))


@pytest.mark.parametrize("changes", [
    {"multiplier": 0}, {"multiplier": 64}, {"multiplier": -1}, {"period_bits": 15}, {"period_bits": 62},
    {"cosines": ()}, {"sines": (), "cosines": ()}, {"sines": (0,) * 33, "cosines": (0,) * 33},
    {"public_bits": 3}, {"public_bits": 23}, {"public_bits": 2**60}, {"dealt_bits": 3}, {"dealt_bits": 25},
    {"constant": 8 << 20}, {"constant": 2**63}, {"sines": (8 << 20, 0, 0)}, {"cosines": (2**63, 0, 0)},
    {"sines": (4 << 20, 0, 0), "cosines": (4 << 20, 0, 0)}, {"low": 3.0}, {"high": 1e9}, {"low": float("nan")},
    {"low": -math.inf}, {"low": -1e9}, {"low": 0.75, "high": 0.25}, {"sines": (1, 1)}, {"cosines": (1,) * 9},
])  # fmt: skip
def test_what_would_overflow_or_lie_is_refused(changes: dict[str, Any]) -> None:
    attributes = {name: getattr(SIGMOID, name) for name in SIGMOID.__struct_fields__} | changes
    t = TensorType((2,), 16, -1.0, 1.0, Form.MASKED)
    SIGMOID.result(t, waves_of(SIGMOID).result(t)).check()
    changed = Fourier(**attributes)
    with pytest.raises(ProgramError):
        changed.result(t, waves_of(changed).result(t)).check()


def test_only_masked_operands_and_waves_of_theirs() -> None:
    t, waves = TensorType((2,), 16, -1.0, 1.0, Form.MASKED), waves_of(SIGMOID)
    with pytest.raises(ProgramError):
        waves.result(t.replace(form=Form.SHARED))
    for other in (t, waves.result(t.replace(shape=(3,))), msgspec.structs.replace(waves, dealt_bits=17).result(t)):
        with pytest.raises(ProgramError, match="takes the waves of such a series"):
            SIGMOID.result(t, other)


def test_a_series_takes_the_waves_of_its_operand_alone() -> None:
    """Of another tensor's mask they would give another function, and tell of a mask where it is opened."""
    x, y = (Expression(Input((2,), 16, -1.0, 1.0)) for _ in range(2))
    waves = [Expression(made, (of,)) for of in (x, y) for made in (waves_of(SIGMOID),)]
    Program.of([Expression(SIGMOID, (x, waves[0]))])
    for outputs, said in (([Expression(SIGMOID, (x, waves[1]))], "of what it is a function of"), ([waves[0]], "mask")):
        with pytest.raises(ProgramError, match=said):
            Program.of(outputs)


def test_a_function_and_its_slope_are_of_one_opening_and_the_same_waves(secure: Any) -> None:
    x = secure.secret((5,), -4.0, 4.0)
    y = x.sigmoid(interval=(-8, 8))
    program = secure.program(grad((y * 3.0).sum(), x))
    both = secure.program(concatenate([y, grad((y * 3.0).sum(), x)]))
    for made in (program, both):
        assert [node.operation.name for node in made.nodes].count("waves") == 1
    dealt = [sum(part.bytes for parts in made.dealt for part in parts) for made in (program, both)]
    assert dealt[0] == dealt[1]
