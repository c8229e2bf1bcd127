"""``python -m protocols.approximation.generate [NAME ...]``: make the Fourier fits that ship here, or some.

Other machines' solvers end with other last digits, so what need not be made again stays.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

import msgspec

from protocols.approximation.catalogue import FUNCTIONS, NORMAL, Function
from protocols.approximation.defaults import make_fourier, normal_fits, shipped_fits
from protocols.approximation.fits import FourierFit


def main() -> None:
    names = sys.argv[1:]
    _make("default_fits.json", FUNCTIONS, shipped_fits() if names else {}, names)
    _make("normal_fits.json", NORMAL, normal_fits() if names else {}, names)


def _make(file: str, functions: Mapping[str, Function], known: Mapping[str, FourierFit], names: list[str]) -> None:
    fits = dict(known)
    for name, function in functions.items():
        if names and name not in names:
            continue
        fits[name] = made = make_fourier(function, function.low, function.high, function.terms)
        print(f"{file}: {name}: {made.error:.2e} (target {function.target:g}), gain {made.gain:.2f}", file=sys.stderr)
    text = msgspec.json.format(msgspec.json.encode({name: fits[name] for name in functions}), indent=1) + b"\n"
    Path(__file__).with_name(file).write_bytes(text)


if __name__ == "__main__":
    main()
