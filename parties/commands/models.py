"""``tessera models``: what is stored on the parties."""

from __future__ import annotations

import argparse
import contextlib
import json
from collections.abc import Sequence

from mpc.errors import PeerError
from parties.client.async_client import AsyncClient
from parties.client.queries import ModelEntry, left_behind
from parties.client.request_entries import RequestEntry, State
from parties.commands.allow import shown
from parties.commands.arguments import client_arguments
from parties.commands.as_client import run_as_client
from parties.commands.requests import end_of
from parties.stored.joint import called


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of ``tessera models``."""
    client_arguments(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(options: argparse.Namespace) -> int:
    """The exit code."""
    return run_as_client(models, options)


async def models(client: AsyncClient, options: argparse.Namespace) -> int:
    """Lists what is stored on the parties."""
    ended: list[RequestEntry] = []
    async with client:
        entries, left = await client.models(), await client.left_behind()
        # What is stored can be listed without the dealer.
        with contextlib.suppress(PeerError):
            ended = [entry for entry in await client.requests() if entry.state is State.ENDED]
    if options.json:
        listed = {"models": [entry.to_dict() for entry in entries], "ended": [entry.to_dict() for entry in ended]}
        print(json.dumps({"cluster": client.cluster.name, **listed, "left_behind": left}))
        return 0
    if entries:
        print(_table(entries))
    elif not left:
        print("nothing is stored that you may use: upload with `tessera upload`, or with client.upload(model, name)")
    for slot in left:
        print(left_behind(slot))
    for entry in ended:
        print(end_of(entry))
    return 0


def _table(entries: Sequence[ModelEntry]) -> str:
    head = ("name", "owner", "version", "uploaded (UTC)", "parameters", "on disk", "allowed")
    rows = [head, *(_row(entry) for entry in entries)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    partial = [entry for entry in entries if not entry.complete]
    lines += [f"{e.name} {e.version[:8]} is at {', '.join(e.held_by)} alone: upload it again" for e in partial]
    lines += [f"who may use {e.name} is not known to all parties yet: allow it again" for e in entries if e.unequal]
    return "\n".join(lines)


def _row(entry: ModelEntry) -> tuple[str, ...]:
    when = entry.when.strftime("%Y-%m-%d %H:%M:%S")
    size = f"{entry.stored_bytes / 1e3:,.1f} KB"
    return entry.name, entry.owner, entry.version[:8], when, f"{entry.parameters:,}", size, _allowed(entry)


def _allowed(entry: ModelEntry) -> str:
    """By its owner; and by each other whose leave it takes as well."""
    others = [f"and by {called(other)}: {shown(rules) or 'nobody'}" for other, rules in entry.others.items()]
    return "; ".join(filter(None, [shown(entry.rules), *others]))
