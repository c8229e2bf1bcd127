"""Products, matrix products and convolutions: exact in the field, with each tensor opened once."""

from __future__ import annotations

import functools
from typing import Any

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from mpc import fixed_point
from mpc.errors import ProgramError, ShapeError
from mpc.operation import Input, PartyContext, Value, registered
from mpc.program import Expression, Program
from mpc.rings import FieldRing, field, known_rings
from mpc.security import Security
from mpc.tensor_type import Form, TensorType
from protocols.operations.product import Bracket, Conv2d, Halved, Matmul, Multiply, Product
from protocols.readings.clear import clear
from protocols.readings.memory import run_in_memory

quick = settings(max_examples=20)
seeds = st.integers(0, 2**32 - 1)
pairs = hnp.mutually_broadcastable_shapes(num_shapes=2, max_dims=3, min_side=0, max_side=4)


@quick
@given(pairs, seeds)
def test_elementwise(secure: Any, drawn: Any, seed: int) -> None:
    x, y = (secure.draw(seed + i, shape) for i, shape in enumerate(drawn.input_shapes))
    program = secure.check(lambda x, y: x * y, x, y)
    assert program.rounds == 0  # both came masked
    secure.check(lambda x: x * x, x)
    secure.check(lambda x, y: (x + y) * (x - y), x, y)
    secure.check(lambda x: x * y, x, error=4 * 2.0**-13)


@quick
@given(pairs, seeds)
def test_in_a_chain(secure: Any, drawn: Any, seed: int) -> None:
    """Products of products: truncated and masked in between, within the summed tolerances."""
    x, y = (secure.draw(seed + i, shape) for i, shape in enumerate(drawn.input_shapes))
    secure.check(lambda x, y: x * y * y, x, y, error=2.0**-12)
    secure.check(lambda x, y: (x * y) * (x + y), x, y, error=2.0**-12)


@settings(max_examples=25)
@given(st.data())
def test_matrix_products(secure: Any, data: st.DataObject) -> None:
    side = st.integers(0, 5)
    m, k, n = data.draw(side), data.draw(side), data.draw(side)
    batches = data.draw(hnp.mutually_broadcastable_shapes(num_shapes=2, max_dims=2, max_side=3))
    first, second = batches.input_shapes
    left = data.draw(st.sampled_from([(*first, m, k), (k,)]))
    right = data.draw(st.sampled_from([(*second, k, n), (k,)]))
    seed = data.draw(seeds)
    x, y = secure.draw(seed, left), secure.draw(seed + 1, right)
    secure.check(lambda x, y: x @ y, x, y)
    secure.check(lambda x: x @ y, x, error=k * 4 * 2.0**-14, parties=(2,))
    secure.check(lambda y: x @ y, y, error=k * 4 * 2.0**-14, parties=(3,))


@settings(max_examples=25)
@given(st.data())
def test_convolutions(secure: Any, data: st.DataObject) -> None:
    small = st.integers(1, 2)
    groups, depth, filters = data.draw(small), data.draw(small), data.draw(small)
    window = data.draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    stride, padding = data.draw(st.tuples(small, small)), data.draw(st.tuples(st.integers(0, 4), st.integers(0, 2)))
    size = data.draw(st.tuples(st.integers(1, 6), st.integers(1, 6)))
    assume(all(n + 2 * p >= k for n, p, k in zip(size, padding, window, strict=True)))
    x = secure.draw(data.draw(seeds), (data.draw(small), groups * depth, *size))
    w = secure.draw(data.draw(seeds), (groups * filters, depth, *window))

    def reference(x: Any, w: Any) -> Any:
        return torch.nn.functional.conv2d(torch.tensor(x), torch.tensor(w), None, stride, padding, 1, groups).numpy()

    def secret(x: Any, w: Any) -> Any:
        return x.conv2d(w, stride=stride, padding=padding, groups=groups)

    secure.check(secret, x, w, reference=reference)
    secure.check(lambda x: secret(x, w), x, reference=lambda x: reference(x, w), error=18 * 4 * 2.0**-14, parties=(2,))


def test_a_window_that_fits_by_its_padding_alone(secure: Any) -> None:
    x, w = secure.draw(1, (1, 1, 1, 1)), secure.draw(2, (1, 1, 3, 3))
    secure.check(lambda x: x.conv2d(w, padding=1), x, reference=lambda x: x * w[:, :, 1:2, 1:2], error=2.0**-12)


