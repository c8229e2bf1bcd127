"""``tessera upload``, ``tessera models``, ``tessera allow`` and ``tessera rm``."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterable, Sequence
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from mpc.errors import UsageError
from parties.client.async_client import AsyncClient
from parties.client.queries import ModelEntry
from parties.client.remote_model import Uploadable
from parties.client.uploading import UploadProgress
from parties.cluster import Cluster
from parties.commands.chosen import installed_model
from parties.keys import KeyPair
from parties.stored.data_set import DataSet
from parties.stored.policy import EVERYONE, PREDICT


class UploadBar:
    """Shows on stderr, if that is a terminal, how far an upload is, once it has taken a second."""

    def __init__(self) -> None:
        self._started = time.monotonic()
        console = Console(stderr=True)
        columns = TextColumn("uploading"), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn()
        self._bar = Progress(*columns, console=console, disable=not console.is_terminal, transient=True)
        self._task = self._bar.add_task("uploading", total=None)
        self.progress = UploadProgress(0, 0, 0)
        """The last that was shown."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def show(self, progress: UploadProgress) -> None:
        """As ``AsyncClient.upload`` calls it."""
        self.progress = progress
        if time.monotonic() - self._started > 1:
            self._bar.start()
        self._bar.update(self._task, completed=progress.done, total=progress.total)


async def upload(cluster: Cluster, keys: KeyPair, options: argparse.Namespace) -> int:
    """Stores a model that came with an installed package, or data; refused, if it is wrong, before we connect."""
    secret = _secret(options)
    async with AsyncClient(cluster, keys, connect_timeout=options.timeout) as client:
        there = await client.models() if options.if_missing else []
        done = UploadProgress(0, 0, 0)
        found = next((entry for entry in there if entry.name == options.name and entry.complete), None)
        if found is None:
            print(f"uploading {options.name} to {len(cluster.parties)} parties", file=sys.stderr)
            with UploadBar() as bar:
                remote = await client.upload(secret, options.name, progress=bar.show)
            name, owner, version = remote.name, remote.owner, remote.version
            done = bar.progress
        else:
            name, owner, version = found.name, found.owner, found.version
    if options.json:
        said = {"name": name, "owner": owner, "version": version, "uploaded": found is None}
        print(json.dumps({**said, "bytes": done.total, "resumed_bytes": done.resumed}))
    elif found is None:
        if done.resumed:
            print(f"an upload of it that was not complete went on: {done.resumed:,} of {done.total:,} bytes were there")
        print(f"{name} is stored, version {version[:8]}: nobody but {owner} may use it until `tessera allow` says so")
    else:
        print(f"{name} is there, version {version[:8]} of {owner}: nothing was uploaded")
    return 0


def _secret(options: argparse.Namespace) -> Uploadable:
    """What the options say is to be stored.  Raises UsageError."""
    if options.data is None:
        if options.range is not None:
            raise UsageError("--range goes with --data: a model's bounds are found out")
        return installed_model(options.model, options.weights)
    if options.weights is not None:
        raise UsageError("--data and --weights exclude each other")
    if options.range is None:
        raise UsageError("--data needs --range LOW HIGH, in which all values lie: it becomes public")
    low, high = options.range
    return DataSet.load(options.data, low=low, high=high)


async def models(cluster: Cluster, keys: KeyPair, options: argparse.Namespace) -> int:
    """Lists what is stored on the parties."""
    async with AsyncClient(cluster, keys, connect_timeout=options.timeout) as client:
        entries = await client.models()
    if options.json:
        print(json.dumps({"cluster": cluster.name, "models": [entry.to_dict() for entry in entries]}))
    elif entries:
        print(_table(entries))
    else:
        print("no models are stored: upload one with `tessera upload`, or with client.upload(model, name)")
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
