"""Kernels are compiled at once, by all cores, and whoever comes next loads them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mpc.rings import compiling, field
from mpc.rings.field import P

FEW = """
import os, sys
from mpc.rings import compiling, kernels, field
os.sched_getaffinity = lambda who: {0, 1, 2}
few = ("mask", "negate", "to_signed")
compiling.registered[:] = [k for k in kernels.registered if k.name.rpartition(".")[2] in few]
import numpy as np
"""
"""Three small kernels, and as many cores."""


def run(script: str, folder: Path) -> list[str]:
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(folder)}
    done = subprocess.run(
        [sys.executable, "-c", FEW + script], env=environment, capture_output=True, text=True, timeout=120, check=True
    )
    return done.stdout.split()


def test_nothing_is_left_to_compile() -> None:
    compiling.warm_up()
    compiling.warm_up()
    assert field.add(np.uint64([P - 1]), np.uint64([1])).tolist() == [0]


@pytest.mark.slow
def test_cores_share_what_the_disk_lacks(tmp_path: Path) -> None:
    """The second core's kernel is compiled by a process of its own, and loaded from the disk here."""
    count = "compiling.warm_up(); print(*(k._dispatcher.stats.cache_hits.total() for k in compiling.registered))"
    assert sorted(run(count, tmp_path)) == ["0", "0", "1"]
    assert run("print(*(k.load() for k in compiling.registered))", tmp_path) == ["False"] * 3


@pytest.mark.slow
@pytest.mark.parametrize("interpreter", ["/bin/false", "/nowhere/python"])
def test_where_no_process_helps_one_does_it_all(tmp_path: Path, interpreter: str) -> None:
    found = run(
        f"sys.executable = {interpreter!r}; compiling.warm_up(); print(field.negate(np.uint64([1]))[0])", tmp_path
    )
    assert found == [str(P - 1)]


@pytest.mark.slow
def test_what_the_disk_has_and_cannot_be_loaded_is_compiled_anew(tmp_path: Path) -> None:
    """Cut short when the machine went down, or of modules that there are no more."""
    load = "print(*(k.load() for k in compiling.registered), field.negate(np.uint64([1]))[0])"
    compiled, loaded = ([word] * 3 + [str(P - 1)] for word in ("True", "False"))
    assert run(load, tmp_path) == compiled
    (index,) = tmp_path.glob("*/*.mask.*.nbi")
    index.write_bytes(index.read_bytes()[:20])
    (short,) = tmp_path.glob("*/*.negate.*.nbc")
    short.write_bytes(b"")
    (strange,) = tmp_path.glob("*/*.to_signed.*.nbc")
    strange.write_bytes(b"cno_such_module\nname\n.")
    assert [run(load, tmp_path) for _ in range(3)] == [compiled, compiled, loaded]
