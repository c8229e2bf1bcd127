"""What the help of a command says beside its flags: a sentence, calls to copy, and the commands below it."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any


def add_examples(parser: argparse.ArgumentParser, *examples: tuple[str, str]) -> None:
    """At the end of its help: calls, each with what it does."""
    lines = "\n".join(f"  {call}\n      {what}" for call, what in examples)
    parser.epilog = f"examples:\n{lines}"
    parser.formatter_class = argparse.RawDescriptionHelpFormatter


def sentence(words: str) -> str:
    """With a capital, and an end."""
    return words[:1].upper() + words[1:] + ("" if words.endswith(("?", "!", ".")) else ".")


def choosers(parser: argparse.ArgumentParser) -> Iterator[argparse._SubParsersAction[Any]]:
    """What chooses among the commands below it, if it has any."""
    return (action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