def test_no_images_at_all(secure: Any) -> None:
    x, w = np.zeros((0, 2, 3, 3)), secure.draw(1, (4, 2, 2, 2))
    secure.check(lambda x, w: x.conv2d(w), x, w, reference=lambda x, w: np.zeros((0, 4, 2, 2)))


@pytest.mark.parametrize("parties", [2, 3])
@pytest.mark.parametrize("side", ["left", "right", "both"])
def test_a_stored_operand(secure: Any, parties: int, side: str) -> None:
    """The bracket is made offline, whichever side is known, and is the same whichever part of the formula it holds."""
    x, w = secure.draw(3, (3, 3)), secure.draw(4, (3, 3), -1, 1, 14)
    store = secure.store({"w": fixed_point.encode(w, 14)}, parties)
    weights, secret = secure.stored("w", (3, 3)), secure.secret((3, 3))
    result, wanted = {
        "left": (weights @ secret, w @ x),
        "right": (secret @ weights, x @ w),
        "both": (weights @ weights + secret, w @ w + x),
    }[side]
    program = secure.program(result)
    for _ in range(2):  # the second run uses what the first one cached with the weights
        run = run_in_memory(program, [fixed_point.encode(x, 16)], parties=parties, store=store)
        assert np.array_equal(run.outputs[0], clear(program, [fixed_point.encode(x, 16)], store.plain)[0])
        assert np.abs(fixed_point.decode(run.outputs[0], result.type.fraction_bits) - wanted).max() < 1e-9


@pytest.mark.parametrize("security", Security)
@pytest.mark.parametrize("backwards", [False, True])
def test_one_stored_tensor_in_every_role(secure: Any, security: Security, backwards: bool) -> None:
    """Programs take turns with one weight: what one of them has cached with it must not be taken for another's."""
    w = secure.stored("w", (2, 1, 2, 2))
    store = secure.store({"w": fixed_point.encode(secure.draw(4, (2, 1, 2, 2), -1, 1, 14), 14)}, 2)
    uses = [
        secure.secret((1, 1, 3, 3)).conv2d(w),
        secure.secret((1, 2, 3, 3)).conv2d(w, groups=2),
        w.conv2d(secure.secret((3, 1, 2, 2))),
        w.conv2d(w),
        secure.secret((2, 1, 2, 2)) @ w,
        w @ secure.secret((2, 1, 2, 2)),
        w * secure.secret((2, 1, 2, 2)),
        w.conv2d(np.full((1, 1, 2, 2), 0.5)),
        np.full((1, 1, 3, 3), 0.5) * w[0, 0, 0, 0] + 0.0,
    ]
    for use in reversed(uses) if backwards else uses:
        program = secure.program(use)
        inputs = [fixed_point.encode(secure.draw(5, program.nodes[i].type.shape), 16) for i in program.inputs]
        (output,) = run_in_memory(program, inputs, store=store, security=security).outputs
        assert np.array_equal(output, clear(program, inputs, store.plain)[0]), use


def test_what_is_cached_with_a_weight_is_bounded(secure: Any) -> None:
    """A client that sends ever new programs must not make a party keep ever more of one stored weight."""
    store = secure.store({"w": fixed_point.encode(secure.draw(0, (2, 1, 2, 2), -1, 1, 14), 14)}, 2)
    x = fixed_point.encode(secure.draw(1, (1, 1, 6, 6)), 16)
    for stride in (1, 2, 3):
        for padding in (0, 1, 2):
            y = secure.secret((1, 1, 6, 6)).conv2d(secure.stored("w", (2, 1, 2, 2)), stride=stride, padding=padding)
            run_in_memory(secure.program(y), [x], store=store)
    for held in store.held:
        assert len(held["model", "w"].cache) == len(held["model", "w"].public_cache) == 1


FRESH: list[tuple[Product, tuple[int, ...], tuple[int, ...]]] = [
    (Multiply(), (2, 3), (3,)),
    (Matmul(), (2, 3), (3, 4)),
    (Matmul(), (3,), (2, 3, 4)),
    (Conv2d((1, 2), (1, 0), 2), (2, 4, 3, 3), (2, 2, 2, 2)),
]


