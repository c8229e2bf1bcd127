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
from collections.abc import Callable, Collection, Sequence
from typing import Any, NoReturn, Protocol, cast

from mpc.errors import HERE, NO_SPACE, TesseraError, TooLarge, UsageError, unwritable
from parties.commands.catalogue import COMMANDS, DEVELOPER, GROUPS
from parties.commands.examples import add_examples, choosers, sentence
from parties.host import dumps, logs
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


def main(arguments: Sequence[str] | None = None, loaded: Callable[[], object] = lambda: None) -> int:
    """Run the command; the value is the exit code.  ``loaded`` is called when all is imported, and nothing begun."""
    arguments = sys.argv[1:] if arguments is None else arguments
    as_json = _wants_json(arguments)
    try:
        options = parser_for(arguments).parse_args(arguments)
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
        if any(message.endswith(f"are required: {chooser.metavar}") for chooser in choosers(self)):
            message = f"say which {message.rpartition(' ')[2]}: `{self.prog} --help` lists them"
        raise UsageError(message)


class _Tessera(_Parser):
    """The command itself, whose help has commands by who uses them."""

    def format_help(self) -> str:
        """As of any parser, but for the commands."""
        formatter = self._get_formatter()
        formatter.add_usage(self.usage, self._actions, self._mutually_exclusive_groups)
        formatter.add_text(self.description)
        (commands,) = choosers(self)
        for group in GROUPS:
            formatter.start_section(group)
            formatter.add_arguments(c for c in commands._choices_actions if group_of(c.dest) == group)
            formatter.end_section()
        formatter.start_section("options")
        formatter.add_arguments(action for action in self._actions if action is not commands)
        formatter.end_section()
        formatter.add_text("tessera COMMAND --help says more of each, with examples.")
        return formatter.format_help()


def group_of(name: str) -> str:
    """Those of other packages are for developers."""
    return COMMANDS[name].group if name in COMMANDS else DEVELOPER


class Command(Protocol):
    """A file of this folder."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Its flags."""

    def run(self, options: argparse.Namespace) -> int:
        """Runs it; the exit code."""


def whole_parser() -> argparse.ArgumentParser:
    """With the arguments of all commands: for completion, manuals and references."""
    return _parser(COMMANDS, plugged_in=True)


def _parser(loaded: Collection[str], *, plugged_in: bool) -> argparse.ArgumentParser:
    """With the arguments of the commands that are ``loaded``; ``plugged_in``: of those of other packages."""
    parser = _Tessera(prog="tessera", description="Secure multi-party computation on secret-shared tensors.")
    parser.add_argument("--version", action="version", version=f"tessera {package_version()}")
    parser.add_argument("-v", "--verbose", action="store_true", help="log what happens to stderr")
    parser.set_defaults(opaque=False)
    commands = parser.add_subparsers(required=True, metavar="COMMAND", parser_class=_Parser)
    for name, described in COMMANDS.items():
        subparser = commands.add_parser(name, help=described.help, description=sentence(described.help))
        if name in loaded:
            command = _loaded(name)
            command.add_arguments(subparser)
            add_examples(subparser, *described.examples)
            subparser.set_defaults(run=command.run, opaque=True)
    if plugged_in:
        for entry in importlib.metadata.entry_points(group="tessera.commands"):
            adder: Adder = entry.load()
            adder(commands)
    return parser


def parser_for(arguments: Sequence[str]) -> argparse.ArgumentParser:
    """A command loads what it needs itself, and nobody else's: a server starts in spite of a broken one."""
    chosen = next((argument for argument in arguments if not argument.startswith("-")), "")
    ours = {chosen} & set(COMMANDS)
    return _parser(ours, plugged_in=not ours)


def _loaded(name: str) -> Command:
    return cast(Command, importlib.import_module(f"parties.commands.{name}"))


if __name__ == "__main__":
    sys.exit(main())
