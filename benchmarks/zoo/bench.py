"""``tessera bench zoo``: whether a network comes over, by how much it differs then, and what a prediction costs."""

from __future__ import annotations

import argparse
import math
import subprocess
import sys
import time
import warnings
from collections import Counter
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

import nn
from benchmarks.records import Figure, Recorder
from benchmarks.report import plain_table, progress_bar, stdout_console
from benchmarks.zoo import running
from benchmarks.zoo.networks import FULL, NETWORKS, Network
from mpc.errors import ConfigurationError, TesseraError, UsageError

REQUIREMENTS = Path(__file__).with_name("requirements.txt")
SEED = 1
SAMPLES = 2
LONGEST = 60
"""Characters of what stands in the way."""


def run(options: argparse.Namespace) -> int:
    """Import and print; the exit code.  Raises UsageError for a network that is not known."""
    folder = options.folder.expanduser()
    if options.install:
        return _install(folder)
    names, known = options.networks or list(NETWORKS), NETWORKS | FULL
    for name in names:
        if name not in known:
            raise UsageError(f"there is no network {name!r}: the known ones are {', '.join(known)}")
    if folder.is_dir():
        sys.path.append(str(folder))
    recorder = Recorder.of(options)
    rows: dict[str, dict[str, Any]] = {}
    with progress_bar("importing", len(names)) as advance:
        for name in names:
            advance.describe(name)
            network = _sized(known[name], options.size)
            rows[name] = _run(network, options.inputs) if options.among_parties else _tried(network)
            advance()
            if rows[name]["imported"]:
                recorder.add("zoo", {"network": name, "input": list(network.shape)}, _figures(rows[name]))
    if options.json:
        recorder.print_json({"networks": rows})
    else:
        (_print_runs if options.among_parties else _print)(rows)
    return recorder.finish()


def _sized(network: Network, size: int | None) -> Network:
    """Of images of that size."""
    if size is None or len(network.shape) != 3:
        return network
    return network._replace(shape=(network.shape[0], size, size))


def _install(folder: Path) -> int:
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command = [*pip, "--upgrade", "--target", str(folder), *vision(version("torch")), "-r", str(REQUIREMENTS)]
    if subprocess.run(command, check=False, stdout=sys.stderr).returncode:  # noqa: S603 - our own command
        raise TesseraError("the networks were not installed: see what pip said above")
    return 0


def vision(torch: str) -> list[str]:
    """What pip is to fetch of torchvision, whose compiled operators are of one version of torch, and of one build."""
    release, _, build = torch.partition("+")
    major, minor = map(int, release.split(".")[:2])
    if major != 2:
        raise ConfigurationError(f"it is not known which torchvision goes with torch {torch}: install torch 2")
    # They have counted in step since torch 2.0.
    wanted = f"torchvision==0.{minor + 15}.*"
    # PyPI has that of one build alone.
    return [wanted, "--extra-index-url", f"https://download.pytorch.org/whl/{build}"] if build else [wanted]


def _made(network: Network) -> Any:
    """With random weights, the same each time."""
    import torch

    torch.manual_seed(SEED)
    try:
        return network.make().eval()
    except ImportError as error:
        raise ConfigurationError(f"a library is missing ({error}): tessera bench zoo --install") from None
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise
        raise ConfigurationError(
            f"the torchvision that is installed is none of torch {torch.__version__} ({error}): tessera bench zoo"
            " --install"
        ) from None


def _run(network: Network, inputs: int) -> dict[str, Any]:
    """What became of one among parties."""
    module = running.seasoned(_made(network), network.shape)
    try:
        return {"imported": True, **running.run(module, network.shape, inputs, network.vocabulary)}
    except TesseraError as error:
        return {"imported": False, "why": str(error)}


