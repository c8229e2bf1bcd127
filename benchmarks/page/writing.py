"""``tessera bench page``: records of measurements as a page of Markdown with tables and pictures.

The same records give the same files, byte by byte: nothing in them says when the page was made.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from benchmarks.page.accuracy import by_fraction_bits
from benchmarks.page.growth import by_batch, by_size
from benchmarks.page.layers import by_layer
from benchmarks.page.links import by_network
from benchmarks.page.operations import operations
from benchmarks.page.parts import Maker, Measurements, Section, markdown
from benchmarks.page.peers import beside_peers
from benchmarks.page.plots import Pictures
from benchmarks.page.security import by_security
from benchmarks.page.workers import by_workers
from benchmarks.records import read
from benchmarks.report import print_json
from mpc.errors import UsageError, unwritable

SECTIONS: tuple[Maker, ...] = (
    by_layer, by_network, by_size, by_batch, by_workers, by_security, beside_peers, by_fraction_bits, operations,
)  # fmt: skip

TITLE = "# What Tessera costs"
INTRODUCTION = (
    "Every figure below was measured, or is a prediction that says so; tables and pictures are made from the records of"
    " the measurements by one command, and each section ends with the commands that measure it again."
)
COMMAND = "```sh\ntessera bench page records.jsonl\n```"
NOTE = (
    "All parties, the dealer and the client run on one machine unless a section says otherwise: they share its cores,"
    " and no network lies between them.  Bytes are payload; encryption is on.  kB, MB and GB are powers of 1000."
)


def run(options: argparse.Namespace) -> int:
    """Write the page and its pictures; the exit code."""
    records = [record for path in options.records for record in read(path)]
    if not records:
        raise UsageError("there are no measurements in these files: measure some with tessera bench all")
    folder = options.pictures or options.page.parent / "benchmarks"
    pictures = Pictures(folder)
    measurements = Measurements(records)
    sections = [make(measurements, pictures) for make in SECTIONS]
    write(options.page, sections, os.path.relpath(folder, options.page.parent))
    if options.json:
        print_json({
            "page": str(options.page),
            "pictures": [str(path) for path in pictures.written],
            "records": len(measurements),
            "sections": {section.title: len(section.records) for section in sections},
        })  # fmt: skip
    else:
        missing = [section.title for section in sections if not section.records]
        print(f"{options.page}: {len(measurements)} measurements, {len(pictures.written)} pictures in {folder}")
        if missing:
            print(f"not measured: {'; '.join(missing)}")
    return 0


def write(path: Path, sections: list[Section], pictures: str) -> None:
    """The page; ``pictures`` is their folder as seen from it.  Raises ConfigurationError when that cannot be."""
    contents = "\n".join(f"- [{section.title}](#{_anchor(section.title)})" for section in sections)
    blocks = [TITLE, INTRODUCTION, COMMAND, NOTE, contents]
    blocks += [block for section in sections for block in markdown(section, Path(pictures).as_posix())]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n\n".join(blocks) + "\n", encoding="utf-8")
    except OSError as error:
        raise unwritable(f"the page {path}", error) from error


def _anchor(title: str) -> str:
    """As GitHub names headings."""
    return "".join(c for c in title.lower().replace(" ", "-") if c.isalnum() or c == "-")
