"""What ``client.train`` is called with, looked at before anything runs: what cannot be trained is a UsageError."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from typing import NamedTuple, TypedDict

from mpc.errors import UsageError
from nn.architecture import Architecture, Sequential
from nn.interface import NOTHING_SAID, Interface
from nn.losses import Loss
from nn.model import Model
from nn.optimizers import Optimizer
from nn.training import LOGITS, REMEMBERED, WEIGHTS, Recipe, shares
from parties.client.remote_data import RemoteData
from parties.client.remote_model import RemoteModel

ORDERS = "public", "secret"
X, Y = "x", "y"
"""What the tensors of a data set to learn from are called."""

Trainable = Model | RemoteModel | Architecture | Sequential
"""What there is of a network before the first step: with weights, which may lie on the parties, or without."""
Rows = RemoteData | Sequence[RemoteData]
"""One data set, or several."""


class Options(TypedDict, total=False):
    """How a network is trained; see `begun`."""

    epochs: float
    """How often each row is drawn, on average; 1."""
    batch: int
    """Rows in each step, of all data sets together; 32."""
    steps: int
    """From one checkpoint to the next; as many as fit, up to an epoch."""
    validate: Rows
    """Of whose rows it is revealed, at each checkpoint, how many are found; none."""
    losses: bool
    """Whether the mean loss of the steps before it is revealed at each checkpoint; not."""
    seed: int
    """Of random weights to begin with; 0."""
    weights: float
    """Weights lie in a range around 0 up to this; 8."""
    remembered: float
    """And what the optimizer remembers; 16."""
    logits: float
    """And what the network gives while it is trained; 8."""
    only: Sequence[str]
    """Layers that are trained, by name; all of them."""
    order: str
    """Of rows: ``"public"``, or ``"secret"``, in which all are stored beforehand (``mixed``); public."""


class Arguments(NamedTuple):
    """As they are meant; ``rows`` of each data set go into a step, and ``steps`` is 0 where as many are made as fit."""

    recipe: Recipe
    data: tuple[RemoteData, ...]
    rows: tuple[int, ...]
    validate: tuple[RemoteData, ...]
    losses: bool
    batch: int
    epochs: float
    steps: int
    seed: int
    secretly: bool


def arguments(model: Trainable, data: Rows, loss: Loss, optimizer: Optimizer, options: Options) -> Arguments:
    """Raises UsageError, saying what is to be given instead."""
    if unknown := options.keys() - Options.__annotations__.keys():
        known = ", ".join(Options.__annotations__)
        raise UsageError(f"a training has no {', '.join(sorted(unknown))}: its options are {known}")
    if not isinstance(loss, Loss):
        raise UsageError(f"{_kind(loss)} is no loss to train by: give ts.nn.CrossEntropyLoss(), or another of ts.nn")
    if not isinstance(optimizer, Optimizer):
        raise UsageError(f"{_kind(optimizer)} is no optimizer: give ts.nn.SGD(lr=0.125), or another of ts.nn")
    learnt, batch = data_sets("data", data), _whole("batch", options.get("batch", 32))
    steps, epochs = options.get("steps"), _number("epochs", options.get("epochs", 1.0))
    if not learnt:
        raise UsageError("there is no data to learn from: give the data sets, as client.data(name) has found them")
    if len({each.slot for each in learnt}) < len(learnt):
        raise UsageError("a data set is given twice: its rows would come twice in each step")
    if (steps is not None and _whole("steps", steps) < 1) or epochs <= 0:
        raise UsageError("a training has at least one step, and one checkpoint")
    architecture, interface = _network(model)
    weights = _number("weights", options.get("weights", WEIGHTS))
    remembered = _number("remembered", options.get("remembered", REMEMBERED))
    logits = _number("logits", options.get("logits", LOGITS))
    if min(weights, remembered, logits) <= 0:
        raise UsageError("weights, remembered and logits are ends of ranges around 0: above 0")
    only, order = options.get("only", ()), options.get("order", "public")
    if order not in ORDERS:
        raise UsageError(f"order={order!r}: rows come in a public order, or in a secret one")
    recipe = Recipe(
        architecture, loss, optimizer, interface, weights, remembered, logits,
        (only,) if isinstance(only, str) else tuple(only),
    )  # fmt: skip
    _ = recipe.learnt
    return Arguments(
        recipe,
        learnt,
        split(learnt, batch),
        _to_validate(options.get("validate", ()), learnt[0]),
        bool(options.get("losses", False)),
        batch,
        epochs,
        0 if steps is None else _whole("steps", steps),
        _whole("seed", options.get("seed", 0)),
        order == "secret",
    )


def split(data: Sequence[RemoteData], batch: int) -> tuple[int, ...]:
    """How many rows of each data set go into a batch.  Raises UsageError for data sets without ``x`` and ``y``."""
    for each in data:
        _check_rows(each)
    return shares([each.description.tensors[X].shape[0] for each in data], batch)


def _check_rows(data: RemoteData) -> None:
    tensors = data.description.tensors
    if not {X, Y} <= tensors.keys():
        raise UsageError(
            f"{data.name!r} has {', '.join(tensors)}: rows to learn from are called x, and their answers y"
        )
    lengths = {tensors[t].shape[:1] for t in (X, Y)}
    if len(lengths) != 1 or lengths == {()}:
        raise UsageError(f"x and y of {data.name!r} have other numbers of rows")


def _to_validate(given: Rows, learnt: RemoteData) -> tuple[RemoteData, ...]:
    """What is revealed counts classes: a row of zeros and a 1 for each of them."""
    found = data_sets("validate", given)
    for each in found:
        _check_rows(each)
        for tensor in (X, Y):
            here, there = (d.description.tensors[tensor].shape[1:] for d in (each, learnt))
            if here != there:
                raise UsageError(
                    f"rows of {tensor} of {each.name!r} are of shape {here}, and those learnt from {there}"
                )
        if len(there) != 1 or there[0] < 2:
            raise UsageError("validate counts rows of two classes or more: y has a column for each")
    return found


def _network(model: object) -> tuple[Architecture, Interface]:
    if isinstance(model, Model):
        return model.architecture, model.interface
    if isinstance(model, RemoteModel):
        return model.description.architecture, model.description.interface
    if isinstance(model, Architecture):
        return model, NOTHING_SAID
    if isinstance(model, Sequential):
        return model.architecture(), NOTHING_SAID
    torch = "torch" in {kind.__module__.partition(".")[0] for kind in type(model).__mro__}
    instead = "ts.from_torch(net, samples)" if torch else "a ts.Model, or layers as ts.Sequential"
    raise UsageError(f"{_kind(model)} is no network to train: give {instead}")


def data_sets(what: str, given: object) -> tuple[RemoteData, ...]:
    """One may stand for itself."""
    found = tuple(given) if isinstance(given, list | tuple) else (given,)
    for each in found:
        if not isinstance(each, RemoteData):
            raise UsageError(
                f"{_kind(each)} in {what} is no data set that is stored: give what client.upload(ts.DataSet(...), name)"
                " has returned, or client.data(name)"
            )
    return found


def _whole(name: str, value: object) -> int:
    try:
        return operator.index(value)  # type: ignore[arg-type]  # what is none has a TypeError
    except TypeError:
        raise UsageError(f"{name} is a whole number, not {value!r}") from None


def _number(name: str, value: object) -> float:
    if not isinstance(value, int | float) or not math.isfinite(value):
        raise UsageError(f"{name} is a finite number, not {value!r}")
    return float(value)


def _kind(thing: object) -> str:
    return f"{type(thing).__module__}.{type(thing).__qualname__}" if not isinstance(thing, type) else repr(thing)
