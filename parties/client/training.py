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
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from mpc.errors import (
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
from parties.client.prepared import Reals
from parties.client.remote_data import RemoteData
from parties.client.remote_model import RemoteModel, Uploadable
from parties.client.report import RunReport
from parties.client.training_arguments import Options, Rows, Trainable, X, Y, arguments
from parties.client.writing import Kept
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

    async def upload(self, secret: Uploadable, name: str) -> RemoteModel:
        """Stores what there is before the first step."""

    async def keep(self, results: Kept, name: str) -> RemoteData | RemoteModel:
        """One run."""

    def renew(self, former: RemoteModel, now: RemoteModel) -> None:
        """What was written of the former is of this version now."""

    async def reveal(self, result: SecretTensor) -> Reals:
        """What is found out in between."""


class Scores(NamedTuple):
    """Of each class, how many rows there are, and how many of them the network finds."""

    found: Reals
    there: Reals

    @property
    def accuracy(self) -> float:
        """Of all rows."""
        return float(self.found.sum() / self.there.sum())

    @property
    def balanced(self) -> float:
        """The mean of the classes' own, of those that there are."""
        there = self.there > 0.5
        return float((self.found[there] / self.there[there]).mean())


@dataclass(frozen=True)
class Progress:
    """After one run."""

    step: int
    steps: int
    epoch: float
    """How often each row has been drawn, on average."""
    seconds: float
    """Since this client has begun."""
    report: RunReport | None
    """The bill of the run."""
    scores: Scores | None = None
    """Where ``validate`` says what is to be found out."""

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        found = {
            "step": self.step,
            "steps": self.steps,
            "epoch": round(self.epoch, 3),
            "seconds": round(self.seconds, 3),
        }
        if self.scores is not None:
            found["accuracy"] = round(self.scores.accuracy, 6)
            found["balanced_accuracy"] = round(self.scores.balanced, 6)
        return found


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
    ) -> None:
        self.model = model
        """As it is now."""
        self.steps, self.checkpoints = steps, checkpoints
        self.rows = tuple(rows)
        self._client, self._recipe, self._data, self._validate = client, recipe, data, validate
        self._written: tuple[RemoteModel, Kept] | None = None
        """What a run computes, and of which version it was written: the next is the same of another one."""

    @property
    def kept(self) -> Kept:
        """What the next run computes; ``client.request(training.kept, why)`` asks the data's owners for leave."""
        if self._written is None or self._recipe.optimizer.schedule is not None:
            state = {name: self.model[name] for name in self.model.description.stored_types}
            results = self._recipe.kept(state, batches(self._data, self.rows, self.steps), self.step)
            kept = Kept(results, joint=True, description=self.model.description)
            self._written = self.model, kept
        first, kept = self._written
        self._client.renew(first, self.model)
        return kept

    @property
    def found_out(self) -> SecretTensor | None:
        """What ``validate`` reveals: a row of how many of each class are found, and one of how many there are."""
        if not self._validate:
            return None
        x, y = (_all(self._validate, tensor) for tensor in (X, Y))
        logits = self.model(x)
        hits = (logits >= logits.max(-1, keepdims=True)) * y
        return stack([hits.sum(0), y.sum(0)])

    @property
    def step(self) -> int:
        """How many steps have been made."""
        return self.model.parts * self.steps

    @property
    def epochs(self) -> float:
        """How often each row has been drawn, on average."""
        there = sum(data.description.tensors[X].shape[0] for data in self._data)
        return self.step * sum(self.rows) / there

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
            await self._advance()
            report, scores = self._client.last_run, None
            found_out = self.found_out
            if found_out is not None:
                scores = Scores(*await self._client.reveal(found_out))
            seconds = time.perf_counter() - started
            yield Progress(self.step, self.steps * self.checkpoints, self.epochs, seconds, report, scores)

    async def _advance(self) -> None:
        """One run; again where somebody was lost, from what there is then."""
        parts, pause = self.model.parts, _PAUSE
        for left in reversed(range(_TRIES)):
            try:
                kept = await self._client.keep(self.kept, self.model.name)
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
            if self.model.parts > parts:
                return

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
    asked = arguments(model, data, loss, optimizer, options)
    recipe, learnt, rows, batch = asked.recipe, asked.data, asked.rows, asked.batch
    there = sum(each.description.tensors[X].shape[0] for each in learnt)

    def planned() -> tuple[Description, int]:
        description = recipe.described(batches(learnt, rows, 1)[0])
        steps = asked.steps or fitting(recipe, description, learnt, rows, max(1, there // batch))
        return description, steps

    description, steps = await asyncio.to_thread(planned)
    checkpoints = round(asked.epochs * there / batch / steps)
    if checkpoints < 1:
        raise UsageError("a training has at least one step, and one checkpoint")
    try:
        found = await client.model(slot)
    except NotPermitted:
        weights = model.weights if isinstance(model, Model) else initial(recipe.architecture, asked.seed)
        found = await client.upload(Untrained(description, weights), slot.partition("/")[2])
    if found.description != description:
        raise UsageError(
            f"{found.name!r} is something else than what this training begins with: choose another name, or remove it"
        )
    return Training(client, found, recipe, learnt, rows, steps=steps, checkpoints=checkpoints, validate=asked.validate)


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
        return plan(graph_of([], recipe.kept(types, batches(data, rows, steps), 0)))

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
