"""Small networks of all sorts, trained on shares, beside torch in float64: same order, same start, encoded rates.

Where a function has a kink (ReLU, maxima, hinges), the twin goes by what the parties have found, which is revealed here
beside the loss: a value that is nearer to the kink than a unit of what is compared is on its other side now and then,
in float32 as well, and what follows is another training, by a step of one sample, with nothing wrong in it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pytest
import torch
import torch.nn.functional as tf

import nn
from mpc import fixed_point
from mpc.operation import Input
from mpc.rings import field
from protocols import graph_of, leaf, plan
from protocols.lowering.plan import leaves
from protocols.readings.memory import run_in_memory
from protocols.trace.gradients import grad

Reals = npt.NDArray[np.float64]
BATCH, CLASSES = 8, 3
MOMENTUM = 0.125
"""Of running statistics."""
KEPT = np.random.default_rng(8).integers(0, 2, 6).astype(np.float64)
EPS = 1e-3


class Layer(NamedTuple):
    """``ours`` and ``theirs`` of x, weights, and bits of a dropout, or for ``theirs`` what parties have found."""

    ours: Callable[..., Any]
    theirs: Callable[..., Any]
    weights: Mapping[str, tuple[int, ...]] = {}
    kink: bool = False
    bits: int = 0
    normed: bool = False


def dense(inputs: int, outputs: int) -> Layer:
    return Layer(
        lambda x, w: (x @ w["weight"].T + w["bias"]).assumed(-8.0, 8.0),
        lambda x, w: tf.linear(x, w["weight"], w["bias"]),
        {"weight": (outputs, inputs), "bias": (outputs,)},
    )


def conv(inputs: int, outputs: int) -> Layer:
    return Layer(
        lambda x, w: (x.conv2d(w["weight"], padding=1) + w["bias"].reshape((outputs, 1, 1))).assumed(-8.0, 8.0),
        lambda x, w: tf.conv2d(x, w["weight"], w["bias"], padding=1),
        {"weight": (outputs, inputs, 3, 3), "bias": (outputs,)},
    )


def pooled(x: Any, w: Any, found: Any) -> Any:
    """Of each window what is nearest to the largest that was found."""
    windows = x.unfold(2, 2, 2).unfold(3, 2, 2).flatten(4)
    at = (windows - found[..., None]).abs().argmin(-1, keepdim=True)
    return windows.gather(-1, at).squeeze(-1)


def norm(channels: int) -> Layer:
    return Layer(
        lambda x, w: x.batch_norm(w["weight"], w["bias"], eps=EPS),
        lambda x, w: tf.batch_norm(x, None, None, w["weight"], w["bias"], training=True, eps=EPS),
        {"weight": (channels,), "bias": (channels,)},
        normed=True,
    )


RELU = Layer(lambda x, w: x.relu(), lambda x, w, found: x * (found != 0), kink=True)
MAX = Layer(lambda x, w: x.max_pool2d(2), pooled, kink=True)
SIGMOID = Layer(lambda x, w: x.sigmoid(), lambda x, w: x.sigmoid())
MEANS = Layer(lambda x, w: x.avg_pool2d(2), lambda x, w: tf.avg_pool2d(x, 2))
FLAT = Layer(lambda x, w: x.flatten(1), lambda x, w: x.flatten(1))
DROPPED = Layer(lambda x, w, bits: x * bits * 2.0, lambda x, w, bits: x * bits * 2.0, bits=6)
DROPPED_PUBLICLY = Layer(lambda x, w: x * (KEPT * 2.0), lambda x, w: x * torch.tensor(KEPT * 2.0))
EMBEDDING = Layer(
    lambda x, w: x.chosen_from(w["weight"]).flatten(1), lambda x, w: w["weight"][x.long()].flatten(1),
    {"weight": (5, 3)},
)  # fmt: skip


class Case(NamedTuple):
    layers: list[Layer]
    loss: nn.Loss
    theirs: Callable[..., Any]
    optimizer: nn.SGD
    shape: tuple[int, ...] = (5,)
    hinge: bool = False


def _cross_entropy(z: Any, y: Any) -> Any:
    return tf.cross_entropy(z, y)


def _hinge(z: Any, y: Any, found: Any) -> Any:
    return ((1 - z * (2 * y - 1)) * (found != 0)).mean()


CASES: dict[str, Case] = {
    "ReLU": Case(
        [dense(5, 6), RELU, dense(6, 6), RELU, dense(6, CLASSES)], nn.CrossEntropyLoss(), _cross_entropy,
        nn.SGD(lr=0.05, momentum=0.9),
    ),
    "max pooling, ReLU, clipped": Case(
        [conv(1, 2), MAX, RELU, FLAT, dense(8, CLASSES)], nn.CrossEntropyLoss(label_smoothing=0.25),
        lambda z, y: tf.cross_entropy(z, y, label_smoothing=0.25), nn.SGD(lr=0.1, momentum=0.5, max_norm=0.25),
        (1, 4, 4),
    ),
    "batch norm, means, nesterov": Case(
        [conv(1, 2), norm(2), SIGMOID, MEANS, FLAT, dense(8, CLASSES)], nn.MSELoss(), tf.mse_loss,
        nn.SGD(lr=0.1, momentum=0.75, nesterov=True), (1, 4, 4),
    ),
    "batch norm, clipped": Case(
        [dense(5, 6), norm(6), RELU, dense(6, CLASSES)], nn.CrossEntropyLoss(), _cross_entropy,
        nn.SGD(lr=0.05, max_norm=0.5),
    ),
    "dropout by secret bits, decay": Case(
        [dense(5, 6), RELU, DROPPED, dense(6, CLASSES)], nn.BCEWithLogitsLoss(pos_weight=2.0),
        lambda z, y: tf.binary_cross_entropy_with_logits(z, y, pos_weight=torch.tensor(2.0)),
        nn.SGD(lr=0.05, momentum=0.5, weight_decay=2.0**-7),
    ),
    "dropout by public bits, hinge": Case(
        [dense(5, 6), SIGMOID, DROPPED_PUBLICLY, dense(6, CLASSES)], nn.HingeLoss(), _hinge,
        nn.SGD(lr=0.05, momentum=0.5), hinge=True,
    ),
    "embedding, steps": Case(
        [EMBEDDING, dense(6, CLASSES)], nn.HuberLoss(delta=0.5), lambda z, y: tf.huber_loss(z, y, delta=0.5),
        nn.SGD(lr=0.1, momentum=0.5, schedule=nn.StepLR(4, 0.5)), (2,),
    ),
}  # fmt: skip


class Both:
    """One training, on shares and in the clear."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self.shapes = {f"{i}.{n}": s for i, layer in enumerate(case.layers) for n, s in layer.weights.items()}
        self.slots = case.optimizer.slots(self.shapes)
        self.stats = {
            f"{i}.{n}": layer.weights["weight"]
            for i, layer in enumerate(case.layers)
            if layer.normed
            for n in ("m", "v")
        }
        bits = case.optimizer.weight_bits
        self.types = {n: Input(s, bits, -4.0, 4.0) for n, s in self.shapes.items()}
        self.types |= {n: Input(s, 20, -16.0, 16.0) for n, s in self.slots.items()}
        self.types |= {n: Input(s, 20, -16.0, 16.0) for n, s in self.stats.items()}
        places = case.layers[0] is EMBEDDING
        self.types["x"] = Input((BATCH, *case.shape), 0 if places else 8, 0.0, 4.0 if places else 1.0)
        self.types["y"] = Input((BATCH, CLASSES), 0, 0.0, 1.0)
        self.types |= {
            f"{i}.bits": Input((BATCH, each.bits), 0, 0.0, 1.0) for i, each in enumerate(case.layers) if each.bits
        }
        self.programs: dict[float, Any] = {}

    def program(self, step: int) -> Any:
        rate = self.case.optimizer.rate(step)
        if rate not in self.programs:
            secret = {n: leaf(t) for n, t in self.types.items()}
            x, y, found, running = secret["x"], secret["y"], [], dict[str, Any]()
            for i, layer in enumerate(self.case.layers):
                if layer.normed:
                    axes = tuple(a for a in range(x.ndim) if a != 1)
                    for n, now in (("m", x.mean(axes)), ("v", x.var(axes, ddof=1))):
                        old = secret[f"{i}.{n}"]
                        running[f"{i}.{n}"] = (old * (1 - MOMENTUM) + now * MOMENTUM).truncate(20)
                own = {n: secret[f"{i}.{n}"] for n in layer.weights}
                x = layer.ours(x, own, secret[f"{i}.bits"]) if layer.bits else layer.ours(x, own)
                found += [x] if layer.kink else []
            if self.case.hinge:
                each = self.case.loss._each(x, y * 2.0 - 1.0)
                found, loss = [*found, each], each.mean()
            else:
                loss = self.case.loss(x, y)
            weights = {n: secret[n] for n in self.shapes}
            new, state = self.case.optimizer.step(
                weights, {n: secret[n] for n in self.slots}, grad(loss, weights, within=16.0), step
            )
            results = [*new.values(), *state.values(), *running.values(), loss, *found]
            graph = graph_of(results)
            named = {s.node: n for n, s in secret.items()}
            order = [named[node] for node in leaves(graph)]
            names = [*new, *state, *running]
            self.programs[rate] = plan(graph), order, names, [r.type.fraction_bits for r in results]
        return self.programs[rate]

    def run(self, steps: int, seed: int = 3) -> tuple[float, float, Mapping[str, Reals], Mapping[str, Reals]]:
        """By how much losses and weights are off at most; and running statistics, found and wanted."""
        case, rng = self.case, np.random.default_rng(seed)
        start = {n: rng.uniform(-1, 1, s) / math.sqrt(math.prod(s[1:]) or 1) for n, s in self.shapes.items()}
        raw = {n: fixed_point.encode(w, self.types[n].fraction_bits) for n, w in start.items()}
        raw |= {n: field.zeros(s) for n, s in {**self.slots, **self.stats}.items()}
        weights = {n: torch.tensor(self.read(raw, n), requires_grad=True) for n in self.shapes}
        optimizer = torch.optim.SGD(
            weights.values(), lr=1.0, momentum=case.optimizer.mu, nesterov=case.optimizer.nesterov,
            weight_decay=case.optimizer.weight_decay,
        )  # fmt: skip
        norms = {i: torch.zeros(2, *layer.weights["weight"]) for i, layer in enumerate(case.layers) if layer.normed}
        worst, off = 0.0, 0.0
        for step in range(steps):
            batch = {n: np.floor(rng.uniform(0, 1, t.shape) * 2**8) / 2**8 for n, t in self.types.items() if n == "x"}
            if not self.types["x"].fraction_bits:
                batch["x"] = rng.integers(0, 5, self.types["x"].shape).astype(np.float64)
            batch["y"] = np.eye(CLASSES)[rng.integers(0, CLASSES, BATCH)]
            batch |= {n: rng.integers(0, 2, t.shape) * 1.0 for n, t in self.types.items() if n.endswith("bits")}
            program, order, names, bits = self.program(step)
            given = raw | {n: fixed_point.encode(v, self.types[n].fraction_bits) for n, v in batch.items()}
            outputs = run_in_memory(program, [given[n] for n in order]).outputs
            assert not any(flag.any() for flag in outputs[len(bits) :]), "all in its range"
            raw |= dict(zip(names, outputs, strict=False))
            loss, *kinks = (
                torch.tensor(fixed_point.decode(raw_, b))
                for raw_, b in list(zip(outputs, bits, strict=False))[len(names) :]
            )
            x = torch.tensor(batch["x"])
            for i, layer in enumerate(case.layers):
                own = {n: weights[f"{i}.{n}"] for n in layer.weights}
                if layer.normed:
                    axes = [a for a in range(x.ndim) if a != 1]
                    now = torch.stack([x.detach().mean(axes), x.detach().var(axes, correction=1)])
                    norms[i] = norms[i] * (1 - MOMENTUM) + now * MOMENTUM
                more = [kinks.pop(0)] if layer.kink else [torch.tensor(batch[f"{i}.bits"])] if layer.bits else []
                x = layer.theirs(x, own, *more)
            wanted = case.theirs(x, torch.tensor(batch["y"]), *kinks)
            optimizer.param_groups[0]["lr"] = case.optimizer.rate(step)
            optimizer.zero_grad()
            wanted.backward()
            if case.optimizer.max_norm is not None:
                torch.nn.utils.clip_grad_norm_(weights.values(), case.optimizer.max_norm)
            optimizer.step()
            worst = max(worst, abs(float(loss.reshape(())) - wanted.item()))
            off = max(off, *(np.abs(self.read(raw, n) - w.detach().numpy()).max() for n, w in weights.items()))
        found = {n: self.read(raw, n) for n in self.stats}
        return worst, off, found, {f"{i}.{n}": both[k].numpy() for i, both in norms.items() for k, n in enumerate("mv")}

    def read(self, raw: Mapping[str, Any], name: str) -> Reals:
        return fixed_point.decode(raw[name], self.types[name].fraction_bits)


LONG = "ReLU", "dropout by secret bits, decay", "dropout by public bits, hinge", "embedding, steps"
LENGTHS = [*((name, 6) for name in CASES), *(pytest.param(name, 500, marks=pytest.mark.slow) for name in LONG)]


@pytest.mark.sampled(3)
@pytest.mark.parametrize(("name", "steps"), LENGTHS)
def test_a_training_is_its_twin(name: str, steps: int) -> None:
    loss, weights, found, wanted = Both(CASES[name]).run(steps)
    assert loss < 1e-3
    assert weights < 1e-3
    for each, statistics in wanted.items():
        assert found[each] == pytest.approx(statistics, abs=1e-3)