@pytest.mark.parametrize("zeros", [(), (0,), (0, 1)])
@pytest.mark.parametrize("parties", [2, 3, 4, 5])
@pytest.mark.parametrize(("operation", "first", "second"), FRESH)
def test_fresh_operands_on_any_shares(
    operation: Product, first: tuple[int, ...], second: tuple[int, ...], parties: int, zeros: tuple[int, ...]
) -> None:
    """The formula, on shares of values and of MACs, of uniform elements, whoever's share of the key is zero."""
    rng = np.random.default_rng(parties)
    ring = FieldRing()

    def drawn(*shape: int) -> Any:
        return rng.integers(0, field.P, shape, dtype=np.uint64)

    types = [TensorType(shape, 16, -1.0, 1.0, Form.MASKED) for shape in (first, second)]
    e, d, a, b = drawn(*first), drawn(*second), drawn(*first), drawn(*second)
    product = operation.multiplied(ring, ring.add(e, a), ring.add(d, b))
    units = [0 if i in zeros else int(drawn()) for i in range(parties)]
    for kind, key in ((None, 1), (units, sum(units))):
        masks = [ring.scale(mask, key) for mask in (a, b, operation.multiplied(ring, a, b))]
        shares = [[drawn(*mask.shape) for mask in masks] for _ in range(parties - 1)]
        shares.append([field.subtract(m, _sum(s)) for m, s in zip(masks, zip(*shares, strict=True), strict=True)])
        results = []
        for i, (of_a, of_b, of_c) in enumerate(shares):
            party = PartyContext(i, parties, unit=None if kind is None else kind[i])
            pending = [Value(None, share, pending=True) for share in (of_a, of_b)]
            left = operation.prepare(party, types, pending, [of_c])
            value = operation.evaluate(party, types, [Value(e, of_a), Value(d, of_b)], left)
            assert value.public is None
            results.append(value.share)
        assert np.array_equal(_sum(results), ring.scale(product, key))


def _sum(arrays: Any) -> Any:
    return functools.reduce(field.add, arrays)


@pytest.mark.parametrize("security", Security)
@pytest.mark.parametrize(("operation", "first", "second"), FRESH)
def test_one_product_a_party_online(
    monkeypatch: pytest.MonkeyPatch,
    secure: Any,
    operation: Product,
    first: tuple[int, ...],
    second: tuple[int, ...],
    security: Security,
) -> None:
    """Of fresh operands as of a stored one, on its shares and again on its MAC shares: the rest was made offline."""
    leaves = [Expression(Input(shape, 16, -4.0, 4.0)) for shape in (first, second)]
    program = Program.of([Expression(operation, tuple(leaves))])
    inputs = [fixed_point.encode(secure.draw(i, shape), 16) for i, shape in enumerate((first, second))]
    online: list[str] = []
    evaluate = Product.evaluate

    def counted(self: Product, *arguments: Any) -> Value:
        with monkeypatch.context() as inside:
            for name in ("multiply", "multiply_add", "matmul", "conv2d"):
                inside.setattr(FieldRing, name, _noting(online, name, getattr(FieldRing, name)))
            return evaluate(self, *arguments)

    monkeypatch.setattr(Product, "evaluate", counted)
    (output,) = run_in_memory(program, inputs, parties=3, security=security).outputs
    assert np.array_equal(output, clear(program, inputs)[0])
    assert len(online) == (6 if security is Security.MALICIOUS else 3), online


def _noting(calls: list[str], name: str, method: Any) -> Any:
    def noting(self: FieldRing, x: Any, y: Any, *rest: Any) -> Any:
        if getattr(y, "ndim", 1):  # weighting an operand is no product
            calls.append(name)
        return method(self, x, y, *rest)

    return noting


def test_full_range_field_elements(secure: Any) -> None:
    """Products are exact in the field for any elements, not just for small ones."""
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, field.P, (2, 4, 3), dtype=np.uint64), rng.integers(0, field.P, (3, 5), dtype=np.uint64)
    x.reshape(-1)[:3] = 0, 1, field.P - 1
    result = Matmul().clear(known_rings(), [TensorType(a.shape, 0, 0.0, 1.0, Form.MASKED) for a in (x, y)], (x, y))
    oracle = [[sum(int(a) * int(b) for a, b in zip(r, c, strict=True)) % field.P for c in y.T] for r in x.reshape(8, 3)]
    assert result.reshape(8, 5).tolist() == oracle


