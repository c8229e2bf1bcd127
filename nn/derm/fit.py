"""The training loops: teachers, the network that learns from them, and its last steps once folded (torch).

Every loop is deterministic in its seed, runs on the CPU, and calls ``report(line)`` once per epoch.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import cast

import torch
from torch import nn
from torch.nn import functional as F

from nn.derm.augment import network_input, random_views
from nn.derm.teacher import teacher
from nn.derm.torch_model import folded, network
from nn.importing.torch_activation import FourierActivation

Report = Callable[[str], None]

BATCH = 128
CONV1_LIMIT = 7.5
FC1_LIMIT = 120.0
CLASSES = 7
START = -2.0
"""Where pre-activations are centred at first: most units are off, as those of a ReLU are, and answer to what is rare.
Around 0, where a sigmoid is nearly linear, the same training ends with 0.05 less balanced accuracy."""
SOFT_LIMIT = 7.0
"""Pre-activations beyond this are penalised: the series holds on [-8, 8], and unseen images need a margin."""
FOLDED_LIMIT = 6.5
"""The same in the last steps, when the penalty is ten times as large."""


@dataclass(frozen=True)
class Pool:
    """Random views of the training images as network inputs, each with the teachers' opinion.

    ``views`` uint8 (V, N, 3, 28, 28), ``opinions`` float32 (V, N, 7): logits of a posterior with equal class
    priors.
    """

    views: torch.Tensor
    opinions: torch.Tensor


def to_float(views: torch.Tensor) -> torch.Tensor:
    """uint8 back to float32 in [-1, 1]."""
    return views.float().div_(127.5).sub_(1.0)


def logits(model: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """The model in evaluation mode over ``(N, 3, 28, 28)`` in batches, without gradients."""
    model.eval()
    with torch.no_grad():
        return torch.cat([cast(torch.Tensor, model(part)) for part in torch.split(images, 512)])


def prior_of(labels: torch.Tensor) -> torch.Tensor:
    """Logarithms of how common each class is, of which there is taken to be one image at least."""
    return torch.log(torch.bincount(labels, minlength=CLASSES).clamp(min=1) / len(labels))


def train_teacher(
    images: torch.Tensor,
    labels: torch.Tensor,
    log_prior: torch.Tensor,
    epochs: int,
    width: int,
    seed: int,
    report: Report,
) -> nn.Module:
    """Fit one teacher on photographs in [0, 1].

    The loss is logit-adjusted cross-entropy (Menon et al., ICLR 2021):
    ``log_prior`` (7,) is added to the logits in the loss only, so the teacher itself answers as if every
    class were equally common.
    """
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    model = teacher(width, CLASSES)
    optimiser = torch.optim.AdamW(model.parameters(), lr=4e-3, weight_decay=0.05)
    schedule = Schedule(optimiser, epochs * (len(images) // BATCH))
    for epoch in range(epochs):
        start, total = time.perf_counter(), 0.0
        model.train()
        for chosen in _batches(len(images), generator):
            schedule.step()
            view = network_input(random_views(images[chosen], generator))
            answer = model(view.contiguous(memory_format=torch.channels_last))
            loss = F.cross_entropy(answer + log_prior, labels[chosen], label_smoothing=0.05)
            total += _descend(loss, optimiser)
        seconds = time.perf_counter() - start
        report(f"teacher {seed}, epoch {epoch + 1}/{epochs}: loss {total:.3f}, {seconds:.1f} s")
    return model


def draw_pool(teachers: list[nn.Module], images: torch.Tensor, views: int, seed: int, report: Report) -> Pool:
    """Draw ``views`` random views of every image and ask the teachers for their mean logits on each."""
    generator = torch.Generator().manual_seed(seed)
    drawn, opinions = [], []
    for number in range(views):
        view = network_input(random_views(images, generator)).add_(1.0).mul_(127.5).round_().to(torch.uint8)
        seen = to_float(view).contiguous(memory_format=torch.channels_last)
        drawn.append(view.contiguous())
        opinions.append(torch.stack([logits(model, seen) for model in teachers]).mean(0))
        report(f"views {number + 1}/{views}")
    return Pool(torch.stack(drawn), torch.stack(opinions))


@dataclass(frozen=True)
class Distillation:
    """The loss of the small network: labels, and the teachers' opinion softened (Hinton et al., 2015)."""

    labels: torch.Tensor
    log_prior: torch.Tensor
    label_weight: float = 0.3
    temperature: float = 2.0

    def __call__(self, answer: torch.Tensor, opinion: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
        """Mean loss of a batch of logits ``(N, 7)``."""
        hard = F.cross_entropy(answer + self.log_prior, self.labels[chosen], label_smoothing=0.05)
        target = F.softmax((opinion + self.log_prior) / self.temperature, dim=1)
        guess = F.log_softmax((answer + self.log_prior) / self.temperature, dim=1)
        soft = F.kl_div(guess, target, reduction="batchmean") * self.temperature**2
        return self.label_weight * hard + (1 - self.label_weight) * soft


def train_network(pool: Pool, loss_of: Distillation, epochs: int, seed: int, report: Report) -> nn.Sequential:
    """Fit the network with batch normalisation through the sine series, then fold it."""
    torch.manual_seed(seed)
    model = network(FourierActivation, normalised=True)
    for layer in model.children():
        if isinstance(layer, nn.BatchNorm2d | nn.BatchNorm1d):
            nn.init.constant_(layer.bias, START)
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.02)
    _fit("network", model, optimiser, pool, loss_of, epochs, seed, (SOFT_LIMIT, 0.1), report)
    return folded(model)


