"""``tessera allow``: who may run what on a stored secret of the caller's."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence

from mpc.errors import UsageError
from parties.client.async_client import AsyncClient
from parties.commands.arguments import client_arguments
from parties.commands.as_client import run_as_client
from parties.messages.rules import EVERYONE, Rule
from parties.stored.policy import PREDICT, SCHEMA


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of ``tessera allow``."""
    parser.add_argument(
        "name", metavar="NAME", help="the model's, or the data set's; or OWNER/NAME, of what is jointly yours"
    )
    parser.add_argument("client", metavar="CLIENT", help="as in the cluster file; '*' for every client")
    parser.add_argument(
        "--program", action="append", dest="programs", metavar="P",
        help="predict (the default), a program's digest, or any, which lets the weights be revealed; may be repeated",
    )  # fmt: skip
    parser.add_argument(
        "--schema", action="store_true",
        help="it may know names, shapes and ranges, and ask to run programs; alone, it may run none",
    )  # fmt: skip
    for flag, what in (("--runs", "in all"), ("--per-day", "on one day (UTC)"), ("--per-client", "for each client")):
        parser.add_argument(flag, type=int, metavar="N", help=f"at most N runs {what}, counted from now on")
    parser.add_argument("--nothing", action="store_true", help="take back what was allowed")
    client_arguments(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(options: argparse.Namespace) -> int:
    """The exit code."""
    return run_as_client(allow, options)


async def allow(client: AsyncClient, options: argparse.Namespace) -> int:
    """Says who may run what on a model of the caller's."""
    limits = {"runs": options.runs, "per_day": options.per_day, "per_client": options.per_client}
    limits = {limit: number for limit, number in limits.items() if number is not None}
    if options.nothing and (options.programs or options.schema or limits):
        raise UsageError("--nothing goes with no other option")
    programs = options.programs or ([] if options.nothing or options.schema else [PREDICT])
    if limits and not programs:
        raise UsageError("limits are of runs, and --schema alone allows none: name programs with --program")
    async with client:
        await client.allow(options.name, options.client, programs, schema=options.schema, **limits)
    schema = [SCHEMA] * options.schema
    if options.json:
        print(json.dumps({"name": options.name, "client": options.client, "programs": [*programs, *schema], **limits}))
    else:
        rules = [str(Rule(options.client, program, 1, **limits)) for program in programs] + schema
        print(f"{whom(options.client)} may run on {options.name}: {'; '.join(rules) or 'nothing'}")
    return 0


def whom(client: str) -> str:
    """As a rule names it, for people."""
    return "every client" if client == EVERYONE else client


def shown(rules: Sequence[Rule]) -> str:
    """Rules in words, in one line."""
    return "; ".join(f"{whom(rule.client)} ({_short(rule)})" for rule in rules)


def _short(rule: Rule) -> str:
    return str(rule).replace(rule.program, rule.program[:8], 1)
