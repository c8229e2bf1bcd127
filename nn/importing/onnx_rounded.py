"""Numbers of few bits on their way through an ONNX graph."""

from __future__ import annotations

from dataclasses import dataclass

from nn.importing.building import Tensor
from nn.layer import Array


@dataclass(frozen=True, slots=True)
class Rounded:
    """Real numbers that the file holds as q, whole ones of few bits: (q - zero) scale.  They are not rounded here."""

    tensor: Tensor
    scale: Array
    zero: Array
