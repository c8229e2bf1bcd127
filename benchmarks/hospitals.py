"""Three hospitals train one network: the example of ``tessera train``.

The lesions that the small network is trained on lie at three hospitals, which see other kinds of patients each; of
every picture there are 7x7 pixels in the package, or 28x28 in the file of ``--data``.  A layer that tells the seven
kinds apart, or two, is trained on all of them, as shares: no hospital shows a picture to anybody, and nobody sees it.
Beside it the same is trained by each hospital alone, on all pictures in the clear, and federated, where hospitals show
each other what they have learnt (McMahan, Moore, Ramage, Hampson and Aguera y Arcas, AISTATS 2017).
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from benchmarks.machine import machine
from benchmarks.report import plain_table, print_json, progress_bar, stdout_console
from benchmarks.session import as_predicted
from mpc.errors import ConfigurationError
from nn.activations import Sigmoid
from nn.architecture import Architecture, Sequential
from nn.derm.dataset import CLASS_CODES, load_split
from nn.derm.metrics import balanced_accuracy, confusion_matrix
from nn.derm.reference import ASSETS
from nn.layers import Linear
from nn.losses import CrossEntropyLoss
from nn.optimizers import SGD
from nn.training import initial
from parties import AsyncClient, DataSet, LocalCluster
from parties.client.progress import Progress
from parties.client.training import Training
from parties.members.cluster_file import Settings

Reals = npt.NDArray[np.float64]
Found = TypeVar("Found")

THUMBNAILS = ASSETS / "thumbnails.npz"
HOSPITALS = ("north", "south", "west")
COORDINATOR = "study"
"""Who runs the training, and has no data."""
KINDS = len(CLASS_CODES)
BITS = 8
"""Fraction bits of a pixel."""
BATCH, RATE, MOMENTUM = 32, 0.02, 0.9
EPOCHS, QUICK = 6, 1
LOGITS = 24.0
TIMEOUT = 120.0
"""s in which processes start, and a round ends."""
SKEW, SEED = 0.7, 20180814
"""Of how each kind is spread over the hospitals: by a Dirichlet distribution, and from this seed."""


Curve = list[tuple[float, float]]
"""Of what is trained: epochs so far, and balanced accuracy then."""


class Lesions(NamedTuple):
    """Pixels (N, d) in [-0.5, 0.5], or features in [0, 1], multiples of 2^-8, and the kinds (N,) from 0."""

    x: Reals
    kinds: npt.NDArray[np.int64]

    @property
    def y(self) -> Reals:
        """A row of zeros and a 1 for each."""
        return np.eye(KINDS)[self.kinds]

    def at(self, places: npt.NDArray[np.int64]) -> Lesions:
        """Some of them."""
        return Lesions(self.x[places], self.kinds[places])


@dataclass
class Clear:
    """What is trained, in the clear: the same steps, in float64.  Layers with sigmoids between them."""

    weights: list[Reals]
    biases: list[Reals]
    optimizer: SGD
    class_weights: Reals

    @classmethod
    def of(cls, architecture: Architecture, optimizer: SGD, class_weights: Reals) -> Clear:
        """Before the first step."""
        found = initial(architecture)
        weights = [array.T.copy() for name, array in found.items() if name.endswith("weight")]
        return cls(weights, [array for name, array in found.items() if name.endswith("bias")], optimizer, class_weights)

    def values(self, x: Reals) -> list[Reals]:
        """What goes into each layer, and what comes out of the last."""
        found = [x]
        for number, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True), start=1):
            z = found[-1] @ weight + bias
            found.append(z if number == len(self.weights) else 1.0 / (1.0 + np.exp(-z)))
        return found

    def train(self, batches: Sequence[Lesions]) -> None:
        """A step with each."""
        for _ in self.steps(batches):
            pass

    def steps(self, batches: Sequence[Lesions]) -> Iterator[int]:
        """The same, and after each how many there were."""
        velocities = [[np.zeros_like(array) for array in arrays] for arrays in (self.weights, self.biases)]
        for step, batch in enumerate(batches):
            mu, rate = self.optimizer.mu, self.optimizer.rate(step)
            for arrays, found, gradients in zip(
                (self.weights, self.biases), velocities, self.gradients(batch), strict=True
            ):
                for i, gradient in enumerate(gradients):
                    found[i] = mu * found[i] + gradient
                    arrays[i] = arrays[i] - rate * found[i]
            yield step + 1

    def gradients(self, batch: Lesions) -> tuple[list[Reals], list[Reals]]:
        """Of the mean of weighted cross entropies, by each weight and bias."""
        *values, z = self.values(batch.x)
        parts = np.exp(z - z.max(1, keepdims=True))
        parts /= parts.sum(1, keepdims=True)
        off = (parts - batch.y) * self.class_weights[batch.kinds][:, None] / len(batch.x)
        of_weights, of_biases = list[Reals](), list[Reals]()
        for weight, value in zip(reversed(self.weights), reversed(values), strict=True):
            of_weights.insert(0, value.T @ off)
            of_biases.insert(0, off.sum(0))
            off = (off @ weight.T) * value * (1.0 - value)
        return of_weights, of_biases

    def logits(self, x: Reals) -> Reals:
        """(N, 7)."""
        return self.values(x)[-1]


def lesions(path: Path | None, photographs: Path | None = None) -> tuple[Lesions, Lesions]:
    """To learn from, and to be tested on: the thumbnails that ship, or the pictures of a file; or what a network makes
    of photographs (``benchmarks.lesion_features``).  Raises ConfigurationError.
    """
    if photographs is not None:
        try:
            from benchmarks.lesion_features import features
        except ImportError:
            raise ConfigurationError("features of photographs take PyTorch: pip install 'tessera-mpc[train]'") from None
        made = [features(photographs, split) for split in ("train", "test")]
        return tuple(Lesions(np.round(x * 256) / 256, labels) for x, labels in made)  # type: ignore[return-value]
    if path is not None:
        found = [load_split(path, split) for split in ("train", "test")]
        return _lesions(found[0].images, found[0].labels), _lesions(found[1].images, found[1].labels)
    try:
        with np.load(THUMBNAILS, allow_pickle=False) as file:
            parts = [file[f"{split}_{part}"] for split in ("train", "test") for part in ("images", "labels")]
    except (OSError, ValueError, KeyError):
        raise ConfigurationError("the shipped thumbnails cannot be read: reinstall Tessera") from None
    return _lesions(*parts[:2]), _lesions(*parts[2:])


def _lesions(images: npt.NDArray[np.uint8], labels: npt.NDArray[Any]) -> Lesions:
    pixels = images.reshape(len(images), -1).astype(np.float64)
    return Lesions(np.round(pixels * 256 / 255) / 256 - 0.5, labels.astype(np.int64))


def spread(kinds: npt.NDArray[np.int64]) -> list[npt.NDArray[np.int64]]:
    """Whose each lesion is: of every kind, other parts at each hospital."""
    rng, found = np.random.default_rng(SEED), [list[int]() for _ in HOSPITALS]
    for kind in range(KINDS):
        places = rng.permutation(np.flatnonzero(kinds == kind))
        ends = np.cumsum(rng.dirichlet(np.full(len(HOSPITALS), SKEW)))[:-1]
        for mine, part in zip(found, np.split(places, (ends * len(places)).astype(int)), strict=True):
            mine += part.tolist()
    return [np.array(sorted(mine)) for mine in found]


def shuffled(count: int, epochs: int, seed: int = 0) -> list[npt.NDArray[np.int64]]:
    """Batches, in another order each epoch."""
    rng, orders = np.random.default_rng(seed), list[npt.NDArray[np.int64]]()
    for _ in range(epochs):
        order = rng.permutation(count)
        orders += [order[i : i + BATCH] for i in range(0, count - BATCH + 1, BATCH)]
    return orders


def balance(layer: Clear, test: Lesions) -> float:
    """Balanced accuracy."""
    return balanced_accuracy(confusion_matrix(test.kinds, layer.logits(test.x).argmax(1), KINDS))


@dataclass(frozen=True)
class Study:
    """Whose pictures are trained on, ``epochs`` times all of them, and what."""

    data: Sequence[Lesions]
    test: Lesions
    epochs: int
    hidden: int = 0
    low: float = -0.5

    @property
    def architecture(self) -> Architecture:
        """One layer, or two, with so many ``hidden`` values between them."""
        features, hidden = self.test.x.shape[1], self.hidden
        if not hidden:
            return Sequential({"out": Linear(features, KINDS)}).architecture((features,))
        layers = {"in": Linear(features, hidden), "sigmoid": Sigmoid(), "out": Linear(hidden, KINDS)}
        return Sequential(layers).architecture((features,))

    @property
    def ends(self) -> tuple[float, float]:
        """Of the range of what is learnt from."""
        return self.low, self.low + 1.0

    @property
    def class_weights(self) -> Reals:
        """So that all kinds count alike; how many there are of each is public."""
        counts = np.bincount(np.concatenate([own.kinds for own in self.data]), minlength=KINDS)
        return np.asarray(np.round(256 * counts.sum() / (KINDS * counts)) / 256)

    @property
    def optimizer(self) -> SGD:
        """Of all of them."""
        return SGD(lr=RATE, momentum=MOMENTUM)

    def fresh(self) -> Clear:
        """Before the first step."""
        return Clear.of(self.architecture, self.optimizer, self.class_weights)

    def alone(self, own: Lesions) -> Curve:
        """By one hospital, after each of as many epochs."""
        layer, found = self.fresh(), Curve()
        batches = [own.at(places) for places in shuffled(len(own.kinds), self.epochs)]
        for step in layer.steps(batches):
            if step * self.epochs % len(batches) == 0:
                found.append((step * self.epochs / len(batches), balance(layer, self.test)))
        return found

    def federated(self) -> Curve:
        """An epoch at each hospital, then their mean, weighted by how many pictures each has; so many times."""
        found = Curve()
        mean = self.fresh()
        shares = np.array([len(own.kinds) for own in self.data])
        shares = shares / shares.sum()
        for epoch in range(self.epochs):
            learnt = []
            for own in self.data:
                each = Clear(list(mean.weights), list(mean.biases), self.optimizer, self.class_weights)
                each.train([own.at(places) for places in shuffled(len(own.kinds), 1, epoch)])
                learnt.append([*each.weights, *each.biases])
            arrays = [
                sum(share * a for share, a in zip(shares, same, strict=True)) for same in zip(*learnt, strict=True)
            ]
            mean.weights, mean.biases = arrays[: len(mean.weights)], arrays[len(mean.weights) :]
            found.append((epoch + 1.0, balance(mean, self.test)))
        return found

    def pooled(self, training: Training) -> Curve:
        """All pictures in the clear, with the batches that the parties drew; at each checkpoint."""
        layer, batches = self.fresh(), list[Lesions]()
        for checkpoint in range(training.checkpoints):
            batches += [together(self.data, drawn) for drawn in training.drawn(checkpoint)]
        return [
            (step / training.steps * training.epoch, balance(layer, self.test))
            for step in layer.steps(batches)
            if step % training.steps == 0
        ]


def together(data: Sequence[Lesions], drawn: Sequence[npt.NDArray[np.int64]]) -> Lesions:
    """A batch: of each owner's the rows that were ``drawn``."""
    parts = [own.at(places) for own, places in zip(data, drawn, strict=True)]
    return Lesions(*(np.concatenate(each) for each in zip(*parts, strict=True)))


