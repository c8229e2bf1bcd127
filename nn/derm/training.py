"""What both training scripts do beside training: their outer shell, and what they write."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mpc.errors import ConfigurationError, TesseraError

METRICS = "metrics.json"


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


def write_metrics(folder: Path, metrics: dict[str, Any]) -> None:
    """What is known of a network, into its folder."""
    (folder / METRICS).write_text(json.dumps(metrics, indent=1) + "\n", encoding="utf-8")


def record(folder: Path, metrics: dict[str, Any], card: Callable[[dict[str, Any]], str]) -> None:
    """Write ``metrics.json``, and ``MODEL_CARD.md``, which ``card`` makes of it."""
    write_metrics(folder, metrics)
    (folder / "MODEL_CARD.md").write_text(card(metrics), encoding="utf-8")


def report(line: str) -> None:
    """At once, whatever stdout is."""
    print(line, flush=True)
