"""The site's pages: their code prints what they show, links lead somewhere, commands exist, nothing is left out."""

from __future__ import annotations

import contextlib
import doctest
import importlib
import io
import re
import shlex
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest

import nn
import tessera as ts
from mpc.errors import UsageError
from parties.commands.command_line import parser_for, whole_parser

yaml = pytest.importorskip("yaml")

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
DOCUMENTS = [*PAGES, *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "examples/README.md"))]
SCRIPTS = [page for page in PAGES if "```python" in page.read_text()]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
NOT_COMPARED = re.compile(
    r"\d+(?:\.\d+)?(?= m?s\b)"  # how long it took
    r"|\b(?:dealer|party\d)\b(?= says:| has nothing)"  # which server was the first to say no
    r"|(?<=^program )[0-9a-f]{4,}(?:\.\.\.)?",  # digests, of which pages show the beginning
    re.MULTILINE,
)
MATCHES = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


# -- code --------------------------------------------------------------------------------------------------------------


def blocks(text: str) -> list[tuple[str, int, str | None]]:
    """Each block of Python, the line that it is on, and what the page says right below that it prints."""
    found = list(FENCE.finditer(text))
    made = []
    for block, below in zip(found, [*found[1:], None], strict=True):
        if block[1] == "python":
            next_to_it = below is not None and below[1] == "text" and not text[block.end() : below.start()].strip()
            made.append((block[2], text.count("\n", 0, block.start()) + 1, below[2] if next_to_it else None))
    return made


def scripts() -> list[Any]:
    """As parameters; a page whose clusters are processes, or that trains, is slow."""
    return [
        pytest.param(page, id=named(page), marks=[pytest.mark.slow] if "<!-- slow -->" in page.read_text() else [])
        for page in SCRIPTS
    ]


@pytest.mark.sampled(3)
@pytest.mark.parametrize("page", scripts())
def test_its_code_prints_what_it_shows(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for package in re.findall(r"^\s*(?:from|import) (torch|sklearn|onnx)\b", page.read_text(), re.MULTILINE):
        pytest.importorskip(package)
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"__name__": "__main__"}
    for code, line, shown in blocks(page.read_text()):
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed), warnings.catch_warnings():
            warnings.simplefilter("error", ts.PrecisionWarning)
            exec(compile("\n" * line + code, named(page), "exec"), names)
        if shown is None:
            assert not printed.getvalue(), f"{named(page)}:{line} prints, and does not show it:\n{printed.getvalue()}"
        else:
            shown, got = (NOT_COMPARED.sub("N", text) for text in (shown, printed.getvalue()))
            matches = doctest.OutputChecker().check_output(shown, got, MATCHES)
            assert matches, f"{named(page)}:{line} shows\n{shown}\nand prints\n{printed.getvalue()}"


@pytest.mark.parametrize("page", SCRIPTS, ids=named)
def test_it_imports_the_public_face_alone(page: Path) -> None:
    code = "\n".join(block for block, _, _ in blocks(page.read_text()))
    imported = set(re.findall(r"^\s*(?:from|import) (\w+)", code, re.MULTILINE))
    assert imported <= {"numpy", "onnx", "secrets", "sklearn", "tessera", "time", "torch", "warnings"}


# -- commands ----------------------------------------------------------------------------------------------------------


def commands(text: str) -> list[str]:
    """What is typed: lines of its shell blocks."""
    shell = "".join(body for kind, body in FENCE.findall(text) if kind == "sh").replace("\\\n", " ")
    return [line for line in shell.splitlines() if line.startswith("tessera ")]


@pytest.mark.sampled(3)
@pytest.mark.parametrize("page", [p for p in DOCUMENTS if commands(p.read_text())], ids=named)
def test_its_commands_exist(page: Path) -> None:
    for line in commands(page.read_text()):
        words = shlex.split(line, comments=True)[1:]
        try:
            parser_for(words).parse_args(words)
        except UsageError as error:
            pytest.fail(f"{named(page)}: {line}\n{error}")
        except SystemExit as done:
            assert done.code == 0  # --version, --help


# -- links -------------------------------------------------------------------------------------------------------------


def anchors(path: Path) -> set[str]:
    """What its headings are called in links, there and on the site."""
    text = FENCE.sub("", path.read_text())
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    plain = [re.sub(r"\[([^\]]*)\]\([^)]*\)|[`*]", r"\1", heading) for heading in headings]
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in plain}


@pytest.mark.parametrize("page", DOCUMENTS, ids=named)
def test_its_links_lead_somewhere(page: Path) -> None:
    text = FENCE.sub("", page.read_text())
    links = re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r'(?:src|href)="([^"]+)"', text)
    for link in links:
        if re.match(r"\w+:", link):
            continue
        target, _, anchor = link.partition("#")
        there = page if not target else (page.parent / target).resolve()
        generated = there in (DOCS / "reference" / "commands.md", DOCS / "examples" / "index.md")
        assert generated or there.exists(), f"{named(page)}: {link}"
        if anchor and there.suffix == ".md":
            assert anchor in anchors(there), f"{named(page)}: {link}"


# -- the site ----------------------------------------------------------------------------------------------------------


def in_the_menu(entries: list[Any]) -> set[str]:
    found: set[str] = set()
    for entry in entries:
        value = next(iter(entry.values())) if isinstance(entry, dict) else entry
        found |= in_the_menu(value) if isinstance(value, list) else {value}
    return found


def test_every_page_is_in_the_menu() -> None:
    site = yaml.safe_load((ROOT / "mkdocs.yml").read_text())
    made = {"contributing.md", "changelog.md", "reference/commands.md", "examples/index.md"}
    assert in_the_menu(site["nav"]) == {str(page.relative_to(DOCS)) for page in PAGES} | made


def test_the_reference_has_every_export() -> None:
    reference = "".join(page.read_text() for page in (DOCS / "reference").glob("*.md"))
    described = re.findall(r"^::: (\S+)$", reference, re.MULTILINE)
    assert len(described) == len(set(described))
    assert {name.removeprefix("tessera.face.") for name in described if "face" in name} == set(ts.__all__) - {"nn"}
    layers = {name.removeprefix("nn.") for name in described if name.startswith("nn.")}
    assert layers | (set(nn.__all__) & set(ts.__all__)) == set(nn.__all__)


def test_the_reference_of_commands_is_what_the_parsers_say(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(DOCS / "_site"))
    reference = importlib.import_module("commands")
    page = reference.page()
    sys.modules.pop("commands")
    sections = re.findall(r"^### tessera (\w+)$", page, re.MULTILINE)
    assert sorted(sections) == sorted(name for name, _ in reference.commands(whole_parser()))
    # A command, one that plugs in, and one below another, each with an option of its own.
    some = (("### tessera allow", "--per-day"), ("### tessera cost", "--rtt"), ("#### tessera audit mine", "--since"))
    for heading, option in some:
        (section,) = re.findall(rf"^{heading}$(.*?)(?=^##|\Z)", page, re.MULTILINE | re.DOTALL)
        assert re.search(rf"^`.*{option}.*`$", section, re.MULTILINE)
        assert "```text\ntessera " in section
