"""A model in one file: safetensors, with the architecture and what the model says of itself in its metadata.

Nothing of such a file runs: it may come from anybody.  Architecture and shapes are checked before a weight is read.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from mpc.errors import ConfigurationError, EncodingError, UnsupportedError, printable, unwritable
from mpc.tensor_type import Shape
from nn.architecture import Architecture, decode_json
from nn.interface import NOTHING_SAID, Interface
from nn.layer import Array

KEY: Final = "tessera.model"
"""Of the metadata."""
TYPES: Final = frozenset(("F64", "F32", "F16"))
HELD: Final = 1 << 26
"""Bytes of weights that are read at once, and kept."""


class Saved(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the metadata hold, as JSON."""

    architecture: Architecture
    interface: Interface = NOTHING_SAID
    format: Literal[1] = 1


def save(path: str | Path, saved: Saved, weights: Mapping[str, NDArray[np.floating]]) -> None:
    """One weight after the other, with as few bits as hold it.  Raises ConfigurationError, or DiskFull, if it cannot be
    written."""
    header: dict[str, Any] = {"__metadata__": {KEY: msgspec.json.encode(saved).decode()}}
    stored = {name: _narrowest(array) for name, array in weights.items()}
    at = 0
    # Wide ones first, so that all lie at multiples of their size.
    order = sorted(weights, key=lambda name: -stored[name].itemsize)
    for name in order:
        size = stored[name].itemsize * weights[name].size
        kind = f"F{8 * stored[name].itemsize}"
        header[name] = {"dtype": kind, "shape": weights[name].shape, "data_offsets": (at, at + size)}
        at += size
    said = msgspec.json.encode(header)
    said += b" " * (-len(said) % 8)
    # They may be read from the very file meanwhile.
    part = Path(path).with_name(f".{Path(path).name}.part")
    try:
        with part.open("wb") as file:
            file.write(len(said).to_bytes(8, "little") + said)
            for name in order:
                file.write(np.ascontiguousarray(weights[name], stored[name]).tobytes())
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise unwritable(str(path), error) from None


def _narrowest(array: NDArray[np.floating]) -> np.dtype[np.floating]:
    """The type of as few bits as hold all values."""
    with np.errstate(over="ignore"):
        exact = array.dtype.itemsize <= 4 or np.array_equal(array, array.astype(np.float32))
    return np.dtype(f"<f{array.dtype.itemsize if array.dtype.itemsize <= 4 else 4 if exact else 8}")


def load(path: str | Path) -> tuple[Saved, Mapping[str, Array]]:
    """Weights of more than `HELD` bytes in all are read when they are asked for.  Raises ConfigurationError, naming the
    file, for one that is missing, damaged, or not a whole model."""
    with _opened(path) as file:
        text = (file.metadata() or {}).get(KEY)
        if text is None:
            raise ConfigurationError(
                f"{path} holds weights, and not which network they are of: write it with model.save(path), or give"
                " it as --weights of a model that a package brings"
            )
        saved = decode_json(text.encode(), Saved)
        wanted = saved.architecture.parameters
        found = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 - the file is no mapping
        if {name: tuple(one.get_shape()) for name, one in found.items()} != wanted:
            raise ConfigurationError(f"{path} holds other weights than those of its architecture")
        if others := {one.get_dtype() for one in found.values()} - TYPES:
            raise ConfigurationError(f"{path} holds weights of type {', '.join(sorted(others))}: save floats")
    weights = OnDisk(Path(path), wanted)
    held = 8 * sum(math.prod(shape) for shape in wanted.values()) <= HELD
    return saved, dict(weights) if held else weights


@contextlib.contextmanager
def _opened(path: str | Path) -> Iterator[Any]:
    """A file of weights.  Raises ConfigurationError, naming it."""
    try:
        with safe_open(path, framework="np") as file:
            yield file
    except (OSError, SafetensorError) as error:
        raise ConfigurationError(
            f"{path} cannot be read as a model's file (safetensors): {printable(str(error))}"
        ) from None
    except UnsupportedError as error:
        raise ConfigurationError(f"{path} holds no model of this version: {error}") from None


class OnDisk(Mapping[str, Array]):
    """Weights of a file, float64, each read when it is asked for, and the same each time: an upload masks what it has
    masked before, so that of a file which is written to meanwhile, nothing else goes out under the same masks."""

    def __init__(self, path: Path, shapes: Mapping[str, Shape]) -> None:
        self.shapes = dict(shapes)
        self._path = path
        self._digests: dict[str, bytes] = {}

    def __getitem__(self, name: str) -> Array:
        """Raises EncodingError, naming what is not finite, and ConfigurationError, naming a file that has changed."""
        if name not in self.shapes:
            raise KeyError(name)
        with _opened(self._path) as file:
            found = file.get_tensor(name)
        digest = hashlib.sha256(np.ascontiguousarray(found).data).digest()
        if found.shape != self.shapes[name] or self._digests.setdefault(name, digest) != digest:
            raise ConfigurationError(f"{self._path} has changed while it was in use: load it again")
        if not np.isfinite(found).all():
            raise EncodingError(f"{name} holds values that are not finite")
        return np.asarray(found, np.float64)

    def __iter__(self) -> Iterator[str]:
        return iter(self.shapes)

    def __len__(self) -> int:
        return len(self.shapes)

    def __repr__(self) -> str:
        return f"<OnDisk: {len(self)} weights>"
