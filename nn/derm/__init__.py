"""The dermatology CNN: seven kinds of skin lesion from a 28x28 photograph.  Research only, not for diagnosis.

Everything exported here works without torch; ``nn.derm.torch_model`` and ``nn.derm.train`` need it.
"""

from __future__ import annotations

from nn.derm.dataset import CLASS_CODES, CLASS_NAMES, Sample, Split, class_probabilities, load_split, samples
from nn.derm.preprocess import load_image, normalise, prepare
from nn.derm.reference import load_weights

__all__ = [
    "CLASS_CODES",
    "CLASS_NAMES",
    "Sample",
    "Split",
    "class_probabilities",
    "load_image",
    "load_split",
    "load_weights",
    "normalise",
    "prepare",
    "samples",
]
