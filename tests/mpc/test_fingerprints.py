"""A kernel is loaded from the disk only where it would be compiled to the same."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numba
import pytest

from mpc.rings import fingerprints, kernels
from mpc.rings.fingerprints import fingerprint

SOURCES = {
    "constants.py": "SCALE = 2\n",
    "helpers.py": "import constants\ndef scaled(x): return x * constants.SCALE\ndef shifted(x): return scaled(x) + 1\n",
    "factory.py": "def made(by):\n    def times(x): return x * by\n    return times\n",
    "stars.py": """
import helpers
from factory import made
from helpers import shifted
THREEFOLD = made(3)
def star(x):
    return sum([shifted(v) for v in x]) + THREEFOLD(x[0]) + helpers.scaled(x[1])
""",
}
EDITS = {
    "the constant of a helper's helper": ("constants.py", "2", "4"),
    "a helper's helper": ("helpers.py", "x * constants", "x - constants"),
    "a helper": ("helpers.py", "+ 1", "+ 2"),
    "what a helper was made with": ("stars.py", "made(3)", "made(4)"),
    "itself": ("stars.py", "x[1]", "x[2]"),
}


def of_sources(folder: Path, sources: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> str:
    """The star's, of these files."""
    folder.mkdir()
    names = [name.removesuffix(".py") for name in sources]
    for name, text in sources.items():
        (folder / name).write_text(text)
    with monkeypatch.context() as patch:
        patch.syspath_prepend(folder)
        patch.setattr(fingerprints, "OURS", set(names))
        try:
            return fingerprint(importlib.import_module("stars").star)
        finally:
            for name in names:
                sys.modules.pop(name, None)


@pytest.mark.parametrize("edit", EDITS)
def test_of_other_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, edit: str) -> None:
    file, old, new = EDITS[edit]
    assert old in SOURCES[file]
    before = of_sources(tmp_path / "before", SOURCES, monkeypatch)
    assert of_sources(tmp_path / "moved", SOURCES, monkeypatch) == before
    assert of_sources(tmp_path / "after", {**SOURCES, file: SOURCES[file].replace(old, new)}, monkeypatch) != before


def test_of_another_version(monkeypatch: pytest.MonkeyPatch) -> None:
    function = kernels.registered[0].py_func
    before = fingerprint(function)
    monkeypatch.setattr(numba, "__version__", "0.1")
    assert fingerprint(function) != before


def test_each_kernel_has_its_own_and_the_same_in_each_process() -> None:
    ours = [f"{kernel.name} {fingerprint(kernel.py_func)}" for kernel in kernels.registered]
    assert len({line.split()[1] for line in ours}) == len(ours)
    script = """
import importlib, sys
from mpc.rings import kernels
from mpc.rings.fingerprints import fingerprint
for name in sys.argv[1:]: importlib.import_module(name)
print(*(f"{kernel.name} {fingerprint(kernel.py_func)}" for kernel in kernels.registered), sep="\\n")
"""
    modules = {kernel.name.rpartition(".")[0] for kernel in kernels.registered}
    done = subprocess.run([sys.executable, "-c", script, *modules], capture_output=True, text=True, check=True)
    assert set(ours) <= set(done.stdout.splitlines())


STAR = """
import sys
from numba import types
from mpc.rings import kernels
from helper import helped
@kernels.kernel(types.int64)
def star(x):
    return helped(x)
print(star.load(), star(20))
"""


@pytest.mark.slow
def test_an_edited_helper_is_compiled_anew_and_what_was_before_is_gone(tmp_path: Path) -> None:
    def run(script: str) -> list[str]:
        (tmp_path / "star.py").write_text(script)
        environment: dict[str, Any] = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path / "cache")}
        environment["PYTHONPATH"] = os.pathsep.join([str(tmp_path), *sys.path])
        command = [sys.executable, "-B", "-c", "import star"]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        assert len(list((tmp_path / "cache").glob("*/star.star.*"))) == 2
        return done.stdout.split()

    helper = "from mpc.rings.kernels import inline\n@inline\ndef helped(x):\n    return x + {}\n"
    (tmp_path / "helper.py").write_text(helper.format(1))
    assert [run(STAR), run(STAR)] == [["True", "21"], ["False", "21"]]
    (tmp_path / "helper.py").write_text(helper.format(22))
    assert [run(STAR), run(STAR)] == [["True", "42"], ["False", "42"]]
    # Another version compiles its own.
    other = 'import numba\nnumba.__version__ = "0"\n' + STAR
    assert [run(other), run(STAR)] == [["True", "42"], ["True", "42"]]
