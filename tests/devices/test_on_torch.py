"""Rings on torch's tensors compute what those on arrays do, to the last bit: every method, on numbers and extremes."""

from __future__ import annotations

import inspect
import shutil
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

from mpc.errors import ConfigurationError, ShapeError
from mpc.rings import BITS, FIELD, known_rings
from mpc.rings.characters import Node
from mpc.rings.devices import memory_errors
from mpc.rings.digits import entries
from mpc.rings.field_chains import Chain
from mpc.rings.on_torch import fused, rings_on
from mpc.rings.on_torch.layout import TorchRing
from mpc.rings.places import modulus
from mpc.rings.prg import Seed
from mpc.rings.prime_field import P, Turn
from mpc.rings.small import MOST_BITS, small, words
from mpc.rings.steps import entries as step_entries
from mpc.rings.steps import entry_bits

ON_TORCH = rings_on("cpu")
SEEDS = [Seed(bytes(range(16))), Seed(bytes(16)), Seed(bytes(range(1, 17)))]


class Numbers(NamedTuple):
    """Of elements or of packed bits, made for one of two libraries: the same ones for both."""

    ring: Any
    bits: Any

    def __call__(self, *shape: int) -> Any:
        """Elements, extreme ones among them."""
        drawn = np.random.default_rng(sum(shape)).integers(0, P, shape, dtype=np.uint64)
        ends = np.uint64([0, 1, P - 1, P // 2, P // 2 + 1, 1 << 60, (1 << 31) - 1, 1 << 31, P - 2])
        drawn.reshape(-1)[: ends.size] = ends[: drawn.size]
        return self.ring.read(drawn.tobytes(), shape)

    def few(self, *shape: int) -> Any:
        """Small ones."""
        return self.ring.read((np.random.default_rng(9).integers(0, 256, shape, dtype=np.uint64)).tobytes(), shape)

    def octets(self, *shape: int) -> Any:
        drawn = np.random.default_rng(sum(shape)).integers(0, 256, shape, dtype=np.uint8)
        return self.bits.read(drawn.tobytes(), shape)

    def small(self, bits: int) -> Any:
        """The ring of numbers of so many."""
        return (ON_TORCH if isinstance(self.ring, TorchRing) else known_rings())[small(bits)]

    def packed(self, bits: int, size: int) -> Any:
        return self.small(bits).sample(SEEDS[0], (words(size, bits),))

    def answers(self, size: int) -> Any:
        return self.ring.bit(self(size), 0)


N = 203
CHAINS = (Chain((0, 2, 4), (1, 3)), Chain((4,), (1, 0, 3)), Chain((3,), ()))
NODES = (
    Node(0, (3, 1, 1, 2), True, False, False), Node(7, (2, 3, 1), False, True, False),
    Node(30, (4,), True, True, False),
    Node(2, (1, 2, 1), True, False, True), Node(9, (1, 3), False, True, True),
)  # fmt: skip
TURNS = (Turn(37, 40), Turn(5, 20), Turn(1, 32))
FIELD_CASES: dict[str, Callable[[Numbers], Any]] = {
    "zeros": lambda x: [x.ring.zeros((3, 2)), x.ring.zeros(())],
    "full": lambda x: [x.ring.full((2,), v) for v in (-3, 0, P, 10**40)],
    "sample": lambda x: x.ring.sample(SEEDS[0], (3, 41)),
    "sample_sum": lambda x: x.ring.sample_sum(SEEDS, (3, 41)),
    "sample_less": lambda x: [x.ring.sample_less(x(3, 5), SEEDS[:k], by) for k, by in ((0, 1), (2, 1), (3, P - 2))],
    "streamed": lambda x: [
        x.ring.matmul(x(2, 4), x.ring.streamed(known, SEEDS[0], (4, 3))) for known in (None, x(4, 3))
    ],
    "settled": lambda x: [x.ring.settled(x.ring.copy(x(*shape))) for shape in ((5,), (4, 3, 2, 5))],
    "holds": lambda x: [x.ring.holds(x.ring.read(np.uint64([v]).tobytes(), (1,)), (1,)) for v in (0, P - 1, P, 2**63)]
    + [x.ring.holds(x(2, 3), shape) for shape in ((2, 3), (3, 2), (6,))]
    + [x.ring.holds(x.octets(2), (2,))],
    "is_zero": lambda x: [x.ring.is_zero(x(4)), x.ring.is_zero(x.ring.zeros((4,)))],
    "from_signed": lambda x: x.ring.from_signed(np.int64([0, -1, 2**63 - 1, -(2**63), 2**61, -(2**61), P, -P, 5])),
    "to_signed": lambda x: x.ring.to_signed(x(N)),
    "buffer": lambda x: x.ring.buffer(x(3, 5)),
    "read": lambda x: x.ring.read(np.arange(6, dtype="<u8").tobytes(), (2, 3)),
    "add": lambda x: [x.ring.add(x(7, N), x(7, N)), x.ring.add(x(7, N), x(N)), x.ring.add(x(7, N), x(7, 1))],
    "subtract": lambda x: [x.ring.subtract(x(*a), x(*b)) for a, b in (((7, N), (7, N)), ((N,), (7, N)), ((N,), ()))],
    "negate": lambda x: x.ring.negate(x(N)),
    "scale": lambda x: [x.ring.scale(x(N), k) for k in (0, -1, 3, P, 10**30, 2**60)],
    "multiply": lambda x: [
        x.ring.multiply(x(N), other) for other in (x.ring.index(x(N), (slice(None, None, -1),)), x(3, 1), x())
    ],
    "halve": lambda x: [x.ring.halve(x(N), x.ring.negate(x(N)), x(7, N)[0], x(N), less) for less in (False, True)],
    "multiply_add": lambda x: x.ring.multiply_add(x(7, N), x(N), x(7, N)),
    "inverse": lambda x: [x.ring.inverse(k) for k in (0, 3, -5, P)],
    "total": lambda x: [
        x.ring.total(x(7, 5, 3), axes, keep) for axes in (None, [1], [0, -1], []) for keep in (False, True)
    ],
    "matmul": lambda x: [
        x.ring.matmul(x(*a), x(*b))
        for a, b in (((4, 2500), (2500, 5)), ((3, 1, 4, 6), (2, 6, 5)), ((6,), (6,)), ((6,), (6, 2)), ((3, 2, 6), (6,)))
    ] + [x.ring.matmul(x.ring.matrix(x(4, 6)), x(6, 3)), x.ring.matmul(x(4, 0), x(0, 3))],
    "matrix": lambda x: x.ring.matmul(x(2, 3, 4), x.ring.matrix(x(2, 4, 3))),
    "conv2d": lambda x: [
        x.ring.conv2d(x(2, 6, 7, 8), x(4, 6 // groups, 3, 2), stride, padding, groups)
        for stride, padding, groups in (((1, 1), (0, 0), 1), ((2, 1), (1, 2), 2))
    ],
    "kernel": lambda x: x.ring.conv2d(x(2, 6, 7, 8), x.ring.kernel(x(6, 1, 3, 3), 6), (1, 2), (1, 1), 6),
    "sum_pool2d": lambda x: x.ring.sum_pool2d(x(2, 3, 7, 8), (3, 2), (2, 2), (1, 0)),
    "running_total": lambda x: [x.ring.running_total(x(5, 7), axis) for axis in (0, 1)],
    "reshape": lambda x: x.ring.reshape(x(4, 6), (2, 12)),
    "or_zeros": lambda x: [x.ring.or_zeros(None, (2,)), x.ring.or_zeros(x(2, 3), (6,))],
    "transpose": lambda x: x.ring.transpose(x(2, 3, 4), (2, 0, 1)),
    "broadcast": lambda x: x.ring.broadcast(x(3, 1), (2, 3, 4)),
    "index": lambda x: [
        x.ring.index(x(9, 8), key)
        for key in (
            (slice(None, None, -2), slice(1, 5)), (slice(5, 5),), (slice(-3, None), slice(6, 0, -3)), (slice(20),)
        )
    ],
    "take": lambda x: [x.ring.take(x(5, 6), np.int64([[0, -1], [3, 3]]), axis) for axis in (0, 1, -1)],
    "concatenate": lambda x: [x.ring.concatenate([x(2, 3), x(4, 3)], 0), x.ring.concatenate([x(2, 3), x(2, 1)], -1)],
    "pad": lambda x: x.ring.pad(x(2, 3), [(1, 0), (2, 3)]),
    "accumulate": lambda x: _accumulated(x),
    "accumulated": lambda x: x.ring.accumulated(x(N), np.arange(N, dtype=np.uint64)),
    "copy": lambda x: x.ring.copy(x(N)),
    "vector": lambda x: [tuple(x.ring.vector([(2, 3), (), (5,)]).shape)],
    "split": lambda x: x.ring.split(x(12), [(2, 3), (), (5,)]),
    "difference": lambda x: [
        _difference(x, one, other) for one in (None, x(6)) for other in (None, x.ring.negate(x(6)))
    ],
    "dots": lambda x: list(x.ring.dots(x(3, N), x(3, N), x.ring.negate(x(3, N)))),
    "quotient": lambda x: [x.ring.quotient(x(N), d) for d in (1, 3, 1 << 20, 10**17)],
    "quotient_signed": lambda x: [x.ring.quotient_signed(x(N), d) for d in (1, 3, 1 << 20, 10**17)],
    "below": lambda x: [x.ring.below(x(N), b) for b in (0, 1, 1 << 60, P)],
    "select": lambda x: x.ring.select(x.answers(N), x(N)),
    "choose": lambda x: [x.ring.choose(x.answers(N), x(3, N), x.ring.negate(x(3, N)))],
    "bit": lambda x: [x.ring.bit(x(N), k) for k in (0, 31, 60)],
    "table": lambda x: [x.ring.table(x(N), i, w) for i, w in ((0, [4]), (7, [3, 2, 4]), (30, [5, 1]))],
    "packed_table": lambda x: [x.ring.packed_table(x(N), i, w) for i, w in ((0, [4]), (7, [3, 2, 4]), (30, [5, 1]))],
    "look_up": lambda x: [
        x.ring.look_up(x(N), i, w, x(N // r, entries(w)), one, r, equal)
        for i, w, r in ((0, [4], 1), (7, [3, 2, 4], 7), (30, [5, 1], 1))
        for one in (1, P - 5, 0) for equal in (False, True)
    ],
    "packed_look_up": lambda x: [
        x.ring.packed_look_up(x(N), i, w, x.octets(entries(w), -(-N // r // 8)), one, r, equal)
        for i, w, r in ((0, [4], 1), (7, [3, 2, 4], 7), (30, [5, 1], 1)) for one in (1, 0) for equal in (False, True)
    ],
    "known_chains": lambda x: x.ring.known_chains(x(5, N), CHAINS),
    "shared_chains": lambda x: x.ring.shared_chains(
        x(5, N), x.ring.negate(x(5, N)), x(sum(c.products for c in CHAINS), N), CHAINS
    ),
    "chain_times": lambda x: [x.ring.chain_times(x(5, N), x(len(c.monomials), N), c) for c in CHAINS],
    "steps": lambda x: [
        x.ring.steps(x(N), i, w, highest, bits)
        for i, w, bits in ((0, 4, 1), (7, 6, 3), (30, 1, 7)) for highest in (False, True)
    ],
    "weighed_steps": lambda x: [
        x.ring.weighed_steps(x(N), i, widths, _step_tables(x, widths, N // r), one, r, equal)
        for i, widths, r in ((0, (4,), 1), (7, (3, 2, 4), 7), (30, (5, 1), 1))
        for one in (1, 0) for equal in (False, True)
    ],
    "small_signs": lambda x: [x.ring.small_signs(x.packed(d, N), d, N) for d in (1, 3, 4, 7)],
    "small_sign": lambda x: [x.ring.small_sign(x.packed(d, N), d, N, x(1 << (d - 1), N)) for d in (1, 3, 4, 7)],
    "sign_planes": lambda x: [x.ring.sign_planes(x.packed(d, N), d, N) for d in (1, 3, 4, 7)],
    "sign_plane": lambda x: [
        x.ring.sign_plane(x.packed(d, N), d, N, x.octets(1 << (d - 1), -(-N // 8)), one)
        for d in (1, 3, 4, 7) for one in (1, 0)
    ],
    "scaled_table": lambda x: [
        x.ring.scaled_table(x(N), x(N), None if node.lowest else x.ring.negate(x(N)), node) for node in NODES
    ],
    "scaled_sum": lambda x: [
        x.ring.scaled_sum(x(N), None if node.lowest else x.ring.character(x(N)), node, x(N, node.entries))
        for node in NODES
    ],
    "half_signs": lambda x: x.ring.half_signs(x(N)),
    "character": lambda x: x.ring.character(x(N)),
    "unpacked": lambda x: x.ring.unpacked(x.octets(26), N),
    "kept": lambda x: [x.ring.kept(x.octets(26), x(N)), x.ring.kept(x.octets(3), x(4, 5))],
    "turned": lambda x: [x.ring.turned(x.octets(26), x(N)), x.ring.turned(x.octets(3), x(4, 5))],
    "packed_bits": lambda x: x.ring.packed_bits(x(N), 61),
    "weighed_bits": lambda x: x.ring.weighed_bits(x.octets(3, 26), N, [1, 1 << 40, 7]),
    "turned_total": lambda x: x.ring.turned_total(x.octets(3, 26), x(3, N), [1, 1 << 40, P - 1]),
    "one_hot": lambda x: [x.ring.one_hot(x(N), count) for count in (1, 5, 16)],
    "differences": lambda x: [x.ring.differences(x(N), count, x(N, modulus(count))) for count in (1, 5, 16)],
    "coarse_table": lambda x: x.ring.coarse_table(x(N), x.ring.negate(x(N)), 40, 6),
    "coarse_sums": lambda x: [
        x.ring.coarse_sums(x(N), x.ring.negate(x(N)), x(N, 64), 40, 50, 6, rows) for rows in (1, 7)
    ],
    "coarse_bits_table": lambda x: [x.ring.coarse_bits_table(x(N), 40, bits) for bits in (3, 7)],
    "coarse_bits": lambda x: [
        x.ring.coarse_bits(x(N), (5, P - 9, 1 << 50), 40, 7, x.octets(N, 16), one) for one in (0, 1)
    ],
    "counted_bits": lambda x: x.ring.counted_bits(x.octets(27), x(27 * 8), [N - 3, 10], 10),
    "ends_left_over": lambda x: x.ring.ends_left_over(x(N), -(1 << 30), (1 << 32) - 7, 33),
    "ends_sum": lambda x: x.ring.ends_sum(x(N), -(1 << 30), (1 << 32) - 7, 33, x.ring.negate(x(N)), x(N)),
    "weighed_pairs": lambda x: x.ring.weighed_pairs(x.octets(51), x(N), x(2 * N)),
    "bits": lambda x: x.ring.bits(x(N), 61),
    "low_bits": lambda x: x.ring.low_bits(x(3, 5), 13),
    "turned_bits": lambda x: x.ring.turned_bits(x(3, 5), 60, x(60, 15)),
    "waves": lambda x: [x.ring.waves(x(N), turn, 5, bits) for turn in TURNS for bits in (30, 18)],
    "combine_waves": lambda x: [
        x.ring.combine_waves(x(7, 29), turn, [5, -(1 << 20), 0], [1 << 21, 3, -7], 20, x(6, N)) for turn in TURNS
    ],
}  # fmt: skip
BITS_CASES: dict[str, Callable[[Numbers], Any]] = {
    "zeros": lambda x: x.bits.zeros((3, 2)),
    "full": lambda x: [x.bits.full((2,), v) for v in (0, 255, -1, 256)],
    "sample": lambda x: x.bits.sample(SEEDS[0], (3, 41)),
    "sample_sum": lambda x: x.bits.sample_sum(SEEDS, (3, 41)),
    "holds": lambda x: [x.bits.holds(some, (2, 3)) for some in (x.octets(2, 3), x.octets(6), x(2, 3))],
    "is_zero": lambda x: [x.bits.is_zero(x.octets(4)), x.bits.is_zero(x.bits.zeros((4,)))],
    "from_signed": lambda x: x.bits.from_signed(np.int64([0, 1, 255])),
    "to_signed": lambda x: x.bits.to_signed(x.octets(N)),
    "buffer": lambda x: x.bits.buffer(x.octets(3, 5)),
    "read": lambda x: x.bits.read(bytes(range(6)), (2, 3)),
    "add": lambda x: x.bits.add(x.octets(7, N), x.octets(N)),
    "subtract": lambda x: x.bits.subtract(x.octets(7, N), x.octets(N)),
    "negate": lambda x: x.bits.negate(x.octets(N)),
    "scale": lambda x: [x.bits.scale(x.octets(N), k) for k in (0, 1, -3, 4)],
    "multiply": lambda x: x.bits.multiply(x.octets(7, N), x.octets(N)),
    "total": lambda x: [
        x.bits.total(x.octets(7, 5, 3), axes, keep) for axes in (None, [1], [0, -1]) for keep in (False, True)
    ] + [x.bits.total(x.octets(3, 0), [1])],
    "accumulate": lambda x: _accumulated_bits(x),
    "monomials": lambda x: [x.bits.monomials(x.octets(2 * d - 1, 26)) for d in (1, 2, 4)],
    "chain": lambda x: [
        x.bits.chain(x.octets(2 * d - 1, 26), dealt)
        for d in (1, 2, 4) for dealt in (None, x.octets(3 * 2 ** (d - 1) - 2, 26))
    ],
}  # fmt: skip
SAME_CODE = {"bytes_of", "matmul", "conv2d", "sum_pool2d", "inverse"}
"""Of either ring, what is said once for all libraries, or refused."""


def _step_tables(x: Numbers, widths: tuple[int, ...], rows: int) -> Any:
    count = len(widths)
    return [
        x.small(entry_bits(count, j)).sample(
            SEEDS[0], (rows, words(step_entries(width, j == count - 1), entry_bits(count, j)))
        )
        for j, width in enumerate(widths)
    ]


def _accumulated(x: Numbers) -> Any:
    total = x.ring.copy(x(N))
    good = x.ring.accumulate(total, np.arange(N, dtype=np.uint64))
    bad = [x.ring.accumulate(x.ring.copy(total), np.full(N, v, np.uint64)) for v in (P, 2**63, 2**64 - 1)]
    return [total, good, bad]


def _accumulated_bits(x: Numbers) -> Any:
    total = x.bits.copy(x.octets(N))
    assert x.bits.accumulate(total, np.arange(N).astype(np.uint8))
    return total


def _difference(x: Numbers, minuend: Any, subtrahend: Any) -> Any:
    vector = x.ring.vector([(2,), (6,)])
    x.ring.difference(minuend, subtrahend, x.ring.split(vector, [(2,), (6,)])[1])
    return x.ring.index(vector, (slice(2, None),))


def plain(found: Any) -> Any:
    """Whatever came out, as arrays and what is none."""
    if isinstance(found, list):
        return [plain(one) for one in found]
    if isinstance(found, torch.Tensor):
        array = found.numpy()
        return array.astype(np.uint64) if array.dtype == np.int64 else array
    return found


def same(found: Any, wanted: Any) -> None:
    if isinstance(wanted, list):
        assert len(found) == len(wanted)
        for one, other in zip(found, wanted, strict=True):
            same(one, other)
    elif isinstance(wanted, np.ndarray):
        assert (found.shape, found.dtype) == (wanted.shape, wanted.dtype)
        assert np.array_equal(found, wanted)
    else:
        assert found == wanted


ALL = [(FIELD, name) for name in FIELD_CASES] + [(BITS, name) for name in BITS_CASES]


@pytest.mark.parametrize(("ring", "name"), ALL)
def test_each_method_computes_the_same(ring: str, name: str) -> None:
    case = (FIELD_CASES if ring == FIELD else BITS_CASES)[name]
    found, wanted = (case(Numbers(rings[FIELD], rings[BITS])) for rings in (ON_TORCH, known_rings()))
    same(plain(found), wanted)


@pytest.mark.parametrize(("ring", "cases"), [(FIELD, FIELD_CASES), (BITS, BITS_CASES)])
def test_no_method_is_left_out(ring: str, cases: dict[str, Any]) -> None:
    """Whatever a ring of arrays does, but for what both kinds of tensors do by one method."""
    of_arrays, of_tensors = type(known_rings()[ring]), type(ON_TORCH[ring])
    public = {name for name, _ in inspect.getmembers(of_arrays, inspect.isfunction) if not name.startswith("_")}
    shared = {name for name in public if getattr(of_tensors, name) is getattr(TorchRing, name, None)}
    assert public - set(cases) - SAME_CODE <= shared & set(FIELD_CASES)


@pytest.mark.parametrize("bits", range(1, MOST_BITS + 1))
def test_packed_numbers_are_the_same(bits: int) -> None:
    def found(ring: Any) -> list[Any]:
        x, y = (ring.sample(seed, (3, 5)) for seed in SEEDS[:2])
        bad, total = np.full((15,), 1 << 63, np.uint64), ring.reshape(ring.copy(x), (15,))
        return [
            x, ring.sample_sum(SEEDS, (4,)), ring.sample_less(x, SEEDS[:2]), ring.add(x, y),
            ring.subtract(x, y), ring.negate(y), ring.to_signed(x),
            ring.full((2,), -1), ring.from_signed(np.int64([5, -1])), ring.zeros((2,)), ring.is_zero(x),
            ring.holds(x, (3, 5)), ring.holds(ring.read(bad.tobytes(), (15,)), (15,)), ring.holds(x, (5, 3)),
            ring.accumulate(total, ring.buffer(ring.reshape(y, (15,)))), total, ring.accumulate(ring.copy(total), bad),
        ]  # fmt: skip

    on_torch, wanted = (found(rings[small(bits)]) for rings in (ON_TORCH, known_rings()))
    same(plain(on_torch), wanted)


def test_shapes_that_do_not_go_together() -> None:
    x = Numbers(ON_TORCH[FIELD], ON_TORCH[BITS])
    for wrong in (
        lambda: x.ring.matmul(x(2, 3), x(2, 3)),
        lambda: x.ring.matmul(x(), x(2)),
        lambda: x.ring.matmul(x(2, 3, 4), x(3, 4, 2)),
        lambda: x.ring.conv2d(x(1, 2, 4, 4), x(2, 3, 3, 3), (1, 1), (0, 0), 1),
        lambda: x.ring.conv2d(x(1, 2, 2, 2), x(2, 2, 3, 3), (1, 1), (0, 0), 1),
        lambda: x.ring.conv2d(x(1, 2, 4, 4), x.ring.kernel(x(2, 2, 3, 3), 1), (1, 1), (0, 0), 2),
        lambda: x.ring.kernel(x(3, 2, 3, 3), 2),
        lambda: x.ring.kernel(x(3, 2, 3), 1),
    ):
        with pytest.raises(ShapeError):
            wrong()
    for ring in (x.ring, x.bits):
        with pytest.raises(ValueError, match="bytes"):
            ring.read(b"123", (5,))
        with pytest.raises(ValueError, match="accumulate"):
            ring.accumulate(ring.zeros((3,)), np.zeros(2, np.uint64))


@pytest.mark.parametrize("device", ["nothing", "cuda:99", "meta"])
def test_a_device_that_is_not_there(device: str) -> None:
    with pytest.raises(ConfigurationError, match=device):
        rings_on(device)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch compiles for the processor by a compiler of C++")
def test_what_torch_compiles_computes_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a card, where it writes other kernels by the same steps."""
    monkeypatch.setattr(fused, "AS_THEY_ARE", set())
    test_each_method_computes_the_same(FIELD, "multiply")
    test_each_method_computes_the_same(FIELD, "from_signed")


def test_what_a_device_has_no_memory_for_is_a_memory_error():
    with pytest.raises(MemoryError), memory_errors():
        ON_TORCH[FIELD].zeros((1 << 45,))
    with pytest.raises(MemoryError), memory_errors():
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
    with pytest.raises(RuntimeError, match="size mismatch"), memory_errors():
        raise RuntimeError("size mismatch")
