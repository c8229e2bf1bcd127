"""What ``tessera train NETWORK`` does: a network learns from data sets that are stored, of their owners' leave."""

from __future__ import annotations

import argparse
import json
import sys

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from mpc.errors import UsageError
from nn.losses import BCEWithLogitsLoss, CrossEntropyLoss, Loss, MSELoss
from nn.model import Model
from nn.optimizers import SGD
from parties.client.async_client import AsyncClient
from parties.client.progress import Progress as Made
from parties.client.training_arguments import Options
from parties.commands.as_client import run_as_client

LOSSES: dict[str, Loss] = {"cross-entropy": CrossEntropyLoss(), "mse": MSELoss(), "bce": BCEWithLogitsLoss()}


def run(options: argparse.Namespace) -> int:
    """The exit code."""
    return run_as_client(train, options)


async def train(client: AsyncClient, options: argparse.Namespace) -> int:
    """Goes on with what is stored under the name, or begins; a line, or a JSON object, after each checkpoint."""
    if options.network is None or not options.learn:
        raise UsageError(
            "say what is to be trained, and on which data: tessera train net.safetensors --learn OWNER/NAME"
        )
    model, name = Model.load(options.network), options.name or options.network.stem
    how = Options(epochs=options.epochs, batch=options.batch)
    if options.steps is not None:
        how["steps"] = options.steps
    optimizer = SGD(lr=options.lr, momentum=options.momentum)
    async with client:
        data = [await client.data(each) for each in options.learn]
        if options.check:
            how["validate"] = [await client.data(each) for each in options.check]
        training = await client.training(model, data, LOSSES[options.loss], optimizer, name=name, **how)
        if options.why is not None:
            digest = await client.request(training.kept, options.why)
            print(f"asked for leave: `tessera show {digest[:8]}` and `approve` are the owners'", file=sys.stderr)
            await client.approved(digest)
        with _Bar(training.steps * training.checkpoints, training.step) as bar:
            async for made in training:
                bar.show(made)
                if options.json:
                    print(json.dumps(made.to_dict()), flush=True)
                elif made.scores is not None:
                    print(f"{made.step:,} steps: {made.scores.accuracy:.1%} right, {made.scores.balanced:.1%} balanced")
    if options.json:
        print(json.dumps({"name": name, "version": training.model.version, "steps": training.step}))
    else:
        print(
            f"{name} has made {training.step:,} steps, version {training.model.version[:8]}: whoever predicts by it has"
        )
        print("the leave of all whose data it has learnt from, by `tessera allow`")
    return 0


class _Bar:
    """On stderr, if that is a terminal."""

    def __init__(self, steps: int, done: int) -> None:
        console = Console(stderr=True)
        columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
        self._bar = Progress(*columns, console=console, disable=not console.is_terminal, transient=True)
        self._task = self._bar.add_task("training", total=steps, completed=done)

    def __enter__(self) -> _Bar:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def show(self, made: Made) -> None:
        """How far it is."""
        said = "" if made.scores is None else f", {made.scores.balanced:.1%}"
        self._bar.update(self._task, completed=made.step, description=f"training{said}")
