"""The public face: exactly what ``import tessera`` offers, all errors among it, and what it costs to import."""

from __future__ import annotations

import importlib
import pkgutil
import subprocess
import sys
import typing
from collections.abc import Iterator
from pathlib import Path

import pytest

import mpc
import mpc.errors
import nn
import parties
import protocols
import tessera as ts

CLIENTS = {"AsyncClient", "Client", "Cluster", "DataSet", "KeyPair", "LocalCluster", "MemoryCluster", "Settings"}
STORED = {"AuditEntry", "Explanation", "Kept", "ModelEntry", "RemoteData", "RemoteModel", "RequestEntry",
          "Training", "TrainingJob", "TrainingProgress", "mixed"}  # fmt: skip
REPORTS = {"LayerReport", "Phase", "PreparedRun", "RunReport", "StockReport", "UploadProgress"}
TENSORS = {"grad", "SecretTensor", "concatenate", "stack"}
FITS = {
    "CompositeFit", "Fit", "FourierFit", "PiecewiseFit", "PolynomialFit", "RootFit",
    "default_fit", "fit", "fit_fourier", "fit_polynomial",
}  # fmt: skip
NETWORKS = {
    "InputRange", "Model", "Sequential", "calibrate", "check_ranges", "from_onnx", "from_sklearn", "from_torch", "nn",
}  # fmt: skip
SAID_OF_MODELS = {
    "ArrayInput", "Classes", "Column", "ImageInput", "Interface", "Label", "NamedInput", "Result", "SeveralInputs",
    "ShadesOfGray", "TableInput", "TokenInput",
}  # fmt: skip
COSTS = {"Cost", "Latency", "LayerCost", "Link", "Security"}
ERRORS = {
    "AuditError", "AuthenticationError", "CaughtCheating", "ConfigurationError", "DiffersFromSource", "DiskFull",
    "EncodingError", "InconsistentInputs", "InputOutOfRange", "LimitReached", "MacCheckError", "MaterialError",
    "NoAnswer", "NoSuchName",
    "NotAsPromised", "NotPermitted", "PeerError", "PeerLost", "PeerUnavailable", "PositionError", "ProgramError",
    "ProtocolViolation", "RangeError", "RemoteError", "RunExpired", "ServerBusy", "ShapeError", "TesseraError",
    "TooLarge", "UnknownValueError", "UnsupportedError", "UsageError", "VersionMismatch",
}  # fmt: skip

WARNINGS = {"PictureWarning", "PrecisionWarning", "RangeWarning"}

AMONG_SERVERS = {
    "AheadOfOthers", "AuditFailed", "BrokenChain", "BrokenCommitment", "Busy", "DealingLost", "NoSpace", "OldStock",
    "OtherTranscript", "OversizedProgram", "OutOfRange", "SpentItem", "UnreducedOpening", "VaultError",
    "WorkerGone",
}  # fmt: skip
"""Raised and caught within a server, the planner or ``tessera check``; who asked is told a kind of ``mpc.errors``."""


def test_exactly_what_is_exported() -> None:
    wanted = CLIENTS | STORED | REPORTS | TENSORS | FITS | NETWORKS | SAID_OF_MODELS | COSTS | ERRORS | WARNINGS
    assert set(dir(ts)) == wanted
    assert sorted(ts.__all__) == sorted(wanted)
    for name in wanted:
        assert getattr(ts, name) is not None
    names: dict[str, object] = {}
    exec("from tessera import *", names)
    assert set(names) - {"__builtins__"} == wanted


def everything() -> Iterator[object]:
    """All modules of the packages, without the commands that plug in from above and what needs a package of its own."""
    for package in (mpc, protocols, nn, parties):
        for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not found.name.endswith("__main__"):
                yield importlib.import_module(found.name)