class Encrypted(NamedTuple):
    """What has been trained on shares."""

    training: Training
    progress: Sequence[Progress]
    balance: float
    """Of its predictions, which the parties compute."""


async def stored(cluster: LocalCluster, data: Sequence[Lesions], ends: tuple[float, float]) -> None:
    """What each hospital has, which the study may know of."""
    for name, own in zip(HOSPITALS, data, strict=True):
        async with AsyncClient(cluster, name=name) as hospital:
            tensors, ranges = {"x": own.x, "y": own.y}, {"x": ends, "y": (0.0, 1.0)}
            await hospital.upload(DataSet(tensors, ranges=ranges, fraction_bits=BITS), "lesions")
            await hospital.allow("lesions", COORDINATOR, schema=True)


async def allowed(cluster: LocalCluster, what: str, programs: Sequence[str] | None = None) -> None:
    """Each hospital lets the study run these, or predict; what `tessera show` says of it, each has read."""
    for name in HOSPITALS:
        async with AsyncClient(cluster, name=name) as hospital:
            await hospital.allow(what, COORDINATOR, programs)


async def followed(
    coordinator: AsyncClient, training: Training, cluster: LocalCluster, told: Callable[[Progress], None]
) -> list[Progress]:
    """The training, once each hospital has allowed it, to its end; what it made at each checkpoint."""
    await allowed(cluster, "lesions", [coordinator.digest(training.kept)])
    # So that it knows what it has been allowed since: a run that names no rule would be refused first.
    for name in HOSPITALS:
        await coordinator.data(f"{name}/lesions")
    progress, job = list[Progress](), await coordinator.submit(training)
    async for made in job.follow():
        progress.append(made)
        told(made)
    return progress


