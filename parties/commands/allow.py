"""``tessera allow``: who may run what on a stored secret of the caller's."""

from __future__ import annotations

import argparse
import json

from mpc.errors import UsageError
from parties.client.async_client import AsyncClient
from parties.cluster import Cluster
from parties.commands.arguments import client_arguments, run_as_client
from parties.keys import KeyPair
from parties.stored.policy import EVERYONE, PREDICT, SCHEMA


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of ``tessera allow``."""
    parser.add_argument("name", metavar="NAME", help="the model's")
    parser.add_argument("client", metavar="CLIENT", help="as in the cluster file; '*' for every client")
    parser.add_argument(
        "--program", action="append", dest="programs", metavar="P",
        help="predict (the default), a program's digest, or any, which lets the weights be revealed; may be repeated",
    )  # fmt: skip
    parser.add_argument(
        "--schema", action="store_true",
        help="it may know names, shapes and ranges, and ask to run programs; alone, it may run none",
    )  # fmt: skip
    parser.add_argument("--nothing", action="store_true", help="take back what was allowed")
    client_arguments(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(options: argparse.Namespace) -> int:
    """The exit code."""
    return run_as_client(allow, options)


async def allow(cluster: Cluster, keys: KeyPair, options: argparse.Namespace) -> int:
    """Says who may run what on a model of the caller's."""
    if options.nothing and (options.programs or options.schema):
        raise UsageError("--nothing excludes --program and --schema")
    programs = options.programs or ([] if options.nothing or options.schema else [PREDICT])
    programs = [*programs, SCHEMA] if options.schema else programs
    async with AsyncClient(cluster, keys, connect_timeout=options.timeout) as client:
        await client.allow(options.name, options.client, programs)
    if options.json:
        print(json.dumps({"name": options.name, "client": options.client, "programs": programs}))
    else:
        who = "every client" if options.client == EVERYONE else options.client
        print(f"{who} may run on {options.name}: {', '.join(programs) or 'nothing'}")
    return 0
