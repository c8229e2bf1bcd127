"""Steps of training by CrypTen, beside those of ``tessera bench training``: the same network, batch and data.

Its first party makes all triples within a step, and could learn everything from them; its wire is not encrypted.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.peers.catalogue import SYSTEMS, script
from benchmarks.peers.installing import installed, interpreter
from benchmarks.peers.runner import Runner, Unmeasured
from mpc.errors import UsageError
from nn.activations import Sigmoid
from nn.architecture import Sequential
from nn.layers import AvgPool2d, Conv2d, Flatten, Linear
from nn.rectifiers import ReLU

PEER = SYSTEMS["crypten"]


def check(folder: Path) -> None:
    """Raises UsageError where it is not installed."""
    if not installed(PEER.peer, folder):
        raise UsageError(f"{PEER.peer} is not installed: tessera bench peers --install {PEER.peer}")


def steps(
    network: Sequential, x: npt.NDArray[np.float64], y: npt.NDArray[np.float64], repeat: int, limit: float, folder: Path
) -> dict[str, Any]:
    """Seconds (the median), rounds and bytes of a step on one batch, between two parties; or why there are none."""
    case = {"kind": "train", "layers": _layers(network), "held": True}
    with tempfile.TemporaryDirectory(prefix="tessera-peer-") as made:
        data = Path(made) / "case.npz"
        np.savez(data, x=x, y=y)
        runner = Runner([interpreter(PEER.peer, folder), script(PEER), *PEER.arguments], Path(made) / "runner")
        try:
            opened = runner.ask({"do": "open", "case": case, "data": str(data), "limit": limit}, limit)
            seconds = [runner.ask({"do": "run"}, limit)["seconds"] for _ in range(repeat)]
        except Unmeasured as error:
            return {"system": PEER.name, "none": str(error)}
        finally:
            runner.close()
    figures = opened["figures"]
    return {
        "system": PEER.name,
        "seconds": median(seconds),
        "rounds": figures["online.rounds"],
        "bytes_per_party": figures["online.bytes_per_party"],
    }


def _layers(network: Sequential) -> list[list[Any]]:
    """As the runner reads them: a name, and sizes."""
    found = list[list[Any]]()
    for _, layer in network.layers:
        match layer:
            case Conv2d():
                found.append(["conv", layer.in_channels, layer.out_channels, 3])
            case Linear():
                found.append(["linear", layer.in_features, layer.out_features])
            case Sigmoid():
                found.append(["sigmoid"])
            case ReLU():
                found.append(["relu"])
            case AvgPool2d():
                found.append(["pool", 2])
            case Flatten():
                found.append(["flatten"])
            case _:
                raise TypeError(f"no runner has a {type(layer).__name__}")
    return found
