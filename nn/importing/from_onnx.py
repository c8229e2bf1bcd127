"""An ONNX file as a model.  onnx is imported when this is called."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from mpc.errors import ConfigurationError, UsageError, printable
from nn.files import at_most
from nn.importing.from_torch import TOLERANCE
from nn.importing.samples import Samples
from nn.interface import NOTHING_SAID, Interface, as_read
from nn.model import Model

MOST_BYTES = 2**31 - 1
"""Of a file: what protobuf takes."""


def from_onnx(
    source: str | os.PathLike[str] | bytes,
    samples: Samples | Mapping[str, Samples] | None = None,
    *,
    tolerance: float = TOLERANCE,
    interface: Interface = NOTHING_SAID,
) -> Model:
    """The network of a file, or of its bytes, in layers of ``nn``, BatchNorm folded where it can be.

    Of opset 13 and later, with inputs (N, ...), and its weights inside.  Nothing of the file is run, and it may come
    from anybody.  ``samples`` and ``tolerance`` are as for ``from_torch``, of several inputs a dict by their names,
    which the model takes then, too; inputs of whole numbers that are looked up are tokens.  Intervals are chosen to
    cover samples, and a model whose results on them differ from those of onnx's reference is not returned.  Without
    samples nothing is compared, and a RangeWarning names each layer whose interval cannot be shown to hold.
    ``interface`` is what the model says of itself.

    Raises ConfigurationError for what is no such file, is above 2 GiB, or without the onnx package;
    UnsupportedError naming each node that has no counterpart, its operator, the reason and what to do instead;
    EncodingError for weights that are not finite real numbers; ShapeError for samples that it does not take; RangeError
    for a layer whose inputs no approximation covers; DiffersFromSource, with the first layer that differs.
    """
    data, name = (source, "the network") if isinstance(source, bytes) else _read(source)
    if len(data) > MOST_BYTES:
        raise ConfigurationError(f"{name} has {len(data):,} bytes: at most {MOST_BYTES:,} are read")
    try:
        from nn.importing import onnx_import
    except ImportError as error:
        raise ConfigurationError(f"from_onnx needs the onnx package: install tessera-mpc[onnx] ({error})") from None
    return onnx_import.load(data, name, samples, tolerance, as_read(interface))


def _read(source: str | os.PathLike[str]) -> tuple[bytes, str]:
    """A file's bytes, no more than are taken, and its name.  Raises ConfigurationError."""
    if not isinstance(source, str | os.PathLike):
        raise UsageError(f"from_onnx takes a file's path or its bytes, not {type(source).__name__}")
    path = Path(source)
    name = printable(path.name)
    if not path.is_file():
        raise ConfigurationError(f"there is no file {printable(str(path))}")
    try:
        with path.open("rb") as file:
            return at_most(file, MOST_BYTES + 1), name
    except OSError as error:
        raise ConfigurationError(f"{name} cannot be read: {error.strerror}") from None
