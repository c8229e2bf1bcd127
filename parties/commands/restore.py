"""``tessera restore``: a backup becomes a server's data folder again."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from parties.members.keys import KeyPair
from parties.operate.backup.restoring import restore


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of ``tessera restore``."""
    parser.add_argument("backup", type=Path, metavar="FILE", help="as `tessera backup` has written it")
    parser.add_argument("--key", type=Path, required=True, help="the server's key file")
    parser.add_argument("--data", type=Path, required=True, help="its data folder, which must be empty or not there")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(options: argparse.Namespace) -> int:
    """The exit code."""
    done = restore(options.backup, options.data, KeyPair.load(options.key))
    if options.json:
        print(json.dumps(done.to_dict()))
    else:
        print(f"{done.path}: {done.versions} versions at {done.member}, as of {done.taken}")
        print("no preprocessing was put back: start the server, and have it dealt again (tessera deal)")
    return 0
