"""Files of any size are read up to a limit, in no more memory than they take."""

from __future__ import annotations

import io
import tracemalloc

import pytest

from nn.files import at_most


@pytest.mark.parametrize("size", [0, 1, (1 << 20) - 1, 1 << 20, 3_000_000])
@pytest.mark.parametrize("most", [0, 1, 1 << 20, 2_500_000, 1 << 40])
def test_no_more_than_that(size: int, most: int) -> None:
    data = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    assert at_most(io.BytesIO(data), most) == data[:most]


def test_a_small_file_takes_little_memory(tmp_path) -> None:
    (tmp_path / "small").write_bytes(b"small")
    tracemalloc.start()
    try:
        with (tmp_path / "small").open("rb") as file:
            at_most(file, 1 << 34)
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()
