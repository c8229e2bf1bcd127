"""``tessera predict``: inputs go in as shares, answers come back to their owner alone.

How a photograph or a table becomes inputs, what the answers are called, and what is to be said with them, the model
says itself (``nn.interface``).
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mpc.errors import NoAnswer, ShapeError, UsageError
from nn.interface import Classes, Interface
from nn.preprocessing import ImageInput
from nn.reading import Opened, check_file, open_file
from parties.client import streaming
from parties.client.async_client import AsyncClient
from parties.client.prepared import Reals
from parties.client.report import NO_ANSWER
from parties.commands.arguments import client_arguments
from parties.commands.as_client import run_as_client
from parties.commands.chosen import chosen_model
from parties.commands.objective import add_objective_argument


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of ``tessera predict``."""
    parser.add_argument(
        "files",
        type=Path,
        nargs="+",
        metavar="FILE",
        help="a photograph (JPEG or PNG; metadata is dropped), one input or a batch (.npy), or a table (.csv)",
    )
    parser.add_argument("--model", help="name of a model stored on the parties (default: the only one there)")
    parser.add_argument(
        "--turned",
        action="store_true",
        help="ask for each photograph in four quarter turns, and average: right more often, for four times the cost",
    )
    add_objective_argument(parser)
    client_arguments(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(options: argparse.Namespace) -> int:
    """The exit code."""
    return run_as_client(predict, options)


async def predict(client: AsyncClient, options: argparse.Namespace) -> int:
    """All inputs, as many in a run as fit (``parties.client.streaming``); a line (or a JSON entry) each."""
    # Each file is looked at before anything is sent, and no photograph is kept: they are read again in their turn.
    for path in options.files:
        check_file(path)
    async with client:
        model = await chosen_model(client, options.model)
        says = model.description.interface
        model.description.check()
        turns = _turns(says) if options.turned else 1
        inputs = _Inputs([open_file(path, says, model.description.input_shape) for path in options.files], turns)
        chunks = inputs.chunks(streaming.fitting(model, inputs.shape))
        done = [predicted async for predicted in streaming.stream(client, model, chunks)]
    results, report = streaming.whole_of(done)
    if turns > 1:
        results = results.reshape(-1, turns, *results.shape[1:]).mean(1)
        report = replace(report, unanswered=tuple(sorted({i // turns for i in report.unanswered})))
    unanswered = frozenset(report.unanswered)
    left = [i in unanswered for i in range(len(results))]
    answers = [_Answer(says.output, result) for result in results]
    if options.json:
        predictions = [
            {**one.to_dict(), **({"error": NO_ANSWER} if out else answer.to_dict())}
            for one, answer, out in zip(inputs.read, answers, left, strict=True)
        ]
        said: dict[str, Any] = {"model": model.name, "predictions": predictions, "notice": says.notice}
        if says.output is not None:
            said["classes"] = [label.name for label in says.output.labels]
        failure = NoAnswer(NO_ANSWER).to_dict() if any(left) else {}
        print(json.dumps({**failure, **said, "run": report.to_dict()}))
        return NoAnswer.exit_code if any(left) else 0
    for one, answer, out in zip(inputs.read, answers, left, strict=True):
        for warning in one.warnings:
            print(f"tessera: {warning}", file=sys.stderr)
        print(f"{one}: {NO_ANSWER if out else answer}")
    print(report, file=sys.stderr)
    if says.notice:
        print(says.notice, file=sys.stderr)
    return NoAnswer.exit_code if any(left) else 0


def _turns(says: Interface) -> int:
    """How many quarter turns there are of an input.  Raises UsageError where it has none."""
    if not isinstance(says.input, ImageInput) or says.input.height != says.input.width:
        raise UsageError("--turned is for models of photographs as high as wide: leave it out")
    return 4


class _Read(NamedTuple):
    """Where an input has come from, and what there is to be said against it."""

    file: Opened
    row: int
    warnings: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"input": str(self.file.path), "row": self.row, "warnings": list(self.warnings)}

    def __str__(self) -> str:
        return f"{self.file.path}[{self.row}]" if self.file.count > 1 else str(self.file.path)


class _Inputs:
    """Of all files, one after the other; each in so many quarter turns."""

    def __init__(self, files: Sequence[Opened], turns: int) -> None:
        self._files, self._turns = files, turns
        self.read: list[_Read] = []
        self.shape = files[0].read(0).values.shape

    def chunks(self, size: int) -> Iterator[Reals]:
        """So many at a time: none is read before its turn."""
        batch: list[Reals] = []
        for file in self._files:
            for row in range(file.count):
                values, warnings = file.read(row)
                if values.shape != self.shape:
                    raise ShapeError(f"{file.path} has inputs of shape {values.shape}, not {self.shape} as the first")
                self.read.append(_Read(file, row, warnings))
                for turn in range(self._turns):
                    batch.append(np.rot90(values, turn, (-2, -1)) if turn else values)
                    if len(batch) == size:
                        yield np.stack(batch)
                        batch = []
        if batch:
            yield np.stack(batch)


class _Answer:
    """One input's: the likeliest class; or the numbers themselves, of a model that does not say what they are."""

    def __init__(self, classes: Classes | None, result: Reals) -> None:
        self._classes = classes
        self._result = result if classes is None else classes.probabilities(result[None])[0]

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        values = self._result.tolist()
        if self._classes is None:
            return {"values": values}
        best = self._classes.labels[int(self._result.argmax())]
        return {"class": best.name, **({"code": best.code} if best.code else {}), "probabilities": values}

    def __str__(self) -> str:
        if self._classes is None:
            return np.array2string(self._result, precision=6, separator=", ")
        names = [label.name for label in self._classes.labels]
        if self._classes.activation == "sigmoid":
            # They do not exclude each other: each that is likely, or that none is.
            likely = [f"{name} ({p:.0%})" for name, p in zip(names, self._result, strict=True) if p >= 0.5]
            return ", ".join(likely) or f"none (at most {self._result.max():.0%})"
        best = int(self._result.argmax())
        figure = f"{self._result[best]:.0%}" if self._classes.activation == "softmax" else f"{self._result[best]:.4g}"
        return f"{names[best]} ({figure})"
