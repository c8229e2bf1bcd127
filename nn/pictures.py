"""Pictures, decoded: the only file that Pillow's decoders are reached through, with limits before them.

Nothing but pixels leaves it: orientation is applied, then all metadata (EXIF, GPS position, comments, colour profiles)
is gone with the image object it hung on.
"""

from __future__ import annotations

import contextlib
import ctypes
import io
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError

from mpc.errors import EncodingError, ShapeError
from nn.files import at_most

if TYPE_CHECKING:
    from nn.preprocessing import ImageInput

MAX_PIXELS: Final = 40_000_000
"""Larger images are refused by the size in their head, before it is decoded: a small file can unpack to gigabytes."""
MAX_MEMORY: Final = 512 << 20
"""Bytes that a picture takes at most on its way, and one at a time does: for each pixel 4 as it is decoded, 4 as RGB,
and 4 as it is turned or cropped; or 8 for the coefficients of a progressive JPEG."""
MAX_BYTES: Final = 64_000_000
_STRIP: Final = 1 << 20
"""Pixels that are made RGB at a time."""
_ONE_AT_A_TIME: Final = threading.Lock()
_TRIM: Final = getattr(ctypes.CDLL(None), "malloc_trim", None)
"""Of the C library, where it has that: what was freed in any thread goes back to the kernel."""
FORMATS: Final = ("JPEG", "PNG")

_RESAMPLING: Final = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}

_TURNS: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""By EXIF orientation."""


MOST_LOST: Final = 2.0
"""By which a picture may be cut, stretched or enlarged, and nothing is said of it."""


class Seen(NamedTuple):
    """What a network sees of a picture, uint8 (height, width, channels), and what there is to be said against it."""

    pixels: NDArray[np.uint8]
    warnings: tuple[str, ...]


def check_picture(path: str | Path) -> None:
    """Raises as ``ImageInput.load`` does, whatever the input."""
    with _decoded(content(path), str(path)):
        pass


def pixels(takes: ImageInput, data: bytes, name: str) -> Seen:
    """Of a file's content; ``name`` is what errors and warnings call it.  Raises EncodingError."""
    with _decoded(data, name) as picture:
        return Seen(_resized(takes, picture), _doubts(takes, name, *picture.size))


def pixels_of_array(takes: ImageInput, image: NDArray[Any], name: str) -> Seen:
    """The same of uint8 RGB (H, W, 3).  Raises ShapeError for another shape, EncodingError if it is too large."""
    if image.ndim != 3 or image.shape[2] != 3 or min(image.shape) < 1:
        raise ShapeError(f"{name}: uint8 pixels are RGB of shape (H, W, 3), not {image.shape}")
    height, width = image.shape[:2]
    if height * width > MAX_PIXELS:
        raise _too_large(name)
    return Seen(_resized(takes, Image.fromarray(image)), _doubts(takes, name, width, height))


def content(path: str | Path) -> bytes:
    """A file's.  Raises EncodingError if it is missing or cannot be read."""
    try:
        with Path(path).open("rb") as file:
            return at_most(file, MAX_BYTES + 1)
    except FileNotFoundError as error:
        raise EncodingError(f"there is no image {path}") from error
    except OSError as error:
        raise EncodingError(f"{path} cannot be read: {error.strerror}") from error


@contextlib.contextmanager
def _decoded(data: bytes, name: str) -> Iterator[Image.Image]:
    """A file's picture: upright, RGB.  Raises EncodingError."""
    if len(data) > MAX_BYTES:
        raise EncodingError(f"{name} is larger than {MAX_BYTES:,} bytes: make the picture smaller first")
    try:
        with warnings.catch_warnings():
            # Pillow warns about sizes below our own limit, which is checked right here.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            # From memory: of a file, Pillow sets aside as much as a damaged one claims to hold.
            with Image.open(io.BytesIO(data), formats=FORMATS) as picture:
                if picture.width * picture.height > MAX_PIXELS:
                    raise _too_large(name)
                with _alone():
                    picture.load()
                    yield _upright(_rgb(picture), picture)
    except Image.DecompressionBombError as error:
        raise _too_large(name) from error
    except UnidentifiedImageError as error:
        raise EncodingError(f"{name} is not a JPEG or PNG image") from error
    except (OSError, SyntaxError, ValueError) as error:  # Pillow's errors for damaged files
        raise EncodingError(f"{name} cannot be read as an image: the file is damaged") from error


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """One at a time.  What those before have freed is given back first: each thread has a heap of its own, and would
    keep as much as the largest picture that it has decoded.
    """
    with _ONE_AT_A_TIME:
        if _TRIM is not None:
            _TRIM(0)
        yield


