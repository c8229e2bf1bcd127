"""``tessera predict``: a photograph goes in as shares, the class comes back to its owner alone."""

from __future__ import annotations

import argparse
import json
import sys

import numpy as np

from mpc.errors import ShapeError
from nn.derm import CLASS_NAMES, load_image
from parties.client import AsyncClient
from parties.cluster import Cluster
from parties.keys import KeyPair


async def predict(cluster: Cluster, keys: KeyPair, options: argparse.Namespace) -> int:
    """All images in one run; a line (or a JSON entry) each."""
    images = np.stack([load_image(path) for path in options.images])
    async with AsyncClient(cluster, keys, connect_timeout=options.timeout) as client:
        model = await client.model(options.model)
        x = client.share(images, low=-1.0, high=1.0, name="images")
        logits = await client.reveal(model(x))
        report = client.last_run
    if logits.ndim != 2 or logits.shape[1] != len(CLASS_NAMES):
        raise ShapeError(f"model {options.model!r} gives results of shape {logits.shape}, not 7 classes per image")
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities = shifted / shifted.sum(axis=1, keepdims=True)
    if options.json:
        predictions = [
            {"image": str(path), "class": CLASS_NAMES[int(p.argmax())], "probabilities": [float(v) for v in p]}
            for path, p in zip(options.images, probabilities, strict=True)
        ]
        print(json.dumps({"predictions": predictions, "run": report.to_dict() if report else None}))
        return 0
    for path, p in zip(options.images, probabilities, strict=True):
        print(f"{path}: {CLASS_NAMES[int(p.argmax())]} ({p.max():.0%})")
    print(report, file=sys.stderr)
    print("Not for diagnosis.", file=sys.stderr)
    return 0
