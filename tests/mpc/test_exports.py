"""What each package shows of itself, and that whatever one imports works from there."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

FORKS = """
import json, os, sys
import cryptography.hazmat.primitives.ciphers, msgspec, numba, numpy, scipy.optimize  # what takes longest
if sys.dont_write_bytecode:
    # What each of them would compile again.
    sys.dont_write_bytecode, sys.pycache_prefix = False, sys.argv[1]
for code in json.load(sys.stdin):
    if not os.fork():
        exec(code, {})
        os._exit(0)
    _, status = os.wait()
    assert status == 0, code
    print("----")
"""
"""Runs codes, each as if nothing of ours had been imported before, and says where the output of each ends."""

NAMES = {
    "mpc": [],
    "protocols": [
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
}
"""What these show."""
ABOVE = ["protocols", "nn", "parties", "tessera"]

WRITTEN = """
from mpc.operation import Input
from mpc.program import Program
x = leaf(Input((2, 2), 16, -1.0, 1.0))
for y in (x + 1, x * x, x @ x, (x * x).truncate(16), x ** 3, x.sigmoid(), x.sum() / 3):
    assert Program.decode(plan(graph_of([y])).encode()).nodes
print("works")
"""
"""``x + 1`` first of all, and one of each kind that needs an operation of its own."""

SHOWN = "import {0}; print(dir({0})); print(sorted({0}.__all__)); "
IMPORTS = [
    "from protocols.trace.secret_tensor import graph_of, leaf; from protocols import plan",
    "from protocols.lowering.plan import plan; from protocols.trace.secret_tensor import graph_of, leaf",
    "import protocols.trace.mathematics; from protocols import graph_of, leaf, plan",
    "import protocols.lowering.rules; from protocols import graph_of, leaf, plan",
    *(SHOWN.format(package) + "from protocols import graph_of, leaf, plan" for package in ABOVE),
]
CODES = [SHOWN.format("mpc"), *(f"{imports}\n{WRITTEN}" for imports in IMPORTS)]


@pytest.fixture(scope="module")
def printed(tmp_path_factory: pytest.TempPathFactory) -> list[list[str]]:
    """The lines that each of the codes prints."""
    command = [sys.executable, "-uc", FORKS, str(tmp_path_factory.mktemp("compiled"))]
    done = subprocess.run(command, input=json.dumps(CODES), capture_output=True, text=True, timeout=120, check=False)
    assert not done.returncode, done.stderr
    return [each.splitlines() for each in done.stdout.split("----\n")]


@pytest.mark.parametrize("package", ["mpc", *ABOVE])
def test_a_package_shows_what_it_means_to_show(printed: list[list[str]], package: str) -> None:
    (lines,) = (lines for code, lines in zip(CODES, printed, strict=False) if SHOWN.format(package) in code)
    assert lines[0] == lines[1] == (str(NAMES[package]) if package in NAMES else lines[1])


def test_a_tensor_that_can_be_written_can_be_planned_and_read(printed: list[list[str]]) -> None:
    """Whatever is imported first."""
    assert [lines[-1] for lines in printed[1 : len(CODES)]] == ["works"] * len(IMPORTS)
