"""What the help of a command says beside its flags: a sentence, and calls to copy."""

from __future__ import annotations

import argparse


def add_examples(parser: argparse.ArgumentParser, *examples: tuple[str, str]) -> None:
    """At the end of its help: calls, each with what it does."""
    lines = "\n".join(f"  {call}\n      {what}" for call, what in examples)
    parser.epilog = f"examples:\n{lines}"
    parser.formatter_class = argparse.RawDescriptionHelpFormatter


def sentence(words: str) -> str:
    """With a capital, and an end."""
    return words[:1].upper() + words[1:] + ("" if words.endswith(("?", "!", ".")) else ".")
