"""``tessera deny``: say no to who asks for a program, and take back what was approved of it."""

from __future__ import annotations

import argparse
import json

from parties.client.async_client import AsyncClient
from parties.commands.arguments import client_arguments
from parties.commands.as_client import run_as_client
from parties.commands.requests import lines


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of ``tessera deny``."""
    parser.add_argument("program", metavar="DIGEST", help="as `tessera requests` lists it")
    parser.add_argument("--why", required=True, help="the reason, which who asks is told")
    parser.add_argument("--client", help="whose request, if several ask for the same program")
    client_arguments(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(options: argparse.Namespace) -> int:
    """The exit code."""
    return run_as_client(deny, options)


async def deny(client: AsyncClient, options: argparse.Namespace) -> int:
    """Denies."""
    async with client:
        entry = await client.deny(options.program, client=options.client, why=options.why)
    print(json.dumps(entry.to_dict()) if options.json else "\n".join(lines(entry)))
    return 0
