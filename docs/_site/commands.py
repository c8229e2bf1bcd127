"""The command reference, read out of the parsers that the command itself uses: nothing is copied by hand."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Iterator
from unittest import mock

from parties.commands.catalogue import GROUPS
from parties.commands.command_line import group_of, whole_parser
from parties.commands.examples import choosers, sentence

WIDTH = "88"
INTRODUCTION = """\
# Commands

`tessera COMMAND --help` says the same. What a command exits with is among the [exit codes](../exit-codes.md).
"""


def page() -> str:
    """In Markdown."""
    # The width that usage is wrapped at is the terminal's.
    with mock.patch.dict(os.environ, {"COLUMNS": WIDTH, "NO_COLOR": "1"}):
        whole = whole_parser()
        parts = [INTRODUCTION, *_options(whole)]
        for group in GROUPS:
            parts.append(f"## {group.capitalize()}")
            for name, line in commands(whole):
                if group_of(name) == group:
                    parts += [f"### tessera {name}", *_described(subparsers(whole)[name], line, 4)]
    return "\n\n".join(parts) + "\n"


def commands(parser: argparse.ArgumentParser) -> list[tuple[str, str]]:
    """Names and what they are for, in the order of ``--help``."""
    return [(line.dest, line.help or "") for action in choosers(parser) for line in action._choices_actions]


def subparsers(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """By name."""
    return {name: sub for action in choosers(parser) for name, sub in action.choices.items()}


def _described(parser: argparse.ArgumentParser, line: str, level: int) -> Iterator[str]:
    """What it is for, usage, options, examples, and the commands below it."""
    yield plain(sentence(line))
    if parser.description and parser.description != sentence(line):
        yield plain(parser.description)
    usage = parser.format_usage().removeprefix("usage: ").rstrip()
    yield f"```text\n{re.sub(r'^       ', '', usage, flags=re.MULTILINE)}\n```"
    yield from _options(parser)
    if parser.epilog:
        yield f"```text\n{parser.epilog.strip()}\n```"
    for name, about in commands(parser):
        yield f"{'#' * level} {parser.prog} {name}"
        yield from _described(subparsers(parser)[name], about, level + 1)


def _options(parser: argparse.ArgumentParser) -> Iterator[str]:
    """A definition list, which a phone can show."""
    formatter = parser._get_formatter()
    for action in parser._actions:
        if isinstance(action, (argparse._SubParsersAction, argparse._HelpAction)) or action.help == argparse.SUPPRESS:
            continue
        said = formatter._format_action_invocation(action)
        helped = plain(sentence(" ".join(formatter._expand_help(action).split()))) if action.help else "-"
        yield f"`{said}`\n:   {helped}"


def plain(text: str) -> str:
    """With all that Markdown would take for its own taken literally."""
    return re.sub(r"([\\`*_{}\[\]<>#|])", r"\\\1", text)
