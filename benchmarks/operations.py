"""``tessera bench ops``: single operations over processes: rounds, bytes, seconds, and the error beside NumPy."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.console import Console

from benchmarks.machine import machine
from benchmarks.records import Recorder, flatten
from benchmarks.report import kilobytes, milliseconds, plain_table, progress_bar, stdout_console
from benchmarks.session import (
    WIRE_COLUMNS,
    Reals,
    Session,
    as_predicted,
    links,
    phases,
    print_links,
    resources,
    warn_without_wire,
    watched_session,
    wire_cells,
)
from mpc.errors import UsageError
from mpc.tensor_type import Shape
from protocols.approximation import FUNCTIONS
from protocols.lowering.planner import FRACTION_BITS
from protocols.trace.secret_tensor import SecretTensor

WARM_UP = 2
COEFFICIENTS = (0.5, -1.0, 0.25, 0.125)
CHANNELS, FILTERS = 4, 8


@dataclass(frozen=True)
class Operation:
    """One line of the benchmark: operands of about so many elements, the operation, and NumPy's way of it."""

    shapes: Callable[[int], tuple[Shape, ...]]
    secret: Callable[..., SecretTensor]
    exact: Callable[..., npt.ArrayLike]
    low: float = -8.0
    high: float = 8.0


def _vector(size: int) -> tuple[Shape, ...]:
    return ((size,),)


def _pair(size: int) -> tuple[Shape, ...]:
    return ((size,), (size,))


def _square_matrices(size: int) -> tuple[Shape, ...]:
    side = max(1, math.isqrt(size))
    return ((side, side), (side, side))


def _images(size: int) -> tuple[Shape, ...]:
    side = max(3, math.isqrt(size // CHANNELS))
    return ((1, CHANNELS, side, side),)


def _image_and_filters(size: int) -> tuple[Shape, ...]:
    return (*_images(size), (FILTERS, CHANNELS, 3, 3))


def _convolved(x: Reals, w: Reals) -> Reals:
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1))), (3, 3), axis=(2, 3))
    return np.asarray(np.einsum("nchwij,ocij->nohw", windows, w, optimize=True))


def _pooled(x: Reals) -> Reals:
    n, c, height, width = x.shape
    kept = x[:, :, : height // 2 * 2, : width // 2 * 2]
    return np.asarray(kept.reshape(n, c, height // 2, 2, width // 2, 2).mean(axis=(3, 5)))


def _named(name: str) -> Operation:
    function = FUNCTIONS[name]
    return Operation(_vector, lambda x: getattr(x, name)(), function.exact, function.low, function.high)


OPERATIONS: dict[str, Operation] = {
    "multiply": Operation(_pair, lambda x, y: x * y, np.multiply),
    "matmul": Operation(_square_matrices, lambda x, y: x @ y, np.matmul),
    "conv2d": Operation(_image_and_filters, lambda x, w: x.conv2d(w, padding=1), _convolved),
    "truncate": Operation(_vector, lambda x: x.truncate(FRACTION_BITS // 2), np.asarray),
    "square": Operation(_vector, lambda x: x.square(), np.square),
    "polynomial": Operation(
        _vector, lambda x: x.polynomial(COEFFICIENTS), lambda x: np.polynomial.polynomial.polyval(x, COEFFICIENTS)
    ),
    **{
        name: _named(name)
        for name in ("sigmoid", "tanh", "exp", "gelu", "silu", "softplus", "reciprocal", "log", "sin", "cos")
    },
    "sum": Operation(_vector, lambda x: x.sum(), np.sum),
    "avg_pool2d": Operation(_images, lambda x: x.avg_pool2d(2), _pooled),
}


def run(options: argparse.Namespace) -> int:
    """Measure and print; the exit code."""
    names = options.names or list(OPERATIONS)
    for name in names:
        if name not in OPERATIONS:
            raise UsageError(f"there is no operation {name!r} to measure: the known ones are {', '.join(OPERATIONS)}")
    recorder = Recorder.of(options)
    rows = []
    with (
        watched_session(options.parties, options.security, options.timeout) as session,
        progress_bar("measuring", len(names) * len(options.size)) as advance,
    ):
        warn_without_wire(session)
        for size in options.size:
            for name in names:
                row = _measured(session, name, size, options.repeat)
                rows.append(row)
                case = {name: row[name] for name in ("operation", "shapes")}
                case |= {"parties": options.parties, "security": options.security}
                recorder.add("ops", case, flatten(row))
                advance()
    summary = {
        "parties": options.parties,
        "security": options.security,
        "repeat": options.repeat,
        "operations": rows,
        "machine": machine(),
    }
    if options.json:
        recorder.print_json(summary)
    else:
        _print(summary)
    return recorder.finish()


def _measured(session: Session, name: str, size: int, repeat: int) -> dict[str, Any]:
    """Warm-up runs, then ``repeat`` runs on the same numbers."""
    operation = OPERATIONS[name]
    arrays = _operands(operation, size)
    secrets = [session.client.share(a, low=operation.low, high=operation.high) for a in arrays]
    result = operation.secret(*secrets)
    runs = [session.measure(result) for _ in range(WARM_UP + repeat)]
    reports = [r.report for r in runs[WARM_UP:]]
    exact = np.asarray(operation.exact(*arrays), dtype=np.float64)
    error = max(float(np.abs(r.values - exact).max()) for r in runs)
    return {
        "operation": name,
        "shapes": [list(a.shape) for a in arrays],
        **phases(reports),
        "wire": links(runs[WARM_UP:]),
        "resources": resources(runs[WARM_UP:]),
        "max_abs_error": error,
        "as_predicted": all(as_predicted(r.report) for r in runs),
    }


def _operands(operation: Operation, size: int) -> list[Reals]:
    """Random numbers of the operation's interval which fixed point holds exactly: the error is the operation's own."""
    generator = np.random.default_rng(size)
    unit = 2.0**FRACTION_BITS
    low, high = math.ceil(operation.low * unit), math.floor(operation.high * unit)
    return [generator.integers(low, high, shape, endpoint=True) / unit for shape in operation.shapes(size)]


def _print(summary: dict[str, Any]) -> None:
    figures = ("rounds", "sent per party", "online", "dealt", "offline", "largest error", "")
    table = plain_table("operation", "shapes", *figures)
    rows: Sequence[dict[str, Any]] = summary["operations"]
    for row in rows:
        online, offline = row["online"], row["offline"]
        table.add_row(
            row["operation"],
            " ".join("x".join(map(str, shape)) for shape in row["shapes"]),
            str(online["rounds"]),
            kilobytes(online["bytes_per_party"]),
            milliseconds(online["seconds"]["median"]),
            kilobytes(offline["bytes"]),
            milliseconds(offline["seconds"]["median"]),
            f"{row['max_abs_error']:.1e}",
            "" if row["as_predicted"] else "[bold red]not as predicted[/]",
        )
    console = stdout_console()
    console.print(table)
    _print_wire(console, rows)
    console.print(
        f"{summary['parties']} parties and a dealer, {summary['security']}; medians of {summary['repeat']} runs;"
        " rounds count the reveal."
    )


def _print_wire(console: Console, rows: Sequence[dict[str, Any]]) -> None:
    """Link by link for one operation; for several, all links together (``--json`` has each)."""
    if len(rows) == 1:
        print_links(console, rows[0]["wire"])
        return
    table = plain_table("all links", *WIRE_COLUMNS)
    for row in rows:
        for phase, links_used in row["wire"].items():
            table.add_row(row["operation"], phase, *wire_cells(links_used.values()))
    console.print(table)
