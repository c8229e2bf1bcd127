"""From a picture to a network's input, as a model says of itself: data, checked like all that comes from a stranger.

Servers read it too, and have no pictures: ``nn.pictures``, which decodes them, is imported by the first.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from mpc.errors import EncodingError, ShapeError, UnsupportedError
from mpc.tensor_type import Shape
from nn.said import of_its_types

MAX_ELEMENTS: Final = 1 << 21
"""Of one input that a stranger's model can ask for: 16 MiB of float64."""
MAX_SUBJECT: Final = 100
MAX_ORDER: Final = 64
MOST_MEAN: Final = 1e3
LEAST_STD, MOST_STD = 1e-4, 1e4
RANGE_BITS: Final = 10
"""Fraction bits of the range that is declared: the exact one, rounded outwards."""


FLAT: Final = 2 / 255
"""A picture whose channels all vary by no more is of one colour."""


class PictureWarning(UserWarning):
    """A picture that becomes an input, and hardly one that the model is meant for: cut, stretched, enlarged, flat."""


class Examined(NamedTuple):
    """A picture as an input (C, H, W), and what there is to be said against it: a sentence each."""

    values: NDArray[np.float64]
    warnings: tuple[str, ...]


class ShadesOfGray(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Colour constancy (Finlayson and Trezzi, Color Imaging Conference 2004), on values in [0, 1].

    Each channel is scaled so that its Minkowski mean of ``order`` is ``target``, which takes out most of the
    difference between cameras and lamps; what exceeds 1 after that is clipped.  A channel whose mean is below
    ``darkest`` is not brightened any further, so a black image stays black.
    """

    order: int
    target: float
    darkest: float

    @of_its_types
    def __post_init__(self) -> None:
        if not 1 <= self.order <= MAX_ORDER or not 0 < self.target <= 1 or not 0 < self.darkest <= 1:
            raise UnsupportedError(f"shades of gray are of order 1 to {MAX_ORDER}, with means above 0 and up to 1")

    def __call__(self, light: NDArray[np.float64]) -> NDArray[np.float64]:
        """Channels (..., H, W)."""
        illuminant = np.mean(light**self.order, axis=(-2, -1), keepdims=True) ** (1 / self.order)
        balanced: NDArray[np.float64] = np.minimum(light * (self.target / np.maximum(illuminant, self.darkest)), 1.0)
        return balanced


class ImageInput(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="image"):
    """How a picture of any size becomes an input (channels, height, width).  Checked when made.

    It is turned upright by its EXIF orientation, made RGB (transparency on white), cropped, resized with
    antialiasing, and its channels, in [0, 1], balanced and then normalised: (value - mean) / std.  So the range of
    inputs follows, and is not another thing to declare.

    Raises UnsupportedError for what makes no sense, or an input of more than ``MAX_ELEMENTS``.
    """

    height: int
    width: int
    channels: Literal["RGB", "BGR", "L"] = "RGB"
    """In their order; L is grey alone."""
    crop: float | None = 1.0
    """The side of the central part that is taken, of the input's proportions, where 1 is as large as there is; None
    stretches the whole picture."""
    resampling: Literal["nearest", "bilinear", "bicubic", "lanczos"] = "bicubic"
    balance: ShadesOfGray | None = None
    mean: tuple[float, ...] = (0.5,)
    """Of each channel, or of all."""
    std: tuple[float, ...] = (0.5,)
    subject: str = ""
    """What there is in the picture, as in "a skin lesion": for people."""

    @of_its_types
    def __post_init__(self) -> None:
        if self.height < 1 or self.width < 1 or math.prod(self.shape) > MAX_ELEMENTS:
            raise UnsupportedError(f"images of {self.height} by {self.width}: 1 to {MAX_ELEMENTS} numbers are an input")
        if self.crop is not None and not 0 < self.crop <= 1:
            raise UnsupportedError("a crop is above 0, and 1 at most")
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) not in (1, len(self.channels)):
                raise UnsupportedError(f"{len(values)} numbers as {name} of {len(self.channels)} channels")
        if not all(abs(value) <= MOST_MEAN for value in self.mean):
            raise UnsupportedError(f"a mean is {MOST_MEAN:g} at most")
        if not all(LEAST_STD <= value <= MOST_STD for value in self.std):
            raise UnsupportedError(f"a std is {LEAST_STD:g} to {MOST_STD:g}")
        if len(self.subject) > MAX_SUBJECT or not self.subject.isprintable():
            raise UnsupportedError(f"a subject has up to {MAX_SUBJECT} printable characters")

    @property
    def shape(self) -> Shape:
        """Of one input, without the batch."""
        return (len(self.channels), self.height, self.width)

    @property
    def low(self) -> float:
        """No value of an input is below."""
        least = min((0.0 - m) / s for m, s in self._normal())
        return math.floor(least * 2.0**RANGE_BITS) / 2.0**RANGE_BITS

    @property
    def high(self) -> float:
        """No value of an input is above."""
        most = max((1.0 - m) / s for m, s in self._normal())
        return math.ceil(most * 2.0**RANGE_BITS) / 2.0**RANGE_BITS

    def load(self, path: str | Path) -> NDArray[np.float64]:
        """A JPEG or PNG file of any size as an input.

        Raises EncodingError if the file is missing, too large, or not a readable JPEG or PNG.
        Warns, as PictureWarning, of what ``examine`` says against it.
        """
        return _warned(self.examine(Path(path), str(path)))

    def load_pixels(self, path: str | Path) -> NDArray[np.uint8]:
        """As ``load``, before normalisation, and without warnings: uint8 (height, width, channels)."""
        from nn import pictures

        return pictures.pixels(self, pictures.content(path), str(path)).pixels

    def decode_pixels(self, data: bytes, name: str = "the picture") -> NDArray[np.uint8]:
        """As ``load_pixels``, of a file's content; ``name`` is what errors call it."""
        from nn import pictures

        return pictures.pixels(self, data, name).pixels

    def examine(self, image: Path | bytes | NDArray[Any], name: str = "the picture") -> Examined:
        """What ``load`` makes of a file, or of its content, or ``prepare`` of an array; and what is odd about it.

        That is: its proportions are others, so that most of it is cut off or it is stretched to twice its width or
        height; it is enlarged more than twice; it is of one colour.  ``name`` is what errors and warnings call it.
        """
        from nn import pictures

        if isinstance(image, Path | bytes):
            seen = pictures.pixels(self, pictures.content(image) if isinstance(image, Path) else image, name)
        elif isinstance(image, np.ndarray) and image.dtype == np.uint8:
            seen = pictures.pixels_of_array(self, image, name)
        else:
            values = self._checked(image, name)
            _, std = self._columns()
            return Examined(values, self._flat(values * std, name))
        light = np.moveaxis(seen.pixels, -1, 0) / 255
        return Examined(self.normalise(seen.pixels), (*seen.warnings, *self._flat(light, name)))

    def _flat(self, light: NDArray[np.float64], name: str) -> tuple[str, ...]:
        """The warning that a picture is of one colour, if it is: channels of white 1 and black 0, but for an offset."""
        if self.height * self.width == 1 or np.ptp(light, axis=(1, 2)).max() > FLAT:
            return ()
        return (f"{name} is of one colour: there is nothing in it to be recognised",)

    def normalise(self, pixels: NDArray[Any]) -> NDArray[np.float64]:
        """uint8 ``(H, W, C)`` or ``(N, H, W, C)`` to float64 ``(C, H, W)`` or ``(N, C, H, W)`` in [low, high].

        Raises EncodingError for another dtype and ShapeError for another shape; the size may be any.
        """
        if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8:
            found = pixels.dtype if isinstance(pixels, np.ndarray) else type(pixels).__name__
            raise EncodingError(f"pixels must be uint8, 0 to 255, not {found}")
        count = len(self.channels)
        if pixels.ndim not in (3, 4) or pixels.shape[-1] != count or pixels.size == 0:
            wanted = f"(H, W, {count}) or (N, H, W, {count})"
            raise ShapeError(f"pixels must be {self.channels} of shape {wanted}, not {pixels.shape}")
        light = np.ascontiguousarray(np.moveaxis(pixels, -1, -3), dtype=np.float64) / 255.0
        if self.balance is not None:
            light = self.balance(light)
        mean, std = self._columns()
        normal: NDArray[np.float64] = (light - mean) / std
        return normal

    def prepare(self, image: NDArray[Any]) -> NDArray[np.float64]:
        """One image as an array to an input: uint8 RGB ``(H, W, 3)`` of any size, or floats that are one already.

        Raises ShapeError for any other shape, and EncodingError for any other dtype, NaN, infinity, or values
        outside [low, high].  Warns as ``load`` does.
        """
        return _warned(self.examine(image, "the image"))

    def _checked(self, image: object, name: str) -> NDArray[np.float64]:
        """Floats that are an input."""
        if not isinstance(image, np.ndarray):
            raise EncodingError(f"an image must be a NumPy array, not {type(image).__name__}")
        if image.dtype.kind != "f":
            raise EncodingError(f"{name} must be uint8 pixels or normalised floats, not {image.dtype}")
        if image.shape != self.shape:
            raise ShapeError(f"a normalised image must have shape {self.shape}, and {name} has {image.shape}")
        values = np.ascontiguousarray(image, dtype=np.float64)
        bounds = f"[{self.low:g}, {self.high:g}]"
        if not np.isfinite(values).all():
            raise EncodingError(f"{name} holds NaN or infinity: every value must be a number in {bounds}")
        if values.min() < self.low or values.max() > self.high:
            raise EncodingError(f"{name} holds values outside {bounds}: pass uint8 pixels, or normalise them first")
        return values

    def visible(self, values: NDArray[np.float64]) -> NDArray[np.uint8]:
        """What a network sees, for people: an input ``(C, H, W)`` as uint8 ``(H, W, 3)`` in RGB, still balanced."""
        mean, std = self._columns()
        return as_rgb(((values * std + mean) * 255).round().clip(0, 255).astype(np.uint8), self.channels)

    def _normal(self) -> Iterator[tuple[float, float]]:
        """Mean and standard deviation, by channel."""
        for channel in range(len(self.channels)):
            yield self.mean[channel % len(self.mean)], self.std[channel % len(self.std)]

    def _columns(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        mean, std = np.array(list(self._normal())).T
        return mean[:, None, None], std[:, None, None]


def as_rgb(channels: NDArray[np.uint8], order: Literal["RGB", "BGR", "L"]) -> NDArray[np.uint8]:
    """``(C, H, W)`` as ``(H, W, 3)`` in RGB; grey is repeated."""
    picture = np.moveaxis(channels, 0, -1)
    if order == "L":
        return np.repeat(picture, 3, axis=-1)
    return picture[..., ::-1] if order == "BGR" else picture


def _warned(examined: Examined) -> NDArray[np.float64]:
    for sentence in examined.warnings:
        warnings.warn(sentence, PictureWarning, stacklevel=3)
    return examined.values
