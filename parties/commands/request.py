"""``tessera request``: ask the owners of what a program reads for leave to run it."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from mpc.errors import UsageError
from mpc.program import Program
from mpc.program_format import MAX_BYTES
from nn.files import at_most
from parties.client.async_client import AsyncClient
from parties.commands.arguments import client_arguments
from parties.commands.as_client import run_as_client


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of ``tessera request``."""
    parser.add_argument(
        "program", nargs="?", type=Path, metavar="FILE", help="a program, as client.save(y, FILE) writes"
    )
    parser.add_argument("--why", help="what it is for, in a sentence that the owners will read")
    parser.add_argument("--withdraw", metavar="DIGEST", help="instead: do not ask for that program any more")
    client_arguments(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(options: argparse.Namespace) -> int:
    """The exit code."""
    return run_as_client(request, options)


async def request(client: AsyncClient, options: argparse.Namespace) -> int:
    """Asks, or withdraws what was asked."""
    if (options.program is None) == (options.withdraw is None):
        raise UsageError("give a program's file, or --withdraw with a digest")
    if options.program is not None and not options.why:
        raise UsageError("say why (--why): the owners decide by it, and by what the program does")
    program = None if options.program is None else load_program(options.program)
    async with client:
        if program is None:
            await client.withdraw(options.withdraw)
            digest, said = options.withdraw, f"{options.withdraw} is withdrawn"
        else:
            digest = await client.request(program, options.why)
            (entry,) = [e for e in await client.requests() if (e.program, e.client) == (digest, client.member.name)]
            asked = " and ".join(entry.standings)
            said = f"{asked} may now decide: `tessera requests` says what becomes of {digest}"
    print(json.dumps({"program": digest, "withdrawn": program is None}) if options.json else said)
    return 0


def load_program(path: Path) -> Program:
    """The program in a file.  Raises UsageError when it cannot be read, ProgramError for what is none."""
    try:
        with path.open("rb") as file:
            data = at_most(file, MAX_BYTES + 1)
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from error
    return Program.decode(data)
