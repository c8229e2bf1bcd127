"""The last step of training: the later blocks go on by themselves, from mixed values of what the earlier ones give.

The network knows its training photographs too well by then: of their views it names 90 % rightly, classes alike, of
others 70 %.  So what the earlier blocks give of random views is kept, and the later ones, where nearly all weights are,
learn from sums of two photographs' values, with labels in the same parts (V. Verma et al., Manifold mixup, ICML 2019).
Statistics of batches are in the weights already, filters of single channels stay: a step takes a third of the time.

Labels are smoothed towards how common classes are, not towards all alike: with the log prior added in the loss, the
latter would teach a network that is not sure to name the rarest class.
"""

from __future__ import annotations

import copy
import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import torch
from torch import nn
from torch.nn import functional as F

from nn.derm.augment import random_views
from nn.derm.fit import CLASSES, Report, prior_of
from nn.derm.lesion.fit import ROTATIONS, Asked, Descent, Photographs, network_input
from nn.derm.lesion.measure import fitted

CHUNK = 64


@dataclass(frozen=True)
class Refinement:
    """How it goes."""

    kept_blocks: int = 8
    """Of the network's blocks, how many stay as they are, with the stem."""
    views: int = 7
    """Of each photograph."""
    epochs: int = 6
    batch: int = 128
    rate: float = 4e-4
    """The highest of its cycle."""
    warm_up: float = 0.15
    """The part of the cycle in which it rises."""
    decay: float = 0.05
    smoothing: float = 0.05
    """Of labels, towards the prior."""
    mixing: float = 1.0
    """Parts are drawn from the beta distribution with this as both of its parameters, once a batch."""
    averaging: float = 0.98
    """By which the running average of the weights decays in a step; the average is what is kept."""


REFINEMENT = Refinement()
"""What made the weights that ship, of what the cycles gave."""


class Refined(NamedTuple):
    """The network after an epoch, with the least cross-entropy on validation images; and that, of each."""

    net: nn.Sequential
    epoch: int
    losses: list[float]
    """Before, and after each epoch."""


