"""``tessera init``, its arguments and its questions: what the flags leave open is asked for on a terminal."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

from mpc.errors import ConfigurationError, UsageError
from mpc.security import Security
from parties.commands.init.plan import DEFAULT_PORTS, Plan, write
from parties.members.cluster import DEALER, Role

Ask = Callable[[str], str]
"""Shows a question, and returns the line that was typed."""

Answer = TypeVar("Answer")

DEFAULT_PARTIES = 3


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of ``tessera init``."""
    parser.add_argument("--name", help="what to call the cluster")
    parser.add_argument("--dealer", metavar="ADDRESS", help="HOST[:PORT] of the dealer (port: 7000)")
    parser.add_argument(
        "--party",
        action="append",
        metavar="NAME=ADDRESS",
        help="a party, HOST[:PORT] (port: 7001); the first is party 0",
    )
    parser.add_argument("--client", action="append", metavar="NAME", help="a client; it needs no address")
    parser.add_argument(
        "--public-key",
        action="append",
        default=[],
        metavar="NAME=KEY",
        help="a member's public key, from `tessera keygen` on its own host, in single quotes; recommended for every"
        " member: for the others, key pairs are made here",
    )
    parser.add_argument(
        "--listen",
        action="append",
        default=[],
        metavar="NAME=ADDRESS",
        help="HOST:PORT that a server binds, where others reach it at another address",
    )
    parser.add_argument("--security", choices=[str(one) for one in Security], help="(default: semi-honest)")
    parser.add_argument(
        "--out", type=Path, default=Path(), metavar="DIR", help="folder to write to (default: this one)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(options: argparse.Namespace) -> int:
    """Write a cluster file and keys as the flags say; asks for what is missing if stdin is a terminal."""
    asks = sys.stdin.isatty() and None in (options.name, options.dealer, options.party)
    plan = Plan()
    if asks:
        _converse(plan, options, _ask_terminal)
    else:
        _from_flags(plan, options)
    made = write(plan, options.out)
    if options.json:
        print(json.dumps(made.to_dict()))
    else:
        print(made)
        for warning in made.warnings:
            print(f"warning: {warning}", file=sys.stderr)
    return 0


def _from_flags(plan: Plan, options: argparse.Namespace) -> None:
    """Raises ConfigurationError for what is missing, double or malformed."""
    missing = [f"--{flag}" for flag in ("name", "dealer", "party") if getattr(options, flag) is None]
    if missing:
        raise ConfigurationError(
            f"{' and '.join(missing)} missing: give it, or run `tessera init` on a terminal to be asked"
        )
    plan.call(options.name)
    _given_members(plan, options)
    _given_details(plan, options)


def _given_members(plan: Plan, options: argparse.Namespace) -> None:
    if options.dealer is not None:
        plan.add(DEALER, Role.DEALER, options.dealer)
    for name, address in _pairs("--party", "NAME=ADDRESS", options.party or []):
        plan.add(name, Role.PARTY, address)
    for name in options.client or []:
        plan.add(name, Role.CLIENT)


def _given_details(plan: Plan, options: argparse.Namespace) -> None:
    if options.security is not None:
        plan.secure(options.security)
    for name, address in _pairs("--listen", "NAME=ADDRESS", options.listen):
        plan.listen(name, address)
    for name, key in _pairs("--public-key", "NAME=KEY", options.public_key):
        if plan.entry(name).key is not None:
            raise ConfigurationError(f"--public-key is given twice for {name}: give it once")
        plan.give_key(name, key)


def _pairs(flag: str, form: str, given: list[str]) -> list[tuple[str, str]]:
    """Split at the first ``=``: keys may have more of them."""
    pairs = []
    for text in given:
        name, found, value = text.partition("=")
        if not found or not name or not value:
            raise ConfigurationError(f"{flag} {text!r} is not {form}: write it so")
        pairs.append((name, value))
    return pairs


# -- asking --------------------------------------------------------------------------------------------------------


def _converse(plan: Plan, options: argparse.Namespace, ask: Ask) -> None:
    """Ask for whatever the flags do not say."""
    if options.name is None:
        _until_good(ask, "Name of the cluster", "tessera", plan.call)
    else:
        plan.call(options.name)
    _given_members(plan, options)
    if options.dealer is None:
        _ask_address(plan, ask, DEALER, Role.DEALER)
    if options.party is None:
        for index in range(_until_good(ask, "How many parties", str(DEFAULT_PARTIES), _at_least(2))):
            name = _ask_name(plan, ask, f"Name of party {index}", f"party{index}")
            _ask_address(plan, ask, name, Role.PARTY)
    if options.client is None:
        for index in range(_until_good(ask, "How many clients", "1", _at_least(0))):
            name = _ask_name(plan, ask, f"Name of client {index}", "client" if index == 0 else f"client{index}")
            plan.add(name, Role.CLIENT)
    if options.security is None:
        _until_good(ask, f"Security, {' or '.join(Security)}", str(plan.security), plan.secure)
    _given_details(plan, options)
    _ask_keys(plan, ask)


def _ask_name(plan: Plan, ask: Ask, question: str, default: str) -> str:
    def check(name: str) -> str:
        plan.check_name(name)
        return name

    return _until_good(ask, question, default, check)


def _ask_address(plan: Plan, ask: Ask, name: str, role: Role) -> None:
    question = f"Address of {name}, HOST[:PORT] (port {DEFAULT_PORTS[role]} if none is given)"
    _until_good(ask, question, None, lambda address: plan.add(name, role, address))


def _ask_keys(plan: Plan, ask: Ask) -> None:
    if all(entry.key is not None for entry in plan.members):
        return
    _say(
        "Recommended: each member runs `tessera keygen NAME` on its own host and gives its public key, so that nobody "
        "holds another's private key.  Leave a key empty to have a pair made here."
    )
    for role in (Role.DEALER, Role.PARTY, Role.CLIENT):
        for entry in plan.of(role):
            if entry.key is None:
                _until_good(ask, f"Public key of {entry.name}", "", partial(_take_key, plan, entry.name))


def _take_key(plan: Plan, name: str, key: str) -> None:
    if key:
        plan.give_key(name, key)


def _at_least(least: int) -> Callable[[str], int]:
    def check(text: str) -> int:
        if not text.isascii() or not text.isdigit() or not least <= int(text) <= 1000:
            raise ConfigurationError(f"{text!r} is not a number from {least} to 1000")
        return int(text)

    return check


def _until_good(ask: Ask, question: str, default: str | None, take: Callable[[str], Answer]) -> Answer:
    """The first answer that ``take`` does not refuse; nothing typed is the default, if there is one."""
    hint = f" [{default}]" if default else ""
    while True:
        text = ask(f"{question}{hint}: ").strip()
        if not text and default is None:
            _say("  there is no default: type an answer")
            continue
        try:
            return take(text or default or "")
        except ConfigurationError as error:
            _say(f"  {error}")


def _ask_terminal(question: str) -> str:
    """On stderr: stdout is for the result."""
    print(question, end="", file=sys.stderr, flush=True)
    line = sys.stdin.readline()
    if not line:
        raise UsageError("the input ended before all questions were answered: nothing was written")
    return line


def _say(text: str) -> None:
    print(text, file=sys.stderr)
