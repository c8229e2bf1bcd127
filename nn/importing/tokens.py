"""Tokens in a network that is imported: whole numbers that are looked up, shared as one-hot vectors.

Whatever is computed from a token alone is a table of as many numbers as there are tokens, and a product with it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from nn.importing.batch_layout import Layout
from nn.importing.building import Tensor


@dataclass(frozen=True, slots=True)
class Tokens:
    """What a table says of each of some tokens; ``tensor`` is of their one-hot vectors, which are its last axis."""

    tensor: Tensor
    table: Any
    """An array of the library that the network is of, as ``Known.values`` is."""

    @property
    def layout(self) -> Layout:
        """Without that axis."""
        whole = self.tensor.layout
        return whole.resized(whole.shape[:-1])
