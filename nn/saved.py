"""A model in one file: safetensors, with the architecture and what the model says of itself in its metadata.

Nothing of such a file runs: it may come from anybody.  Architecture and shapes are checked before a weight is read.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as to_bytes

from mpc.errors import ConfigurationError, UnsupportedError, printable, unwritable
from nn.architecture import Architecture, decode_json
from nn.interface import NOTHING_SAID, Interface
from nn.layer import Array

KEY: Final = "tessera.model"
"""Of the metadata."""
TYPES: Final = frozenset(("F64", "F32", "F16"))


class Saved(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the metadata hold, as JSON."""

    architecture: Architecture
    interface: Interface = NOTHING_SAID
    format: Literal[1] = 1


def save(path: str | Path, saved: Saved, weights: Mapping[str, NDArray[np.floating]]) -> None:
    """Raises ConfigurationError, or DiskFull, if it cannot be written."""
    arrays = {name: np.ascontiguousarray(array) for name, array in weights.items()}
    data = to_bytes(arrays, {KEY: msgspec.json.encode(saved).decode()})
    try:
        Path(path).write_bytes(data)
    except OSError as error:
        raise unwritable(str(path), error) from None


def load(path: str | Path) -> tuple[Saved, dict[str, Array]]:
    """Raises ConfigurationError, naming the file, for one that is missing, damaged, or not a whole model."""
    try:
        with safe_open(path, framework="np") as file:
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
            return saved, {name: file.get_tensor(name).astype(np.float64) for name in wanted}
    except (OSError, SafetensorError) as error:
        raise ConfigurationError(
            f"{path} cannot be read as a model's file (safetensors): {printable(str(error))}"
        ) from None
    except UnsupportedError as error:
        raise ConfigurationError(f"{path} holds no model of this version: {error}") from None
