"""The demo's work: upload the model, predict each image, say what came out and what it cost."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.picture import Exhibit, draw
from benchmarks.report import kilobytes, milliseconds, plain_table, progress_bar, stdout_console
from benchmarks.session import Reals, bill, measure, phases, session
from benchmarks.shipped import Shipped, shipped
from mpc.errors import ConfigurationError, UsageError, unwritable
from mpc.rings.field import FieldArray
from nn.derm import Sample, class_probabilities
from nn.derm.reference import ASSETS
from parties.client.report import RunReport

NOTICE = "Not for diagnosis."

SHORT_NAMES = (
    "actinic keratosis",
    "basal cell carcinoma",
    "benign keratosis",
    "dermatofibroma",
    "melanoma",
    "melanocytic nevus",
    "vascular lesion",
)
"""Of the classes, in the order of ``nn.derm.CLASS_CODES``."""

PICTURED = 4


@dataclass(frozen=True)
class Prediction:
    """One image's way through the parties, and the same computed in the clear."""

    sample: Sample
    encrypted: Reals
    plain: Reals
    report: RunReport
    masked: FieldArray
    """What the client sent to every party."""
    mask: FieldArray
    """What the parties hold shares of; known to the client and the dealer."""
    fraction_bits: int
    """Of the encoded image."""

    @property
    def agrees(self) -> bool:
        return int(self.encrypted.argmax()) == int(self.plain.argmax())

    @property
    def difference(self) -> float:
        """The largest difference of a logit."""
        return float(np.abs(self.encrypted - self.plain).max())


def demonstrate(options: argparse.Namespace) -> int:
    """Run the demo; the exit code."""
    network = shipped(options.model, options.security)
    chosen = choose(network.images(), options.images or network.usual)
    if options.save_images is not None:
        print(save_images(chosen, options.save_images, as_json=options.json))
        return 0
    if options.picture is not None:
        check_picture(options.picture)
    predictions = _predict(network, chosen, options)
    if options.picture is not None:
        _draw(network, predictions, options.parties, options.picture)
    if options.json:
        print(json.dumps(_summary(network, predictions, options)))
        return 0
    _print(network, predictions, options)
    return 0


def check_picture(path: Path) -> None:
    """Raise ConfigurationError unless a PNG can be written there: known before the work, not after it."""
    if path.suffix.lower() != ".png":
        raise ConfigurationError(f"the picture {path} must be a PNG: give it a name that ends in .png")
    if not path.parent.is_dir():
        raise ConfigurationError(f"the picture's folder {path.parent} does not exist: make it, or name another")
    target = path if path.exists() else path.parent
    if path.is_dir() or not os.access(target, os.W_OK):
        raise ConfigurationError(f"the picture {path} cannot be written: name another path, or use --no-picture")


def save_images(chosen: Sequence[Sample], folder: Path, *, as_json: bool = False) -> str:
    """Copies of the shipped images, and the licence that goes with them; what to say.  Raises ConfigurationError."""
    files = [*(sample.path for sample in chosen), ASSETS / "LICENSE-data.md"]
    try:
        folder.mkdir(exist_ok=True)
        for file in files:
            shutil.copy(file, folder)
    except OSError as error:
        raise unwritable(f"the folder {folder}", error) from error
    if as_json:
        return json.dumps({"folder": str(folder), "files": [file.name for file in files]})
    return f"{len(chosen)} photographs are in {folder}: HAM10000 and ISIC 2018, CC BY-NC 4.0, see LICENSE-data.md there"


def choose(found: list[Sample], count: int | None) -> list[Sample]:
    """``count`` of the shipped images ``found``, of as many classes as possible; in class order."""
    if count is None:
        return found
    if count > len(found):
        raise UsageError(f"{count} images asked for, and {len(found)} are shipped: ask for at most {len(found)}")
    seen: dict[int, int] = {}
    ranks = []
    for sample in found:
        ranks.append(seen.get(sample.label, 0))
        seen[sample.label] = ranks[-1] + 1
    first = sorted(range(len(found)), key=lambda i: (ranks[i], i))[:count]
    return [found[i] for i in sorted(first)]


