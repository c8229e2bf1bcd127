"""``tessera bench scale``: how time, bytes and memory of the dermatology CNN grow with the batch and the image's side.

Batches are streamed in chunks, as ``Client.predict`` does it, so that their dealing and their online phases overlap:
``seconds`` is what the caller waits for, and less than the sum of ``online.seconds`` and ``offline.seconds``.  Every
point has a dealer and parties of its own, because a process keeps memory that a larger point before it has needed; the
client is the benchmark's own process.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np

from benchmarks.machine import machine
from benchmarks.models import Subject, derm
from benchmarks.processes import Usage, used
from benchmarks.records import Figure, Recorder, flatten, spread
from benchmarks.report import plain_table, progress_bar, stdout_console
from benchmarks.session import Session, as_predicted, phases, watched_session
from mpc.errors import NoAnswer, UsageError
from nn.derm.model import INPUT_SHAPE
from parties.client.prepared import Reals
from parties.client.remote_model import RemoteModel
from parties.client.report import RunReport
from parties.client.streaming import fitting
from protocols import RangeWarning

FITTED: dict[str, str] = {
    "seconds": "time",
    "online.seconds": "online time",
    "offline.seconds": "offline time",
    "online.bytes_per_party": "bytes online, each party",
    "offline.bytes": "bytes offline, dealer",
    "peak_bytes.dealer": "peak memory, dealer",
    "peak_bytes.party": "peak memory, parties",
}
"""Figures whose growth is fitted, and what they are called."""


SIDE = INPUT_SHAPE[1]
"""Of the images in a batch."""
FEWEST_POINTS = 3
"""Of a fit."""


@dataclass(frozen=True)
class Fit:
    """``y = factor * x ** exponent``, by least squares of the logarithms."""

    exponent: float
    factor: float
    least: float
    greatest: float
    """The range of x that it was fitted on."""
    deviation: float
    """By which factor, at most, a point lies beside the line."""


class _Prediction(NamedTuple):
    """One streamed batch."""

    seconds: float
    report: RunReport
    usage: dict[str, Usage]


def run(options: argparse.Namespace) -> int:
    """Measure and print; the exit code."""
    recorder = Recorder.of(options)
    for name, values in (("--batches", options.batches), ("--sides", options.sides)):
        if sorted(set(values)) != values:
            raise UsageError(f"{name} must grow, each value once: smaller ones first")
    summary: dict[str, Any] = {
        "model": "derm",
        "parties": options.parties,
        "security": options.security,
        "repeat": options.repeat,
    }
    with progress_bar("measuring", len(options.batches) + len(options.sides)) as advance:

        def point(side: int, batch: int) -> dict[str, Any]:
            measured = _point(derm(side), batch, options, recorder)
            advance()
            return measured

        summary["batches"] = [point(SIDE, batch) for batch in options.batches]
        summary["sides"] = [point(side, 1) for side in options.sides]
    streamed = [point for point in summary["batches"] if point["batch"] > point["chunk"]]
    summary["fits"] = {
        "batch": growth(summary["batches"], lambda point: float(point["batch"])),
        "streamed batch": growth(streamed, lambda point: float(point["batch"])),
        "side": growth(summary["sides"], lambda point: float(point["shape"][-1])),
    }
    for name, fits in summary["fits"].items():
        case = {"model": "derm", "parties": options.parties, "security": options.security, "fit": name}
        for figure, fit in fits.items():
            extent = {"figure": figure, "range": [fit["least"], fit["greatest"]]}
            recorder.add("scale", {**case, **extent}, flatten(fit, "exponent", "deviation"))
    summary["machine"] = machine()
    if options.json:
        recorder.print_json(summary)
    else:
        _print(summary)
    return recorder.finish()


def _point(chosen: Subject, batch: int, options: argparse.Namespace, recorder: Recorder) -> dict[str, Any]:
    """A batch in a cluster of its own: one chunk to warm up, then ``options.repeat`` times."""
    images = chosen.inputs(batch)
    with watched_session(options.parties, options.security, options.timeout) as session:
        remote = session.client.upload(chosen.model, "measured")
        chunk = min(batch, options.chunk or fitting(remote, chosen.shape))
        _predict(session, remote, images[:chunk], chunk)
        done = []
        for _ in range(options.repeat):
            session.processes.start()
            started = time.perf_counter()
            _predict(session, remote, images, chunk)
            seconds = time.perf_counter() - started
            report = session.client.last_run
            if report is None:
                raise UsageError("the predictions left no report")
            done.append(_Prediction(seconds, report, session.processes.usage()))
    usage = used([p.usage for p in done])
    parties = [process["peak_bytes"] for name, process in usage.items() if name.startswith("party")]
    point = {
        **chosen.case(batch, options.parties, options.security),
        "chunk": chunk,
        "seconds": spread([p.seconds for p in done]),
        "images_per_second": spread([batch / p.seconds for p in done]),
        **phases([p.report for p in done]),
        "peak_bytes": {
            "dealer": usage["dealer"]["peak_bytes"],
            "party": max(parties, key=lambda peak: peak["median"]),
            "client": usage["client"]["peak_bytes"],
        },
        "resources": usage,
        "as_predicted": all(as_predicted(p.report) for p in done),
    }
    case = {**chosen.case(batch, options.parties, options.security), "chunk": chunk}
    figures = flatten(point, "seconds", "images_per_second", "online", "offline", "peak_bytes", "resources")
    recorder.add("scale", case, figures)
    return point


def _predict(session: Session, model: RemoteModel, images: Reals, chunk: int) -> None:
    """Whether images of other sizes than the network was made for have an answer or not: they cost the same."""
    with contextlib.suppress(NoAnswer), warnings.catch_warnings():
        warnings.simplefilter("ignore", RangeWarning)
        session.client.predict(model, images, chunk=chunk)


def growth(points: Sequence[dict[str, Any]], x: Callable[[dict[str, Any]], float]) -> dict[str, dict[str, float]]:
    """A ``Fit`` of each figure of ``FITTED`` over the points; nothing from too few to show how well it fits."""
    if len(points) < FEWEST_POINTS:
        return {}
    figures = [flatten(point, "seconds", "online", "offline", "peak_bytes") for point in points]
    xs = [x(point) for point in points]
    return {name: asdict(fit(xs, [_number(row[name]) for row in figures])) for name in FITTED}


def _number(figure: Figure) -> float:
    return float(figure) if isinstance(figure, int | float) else figure["median"]


def fit(xs: Sequence[float], ys: Sequence[float]) -> Fit:
    """The power law nearest to positive points, of which there are at least two with different x."""
    logs = np.log(np.asarray([xs, ys], dtype=np.float64))
    exponent, offset = np.polyfit(logs[0], logs[1], 1)
    residuals = logs[1] - (exponent * logs[0] + offset)
    return Fit(float(exponent), math.exp(offset), min(xs), max(xs), math.exp(float(np.abs(residuals).max())))


def _print(summary: dict[str, Any]) -> None:
    console = stdout_console()
    console.print(
        f"derm, {summary['parties']} parties and a dealer, {summary['security']}; medians of {summary['repeat']},"
        " each point with a dealer and parties of its own"
    )
    for series, heading in (("batches", "batch"), ("sides", "side")):
        if not summary[series]:
            continue
        headings = "chunk", "ms", "min", "max", "images/s", "online ms", "sent MB", "dealt MB"
        table = plain_table(heading, *headings, "dealer MB", "party MB", "client MB")
        for point in summary[series]:
            low, middle, high = (1e3 * point["seconds"][key] for key in ("min", "median", "max"))
            sizes = [point["online"]["bytes_per_party"], point["offline"]["bytes"]]
            peaks = [point["peak_bytes"][name]["max"] for name in ("dealer", "party", "client")]
            table.add_row(
                str(point["batch"] if heading == "batch" else point["shape"][-1]),
                str(point["chunk"]),
                *(f"{value:,.0f}" for value in (middle, low, high)),
                f"{point['images_per_second']['median']:.1f}",
                f"{1e3 * point['online']['seconds']['median']:,.0f}",
                *(f"{size / 1e6:,.1f}" for size in sizes),
                *(f"{peak / 1e6:,.0f}" for peak in peaks),
            )
        console.print(table)
    for name, fits in summary["fits"].items():
        for figure, fitted in fits.items():
            console.print(
                f"{FITTED[figure]} ~ {name}^{fitted['exponent']:.2f}, fitted on {name} {fitted['least']:g} to"
                f" {fitted['greatest']:g}, within a factor of {fitted['deviation']:.2f}"
            )
    points = [*summary["batches"], *summary["sides"]]
    verdict = "as predicted" if all(point["as_predicted"] for point in points) else "[bold red]not as predicted[/]"
    console.print(f"Rounds and bytes are {verdict}.")
    console.print(
        "Sent: by each party, online.  Of each process: its peak of physical memory.  Chunks overlap: time is less than"
        " online and offline together."
    )
