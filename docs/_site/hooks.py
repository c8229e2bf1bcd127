"""What MkDocs does besides: pages that nobody writes, drawings, titles of code, and links out of ``docs/``."""

from __future__ import annotations

import json
import posixpath
import re
import sys
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(Path(__file__).parent), str(ROOT)]

import commands  # noqa: E402 - beside this file

BESIDE = {
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "examples/README.md": "examples/index.md",
    "nn/derm/assets/LICENSE-data.md": "photographs.md",
}
"""Files outside of ``docs/``, and where the site has them."""
MOVED = {**BESIDE, "README.md": "index.md", "examples": "examples/index.md", "examples/notebooks": "examples/index.md"}
LINK = re.compile(r"(?<=\]\()(?!\w+:)([^)#\s]+)(#[^)\s]*)?(?=\))")
PICTURE = re.compile(r"!\[[^\]]*\]\(([^)\s]*pictures/[\w-]+\.svg)\)")
WALK = re.compile(r"<!-- walk: (\S+) -->\n```sh\n")
FILE = re.compile(r"<!-- file: (\S+) -->\n```(\w+)\n")
OUTPUT = re.compile(r"(^```py(?:thon)?\n.*?^```\n+)```text\n", re.MULTILINE | re.DOTALL)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds what is generated."""
    made = {place: (ROOT / name).read_text() for name, place in BESIDE.items() if (ROOT / name).exists()}
    made["reference/commands.md"] = commands.page()
    for path in sorted((ROOT / "examples/notebooks").glob("*.ipynb")):
        made[f"examples/{path.stem}.md"] = _notebook(path)
        files.append(File.generated(config, f"examples/notebooks/{path.name}", abs_src_path=str(path)))
    for place, content in made.items():
        files.append(File.generated(config, place, content=content))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Drawings become part of the page, whose colours they take; commands say on which host they are typed."""
    here = posixpath.dirname(page.file.src_uri)
    markdown = WALK.sub(r'```sh title="at \1"\n', markdown)
    markdown = FILE.sub(r'```\2 title="\1"\n', markdown)
    markdown = OUTPUT.sub(r'\1```text title="prints"\n', markdown)
    markdown = PICTURE.sub(lambda found: _drawing(ROOT / "docs" / here / found[1]), markdown)
    return LINK.sub(lambda found: _link(found[1], page.file.src_uri) + (found[2] or ""), markdown)


def _drawing(path: Path) -> str:
    # Of a kind that Markdown leaves alone, up to a blank line.
    return f"<figure>{path.read_text().strip()}</figure>"


def _link(target: str, page: str) -> str:
    """``target``, where the site has it."""
    source = {place: name for name, place in BESIDE.items()}.get(page, f"docs/{page}")
    meant = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
    if meant in MOVED:
        place = MOVED[meant]
    elif meant.startswith("examples/"):
        place = re.sub(r"\.py$", ".md", meant)
    elif meant.startswith("docs/"):
        place = meant.removeprefix("docs/")
    else:
        return target
    return posixpath.relpath(place, posixpath.dirname(page) or ".")


def _notebook(path: Path) -> str:
    """A notebook's cells, with what they print and draw."""
    parts = []
    for cell in json.loads(path.read_text())["cells"]:
        source = "".join(cell["source"])
        parts.append(source if cell["cell_type"] == "markdown" else f"```python\n{source}\n```")
        printed = ""
        for output in cell.get("outputs", []):
            picture = "".join(output.get("data", {}).get("image/png", "")).replace("\n", "")
            if picture:
                parts.append(f'<img alt="What this cell draws" src="data:image/png;base64,{picture}">')
            else:
                printed += "".join(output.get("text", output.get("data", {}).get("text/plain", "")))
        if printed:
            parts.append(f"```text\n{printed.rstrip()}\n```")
    parts.insert(1, f"[The notebook](notebooks/{path.name}), made of the script `examples/{path.stem}.py`.")
    return "\n\n".join(parts) + "\n"
