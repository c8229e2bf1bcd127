"""Choose the test images that ship: ``python -m nn.derm.choose_samples --data ham10000_28.npz --out DIR``.

Two per class, drawn with a fixed seed from all test images of the class, whatever any model says about them; the same
ones of ``--data ham10000_128_jpeg.npz --photographs``, as the files that it holds.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from mpc.errors import ConfigurationError, TesseraError
from nn.derm.dataset import CLASS_CODES, load_split
from nn.derm.lesion.photographs import load_files, load_photographs

SEED = 2018
PER_CLASS = 2
RULE = (
    f"{PER_CLASS} images per class, drawn without replacement from all test images of the class sorted by "
    f"id, by numpy.random.default_rng({SEED}), classes in label order; no prediction was looked at"
)


def choose_samples(data: Path, out: Path, *, photographs: bool = False) -> list[str]:
    """Write the images and ``samples.json`` into ``out`` and return the ids chosen."""
    test = load_photographs(data, "test") if photographs else load_split(data, "test")
    files = load_files(data, "test")[0] if photographs else []
    generator = np.random.default_rng(SEED)
    by_id = np.argsort(test.ids)
    entries: list[dict[str, str]] = []
    try:
        out.mkdir(parents=True, exist_ok=True)
        for label, code in enumerate(CLASS_CODES):
            members = by_id[test.labels[by_id] == label]
            for index in generator.choice(members, size=PER_CLASS, replace=False):
                name = str(test.ids[index])
                if photographs:
                    (out / f"{name}.jpg").write_bytes(files[index])
                else:
                    # A picture made from an array has no metadata to write.
                    Image.fromarray(test.images[index]).save(out / f"{name}.png", optimize=True)
                entries.append({"id": name, "class": code})
        text = json.dumps({"rule": RULE, "samples": entries}, indent=1)
        (out / "samples.json").write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise ConfigurationError(f"cannot write to {out}: name a folder of your own") from error
    return [entry["id"] for entry in entries]


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m nn.derm.choose_samples", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="the .npz of lesion images")
    parser.add_argument("--out", type=Path, required=True, help="folder for the images and samples.json")
    parser.add_argument("--photographs", action="store_true", help="the data are 128x128 photographs, as JPEG")
    options = parser.parse_args(arguments)
    try:
        print("\n".join(choose_samples(options.data, options.out, photographs=options.photographs)))
    except TesseraError as error:
        print(f"choose_samples: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