async def encrypted(study: Study, cluster: LocalCluster, told: Callable[[Progress], None]) -> Encrypted:
    """Hospitals store their pictures and let the study train on them; then it predicts, by the leave of each."""
    loss = CrossEntropyLoss(weight=tuple(study.class_weights.tolist()))
    async with AsyncClient(cluster, name=COORDINATOR) as coordinator:
        await stored(cluster, study.data, study.ends)
        data = [await coordinator.data(f"{name}/lesions") for name in HOSPITALS]
        tensors, ranges = {"x": study.test.x, "y": study.test.y}, {"x": study.ends, "y": (0.0, 1.0)}
        test = await coordinator.upload(DataSet(tensors, ranges=ranges, fraction_bits=BITS), "test")
        training = await coordinator.training(
            study.architecture, data, loss, study.optimizer, name="network", batch=BATCH, epochs=study.epochs,
            logits=LOGITS, validate=test,
        )  # fmt: skip
        progress = await followed(coordinator, training, cluster, told)
        await allowed(cluster, f"{COORDINATOR}/network")
        model = await coordinator.model("network")
        low, high = study.ends
        answers = await coordinator.predict(model, study.test.x, low=low, high=high)
    confusion = confusion_matrix(study.test.kinds, answers.argmax(1), KINDS)
    return Encrypted(training, progress, balanced_accuracy(confusion))


