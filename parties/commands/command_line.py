"""The command ``tessera``: what is here, and ``demo`` and ``bench``, which plug in from ``benchmarks``.

A command of another package is an entry point in the group ``tessera.commands``: a function that is given the
subparsers' factory, adds its own arguments, and sets ``run``, a function from parsed arguments to an exit code.

Every expected failure ends in one sentence on stderr and the error's own exit code (``mpc.errors``); with ``--json``,
which every command takes, also in an object on stdout (docs/exit-codes.md).
"""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import itertools
import json
import logging
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn, Protocol, cast

from mpc.errors import HERE, NO_SPACE, TesseraError, TooLarge, UsageError, unwritable
from parties import dumps, logs
from parties.wire.version import package_version

INTERRUPTED = 130
_INTERRUPTED: dict[str, object] = {
    "error": "KeyboardInterrupt",
    "code": INTERRUPTED,
    "member": None,
    "message": "interrupted",
    "advice": "Run it again; an upload goes on where it was.",
}
Adder = Callable[[Any], None]

COMMANDS = {
    "keygen": "make an identity: a secret key file, and a public key to hand out",
    "init": "write a cluster file, and keys, for several hosts; asks what is missing",
    "cluster": "the cluster file in force; propose and accept another one while servers run",
    "dealer": "serve as the dealer: correlated randomness, never data",
    "party": "serve as one of the parties",
    "backup": "what of a server's data folder may be put back, in one file, while it runs",
    "restore": "make a server's data folder of a backup",
    "check": "every link in both directions, keys, versions, clocks and data folders: what is wrong?",
    "status": "what each server holds and does: models, data sets, preprocessing in stock, runs, peers",
    "audit": "what a server's audit log says, whether it is whole, and where two of them differ",
    "predict": "a model's answer to a photograph that only you can see",
    "clinic": "a web page on this computer: photograph in, shares out, answer back",
    "deal": "have preprocessing dealt ahead of time, for later predictions",
    "upload": "store a model, or data, on the parties, as shares",
    "models": "list the models and data sets stored on the parties",
    "allow": "say who may run what on a model or data set of yours (at first nobody but you)",
    "request": "ask the owners of what a program reads for leave to run it",
    "requests": "what others ask of you, what you have asked, and what became of it",
    "show": "a program in words: what it reads, does and gives to whom, and what can be read from that",
    "approve": "let who asks for it run a program on data of yours",
    "deny": "say no to who asks for a program, and why",
    "rm": "remove models and data sets of yours from dealer and parties, for good",
}
"""Those that are here, each in a file of its name; and what they are for."""


def main(arguments: Sequence[str] | None = None, loaded: Callable[[], object] = lambda: None) -> int:
    """Run the command; the value is the exit code.  ``loaded`` is called when all is imported, and nothing begun."""
    arguments = sys.argv[1:] if arguments is None else arguments
    as_json = _wants_json(arguments)
    try:
        options = _parser(arguments).parse_args(arguments)
        logging.basicConfig(level=logging.WARNING, format=logs.TEXT)
        if options.verbose:
            # Ours alone: compilers and image readers say a great deal at this level.
            logging.getLogger("parties").setLevel(logging.DEBUG)
        (dumps.opaque if options.opaque else dumps.no_core_files)()
        loaded()
        code = int(options.run(options))
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        return _failed(_INTERRUPTED, as_json)
    except BrokenPipeError:
        _give_up_output()  # whoever read it has gone
        return 0
    except Exception as error:
        expected = _expected(error)
        if expected is None:
            if as_json:
                # Python itself tells the rest, on stderr.
                print(json.dumps(TesseraError(f"internal error: {type(error).__name__}").to_dict()), flush=True)
            raise
        print(f"tessera: {expected}", file=sys.stderr)
        return _failed(expected.to_dict(), as_json)


def _wants_json(arguments: Sequence[str]) -> bool:
    """Before they are parsed: they may be what is wrong."""
    return "--json" in itertools.takewhile(lambda argument: argument != "--", arguments)


def _expected(error: Exception) -> TesseraError | None:
    """What the user is told of it; None for a fault of ours."""
    if isinstance(error, TesseraError):
        return error
    if isinstance(error, MemoryError):
        return TooLarge(HERE, "there is not enough memory for this: use smaller batches")
    if isinstance(error, OSError) and error.errno in NO_SPACE:
        return unwritable(error.filename or "the output", error)
    return None


def _failed(failure: dict[str, object], as_json: bool) -> int:
    """What went wrong, on stdout if that is wanted; its exit code."""
    try:
        if as_json:
            print(json.dumps(failure))
        sys.stdout.flush()
    except OSError:
        _give_up_output()
    return cast(int, failure["code"])


def _give_up_output() -> None:
    """So that Python does not complain at exit about what cannot be written."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class _Parser(argparse.ArgumentParser):
    """Whose errors are ours; and so are those of the parsers of commands, which are of this class too."""

    def __init__(self, **options: Any) -> None:
        # Whether JSON is wanted is looked for before the parser has read anything.
        super().__init__(**options, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        raise UsageError(message)


class Command(Protocol):
    """A file of this folder."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Its flags."""

    def run(self, options: argparse.Namespace) -> int:
        """Runs it; the exit code."""


def _parser(arguments: Sequence[str]) -> argparse.ArgumentParser:
    parser = _Parser(prog="tessera", description="Secure multi-party computation on secret-shared tensors.")
    parser.add_argument("--version", action="version", version=f"tessera {package_version()}")
    parser.add_argument("-v", "--verbose", action="store_true", help="log what happens to stderr")
    parser.set_defaults(opaque=False)
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    # A command loads what it needs itself, and nobody else's: a server starts in spite of a broken one.
    chosen = next((argument for argument in arguments if not argument.startswith("-")), None)
    for name, help_line in COMMANDS.items():
        subparser = commands.add_parser(name, help=help_line)
        if name == chosen:
            command = _loaded(name)
            command.add_arguments(subparser)
            subparser.set_defaults(run=command.run, opaque=True)
    if chosen not in COMMANDS:
        for entry in importlib.metadata.entry_points(group="tessera.commands"):
            adder: Adder = entry.load()
            adder(commands)
    return parser


def _loaded(name: str) -> Command:
    return cast(Command, importlib.import_module(f"parties.commands.{name}"))


if __name__ == "__main__":
    sys.exit(main())
