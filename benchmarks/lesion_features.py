"""What a network that has never seen a lesion makes of photographs: EfficientNet-Lite0 as trained on ImageNet.

But for its last layer: each hospital computes that for itself, and trains what follows.  Needs torch, and the extra
``train``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from nn.derm.lesion.network import pretrained
from nn.derm.lesion.photographs import balanced, load_photographs

LARGEST = 4.0
"""Values are divided by it, and what is larger counts as 1: few are, of any photograph."""
_TOGETHER = 64
"""Photographs."""


def features(path: Path, split: str) -> tuple[npt.NDArray[np.float64], npt.NDArray[Any]]:
    """(N, 1280) in [0, 1], and labels, of the photographs of a file (``nn.derm.lesion.photographs``).

    Raises ConfigurationError without the weights, or for a file that is none.
    """
    net = pretrained()[:5].eval()
    found = load_photographs(path, split)
    parts = []
    with torch.inference_mode():
        for first in range(0, len(found.images), _TOGETHER):
            images = balanced(found.images[first : first + _TOGETHER])
            parts.append(net(torch.from_numpy(images).float() / 127.5 - 1.0).numpy())
    return np.clip(np.concatenate(parts) / LARGEST, 0.0, 1.0).astype(np.float64), found.labels