def on_shares(
    options: argparse.Namespace,
    steps: int,
    train: Callable[[LocalCluster, Callable[[Progress], None]], Coroutine[Any, Any, Found]],
) -> Found:
    """What ``train`` finds with a cluster of its own, whose checkpoints are shown as they come."""
    settings = Settings(threads=1, round_timeout=TIMEOUT)
    with (
        LocalCluster(
            options.parties, security=options.security, settings=settings, clients=(COORDINATOR, *HOSPITALS),
            start_timeout=TIMEOUT,
        ) as cluster,
        progress_bar("training on shares", steps) as advance,
    ):  # fmt: skip

        def told(made: Progress) -> None:
            if options.json:
                print_json(made.to_dict())
            advance.reach(made.step)

        return asyncio.run(train(cluster, told))


def run(options: argparse.Namespace) -> int:
    """Trains in all four ways, and prints how they compare; the exit code."""
    train, test = lesions(options.data, options.photographs)
    hospitals = [train.at(mine) for mine in spread(train.kinds)]
    epochs, low = QUICK if options.quick else EPOCHS, -0.5 if options.photographs is None else 0.0
    study = Study(hospitals, test, epochs, options.hidden, low)
    made = on_shares(options, study.epochs * len(train.kinds) // BATCH, partial(encrypted, study))
    seconds = made.progress[-1].seconds
    curves = {name: study.alone(own) for name, own in zip(HOSPITALS, study.data, strict=True)}
    curves |= {"federated": study.federated(), "pooled": study.pooled(made.training)}
    curves["encrypted"] = [(p.epoch, p.scores.balanced) for p in made.progress if p.scores is not None]
    summary = {
        "example": "hospitals",
        "lesions": [len(own.kinds) for own in study.data],
        "features": train.x.shape[1],
        "hidden": study.hidden,
        "epochs": study.epochs,
        "steps": made.progress[-1].step,
        "balanced_accuracy": {how: curve[-1][1] for how, curve in curves.items()} | {"encrypted": made.balance},
        "curves": curves,
        "seconds": seconds,
        "steps_per_second": made.progress[-1].step / seconds,
        "as_predicted": all(p.report is not None and as_predicted(p.report) for p in made.progress),
        "security": options.security,
        "parties": options.parties,
        "machine": machine(),
    }
    if options.json:
        print_json(summary)
    else:
        _print(summary, made)
    return 0


def _print(summary: dict[str, Any], made: Encrypted) -> None:
    table = plain_table("trained", "lesions", "balanced accuracy")
    scores, count = summary["balanced_accuracy"], dict(zip(HOSPITALS, summary["lesions"], strict=True))
    whole = sum(summary["lesions"])
    for how, score in scores.items():
        table.add_row(f"by {how} alone" if how in count else how, f"{count.get(how, whole):,}", f"{score:.3f}")
    console = stdout_console()
    console.print(table)
    last = made.progress[-1].report
    if last is not None:
        steps, seconds, as_said = summary["steps"], summary["seconds"], "" if summary["as_predicted"] else "NOT "
        console.print(
            f"{steps:,} steps of {BATCH} lesions in {seconds:.1f} s, {steps / seconds:.1f} a second, and"
            f" {len(made.progress)} checkpoints; up to each {last.online.rounds:,} rounds and"
            f" {last.online.bytes / 1e6:.2f} MB from each party, as {as_said}predicted."
        )
    console.print("Nobody has seen a lesion, or the network: it answers by the leave of all three. Not for diagnosis.")
