"""Training over stored data: a chain of runs, each from what the one before has kept of the network to what it keeps.

A run makes the steps up to the next checkpoint, on rows that it draws of the owners' data sets, and keeps the network,
with what its optimizer remembers, in the place of what was there: at all parties or at none (``client.keep``).  So
whoever is killed, at whatever moment, finds the network at the last checkpoint, and the next run makes the same steps,
with the same rows, under masks of its own.

What is there says how far it has come, so a client that went away, or another process of it, goes on from there, and
nothing of the data is drawn twice or left out.  All runs are one program: its owners allow it once, by its digest.

Nothing is revealed on the way but what ``validate`` says: of each class of some rows, how many there are, and how many
of these the network finds.  That is another program, which the owners of all that it reads allow by itself.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from mpc.errors import (
    NoAnswer,
    NotPermitted,
    PeerError,
    PeerLost,
    PeerUnavailable,
    ProgramError,
    RunExpired,
    ServerBusy,
    UsageError,
)
from mpc.program import Program
from nn.losses import Loss
from nn.model import Description, Model
from nn.optimizers import Optimizer
from nn.training import Batch, Recipe, Untrained, initial
from parties.client.mixing import mixed
from parties.client.prepared import Reals
from parties.client.progress import Progress, in_steps, told
from parties.client.remote_data import RemoteData
from parties.client.remote_model import RemoteModel, Uploadable
from parties.client.report import RunReport
from parties.client.training_arguments import Arguments, Options, Rows, Trainable, X, Y, arguments
from parties.client.writing import Kept
from parties.messages.jobs import Revealed
from protocols.lowering.plan import plan
from protocols.readings.drawing import Order
from protocols.trace.secret_tensor import SecretTensor, concatenate, graph_of, stack

ELEMENTS = 1 << 25
"""Of the program of one run, unless the caller chooses: as many steps as fit are made between two checkpoints."""
NODES = 4000
"""And so many nodes: owners are sent the program, and asked about it."""
_TRIES, _PAUSE = 6, 0.5
"""Of a run, when somebody was lost; and s before the second, twice as many before each."""
_PASSING = PeerUnavailable, PeerLost, ServerBusy, RunExpired
"""Failures that may not come again."""


class Trainer(Protocol):
    """What ``AsyncClient`` does for a training."""

    last_run: RunReport | None

    async def model(self, name: str) -> RemoteModel:
        """What is stored under a name."""

    async def data(self, name: str) -> RemoteData:
        """Likewise."""

    async def upload(self, secret: Uploadable, name: str) -> RemoteModel:
        """Stores what there is before the first step."""

    async def keep_telling(self, results: Kept, name: str) -> tuple[RemoteData | RemoteModel, list[Reals]]:
        """One run: what it has kept, and what it reveals."""

    def renew(self, former: RemoteModel, now: RemoteModel) -> None:
        """What was written of the former is of this version now."""


class Training:
    """The training of one network; ``async for progress in training`` makes what is left of it.

    ``steps`` are made up to each of ``checkpoints``; ``batch`` rows in each, of each data set as many as ``rows`` says.
    """

    def __init__(
        self,
        client: Trainer,
        model: RemoteModel,
        recipe: Recipe,
        data: Sequence[RemoteData],
        rows: Sequence[int],
        *,
        steps: int,
        checkpoints: int,
        validate: Sequence[RemoteData] = (),
        losses: bool = False,
    ) -> None:
        self.model = model
        """As it is now."""
        self.steps, self.checkpoints = steps, checkpoints
        self.rows = tuple(rows)
        self.reveals = (*[Revealed.LOSS] * losses, *[Revealed.CLASSES] * bool(validate))
        """What each run reveals, in this order."""
        self._client, self._recipe, self._data, self._validate = client, recipe, data, validate
        self._written: tuple[RemoteModel, Kept] | None = None
        """What a run computes, and of which version it was written: the next is the same of another one."""

    @property
    def kept(self) -> Kept:
        """What the next run computes; ``client.request(training.kept, why)`` asks the data's owners for leave."""
        if self._written is None or self.changes:
            self._written = self.model, self.at(self.model.parts)
        first, kept = self._written
        self._client.renew(first, self.model)
        return kept

    @property
    def changes(self) -> bool:
        """Whether its learning rate does, and its program at each checkpoint with it."""
        return self._recipe.optimizer.schedule is not None

    @property
    def left(self) -> list[Kept]:
        """What all runs compute that are left: one for all, unless the learning rate changes."""
        if not self.changes:
            return [self.kept]
        return [self.at(checkpoint) for checkpoint in range(self.model.parts, self.checkpoints)]

    def at(self, checkpoint: int) -> Kept:
        """What the run from that checkpoint computes."""
        state = {name: self.model[name] for name in self.model.description.stored_types}
        made = self._recipe.kept(state, batches(self._data, self.rows, self.steps), checkpoint * self.steps)
        revealed = []
        if Revealed.LOSS in self.reveals:
            revealed.append(stack(made.losses).mean())
        if self._validate:
            x, y = (_all(self._validate, tensor) for tensor in (X, Y))
            logits = self.model.description.forward(x, made.state)
            hits = (logits >= logits.max(-1, keepdims=True)) * y
            revealed.append(stack([hits.sum(0), y.sum(0)]))
        return Kept(made.state, joint=True, description=self.model.description, revealed=revealed, steps=True)

    @property
    def step(self) -> int:
        """How many steps have been made."""
        return self.model.parts * self.steps

    @property
    def epochs(self) -> float:
        """How often each row has been drawn, on average."""
        return self.model.parts * self.epoch

    @property
    def epoch(self) -> float:
        """How often each is from one checkpoint to the next."""
        there = sum(data.description.tensors[X].shape[0] for data in self._data)
        return self.steps * sum(self.rows) / there

    def drawn(self, checkpoint: int) -> list[list[npt.NDArray[np.int64]]]:
        """Of the run up to that checkpoint, from 0, the rows that go into each step, of each data set: they are public.

        So the same can be computed in the clear by who has the data.
        """
        order = Order({data.slot: data.version for data in self._data}, checkpoint)
        positions = [
            order.positions(data.draws(X, mine * self.steps)) for data, mine in zip(self._data, self.rows, strict=True)
        ]
        return [
            [p[step * mine : (step + 1) * mine] for p, mine in zip(positions, self.rows, strict=True)]
            for step in range(self.steps)
        ]

    async def __aiter__(self) -> AsyncIterator[Progress]:
        started = time.perf_counter()
        while self.model.parts < self.checkpoints:
            scores, loss = told(self.reveals, await self._advance())
            seconds, report = time.perf_counter() - started, self._client.last_run
            yield Progress(self.step, self.steps * self.checkpoints, self.epochs, seconds, report, scores, loss)

    async def _advance(self) -> list[Reals]:
        """One run, and what it reveals; again where somebody was lost, from what there is then."""
        parts, pause = self.model.parts, _PAUSE
        for left in reversed(range(_TRIES)):
            try:
                kept, results = await self._client.keep_telling(self.kept, self.model.name)
            except NoAnswer as error:
                raise in_steps(error, self.step, self.steps) from None
            except (PeerError, RunExpired, ProgramError) as error:
                # It may have been kept, and its client not told; and what it reads is gone then.
                await asyncio.sleep(pause)
                pause *= 2
                self.model = await self._as_it_is(left)
                if self.model.parts == parts and not (left and isinstance(error, _PASSING)):
                    raise
            else:
                if isinstance(kept, RemoteModel):
                    self.model = kept
                return results
            if self.model.parts > parts:
                return []
        return []

    async def _as_it_is(self, left: int) -> RemoteModel:
        """What is stored now; asked again where who was just started has yet to hear of it."""
        pause = _PAUSE
        while True:
            try:
                return await self._client.model(self.model.name)
            except (PeerError, NotPermitted, UsageError):
                if not left:
                    raise
                left -= 1
                await asyncio.sleep(pause)
                pause *= 2


