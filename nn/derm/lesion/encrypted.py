"""Notes in metrics and model card that parties answer what the network in the clear does, on all test photographs:
``python -m nn.derm.lesion.encrypted RECORDS.jsonl``.

The records are what ``tessera bench inference --model lesion --data ham10000_128_jpeg.npz --closest --objective traffic
--memory --out RECORDS.jsonl`` appends, in one go or in parts (``--images 0:200``, ``--images 200:400``, ...): of all
photographs, or of the first ones.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mpc.errors import ConfigurationError
from nn.derm.lesion.card import model_card
from nn.derm.lesion.model import FOLDER
from nn.derm.training import METRICS, record, run


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m nn.derm.lesion.encrypted", description="Note what was compared.")
    parser.add_argument("records", type=Path, help="what tessera bench inference has written")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="of metrics and card (default: as they ship)")
    return run(_note, parser.parse_args(arguments))


def _note(options: argparse.Namespace) -> None:
    metrics = json.loads((options.folder / METRICS).read_text(encoding="utf-8"))
    record(options.folder, metrics | {"encrypted": compared(options.records)}, model_card)


def compared(path: Path) -> dict[str, Any]:
    """All records together.  Raises ConfigurationError unless they are of the first photographs, each of them once."""
    try:
        parts = sorted(map(_part, path.read_text(encoding="utf-8").splitlines()), key=lambda part: part["first"])
        followed = [part["first"] for part in parts] == [sum(p["images"] for p in parts[:i]) for i in range(len(parts))]
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise ConfigurationError(f"{path} holds no records of tessera bench inference: {error}") from error
    if not parts or not followed:
        raise ConfigurationError(f"{path}: its records have to be of photographs from the first on, of each one")
    return {
        **{name: sum(part[name] for part in parts) for name in ("images", "agree")},
        **{name: max(part[name] for part in parts) for name in ("difference", "lead")},
    }


def _part(line: str) -> dict[str, Any]:
    record = json.loads(line)
    case, figures = record["case"], record["figures"]
    if (case["model"], case["weights"], case["closest"]) != ("lesion", "shipped", True):
        raise ValueError("one is not of the lesion network as it ships, with --closest")
    return {
        "first": int(case.get("images", "0:").partition(":")[0]),
        **{name: figures[name] for name in ("images", "agree", "lead")},
        "difference": figures["difference"]["max"],
    }


if __name__ == "__main__":
    sys.exit(main())
