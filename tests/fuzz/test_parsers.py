"""Whatever comes from a wire or a file: a typed error, in bounded memory, and soon.

The quick tests mutate samples blindly; the slow ones are guided by coverage (``guided.py``).
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import subprocess
import sys
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mpc.errors import TesseraError

from .parsers import PARSERS, Parser

MOST_MEMORY = 64 << 20
"""Bytes, besides some times the input's length."""

BLIND = settings(max_examples=60, deadline=5_000, suppress_health_check=list(HealthCheck))
LONG = settings(BLIND, max_examples=1000)


@st.composite
def mutated(draw: st.DrawFn, samples: tuple[bytes, ...]) -> bytes:
    """A sample with a few bytes changed, cut out, put in, repeated, or taken from another one."""
    data = bytearray(draw(st.sampled_from(samples)))
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(data)))
        length = draw(st.integers(0, 16))
        kind = draw(st.sampled_from(("change", "cut", "insert", "repeat", "splice", "truncate")))
        if kind == "change" and start < len(data):
            data[start] = draw(st.sampled_from((0, 1, 0x7F, 0x80, 0xC0, 0xFF, data[start] ^ 1, data[start] ^ 0x80)))
        elif kind == "cut":
            del data[start : start + length]
        elif kind == "insert":
            data[start:start] = draw(st.binary(max_size=16))
        elif kind == "repeat":
            data[start:start] = data[start : start + length] * draw(st.integers(1, 64))
        elif kind == "splice":
            other = draw(st.sampled_from(samples))
            begin = draw(st.integers(0, len(other)))
            data[start : start + length] = other[begin : begin + length]
        elif kind == "truncate":
            del data[start:]
    return bytes(data)


@functools.cache
def imported(name: str) -> None:
    """What a parser imports when it is first called is none of its input's memory."""
    with contextlib.suppress(TesseraError):
        PARSERS[name].parse(PARSERS[name].samples[0])


def bounded(parser: Parser, data: bytes) -> None:
    imported(parser.name)
    tracemalloc.start()
    try:
        parser.parse(data)
    except TesseraError as error:
        assert str(error).isprintable() or "\n" in str(error)
        assert len(str(error)) < 5_000
    finally:
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert most < MOST_MEMORY + 50 * len(data)


@pytest.mark.parametrize("name", PARSERS)
def test_samples_are_read(name: str) -> None:
    for sample in PARSERS[name].samples:
        PARSERS[name].parse(sample)


@pytest.mark.sampled(3)
@pytest.mark.parametrize("name", PARSERS)
@given(data=st.data())
@BLIND
def test_mutated_samples_are_read_or_refused(name: str, data: st.DataObject) -> None:
    parser = PARSERS[name]
    bounded(parser, data.draw(mutated(parser.samples)))


@pytest.mark.slow
@pytest.mark.parametrize("name", PARSERS)
@given(data=st.data())
@LONG
def test_many_mutated_samples_are_read_or_refused(name: str, data: st.DataObject) -> None:
    parser = PARSERS[name]
    bounded(parser, data.draw(mutated(parser.samples)))


@pytest.mark.sampled(3)
@pytest.mark.parametrize("name", PARSERS)
@given(data=st.binary(max_size=400))
@BLIND
def test_random_bytes_are_refused(name: str, data: bytes) -> None:
    bounded(PARSERS[name], data)


@pytest.mark.slow
@pytest.mark.parametrize("name", PARSERS)
@given(data=st.binary(max_size=400))
@LONG
def test_many_random_bytes_are_refused(name: str, data: bytes) -> None:
    bounded(PARSERS[name], data)


def test_a_picture_that_claims_to_be_huge_takes_no_memory() -> None:
    png = PARSERS["image"].samples[0]
    end = png.index(b"IDAT") - 4
    bounded(PARSERS["image"], png[:end] + (0x7F000021).to_bytes(4, "big") + png[end + 4 :])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["frames", "program", "description", "interface"])
def test_what_coverage_leads_to_is_read_or_refused(name: str, tmp_path: Path) -> None:
    if importlib.util.find_spec("atheris") is None:
        pytest.skip("atheris has no build for this platform")
    for i, sample in enumerate(PARSERS[name].samples):
        (tmp_path / f"sample{i}").write_bytes(sample)
    guided = Path(__file__).with_name("guided.py")
    limits = ["-max_total_time=25", "-rss_limit_mb=2048", "-timeout=10", "-max_len=65536", "-print_final_stats=1"]
    command = [sys.executable, str(guided), name, *limits, f"-artifact_prefix={tmp_path}/", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    executed = next(line for line in done.stderr.splitlines() if "number_of_executed_units" in line)
    assert int(executed.rpartition(":")[2]) > 1_000, executed
