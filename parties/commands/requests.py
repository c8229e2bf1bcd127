"""``tessera requests``: what others ask of us, what we have asked of others, and what became of it."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator

from parties.client.async_client import AsyncClient
from parties.client.request_entries import RequestEntry, State
from parties.commands.arguments import client_arguments
from parties.commands.as_client import run_as_client


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of ``tessera requests``."""
    client_arguments(parser)
    parser.add_argument(
        "--follow", action="store_true", help="go on: print each one anew as soon as something becomes of it"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object; with --follow one on each line")


def run(options: argparse.Namespace) -> int:
    """The exit code."""
    return run_as_client(requests, options)


async def requests(client: AsyncClient, options: argparse.Namespace) -> int:
    """Lists them, first those that wait for our decision."""
    if options.follow:
        return await follow(client, json_lines=options.json)
    async with client:
        entries, us = await client.requests(), client.member.name
    asked, ours = [e for e in entries if e.client != us], [e for e in entries if e.client == us]
    if options.json:
        said = {"mine_to_decide": asked, "mine_asked": ours}
        print(json.dumps({head: [entry.to_dict() for entry in found] for head, found in said.items()}))
        return 0
    if not entries:
        print("nobody asks anything of us, and we of nobody: `tessera request` asks")
    for head, found in (("yours to decide", asked), ("yours", ours)):
        if found:
            print("\n".join([f"{head}:", *(line for entry in found for line in lines(entry))]))
    return 0


async def follow(client: AsyncClient, *, json_lines: bool) -> int:
    """For ever."""
    async with client:
        async for entry in client.follow():
            heading = "yours" if entry.client == client.member.name else "yours to decide"
            text = json.dumps(entry.to_dict()) if json_lines else "\n".join((f"{heading}:", *lines(entry)))
            print(text, flush=True)
    return 0


def lines(entry: RequestEntry) -> Iterator[str]:
    """A request, for a person."""
    yield f"  {entry.program}  {entry.state}"
    yield f"    {entry.client}, {entry.when:%Y-%m-%d %H:%M:%S} UTC: {entry.why}"
    yield f"    reads {', '.join(entry.slots)}"
    for owner, standing in entry.standings.items():
        yield f"    {owner}: {standing.state}{f' ({standing.note})' if standing.note else ''}"
    yield from (f"    {line}" for line in entry.depends)
    if entry.missing:
        yield f"    NOT shown so by {', '.join(entry.missing)}: ask there why"


def end_of(entry: RequestEntry) -> str:
    """Of one whose approval has ended, how."""
    notes = ", ".join(standing.note for standing in entry.standings.values() if standing.state is State.ENDED)
    return f"what {entry.client} might run as {entry.program[:8]} has ended: {notes}"
