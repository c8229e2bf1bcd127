"""The Python in the documents runs as it stands: one script a document, its blocks one after the other."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCUMENTS = [
    path
    for path in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md")))
    if "```python" in path.read_text()
]
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def test_the_readme_is_among_them() -> None:
    assert ROOT / "README.md" in DOCUMENTS


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_its_python_runs(path: Path, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    blocks = BLOCK.findall(path.read_text())
    assert len(blocks) == path.read_text().count("```python")
    (tmp_path / "script.py").write_text("\n".join(blocks))
    command = [sys.executable, str(Path(__file__).with_name("document.py")), "script.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_it_imports_the_public_face_alone(path: Path) -> None:
    imported = re.findall(r"^(?:from|import) (\w+)", "\n".join(BLOCK.findall(path.read_text())), re.MULTILINE)
    assert not set(imported) & {"mpc", "protocols", "nn", "parties", "benchmarks"}
