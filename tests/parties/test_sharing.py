"""What a client says of its secrets, and what is refused before anything is spent on it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from mpc.errors import EncodingError, RangeError, UnsupportedError, UsageError
from parties import Client, DataSet, MemoryCluster


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    with MemoryCluster(parties=2) as cluster, Client(cluster) as client:
        yield client


@pytest.mark.parametrize(
    ("options", "bits"),
    [
        ({}, 16),
        ({"low": 0, "high": 1}, 16),
        ({"low": 0, "high": 2e-6}, 34),
        ({"low": -0.2, "high": 0.1}, 18),
        ({"low": 0, "high": 1e6}, 16),
        ({"fraction_bits": np.int64(3)}, 3),
        ({"fraction_bits": np.uint8(20), "low": np.float32(0), "high": np.int16(2)}, 20),
    ],
)
def test_fraction_bits_follow_the_range(client: Client, options: dict[str, Any], bits: int) -> None:
    assert client.share(0.0, **options).type.fraction_bits == bits
    data = DataSet({"x": np.zeros(2)}, **{"low": -64, "high": 64, **options})
    assert data.encode()["x"].shape == (2,)


def test_tiny_values_are_told_apart(client: Client) -> None:
    x = client.share([1e-6, 1.5e-6], low=0, high=2e-6)
    assert client.reveal(x) == pytest.approx([1e-6, 1.5e-6], rel=1e-4)


@pytest.mark.parametrize(
    ("options", "error", "sentence"),
    [
        ({"low": 2, "high": 1}, RangeError, "the lower first"),
        ({"low": float("nan")}, RangeError, "low=nan"),
        ({"high": float("inf")}, RangeError, "finite"),
        ({"low": "a"}, UnsupportedError, "numbers"),
        ({"low": None}, UnsupportedError, "numbers"),
        ({"high": [1, 2]}, UnsupportedError, "numbers"),
        ({"fraction_bits": 1.5}, UnsupportedError, "whole number"),
        ({"fraction_bits": "16"}, UnsupportedError, "whole number"),
        ({"fraction_bits": -1}, EncodingError, "fraction_bits"),
        ({"fraction_bits": 99}, EncodingError, "fraction_bits"),
    ],
)
def test_what_is_no_range_or_number_of_bits(
    client: Client, options: dict[str, Any], error: type[UsageError], sentence: str
) -> None:
    with pytest.raises(error, match=sentence):
        client.share(0.5, **options)
    with pytest.raises(error, match=sentence):
        DataSet({"x": [0.5]}, **{"low": -1, "high": 1, **options})


def test_more_than_one_message_takes_is_refused_before_memory_is_spent(client: Client) -> None:
    with pytest.raises(UsageError, match="1000000000 numbers, and one run takes 268435456 at most"):
        client.share(np.broadcast_to(0.0, (10**9,)))