def check_ahead(training: Training, count: int, low_water: int) -> None:
    """Raises UsageError for what is not dealt ahead of a training."""
    if low_water:
        raise UsageError("a training is dealt ahead for so many checkpoints, and no mark is kept")
    if training.changes:
        raise UsageError(
            "a rate that changes has a program at each checkpoint, and a training is dealt ahead for one program: leave"
            " the schedule out, or have it dealt for as it goes on"
        )
    left = training.checkpoints - training.model.parts
    if count > left:
        raise UsageError(f"the training has {left} checkpoints left: have no more than these dealt ahead")


async def begun(
    client: Trainer,
    slot: str,
    model: Trainable,
    data: Rows,
    loss: Loss,
    optimizer: Optimizer,
    options: Options,
) -> Training:
    """A training that goes on with what is in the slot, or begins.  Raises as ``AsyncClient.training`` does."""
    name = slot.partition("/")[2]
    asked = await _asked(client, name, model, data, loss, optimizer, options)
    recipe, learnt, rows, batch = asked.recipe, asked.data, asked.rows, asked.batch
    there = sum(each.description.tensors[X].shape[0] for each in learnt)

    def planned() -> tuple[Description, int]:
        description = _described(asked)
        steps = asked.steps or fitting(recipe, description, learnt, rows, max(1, there // batch))
        return description, steps

    description, steps = await asyncio.to_thread(planned)
    checkpoints = round(asked.epochs * there / batch / steps)
    if checkpoints < 1:
        raise UsageError("a training has at least one step, and one checkpoint")
    try:
        found = await client.model(slot)
    except NotPermitted:
        if isinstance(model, RemoteModel):
            kept, _ = await client.keep_telling(_beginning(recipe, model, description), name)
            found = kept if isinstance(kept, RemoteModel) else await client.model(slot)
        else:
            weights = model.weights if isinstance(model, Model) else initial(recipe.architecture, asked.seed)
            found = await client.upload(Untrained(description, weights), name)
    if found.description != description:
        raise UsageError(
            f"{found.name!r} is something else than what this training begins with: choose another name, or remove it"
        )
    return Training(
        client, found, recipe, learnt, rows,
        steps=steps, checkpoints=checkpoints, validate=asked.validate, losses=asked.losses,
    )  # fmt: skip


async def beginning(
    client: Trainer,
    name: str,
    model: RemoteModel,
    data: Rows,
    loss: Loss,
    optimizer: Optimizer,
    options: Options,
) -> Kept:
    """What a training of a stored network begins with.  Raises as ``AsyncClient.beginning`` does."""
    if not isinstance(model, RemoteModel):
        raise UsageError("something is kept before the first step of a network that is stored: client.model(name)")
    asked = await _asked(client, name, model, data, loss, optimizer, options)
    return await asyncio.to_thread(lambda: _beginning(asked.recipe, model, _described(asked)))


def _beginning(recipe: Recipe, model: RemoteModel, description: Description) -> Kept:
    weights = {name: model[name] for name in model.description.tensors}
    return Kept(recipe.beginning(weights, description), joint=True, description=description)


def _described(asked: Arguments) -> Description:
    return asked.recipe.described(batches(asked.data, asked.rows, 1)[0])


async def _asked(
    client: Trainer, name: str, model: Trainable, data: Rows, loss: Loss, optimizer: Optimizer, options: Options
) -> Arguments:
    """What is meant, on rows in the order that is."""
    asked = arguments(model, data, loss, optimizer, options)
    if not asked.secretly:
        return asked
    return arguments(model, await shuffled(client, asked.data, name), loss, optimizer, options)


async def shuffled(client: Trainer, data: Sequence[RemoteData], name: str) -> RemoteData:
    """All rows together in an order that nobody knows, stored for the training of that name: as they are by now, or
    once they are.  Raises NotPermitted until all owners have allowed it; UsageError for other rows under that name.
    """
    try:
        found = await client.data(rows_of(name))
    except NotPermitted:
        kept, _ = await client.keep_telling(mixed(data), rows_of(name))
        found = kept if isinstance(kept, RemoteData) else await client.data(rows_of(name))
    for tensor in (X, Y):
        there = found.description.tensors.get(tensor)
        lengths = sum(each.description.tensors[tensor].shape[0] for each in data)
        if there is None or there.shape != (lengths, *data[0].description.tensors[tensor].shape[1:]):
            raise UsageError(f"{found.name!r} is something else than all rows together: remove it, or say another name")
    return found


def rows_of(name: str) -> str:
    """What they are called."""
    return f"{name}-rows"


def batches(data: Sequence[RemoteData], rows: Sequence[int], steps: int) -> list[Batch]:
    """Rows of so many steps, which one run draws."""
    drawn = [[each.drawn(t, mine * steps) for each, mine in zip(data, rows, strict=True)] for t in (X, Y)]

    def part(tensors: Sequence[SecretTensor], step: int) -> list[SecretTensor]:
        return [x[step * mine : (step + 1) * mine] for x, mine in zip(tensors, rows, strict=True)]

    return [Batch(part(drawn[0], step), part(drawn[1], step)) for step in range(steps)]


def fitting(
    recipe: Recipe, description: Description, data: Sequence[RemoteData], rows: Sequence[int], epoch: int
) -> int:
    """How many steps a run makes: up to an epoch, and to what fits ``ELEMENTS`` and ``NODES``; all runs as many."""
    state = RemoteModel("network", "training", "0" * 32, description)
    types = {name: state[name] for name in description.stored_types}

    def planned(steps: int) -> Program:
        return plan(graph_of([], recipe.kept(types, batches(data, rows, steps), 0).state))

    one, two = planned(1), planned(2)
    by_size = (ELEMENTS - one.elements) // max(1, two.elements - one.elements)
    by_length = (NODES - len(one.nodes)) // max(1, len(two.nodes) - len(one.nodes))
    # No run draws a row twice.
    there = min(each.description.tensors[X].shape[0] // mine for each, mine in zip(data, rows, strict=True))
    most = max(1, min(epoch, there, 1 + by_size, 1 + by_length))
    return max(1, epoch // -(-epoch // most))


def _all(data: Sequence[RemoteData], tensor: str) -> SecretTensor:
    parts = [each[tensor] for each in data]
    return parts[0] if len(parts) == 1 else concatenate(parts)
