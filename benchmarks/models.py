"""What is measured or predicted: the dermatology CNN, also for larger images, the lesion network, or a network from the
user's own file."""

from __future__ import annotations

import argparse
import importlib.util
import math
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from benchmarks.session import Reals
from benchmarks.shipped import LESION, SMALL, Shipped
from mpc.cost import Cost, Wanted, cost, objective_of
from mpc.errors import RangeError, TesseraError, UsageError
from mpc.program import Program
from mpc.security import Security
from mpc.tensor_type import Shape
from nn.activations import Sigmoid
from nn.architecture import Architecture, Step
from nn.derm.model import INPUT_SHAPE, derm_model
from nn.importing.from_torch import from_torch
from nn.inputs import TokenInput
from nn.layers import Linear
from nn.model import Model
from nn.rectifiers import ReLU
from protocols import PrecisionWarning, RangeWarning

MODELS = ("derm", "derm-tails", "lesion")
"""The dermatology CNN, with its sigmoids on their interval as it ships, or with tails: right on any input; and
EfficientNet-Lite0 on photographs of 128x128 pixels."""
SHIPPED = "shipped"
SAMPLES = 4
"""Inputs at random, by which a deep network's ranges are assumed."""
SEED = 0
"""Of weights and inputs that are random: the same in every run, since public bounds of weights decide the cost."""


@dataclass(frozen=True)
class Subject:
    """A network and inputs for it."""

    name: str
    model: Model
    shape: Shape
    """Of one input, without the batch."""
    weights: str
    """Where they come from."""
    low: float = -1.0
    high: float = 1.0
    """The declared range of inputs."""
    samples: Reals | None = None
    """Inputs that were given with it."""

    @property
    def shipped(self) -> Shipped:
        """Of the networks that ship the one that takes the same photographs; for one of ``MODELS``."""
        return LESION if self.name == LESION.name else SMALL

    def case(self, batch: int, parties: int, security: str) -> dict[str, Any]:
        """What identifies a measurement with this subject (``benchmarks.records``)."""
        return {
            "model": self.name,
            "weights": self.weights,
            "shape": list(self.shape),
            "batch": batch,
            "parties": parties,
            "security": str(security),
        }

    def program(self, batch: int, security: Security, objective: Wanted = "latency") -> Program:
        """What the parties run for a batch."""
        planned = objective_of(objective, security)
        return self.model.description.program((batch, *self.shape), low=self.low, high=self.high, objective=planned)

    def cost(self, batch: int, parties: int, security: Security, objective: Wanted = "latency") -> Cost:
        """As ``Model.cost``, of a batch."""
        return cost(self.program(batch, security, objective), parties, security)

    def inputs(self, batch: int) -> Reals:
        """(batch, ...): for networks that ship the shipped images over and over, enlarged; else random numbers."""
        return np.concatenate(list(self.chunks(batch, batch)))

    def chunks(self, total: int, chunk: int) -> Iterator[Reals]:
        """``inputs(total)``, at most ``chunk`` of them in memory."""
        pool = self._pool(min(total, chunk))
        for start in range(0, total, chunk):
            yield pool[: min(chunk, total - start)]

    def _pool(self, count: int) -> Reals:
        if self.samples is not None:
            return np.resize(self.samples, (count, *self.shape))
        if self.name not in MODELS:
            unit = np.random.default_rng(SEED).random((count, *self.shape))
            return np.asarray(self.low + (self.high - self.low) * unit)
        few = np.stack([self.shipped.input.load(sample.path) for sample in self.shipped.images()[:count]])
        _, height, width = self.shape
        rows = np.arange(height) * few.shape[2] // height
        columns = np.arange(width) * few.shape[3] // width
        return np.resize(few[:, :, rows][:, :, :, columns], (count, *self.shape))


def subject(options: argparse.Namespace) -> Subject:
    """What ``options.add_model_arguments`` names.  Raises UsageError for what there is not."""
    if options.torch is not None:
        if options.side is not None:
            raise UsageError("--side is for the dermatology CNN: give the shape of your network's input with --shape")
        if options.shape is None and options.samples is None:
            raise UsageError("--torch needs --shape: that of one input, as in --shape 3,64,64; or --samples")
        return torch_subject(options.torch, options.shape, *(options.range or (-1.0, 1.0)), samples=options.samples)
    if options.model not in MODELS:
        raise UsageError(f"there is no model {options.model!r} to measure: the known ones are {', '.join(MODELS)}")
    if any(each is not None for each in (options.shape, options.range, options.samples)):
        raise UsageError(
            "--shape, --range and --samples go with --torch: for larger images of the dermatology CNN, give --side"
        )
    if options.model == LESION.name:
        if options.side is not None:
            raise UsageError("--side is for the dermatology CNN: the lesion network takes 128x128 pixels")
        return lesion()
    return derm(options.side, tails=options.model == "derm-tails")


def lesion() -> Subject:
    """EfficientNet-Lite0 as it ships."""
    return Subject(LESION.name, LESION.make(), LESION.input.shape, SHIPPED)


