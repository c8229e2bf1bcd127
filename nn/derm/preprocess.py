"""From a photograph to the network's input: float64 (3, 28, 28) in [-1, 1]; no torch.

Nothing but pixels leaves this file: orientation is applied, then all metadata (EXIF, GPS position, comments,
colour profiles) is gone with the image object it hung on.
"""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from mpc.errors import EncodingError, ShapeError

SIDE: Final = 28
MAX_PIXELS: Final = 64_000_000
"""Larger images are refused before they are decoded: a small file can unpack to gigabytes."""
MAX_BYTES: Final = 64_000_000
FORMATS: Final = ("JPEG", "PNG")
ORDER: Final = 6
TARGET: Final = 0.7
DARKEST: Final = 1 / 255
"""A channel darker than this is not brightened any further."""


def normalise(pixels: NDArray[Any]) -> NDArray[np.float64]:
    """uint8 RGB, ``(H, W, 3)`` or ``(N, H, W, 3)``, to float64 ``(3, H, W)`` or ``(N, 3, H, W)`` in [-1, 1].

    Each image's colour channels are first scaled so that their Minkowski mean of order 6 is 0.7 (colour
    constancy by shades of gray: Finlayson and Trezzi, Color Imaging Conference 2004), which takes out most of
    the difference between cameras and lamps; what exceeds 1 after that is clipped.  A black image stays
    black.

    Raises :class:`~mpc.errors.EncodingError` for another dtype and :class:`~mpc.errors.ShapeError` for
    another shape.
    """
    if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8:
        found = pixels.dtype if isinstance(pixels, np.ndarray) else type(pixels).__name__
        raise EncodingError(f"pixels must be uint8, 0 to 255, not {found}")
    if pixels.ndim not in (3, 4) or pixels.shape[-1] != 3 or pixels.size == 0:
        raise ShapeError(f"pixels must be RGB of shape (H, W, 3) or (N, H, W, 3), not {pixels.shape}")
    light = np.ascontiguousarray(np.moveaxis(pixels, -1, -3), dtype=np.float64) / 255.0
    illuminant = np.mean(light**ORDER, axis=(-2, -1), keepdims=True) ** (1 / ORDER)
    balanced: NDArray[np.float64] = np.minimum(light * (TARGET / np.maximum(illuminant, DARKEST)), 1.0)
    return balanced * 2.0 - 1.0


def prepare(image: NDArray[Any]) -> NDArray[np.float64]:
    """One image as an array to the network's input ``(3, 28, 28)``.

    Takes uint8 RGB ``(H, W, 3)`` of any size, cropped and resized as :func:`load_image` does, or an input
    that is already normalised: float ``(3, 28, 28)`` in [-1, 1].

    Raises :class:`~mpc.errors.ShapeError` for any other shape, and :class:`~mpc.errors.EncodingError` for any
    other dtype, NaN, infinity, or values outside [-1, 1].
    """
    if not isinstance(image, np.ndarray):
        raise EncodingError(f"an image must be a NumPy array, not {type(image).__name__}")
    if image.dtype == np.uint8:
        if image.ndim != 3 or image.shape[2] != 3 or min(image.shape) < 1:
            raise ShapeError(f"a uint8 image must be RGB of shape (H, W, 3), not {image.shape}")
        if image.shape[0] * image.shape[1] > MAX_PIXELS:
            raise EncodingError(f"the image has more than {MAX_PIXELS:,} pixels: make it smaller first")
        return normalise(_resized(Image.fromarray(image)))
    if image.dtype.kind != "f":
        raise EncodingError(f"an image must be uint8 pixels or normalised floats, not {image.dtype}")
    if image.shape != (3, SIDE, SIDE):
        raise ShapeError(f"a normalised image must have shape (3, {SIDE}, {SIDE}), not {image.shape}")
    values = np.ascontiguousarray(image, dtype=np.float64)
    if not np.isfinite(values).all():
        raise EncodingError("the image holds NaN or infinity: every value must be a number in [-1, 1]")
    if np.abs(values).max() > 1.0:
        raise EncodingError("the image holds values outside [-1, 1]: pass uint8 pixels, or normalise them first")
    return values


def load_image(path: str | Path) -> NDArray[np.float64]:
    """Read a JPEG or PNG of any size as the network's input: float64 ``(3, 28, 28)`` in [-1, 1].

    The picture is turned upright by its EXIF orientation, made RGB (transparency on white), cropped to its
    central square and resized by bicubic interpolation with antialiasing.

    Raises :class:`~mpc.errors.EncodingError` if the file is missing, too large, or not a readable JPEG or
    PNG.
    """
    return normalise(load_pixels(path))


def load_pixels(path: str | Path) -> NDArray[np.uint8]:
    """As :func:`load_image`, before normalisation: uint8 RGB ``(28, 28, 3)``."""
    try:
        with Path(path).open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except FileNotFoundError as error:
        raise EncodingError(f"there is no image {path}") from error
    except OSError as error:
        raise EncodingError(f"{path} cannot be read: {error.strerror}") from error
    return decode_pixels(data, str(path))


def decode_pixels(data: bytes, name: str = "the picture") -> NDArray[np.uint8]:
    """As :func:`load_pixels`, of a file's content; ``name`` is what errors call it."""
    if len(data) > MAX_BYTES:
        raise EncodingError(f"{name} is larger than {MAX_BYTES:,} bytes: make the picture smaller first")
    try:
        with warnings.catch_warnings():
            # Pillow warns about sizes below our own limit, which is checked right here.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            # From memory: of a file, Pillow sets aside as much as a damaged one claims to hold.
            with Image.open(io.BytesIO(data), formats=FORMATS) as picture:
                if picture.width * picture.height > MAX_PIXELS:
                    raise EncodingError(f"{name} has more than {MAX_PIXELS:,} pixels: make the picture smaller first")
                picture.load()
                return _resized(_rgb(ImageOps.exif_transpose(picture)))
    except Image.DecompressionBombError as error:
        raise EncodingError(f"{name} has more than {MAX_PIXELS:,} pixels: make the picture smaller first") from error
    except UnidentifiedImageError as error:
        raise EncodingError(f"{name} is not a JPEG or PNG image") from error
    except (OSError, SyntaxError, ValueError) as error:  # Pillow's errors for damaged files
        raise EncodingError(f"{name} cannot be read as an image: the file is damaged") from error


def _rgb(picture: Image.Image) -> Image.Image:
    """Three channels of 8 bits; transparent parts become white, 16-bit grey is scaled, not clipped."""
    if picture.mode.startswith("I;16"):
        grey = (np.asarray(picture).astype(np.uint32) >> 8).astype(np.uint8)
        return Image.fromarray(grey).convert("RGB")
    if picture.has_transparency_data:
        layer = picture.convert("RGBA")
        white = Image.new("RGBA", layer.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, layer).convert("RGB")
    return picture.convert("RGB")


def _resized(picture: Image.Image) -> NDArray[np.uint8]:
    """The central square at 28x28; a picture of that size already comes through unchanged."""
    side = min(picture.size)
    left, top = (picture.width - side) // 2, (picture.height - side) // 2
    square = picture.crop((left, top, left + side, top + side))
    if side != SIDE:
        square = square.resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    return np.asarray(square, dtype=np.uint8)