def test_every_error_and_warning_is_among_it() -> None:
    pytest.importorskip("torch")
    pytest.importorskip("onnx")
    exported = {getattr(ts, name) for name in ERRORS | WARNINGS}
    own = {mpc.__name__, protocols.__name__, nn.__name__, parties.__name__}
    found = {
        kind
        for module in everything()
        for kind in vars(module).values()
        if isinstance(kind, type) and issubclass(kind, Exception) and kind.__module__.partition(".")[0] in own
    }
    assert {kind for kind in found if kind.__module__ == mpc.errors.__name__} <= exported
    rest = {kind for kind in found - exported if not kind.__name__.startswith("_")}
    assert {kind.__name__ for kind in rest} <= AMONG_SERVERS
    assert all(issubclass(kind, ts.TesseraError) for kind in rest)


def test_each_error_says_who_is_at_fault_and_has_an_exit_code() -> None:
    for name in ERRORS:
        kind = getattr(ts, name)
        assert issubclass(kind, ts.TesseraError)
        assert kind.exit_code > 0


def test_importing_it_loads_neither_torch_nor_what_only_some_use() -> None:
    absent = [
        "torch",
        "onnx",
        "PIL",
        "aiohttp",
        "scipy.optimize",
        "matplotlib",
        "benchmarks",
        "nn.derm",
        "prometheus_client",
    ]
    code = f"import sys, tessera; print([name for name in {absent} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_python_dash_m() -> None:
    done = subprocess.run([sys.executable, "-m", "tessera", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("tessera ")


@pytest.mark.slow
def test_a_script_needs_no_guard(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(
        "import tessera as ts\n"
        "with ts.LocalCluster(parties=3) as cluster, ts.Client(cluster) as client:\n"
        "    x = client.share([1.0, 2.0], low=0, high=4)\n"
        "    print(client.reveal(ts.concatenate([x * x, ts.stack([x, x]).sum(axis=0)])).round(2).tolist())\n"
    )
    done = subprocess.run([sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout.strip()) == (0, "[1.0, 4.0, 2.0, 4.0]"), done.stderr


@pytest.mark.slow
def test_users_see_types(tmp_path: Path) -> None:
    pytest.importorskip("mypy")
    (tmp_path / "typed.py").write_text(
        "import typing\n"
        "import numpy as np\n"
        "import numpy.typing as npt\n"
        "import tessera as ts\n"
        "Reals = npt.NDArray[np.float64]\n"
        "with ts.LocalCluster(parties=3) as cluster, ts.Client(cluster) as client:\n"
        "    typing.assert_type(client, ts.Client)\n"
        "    x = client.share(np.ones(3), low=-1, high=1)\n"
        "    typing.assert_type(x, ts.SecretTensor)\n"
        "    typing.assert_type(x @ x + 1, ts.SecretTensor)\n"
        "    typing.assert_type(client.reveal(x), Reals)\n"
        "    typing.assert_type(client.reveal([x, x]), list[Reals])\n"
        "    model = client.upload(ts.Model(ts.Sequential(ts.nn.Linear(3, 1))), 'm')\n"
        "    typing.assert_type(model, ts.RemoteModel)\n"
        "    typing.assert_type(client.upload(ts.DataSet({'a': [0.5]}, low=0, high=1), 'd'), ts.RemoteData)\n"
        "    typing.assert_type(model(x), ts.SecretTensor)\n"
        "    typing.assert_type(client.predict(model, np.ones((1, 3))), Reals)\n"
        "    typing.assert_type(client.last_run, ts.RunReport | None)\n"
        "    client.share(1.0, lo=2)  # type: ignore[call-arg]\n"
        "    ts.NoSuchThing  # type: ignore[attr-defined]\n"
    )
    root = Path(ts.__file__).parents[1]
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file", str(root / "pyproject.toml")]
    done = subprocess.run(
        [*command, "--cache-dir", str(tmp_path / "cache"), str(tmp_path / "typed.py")],
        cwd=tmp_path, env={"MYPYPATH": str(root), "PATH": ""}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout


def test_nothing_public_is_untyped() -> None:
    """No ``Any`` in what the clients' methods take and return."""
    for kind in (ts.Client, ts.AsyncClient, ts.LocalCluster):
        for name, method in vars(kind).items():
            if not name.startswith("_") and callable(method):
                hints = typing.get_type_hints(method)
                assert typing.Any not in hints.values(), (kind.__name__, name)
