"""Mistakes that a careful hand could make while code is moved, put in one at a time: the tests must see each.

    python -m tests.mutants                 # every table beside this file: by hand, or weekly
    python -m tests.mutants nn -k gain      # one table, and of it the mistakes that say "gain"
    python -m tests.mutants --check         # only whether every text is still where its table says

A table is a TOML file, an entry a ``[[mutant]]``: ``mistake``, a sentence that says what is wrong; ``file``; ``old``,
which the file holds exactly once; ``new``; ``tests``, files or node ids of which at least one must fail.  Each runs in
a copy of the working tree.  Exits with 1 for a mistake that no test sees, and for a table that is not kept up: a text
that is not there any more, tests that fail without any mistake or are not found.
"""

from __future__ import annotations

import argparse
import collections
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
PASSED, FAILED = 0, 1
"""What pytest exits with; anything else says that it could not run the tests."""
LEFT_BEHIND = shutil.ignore_patterns(".git", ".venv", ".*_cache", ".hypothesis", "shared", "build", "dist")


@dataclass(frozen=True)
class Mutant:
    """One mistake.  Raises TypeError for an entry that lacks a field, or has an unknown one."""

    table: str
    mistake: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.table}: {self.mistake} ({self.file})"

    @property
    def stale(self) -> str | None:
        """Why it cannot be put in, if so."""
        if not (ROOT / self.file).is_file():
            return "there is no such file"
        count = (ROOT / self.file).read_text(encoding="utf-8").count(self.old)
        if count != 1 or self.old == self.new:
            return f"its file holds the old text {count} times, not once" if count != 1 else "it changes nothing"
        missing = [test for test in self.tests if not (ROOT / test.partition("::")[0]).exists()]
        return f"there is no {missing[0]}" if missing else None


def read(names: Sequence[str]) -> list[Mutant]:
    """The entries of these tables; of all, if none is named."""
    paths = [HERE / f"{name}.toml" for name in names] or sorted(HERE.glob("*.toml"))
    return [
        Mutant(path.stem, **(entry | {"tests": tuple(entry["tests"])}))
        for path in paths
        for entry in tomllib.loads(path.read_text(encoding="utf-8"))["mutant"]
    ]


def tested(copy: Path, tests: Iterable[str], limit: float) -> tuple[int | None, str]:
    """What pytest exits with, and the end of what it prints; None if it takes longer than ``limit`` seconds."""
    # Without .pyc files: one of a mutant could pass for the next one's.
    environment = os.environ | {"PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *tests]
    try:
        done = subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True, timeout=limit)
    except subprocess.TimeoutExpired:
        return None, ""
    return done.returncode, done.stdout[-2000:] + done.stderr[-2000:]


def tried(copy: Path, mutant: Mutant, limit: float) -> tuple[str, str]:
    """``seen``, ``hangs`` (seen, too), ``UNSEEN`` or ``BROKEN``; and what pytest printed."""
    path = copy / mutant.file
    whole = path.read_text(encoding="utf-8")
    path.write_text(whole.replace(mutant.old, mutant.new), encoding="utf-8")
    try:
        code, printed = tested(copy, mutant.tests, limit)
    finally:
        shutil.copy2(ROOT / mutant.file, path)
    return {None: "hangs", PASSED: "UNSEEN", FAILED: "seen"}.get(code, "BROKEN"), printed


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__.partition("\n")[0])
    parser.add_argument("tables", nargs="*", help="names of tables; all of them if none is given")
    parser.add_argument("-k", metavar="WORD", default="", help="only mistakes that say this")
    parser.add_argument("--check", action="store_true", help="run nothing: only look for the texts")
    parser.add_argument("--limit", type=float, default=300.0, help="seconds for the tests of one mutant")
    options = parser.parse_args()
    mutants = [m for m in read(options.tables) if options.k.lower() in m.mistake.lower()]
    stale = {m: reason for m in mutants if (reason := m.stale)}
    for mutant, reason in stale.items():
        print(f"STALE   {mutant}: {reason}", flush=True)
    results = collections.Counter({"STALE": len(stale)} if stale else {})
    if not options.check:
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder) / "tree"
            shutil.copytree(ROOT, copy, ignore=LEFT_BEHIND)
            code, printed = tested(copy, sorted({test for m in mutants for test in m.tests}), 10 * options.limit)
            if code != PASSED:
                print(f"the tests fail without any mistake:\n{printed}")
                return 1
            for mutant in mutants:
                if mutant in stale:
                    continue
                result, printed = tried(copy, mutant, options.limit)
                results[result] += 1
                print(f"{result:<8}{mutant}", flush=True)
                if result == "BROKEN":
                    print(printed)
    print(f"{len(mutants)} mutants" + "".join(f", {count} {result}" for result, count in results.items()))
    return 1 if not mutants or results.keys() & {"STALE", "UNSEEN", "BROKEN"} else 0


if __name__ == "__main__":
    sys.exit(main())
