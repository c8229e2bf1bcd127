"""A server, or a client that uploads, whose uploads have many small chunks.

    python uploading_member.py server party 1 --cluster cluster.toml ...
    python uploading_member.py client CLUSTER KEY SCALE DIE_AT

A server is a crashing one.  The client uploads ``model(SCALE)`` as ``m`` and kills itself once all parties have DIE_AT
chunks.
"""

from __future__ import annotations

import importlib.util
import os
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np

from nn import Linear, Model, Sequential
from parties import Client
from parties.client.uploading import UploadProgress
from parties.stored import chunks

CHUNK_ELEMENTS = 64
WIDTH = 3000
CHUNKS = -(-4 * WIDTH // CHUNK_ELEMENTS)


def model(scale: float) -> Model:
    architecture = Sequential({"out": Linear(3, WIDTH)}).architecture((3,))
    return Model(architecture, {n: np.full(s, scale) for n, s in architecture.parameters.items()})


def upload(cluster: str, key: str, scale: str, die_at: str) -> None:
    def progress(now: UploadProgress) -> None:
        if now.done >= int(die_at) * CHUNK_ELEMENTS * 8:
            os.kill(os.getpid(), signal.SIGKILL)

    with Client(cluster, key) as client:
        client.upload(model(float(scale)), "m", progress=progress)


def crashing_server() -> Any:
    path = Path(__file__).with_name("crashing_server.py")
    spec = importlib.util.spec_from_file_location("crashing_server", path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules["crashing_server"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


if __name__ == "__main__":
    chunks.CHUNK_ELEMENTS = CHUNK_ELEMENTS
    if sys.argv[1] == "server":
        sys.exit(crashing_server().main(sys.argv[2:]))
    upload(*sys.argv[2:])