def _tried(network: Network) -> dict[str, Any]:
    """What became of one, of samples at random."""
    import torch
    from torch.utils._pytree import tree_leaves

    module = _made(network)
    if network.vocabulary:
        x = torch.randint(0, network.vocabulary, (SAMPLES, *network.shape))
    else:
        module, x = running.seasoned(module, network.shape), running.noise(SAMPLES, network.shape)
    began = time.perf_counter()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = nn.from_torch(module, x)
    except TesseraError as error:
        return {"imported": False, "why": str(error)}
    row: dict[str, Any] = {"imported": True, "import_seconds": time.perf_counter() - began}
    with torch.no_grad():
        results = [each for each in tree_leaves(module(x[:1])) if isinstance(each, torch.Tensor)]
    want = torch.cat([each.flatten(1) for each in results], 1).numpy().astype(np.float64)
    got = model.plain(x[:1].numpy(), exact=True).reshape(1, -1)
    row |= {
        "layers": len(model.architecture.steps),
        "error": float(np.abs(got - want).max() / (np.abs(want).max() or 1.0)),
        "bytes_stored": 8 * sum(math.prod(t.shape) for t in model.stored_types().values()),
    }
    low, high = (None, None) if model.interface.input else (-running.LARGEST, running.LARGEST)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            cost = model.cost((1, *(model.description.input_shape or network.shape)), low=low, high=high)
    except TesseraError as error:
        return row | {"why": str(error)}
    return row | {
        "rounds": cost.online_rounds,
        "bytes_per_party": cost.online_bytes_per_party,
        "bytes_dealt": cost.offline_bytes,
    }


def _figures(row: dict[str, Any]) -> dict[str, Figure]:
    return {name: value for name, value in row.items() if isinstance(value, int | float) and name != "imported"}


def _why(row: dict[str, Any]) -> str:
    """The beginning of what stands in the way, if anything does."""
    return str(row.get("why", "")).partition("\n")[0][:LONGEST]


def _print_runs(rows: dict[str, dict[str, Any]]) -> None:
    figures = ("rounds", "sent a party", "offline", "first", "online", "its CPU", "party", "dealer", "client")
    table = plain_table("network", "error", "same top", *figures)
    table.add_column("what stands in the way")
    for name, row in rows.items():
        cells = [""] * 11
        if row["imported"]:
            seconds = ("offline_seconds", "first_offline_seconds", "online_seconds", "online_cpu_seconds")
            cells = [
                f"{row['run_error']:.0e}",
                f"{row['same_top']} of {row['inputs']}",
                f"{row['rounds']:,}" + ("" if row["as_predicted"] else " (not as predicted)"),
                f"{row['bytes_per_party'] / 1e6:.1f} MB",
                *(f"{row[figure]:.2f} s" for figure in seconds),
                *(f"{row[f'{role}_peak_bytes'] / 1e6:,.0f} MB" for role in ("party", "dealer", "client")),
            ]
        table.add_row(name, *cells, _why(row))
    stdout_console().print(table)


def _print(rows: dict[str, dict[str, Any]]) -> None:
    table = plain_table("network", "layers", "error", "rounds", "sent a party", "dealt", "weights at each")
    table.add_column("what stands in the way")
    for name, row in rows.items():
        cells = [""] * 6
        if row["imported"]:
            cells[:2] = [f"{row['layers']}", f"{row['error']:.0e}"]
            cells[5] = f"{row['bytes_stored'] / 1e6:.1f} MB"
        if "rounds" in row:
            cells[2:5] = [f"{row['rounds']:,}", *(f"{row[n] / 1e6:.1f} MB" for n in ("bytes_per_party", "bytes_dealt"))]
        table.add_row(name, *cells, _why(row))
    console = stdout_console()
    console.print(table)
    for library, count in Counter(name.partition("/")[0] for name in rows).items():
        over = sum(row["imported"] for name, row in rows.items() if name.startswith(f"{library}/"))
        console.print(f"{library}: {over} of {count}")
    console.print(f"{sum(row['imported'] for row in rows.values())} of {len(rows)} come over")
