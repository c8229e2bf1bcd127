"""Predicted cost is what is measured: rounds, elements opened, corrections, masked inputs and outputs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from mpc import fixed_point
from mpc.cost import COMPARISON, LayerCost, cost
from mpc.rings.prg import SEED_BYTES
from mpc.security import Security
from protocols.readings.dealer import deal
from protocols.trace.secret_tensor import concatenate, stack

OPERATIONS = {
    "add": lambda x, y: x + y,
    "subtract": lambda x, y: 1 - x - y,
    "negate": lambda x, y: -x,
    "multiply": lambda x, y: x * y,
    "multiply public": lambda x, y: x * 0.3,
    "multiply shared": lambda x, y: (x * y) * (x + y),
    "matmul": lambda x, y: x.reshape(6, 6) @ y.reshape(6, 6),
    "matmul vectors": lambda x, y: (x * y).reshape(36) @ y.reshape(36),
    "matmul public": lambda x, y: x @ np.ones((6, 2)),
    "matmul batches": lambda x, y: (x * x).reshape(2, 1, 3, 6) @ y.reshape(1, 2, 6, 3),
    "conv2d": lambda x, y: (x * x).conv2d(y[:, :, :3, :2], stride=(2, 1), padding=1),
    "avg_pool2d": lambda x, y: x.avg_pool2d(2),
    "sum and mean": lambda x, y: x.sum(1).mean(),
    "reshape, transpose, index": lambda x, y: x.reshape(4, 9).T[1::2],
    "join": lambda x, y: concatenate([x, stack([y, y])[0], x]),
    "pad and broadcast": lambda x, y: x.pad([(0, 0), (0, 0), (1, 1), (1, 1)]).broadcast_to((3, 1, 8, 8)),
    "truncate": lambda x, y: x.truncate(9),
    "truncate shared": lambda x, y: (x * y).truncate(16).truncate(8),
    "within": lambda x, y: x.within(-1, 1) * y,
    "square": lambda x, y: (x * y).square(),
    "cube": lambda x, y: x**3,
    "truncated cube": lambda x, y: (x * y) ** 3,
    "polynomial of high degree": lambda x, y: x.polynomial([1, 0.5, -0.25, 0, 0, 0.1, 0.01, -0.02]),
    "sigmoid": lambda x, y: (x * y).sigmoid(interval=(-8, 8)),
    "sigmoid of a sigmoid": lambda x, y: x.sigmoid(interval=(-8, 8)).sigmoid(interval=(-8, 8)),
    "two methods": lambda x, y: x.exp(method="minimax", interval=(-4, 4), degree=5) + y.tanh(interval=(-4, 4)),
    "division": lambda x, y: x / 3 + y / 0.7,
    "empty": lambda x, y: (x * y)[:0].sigmoid(interval=(-8, 8)) * 2,
}


@pytest.mark.parametrize("security", Security)
@pytest.mark.parametrize("parties", [2, 3])
@pytest.mark.parametrize("name", OPERATIONS)
def test_predicted_is_measured(secure: Any, name: str, parties: int, security: Security) -> None:
    x, y = secure.secret((1, 1, 6, 6)).labelled("a"), secure.secret((1, 1, 6, 6)).labelled("b")
    result = OPERATIONS[name](x, y)
    program = secure.program(result)
    inputs = [fixed_point.encode(secure.draw(1, program.nodes[i].type.shape), 16) for i in program.inputs]
    seen = secure.watch(program, inputs, parties, secure.seeds(parties, 0), security=security)
    predicted = cost(program, parties, security)
    assert predicted.parties == parties
    assert predicted.online_rounds == len(seen.sent) + 1
    for party in range(parties):
        sent = sum(buffers[party].nbytes for buffers in seen.sent) * (parties - 1)
        revealed = sum(o.nbytes for o in seen.shares[party])
        assert predicted.online_bytes_per_party == sent + revealed
    assert predicted.online_client_bytes == parties * sum(m.nbytes for m in seen.masked)
    sent_by_dealer = tuple(payload(seen.dealing.for_party(i)) for i in range(parties))
    assert predicted.offline_dealer_bytes == sent_by_dealer
    assert predicted.offline_client_bytes == payload(seen.dealing.for_client())
    assert predicted.offline_bytes == sum(sent_by_dealer) + predicted.offline_client_bytes
    # And the layers add up to the whole.
    layers = predicted.layers.values()
    assert sum(layer.rounds for layer in layers) == len(seen.sent)
    assert len(seen.sent) - program.rounds == (0 if security is Security.SEMI_HONEST else 3 if program.rounds else 4)
    assert sum(layer.opened for layer in layers) == sum(b[0].size for b in seen.sent)
    assert sum(layer.dealt for layer in layers) == sum(c.size for c in seen.dealing.corrections)


def payload(buffers: Any) -> int:
    return sum(b.nbytes if isinstance(b, np.ndarray) else len(b) for b in buffers)


def test_layers_are_counted_under_their_labels(secure: Any) -> None:
    x = secure.secret((4,)).labelled("first")
    y = x * x
    z = y.labelled("second").sigmoid(interval=(-8, 8))
    other = y.labelled("beside").truncate(16)
    layers = cost(secure.program(z, other), 2).layers
    assert list(layers) == ["first", "second", "beside"]  # and none for the client's input, which costs them nothing
    assert layers["first"].dealt == 0  # its product lends
    assert layers["second"].dealt % 8 == 0
    # One mask, made for the first who asked; the truncation beside it deals two values per element.
    assert (layers["second"].rounds, layers["second"].opened) == (1, 4)
    assert (layers["beside"].rounds, layers["beside"].opened, layers["beside"].dealt) == (0, 0, 8)


def test_stored_weights_cost_nothing_to_open(secure: Any) -> None:
    program = secure.program(secure.secret((1, 100)) @ secure.stored("w", (100, 10)))
    predicted = cost(program, 3)
    # One round to compare what the parties were sent, without a byte of payload; and the reveal.
    assert predicted.online_rounds == 2
    assert predicted.layers[COMPARISON] == LayerCost(1, 0, 0, 0, 0)
    assert predicted.online_bytes_per_party == 10 * 8
    assert predicted.offline_dealer_bytes == (SEED_BYTES, SEED_BYTES, SEED_BYTES + 10 * 8)
    assert "3 parties" in str(predicted)


def test_predicting_needs_no_dealing(secure: Any) -> None:
    """The same figures come from the program alone, before anything runs, for any number of parties."""
    program = secure.program(secure.secret((5,)).sigmoid(interval=(-4, 4)))
    for parties in (2, 3, 5, 7):
        dealing = deal(program, parties, {})
        assert cost(program, parties).offline_dealer_bytes[-1] == SEED_BYTES + sum(
            c.nbytes for c in dealing.corrections
        )
