"""``tessera approve``: let who asks for it run a program on data of the caller's."""

from __future__ import annotations

import argparse
import json

from parties.client.async_client import AsyncClient
from parties.commands.arguments import client_arguments
from parties.commands.as_client import run_as_client
from parties.commands.requests import lines


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of ``tessera approve``."""
    parser.add_argument("program", metavar="DIGEST", help="as `tessera requests` lists it, and `tessera show` explains")
    parser.add_argument(
        "--name", action="append", dest="names", metavar="NAME",
        help="on this of what it reads of yours alone (default: on all of it); may be repeated",
    )  # fmt: skip
    for flag, what in (("--runs", "in all"), ("--per-day", "on one day (UTC)")):
        parser.add_argument(flag, type=int, metavar="N", help=f"at most N runs {what}, counted from now on")
    parser.add_argument("--client", help="whose request, if several ask for the same program")
    parser.add_argument("--why", default="", help="a sentence for who asks")
    client_arguments(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(options: argparse.Namespace) -> int:
    """The exit code."""
    return run_as_client(approve, options)


async def approve(client: AsyncClient, options: argparse.Namespace) -> int:
    """Approves; says what that depends on, and once more what can be read from what comes out."""
    async with client:
        explanation = await client.show(options.program, options.client)
        entry = await client.approve(
            options.program,
            client=options.client,
            names=options.names,
            why=options.why,
            runs=options.runs,
            per_day=options.per_day,
        )
    if options.json:
        print(json.dumps({**entry.to_dict(), "warnings": list(explanation.warnings)}))
    else:
        print("\n".join([*lines(entry), *explanation.warnings]))
    return 0