def derm(side: int | None = None, *, rectified: bool = False, tails: bool = False) -> Subject:
    """The dermatology CNN, by default as it ships; for images of another ``side`` with its first dense layer enlarged.

    ``rectified``: with ReLU in place of each sigmoid, which costs what a network of that kind costs, and predicts
    nothing.  ``tails``: as in ``derm_model``.

    Each trained weight is shared out among the positions that take the place of its own, so that the layer's sums stay
    what they were and activations within their interval: the network costs what one of that size costs, and its error
    says something.  It was not trained for such images.
    """
    model, name = derm_model(tails=tails), MODELS[tails]
    if rectified:
        model = Model(Architecture(tuple(map(_rectified, model.architecture.steps)), INPUT_SHAPE), model.state_dict())
    if side is None or side == INPUT_SHAPE[1]:
        return Subject(name, model, INPUT_SHAPE, SHIPPED)
    shape = (INPUT_SHAPE[0], side, side)
    channels = len(model.weights["conv2.bias"])
    features = channels * (side // 2 // 2) ** 2
    if not features:
        raise UsageError(f"images of side {side} leave nothing after two poolings: the least side is 4")
    steps = tuple(
        msgspec.structs.replace(step, layer=msgspec.structs.replace(step.layer, in_features=features))
        if step.name == "fc1" and isinstance(step.layer, Linear)
        else step
        for step in model.architecture.steps
    )
    weights = model.state_dict()
    trained = weights["fc1.weight"]
    old, new = (math.isqrt(count // channels) for count in (trained.shape[1], features))
    index = np.arange(new) * old // new
    spread = trained.reshape(-1, channels, old, old)[:, :, index][:, :, :, index] * (old / new) ** 2
    weights["fc1.weight"] = spread.reshape(len(trained), features)
    return Subject(name, Model(Architecture(steps, shape), weights), shape, "shipped, enlarged")


def _rectified(step: Step) -> Step:
    return msgspec.structs.replace(step, layer=ReLU()) if isinstance(step.layer, Sigmoid) else step


def torch_subject(
    place: str, shape: Shape | None, low: float = -1.0, high: float = 1.0, *, samples: Path | None = None
) -> Subject:
    """A torch module from a Python file of the user's, which is executed here, and nowhere else.

    ``place``: ``file.py:name``, where the name is of a module, or of something that makes one when it is called.
    ``shape``: of one input, where no ``samples`` say it.  Raises UsageError, or what ``from_torch`` does.
    """
    file, _, name = place.rpartition(":")
    path = Path(file)
    if not name.isidentifier() or path.suffix != ".py":
        raise UsageError(f"--torch {place}: give a Python file and a name in it, as in net.py:net")
    if not path.is_file():
        raise UsageError(f"--torch {place}: there is no file {path}")
    try:
        import torch
    except ImportError as error:
        raise UsageError(f"--torch needs PyTorch ({error}): install tessera-mpc[torch]") from None
    module = _attribute(path, name)
    if not isinstance(module, torch.nn.Module) and callable(module):
        module = _called(module, place)
    if not isinstance(module, torch.nn.Module):
        raise UsageError(f"--torch {place}: {name} is neither a torch.nn.Module nor does it make one")
    name = f"{path.name}:{name}"
    with warnings.catch_warnings():
        # What it costs does not depend on how right it is.
        warnings.simplefilter("ignore", RangeWarning)
        warnings.simplefilter("ignore", PrecisionWarning)
        if samples is not None:
            return _of_samples(name, module, samples, (low, high))
        assert shape is not None  # noqa: S101 - whoever asks has said one of the two
        model = from_torch(module, example_input=torch.zeros((1, *shape)))
        try:
            model.description.program((1, *shape), low=low, high=high)
        except RangeError:
            # Deep: what values lead to is assumed.
            inputs = np.random.default_rng(SEED).uniform(low, high, (SAMPLES, *shape))
            model = from_torch(module, torch.tensor(inputs, dtype=torch.float32))
    return Subject(name, model, shape, "of the file", low, high)


def _of_samples(name: str, module: Any, path: Path, reach: tuple[float, float]) -> Subject:
    """Of inputs that somebody has; of tokens the vectors that stand for them."""
    import torch

    try:
        given = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise UsageError(f"--samples {path} cannot be read as an array: {error}") from None
    if given.ndim < 2 or given.dtype.kind not in "fiu":
        raise UsageError(f"--samples {path} holds no batch of numbers: (N, ...)")
    tokens = given.dtype.kind != "f"
    model = from_torch(module, torch.tensor(given.astype(np.int64 if tokens else np.float32)))
    said = model.interface.input
    if isinstance(said, TokenInput):
        inputs, reach = said.encode(given), (said.low, said.high)
    else:
        inputs = given.astype(np.float64)
        if inputs.min() < reach[0] or inputs.max() > reach[1]:
            raise UsageError(f"samples from {inputs.min():g} to {inputs.max():g} are not in {reach}: give --range")
    return Subject(name, model, inputs.shape[1:], "of the file", *reach, samples=inputs)


def _attribute(path: Path, name: str) -> object:
    spec = importlib.util.spec_from_file_location(f"tessera_bench_{path.stem}", path.resolve())
    if spec is None or spec.loader is None:
        raise UsageError(f"{path} cannot be loaded as Python")
    module = importlib.util.module_from_spec(spec)
    # As `python file.py` has it: what lies beside the file can be imported.
    sys.path.insert(0, str(path.resolve().parent))
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
    except TesseraError:
        raise
    except Exception as error:
        raise UsageError(f"{path} cannot be loaded: {type(error).__name__}: {error}") from error
    finally:
        sys.path.remove(str(path.resolve().parent))
    if not hasattr(module, name):
        raise UsageError(f"{path} has nothing called {name!r}")
    found: object = getattr(module, name)
    return found


def _called(make: Callable[..., object], place: str) -> object:
    # Random weights are the same in every run: their public bounds decide the cost.
    import torch

    torch.manual_seed(SEED)
    try:
        return make()
    except Exception as error:
        raise UsageError(f"--torch {place} cannot be called without arguments: {error}") from error
