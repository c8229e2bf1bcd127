"""Files that people have, as inputs of a model: photographs, arrays (.npy) and tables (.csv).

A file is looked at when it is opened, and its inputs are made one by one, in their turn: none but a table is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpc.errors import EncodingError, ShapeError, UsageError, printable
from mpc.tensor_type import Shape
from nn.inputs import TokenInput
from nn.interface import AnyInput, Interface
from nn.preprocessing import Examined, ImageInput
from nn.tables import TableInput

_OTHERS = (".npz", ".pkl", ".pt", ".pth", ".tsv", ".xlsx", ".parquet")


@dataclass(frozen=True)
class Opened:
    """A file of ``count`` inputs; ``read(i)`` is one of them."""

    path: Path
    count: int
    read: Callable[[int], Examined]

    def __iter__(self) -> Iterator[Examined]:
        return map(self.read, range(self.count))


def check_file(path: Path) -> None:
    """Raises EncodingError for a file that is an input of no model: before it is known which model it is for."""
    kind = path.suffix.lower()
    if kind == ".npy":
        load_array(path)
    elif kind in _OTHERS:
        raise EncodingError(f"{path}: inputs are photographs (JPEG or PNG), arrays (.npy) and tables (.csv)")
    elif kind != ".csv":
        from nn.pictures import check_picture

        check_picture(path)


def open_file(path: Path, says: Interface, shape: Shape | None) -> Opened:
    """``path`` for a model that says this of itself; ``shape`` is of one of its inputs, where it is known.

    Raises UsageError for a kind of file that the model has no use for, EncodingError and ShapeError for one that does
    not hold what it takes.
    """
    kind, takes = path.suffix.lower(), says.input
    if kind == ".npy":
        return of_array(load_array(path), says, shape, path)
    if kind == ".csv":
        if not isinstance(takes, TableInput):
            raise UsageError(f"{path}: the model names no columns: give it {_wanted(takes, shape)}")
        rows = takes.load(path)
        return Opened(path, len(rows), lambda i: Examined(rows[i], ()))
    if not isinstance(takes, ImageInput):
        raise UsageError(f"{path}: the model {no_pictures(takes)}: give it {_wanted(takes, shape)}")
    return Opened(path, 1, lambda _: takes.examine(path, str(path)))


def of_array(array: NDArray[Any], says: Interface, shape: Shape | None, path: Path) -> Opened:
    """What ``path`` holds: one input, or a batch of them; uint8 pixels too, where the model takes pictures.

    Raises ShapeError for another shape, EncodingError, naming the place, for what is no number or not in the range.
    """
    name, takes = str(path), says.input
    if array.dtype.kind not in "biuf":
        raise EncodingError(f"{name} must hold real numbers, not {array.dtype}")
    if isinstance(takes, ImageInput):
        images: NDArray[Any] = _pixels(array, name) if array.dtype == np.uint8 else _batch(array, shape, name)

        def examined(i: int) -> Examined:
            return takes.examine(np.asarray(images[i]), name if len(images) == 1 else f"{name}[{i}]")

        return Opened(path, len(images), examined)
    if isinstance(takes, TokenInput):
        tokens = _batch(array, takes.positions, name)
        takes.encode(tokens[:1], name)
        return Opened(path, len(tokens), lambda i: Examined(takes.encode(np.asarray(tokens[i : i + 1]), name)[0], ()))
    batch = _batch(array, shape, name)
    if isinstance(takes, TableInput):
        takes.check(batch, name)
    else:
        _check_range(batch, says, name)
    return Opened(path, len(batch), lambda i: Examined(np.asarray(batch[i], np.float64), ()))


def _pixels(array: NDArray[np.uint8], name: str) -> NDArray[np.uint8]:
    """(N, H, W, 3), of any size: the axes alone tell one picture from several."""
    batch = array[None] if array.ndim == 3 else array
    if batch.ndim != 4 or batch.shape[3] != 3 or not batch.size:
        raise ShapeError(f"{name}: uint8 pixels are RGB of shape (H, W, 3) or (N, H, W, 3), not {array.shape}")
    return batch


def _check_range(batch: NDArray[Any], says: Interface, name: str) -> None:
    low, high = says.bounds()
    outside = np.argwhere(~((low <= batch) & (batch <= high)))  # NaN too
    if len(outside):
        place = ", ".join(map(str, outside[0]))
        more = "" if says.input is not None else " unless its owner says another, with --range"
        raise EncodingError(f"{name}[{place}] is not within [{low:g}, {high:g}], the range of the model's inputs{more}")


def _batch(array: NDArray[Any], shape: Shape | None, name: str) -> NDArray[Any]:
    """(N, ...).  Where nobody says what an input's shape is, that is what it is taken for."""
    if shape is not None and array.shape == shape:
        return array[None]
    if not array.ndim or not array.size or (shape is not None and array.shape[1:] != shape):
        wanted = "(N, ...)" if shape is None else f"{_text(shape)}, or {_text(('N', *shape))}"
        raise ShapeError(f"{name} has shape {array.shape}, and the model takes inputs of shape {wanted}")
    return array


def load_array(path: Path) -> NDArray[Any]:
    """What a .npy file holds, read as it is needed.  Raises EncodingError."""
    try:
        array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise EncodingError(f"there is no file {path}") from None
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001 - NumPy fails in many ways at a header that is damaged
        raise EncodingError(f"{path} cannot be read as an array (.npy): {printable(str(error))}") from None
    return array


def no_pictures(takes: AnyInput | None) -> str:
    """Why a model that takes this has no use for a photograph."""
    if isinstance(takes, TableInput):
        return "takes rows of a table, not photographs"
    return "does not say how a photograph becomes its input" if takes is None else "takes arrays, not photographs"


def _wanted(takes: AnyInput | None, shape: Shape | None) -> str:
    """What to give instead."""
    if isinstance(takes, ImageInput):
        return "a photograph (JPEG or PNG), or an array of pixels (.npy)"
    of = "" if shape is None else f" of shape {_text(shape)} or {_text(('N', *shape))}"
    table = ", or a table (.csv) with its columns" if isinstance(takes, TableInput) else ""
    return f"an array (.npy){of}{table}"


def _text(shape: tuple[object, ...]) -> str:
    return f"({', '.join(map(str, shape))}{',' if len(shape) == 1 else ''})"
