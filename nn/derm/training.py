"""What both training scripts do beside training: their outer shell."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from mpc.errors import ConfigurationError, TesseraError


def run(train: Callable[[argparse.Namespace], None], options: argparse.Namespace) -> int:
    """The exit code; an expected failure is one sentence on stderr."""
    try:
        train(options)
    except TesseraError as error:
        print(f"train: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def make_folder(out: Path) -> None:
    """Raises ConfigurationError where it cannot be."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(f"cannot write to {out}: name a folder of your own") from error


def report(line: str) -> None:
    """At once, whatever stdout is."""
    print(line, flush=True)