def _too_large(name: str) -> EncodingError:
    return EncodingError(
        f"{name} has more than {MAX_PIXELS:,} pixels, and would take more than {MAX_MEMORY >> 20} MiB of memory: make"
        " the picture smaller first"
    )


def _upright(rgb: Image.Image, picture: Image.Image) -> Image.Image:
    """Turned as the file's EXIF data say."""
    turn = _TURNS.get(picture.getexif().get(ExifTags.Base.Orientation, 1))
    return rgb if turn is None else rgb.transpose(turn)


def _rgb(picture: Image.Image) -> Image.Image:
    """Three channels of 8 bits, made strip by strip: a picture and its copy are all that is in memory."""
    if picture.mode == "RGB" and not picture.has_transparency_data:
        return picture
    made = Image.new("RGB", picture.size)
    rows = max(1, _STRIP // picture.width)
    for top in range(0, picture.height, rows):
        strip = picture.crop((0, top, picture.width, min(top + rows, picture.height)))
        made.paste(_strip_as_rgb(strip), (0, top))
    return made


def _strip_as_rgb(picture: Image.Image) -> Image.Image:
    """Transparent parts become white, 16-bit grey is scaled, not clipped."""
    if picture.mode.startswith("I;16"):
        grey = (np.asarray(picture).astype(np.uint32) >> 8).astype(np.uint8)
        return Image.fromarray(grey).convert("RGB")
    if picture.has_transparency_data:
        layer = picture.convert("RGBA")
        white = Image.new("RGBA", layer.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, layer).convert("RGB")
    return picture.convert("RGB")


def _resized(takes: ImageInput, picture: Image.Image) -> NDArray[np.uint8]:
    """What is cropped from an RGB picture, at the input's size; of that size already, it comes through unchanged."""
    if takes.channels == "L":
        picture = picture.convert("L")
    if takes.crop is not None:
        width, height = _part(takes, takes.crop, *picture.size)
        left, top = (picture.width - width) // 2, (picture.height - height) // 2
        picture = picture.crop((left, top, left + width, top + height))
    if picture.size != (takes.width, takes.height):
        picture = picture.resize((takes.width, takes.height), _RESAMPLING[takes.resampling])
    found = np.asarray(picture, dtype=np.uint8).reshape(takes.height, takes.width, len(takes.channels))
    return found[..., ::-1] if takes.channels == "BGR" else found


def _doubts(takes: ImageInput, name: str, width: int, height: int) -> tuple[str, ...]:
    """What is odd about the proportions and the size of a picture."""
    said = []
    ratio = width * takes.height / (height * takes.width)
    if max(ratio, 1 / ratio) > MOST_LOST:
        if takes.crop is None:
            said.append(f"{name} has {width} by {height} pixels, and is stretched to {takes.width} by {takes.height}")
        else:
            seen = "{} by {}".format(*_part(takes, 1.0, width, height))
            said.append(f"{name} has {width} by {height} pixels, and most is cut off: only the central {seen} are used")
    across, down = (width, height) if takes.crop is None else _part(takes, takes.crop, width, height)
    if takes.width > MOST_LOST * across or takes.height > MOST_LOST * down:
        said.append(f"{name} is small: {across} by {down} pixels of it are enlarged to {takes.width} by {takes.height}")
    return tuple(said)


def _part(takes: ImageInput, crop: float, width: int, height: int) -> tuple[int, int]:
    """The size of what is cropped from a picture of this size."""
    if width * takes.height >= height * takes.width:
        width = height * takes.width // takes.height
    else:
        height = width * takes.height // takes.width
    return max(1, round(width * crop)), max(1, round(height * crop))
