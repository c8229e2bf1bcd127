"""A small convolutional network is trained whole, from its start, on three hospitals' lesions: ``--example cnn``.

It is the dermatology CNN: two convolutions and two layers, with sigmoids.  Beside it the twin makes the same steps in
the clear, in float64 (``benchmarks.twin``); so that both can be compared, each hospital lets the study reveal the
weights at the end.  Of 28x28 pixels with ``--data``, else of the 7x7 that ship.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from benchmarks.hospitals import (
    BATCH,
    COORDINATOR,
    HOSPITALS,
    KINDS,
    Lesions,
    allowed,
    followed,
    lesions,
    on_shares,
    spread,
    stored,
    together,
)
from benchmarks.machine import machine
from benchmarks.report import print_json, stdout_console
from benchmarks.session import as_predicted
from mpc.errors import ConfigurationError
from nn.activations import Sigmoid
from nn.architecture import Architecture, Sequential
from nn.layers import AvgPool2d, Conv2d, Flatten, Linear
from nn.losses import CrossEntropyLoss
from nn.optimizers import SGD
from nn.training import initial
from parties import AsyncClient, LocalCluster
from parties.client.progress import Progress
from parties.client.training import Training

Reals = npt.NDArray[np.float64]

EPOCHS, FEW = 2, 320
"""Of all lesions, or of about so many."""
CHANNELS, HIDDEN = (3, 16, 32), 64
INTERVAL = (-8.0, 8.0)
OPTIMIZER, LOSS = SGD(lr=0.01, momentum=0.9), CrossEntropyLoss()


class Trained(NamedTuple):
    """On shares: the training, what it revealed on the way, and at the end the weights."""

    training: Training
    progress: Sequence[Progress]
    weights: dict[str, Reals]


def network(side: int) -> Architecture:
    """Of pictures (3, side, side)."""
    layers: dict[str, Any] = {}
    for i, (before, after) in enumerate(pairwise(CHANNELS), start=1):
        layers |= {f"conv{i}": Conv2d(before, after, 3, padding=1), f"act{i}": Sigmoid(interval=INTERVAL)}
        layers[f"pool{i}"] = AvgPool2d(2)
    wide = CHANNELS[-1] * (side // 4) ** 2
    layers |= {"flatten": Flatten(), "fc1": Linear(wide, HIDDEN), "act3": Sigmoid(interval=INTERVAL)}
    return Sequential(layers | {"fc2": Linear(HIDDEN, KINDS)}).architecture((3, side, side))


def pictures(some: Lesions) -> Lesions:
    """As (N, 3, side, side)."""
    side = round((some.x.shape[1] / 3) ** 0.5)
    return Lesions(np.ascontiguousarray(some.x.reshape(-1, side, side, 3).transpose(0, 3, 1, 2)), some.kinds)


def few(some: Lesions, count: int) -> Lesions:
    """About so many, of each kind its part."""
    return some.at(np.sort(np.argsort(some.kinds, kind="stable")[:: max(1, len(some.kinds) // count)]))


async def encrypted(
    architecture: Architecture, data: Sequence[Lesions], cluster: LocalCluster, told: Callable[[Progress], None]
) -> Trained:
    """Hospitals store their pictures, let the study train on them, and reveal what it has come to."""
    async with AsyncClient(cluster, name=COORDINATOR) as study:
        await stored(cluster, data, (-0.5, 0.5))
        sets = [await study.data(f"{name}/lesions") for name in HOSPITALS]
        training = await study.training(
            architecture, sets, LOSS, OPTIMIZER, name="network", batch=BATCH, epochs=EPOCHS, losses=True
        )
        progress = await followed(study, training, cluster, told)
        names = list(architecture.stored_shapes)
        model = await study.model("network")
        await allowed(cluster, f"{COORDINATOR}/network", [study.digest([model[name] for name in names])])
        model = await study.model("network")
        found = await study.reveal([model[name] for name in names])
    return Trained(training, progress, dict(zip(names, found, strict=True)))


def twin(
    architecture: Architecture, start: Mapping[str, Reals], data: Sequence[Lesions], training: Training
) -> tuple[Any, list[float]]:
    """The same steps in the clear, and the mean loss up to each checkpoint.  Raises ConfigurationError."""
    try:
        from benchmarks.twin import Twin
    except ImportError:
        raise ConfigurationError("a twin in the clear takes PyTorch: pip install 'tessera-mpc[torch]'") from None
    found, losses = Twin(architecture, start, OPTIMIZER), list[float]()
    for checkpoint in range(training.checkpoints):
        made = []
        for number, drawn in enumerate(training.drawn(checkpoint), checkpoint * training.steps):
            batch = together(data, drawn)
            made.append(found.step(number, batch.x, batch.y))
        losses.append(float(np.mean(made)))
    return found, losses


def run(options: argparse.Namespace) -> int:
    """Trains on shares and in the clear, and prints by how much they differ; the exit code."""
    train = pictures(lesions(options.data)[0])
    train = few(train, FEW) if options.quick else train
    data = [train.at(mine) for mine in spread(train.kinds)]
    architecture, began = network(train.x.shape[-1]), time.perf_counter()
    made = on_shares(options, EPOCHS * len(train.kinds) // BATCH, partial(encrypted, architecture, data))
    weights = initial(architecture)
    clear, losses = twin(architecture, weights, data, made.training)
    layout, start = architecture.tensors(clear.weights), architecture.tensors(weights)
    last = made.progress[-1]
    found = [each.loss for each in made.progress if each.loss is not None]
    summary = {
        "example": "cnn",
        "lesions": [len(own.kinds) for own in data],
        "side": train.x.shape[-1],
        "steps": last.step,
        "losses": [found[0], found[-1]],
        "loss_off": float(np.abs(np.subtract(found, losses)).max()),
        "weights_off": max(float(np.abs(w - layout[name].values).max()) for name, w in made.weights.items()),
        "moved": max(float(np.abs(w - start[name].values).max()) for name, w in made.weights.items()),
        "seconds": last.seconds,
        "wall_seconds": time.perf_counter() - began,
        "as_predicted": all(p.report is not None and as_predicted(p.report) for p in made.progress),
        "security": options.security,
        "parties": options.parties,
        "machine": machine(),
    }
    if options.json:
        print_json(summary)
    else:
        _print(summary)
    return 0


def _print(summary: dict[str, Any]) -> None:
    console, steps, seconds = stdout_console(), summary["steps"], summary["seconds"]
    console.print(
        f"{steps:,} steps of {BATCH} lesions of {summary['side']}x{summary['side']} pixels in {seconds:.0f} s,"
        f" {seconds / steps:.2f} s each; loss {summary['losses'][0]:.3f} to {summary['losses'][1]:.3f}."
    )
    console.print(
        f"Beside the same steps in float64: losses differ by up to {summary['loss_off']:.1e}, weights by up to"
        f" {summary['weights_off']:.1e}, of which some have moved by {summary['moved']:.2f}."
    )
    console.print("Nobody has seen a lesion. Not for diagnosis.")
