"""``tessera completion``: what a shell needs to complete commands, flags and files; made of the parsers, by shtab."""

from __future__ import annotations

import argparse
import json

from mpc.errors import ConfigurationError
from parties.commands.examples import choosers

SHELLS = ("bash", "zsh", "fish")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of ``tessera completion``."""
    parser.add_argument("shell", choices=SHELLS, help="which shell")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(options: argparse.Namespace) -> int:
    """Prints the script.  Raises ConfigurationError if shtab is missing."""
    from parties.commands.command_line import whole_parser

    try:
        import shtab
    except ImportError:
        raise ConfigurationError("tessera completion needs shtab: pip install 'tessera-mpc[completion]'") from None
    script = shtab.complete(with_files(whole_parser()), options.shell)
    print(json.dumps({"shell": options.shell, "script": script}) if options.json else script)
    return 0


def with_files(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """Whatever is a path completes as one."""
    import shtab

    for action in parser._actions:
        if getattr(action.type, "__name__", "") == "Path":
            action.complete = shtab.FILE  # type: ignore[attr-defined]  # where shtab looks for it
    for chooser in choosers(parser):
        for each in chooser.choices.values():
            with_files(each)
    return parser
