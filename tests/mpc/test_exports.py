"""What each package shows of itself, and that whatever one imports works from there."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import pytest

FORKS = """
import os, sys
import cryptography.hazmat.primitives.ciphers, msgspec, numba, numpy, scipy.optimize  # what takes longest
sys.dont_write_bytecode, sys.pycache_prefix = False, sys.argv[1]
for code in sys.argv[2:]:
    if not os.fork():
        exec(code, {})
        os._exit(0)
    _, status = os.wait()
    assert status == 0, code
"""
"""Runs codes, each as if nothing of ours had been imported before."""


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder for what each of them would compile again."""
    return str(tmp_path_factory.mktemp("compiled"))


@pytest.fixture
def run(compiled: str) -> Callable[..., list[str]]:
    """The lines that codes print."""

    def lines(*codes: str) -> list[str]:
        command = [sys.executable, "-uc", FORKS, compiled, *codes]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert not done.returncode, done.stderr
        return done.stdout.splitlines()

    return lines


@pytest.mark.parametrize(
    ("package", "names"),
    [
        ("mpc", []),
        (
            "protocols",
            [
                "PrecisionWarning",
                "RangeWarning",
                "SecretTensor",
                "concatenate",
                "grad",
                "graph_of",
                "leaf",
                "plan",
                "stack",
            ],
        ),
    ],
)
def test_a_package_shows_what_it_means_to_show(run: Callable[..., list[str]], package: str, names: list[str]) -> None:
    shown, exported = run(f"import {package}; print(dir({package})); print(sorted({package}.__all__))")
    assert shown == exported == str(names)


def test_dir_is_what_is_exported(run: Callable[..., list[str]]) -> None:
    packages = ("nn", "parties", "tessera")
    codes = [f"import {package}; print(dir({package}) == sorted({package}.__all__))" for package in packages]
    assert run(*codes) == ["True"] * len(codes)


IMPORTS = [
    "from protocols import SecretTensor, graph_of, leaf, plan",
    "from protocols.trace.secret_tensor import graph_of, leaf; from protocols import plan",
    "from protocols.lowering.plan import plan; from protocols.trace.secret_tensor import graph_of, leaf",
    "import protocols.trace.mathematics; from protocols import graph_of, leaf, plan",
    "import protocols.lowering.rules; from protocols import graph_of, leaf, plan",
    "import nn; from protocols import graph_of, leaf, plan",
    "import parties; from protocols import graph_of, leaf, plan",
    "import tessera; from protocols import graph_of, leaf, plan",
]


def test_a_tensor_that_can_be_written_can_be_planned_and_read(run: Callable[..., list[str]]) -> None:
    """``x + 1`` first of all, and one of each kind that needs an operation of its own; whatever is imported first."""
    code = """
from mpc.operation import Input
from mpc.program import Program
x = leaf(Input((2, 2), 16, -1.0, 1.0))
for y in (x + 1, x * x, x @ x, (x * x).truncate(16), x ** 3, x.sigmoid(), x.sum() / 3):
    assert Program.decode(plan(graph_of([y])).encode()).nodes
print("works")
"""
    assert run(*(f"{imports}\n{code}" for imports in IMPORTS)) == ["works"] * len(IMPORTS)
