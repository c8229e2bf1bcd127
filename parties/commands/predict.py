"""``tessera predict``: photographs go in as shares, answers come back to their owner alone.

How a photograph becomes an input, what the answers are called, and what is to be said with them, the model says itself
(``nn.interface``).
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nn.interface import Classes
from nn.pictures import check_picture
from nn.preprocessing import ImageInput
from parties.client import streaming
from parties.client.async_client import AsyncClient
from parties.client.prepared import Reals
from parties.client.remote_model import RemoteModel
from parties.cluster import Cluster
from parties.commands.arguments import client_arguments, run_as_client
from parties.commands.chosen import chosen_model
from parties.keys import KeyPair


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of ``tessera predict``."""
    parser.add_argument("images", type=Path, nargs="+", metavar="IMAGE", help="JPEG or PNG; metadata is dropped")
    parser.add_argument("--model", help="name of a model stored on the parties (default: the only one there)")
    client_arguments(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(options: argparse.Namespace) -> int:
    """The exit code."""
    return run_as_client(predict, options)


async def predict(cluster: Cluster, keys: KeyPair, options: argparse.Namespace) -> int:
    """All images, as many in a run as fit (``parties.client.streaming``); a line (or a JSON entry) each."""
    # Each is looked at before anything is sent, and none is kept: they are read again in their turn.
    for path in options.images:
        check_picture(path)
    async with AsyncClient(cluster, keys, connect_timeout=options.timeout) as client:
        model = await chosen_model(client, options.model)
        takes, classes = model.image_input, model.description.interface.output
        if classes is not None:
            classes.check(_result_shape(client, model, takes))
        chunks = _chunks(options.images, takes, streaming.fitting(model, takes.shape))
        done = [predicted async for predicted in streaming.stream(client, model, chunks)]
    results = np.concatenate([predicted.values for predicted in done])
    report = streaming.total([predicted.report for predicted in done])
    answers = [_Answer(classes, result) for result in results]
    if options.json:
        predictions = [{"image": str(path), **a.to_dict()} for path, a in zip(options.images, answers, strict=True)]
        print(json.dumps({"predictions": predictions, "run": report.to_dict()}))
        return 0
    for path, answer in zip(options.images, answers, strict=True):
        print(f"{path}: {answer}")
    print(report, file=sys.stderr)
    if notice := model.description.interface.notice:
        print(notice, file=sys.stderr)
    return 0


class _Answer:
    """One image's: the likeliest class; or the numbers themselves, of a model that does not say what they are."""

    def __init__(self, classes: Classes | None, result: Reals) -> None:
        self._result = result if classes is None else classes.probabilities(result[None])[0]
        self._name = None if classes is None else classes.labels[int(self._result.argmax())].name

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        values = self._result.tolist()
        return {"values": values} if self._name is None else {"class": self._name, "probabilities": values}

    def __str__(self) -> str:
        if self._name is None:
            return np.array2string(self._result, precision=6, separator=", ")
        return f"{self._name} ({self._result.max():.0%})"


def _result_shape(client: AsyncClient, model: RemoteModel, takes: ImageInput) -> tuple[int, ...]:
    """Of the results for one image; nothing is sent for it."""
    return model(client.share(np.full((1, *takes.shape), takes.low), low=takes.low, high=takes.high)).shape


def _chunks(paths: Sequence[Path], takes: ImageInput, size: int) -> Iterator[Reals]:
    """The images, so many at a time: none is read before its turn."""
    for start in range(0, len(paths), size):
        yield np.stack([takes.load(path) for path in paths[start : start + size]])
