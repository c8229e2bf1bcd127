"""``tessera bench training``: steps of training on shares, from checkpoint to checkpoint, over processes.

The data is random, and what a step takes does not depend on it; targets are the same for all rows, so that a network
has nothing to learn, and stays in its range however many steps are made.  ``seconds`` are of the steps themselves;
``wall_seconds`` of all that is between one checkpoint and the next: dealing, and writing the network down at all
parties, too.  ``memory`` is the most that each process occupied at the checkpoints of the first and of the second half.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from statistics import median
from typing import Any, NamedTuple

import numpy as np

from benchmarks.machine import machine
from benchmarks.peers import training as beside
from benchmarks.records import Recorder, flatten
from benchmarks.report import kilobytes, megabytes, milliseconds, plain_table, progress_bar, stdout_console
from benchmarks.session import as_predicted, watched_session
from mpc.errors import UsageError
from mpc.tensor_type import Shape
from nn.activations import Sigmoid
from nn.architecture import Architecture, Sequential
from nn.layer import Layer
from nn.layers import AvgPool2d, Conv2d, Flatten, Linear
from nn.losses import CrossEntropyLoss
from nn.optimizers import SGD
from nn.rectifiers import ReLU
from parties import Client, DataSet
from parties.client.progress import Progress

INTERVAL = (-8.0, 8.0)
"""Of sigmoids."""


class Case(NamedTuple):
    """What is trained: numbers in [0, 1], of 8 bits, ``shape`` of them in a row, to ``classes``."""

    shape: Shape
    classes: int
    batch: int
    make: Callable[[], Sequential]
    logits: float = 2.0

    @property
    def architecture(self) -> Architecture:
        """As data."""
        return self.make().architecture(self.shape)


def _mlp() -> Sequential:
    layers = {"a": Linear(784, 128), "relu_a": ReLU(), "b": Linear(128, 128), "relu_b": ReLU(), "out": Linear(128, 10)}
    return Sequential(layers)


def _sigmoid() -> Sigmoid:
    """On its interval, which values are watched to stay in."""
    return Sigmoid(interval=INTERVAL)


def _two_layers() -> Sequential:
    return Sequential({"a": Linear(784, 64), "sigmoid": _sigmoid(), "out": Linear(64, 7)})


def _cnn(activation: Callable[[], Layer], *, pooled_first: bool = False) -> Sequential:
    """The dermatology CNN, or one of its shape."""
    layers = dict[str, Layer]()
    for i, (before, after) in enumerate(((3, 16), (16, 32)), start=1):
        layers[f"conv{i}"] = Conv2d(before, after, 3, padding=1)
        both = {f"act{i}": activation(), f"pool{i}": AvgPool2d(2)}
        layers |= dict(reversed(both.items())) if pooled_first else both
    layers |= {"flatten": Flatten(), "fc1": Linear(1568, 64), "act3": activation(), "fc2": Linear(64, 7)}
    return Sequential(layers)


CASES: Mapping[str, Case] = {
    "softmax": Case((1280,), 7, 32, lambda: Sequential({"out": Linear(1280, 7)})),
    "sigmoid": Case((784,), 7, 32, _two_layers),
    "mlp": Case((784,), 10, 128, _mlp),
    "cnn-sigmoid": Case((3, 28, 28), 7, 32, lambda: _cnn(_sigmoid)),
    "cnn-sigmoid-pooled": Case((3, 28, 28), 7, 32, lambda: _cnn(_sigmoid, pooled_first=True)),
    "cnn-relu": Case((3, 28, 28), 7, 32, lambda: _cnn(ReLU)),
    "cnn-relu-pooled": Case((3, 28, 28), 7, 32, lambda: _cnn(ReLU, pooled_first=True)),
}
"""A softmax regression on the features of a large network; networks of one hidden layer and of two; and the dermatology
CNN, with sigmoids or ReLU, before means over 2x2 or behind them."""


def run(options: argparse.Namespace) -> int:
    """Measure and print; the exit code."""
    recorder = Recorder.of(options)
    unknown = sorted(set(options.names) - set(CASES))
    if unknown:
        raise UsageError(f"there is no case {', '.join(unknown)}: choose from {', '.join(CASES)}")
    if options.beside:
        beside.check(options.folder)
    summaries = [_measured(name, options) for name in options.names or CASES]
    for summary in summaries:
        case = {key: summary[key] for key in ("case", "batch", "steps", "parties", "security")}
        recorder.add("training", case, flatten({key: summary[key] for key in ("step", "checkpoint", "memory")}))
    if options.json:
        recorder.print_json({"cases": summaries, "machine": machine()})
    else:
        _print(summaries)
    return recorder.finish()


def _measured(name: str, options: argparse.Namespace) -> dict[str, Any]:
    case, steps = CASES[name], options.steps
    rng, rows = np.random.default_rng(1), case.batch * steps
    x = np.round(rng.uniform(0, 1, (rows, *case.shape)) * 256) / 256
    # All alike as far as 8 bits can say it; they add up to 1.
    y = np.tile(np.diff(np.linspace(0, 256, case.classes + 1).round()) / 256, (rows, 1))
    made, memory = list[Progress](), list[dict[str, int]]()
    with (
        watched_session(options.parties, options.security, options.timeout) as session,
        progress_bar(name, options.repeat) as advance,
    ):
        client = session.client
        data = client.upload(DataSet({"x": x, "y": y}, low=0, high=1, fraction_bits=8), "data")

        def told(progress: Progress) -> None:
            made.append(progress)
            memory.append(session.processes.resident())
            advance()

        _train(client, case, data, steps, options.repeat, told)
    reports = [each.report for each in made if each.report is not None]
    online = reports[-1].online
    seconds = median(report.online.seconds for report in reports)
    wall = median(now - before for before, now in pairwise([0.0, *(each.seconds for each in made)]))
    return {
        "case": name,
        "batch": case.batch,
        "steps": steps,
        "parties": options.parties,
        "security": options.security,
        "as_predicted": all(map(as_predicted, reports)),
        "step": {
            "seconds": seconds / steps,
            "wall_seconds": wall / steps,
            "rounds": online.rounds / steps,
            "bytes_per_party": online.bytes / steps,
            "dealt_bytes": reports[-1].offline.bytes / steps,
        },
        "checkpoint": {"rounds": online.rounds, "bytes_per_party": online.bytes, "seconds": seconds},
        "memory": {name: _halves([each[name] for each in memory]) for name in memory[0]},
        "beside": beside.steps(
            case.make(), x[: case.batch], y[: case.batch], options.repeat, options.timeout, options.folder
        )
        if options.beside
        else None,
    }


def _halves(occupied: Sequence[int]) -> dict[str, int]:
    """The most bytes at the checkpoints of the first half, and of the second."""
    middle = (len(occupied) + 1) // 2
    return {"first_half_bytes": max(occupied[:middle]), "second_half_bytes": max(occupied[len(occupied) // 2 :])}


def _train(client: Client, case: Case, data: Any, steps: int, repeat: int, told: Callable[[Progress], None]) -> None:
    client.train(
        case.architecture, [data], CrossEntropyLoss(), SGD(lr=2.0**-8, momentum=0.5), name="network",
        batch=case.batch, steps=steps, epochs=float(repeat), weights=1.0, logits=case.logits, progress=told,
    )  # fmt: skip


def _other(step: Mapping[str, float], theirs: Mapping[str, Any]) -> str:
    """A step by another system, with all that it makes within."""
    if "none" in theirs:
        return f"by {theirs['system']} none: {theirs['none']}"
    times = theirs["seconds"] / step["wall_seconds"]
    return (
        f"by {theirs['system']} {milliseconds(theirs['seconds'])}, dealing included, {times:.1f} times as long;"
        f" {theirs['rounds']} rounds, {kilobytes(theirs['bytes_per_party'])}"
    )


def _print(summaries: list[dict[str, Any]]) -> None:
    table = plain_table("a step of", "batch", "online", "with dealing, keeping", "rounds", "sent per party", "dealt")
    for summary in summaries:
        step = summary["step"]
        table.add_row(
            summary["case"], str(summary["batch"]), milliseconds(step["seconds"]), milliseconds(step["wall_seconds"]),
            f"{step['rounds']:.1f}", kilobytes(step["bytes_per_party"]), kilobytes(step["dealt_bytes"]),
        )  # fmt: skip
    console = stdout_console()
    console.print(table)
    for summary in summaries:
        memory = ", ".join(
            f"{name} {megabytes(of['first_half_bytes'])} and {megabytes(of['second_half_bytes'])}"
            for name, of in summary["memory"].items()
        )
        console.print(f"{summary['case']}: memory in the first and in the second half, at most: {memory}.")
        if theirs := summary["beside"]:
            console.print(f"{summary['case']}: {_other(summary['step'], theirs)}.")
    right = all(summary["as_predicted"] for summary in summaries)
    console.print(
        f"Rounds and bytes are {'' if right else 'NOT '}as predicted; each a share of those up to a checkpoint."
    )
