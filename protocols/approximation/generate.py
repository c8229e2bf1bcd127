"""``python -m protocols.approximation.generate``: make the default Fourier fits that ship here."""

from __future__ import annotations

import sys
from pathlib import Path

import msgspec

from protocols.approximation.catalogue import FUNCTIONS
from protocols.approximation.defaults import make_fourier


def main() -> None:
    fits = {}
    for name, function in FUNCTIONS.items():
        fits[name] = made = make_fourier(function, function.low, function.high, function.terms)
        print(f"{name}: {made.error:.2e} (target {function.target:g}), gain {made.gain:.2f}", file=sys.stderr)
    text = msgspec.json.format(msgspec.json.encode(fits), indent=1) + b"\n"
    Path(__file__).with_name("default_fits.json").write_bytes(text)


if __name__ == "__main__":
    main()
