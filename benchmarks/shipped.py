"""The two lesion networks that ship, as the demo shows them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from mpc.cost import Wanted
from mpc.security import Security
from nn.derm import load_split, preprocess, samples
from nn.derm.dataset import Sample, Split
from nn.derm.lesion import photographs
from nn.derm.lesion.model import lesion_model, shown
from nn.derm.model import derm_model
from nn.model import Model
from nn.preprocessing import ImageInput


@dataclass(frozen=True)
class Shipped:
    """A network, photographs of the test set for it, and how it is shown."""

    name: str
    make: Callable[[], Model]
    images: Callable[[], list[Sample]]
    load: Callable[[Path, str], Split]
    """Reads a split of a file of photographs for it."""
    input: ImageInput
    usual: int | None
    """Images that are predicted if nobody says how many; None: all."""
    objective: Wanted
    """Of the client: what two million rectifiers are dealt for few rounds takes longer to deal than their rounds."""
    warm_up: int
    """Predictions before the first that is shown, so that times are those of processes that have been at work."""


LESION: Final = Shipped("lesion", lesion_model, shown, photographs.load_photographs, photographs.INPUT, 7, "traffic", 1)
SMALL: Final = Shipped("small", derm_model, samples, load_split, preprocess.INPUT, None, "latency", 3)


def shipped(name: str | None, security: str) -> Shipped:
    """The one of that name; by default the better one, but with MACs the small one: of the other an image takes 4.5 GB
    from the dealer there.
    """
    if name is None:
        return SMALL if security == Security.MALICIOUS else LESION
    return {each.name: each for each in (LESION, SMALL)}[name]
