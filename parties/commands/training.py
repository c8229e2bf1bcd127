"""What ``tessera train NETWORK`` does: a network learns from data sets that are stored, of their owners' leave."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence

from mpc.errors import NotPermitted, UsageError
from nn.losses import BCEWithLogitsLoss, CrossEntropyLoss, Loss, MSELoss
from nn.model import Model
from nn.optimizers import SGD
from parties.client.async_client import AsyncClient
from parties.client.mixing import mixed
from parties.client.remote_data import RemoteData
from parties.client.training_arguments import Options
from parties.client.writing import Kept
from parties.commands.as_client import run_as_client
from parties.commands.jobs import followed

LOSSES: dict[str, Loss] = {"cross-entropy": CrossEntropyLoss(), "mse": MSELoss(), "bce": BCEWithLogitsLoss()}


def run(options: argparse.Namespace) -> int:
    """The exit code."""
    return run_as_client(train, options)


async def train(client: AsyncClient, options: argparse.Namespace) -> int:
    """Has it begin or go on, or attaches to what goes on; a line, or a JSON object, after each checkpoint."""
    if options.stop is not None:
        async with client:
            job = await client.job(options.stop)
            await job.stop()
            print(f"{job.name} does not go on: `tessera jobs {job.name}` says how far it has come")
        return 0
    if options.network is None or not options.learn:
        raise UsageError(
            "say what is to be trained, and on which data: tessera train net.safetensors --learn OWNER/NAME"
        )
    model, name = Model.load(options.network), options.name or options.network.stem
    how = Options(epochs=options.epochs, batch=options.batch, losses=options.losses, only=options.only)
    if options.steps is not None:
        how["steps"] = options.steps
    optimizer = SGD(lr=options.lr, momentum=options.momentum)
    async with client:
        data = [await client.data(each) for each in options.learn]
        if options.check:
            how["validate"] = [await client.data(each) for each in options.check]
        if options.order == "secret":
            data = [await _mixed(client, data, f"{name}-rows", options.why)]
        training = await client.training(model, data, LOSSES[options.loss], optimizer, name=name, **how)
        if options.why is not None:
            await _asked(client, training.kept, options.why)
        if training.model.parts < training.checkpoints:
            job = await client.submit(training)
            print(f"the parties go on by themselves: `tessera jobs {name}` says how far they are", file=sys.stderr)
            if options.leave:
                return 0
            await followed(job, json_lines=options.json, known=training.model.parts - job.order.first)
        model_now = await client.model(training.model.slot)
    steps = model_now.parts * training.steps
    if options.json:
        print(json.dumps({"name": name, "version": model_now.version, "steps": steps}))
    else:
        print(f"{name} has made {steps:,} steps, version {model_now.version[:8]}: whoever predicts by it has")
        print("the leave of all whose data it has learnt from, by `tessera allow`")
    return 0


async def _mixed(client: AsyncClient, data: Sequence[RemoteData], name: str, why: str | None) -> RemoteData:
    """All rows together, in an order that nobody knows, as they are stored by now, or will be."""
    together = mixed(data)
    try:
        return await client.data(name)
    except NotPermitted:
        print(f"there is no {name} yet: all rows are put in an order that nobody knows", file=sys.stderr)
    if why is not None:
        await _asked(client, together, why)
    kept = await client.keep(together, name)
    if not isinstance(kept, RemoteData):
        raise UsageError(f"{name!r} is no data set")
    return kept


async def _asked(client: AsyncClient, kept: Kept, why: str) -> None:
    """Returns once all owners have said yes.  Raises NotPermitted when one has said no."""
    digest = await client.request(kept, why)
    print(f"asked for leave: `tessera show {digest[:8]}` and `approve` are the owners'", file=sys.stderr)
    await client.approved(digest)
