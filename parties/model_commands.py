"""``tessera models``, ``tessera allow`` and ``tessera rm``."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Sequence

from mpc.errors import UsageError
from parties.client import AsyncClient
from parties.cluster import Cluster
from parties.keys import KeyPair
from parties.policy import EVERYONE, PREDICT
from parties.stored_models import ModelEntry


async def models(cluster: Cluster, keys: KeyPair, options: argparse.Namespace) -> int:
    """Lists what is stored on the parties."""
    async with AsyncClient(cluster, keys, connect_timeout=options.timeout) as client:
        entries = await client.models()
    if options.json:
        print(json.dumps({"cluster": cluster.name, "models": [entry.to_dict() for entry in entries]}))
    elif entries:
        print(_table(entries))
    else:
        print("no models are stored: upload one with client.upload(model, name)")
    return 0


async def remove(cluster: Cluster, keys: KeyPair, options: argparse.Namespace) -> int:
    """Removes models of the caller's, one after the other."""
    async with AsyncClient(cluster, keys, connect_timeout=options.timeout) as client:
        for name in options.names:
            await client.remove(name)
            if not options.json:
                print(f"{name} is removed")
    if options.json:
        print(json.dumps({"removed": options.names}))
    return 0


async def allow(cluster: Cluster, keys: KeyPair, options: argparse.Namespace) -> int:
    """Says who may run what on a model of the caller's."""
    if options.nothing and options.programs:
        raise UsageError("--nothing and --program exclude each other")
    programs = [] if options.nothing else options.programs or [PREDICT]
    async with AsyncClient(cluster, keys, connect_timeout=options.timeout) as client:
        await client.allow(options.name, options.client, programs)
    if options.json:
        print(json.dumps({"name": options.name, "client": options.client, "programs": programs}))
    else:
        who = "every client" if options.client == EVERYONE else options.client
        print(f"{who} may run on {options.name}: {', '.join(programs) or 'nothing'}")
    return 0


def _table(entries: Sequence[ModelEntry]) -> str:
    head = ("name", "owner", "version", "uploaded (UTC)", "parameters", "on disk", "allowed")
    rows = [head, *(_row(entry) for entry in entries)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    partial = [entry for entry in entries if not entry.complete]
    lines += [f"{e.name} {e.version[:8]} is at {', '.join(e.held_by)} alone: upload it again" for e in partial]
    return "\n".join(lines)


def _row(entry: ModelEntry) -> tuple[str, ...]:
    when = entry.when.strftime("%Y-%m-%d %H:%M:%S")
    size = f"{entry.stored_bytes / 1e3:,.1f} KB"
    allowed = "; ".join(f"{client}: {_short(programs)}" for client, programs in sorted(entry.allowed.items()))
    return entry.name, entry.owner, entry.version[:8], when, f"{entry.parameters:,}", size, allowed


def _short(programs: Iterable[str]) -> str:
    return ", ".join(sorted(program[:8] for program in programs))
