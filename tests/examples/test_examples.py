"""The examples run, each as a person would start it; what they import; and the notebooks are theirs."""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
TOLD = {"numpy", "sklearn", "tessera", "torch"}
"""What an example may import, beside Python's own library: of Tessera, the public face."""


def _notebooks() -> ModuleType:
    spec = importlib.util.spec_from_file_location("example_notebooks", EXAMPLES / "notebooks.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


notebooks = _notebooks()
each = pytest.mark.parametrize("script", notebooks.SCRIPTS, ids=lambda path: path.stem)


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])}


def needs(script: Path, *others: str) -> None:
    """Skips where what it imports is not there."""
    read = [name for name in ("torch", "sklearn") if re.search(rf"^(import|from) {name}\b", script.read_text(), re.M)]
    for name in (*read, *others):
        pytest.importorskip(name)


def test_there_are_nine_and_the_page_names_them_in_order() -> None:
    named = re.findall(r"\]\((\w+)\.py\)", (EXAMPLES / "README.md").read_text())
    assert len(named) == 9
    assert sorted(named) == [script.stem for script in notebooks.SCRIPTS]
    assert sorted(path.stem for path in (EXAMPLES / "notebooks").glob("*.ipynb")) == sorted(named)


@each
def test_it_is_short_claims_something_and_imports_the_public_face_alone(script: Path) -> None:
    text = script.read_text()
    told = "\n".join(source for kind, source in notebooks.cells(text) if kind != "picture")
    story = [line for line in told.splitlines() if line.strip()]
    assert 30 <= len(story) <= 80
    tree = ast.parse(text)
    imported = {
        name.partition(".")[0]
        for node in ast.walk(tree)
        for name in (
            [alias.name for alias in node.names] if isinstance(node, ast.Import)
            else [node.module or "."] if isinstance(node, ast.ImportFrom)
            else []
        )
    }  # fmt: skip
    assert imported <= TOLD | set(sys.stdlib_module_names)
    assert isinstance(tree.body[-1], ast.Assert)


@each
def test_its_notebook_has_its_cells_and_their_outputs(script: Path) -> None:
    notebook = json.loads((EXAMPLES / "notebooks" / f"{script.stem}.ipynb").read_text())
    found = [(cell["cell_type"], "".join(cell["source"])) for cell in notebook["cells"]]
    wanted = [("code" if kind == "picture" else kind, source) for kind, source in notebooks.cells(script.read_text())]
    assert found == wanted, f"python examples/notebooks.py {script.stem}"
    outputs = [output for cell in notebook["cells"] for output in cell.get("outputs", ())]
    assert not [output for output in outputs if output["output_type"] == "error"]
    assert not [output for output in outputs if output.get("name") == "stderr"]
    assert any("image/png" in output.get("data", {}) for output in outputs)
    # Nothing of the machine that ran it.
    assert str(ROOT) not in json.dumps(outputs)


@pytest.mark.parametrize(
    ("script", "sentence"),
    [
        ("import numpy\n# %%\n", "begins with a cell"),
        ("# %% [raw]\n# text\n", "begins no cell"),
        ("# %% [markdown]\ntext\n", "is a comment"),
    ],
)
def test_what_is_no_script(script: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        notebooks.cells(script)


@pytest.mark.slow
@each
def test_it_runs(script: Path, tmp_path: Path) -> None:
    needs(script)
    command = [sys.executable, str(script)]
    done = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout
    assert not done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@each
def test_its_notebook_runs(script: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    needs(script, "nbclient", "ipykernel", "matplotlib")
    monkeypatch.setenv("PYTHONPATH", environment()["PYTHONPATH"])
    monkeypatch.setattr(notebooks, "HERE", tmp_path)
    made = json.loads(notebooks.build(script).read_text())
    outputs = [output for cell in made["cells"] for output in cell.get("outputs", ())]
    assert any("image/png" in output.get("data", {}) for output in outputs)
