"""The command ``tessera``: what is here, and ``demo`` and ``bench``, which plug in from ``benchmarks``.

A command of another package is an entry point in the group ``tessera.commands``: a function that is given the
subparsers' factory, adds its own arguments, and sets ``run``, a function from parsed arguments to an exit code.

Every expected failure ends in one sentence on stderr and the error's own exit code (``mpc.errors``).
"""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import logging
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any, Protocol, cast

from mpc.errors import TesseraError
from parties import logs
from parties.wire.transport import package_version

INTERRUPTED = 130
Adder = Callable[[Any], None]

COMMANDS = {
    "keygen": "make an identity: a secret key file, and a public key to hand out",
    "init": "write a cluster file, and keys, for several hosts; asks what is missing",
    "dealer": "serve as the dealer: correlated randomness, never data",
    "party": "serve as one of the parties",
    "check": "every link in both directions, keys, versions, clocks and data folders: what is wrong?",
    "status": "what each server holds and does: models, preprocessing in stock, runs, peers",
    "predict": "a model's answer to a photograph that only you can see",
    "clinic": "a web page on this computer: photograph in, shares out, answer back",
    "deal": "have preprocessing dealt ahead of time, for later predictions",
    "upload": "store a model, or data, on the parties, as shares",
    "models": "list the models stored on the parties",
    "allow": "say who may run what on a model of yours (at first nobody but you)",
    "rm": "remove models of yours from dealer and parties, for good",
}
"""Those that are here, each in a file of its name; and what they are for."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; the value is the exit code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    options = _parser(arguments).parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format=logs.TEXT)
    if options.verbose:
        # Ours alone: compilers and image readers say a great deal at this level.
        logging.getLogger("parties").setLevel(logging.DEBUG)
    try:
        return int(options.run(options))
    except TesseraError as error:
        print(f"tessera: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has gone; keep Python from complaining about it at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def script() -> None:
    """The console script."""
    sys.exit(main())


class Command(Protocol):
    """A file of this folder."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Its flags."""

    def run(self, options: argparse.Namespace) -> int:
        """Runs it; the exit code."""


def _parser(arguments: Sequence[str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="tessera", description="Secure multi-party computation on secret-shared tensors."
    )
    parser.add_argument("--version", action="version", version=f"tessera {package_version()}")
    parser.add_argument("-v", "--verbose", action="store_true", help="log what happens to stderr")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    # A command loads what it needs itself, and nobody else's: a server starts in spite of a broken one.
    chosen = next((argument for argument in arguments if not argument.startswith("-")), None)
    for name, help_line in COMMANDS.items():
        subparser = commands.add_parser(name, help=help_line)
        if name == chosen:
            command = _loaded(name)
            command.add_arguments(subparser)
            subparser.set_defaults(run=command.run)
    if chosen not in COMMANDS:
        for entry in importlib.metadata.entry_points(group="tessera.commands"):
            adder: Adder = entry.load()
            adder(commands)
    return parser


def _loaded(name: str) -> Command:
    return cast(Command, importlib.import_module(f"parties.commands.{name}"))


if __name__ == "__main__":
    script()