M = TensorType((2, 3), 16, -1.0, 1.0, Form.MASKED)
X, W = M.replace(shape=(1, 2, 4, 4)), M.replace(shape=(2, 2, 2, 2))
CONV = {"stride": (1, 1), "padding": (0, 0), "groups": 1}


@pytest.mark.parametrize(
    ("name", "attributes", "types"),
    [
        ("multiply", {}, (M,)),
        ("multiply", {}, (M, M.replace(form=Form.SHARED))),
        ("multiply", {}, (M.replace(form=Form.PUBLIC), M.replace(form=Form.PUBLIC))),
        ("multiply", {}, (M, M.replace(shape=(4,)))),
        ("matmul", {}, (M, M)),
        ("matmul", {}, (M.replace(shape=()), M)),
        ("matmul", {}, (M.replace(shape=(2, 2, 3)), M.replace(shape=(3, 3, 3)))),
        ("conv2d", CONV, (M, M)),
        ("conv2d", CONV | {"groups": 0}, (X, W)),
        ("conv2d", CONV | {"groups": 2}, (X, W)),
        ("conv2d", CONV | {"stride": (0, 1)}, (X, W)),
        ("conv2d", CONV | {"stride": (2**63, 1)}, (X, W)),
        ("conv2d", CONV | {"padding": (-1, 0)}, (X, W)),
        ("conv2d", CONV | {"padding": (2**40, 0)}, (X, W)),
        ("conv2d", CONV, (X, W.replace(shape=(2, 2, 5, 5)))),
        ("conv2d", CONV, (X, W.replace(shape=(0, 2, 2, 2)))),
        ("conv2d", CONV, (X.replace(shape=(1, 0, 4, 4)), W.replace(shape=(2, 0, 2, 2)))),
        ("conv2d", CONV, (X, W.replace(shape=(2, 2, 0, 2)))),
    ],
)
def test_what_does_not_go_together_is_refused(name: str, attributes: dict[str, Any], types: tuple[Any, ...]) -> None:
    with pytest.raises((ProgramError, ShapeError)):
        registered()[name](**attributes).result(*types)


@pytest.mark.parametrize(
    ("name", "attributes", "first", "second"),
    [
        # Small operands and result, but the padded image, the windows or the repeated matrices are huge.
        ("conv2d", CONV | {"padding": (2**20, 2**20), "stride": (2**20, 2**20)}, (1, 1, 1, 1), (1, 1, 1, 1)),
        ("conv2d", CONV, (1, 1, 10_000, 10_000), (1, 1, 5_000, 5_000)),
        ("matmul", {}, (2**12, 1, 1, 2**12), (1, 2**12, 2**12, 1)),
        ("matmul", {}, (1, 2**10, 2**8), (2**10, 2**8, 1)),
        ("matmul", {}, (2**10, 1, 2**8), (1, 2**8, 2**10)),
    ],
)
def test_workspace_is_bounded(name: str, attributes: Any, first: Any, second: Any) -> None:
    zero = TensorType((), 0, 0.0, 0.0, Form.MASKED)
    with pytest.raises(ShapeError, match="lays out"):
        registered()[name](**attributes).result(zero.replace(shape=first), zero.replace(shape=second))


def test_a_gain_bounds_a_layer_more_tightly() -> None:
    x = TensorType((1, 100), 16, -1.0, 1.0, Form.MASKED)
    w = TensorType((100, 2), 14, -1.0, 1.0, Form.MASKED, 3.0)
    assert Matmul().result(x, w).high == 3.0
    assert Matmul().result(x, w.replace(gain=None)).high == 100.0


def test_a_bracket_does_not_show_its_share() -> None:
    assert "[" not in repr(Bracket(np.arange(3, dtype=np.uint64), "x"))
    assert "[" not in repr(Halved(*np.arange(6, dtype=np.uint64).reshape(2, 3)))
    assert "123" not in repr(Value(np.array([123], np.uint64), np.array([123], np.uint64)))
    assert Conv2d((1, 1), (0, 0), 1).name == "conv2d"
