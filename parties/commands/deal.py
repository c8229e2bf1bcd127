"""``tessera deal``: preprocessing ahead of time, so that a prediction waits for no dealing."""

from __future__ import annotations

import argparse
import json

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from mpc.errors import UsageError
from parties.client.async_client import AsyncClient
from parties.client.report import StockReport
from parties.commands.arguments import client_arguments
from parties.commands.as_client import run_as_client
from parties.commands.chosen import chosen_model
from parties.commands.objective import add_objective_argument


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of ``tessera deal``."""
    parser.add_argument("--model", help="name of a model stored on the parties (default: the only one there)")
    parser.add_argument("--count", type=int, required=True, help="for how many predictions of this client")
    parser.add_argument("--batch", type=int, default=1, help="images per prediction (default: 1)")
    parser.add_argument(
        "--low-water", type=int, default=0, metavar="N", help="from now on, deal up to COUNT again when fewer are left"
    )
    add_objective_argument(parser)
    client_arguments(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(options: argparse.Namespace) -> int:
    """The exit code."""
    return run_as_client(deal, options)


async def deal(client: AsyncClient, options: argparse.Namespace) -> int:
    """Deals for ``options.count`` predictions of a batch by a stored model, as ``tessera predict`` asks for them."""
    if options.batch < 1:
        raise UsageError(f"a batch of {options.batch}: a prediction takes one image at least")
    async with client:
        model = await chosen_model(client, options.model)
        shape = model.description.input_shape
        if shape is None:
            raise UsageError(
                f"model {model.name!r} does not say what shape it takes: have its owner upload it with"
                " --samples or --input, or deal with client.stock(...)"
            )
        low, high = model.description.interface.bounds()
        # Values play no part: what is dealt is for any input of this shape and range.
        x = client.share(np.full((options.batch, *shape), low), low=low, high=high, name="inputs")
        console = Console(stderr=True)
        columns = TextColumn("dealing"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
        with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as bar:
            task = bar.add_task("dealing", total=options.count)

            def progress(report: StockReport) -> None:
                bar.update(task, completed=report.done)

            report = await client.stock(model(x), options.count, low_water=options.low_water, progress=progress)
    print(json.dumps({"model": model.name, "batch": options.batch, **report.to_dict()}) if options.json else report)
    return 0
