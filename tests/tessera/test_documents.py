"""The README's Python runs as it stands, with clusters of processes; ``test_pages`` has what is in ``docs/``."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

README = (Path(__file__).parents[2] / "README.md").read_text()
BLOCKS = re.findall(r"^```python\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def test_its_python_runs(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    assert len(BLOCKS) == README.count("```python") > 0
    (tmp_path / "script.py").write_text("\n".join(BLOCKS))
    command = [sys.executable, str(Path(__file__).with_name("document.py")), "script.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stderr[-3000:]
    # The difference that it ends with is as small as it says.
    assert float(done.stdout.split()[-1]) <= 1e-4


def test_it_imports_the_public_face_alone() -> None:
    imported = re.findall(r"^(?:from|import) (\w+)", "\n".join(BLOCKS), re.MULTILINE)
    assert set(imported) == {"numpy", "tessera", "torch"}
