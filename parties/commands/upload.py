"""``tessera upload``: a model, or a data set, goes to the parties as shares."""

from __future__ import annotations

import argparse
import json
import sys
import time
import warnings
from typing import Self

import msgspec
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from parties.client.async_client import AsyncClient
from parties.client.remote_model import checked_name
from parties.client.request_entries import RequestEntry, State
from parties.client.uploading import UploadProgress
from parties.commands import own
from parties.commands.allow import shown
from parties.commands.arguments import client_arguments
from parties.commands.as_client import run_as_client
from parties.commands.requests import end_of
from protocols import RangeWarning


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of ``tessera upload``."""
    own.add_arguments(parser)
    parser.add_argument("--if-missing", action="store_true", help="leave one of that name that we may use as it is")
    client_arguments(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(options: argparse.Namespace) -> int:
    """The exit code."""
    return run_as_client(upload, options)


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


async def upload(client: AsyncClient, options: argparse.Namespace) -> int:
    """Stores a model, or data; refused, if it is wrong, before we connect."""
    with warnings.catch_warnings(record=True) as doubts:
        warnings.simplefilter("always", RangeWarning)
        what = own.given(options)
    for doubt in doubts:
        print(f"tessera: {doubt.message}", file=sys.stderr)
    wanted = checked_name(what.name if options.name is None else options.name)
    async with client:
        there = await client.models() if options.if_missing else []
        done, ended = UploadProgress(0, 0, 0), list[RequestEntry]()
        mine = client.member.name
        names = [entry for entry in there if wanted in (entry.name, entry.slot) and entry.complete]
        found = min(names, key=lambda entry: entry.owner != mine, default=None)
        if found is None:
            print(f"uploading {wanted} to {len(client.cluster.parties)} parties", file=sys.stderr)
            with UploadBar() as bar:
                remote = await client.upload(what.secret, wanted, progress=bar.show)
            name, owner, version = remote.name, remote.owner, remote.version
            rules, done = await client.rules(name), bar.progress
            # What was approved of the former one, perhaps.
            ended = [e for e in await client.requests() if e.state is State.ENDED and remote.slot in e.slots]
        else:
            name, owner, version, rules = found.name, found.owner, found.version, found.rules
    if options.json:
        said = {"name": name, "owner": owner, "version": version, "uploaded": found is None}
        said["allowed"] = [msgspec.to_builtins(rule) for rule in rules]
        said["ended"] = [entry.to_dict() for entry in ended]
        said["warnings"] = [str(doubt.message) for doubt in doubts]
        print(json.dumps({**said, "bytes": done.total, "resumed_bytes": done.resumed}))
    elif found is None:
        if done.resumed:
            print(f"an upload of it that was not complete went on: {done.resumed:,} of {done.total:,} bytes were there")
        nobody = f"nobody but {owner} may use it until `tessera allow` says so"
        print(f"{name} is stored, version {version[:8]}: {'may use it: ' + shown(rules) if rules else nobody}")
        print("".join(f"{line}\n" for line in map(end_of, ended)), end="")
    else:
        print(f"{name} is there, version {version[:8]} of {owner}: nothing was uploaded")
    return 0
