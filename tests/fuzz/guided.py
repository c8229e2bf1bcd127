"""Coverage-guided fuzzing of one parser, by atheris: ``python guided.py PARSER [libFuzzer's options] [CORPUS]``."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path

import atheris

# Compiled, and so not to be instrumented.
from mpc.rings import kernels  # noqa: F401

sys.path.insert(0, str(Path(__file__).parent))

with atheris.instrument_imports(include=["mpc", "nn", "parties"]):
    from parsers import PARSERS

    from mpc.errors import TesseraError

PARSER = PARSERS[sys.argv.pop(1)]


def one_input(data: bytes) -> None:
    with contextlib.suppress(TesseraError):
        PARSER.parse(data)


atheris.Setup(sys.argv, one_input)
atheris.Fuzz()
