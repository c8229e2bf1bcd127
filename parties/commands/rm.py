"""``tessera rm``: stored secrets of the caller's go, for good."""

from __future__ import annotations

import argparse
import json

from parties.client.async_client import AsyncClient
from parties.commands.arguments import client_arguments
from parties.commands.as_client import run_as_client


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of ``tessera rm``."""
    parser.add_argument("names", nargs="+", metavar="NAME", help="as `tessera models` lists it")
    client_arguments(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(options: argparse.Namespace) -> int:
    """The exit code."""
    return run_as_client(remove, options)


async def remove(client: AsyncClient, options: argparse.Namespace) -> int:
    """Removes models of the caller's, one after the other."""
    async with client:
        for name in options.names:
            await client.remove(name)
            if not options.json:
                print(f"{name} is removed")
    if options.json:
        print(json.dumps({"removed": options.names}))
    return 0
