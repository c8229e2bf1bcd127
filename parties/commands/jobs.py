"""``tessera jobs``: trainings that go on by themselves, how far they are, what they reveal; and the end of one."""

from __future__ import annotations

import argparse
import json

from mpc.errors import UsageError
from parties.client.async_client import AsyncClient
from parties.client.progress import Progress
from parties.client.training_job import Standing, TrainingJob
from parties.commands.arguments import client_arguments
from parties.commands.as_client import run_as_client
from parties.commands.page import check_page, page_arguments, serve
from parties.commands.training_bar import TrainingBar, curves, line


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of ``tessera jobs``."""
    parser.add_argument(
        "name", nargs="?", metavar="NAME", help="of the network, or the beginning of the job's id: its checkpoints"
    )
    client_arguments(parser)
    parser.add_argument("--follow", action="store_true", help="go on: print each checkpoint as soon as it is there")
    parser.add_argument("--stop", action="store_true", help="have it end, with what it has come to")
    parser.add_argument("--resume", action="store_true", help="have what is left of it go on, if it has ended")
    parser.add_argument("--json", action="store_true", help="print a JSON object on a line for each job and checkpoint")
    page = parser.add_argument_group("a page in a browser on this machine, of all of them")
    page.add_argument("--page", action="store_true", help="serve it: curves as they come, and buttons")
    page_arguments(page)


def run(options: argparse.Namespace) -> int:
    """The exit code."""
    return run_as_client(jobs, options)


async def jobs(client: AsyncClient, options: argparse.Namespace) -> int:
    """Lists them, or says what became of one.  Raises what one that is followed has failed with."""
    if options.page:
        return await _page(client, options)
    async with client:
        if options.name is None:
            if options.follow or options.stop or options.resume:
                raise UsageError("say which: tessera jobs NAME --follow, --stop, or --resume")
            for job, standing in await client.standings():
                _print(job, standing, json_line=options.json)
            return 0
        if options.stop and options.resume:
            raise UsageError("it is stopped, or it goes on: not both")
        job = await client.job(options.name)
        if options.stop:
            await job.stop()
        if options.resume:
            job = await job.resume()
        made = list[Progress]()
        if options.follow:
            made = await followed(job, json_lines=options.json)
        elif job.own:
            own = await job.progress()
            if options.json:
                print("".join(f"{json.dumps(each.to_dict())}\n" for each in own), end="")
            made = [*await job.before(), *own]
        if not options.json:
            print("".join(f"{shown}\n" for shown in curves(made)), end="")
        _print(job, await job.standing(), json_line=options.json)
    return 0


async def followed(job: TrainingJob, *, json_lines: bool, known: int = 0) -> list[Progress]:
    """Each checkpoint after the first ``known`` as soon as it is there: in a terminal a bar with a curve, elsewhere a
    line each, or a JSON object; and with them all that were before, of this job and of those that it goes on from.
    Raises what the job has failed with.
    """
    order = job.order
    made = [*await job.before(), *(await job.progress())[:known]] if job.own else list[Progress]()
    total = (order.first + order.checkpoints) * order.steps
    with TrainingBar(total, (order.first + known) * order.steps) as bar:
        if made:
            bar.show(made)
        async for each in job.follow(known):
            made.append(each)
            bar.show(made)
            if json_lines:
                print(json.dumps(each.to_dict()), flush=True)
            elif not bar.live:
                print(line(each), flush=True)
    return made


async def _page(client: AsyncClient, options: argparse.Namespace) -> int:
    """Until SIGINT or SIGTERM.  Raises ConfigurationError, UsageError, and PeerError where the dealer is away."""
    check_page("tessera jobs --page", options)
    from parties.pages.trainings import TrainingsPage

    if options.name is not None or options.follow or options.stop or options.resume:
        raise UsageError("a page shows all trainings, and has buttons: give --page without a name, --stop or --resume")
    async with client:
        await client.standings()
        await serve(TrainingsPage(client), options)
    return 0


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
