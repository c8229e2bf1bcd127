"""Only a ring looks into its arrays: with arrays nobody can look into, and with torch's, readings give the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from mpc import fixed_point
from mpc.objective import ANY, LATENCY, TRAFFIC, Objective
from mpc.operation import registered
from mpc.program import Program
from mpc.rings import Rings, field_of, known_rings
from mpc.rings.on_torch import rings_on
from mpc.security import Security
from protocols.lowering.plan import plan
from protocols.readings.clear import clear_values
from protocols.readings.memory import MemoryStore, as_sent, run_in_memory
from protocols.trace.mathematics import Keep, LetThrough, Multiply, Node
from protocols.trace.random import Random
from protocols.trace.secret_tensor import SecretTensor, concatenate, graph_of


def layout(s: Any) -> list[SecretTensor]:
    x, y = s.secret((3, 4)), s.secret((4,))
    joined = concatenate([x.T[::-2, 1:], (-x)[:2, :2]], axis=0)
    return [
        joined.pad(((1, 0), (0, 2))).sum(axis=0, keepdims=True),
        x.reshape(2, 6) * 0.5 + 1.25,
        x[[2, 0, 2]].cumsum(1) + y.cumsum(0),
        (y.broadcast_to((3, 4)) - x * 3).sum(),
        x[0, 0] + y[1],
        *Random().permutation(x, x[:, 0] * 2),
    ]


def products(s: Any) -> list[SecretTensor]:
    x, y, w = s.secret((3, 4)), s.secret((3, 4)), s.stored("w", (4, 3))
    return [x @ w, (x * y) @ w, x * x * y, (x * y)[0] * y[0, 1], x * np.arange(4.0), np.eye(3) @ x]


def images(s: Any) -> list[SecretTensor]:
    x, k = s.secret((2, 2, 6, 6)), s.stored("k", (2, 1, 3, 3))
    return [
        x.conv2d(k, padding=1, groups=2).avg_pool2d(2),
        (x * x).conv2d(k, stride=2, groups=2).avg_pool2d(2, padding=1),
    ]


def truncations(s: Any) -> list[SecretTensor]:
    x, y = s.secret((3, 4)), s.secret((3, 4))
    at_once = x._joined(Multiply(at_once=True), x * y * x, x)
    return [(x * y).truncate(12), (x * y * x).truncate(10), (x * y * x) / 1000003, x[1, 1].truncate(3), at_once]


def polynomials(s: Any) -> list[SecretTensor]:
    x, y = s.secret((3, 4)), s.secret((3, 4))
    small = (x * y).within(-1, 1)
    coefficients = [0.5, -0.25, 0.125, 1.0]
    return [x.polynomial(coefficients), small.polynomial(coefficients), (x * 0.25) ** 9, small[0, 0] ** 3]


def functions(s: Any) -> list[SecretTensor]:
    x = s.secret((3, 4))
    small = (x * x).within(-1, 1)
    return [x.sigmoid(interval=(-8, 8)), small.tanh(), small[2, 1].sigmoid()]


def comparisons(s: Any) -> list[SecretTensor]:
    x, y = s.secret((3,)), s.secret((2, 3))
    many = s.secret((1,)) >= np.linspace(-3, 3, 64)
    few = [x > 0.5, (x * x).relu(), (y <= 1) * x, x.clip(-1, 1), (y == 0.5) * x, s.secret((2,), 0, 3, 0).one_hot(4)]
    return [*few, many, x._joined(LetThrough(), x, x * x - 1.0)]


def kept(s: Any) -> list[SecretTensor]:
    x = s.secret((3,))
    y = SecretTensor(Node(Keep("y"), ((x * x).node,)))
    return [y * x]


def network(s: Any) -> list[SecretTensor]:
    image, k, w = s.secret((2, 1, 6, 6)), s.stored("k", (2, 1, 3, 3)), s.stored("w", (4, 3))
    hidden = (image.conv2d(k) + np.array([0.5, -1]).reshape(2, 1, 1)).within(-8, 8).sigmoid()
    return [(hidden.avg_pool2d(2).reshape(4, 4) @ w).within(-8, 8).sigmoid() @ w.T]


def watched(s: Any) -> list[SecretTensor]:
    return [(s.secret((3,)) * s.stored("w", (3,))).sigmoid(interval=(-2, 2))]


def hanging(s: Any) -> dict[str, SecretTensor]:
    """What is kept if all is where it is assumed to be, as it is here."""
    x, w = s.secret((3,)), s.stored("w", (3,))
    return {"y": (x * w - x * w).assumed(-1, 1)}


@pytest.fixture(scope="module")
def on_torch() -> Rings:
    return rings_on("cpu")


PROGRAMS = (layout, products, images, truncations, polynomials, functions, comparisons, kept, watched, hanging, network)


OBJECTIVES = {
    Security.SEMI_HONEST: (LATENCY, TRAFFIC),
    Security.MALICIOUS: (Objective(ANY, Security.MALICIOUS), Objective(0, Security.MALICIOUS)),
}


def programs_of(secure: Any, make: Any, security: Security) -> list[Program]:
    """All that differ."""
    made = make(secure)
    graph = graph_of([], made) if isinstance(made, dict) else graph_of(made)
    planned = [plan(graph, objective, checked=True) for objective in OBJECTIVES[security]]
    return [Program.decode(data) for data in sorted({program.encode() for program in planned})]


def everything(secure: Any, program: Program, security: Security, parties: int, rings: Rings) -> dict[str, list[bytes]]:
    """Whatever is dealt, sent, kept and computed in one run, as bytes."""
    field = field_of(rings)

    def drawn(shape: tuple[int, ...], low: float, high: float, bits: int) -> Any:
        raw = fixed_point.encode(secure.draw(1, shape, low, high, bits), bits)
        return field.from_signed(field_of(known_rings()).to_signed(raw))

    sources: Sequence[Any] = [program.nodes[i].operation for i in program.inputs]
    inputs = [drawn(source.shape, source.low, source.high, source.fraction_bits) for source in sources]
    weights: Mapping[str, Any] = {
        node.operation.tensor: drawn(node.operation.shape, -1, 1, 14)
        for node in program.nodes
        if node.operation.name == "stored"
    }
    store = MemoryStore("model", weights, parties, secure.seeds(parties, 2), rings) if weights else None
    rounds: list[bytes] = []

    def listen(number: int, sender: int, receiver: int, buffer: Any) -> Any:
        assert isinstance(buffer, np.ndarray)
        rounds.append(buffer.tobytes() if number < program.rounds else b"of the check, whose coins are fresh")
        return buffer

    run = run_in_memory(
        program, inputs, parties=parties, store=store, security=security,
        tamper=listen, seeds=secure.seeds(parties, 1), rings=rings,
    )  # fmt: skip
    if security is Security.MALICIOUS and program.rounds:
        # Behind the first opening come commitments to coins.
        length = (len(rounds[0]) - 64) if len(rounds[0]) > 64 else 0
        rounds = [buffer[:length] if k < parties * (parties - 1) else buffer for k, buffer in enumerate(rounds)]

    def of(arrays: Sequence[Any]) -> list[bytes]:
        holding = (next(ring for ring in rings.values() if ring.holds(x, tuple(x.shape))) for x in arrays)
        return [ring.buffer(x).tobytes() for ring, x in zip(holding, arrays, strict=True)]

    stored = {("model", name): array for name, array in weights.items()}
    return {
        "corrections": [buffer.tobytes() for buffer in run.dealing.corrections],
        "for the client": as_sent(run.dealing.for_client()),
        "masked inputs": of(run.masked),
        "rounds": rounds,
        "shares": [buffer.tobytes() for shares in run.shares for buffer in shares],
        "kept": [blob for one in run.runs for blob in of(list(one.kept[1].values()))],
        "outputs": of(run.outputs),
        "clear": [
            rings[node.type.ring].buffer(array).tobytes()
            for node, array in zip(program.nodes, clear_values(program, inputs, stored, rings), strict=True)
        ],
    }


@pytest.mark.sampled(3)
@pytest.mark.parametrize("security", list(Security))
@pytest.mark.parametrize("make", PROGRAMS, ids=lambda make: str(make.__name__))
@pytest.mark.parametrize("rings", ["opaque", pytest.param("on_torch", marks=pytest.mark.slow)])
def test_every_reading_goes_through_the_ring(
    secure: Any, request: pytest.FixtureRequest, rings: str, make: Any, security: Security
) -> None:
    others: Rings = request.getfixturevalue(rings)
    for program in programs_of(secure, make, security):
        for parties in (2, 3):
            wanted = everything(secure, program, security, parties, known_rings())
            assert everything(secure, program, security, parties, others) == wanted
            assert wanted["outputs"] or wanted["kept"]


def test_all_operations_are_among_them(secure: Any) -> None:
    programs = [program for make in PROGRAMS for kind in Security for program in programs_of(secure, make, kind)]
    used = {node.operation.name for program in programs for node in program.nodes}
    # What parties draw is another thing each time: tests/protocols/test_random.py.
    assert used == set(registered()) - {"draw", "bits"}


def test_whoever_looks_is_seen(opaque: Rings) -> None:
    """The test above would pass without arrays that refuse."""
    array: Any = field_of(opaque).zeros((2,))
    assert array.shape == (2,)
    for look in (
        np.asarray,
        np.negative,
        np.zeros_like,
        bool,
        len,
        list,
        lambda x: x + 1,
        lambda x: 1 - x,
        lambda x: x == x,
        lambda x: x[0],
        lambda x: x.size,
        lambda x: x.copy(),
        lambda x: x.tobytes(),
        lambda x: np.add(x, np.ones(2)),
        lambda x: np.concatenate([x, x]),
        lambda x: field_of(known_rings()).negate(x),
    ):
        with pytest.raises((AssertionError, TypeError)):
            look(array)
    with pytest.raises(AssertionError):
        field_of(opaque).add(array, np.zeros(2, np.uint64))
