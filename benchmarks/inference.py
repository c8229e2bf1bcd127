"""``tessera bench inference``: a network's predictions over processes, with where the time goes.

The offline phase ends before the online phase begins, and each is timed at the client.  Figures are those of a whole
batch; ``per_image`` has them divided.  Rounds and payload stand beside what was predicted before anything ran, and
beside them, link by link, what TCP carried for it.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, repeat
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from benchmarks.machine import machine
from benchmarks.models import SHIPPED, Subject, derm, subject
from benchmarks.prediction import predicted
from benchmarks.records import Recorder, flatten, spread
from benchmarks.report import kilobytes, megabytes, milliseconds, plain_table, progress_bar, stdout_console
from benchmarks.session import (
    Measured,
    Reals,
    as_predicted,
    links,
    measure,
    memory_session,
    phases,
    print_links,
    resources,
    warn_without_wire,
    watched_session,
)
from benchmarks.shipped import LESION
from mpc.errors import UsageError
from mpc.security import Security
from nn.derm import load_split, normalise, samples
from nn.preprocessing import ImageInput
from parties import Client, RemoteModel
from parties.client.report import RunReport

WARM_UP = 5
"""Runs before those that count: they load kernels, fill caches and grow the processes' memory."""
REPEAT = 10
LOOKED_AT = 16
"""Photographs at a time, in float64."""
KEPT = ("online", "offline", "wire", "breakdown", "layers", "resources", "agree", "images", "difference")
"""Parts of the summary that are kept as figures."""


def run(options: argparse.Namespace) -> int:
    """Measure and print; the exit code."""
    recorder = Recorder.of(options)
    chosen = subject(options)
    if options.data is not None:
        if options.repeat is not None:
            raise UsageError("--repeat and --data exclude each other: with --data every batch of the file runs once")
        if chosen.weights != SHIPPED:
            raise UsageError("--data holds images for a network that ships: leave out --torch and --side")
    elif options.images is not None or options.closest:
        raise UsageError("--images and --closest are of --data: name its file")
    summary = measured(chosen, options)
    case = chosen.case(options.batch, options.parties, options.security) | {"objective": options.objective}
    if options.data is None:
        recorder.add("inference", case, flatten(summary, *KEPT))
    else:
        where: dict[str, Any] = {"data": options.data.name, "closest": options.closest, "memory": options.memory}
        if options.images is not None:
            where["images"] = f"{options.images.start}:{options.images.stop}"
        recorder.add("inference", case | where, flatten(summary, *KEPT, "accuracy", "lead", "torch"))
    if options.json:
        recorder.print_json(summary)
    else:
        _print(summary)
    return recorder.finish()


def measured(chosen: Subject, options: argparse.Namespace) -> dict[str, Any]:
    """Warm-up runs, then those that count: ``options.repeat`` of one batch, or every batch of ``options.data``."""
    if options.data is None:
        images = chosen.inputs(options.batch)
        runs = _runs(chosen, options, [images] * (options.repeat or REPEAT))
        return _summary(chosen, options, runs, [chosen.model.plain(images)] * len(runs))
    split = chosen.shipped.load(options.data, "test")
    some = slice(None) if options.images is None else options.images
    order = _closest(chosen, split.images) if options.closest else np.arange(len(split.images))
    pixels, labels = split.images[order[some]], split.labels[order[some]]
    if not len(pixels):
        raise UsageError(f"--images {some.start}:{some.stop} of a test split of {len(split.images)}: it has no such")
    batches = _Batches(chosen.shipped.input, pixels, options.batch)
    runs = _runs(chosen, options, batches)
    summary = _summary(chosen, options, runs, [chosen.model.plain(batch) for batch in batches])
    logits = np.concatenate([r.values for r in runs])
    summary["accuracy"] = float((logits.argmax(axis=1) == labels).mean())
    references = {} if chosen.shipped is LESION else torch_references(np.concatenate(list(batches)))
    summary["torch"] = {name: agreement(logits, reference) for name, reference in references.items()}
    return summary


def _closest(chosen: Subject, pixels: NDArray[np.uint8]) -> NDArray[np.intp]:
    """Their order by how little the likeliest class leads, in float64."""
    logits = np.concatenate([chosen.model.plain(each) for each in _Batches(chosen.shipped.input, pixels, LOOKED_AT)])
    return np.argsort(np.diff(np.sort(logits, axis=1)[:, -2:])[:, 0], kind="stable")


