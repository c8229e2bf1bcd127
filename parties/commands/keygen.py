"""``tessera keygen``: an identity."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from mpc.errors import UsageError
from parties.members.cluster import is_name
from parties.members.keys import KeyPair


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of ``tessera keygen``."""
    parser.add_argument("name", help="what to call it; the file is NAME.key")
    parser.add_argument("--out", type=Path, default=Path(), help="folder for the key file (default: this one)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(options: argparse.Namespace) -> int:
    """Writes the secret half and prints the public one."""
    if not is_name(options.name):
        raise UsageError(f"{options.name!r} is not a name: use up to 64 letters, digits, '-', '_' and '.'")
    pair = KeyPair.generate()
    path = options.out / f"{options.name}.key"
    pair.save(path)
    if options.json:
        print(json.dumps({"name": options.name, "file": str(path), "public": pair.public}))
    else:
        print(f"secret key: {path} (keep it on this host; nobody else may read it)")
        print(f"public key: {pair.public}")
    return 0
