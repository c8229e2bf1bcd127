"""``tessera predict``: a photograph goes in as shares, the class comes back to its owner alone."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from nn.derm import CLASS_NAMES, class_probabilities, load_image
from parties.client import streaming
from parties.client.async_client import AsyncClient
from parties.client.prepared import Reals
from parties.cluster import Cluster
from parties.keys import KeyPair


async def predict(cluster: Cluster, keys: KeyPair, options: argparse.Namespace) -> int:
    """All images, as many in a run as fit (``parties.client.streaming``); a line (or a JSON entry) each."""
    # Each is looked at before anything is sent, and none is kept: they are read again in their turn.
    shapes = [load_image(path).shape for path in options.images]
    async with AsyncClient(cluster, keys, connect_timeout=options.timeout) as client:
        model = await client.model(options.model)
        chunk = streaming.fitting(model, shapes[0])
        done = [predicted async for predicted in streaming.stream(client, model, _chunks(options.images, chunk))]
    logits = np.concatenate([predicted.values for predicted in done])
    report = streaming.total([predicted.report for predicted in done])
    probabilities = class_probabilities(logits)
    if options.json:
        predictions = [
            {"image": str(path), "class": CLASS_NAMES[int(p.argmax())], "probabilities": [float(v) for v in p]}
            for path, p in zip(options.images, probabilities, strict=True)
        ]
        print(json.dumps({"predictions": predictions, "run": report.to_dict()}))
        return 0
    for path, p in zip(options.images, probabilities, strict=True):
        print(f"{path}: {CLASS_NAMES[int(p.argmax())]} ({p.max():.0%})")
    print(report, file=sys.stderr)
    print("Not for diagnosis.", file=sys.stderr)
    return 0


def _chunks(paths: Sequence[Path], size: int) -> Iterator[Reals]:
    """The images, so many at a time: none is read before its turn."""
    for start in range(0, len(paths), size):
        yield np.stack([load_image(path) for path in paths[start : start + size]])