@dataclass(frozen=True)
class _Batches(Sequence[Reals]):
    """Photographs (N, H, W, 3) as inputs, a batch at a time: of all together they take many times their pixels."""

    takes: ImageInput
    pixels: NDArray[np.uint8]
    size: int

    def __len__(self) -> int:
        return -(-len(self.pixels) // self.size)

    def __getitem__(self, number: Any) -> Any:
        if number >= len(self):
            raise IndexError(number)
        pixels = self.pixels[number * self.size : (number + 1) * self.size]
        return self.takes.normalise(pixels)


def _runs(chosen: Subject, options: argparse.Namespace, batches: Sequence[Reals]) -> list[Measured]:
    runs = []
    with (
        progress_bar("predicting", len(batches)) as advance,
        (memory_session if options.memory else watched_session)(
            options.parties, options.security, options.timeout, options.objective
        ) as session,
    ):
        warn_without_wire(session)
        remote = session.client.upload(chosen.model, "measured")
        for i, batch in enumerate(chain(repeat(batches[0], WARM_UP), batches)):
            secret = session.client.share(batch, low=chosen.low, high=chosen.high, name="inputs")
            run = session.measure(remote(secret))
            if i >= WARM_UP:
                runs.append(run)
                advance()
    return runs


def _summary(
    chosen: Subject, options: argparse.Namespace, runs: Sequence[Measured], plain: Sequence[Reals]
) -> dict[str, Any]:
    """The figures; ``plain`` are the results in float64, run by run."""
    batch = len(runs[0].values)
    # A last batch that is not full has figures of its own.
    full = [r for r in runs if len(r.values) == batch]
    reports = [r.report for r in full]
    measured = phases(reports)
    measured["online"]["client_bytes"] = reports[0].sent("online", reports[0].client).payload
    expected = predicted(chosen.cost(batch, options.parties, Security(options.security), options.objective), batch)
    as_expected = all(measured[phase][name] == n for phase in measured for name, n in expected[phase].items())
    repeated = plain[0] is plain[-1]
    values, references = ([runs[-1].values], plain[-1:]) if repeated else ([r.values for r in runs], plain)
    return {
        **chosen.case(batch, options.parties, options.security),
        **agreement(np.concatenate(values), np.concatenate(references)),
        "difference": spread([float(np.abs(r.values - p).max()) for r, p in zip(runs, plain, strict=True)]),
        "repeat": len(reports),
        **measured,
        "wire": links(full),
        "per_image": _per_image(reports, batch),
        "predicted": {phase: expected[phase] for phase in measured},
        "as_predicted": as_expected and all(as_predicted(r.report) for r in runs),
        "breakdown": breakdown(reports),
        "layers": layers(reports),
        "resources": resources(full),
        "machine": machine(),
    }


def test_images(data: Path | None, batch: int) -> tuple[Reals, Sequence[int]]:
    """The test split of ``data``, or the shipped images over and over until the batch is full; and their classes."""
    if data is not None:
        split = load_split(data, "test")
        return normalise(split.images), split.labels.tolist()
    shipped = samples()
    return derm().inputs(batch), [shipped[i % len(shipped)].label for i in range(batch)]


def predict(client: Client, remote: RemoteModel, images: Reals) -> Measured:
    return measure(client, remote(client.share(images, low=-1.0, high=1.0, name="images")))


def torch_references(images: Reals) -> dict[str, Reals]:
    """Logits of the same network in torch, float32: with the approximation that the parties evaluate, and exact."""
    try:
        import torch

        from nn.derm.torch_model import build_torch
    except ImportError as error:
        raise UsageError(f"--data compares with torch ({error}): install tessera-mpc[torch]") from error
    inputs = torch.from_numpy(images.astype(np.float32))
    with torch.no_grad():
        return {
            name: build_torch(exact_sigmoid=exact)(inputs).numpy().astype(np.float64)
            for name, exact in (("approximation", False), ("exact_sigmoid", True))
        }


def agreement(logits: Reals, reference: Reals) -> dict[str, Any]:
    """How many have the same class, and the largest difference of a logit; ``lead``: of the others, by how much the
    reference prefers its class to the one that was answered, at most.
    """
    answered = logits.argmax(axis=1)
    leads = reference.max(axis=1) - reference[np.arange(len(answered)), answered]
    return {
        "images": len(logits),
        "agree": int((answered == reference.argmax(axis=1)).sum()),
        "max_abs_difference": float(np.abs(logits - reference).max()),
        "lead": float(leads.max()),
    }


def _per_image(reports: Sequence[RunReport], batch: int) -> dict[str, float]:
    return {
        "online_bytes_per_party": reports[0].online.bytes / batch,
        "offline_bytes": reports[0].offline.bytes / batch,
        "online_seconds": float(np.median([r.online.seconds for r in reports])) / batch,
        "offline_seconds": float(np.median([r.offline.seconds for r in reports])) / batch,
    }


def breakdown(reports: Sequence[RunReport]) -> dict[str, dict[str, float]]:
    """Where the online seconds go.

    ``compute``: layer by layer, the slowest party.  ``waiting``: for the other parties' openings, at the party that
    waited longest, their transport included.  ``rest``: inputs to the parties, outputs back, and the client's own part.
    """
    compute = [sum(layer.seconds for layer in r.layers.values()) for r in reports]
    waiting = [r.wait_seconds for r in reports]
    rest = [max(0.0, r.online.seconds - c - w) for r, c, w in zip(reports, compute, waiting, strict=True)]
    return {"compute": spread(compute), "waiting": spread(waiting), "rest": spread(rest)}


def layers(reports: Sequence[RunReport]) -> dict[str, dict[str, Any]]:
    """Per layer: rounds, elements opened and dealt, bytes sent, and seconds of the slowest party online."""
    return {
        name: {
            "rounds": layer.rounds,
            "opened": layer.opened,
            "dealt": layer.dealt,
            "bytes_per_party": layer.bytes,
            "seconds": spread([r.layers[name].seconds for r in reports]),
        }
        for name, layer in reports[0].layers.items()
        if name
    }


def _print(summary: dict[str, Any]) -> None:
    console = stdout_console()
    online, offline, batch = summary["online"], summary["offline"], summary["batch"]
    shape = "x".join(map(str, summary["shape"]))
    console.print(
        f"{summary['model']} ({shape}, weights: {summary['weights']}), batch of {batch},"
        f" {summary['parties']} parties and a dealer, {summary['security']}: {summary['repeat']} runs"
    )
    expected = summary["predicted"]
    table = plain_table("phase", "rounds", "predicted", "payload", "predicted", "median", "min", "max", "per image")
    for name, rounds, payload, phase in (
        ("online, each party", [online["rounds"], expected["online"]["rounds"]], "bytes_per_party", online),
        ("offline, the dealer", ["", ""], "bytes", offline),
    ):
        times = phase["seconds"]
        row = [milliseconds(times[key]) for key in ("median", "min", "max")]
        sizes = [f"{x[payload]:,} B" for x in (phase, expected[name.partition(",")[0]])]
        figures = (str(rounds[0]), str(rounds[1]), *sizes, *row, milliseconds(times["median"] / batch))
        table.add_row(name, *figures)
    console.print(table)
    _print_breakdown(console, summary)
    _print_resources(console, summary["resources"])
    print_links(console, summary["wire"])
    if summary["weights"] == SHIPPED or "accuracy" in summary:
        _print_agreement(console, "the same in float64", summary)
    else:
        console.print(f"largest difference to the same in float64 {summary['difference']['max']:.1e}")
    for name, result in summary.get("torch", {}).items():
        _print_agreement(console, f"torch, {name.replace('_', ' ')}", result)
    if "accuracy" in summary:
        console.print(f"accuracy {summary['accuracy']:.1%}")
    verdict = "as predicted" if summary["as_predicted"] else "[bold red]not as predicted[/]"
    console.print(f"Rounds, messages and bytes are {verdict}.  Not for diagnosis.")


def _print_breakdown(console: Console, summary: dict[str, Any]) -> None:
    total = summary["online"]["seconds"]["median"]
    table = plain_table("online time", "rounds", "opened", "dealt", "sent per party", "median", "part")

    def row(name: str, seconds: float, *figures: str) -> None:
        table.add_row(name, *(figures or ("",) * 4), milliseconds(seconds), f"{seconds / total:.0%}")

    for name, layer in summary["layers"].items():
        counts = [f"{layer[figure]:,}" for figure in ("rounds", "opened", "dealt")]
        row(f"compute {name}", layer["seconds"]["median"], *counts, kilobytes(layer["bytes_per_party"]))
    row("waiting for openings", summary["breakdown"]["waiting"]["median"])
    row("inputs, outputs, client", summary["breakdown"]["rest"]["median"])
    console.print(table)


def _print_resources(console: Console, usage: dict[str, dict[str, Any]]) -> None:
    table = plain_table("process", "CPU online", "CPU offline", "peak memory online", "peak memory offline")
    for name, online in usage["online"].items():
        both = (online, usage["offline"][name])
        cpu = [milliseconds(phase["cpu_seconds"]["median"]) for phase in both]
        table.add_row(name, *cpu, *(megabytes(phase["peak_bytes"]["max"]) for phase in both))
    console.print(table)


def _print_agreement(console: Console, name: str, result: dict[str, Any]) -> None:
    console.print(
        f"{name}: {result['agree']} of {result['images']} predictions agree,"
        f" largest logit difference {result['max_abs_difference']:.1e}"
        + (f"; the others are ties but for {result['lead']:.1e}" if result["agree"] < result["images"] else "")
    )
