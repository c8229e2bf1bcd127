"""``python -m protocols.approximation.generate``: make the default Fourier fits that ship with the package."""

from __future__ import annotations

import sys
from pathlib import Path

import msgspec

from protocols.approximation.catalogue import FUNCTIONS
from protocols.approximation.defaults import make_fourier


def main() -> None:
    fits = {}
    for function in FUNCTIONS.values():
        fits[function.name] = make_fourier(function, function.low, function.high, function.terms)
        print(f"{function.name}: {fits[function.name].error:.2e} (target {function.target:g})", file=sys.stderr)
    text = msgspec.json.format(msgspec.json.encode(fits), indent=1) + b"\n"
    Path(__file__).with_name("default_fits.json").write_bytes(text)


if __name__ == "__main__":
    main()
