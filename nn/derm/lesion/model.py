"""The lesion network as a model that can be uploaded, and photographs to show it with; no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from nn.derm.dataset import CLASSES, Sample, listed
from nn.derm.lesion.photographs import INPUT
from nn.derm.model import NOTICE
from nn.derm.reference import ASSETS
from nn.interface import Interface
from nn.model import Model

FOLDER: Final = ASSETS / "lesion"
WEIGHTS: Final = FOLDER / "lesion.safetensors"
INTERFACE: Final = Interface(INPUT, CLASSES, NOTICE, compared=True)


def lesion_model(path: str | Path = WEIGHTS) -> Model:
    """The network with its weights: (N, 3, 128, 128) in [-1, 1] to (N, 7) logits, in the order of ``CLASS_NAMES``.

    ``path``: a file that ``nn.derm.lesion.train`` has written, by default the shipped one.  Raises ConfigurationError.
    """
    read = Model.load(path)
    return Model(read.architecture, read.weights, INTERFACE)


def shown() -> list[Sample]:
    """The shipped test photographs, the same as ``nn.derm.samples``, at 128x128; in class order."""
    return listed(FOLDER / "samples", ".jpg")
