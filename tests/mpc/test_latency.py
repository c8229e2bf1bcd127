"""Predicted latency: delays and bytes, each where the model says."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from mpc.cost import Link, cost
from mpc.errors import UsageError
from mpc.security import Security

INSTANT = 1e30
"""Bits per second."""


@pytest.mark.parametrize("security", Security)
@pytest.mark.parametrize("parties", [2, 3, 5])
def test_delays_are_counted_one_way(secure: Any, parties: int, security: Security) -> None:
    program = secure.program(secure.secret((4,)).sigmoid(interval=(-4, 4)).sigmoid(interval=(-4, 4)))
    predicted = cost(program, parties, security)
    latency = predicted.latency(Link(0.010, INSTANT), Link(0.100, INSTANT))
    assert latency.inputs == pytest.approx(0.050)
    assert latency.delays == pytest.approx(0.005 * (predicted.online_rounds - 1))
    assert latency.openings == pytest.approx(0.0)
    assert latency.outputs == pytest.approx(0.050)
    assert latency.online == pytest.approx(0.100 + latency.delays)
    # To the dealer, on to the parties, and back.
    assert latency.offline == pytest.approx(0.050 + 0.005 + 0.050)
    assert predicted.latency(Link(0.010, INSTANT)).online == pytest.approx(0.005 * (predicted.online_rounds + 1))


def test_bytes_take_their_time(secure: Any) -> None:
    program = secure.program((secure.secret((100,)) * secure.secret((100,))).sigmoid(interval=(-4, 4)))
    predicted = cost(program, 3)
    servers, client = Link(0.0, 8000.0), Link(0.0, 800.0)
    latency = predicted.latency(servers, client)
    assert predicted.online_output_bytes == 100 * 8
    assert latency.inputs == pytest.approx(3 * 200 * 8 / 100)
    assert latency.openings == pytest.approx((predicted.online_bytes_per_party - 100 * 8) / 1000)
    assert latency.outputs == pytest.approx(3 * 100 * 8 / 100)
    dealing, masks = sum(predicted.offline_dealer_bytes) / 1000, predicted.offline_client_bytes / 100
    assert latency.offline == pytest.approx(max(dealing, masks))
    # The slower of the two, whichever that is.
    slow = predicted.latency(client, servers)
    assert slow.offline == pytest.approx(sum(predicted.offline_dealer_bytes) / 100)
    assert slow.offline > predicted.offline_client_bytes / 1000


def test_messages(secure: Any) -> None:
    x = secure.secret((4,))
    for parties in (2, 3, 8):
        assert cost(secure.program(x * x), parties).online_messages_per_party == 1
        assert cost(secure.program((x * x) * x), parties).online_messages_per_party == 1 + (parties - 1)
        checked = cost(secure.program(x * x), parties, Security.MALICIOUS)
        assert checked.online_messages_per_party == 1 + (checked.online_rounds - 1) * (parties - 1)


@pytest.mark.parametrize("round_trip", [-1.0, np.nan, np.inf])
def test_no_such_delay(round_trip: float) -> None:
    with pytest.raises(UsageError, match="round-trip"):
        Link(round_trip, 1.0)


@pytest.mark.parametrize("bandwidth", [0.0, -1.0, np.nan])
def test_no_such_bandwidth(bandwidth: float) -> None:
    with pytest.raises(UsageError, match="bandwidth"):
        Link(0.0, bandwidth)