def _predict(network: Shipped, chosen: Sequence[Sample], options: argparse.Namespace) -> list[Prediction]:
    model = network.make()
    predictions = []
    with (
        progress_bar("starting the dealer and the parties", len(chosen)) as progress,
        session(options.parties, options.security, options.timeout, network.objective) as client,
    ):
        progress.describe("uploading the model as shares")
        remote = client.upload(model, network.name)
        progress.describe("warming up")
        for _ in range(network.warm_up):
            measure(client, remote(client.share(network.input.load(chosen[0].path)[None], low=-1.0, high=1.0)))
        progress.describe("predicting on shares")
        for sample in chosen:
            image = network.input.load(sample.path)[None]
            secret = client.share(image, low=-1.0, high=1.0, name=sample.id)
            run = client.prepare(remote(secret))
            values = np.asarray(client.finish(run))[0]
            masked, mask = run.masked_inputs()[0][0], run.input_masks[0][0]
            bits = secret.type.fraction_bits
            predictions.append(Prediction(sample, values, model.plain(image)[0], bill(client), masked, mask, bits))
            progress()
    return predictions


def _draw(network: Shipped, predictions: Sequence[Prediction], parties: int, path: Path) -> None:
    places = np.linspace(0, len(predictions) - 1, min(PICTURED, len(predictions))).round().astype(int)
    exhibits = [
        Exhibit(
            p.sample.path,
            p.sample.label,
            class_probabilities(p.encrypted[None])[0],
            p.masked,
            p.mask,
            p.fraction_bits,
            network.input,
        )
        for p in (predictions[i] for i in places)
    ]
    draw(exhibits, parties, SHORT_NAMES, NOTICE, path)


def _summary(network: Shipped, predictions: Sequence[Prediction], options: argparse.Namespace) -> dict[str, Any]:
    return {
        "model": network.name,
        "images": len(predictions),
        "agree": sum(p.agrees for p in predictions),
        "max_abs_difference": max(p.difference for p in predictions),
        "parties": options.parties,
        "security": options.security,
        **phases([p.report for p in predictions], lambda seconds: float(np.median(seconds))),
    }


def _print(network: Shipped, predictions: Sequence[Prediction], options: argparse.Namespace) -> None:
    console = stdout_console()
    summary = _summary(network, predictions, options)
    answers = ("true class", "encrypted prediction", "plaintext prediction")
    table = plain_table("image", *answers, "largest logit\ndifference")
    for column in table.columns[1:4]:
        column.justify = "left"
    for p in predictions:
        table.add_row(
            p.sample.id,
            SHORT_NAMES[p.sample.label],
            _answer(p.encrypted),
            _answer(p.plain) if p.agrees else f"[bold red]{_answer(p.plain)}[/]",
            f"{p.difference:.1e}",
        )
    console.print(table)
    right = sum(int(p.encrypted.argmax()) == p.sample.label for p in predictions)
    console.print(
        f"{summary['agree']} of {summary['images']} encrypted predictions are the plaintext ones"
        f" (largest logit difference {summary['max_abs_difference']:.1e}); {right} are the true class.\n"
    )
    online, offline = summary["online"], summary["offline"]
    costs = plain_table("per image", "rounds", "payload", "median time")
    costs.add_row("offline, before the image is there", "", f"{kilobytes(offline['bytes'])} from the dealer",
                  milliseconds(offline["seconds"]))  # fmt: skip
    costs.add_row("online", str(online["rounds"]), f"{kilobytes(online['bytes_per_party'])} from each party",
                  milliseconds(online["seconds"]))  # fmt: skip
    console.print(costs)
    console.print(f"{options.parties} parties and a dealer on this machine, {options.security} security.")
    if options.picture is not None:
        console.print(
            f"What each party held of it, noise, and what all of them together make of that, the photograph:"
            f" {options.picture}",
            soft_wrap=True,
        )
    console.print(f"[bold]{NOTICE}[/]")
    sys.stdout.flush()


def _answer(logits: Reals) -> str:
    p = class_probabilities(logits[None])[0]
    return f"{SHORT_NAMES[int(p.argmax())]} ({p.max():.0%})"
