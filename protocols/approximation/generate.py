"""``python -m protocols.approximation.generate [NAME ...]``: make the fits that ship here, or some.

Those of one round, on default intervals, and those in pieces, right on everything.

Other machines' solvers end with other last digits, so what need not be made again stays.
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Mapping
from pathlib import Path

import msgspec
import numpy as np

from protocols.approximation import tails
from protocols.approximation.catalogue import FUNCTIONS, NORMAL, Function
from protocols.approximation.defaults import make_fourier, normal_fits, shipped_fits
from protocols.approximation.fits import FourierFit
from protocols.approximation.goal import Goal
from protocols.approximation.minimax import Fourier

EXP = Goal(5e-6, 2.0**-12)
"""Of a piece of exp, whose largest value is 1."""

EXPM1 = (-10.25, 2.0**-7)
"""Where exp(x) - 1 is fitted: as far as a unit of overlap from where it errs by its target, 1e-4, as -1 does."""


def main() -> None:
    names = sys.argv[1:]
    _make("default_fits.json", FUNCTIONS, shipped_fits() if names else {}, names)
    _make("normal_fits.json", NORMAL, normal_fits() if names else {}, names)
    _make_tails(names)


def _make(file: str, functions: Mapping[str, Function], known: Mapping[str, FourierFit], names: list[str]) -> None:
    fits = dict(known)
    for name, function in functions.items():
        if names and name not in names:
            continue
        fits[name] = made = make_fourier(function, function.low, function.high, function.terms)
        print(f"{file}: {name}: {made.error:.2e} (target {function.target:g}), gain {made.gain:.2f}", file=sys.stderr)
    _write(file, {name: fits[name] for name in functions})


def _make_tails(names: Collection[str]) -> None:
    tailed = dict(tails.shipped().tailed) if names else {}
    for name, function in FUNCTIONS.items():
        if function.tails is None or (names and name not in names):
            continue
        tailed[name] = whole = tails.made(function)
        low, _, high = whole.pieces
        print(f"{name}: {whole.error:.2e}, lines up to {low.high:.2f} and from {high.low:.2f}", file=sys.stderr)
    expm1 = Fourier(np.expm1, *EXPM1).fewest(tails.NEAR)
    exp = Fourier(np.exp, -tails.LENGTH - tails.BELOW, 0.0, goal=EXP).fewest(EXP.absolute)
    _write("tails.json", tails.Shipped({name: tailed[name] for name in FUNCTIONS if name in tailed}, expm1, exp))


def _write(name: str, value: object) -> None:
    text = msgspec.json.format(msgspec.json.encode(value), indent=1) + b"\n"
    Path(__file__).with_name(name).write_bytes(text)


if __name__ == "__main__":
    main()
