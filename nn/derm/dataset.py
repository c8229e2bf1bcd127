"""The lesion images: classes, the splits of a data file, the test images that ship; no torch.

The file is an ``.npz`` in the layout of MedMNIST's DermaMNIST (``train_images`` uint8 (N, 28, 28, 3),
``train_labels`` uint8 (N, 1), and so on) with ``train_ids``.  Licence of images and weights:
``assets/LICENSE-data.md``.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from mpc.errors import ConfigurationError
from nn.derm.reference import ASSETS
from nn.interface import Classes, Label

CLASS_CODES: Final = ("akiec", "bcc", "bkl", "df", "mel", "nv", "vasc")
CLASS_NAMES: Final = (
    "actinic keratoses and intraepithelial carcinoma",
    "basal cell carcinoma",
    "benign keratosis-like lesions",
    "dermatofibroma",
    "melanoma",
    "melanocytic nevi",
    "vascular lesions",
)
SPLITS: Final = ("train", "val", "test")
SAMPLES: Final = ASSETS / "samples"


CLASSES: Final = Classes(tuple(map(Label, CLASS_NAMES, CLASS_CODES)))


def class_probabilities(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """The softmax of the network's outputs ``(N, 7)``: per image, a probability for each of `CLASS_NAMES`.

    Raises ShapeError for the outputs of a network that tells other classes apart.
    """
    return CLASSES.probabilities(logits)


@dataclass(frozen=True)
class Split:
    """``images`` uint8 (N, H, W, 3) RGB, ``labels`` int64 (N,) in 0..6, ``ids`` text (N,)."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    ids: NDArray[np.str_]


@dataclass(frozen=True)
class Sample:
    """One shipped test image: its ISIC id, its file, and its true class 0..6."""

    id: str
    path: Path
    label: int


def load_split(path: str | Path, split: str) -> Split:
    """Read ``split`` (``"train"``, ``"val"`` or ``"test"``) of the data file.

    Raises :class:`~mpc.errors.ConfigurationError` if the file is missing, is no such archive, or its arrays
    do not have the shapes, types and labels described above.
    """
    images, labels, ids = arrays_of(path, split, ("images", "labels", "ids"), "28x28 lesion images", "images")
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != (28, 28, 3) or not len(images):
        raise ConfigurationError(f"{path}: {split}_images must be uint8 of shape (N, 28, 28, 3)")
    return labelled(images, labels, ids, f"{path}: {split}")


def arrays_of(path: str | Path, split: str, parts: Sequence[str], of: str, kind: str) -> list[NDArray[Any]]:
    """``parts`` of a split in the ``.npz`` of ``of``, in which each of ``kind`` has a label and an id.

    Raises ConfigurationError for a file that is missing, or no such archive.
    """
    if split not in SPLITS:
        raise ConfigurationError(f"there is no split {split!r}: choose one of {', '.join(SPLITS)}")
    try:
        with Path(path).open("rb") as file, np.lib.npyio.NpzFile(file, allow_pickle=False) as archive:
            return [archive[f"{split}_{part}"] for part in parts]
    except FileNotFoundError as error:
        raise ConfigurationError(f"there is no data file {path}: name the .npz of {of}") from error
    except KeyError as error:
        raise ConfigurationError(f"{path} has no split {split!r} of {kind}, labels and ids") from error
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise ConfigurationError(f"{path} is not a readable .npz archive without pickled objects") from error


def labelled(images: NDArray[np.uint8], labels: NDArray[Any], ids: NDArray[Any], where: str) -> Split:
    """Images with a label and an id each.  Raises ConfigurationError, which begins with ``where``, for others."""
    if labels.size != len(images) or labels.dtype.kind not in "iu" or labels.min() < 0:
        raise ConfigurationError(f"{where}_labels must be one integer per image")
    if labels.max() >= len(CLASS_CODES):
        raise ConfigurationError(f"{where}_labels must lie in 0..{len(CLASS_CODES) - 1}")
    if ids.shape != (len(images),) or ids.dtype.kind != "U":
        raise ConfigurationError(f"{where}_ids must be one text per image")
    return Split(images, labels.reshape(-1).astype(np.int64), ids)


def samples() -> list[Sample]:
    """The shipped test images, two per class, in class order."""
    return listed(SAMPLES, ".png")


def listed(folder: Path, suffix: str) -> list[Sample]:
    """What ``choose_samples`` has written there.  Raises ConfigurationError for what is missing or damaged."""
    try:
        entries = json.loads((folder / "samples.json").read_text(encoding="utf-8"))["samples"]
        found = [
            Sample(entry["id"], folder / f"{entry['id']}{suffix}", CLASS_CODES.index(entry["class"]))
            for entry in entries
        ]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigurationError("the shipped sample images cannot be listed: reinstall Tessera") from error
    for sample in found:
        if not sample.path.is_file():
            raise ConfigurationError(f"the shipped sample image {sample.id} is missing: reinstall Tessera")
    return found
