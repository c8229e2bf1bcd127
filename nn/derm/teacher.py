"""A larger ReLU network that is trained first, only to teach the small one; it is never shipped (torch)."""

from __future__ import annotations

import torch
from torch import nn


class _Block(nn.Module):
    """Two 3x3 convolutions around a shortcut, normalised, ReLU."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
            nn.Conv2d(outputs, outputs, 3, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        self.shortcut = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``(N, inputs, H, W)`` to ``(N, outputs, H, W)``."""
        return torch.relu(self.body(x) + self.shortcut(x))


def teacher(width: int, classes: int) -> nn.Sequential:
    """A residual network for ``(N, 3, 28, 28)``; most of it works at 14x14 and below, quick on a CPU."""
    layers = nn.Sequential(
        nn.Conv2d(3, width, 5, stride=1, padding=2, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.MaxPool2d(2),
        _Block(width, 2 * width),
        _Block(2 * width, 2 * width),
        nn.MaxPool2d(2),
        _Block(2 * width, 4 * width),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Dropout(0.3),
        nn.Linear(4 * width, classes),
    )
    layers.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return layers
