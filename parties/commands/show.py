"""``tessera show``: a program in words, before a client asks for it, or an owner decides."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from mpc.program import Program
from parties.client.async_client import AsyncClient
from parties.commands.arguments import client_arguments
from parties.commands.as_client import run_as_client
from parties.commands.request import load_program


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of ``tessera show``."""
    parser.add_argument("program", metavar="DIGEST", help="as `tessera requests` lists it; or a program's file")
    parser.add_argument("--client", help="whose request, if several ask for the same program")
    client_arguments(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(options: argparse.Namespace) -> int:
    """The exit code."""
    return run_as_client(show, options)


def _meant(words: str) -> str | Program:
    """A program in a file, or a digest."""
    return load_program(Path(words)) if Path(words).is_file() else words


async def show(client: AsyncClient, options: argparse.Namespace) -> int:
    """What it reads, does and gives to whom, found out here from the program itself."""
    what = _meant(options.program)
    async with client:
        explanation = await client.show(what, options.client)
    print(json.dumps(explanation.to_dict()) if options.json else explanation)
    return 0
