"""Programs and descriptions are decoded in threads: the first of a process by several at once, without ending it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from mpc.operation import Input
from nn.derm.model import derm_model
from protocols import graph_of, leaf, plan

SNIPPET = str(Path(__file__).parents[1] / "snippet.py")
TOGETHER = """
import sys, threading
import protocols
from mpc.program import Program
from nn.architecture import decode_architecture
from nn.model import Description

sys.setswitchinterval(1e-6)
decode, data = eval(sys.argv[1]), open(sys.argv[2], "rb").read()
barrier = threading.Barrier(8)
failures = []

def work():
    barrier.wait()
    try:
        decode(data)
    except Exception as error:
        failures.append(error)

threads = [threading.Thread(target=work) for _ in range(8)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
sys.exit(str(failures) if failures else 0)
"""


def program() -> bytes:
    x = leaf(Input((1, 4), 16, -1.0, 1.0))
    return plan(graph_of([(x * x).sum() * 2.0])).encode()


@pytest.mark.parametrize(
    ("decode", "data"),
    [("Program.decode", program()), ("Description.decode", derm_model().describe())],
    ids=["program", "description"],
)
def test_the_first_ones_of_a_process_together(tmp_path: Path, decode: str, data: bytes) -> None:
    (tmp_path / "data").write_bytes(data)
    # Without the lock, four of five processes end with SIGSEGV.
    for _ in range(3):
        command = [sys.executable, SNIPPET, TOGETHER, decode, str(tmp_path / "data")]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, (done.returncode, done.stderr)
