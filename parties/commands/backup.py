"""``tessera backup``: what of a server's data folder may be put back, in one file; the server may run meanwhile."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from parties.operate.backup.taking import take


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of ``tessera backup``."""
    parser.add_argument("--data", type=Path, required=True, help="the server's data folder")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="what to write; never overwritten")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(options: argparse.Namespace) -> int:
    """The exit code."""
    done = take(options.data, options.out)
    if options.json:
        print(json.dumps(done.to_dict()))
    else:
        print(f"{done.path}: {done.versions} versions at {done.member}, {done.size / 1e6:,.1f} MB; no preprocessing")
        print("with that member's key it opens for ever: keep the two apart")
    return 0
