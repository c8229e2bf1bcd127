"""Networks run among processes of this machine: how right they are beside torch's float64, and what they take."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np

import nn
from benchmarks.processes import Processes, Usage
from benchmarks.session import Measured, measure
from parties import Client, LocalCluster
from parties.host.memory import host_memory
from parties.host.processor import cores
from parties.members.cluster_file import Settings

LARGEST = 3.0
"""Inputs are noise between this and its negative."""
SAMPLES = 2
"""By which ranges are assumed."""
PATIENCE = 60.0
"""s that a process may be silent: on a busy machine a step of a deep network is long."""


def seasoned(module: Any, shape: tuple[int, ...]) -> Any:
    """The module with such statistics in its norms as noise leads to: with none, random weights fade or explode."""
    import torch

    norms = [m for m in module.modules() if isinstance(m, torch.nn.modules.batchnorm._BatchNorm)]
    for norm in norms:
        norm.momentum = None  # the mean of all batches
    if norms:
        module.train()
        with torch.no_grad():
            for _ in range(2):
                module(noise(4, shape))
    return module.eval()


def noise(count: int, shape: tuple[int, ...]) -> Any:
    """So many inputs."""
    import torch

    return torch.randn(count, *shape).clamp(-LARGEST, LARGEST)


def inputs_of(count: int, shape: tuple[int, ...], vocabulary: int) -> Any:
    """So many inputs, of numbers, or of tokens if there is a vocabulary."""
    import torch

    return torch.randint(0, vocabulary, (count, *shape)) if vocabulary else noise(count, shape)


def run(module: Any, shape: tuple[int, ...], inputs: int, vocabulary: int = 0) -> dict[str, Any]:
    """Figures of ``inputs`` predictions, one after the other, between two parties; the first is counted apart.

    Raises TesseraError for a network that does not come over, or cannot be run.
    """
    import torch

    began = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = nn.from_torch(module, inputs_of(SAMPLES, shape, vocabulary))
    seconds = time.perf_counter() - began
    given = inputs_of(inputs, shape, vocabulary)
    with torch.no_grad():
        module = module.double()
        wanted = np.concatenate([module(x[None] if vocabulary else x[None].double()).numpy() for x in given])
    del module
    values = model.interface.encoded(given.numpy()).astype(np.float64)
    low, high = model.interface.bounds(*((None, None) if vocabulary else (-LARGEST, LARGEST)))
    bits = 0 if vocabulary else None
    cost = model.cost(values[:1].shape, low=low, high=high)
    # Nobody else computes here: of each server's third of the memory, most is one run's.
    memory = host_memory() // 4 >> 20
    settings = Settings(
        threads=max(1, cores() // 2), round_timeout=600.0, peer_timeout=PATIENCE, memory_mb=max(memory, 1024)
    )
    with LocalCluster(2, settings=settings, observable=True) as cluster, Client(cluster) as client:
        pids = {name: process.pid for name, process in cluster.processes.items()}
        watched = Processes({"client": os.getpid(), **pids})
        stored = client.upload(model, name="network")
        shared = (client.share(x[None], fraction_bits=bits, low=low, high=high) for x in values)
        runs = [measure(client, stored(x), watched) for x in shared]
    got = np.concatenate([one.values for one in runs])
    usual = runs[1:] or runs
    taken = {(one.report.online.rounds, one.report.online.bytes) for one in runs}
    return {
        "import_seconds": seconds,
        "bytes_dealt": cost.offline_bytes,
        "rounds": runs[0].report.online.rounds,
        "bytes_per_party": runs[0].report.online.bytes,
        "as_predicted": taken == {(cost.online_rounds, cost.online_bytes_per_party)},
        "run_error": float(np.abs(got - wanted).max() / np.abs(wanted).max()),
        "same_top": int((got.reshape(inputs, -1).argmax(1) == wanted.reshape(inputs, -1).argmax(1)).sum()),
        "inputs": inputs,
        "first_offline_seconds": runs[0].report.offline.seconds,
        "offline_seconds": float(np.median([m.report.offline.seconds for m in usual])),
        "online_seconds": float(np.median([m.report.online.seconds for m in usual])),
        "online_cpu_seconds": float(np.median([_most(m.online, "party").cpu_seconds for m in usual])),
        **{f"{role}_peak_bytes": max(_peak(m, role) for m in runs) for role in ("client", "dealer", "party")},
    }


def _most(usage: Mapping[str, Usage], role: str) -> Usage:
    """Of the process of that role that has computed most."""
    return max((used for name, used in usage.items() if name.startswith(role)), key=lambda used: used.cpu_seconds)


def _peak(run: Measured, role: str) -> int:
    phases = (run.offline, run.online)
    return max(used.peak_bytes for phase in phases for name, used in phase.items() if name.startswith(role))
