"""``tessera jobs``: trainings that go on by themselves, how far they are, what they reveal; and the end of one."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence

from mpc.errors import UsageError
from parties.client.async_client import AsyncClient
from parties.client.jobs import Standing, TrainingJob
from parties.client.progress import Progress
from parties.commands.arguments import client_arguments
from parties.commands.as_client import run_as_client
from parties.commands.curve import curve


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of ``tessera jobs``."""
    parser.add_argument(
        "name", nargs="?", metavar="NAME", help="of the network, or the beginning of the job's id: its checkpoints"
    )
    client_arguments(parser)
    parser.add_argument("--follow", action="store_true", help="go on: print each checkpoint as soon as it is there")
    parser.add_argument("--stop", action="store_true", help="have it end, with what it has come to")
    parser.add_argument("--json", action="store_true", help="print a JSON object on a line for each job and checkpoint")


def run(options: argparse.Namespace) -> int:
    """The exit code."""
    return run_as_client(jobs, options)


async def jobs(client: AsyncClient, options: argparse.Namespace) -> int:
    """Lists them, or says what became of one.  Raises what one that is followed has failed with."""
    async with client:
        if options.name is None:
            if options.follow or options.stop:
                raise UsageError("say which: tessera jobs NAME --follow, or --stop")
            for job in await client.jobs():
                _print(job, await job.standing(), json_line=options.json)
            return 0
        job = await client.job(options.name)
        if options.stop:
            await job.stop()
        made = list[Progress]()
        if options.follow:
            async for each in job.follow():
                made.append(each)
                print(json.dumps(each.to_dict()) if options.json else line(each), flush=True)
        elif job.order.client == client.member.name:
            made = await job.progress()
            if options.json:
                print("\n".join(json.dumps(each.to_dict()) for each in made))
        if not options.json:
            print("".join(f"{shown}\n" for shown in curves(made)), end="")
        _print(job, await job.standing(), json_line=options.json)
    return 0


def line(made: Progress) -> str:
    """A checkpoint, for a person."""
    said = [f"{made.step:,} of {made.steps:,} steps"]
    if made.loss is not None:
        said.append(f"loss {made.loss:.4f}")
    if made.scores is not None:
        said.append(f"{made.scores.accuracy:.1%} right, {made.scores.balanced:.1%} balanced")
    return ", ".join(said)


def curves(made: Sequence[Progress]) -> Iterator[str]:
    """Of what is revealed, from the first checkpoint to the last."""
    losses = [each.loss for each in made if each.loss is not None]
    balanced = [each.scores.balanced for each in made if each.scores is not None]
    if losses:
        yield f"loss      {curve(losses)}  {losses[0]:.4f} to {losses[-1]:.4f}"
    if balanced:
        yield f"balanced  {curve(balanced)}  {balanced[0]:.1%} to {balanced[-1]:.1%}"


def _print(job: TrainingJob, standing: Standing, *, json_line: bool) -> None:
    if json_line:
        print(json.dumps({"job": job.id, "name": job.order.slot, **standing.to_dict()}), flush=True)
        return
    said = f"{job.id[:8]}  {job.order.slot}: {standing.state}, {standing.step:,} of {standing.steps:,} steps"
    if standing.waits_for:
        said += f"; waits for {', '.join(standing.waits_for)}"
    print(said)
    if standing.error is not None:
        print(f"          {standing.error}")
