"""``tessera bench inference``: a network's predictions over processes, with where the time goes.

The offline phase ends before the online phase begins, and each is timed at the client.  Figures are those of a whole
batch; ``per_image`` has them divided.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from benchmarks.machine import machine
from benchmarks.report import kilobytes, milliseconds, plain_table, progress_bar, stdout_console
from benchmarks.session import Measured, Reals, as_predicted, measure, phases, session, spread
from mpc.errors import UsageError
from nn.derm import load_image, load_split, normalise, samples
from nn.derm.model import derm_model
from nn.model import Model
from parties import Client, RemoteModel
from parties.report import RunReport

MODELS: dict[str, Callable[[], Model]] = {"derm": derm_model}
WARM_UP = 5
"""Runs before those that count: they load kernels, fill caches and grow the processes' memory."""
REPEAT = 10


def run(options: argparse.Namespace) -> int:
    """Measure and print; the exit code."""
    if options.model not in MODELS:
        raise UsageError(f"there is no model {options.model!r} to measure: the known ones are {', '.join(MODELS)}")
    if options.data is not None and options.repeat is not None:
        raise UsageError("--repeat and --data exclude each other: with --data every batch of the file runs once")
    model = MODELS[options.model]()
    images, labels = test_images(options.data, options.batch)
    references = torch_references(images) if options.data is not None else {}
    with session(options.parties, options.security, options.timeout) as client:
        remote = client.upload(model, options.model)
        warm_up = images[: options.batch]
        for _ in range(WARM_UP):
            predict(client, remote, warm_up)
        total = len(images) if options.data is not None else REPEAT if options.repeat is None else options.repeat
        batches = _split(images, options.batch) if options.data is not None else (images for _ in range(total))
        with progress_bar("predicting", -(-total // options.batch) if options.data is not None else total) as advance:
            runs = []
            for batch in batches:
                runs.append(predict(client, remote, batch))
                advance()
    logits = np.concatenate([r.values for r in runs]) if options.data is not None else runs[-1].values
    # A last batch that is not full has figures of its own.
    reports = [r.report for r in runs if len(r.values) == len(runs[0].values)]
    summary = {
        "model": options.model,
        **agreement(logits, model.plain(images)),
        "parties": options.parties,
        "security": options.security,
        "batch": len(runs[0].values),
        "repeat": len(reports),
        **phases(reports),
        "per_image": _per_image(reports, len(runs[0].values)),
        "as_predicted": all(as_predicted(r.report) for r in runs),
        "breakdown": breakdown(reports),
        "layers": layers(reports),
        "machine": machine(),
    }
    if options.data is not None:
        summary["accuracy"] = float((logits.argmax(axis=1) == labels).mean())
        summary["torch"] = {name: agreement(logits, reference) for name, reference in references.items()}
    if options.json:
        print(json.dumps(summary))
    else:
        _print(summary)
    return 0


def test_images(data: Path | None, batch: int) -> tuple[Reals, Sequence[int]]:
    """The test split of ``data``, or the shipped images over and over until the batch is full; and their classes."""
    if data is not None:
        split = load_split(data, "test")
        return normalise(split.images), split.labels.tolist()
    shipped = samples()
    few = np.stack([load_image(sample.path) for sample in shipped[:batch]])
    return np.resize(few, (batch, *few.shape[1:])), [shipped[i % len(shipped)].label for i in range(batch)]


def _split(images: Reals, batch: int) -> Iterator[Reals]:
    return (images[start : start + batch] for start in range(0, len(images), batch))


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
    return {
        "images": len(logits),
        "agree": int((logits.argmax(axis=1) == reference.argmax(axis=1)).sum()),
        "max_abs_difference": float(np.abs(logits - reference).max()),
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


def layers(reports: Sequence[RunReport]) -> dict[str, dict[str, float]]:
    """Per layer: rounds, elements opened and dealt, median seconds of the slowest party online."""
    return {
        name: {
            "rounds": layer.rounds,
            "opened": layer.opened,
            "dealt": layer.dealt,
            "seconds": float(np.median([r.layers[name].seconds for r in reports])),
        }
        for name, layer in reports[0].layers.items()
        if name
    }


def _print(summary: dict[str, Any]) -> None:
    console = stdout_console()
    online, offline, batch = summary["online"], summary["offline"], summary["batch"]
    console.print(
        f"{summary['model']}, batch of {batch}, {summary['parties']} parties and a dealer, {summary['security']}:"
        f" {summary['repeat']} runs"
    )
    table = plain_table("phase", "rounds", "payload", "median", "min", "max", "per image")
    for name, rounds, payload, phase in (
        ("online", str(online["rounds"]), f"{kilobytes(online['bytes_per_party'])} from each party", online),
        ("offline", "", f"{kilobytes(offline['bytes'])} from the dealer", offline),
    ):
        times = phase["seconds"]
        row = [milliseconds(times[key]) for key in ("median", "min", "max")]
        table.add_row(name, rounds, payload, *row, milliseconds(times["median"] / batch))
    console.print(table)
    _print_breakdown(console, summary)
    _print_agreement(console, "the same in float64", summary)
    for name, result in summary.get("torch", {}).items():
        _print_agreement(console, f"torch, {name.replace('_', ' ')}", result)
    if "accuracy" in summary:
        console.print(f"accuracy {summary['accuracy']:.1%}")
    predicted = "as predicted" if summary["as_predicted"] else "[bold red]not as predicted[/]"
    console.print(f"Rounds and bytes are {predicted}.  Not for diagnosis.")


def _print_breakdown(console: Console, summary: dict[str, Any]) -> None:
    total = summary["online"]["seconds"]["median"]
    table = plain_table("online time", "rounds", "opened", "dealt", "median", "part")

    def row(name: str, seconds: float, *figures: float) -> None:
        counts = [f"{n:,}" for n in figures] or ["", "", ""]
        table.add_row(name, *counts, milliseconds(seconds), f"{seconds / total:.0%}")

    for name, layer in summary["layers"].items():
        row(f"compute {name}", layer["seconds"], layer["rounds"], layer["opened"], layer["dealt"])
    row("waiting for openings", summary["breakdown"]["waiting"]["median"])
    row("inputs, outputs, client", summary["breakdown"]["rest"]["median"])
    console.print(table)


def _print_agreement(console: Console, name: str, result: dict[str, Any]) -> None:
    console.print(
        f"{name}: {result['agree']} of {result['images']} predictions agree,"
        f" largest logit difference {result['max_abs_difference']:.1e}"
    )
