"""The shipped weights as NumPy arrays; no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file

from mpc.errors import ConfigurationError

ASSETS: Final = Path(__file__).parent / "assets"
WEIGHTS: Final = ASSETS / "derm.safetensors"

SHAPES: Final[dict[str, tuple[int, ...]]] = {
    "conv1.weight": (16, 3, 3, 3),
    "conv1.bias": (16,),
    "conv2.weight": (32, 16, 3, 3),
    "conv2.bias": (32,),
    "fc1.weight": (64, 1568),
    "fc1.bias": (64,),
    "fc2.weight": (7, 64),
    "fc2.bias": (7,),
}


def load_weights(path: str | Path = WEIGHTS) -> dict[str, NDArray[np.float32]]:
    """The network's parameters, float32, in torch's layout and under torch's names (``conv1.weight`` ...).

    Raises :class:`~mpc.errors.ConfigurationError` if the file is missing, damaged or of another network.
    """
    try:
        arrays: dict[str, NDArray[Any]] = load_file(str(path))
    except (OSError, SafetensorError) as error:
        raise ConfigurationError(f"cannot read the weights {path}: reinstall Tessera or name another file") from error
    found = {name: array.shape for name, array in arrays.items()}
    if found != SHAPES or any(array.dtype != np.float32 for array in arrays.values()):
        raise ConfigurationError(f"{path} does not hold the float32 weights of the dermatology network")
    if not all(np.isfinite(array).all() for array in arrays.values()):
        raise ConfigurationError(f"{path} holds weights that are not finite: train again or take the shipped file")
    return {name: arrays[name] for name in SHAPES}
