"""docs/architecture.md speaks of files that are there, and its appendix of files that are not there yet."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/architecture.md").read_text()
TODAY, _, APPENDIX = PAGE.partition("## Appendix")
FILE = re.compile(r"`((?:mpc|protocols|nn|parties|tests|tessera)/[\w/*]+\.py)`")


def test_what_it_names_is_there() -> None:
    named = FILE.findall(TODAY)
    assert len(named) > 20
    assert [path for path in named if not list(ROOT.glob(path))] == []


def test_an_image_enters_twelve_files_on_each_side() -> None:
    rows = [int(number) for number in re.findall(r"^\| (\d+) \| `", TODAY, re.MULTILINE)]
    assert rows == [*range(1, 13), *range(1, 13)]


def test_a_step_that_was_taken_leaves_the_appendix() -> None:
    steps = re.split(r"^\*\*", APPENDIX, flags=re.MULTILINE)[1:]
    assert len(steps) == 1
    for step in steps:
        adds, _, touches = step.partition("Touches")
        assert FILE.findall(adds)
        assert FILE.findall(touches)
        assert [path for path in FILE.findall(adds) if (ROOT / path).exists()] == []
        assert [path for path in FILE.findall(touches) if not (ROOT / path).exists()] == []
