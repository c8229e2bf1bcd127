"""The dermatology CNN as a model that can be uploaded; no torch."""

from __future__ import annotations

from pathlib import Path

from nn.activations import Interval, Sigmoid
from nn.architecture import Sequential
from nn.derm.dataset import CLASSES
from nn.derm.preprocess import INPUT
from nn.derm.reference import SHAPES, WEIGHTS, load_weights
from nn.interface import Interface
from nn.layers import AvgPool2d, Conv2d, Flatten, Linear
from nn.model import Model

INPUT_SHAPE = INPUT.shape
NOTICE = "Not for diagnosis. Not a medical device: for research only."
INTERVAL = (-8.0, 8.0)
"""What it was trained in: its sigmoids are the shipped fit, also where that is none."""
INTERFACE = Interface(INPUT, CLASSES, NOTICE, compared=True)


def derm_model(path: str | Path = WEIGHTS, *, tails: bool = False) -> Model:
    """The network with its weights: (N, 3, 28, 28) in [-1, 1] to (N, 7) logits, in the order of ``CLASS_NAMES``.

    ``path``: a safetensors file, by default the shipped one.  Raises ConfigurationError as ``load_weights`` does.
    ``tails``: with sigmoids that are right on any input, for three rounds more; outside of their interval the shipped
    ones are periodic, which few photographs come to (``docs/models.md``).
    """
    return Model(_layers(None if tails else INTERVAL).architecture(INPUT_SHAPE), load_weights(path), INTERFACE)


def _layers(interval: Interval | None) -> Sequential:
    conv1, conv2, fc1, fc2 = (SHAPES[f"{name}.weight"] for name in ("conv1", "conv2", "fc1", "fc2"))
    return Sequential(
        {
            "conv1": Conv2d(conv1[1], conv1[0], conv1[2], padding=1),
            "act1": Sigmoid(interval=interval),
            "pool1": AvgPool2d(2),
            "conv2": Conv2d(conv2[1], conv2[0], conv2[2], padding=1),
            "act2": Sigmoid(interval=interval),
            "pool2": AvgPool2d(2),
            "flatten": Flatten(),
            "fc1": Linear(fc1[1], fc1[0]),
            "act3": Sigmoid(interval=interval),
            "fc2": Linear(fc2[1], fc2[0]),
        }
    )