def finetune(
    model: nn.Sequential, pool: Pool, loss_of: Distillation, epochs: int, seed: int, report: Report
) -> nn.Sequential:
    """Last steps in the form that ships: without batch normalisation, ranges and norms are the real ones."""
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-4, weight_decay=0.02)
    _fit("folded network", model, optimiser, pool, loss_of, epochs, seed, (FOLDED_LIMIT, 1.0), report)
    return model


def _fit(
    name: str,
    model: nn.Sequential,
    optimiser: torch.optim.Optimizer,
    pool: Pool,
    loss_of: Distillation,
    epochs: int,
    seed: int,
    range_penalty: tuple[float, float],
    report: Report,
) -> None:
    limit, range_weight = range_penalty
    generator = torch.Generator().manual_seed(seed)
    views, count = pool.views.shape[:2]
    schedule = Schedule(optimiser, epochs * (count // BATCH))
    inputs = watch_activations(model)
    for epoch in range(epochs):
        start, total = time.perf_counter(), 0.0
        model.train()
        for chosen in _batches(count, generator):
            schedule.step()
            which = torch.randint(0, views, (len(chosen),), generator=generator)
            view = to_float(pool.views[which, chosen])
            # One of the eight symmetries of the square on top, for the whole batch: that costs nothing.
            view = torch.rot90(view, int(torch.randint(0, 4, (1,), generator=generator)), (2, 3))
            if torch.rand(1, generator=generator) < 0.5:
                view = view.flip(3)
            answer = model(view)
            loss = loss_of(answer, pool.opinions[which, chosen], chosen)
            loss = loss + range_weight * _excess(inputs, limit) + 0.3 * _large_rows(model)
            total += _descend(loss, optimiser)
        report(f"{name}, epoch {epoch + 1}/{epochs}: loss {total:.3f}, {time.perf_counter() - start:.1f} s")


def _excess(inputs: dict[str, torch.Tensor], limit: float) -> torch.Tensor:
    """How far each image's largest pre-activations exceed the limit: squared, mean over images."""
    worst = [values.abs().flatten(1).amax(1) for values in inputs.values()]
    return torch.stack([F.relu(largest - limit).square().mean() for largest in worst]).sum()


def _large_rows(model: nn.Sequential) -> torch.Tensor:
    """By what factor, on a log scale, the bounds of ``conv1`` and ``fc1`` are exceeded; zero if they hold.

    No input in [-1, 1] can take a row of ``conv1`` beyond its L1 norm plus bias, so below 8 the first
    activation is safe for any image at all.  The L1 norm of ``fc1`` bounds its fixed-point sums.
    """
    children = dict(model.named_children())
    bounds = []
    for layer_name, norm_name, limit in (("conv1", "norm1", CONV1_LIMIT), ("fc1", "norm3", FC1_LIMIT)):
        layer = cast(nn.Linear, children[layer_name])
        rows = layer.weight.flatten(1).abs().sum(1)
        bias: torch.Tensor = layer.bias
        if norm_name in children:
            norm = cast(nn.BatchNorm2d, children[norm_name])
            scale = norm.weight / torch.sqrt(cast(torch.Tensor, norm.running_var) + norm.eps)
            rows = rows * scale.abs()
            bias = (bias - cast(torch.Tensor, norm.running_mean)) * scale + norm.bias
        bounds.append((rows + bias.abs() if layer_name == "conv1" else rows) / limit)
    return torch.stack([F.relu(torch.log(bound)).mean() for bound in bounds]).sum()


def watch_activations(model: nn.Sequential) -> dict[str, torch.Tensor]:
    """A dictionary that always holds the latest input of each activation, by layer name."""
    latest: dict[str, torch.Tensor] = {}

    def remember(name: str) -> Callable[[nn.Module, tuple[torch.Tensor, ...]], None]:
        def hook(_module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
            latest[name] = inputs[0]

        return hook

    for name, layer in model.named_children():
        if name.startswith("act"):
            layer.register_forward_pre_hook(remember(name))
    return latest


class Schedule:
    """Linear warm-up over the first twentieth of the steps, then a cosine down to zero."""

    def __init__(self, optimiser: torch.optim.Optimizer, steps: int) -> None:
        self._groups = [(group, float(group["lr"])) for group in optimiser.param_groups]
        self._steps, self._done = max(steps, 1), 0

    def step(self) -> None:
        """Set the learning rate of the step about to be taken."""
        warm = max(self._steps // 20, 1)
        factor = min(1.0, (self._done + 1) / warm) * 0.5 * (1 + math.cos(math.pi * self._done / self._steps))
        for group, peak in self._groups:
            group["lr"] = peak * factor
        self._done += 1


def _batches(count: int, generator: torch.Generator) -> Iterator[torch.Tensor]:
    order = torch.randperm(count, generator=generator)
    for start in range(0, count - BATCH + 1, BATCH):
        yield order[start : start + BATCH]


def _descend(loss: torch.Tensor, optimiser: torch.optim.Optimizer) -> float:
    optimiser.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    optimiser.step()
    return float(loss.detach())
