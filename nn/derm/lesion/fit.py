"""Fine-tuning on photographs: one loop, which can be stopped after any epoch and goes on where it was (torch)."""

from __future__ import annotations

import math
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from mpc.errors import ConfigurationError
from nn.derm.augment import random_views
from nn.derm.fit import CLASSES, Report, prior_of
from nn.derm.lesion.network import freeze
from nn.derm.metrics import balanced_accuracy, confusion_matrix

ROTATIONS = 4


@dataclass(frozen=True)
class Recipe:
    """How a cycle of training goes."""

    epochs: int = 18
    small_epochs: int = 9
    """Of these, the first ones see smaller views, at half the time."""
    small_side: int = 96
    frozen_blocks: int = 2
    """Of the network's blocks, how many stay as ImageNet made them, with the stem."""
    batch: int = 128
    rate: float = 6e-4
    """The highest of the cycle."""
    warm_up: float = 0.2
    """The part of the cycle in which it rises."""
    decay: float = 0.05
    smoothing: float = 0.05
    """Of labels."""
    averaging: float = 0.98
    """By which the running average of the weights decays in a step; the average is what is kept."""
    candidates: int = 4
    """The last epochs, of which the best on validation images is kept."""


CYCLES = (Recipe(), Recipe(epochs=10, small_epochs=0, rate=4e-4, warm_up=0.15))
"""What made the weights that ship, one after the other."""


class Tuned(NamedTuple):
    """The network after an epoch of a cycle, and its balanced accuracy on validation images."""

    net: nn.Sequential
    epoch: int
    score: float


@dataclass(frozen=True)
class Asked:
    """``inputs`` float32 (N, 3, H, W), as the model takes them, ``labels`` int64 (N,)."""

    inputs: torch.Tensor
    labels: torch.Tensor


@dataclass(frozen=True)
class Photographs:
    """``images`` uint8 (N, 3, H, W) after colour constancy, ``labels`` int64 (N,)."""

    images: torch.Tensor
    labels: torch.Tensor

    @property
    def asked(self) -> Asked:
        """As they are; rounded, which what a client asks of a photograph is not."""
        return Asked(network_input(self.images.float().div_(255)), self.labels)


def network_input(views: torch.Tensor) -> torch.Tensor:
    """Light in [0, 1] after colour constancy to the network's [-1, 1], channels last in memory."""
    return views.mul(2).sub_(1).contiguous(memory_format=torch.channels_last)


def answers(net: nn.Module, inputs: torch.Tensor, rotations: int = ROTATIONS) -> torch.Tensor:
    """Logits (rotations, N, 7) of ``inputs`` turned by so many quarter turns; float32, without gradients."""
    net.eval()
    with torch.no_grad():
        parts = torch.split(inputs, 64)
        found = [torch.stack([net(torch.rot90(x, k, (2, 3))) for k in range(rotations)]) for x in parts]
    return torch.cat(found, 1)


def score(net: nn.Module, asked: Asked, rotations: int = ROTATIONS) -> float:
    """Balanced accuracy."""
    found = answers(net, asked.inputs, rotations).mean(0).argmax(1).numpy()
    return balanced_accuracy(confusion_matrix(asked.labels.numpy(), found, CLASSES))


