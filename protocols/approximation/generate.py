"""``python -m protocols.approximation.generate [NAME ...]``: make the default Fourier fits that ship here, or some.

Other machines' solvers end with other last digits, so what need not be made again stays.
"""

from __future__ import annotations

import sys
from pathlib import Path

import msgspec

from protocols.approximation.catalogue import FUNCTIONS
from protocols.approximation.defaults import make_fourier, shipped_fits


def main() -> None:
    names = sys.argv[1:]
    fits = shipped_fits() if names else {}
    for name, function in FUNCTIONS.items():
        if names and name not in names:
            continue
        fits[name] = made = make_fourier(function, function.low, function.high, function.terms)
        print(f"{name}: {made.error:.2e} (target {function.target:g}), gain {made.gain:.2f}", file=sys.stderr)
    fits = {name: fits[name] for name in FUNCTIONS}
    text = msgspec.json.format(msgspec.json.encode(fits), indent=1) + b"\n"
    Path(__file__).with_name("default_fits.json").write_bytes(text)


if __name__ == "__main__":
    main()
