"""What a client says of its secrets, and what is refused before anything is spent on it."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mpc.errors import EncodingError, RangeError, ShapeError, UnsupportedError, UsageError
from parties import Client, DataSet, MemoryCluster
from parties.members.cluster_file import Settings


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
    if options == {"low": None}:
        # Of data sets that is a range that is not given.
        error, sentence = UsageError, "the range of x is missing"
    with pytest.raises(error, match=sentence):
        DataSet({"x": [0.5]}, **{"low": -1, "high": 1, **options})


@pytest.mark.parametrize("end", ["low", "high"])
def test_half_a_range_is_none(client: Client, end: str) -> None:
    with pytest.raises(UnsupportedError, match="low and high are numbers"):
        client.share(0.5, **{end: None})
    with pytest.raises(UsageError, match="the range of x is missing"):
        DataSet({"x": [0.5]}, **{"low": -1, "high": 1, end: None})
    with pytest.raises(UsageError, match="give both, or none"):
        DataSet({"x": [0.5]}, **{end: 0.5}, ranges={"x": (0, 1)})


MANY = 10**9
"""Numbers, of which no case below has more than a few in memory."""
ROW = [0.0] * 1000
TOO_MANY: dict[str, Any] = {
    "a view": np.broadcast_to(0.0, (MANY,)),
    "a view of floats that are none of NumPy's": np.broadcast_to(np.float32(0), (10, MANY // 10)),
    "a view of integers": np.broadcast_to(np.int8(0), (MANY,)),
    "zeros": np.broadcast_to(np.zeros(()), (1000, 1000, 1000)),
    "lists": [[ROW] * 1000] * 1000,
    "lists of arrays": [np.zeros(10_000)] * 100_000,
    "tuples of ranges": (range(MANY // 2), range(MANY // 2)),
}


@pytest.fixture
def little_memory() -> Iterator[None]:
    """Whoever asks for a gigabyte more than there is in use gets MemoryError, and not the machine into trouble."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    in_use = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (in_use + (1 << 30), before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


@pytest.mark.parametrize("values", TOO_MANY.values(), ids=list(TOO_MANY))
def test_too_much_is_refused_before_memory_is_spent(client: Client, values: Any, little_memory: None) -> None:
    with pytest.raises(UsageError, match=r"value has 1,000,000,000 numbers, and one run takes .* share parts of it"):
        client.share(values)
    with pytest.raises(UsageError, match=r"big has 1,000,000,000 numbers, and a tensor .* cut it in parts"):
        DataSet({"small": [0.5], "big": values}, low=-1, high=1)
    with pytest.raises(UsageError, match=r"1,000,000,000 public numbers, and a program holds .* upload them"):
        client.share(0.5) + values
    with pytest.raises(UsageError, match="a choice among 1,000,000,000 elements: cut it into parts"):
        client.share([0.5, 1.5]).take(values)


@pytest.mark.parametrize("key", [[[0] * 1000] * 1_000_000, np.broadcast_to(1, (MANY,)), np.broadcast_to(True, (MANY,))])
def test_a_choice_of_too_many_is_refused_before_memory_is_spent(client: Client, key: Any, little_memory: None) -> None:
    with pytest.raises(UnsupportedError, match="a choice among 1,000,000,000 elements: cut it into parts"):
        client.share([0.5, 1.5])[key]
    with pytest.raises(UnsupportedError, match="a choice among 1,000,000,000 elements: cut it into parts"):
        np.where(key, client.share(0.5), client.share(1.5))


@pytest.mark.parametrize(
    "build",
    [
        lambda x: np.tile(x, MANY),
        lambda x: np.tile(x, (MANY, 1)),
        lambda x: np.repeat(x, MANY),
        lambda x: np.repeat(x, [MANY, 1], 0),
        lambda x: np.repeat(x, np.array([MANY])),
        lambda x: np.resize(x, (MANY // 10, 10)),
        lambda x: np.pad(x, MANY, "edge"),
        lambda x: np.pad(x, ((0, MANY),), "wrap"),
        lambda x: np.diag(x, MANY),
        lambda x: np.diag(x.broadcast_to((30_000, 2)).reshape(-1)),
    ],
)
def test_a_tensor_grown_from_few_is_refused_before_memory_is_spent(
    client: Client, build: Any, little_memory: None
) -> None:
    with pytest.raises(UnsupportedError, match=r"a choice among [\d,]+ elements: cut it into parts"):
        build(client.share([0.5, 1.5]))


@pytest.mark.sampled(3)
@pytest.mark.parametrize("build", [np.sort, np.argsort, np.median, lambda x: x.topk(3), lambda x: x.quantile(0.1)])
def test_a_sort_of_too_many_is_refused_before_memory_is_spent(client: Client, build: Any, little_memory: None) -> None:
    with pytest.raises(UnsupportedError, match=r"a sort of 100,000,000 values.*sort parts"):
        build(client.share([0.5]).broadcast_to(MANY // 10))


def test_chances_of_too_many_are_refused_before_memory_is_spent(client: Client, little_memory: None) -> None:
    with pytest.raises(UsageError, match=r"1,000,000,000 public numbers, and a program holds"):
        client.random.bernoulli(0.3, (MANY,))


@pytest.mark.parametrize(
    "build",
    [
        lambda x: np.pad(x, 1.5),
        lambda x: np.pad(x, {0: (1, 1)}),
        lambda x: np.pad(x, ((1, 1), (1, 1)), "edge"),
        lambda x: np.repeat(x, 1.5),
        lambda x: np.repeat(x, [1, 2, 3]),
        lambda x: np.tile(x, -1),
    ],
)
def test_half_elements_are_none(client: Client, build: Any) -> None:
    with pytest.raises(ShapeError):
        build(client.share([0.5, 1.5]))


def test_masked_numbers_are_none(client: Client) -> None:
    """What an array of NumPy's has under its mask is nobody's number."""
    masked = np.ma.array([0.5, 0.25], mask=[False, True])
    for use in (client.share, lambda x: DataSet({"x": x}, low=-1, high=1), lambda x: client.share(0.5) * x):
        with pytest.raises(UsageError, match=r"masked numbers: .* filled"):
            use(masked)
    assert client.share(np.ma.array([0.5, 0.25])).shape == (2,)


def test_one_length_is_a_shape(client: Client) -> None:
    assert client.share([0.5]).broadcast_to(3).shape == (3,)


@pytest.mark.parametrize("shape", [(0, 2**40), (2**31 + 1,)])
def test_a_shape_beyond_any_server_is_refused(client: Client, shape: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError, match="empty axes not counted: work on parts of it"):
        client.share(np.broadcast_to(0.0, (*shape[:-1], 1))).broadcast_to(shape)


def test_a_message_that_nobody_takes_is_refused_before_the_run() -> None:
    x = np.zeros(100_000)
    with MemoryCluster(parties=2, settings=Settings(max_message_mb=1)) as cluster, Client(cluster) as client:
        for program in (
            client.share(0.5).broadcast_to((140_000,)),
            client.share(x) - client.share(x),
            (client.share([[0.5]]) + np.zeros((70_000, 2))).sum(axis=1) ** 2 * client.share(x[:70_000]),
            client.share(x).within(-8, 8).sigmoid(),
        ):
            with pytest.raises(UsageError, match="MiB, and members take 1: share, reveal or keep less in one run"):
                client.prepare(program)
            with pytest.raises(UsageError, match="members take 1"):
                client.stock(program, 1)
        assert client.reveal(client.share(x) + 1).shape == (100_000,)
