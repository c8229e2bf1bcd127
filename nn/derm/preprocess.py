"""From a photograph to the network's input: float64 (3, 28, 28) in [-1, 1]; no torch."""

from __future__ import annotations

from typing import Final

from nn.preprocessing import ImageInput, ShadesOfGray

SIDE: Final = 28


def lesion_input(side: int) -> ImageInput:
    """The central square, bicubic, colour constancy, [-1, 1]."""
    return ImageInput(
        height=side,
        width=side,
        balance=ShadesOfGray(order=6, target=0.7, darkest=1 / 255),
        mean=(0.5,),
        std=(0.5,),
        subject="a skin lesion",
    )


INPUT: Final = lesion_input(SIDE)
"""What the model says of its input."""

normalise = INPUT.normalise
prepare = INPUT.prepare
load_image = INPUT.load
load_pixels = INPUT.load_pixels