class _Filtered(torch.autograd.Function):
    """A convolution of each channel by itself with a kernel that stays."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, stride: int) -> torch.Tensor:
        ctx.save_for_backward(weight)
        ctx.given = stride, x.shape
        weight, bias = weight.to(x.dtype), bias.to(x.dtype)
        return F.conv2d(x, weight, bias, stride, weight.shape[2] // 2, 1, x.shape[1])

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        """Another such convolution, with zeros where the stride passed over: quicker than the general gradient."""
        (weight,), (stride, shape) = ctx.saved_tensors, ctx.given
        gradient = gradients[0]
        if stride > 1:
            spread = gradient.new_zeros(shape).contiguous(memory_format=torch.channels_last)
            spread[:, :, ::stride, ::stride] = gradient
            gradient = spread
        turned = weight.flip(2, 3).to(gradient.dtype)
        return F.conv2d(gradient, turned, None, 1, weight.shape[2] // 2, 1, shape[1]), None, None, None


class _Kept(nn.Module):
    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.weight, self.bias, self.stride = conv.weight, conv.bias, conv.stride[0]
        self.requires_grad_(False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = _Filtered.apply(x, self.weight, self.bias, self.stride)  # type: ignore[no-untyped-call]
        return y


def parted(net: nn.Sequential, blocks: int) -> tuple[nn.Sequential, nn.Sequential]:
    """``folded`` in two, after so many of its blocks; the second shares no weights, can be trained, and has dropout."""
    stem, whole, *rest, last = copy.deepcopy(net).children()
    each = list(cast(nn.Sequential, whole))
    later = nn.Sequential(
        OrderedDict[str, nn.Module](
            blocks=nn.Sequential(OrderedDict((str(i), each[i]) for i in range(blocks, len(each)))),
            **dict(zip(("head", "pool", "flatten"), rest, strict=True)),
            dropout=nn.Dropout(0.3),
            classes=last,
        )
    )
    for part in list(later.modules()):
        for name, layer in part.named_children():
            if isinstance(layer, nn.Conv2d) and layer.groups > 1:
                setattr(part, name, _Kept(layer))
    return nn.Sequential(stem, *each[:blocks]), later.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def given(first: nn.Module, inputs: torch.Tensor) -> torch.Tensor:
    """What the earlier blocks give, in float16."""
    with torch.inference_mode():
        parts = [
            first(part.contiguous(memory_format=torch.channels_last)).half() for part in torch.split(inputs, CHUNK)
        ]
    return torch.cat(parts)


def of_views(first: nn.Module, images: torch.Tensor, seed: int) -> torch.Tensor:
    """Of one random view of each of the photographs."""
    generator = torch.Generator().manual_seed(seed)
    parts = [network_input(random_views(some.float().div_(255), generator)) for some in torch.split(images, CHUNK)]
    return torch.cat([given(first, part) for part in parts])


def of_turns(first: nn.Module, inputs: torch.Tensor) -> torch.Tensor:
    """Of each quarter turn."""
    return torch.stack([given(first, torch.rot90(inputs, turn, (2, 3))) for turn in range(ROTATIONS)])


def answers(later: nn.Module, values: torch.Tensor) -> torch.Tensor:
    """Logits (N, 7), of quarter turns averaged: of ``of_turns``."""
    later.eval()
    with torch.inference_mode():
        turned = [torch.cat([later(_float(part)) for part in torch.split(turn, CHUNK)]) for turn in values]
    return torch.stack(turned).mean(0)


def refine(
    net: nn.Sequential, train: Photographs, val: Asked, recipe: Refinement, seed: int, report: Report
) -> Refined:
    """``folded(net)`` with other weights after its first blocks: the running average, after the epoch with the least
    cross-entropy on validation images; ``net`` itself where none is better.

    ``seed`` is of the views; order, parts and dropout are drawn from torch's own generator.
    """
    first, later = parted(net, recipe.kept_blocks)
    views = torch.stack([of_views(first, train.images, 1000 * seed + view) for view in range(recipe.views)])
    turned = of_turns(first, val.inputs)
    losses = [fitted(answers(later, turned), val.labels).loss]
    report(f"cross-entropy on val {losses[0]:.4f}")
    log_prior = prior_of(train.labels)
    targets = F.one_hot(train.labels, CLASSES) * (1 - recipe.smoothing) + recipe.smoothing * log_prior.exp()
    steps = len(train.labels) // recipe.batch
    descent = Descent(
        later, steps * recipe.epochs,
        rate=recipe.rate, warm_up=recipe.warm_up, decay=recipe.decay, averaging=recipe.averaging,
    )  # fmt: skip
    average = descent.average
    part = torch.distributions.Beta(recipe.mixing, recipe.mixing)
    kept = {name: value.clone() for name, value in later.state_dict().items()}
    for epoch in range(recipe.epochs):
        start, total = time.perf_counter(), 0.0
        later.train()
        order = torch.randperm(len(train.labels))[: steps * recipe.batch]
        for chosen in torch.split(order, recipe.batch):
            x = _float(views[torch.randint(0, recipe.views, (len(chosen),)), chosen])
            y, share, other = targets[chosen], float(part.sample()), torch.randperm(len(chosen))
            with torch.autocast("cpu", torch.bfloat16):
                logits = later(share * x + (1 - share) * x[other]).float()
            loss = F.cross_entropy(logits + log_prior, share * y + (1 - share) * y[other])
            descent.step(loss)
            total += float(loss.detach())
        seconds = time.perf_counter() - start
        losses.append(fitted(answers(average.module, turned), val.labels).loss)
        said = f"loss {total / steps:.4f}, cross-entropy on val {losses[-1]:.4f}, {seconds:.0f} s"
        report(f"refinement, epoch {epoch + 1}/{recipe.epochs}: {said}")
        if losses[-1] == min(losses):
            kept = {name: value.clone() for name, value in average.module.state_dict().items()}
    whole = copy.deepcopy(net)
    whole.load_state_dict(whole.state_dict() | kept)
    return Refined(whole.eval(), losses.index(min(losses)), losses)


def _float(values: torch.Tensor) -> torch.Tensor:
    return values.float().contiguous(memory_format=torch.channels_last)
