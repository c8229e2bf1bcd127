"""What ``tessera train NETWORK`` does: a network learns from data sets that are stored, of their owners' leave."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys

from mpc.errors import UsageError
from nn.losses import BCEWithLogitsLoss, CrossEntropyLoss, Loss, MSELoss
from nn.model import Model
from nn.optimizers import SGD
from parties.client.async_client import AsyncClient
from parties.client.mixing import mixed
from parties.client.training import rows_of
from parties.client.training_arguments import Options, Trainable
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
    if (options.network is None) == (options.begin is None) or not options.learn:
        raise UsageError(
            "say what is to be trained, and on which data: tessera train net.safetensors --learn OWNER/NAME, or"
            " --begin OWNER/NAME for a network that is stored"
        )
    begin = f"{(options.begin or '').rpartition('/')[2]}-tuned"
    name = options.name or (begin if options.network is None else options.network.stem)
    how = Options(
        epochs=options.epochs, batch=options.batch, losses=options.losses, only=options.only, order=options.order
    )
    if options.steps is not None:
        how["steps"] = options.steps
    optimizer = SGD(lr=options.lr, momentum=options.momentum)
    async with client:
        data = [await client.data(each) for each in options.learn]
        if options.check:
            how["validate"] = [await client.data(each) for each in options.check]
        if options.order == "secret" and not await _is_there(client, rows_of(name)):
            print("all rows are put in an order that nobody knows, before the first step", file=sys.stderr)
            if options.why is not None:
                await _asked(client, mixed(data), options.why)
        model: Trainable
        if options.network is not None:
            model = await asyncio.to_thread(Model.load, options.network)
        else:
            model = await client.model(options.begin)
            if options.why is not None and not await _is_there(client, name):
                begun = await client.beginning(model, data, LOSSES[options.loss], optimizer, name=name, **how)
                await _asked(client, begun, options.why)
        training = await client.training(model, data, LOSSES[options.loss], optimizer, name=name, **how)
        if options.why is not None:
            await _asked(client, training.kept, options.why)
        if options.ahead is not None:
            report = await client.stock(training, options.ahead)
            print(json.dumps({"name": name, **report.to_dict()}) if options.json else report)
            return 0
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


async def _is_there(client: AsyncClient, name: str) -> bool:
    return any(entry.name == name and entry.owner == client.member.name for entry in await client.models())


async def _asked(client: AsyncClient, kept: Kept, why: str) -> None:
    """Returns once all owners have said yes.  Raises NotPermitted when one has said no."""
    digest = await client.request(kept, why)
    print(f"asked for leave: `tessera show {digest[:8]}` and `approve` are the owners'", file=sys.stderr)
    await client.approved(digest)
