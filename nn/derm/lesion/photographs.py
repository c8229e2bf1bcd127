"""The lesion photographs at 128x128, and what becomes of one before the network sees it; no torch."""

from __future__ import annotations

import io
import itertools
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mpc.errors import ConfigurationError
from nn.derm.dataset import Split, arrays_of, labelled
from nn.derm.preprocess import lesion_input

SIDE: Final = 128
INPUT: Final = lesion_input(SIDE)
"""What the model says of its input."""


def load_photographs(path: str | Path, split: str) -> Split:
    """Read ``split`` (``"train"``, ``"val"`` or ``"test"``) of a file of JPEGs: ``images`` uint8 (N, 128, 128, 3).

    The ``.npz`` holds ``*_jpeg``, JPEG files one after the other, uint8, ``*_offsets``, int64 (N + 1), ``*_labels`` and
    ``*_ids``.  Raises :class:`~mpc.errors.ConfigurationError` if it is missing or none.
    """
    files, labels, ids = load_files(path, split)
    try:
        images = [np.asarray(Image.open(io.BytesIO(data), formats=("JPEG",)).convert("RGB")) for data in files]
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{path}: {split}_jpeg holds files that are no JPEGs") from error
    if {image.shape for image in images} != {(SIDE, SIDE, 3)}:
        raise ConfigurationError(f"{path}: photographs must be of {SIDE}x{SIDE} pixels")
    return labelled(np.stack(images), labels, ids, f"{path}: {split}")


def load_files(path: str | Path, split: str) -> tuple[list[bytes], NDArray[Any], NDArray[Any]]:
    """As ``load_photographs``, the files as they are: with labels and ids, as they are."""
    parts = ("jpeg", "offsets", "labels", "ids")
    jpeg, offsets, labels, ids = arrays_of(path, split, parts, f"{SIDE}x{SIDE} photographs", "photographs")
    if jpeg.dtype != np.uint8 or jpeg.ndim != 1 or not _are_offsets(offsets, len(jpeg)):
        raise ConfigurationError(f"{path}: {split}_offsets must be the beginnings of the files in {split}_jpeg")
    data = jpeg.tobytes()
    return [data[a:b] for a, b in itertools.pairwise(offsets)], labels, ids


def balanced(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Photographs (N, H, W, 3) after colour constancy, (N, 3, H, W): to draw views of."""
    channels = np.empty((len(images), 3, *images.shape[1:3]), np.uint8)
    for image, row in zip(images, channels, strict=True):
        row[...] = np.round((INPUT.normalise(image) + 1) * 127.5)
    return channels


def asked(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Photographs (N, H, W, 3) as a client makes inputs of them, (N, 3, H, W), in single precision."""
    made = np.empty((len(images), 3, *images.shape[1:3]), np.float32)
    for image, row in zip(images, made, strict=True):
        row[...] = INPUT.normalise(image)
    return made


def _are_offsets(offsets: NDArray[Any], size: int) -> bool:
    return (
        offsets.dtype.kind in "iu"
        and offsets.ndim == 1
        and len(offsets) > 1
        and offsets[0] == 0
        and offsets[-1] == size
        and bool((np.diff(offsets) > 0).all())
    )
