"""Makes the notebooks in ``notebooks/`` of the scripts beside this file, and runs them, for their outputs and pictures:

    python examples/notebooks.py [NAME ...]        # with pip install '.[examples]'

A script is a notebook in the *percent* format, as editors and jupytext read it: a line ``# %%`` begins a cell of code,
``# %% [markdown]`` one of text, and ``# %% tags=["active-ipynb"]`` one that only the notebook has, commented out in the
script: its picture.  Edit scripts, never notebooks: a test compares their cells.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

HERE = Path(__file__).parent
SCRIPTS = sorted(path for path in HERE.glob("*.py") if path != Path(__file__))
MARKER = re.compile(r"^# %%(.*)$", re.MULTILINE)
KINDS = {"": "code", " [markdown]": "markdown", ' tags=["active-ipynb"]': "picture"}


def cells(script: str) -> list[tuple[str, str]]:
    """What kind each cell is of, one of ``KINDS``, and its source.  Raises ValueError."""
    before, *rest = MARKER.split(script)
    if before.strip():
        raise ValueError("a script begins with a cell")
    found = []
    for marker, source in zip(rest[::2], rest[1::2], strict=True):
        if marker not in KINDS:
            raise ValueError(f"'# %%{marker}' begins no cell that there is")
        lines = source.strip("\n").splitlines()
        if KINDS[marker] != "code":
            if not all(line == "#" or line.startswith("# ") for line in lines):
                raise ValueError(f"each line of a cell that begins with '# %%{marker}' is a comment")
            lines = [line[2:] for line in lines]
        found.append((KINDS[marker], "\n".join(lines)))
    return found


def build(script: Path) -> Path:
    """Writes the notebook of a script, with what its cells print and draw; where it is."""
    import nbformat
    from nbclient import NotebookClient
    from nbformat import v4

    make = {"code": v4.new_code_cell, "markdown": v4.new_markdown_cell, "picture": v4.new_code_cell}
    made = [make[kind](source, id=f"cell-{place}") for place, (kind, source) in enumerate(cells(script.read_text()))]
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    notebook = v4.new_notebook(cells=made, metadata={"kernelspec": kernel})
    NotebookClient(notebook, timeout=120, record_timing=False, resources={"metadata": {"path": HERE}}).execute()
    notebook.metadata = {"kernelspec": kernel, "language_info": {"name": "python"}}
    path = HERE / "notebooks" / f"{script.stem}.ipynb"
    path.parent.mkdir(exist_ok=True)
    nbformat.write(notebook, path)
    return path


if __name__ == "__main__":
    for script in SCRIPTS:
        if len(sys.argv) == 1 or script.stem in sys.argv[1:]:
            print(build(script))
