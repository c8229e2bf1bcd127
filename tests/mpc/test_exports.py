"""What each package shows of itself, and that whatever one imports works from there."""

from __future__ import annotations

import subprocess
import sys

import pytest


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    return done.stdout.strip()


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
def test_a_package_shows_what_it_means_to_show(package: str, names: list[str]) -> None:
    assert run(f"import {package}; print(dir({package}))") == str(names)
    assert run(f"import {package}; print(sorted({package}.__all__))") == str(names)


@pytest.mark.parametrize("package", ["nn", "parties"])
def test_dir_is_what_is_exported(package: str) -> None:
    assert run(f"import {package}; print(dir({package}) == sorted({package}.__all__))") == "True"


@pytest.mark.parametrize(
    "imports",
    [
        "from protocols import SecretTensor, graph_of, leaf, plan",
        pytest.param(
            "from protocols.trace.secret_tensor import graph_of, leaf; from protocols import plan",
            marks=pytest.mark.slow,
        ),
        "from protocols.lowering.plan import plan; from protocols.trace.secret_tensor import graph_of, leaf",
        "import protocols.trace.mathematics; from protocols import graph_of, leaf, plan",
        "import protocols.lowering.rules; from protocols import graph_of, leaf, plan",
        # These two are imported by the third one too.
        pytest.param("import nn; from protocols import graph_of, leaf, plan", marks=pytest.mark.slow),
        pytest.param("import parties; from protocols import graph_of, leaf, plan", marks=pytest.mark.slow),
        "import tessera; from protocols import graph_of, leaf, plan",
    ],
)
def test_a_tensor_that_can_be_written_can_be_planned_and_read(imports: str) -> None:
    """``x + 1`` first of all, and one of each kind that needs an operation of its own."""
    code = f"""
from mpc.operation import Input
from mpc.program import Program
{imports}
x = leaf(Input((2, 2), 16, -1.0, 1.0))
for y in (x + 1, x * x, x @ x, (x * x).truncate(16), x ** 3, x.sigmoid(), x.sum() / 3):
    assert Program.decode(plan(graph_of([y])).encode()).nodes
print("works")
"""
    assert run(code) == "works"