def fine_tune(
    net: nn.Sequential, train: Photographs, val: Photographs, recipe: Recipe, seed: int, folder: Path, report: Report
) -> Tuned:
    """One cycle: the running average of the network's weights, after the best of the last epochs.

    Logit-adjusted cross-entropy (Menon et al., ICLR 2021): the log prior is added to the logits in the loss only, so
    the network answers as if every class were equally common.  After each epoch all that is needed to go on is
    written to ``folder``.  Raises ConfigurationError for a folder of other training.
    """
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    freeze(net, recipe.frozen_blocks)
    log_prior = prior_of(train.labels)
    asked = val.asked
    steps = len(train.labels) // recipe.batch
    descent = Descent(
        net, steps * recipe.epochs,
        rate=recipe.rate, warm_up=recipe.warm_up, decay=recipe.decay, averaging=recipe.averaging,
    )  # fmt: skip
    average = descent.average
    parts: dict[str, Any] = {
        "net": net, "average": average, "optimiser": descent.optimiser, "schedule": descent.schedule,
    }  # fmt: skip
    checkpoint = folder / "checkpoint.pt"
    done, best, kept, after = 0, -math.inf, None, 0
    if checkpoint.is_file():
        saved = torch.load(checkpoint, weights_only=True)
        if saved["recipe"] != asdict(recipe) | {"seed": seed}:
            raise ConfigurationError(f"{checkpoint} is of other training: name another folder")
        for name, part in parts.items():
            part.load_state_dict(saved[name])
        generator.set_state(saved["generator"])
        torch.set_rng_state(saved["torch"])
        done, best, kept, after = saved["done"], saved["best"], saved["kept"], saved["after"]
        report(f"goes on after epoch {done}")

    for epoch in range(done, recipe.epochs):
        start, total = time.perf_counter(), 0.0
        side = recipe.small_side if epoch < recipe.small_epochs else None
        net.train()
        freeze(net, recipe.frozen_blocks)
        order = torch.randperm(len(train.labels), generator=generator)[: steps * recipe.batch]
        for chosen in torch.split(order, recipe.batch):
            views = random_views(train.images[chosen].float().div_(255), generator, side)
            with torch.autocast("cpu", torch.bfloat16):
                logits = net(network_input(views)).float()
            loss = F.cross_entropy(logits + log_prior, train.labels[chosen], label_smoothing=recipe.smoothing)
            descent.step(loss)
            total += float(loss.detach())
        seconds = time.perf_counter() - start
        last = epoch >= recipe.epochs - recipe.candidates
        found = score(average, asked) if last else -math.inf
        said = f", balanced accuracy on val {found:.4f}" if last else ""
        report(f"epoch {epoch + 1}/{recipe.epochs}: loss {total / steps:.3f}{said}, {seconds:.0f} s")
        if found > best:
            best, after = found, epoch + 1
            kept = {name: value.clone() for name, value in average.module.state_dict().items()}
        state = {name: part.state_dict() for name, part in parts.items()} | {
            "generator": generator.get_state(), "torch": torch.get_rng_state(),
            "recipe": asdict(recipe) | {"seed": seed}, "done": epoch + 1, "best": best, "kept": kept, "after": after,
        }  # fmt: skip
        torch.save(state, checkpoint.with_suffix(".new"))
        checkpoint.with_suffix(".new").replace(checkpoint)
    if kept is not None:
        net.load_state_dict(kept)
    return Tuned(net.eval(), after, best)


class Descent:
    """Steps of one cycle, and the running average of the weights of ``net``."""

    def __init__(
        self, net: nn.Module, steps: int, *, rate: float, warm_up: float, decay: float, averaging: float
    ) -> None:
        """What is said of them as recipes say it."""
        self._net = net
        self.optimiser = torch.optim.AdamW(_groups(net, decay), lr=rate)
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(self.optimiser, rate, total_steps=steps, pct_start=warm_up)
        decayed = get_ema_multi_avg_fn(averaging)  # type: ignore[no-untyped-call]
        self.average = AveragedModel(net, multi_avg_fn=decayed, use_buffers=True)

    def step(self, loss: torch.Tensor) -> None:
        """One, down from this loss."""
        self.optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimiser.step()
        self.schedule.step()
        self.average.update_parameters(self._net)


def _groups(net: nn.Module, decay: float) -> list[dict[str, Any]]:
    """Weights decay; what scales and shifts channels does not."""
    trained = [p for p in net.parameters() if p.requires_grad]
    return [
        {"params": [p for p in trained if p.dim() > 1], "weight_decay": decay},
        {"params": [p for p in trained if p.dim() < 2], "weight_decay": 0.0},
    ]
