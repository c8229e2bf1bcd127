"""``tessera bench kernels``: field arithmetic beside what the machine does anyway, and ReLUs, all in one thread.

The two of a pair are measured in turn, and the median is that of their ratios: a machine that is busy slows both.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from benchmarks import relu_kernels
from benchmarks.machine import machine
from benchmarks.records import Figure, Recorder, flatten, spread
from benchmarks.report import milliseconds, plain_table, progress_bar, stdout_console
from mpc.rings import compiling, field, matrix
from parties.servers.process import tune

PAIRS = 10**6
SIDE = 1024
TIMES = 10
"""Multiplications and copies timed together: each alone takes a millisecond."""


def run(options: argparse.Namespace) -> int:
    """Measure and print; the exit code."""
    recorder = Recorder.of(options)
    tune(1)
    compiling.warm_up()
    with progress_bar("measuring", 3) as advance:
        multiply = _multiply(options.repeat)
        advance()
        matmul = _matmul(options.repeat)
        advance()
        relu = relu_kernels.measured(options.repeat)
        advance()
    summary = {
        "repeat": options.repeat, "multiply": multiply, "matmul": matmul, "relu_ns": relu, "machine": machine(),
    }  # fmt: skip
    case = {"pairs": PAIRS, "side": SIDE, "relus": relu_kernels.VALUES, "threads": 1}
    recorder.add("kernels", case, _figures(summary))
    if options.json:
        recorder.print_json(summary)
    else:
        _print(summary)
    return recorder.finish()


def _figures(summary: dict[str, Any]) -> dict[str, Figure]:
    """The spreads; how large the operands are is said by the case."""
    figures = flatten(summary, "multiply", "matmul", "relu_ns")
    return {name: figure for name, figure in figures.items() if isinstance(figure, Mapping)}


def _multiply(repeat: int) -> dict[str, Any]:
    """Products of pairs into a given array, beside a copy of both operands."""
    x, y = _elements((PAIRS,)), _elements((PAIRS,))
    out, x_copy, y_copy = np.empty_like(x), np.empty_like(x), np.empty_like(y)

    def product() -> None:
        field.multiply(x, y, out)

    def copy() -> None:
        np.copyto(x_copy, x)
        np.copyto(y_copy, y)

    seconds, other, ratios = _in_turn(product, copy, repeat, TIMES)
    return {"pairs": PAIRS, "seconds": seconds, "copy_seconds": other, "ratio": ratios}


def _matmul(repeat: int) -> dict[str, Any]:
    """A matrix product in the field, operands split afresh, beside one of float64 matrices of that shape."""
    x, y = _elements((SIDE, SIDE)), _elements((SIDE, SIDE))
    a, b = x.astype(np.float64), y.astype(np.float64)
    seconds, other, ratios = _in_turn(lambda: matrix.matmul(x, y), lambda: a @ b, repeat, 1)
    return {"side": SIDE, "seconds": seconds, "float64_seconds": other, "ratio": ratios}


def _in_turn(
    one: Callable[[], object], other: Callable[[], object], repeat: int, times: int
) -> tuple[dict[str, float], dict[str, float], dict[str, float]]:
    """Seconds of each, and their ratios; after a round that does not count."""
    first, second = [], []
    for _ in range(repeat + 1):
        first.append(_timed(one, times))
        second.append(_timed(other, times))
    del first[0], second[0]
    return spread(first), spread(second), spread([x / y for x, y in zip(first, second, strict=True)])


def _timed(action: Callable[[], object], times: int) -> float:
    started = time.perf_counter()
    for _ in range(times):
        action()
    return (time.perf_counter() - started) / times


def _elements(shape: tuple[int, ...]) -> field.FieldArray:
    return np.random.default_rng(len(shape)).integers(0, field.P, shape, dtype=np.uint64)


def _print(summary: dict[str, Any]) -> None:
    multiply, matmul = summary["multiply"], summary["matmul"]
    table = plain_table("one thread", "field", "beside", "median ratio")
    table.add_row(
        f"multiply {multiply['pairs']:,} pairs | copy both arrays",
        milliseconds(multiply["seconds"]["median"]),
        milliseconds(multiply["copy_seconds"]["median"]),
        f"{multiply['ratio']['median']:.2f}",
    )
    table.add_row(
        f"matmul of side {matmul['side']} | float64 matmul",
        milliseconds(matmul["seconds"]["median"]),
        milliseconds(matmul["float64_seconds"]["median"]),
        f"{matmul['ratio']['median']:.2f}",
    )
    stdout_console().print(table)
    relus = plain_table(f"ns a ReLU, of {relu_kernels.VALUES:,}", *relu_kernels.PARTS)
    for name, parts in summary["relu_ns"].items():
        relus.add_row(name, *(f"{parts[part]['median']:.0f}" for part in relu_kernels.PARTS))
    stdout_console().print(relus)
