"""The seam between programs and algebras: a second ring, of this test's own, goes through every reading.

Integers modulo 2^32, 4 bytes each: nothing may take elements for eight bytes of uint64, nor a round for one buffer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import prod
from typing import Any

import msgspec
import numpy as np
import pytest

from mpc import fixed_point
from mpc.cost import cost
from mpc.errors import ProgramError, UnsupportedError
from mpc.operation import Constant, Input
from mpc.program import Expression, Program
from mpc.rings import FIELD, FieldRing, known_rings
from mpc.rings import ring as registry
from mpc.rings.prg import Seed
from mpc.rings.ring import Array, Buffer, Pair, Ring, Shape, register_ring
from mpc.security import Security
from mpc.tensor_type import Form, TensorType
from protocols.operations.keep import Keep
from protocols.operations.linear import Add, Concatenate, Index, Negate, Pad, Sum, Transpose
from protocols.operations.mask import Mask
from protocols.operations.product import Matmul, Multiply
from protocols.operations.truncation import Truncate
from protocols.readings.clear import clear
from protocols.readings.memory import run_in_memory


class Words(Ring):
    """Integers modulo 2^32."""

    name = "words"
    element_bits = 32
    value_bits = 31
    macs = False

    def zeros(self, shape: Shape) -> Array:
        return np.zeros(shape, np.uint32)

    def full(self, shape: Shape, value: int) -> Array:
        return np.full(shape, value % 2**32, np.uint32)

    def is_zero(self, x: Array) -> bool:
        return not x.any()

    def sample(self, seed: Seed, shape: Shape) -> Array:
        return np.frombuffer(seed.raw(4 * prod(shape)), "<u4").astype(np.uint32).reshape(shape)

    def sample_sum(self, seeds: Sequence[Seed], shape: Shape) -> Array:
        return sum((self.sample(seed, shape) for seed in seeds), start=self.zeros(shape))

    def holds(self, array: Array, shape: Shape) -> bool:
        return array.dtype == np.uint32 and array.shape == shape

    def from_signed(self, values: Any) -> Array:
        return np.asarray(values).astype(np.uint32)

    def to_signed(self, x: Array) -> Any:
        return x.astype(np.int32).astype(np.int64)

    def buffer(self, x: Array) -> Buffer:
        return np.ascontiguousarray(x).astype("<u4", copy=False)

    def read(self, data: bytes | memoryview, shape: Shape) -> Array:
        return np.frombuffer(data, "<u4").astype(np.uint32).reshape(shape)

    def add(self, x: Array, y: Array) -> Array:
        return x + y

    def subtract(self, x: Array, y: Array) -> Array:
        return x - y

    def negate(self, x: Array) -> Array:
        return np.negative(x)

    def scale(self, x: Array, k: int) -> Array:
        return x * np.uint32(k % 2**32)

    def multiply(self, x: Array, y: Array) -> Array:
        return x * y

    def total(self, x: Array, axes: Sequence[int] | None = None, keepdims: bool = False) -> Array:
        return np.sum(x, axis=None if axes is None else tuple(axes), keepdims=keepdims, dtype=np.uint32)

    def matmul(self, x: Any, y: Any) -> Array:
        return np.asarray(x @ y)

    def conv2d(self, x: Array, w: Any, stride: Pair, padding: Pair, groups: int) -> Array:
        raise NotImplementedError

    def sum_pool2d(self, x: Array, kernel: Pair, stride: Pair, padding: Pair) -> Array:
        raise NotImplementedError

    def accumulate(self, total: Array, incoming: Buffer) -> bool:
        total += incoming
        return True


@pytest.fixture(autouse=True)
def words(monkeypatch: pytest.MonkeyPatch) -> Iterator[Words]:
    monkeypatch.setattr(registry, "_REGISTRY", dict(registry._REGISTRY))
    ring = Words()
    register_ring(ring)
    return ring


def leaf(shape: Shape, ring: str, bound: float = 10.0) -> Expression:
    return Expression(Input(shape, 0, -bound, bound, ring))


def of(operation: Any, *inputs: Expression) -> Expression:
    return Expression(operation, inputs)


def masked(x: Expression) -> Expression:
    return of(Mask(), x)


def both_rings() -> Program:
    """Openings of both rings in one round, and what is linear around them."""
    outputs = []
    for ring in (FIELD, "words"):
        x, y = leaf((2, 3), ring), leaf((3, 2), ring)
        squares = of(Multiply(), y, y)
        total = of(Sum((0,), True), of(Concatenate(0), squares, of(Negate(), of(Transpose((1, 0)), x))))
        outputs.append(of(Matmul(), masked(of(Add(), total, total)), masked(of(Transpose((1, 0)), squares))))
    return again(Program.of(outputs))


def again(program: Program) -> Program:
    """As another process reads it."""
    decoded = Program.decode(program.encode())
    assert decoded.digest == program.digest
    return decoded


def inputs_of(program: Program, seed: int = 0) -> list[Array]:
    rng, rings = np.random.default_rng(seed), known_rings()
    types = [program.nodes[i].type for i in program.inputs]
    return [rings[t.ring].from_signed(rng.integers(-10, 11, t.shape)) for t in types]


@pytest.mark.parametrize("parties", [2, 3, 5])
def test_a_program_of_two_rings(parties: int) -> None:
    program, rings = both_rings(), known_rings()
    inputs = inputs_of(program)
    outputs = run_in_memory(program, inputs, parties=parties).outputs
    for output, wanted, i in zip(outputs, clear(program, inputs), program.outputs, strict=True):
        t = program.nodes[i].type
        assert rings[t.ring].holds(output, t.shape)
        assert np.array_equal(output, wanted)


def test_a_round_has_a_buffer_for_each_ring() -> None:
    program = both_rings()
    seen: list[tuple[int, np.dtype[Any], int]] = []

    def listen(number: int, sender: int, _: int, vector: Array) -> Array:
        if sender == 0:
            seen.append((number, vector.dtype, vector.size))
        return vector

    run_in_memory(program, inputs_of(program), tamper=listen)
    # Of each ring the sums of shape (1, 2) and the squares of shape (2, 3).
    assert seen == [(0, np.dtype(np.uint64), 8), (0, np.dtype(np.uint32), 8)]
    assert program.rings == (FIELD, "words")


def test_costs_are_the_rings_own() -> None:
    predicted = cost(both_rings(), 2)
    total = sum(predicted.layers.values(), start=type(next(iter(predicted.layers.values())))(0, 0, 0, 0, 0))
    assert (total.opened, total.opened_bytes) == (16, 8 * 8 + 8 * 4)
    # Dealt: the squares, six elements, and the matrix product, three.
    assert (total.dealt, total.dealt_bytes) == (18, 9 * 8 + 9 * 4)
    assert predicted.online_bytes_per_party == 8 * 12 + 3 * 12
    assert predicted.online_client_bytes == 2 * 12 * 12
    assert predicted.offline_dealer_bytes == (16, 16 + 9 * 12)


@pytest.mark.parametrize("ring", [FIELD, "words"])
def test_openings_are_uniform_in_their_ring(ring: str) -> None:
    x = leaf((20_000,), ring)
    program = again(Program.of([of(Multiply(), masked(of(Multiply(), x, x)), x)]))
    opened: list[Array] = []
    run_in_memory(program, inputs_of(program), tamper=lambda n, i, j, v: opened.append(v) or v)
    total = opened[0] + opened[1]
    top = total >> (59 if ring == FIELD else 29)
    counts = np.bincount((top % 4).astype(np.int64), minlength=4)
    assert counts.min() > 0.2 * counts.sum()


def test_rings_do_not_mix() -> None:
    x, y = leaf((2,), FIELD), leaf((2,), "words")
    for operation in (Add(), Concatenate(0), Multiply()):
        with pytest.raises(ProgramError, match="one ring"):
            of(operation, x, y)


def test_what_is_about_the_field_takes_the_field_alone() -> None:
    y = leaf((2,), "words")
    with pytest.raises(ProgramError, match="field"):
        of(Keep("y"), y)
    with pytest.raises(ProgramError, match="field"):
        Truncate(1).result(TensorType((2,), 2, -1.0, 1.0, Form.MASKED, ring="words"))


def test_values_fit_their_own_ring() -> None:
    Expression(Input((2,), 0, -(2.0**40), 2.0**40))
    with pytest.raises(Exception, match="the words has 31"):
        Expression(Input((2,), 0, -(2.0**40), 2.0**40, "words"))


def test_an_unknown_ring_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    data = both_rings().encode()
    monkeypatch.setattr(registry, "_REGISTRY", {FIELD: FieldRing()})
    with pytest.raises(ProgramError, match="not an algebra known here"):
        Program.decode(data)


@pytest.mark.parametrize("name", ["", "\x1b[2Jield", "a\nb", "Field", "x" * 33])
@pytest.mark.parametrize("place", ["type", "operation"])
def test_what_is_no_name_of_a_ring_is_not_even_read(name: str, place: str) -> None:
    wire = msgspec.msgpack.decode(both_rings().encode())
    wire["nodes"][0][place]["ring"] = name
    with pytest.raises(ProgramError, match="not a program") as error:
        Program.decode(msgspec.msgpack.encode(wire))
    assert str(error.value).isprintable()


def test_without_macs_a_ring_is_refused_in_malicious_security() -> None:
    program = both_rings()
    with pytest.raises(UnsupportedError, match="has no MACs"):
        run_in_memory(program, inputs_of(program), security=Security.MALICIOUS)


def test_constants_and_layout() -> None:
    """Public parts, slices and padding, in the ring's own arrays."""
    three = Expression(Constant((2,), 0, 3.0, 4.0, np.array([3, 4], "<u4").tobytes(), "words"))
    x = leaf((4,), "words")
    y = of(Add(), of(Index(((3, -2, 2),)), x), three)
    program = again(Program.of([of(Pad(((1, 0),)), of(Multiply(), y, three))]))
    x_raw = inputs_of(program)[0]
    (output,) = run_in_memory(program, [x_raw], parties=3).outputs
    assert np.array_equal(output, clear(program, [x_raw])[0])
    signed = known_rings()["words"].to_signed(x_raw)
    assert known_rings()["words"].to_signed(output).tolist() == [0, 3 * (signed[3] + 3), 4 * (signed[1] + 4)]
    with pytest.raises(ProgramError, match="bytes of data"):
        Expression(Constant((2,), 0, 3.0, 4.0, bytes(16), "words"))


def test_two_rings_of_one_name() -> None:
    with pytest.raises(ValueError, match="a name of its own"):
        register_ring(Words())


class Counting(FieldRing):
    """Another library behind the field: what a process may put in its place."""

    def __init__(self) -> None:
        self.calls = 0

    def multiply(self, x: Array, y: Array) -> Array:
        self.calls += 1
        return super().multiply(x, y)


def test_a_process_chooses_what_stands_behind_an_algebra(secure: Any) -> None:
    x = secure.secret((3,))
    program = secure.program(x * x)
    counting = Counting()
    raw = fixed_point.encode(np.array([1.0, 2.0, 3.0]), 16)
    (output,) = run_in_memory(program, [raw], rings={FIELD: counting}).outputs
    assert counting.calls > 0
    assert np.array_equal(output, run_in_memory(program, [raw]).outputs[0])
