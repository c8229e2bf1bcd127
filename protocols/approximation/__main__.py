"""``python -m protocols.approximation [--json]``: every function with interval, measured error, and what is outside."""

from __future__ import annotations

import argparse
import json
from typing import Any

from protocols.approximation.catalogue import FUNCTIONS
from protocols.approximation.defaults import default_fit
from protocols.approximation.fits import FourierFit

RUNAWAY = "a polynomial: grows without bound"


def rows() -> list[dict[str, Any]]:
    """The default of each function, and the textbook's cubic and the composite where there are any."""
    table = []
    for function in FUNCTIONS.values():
        choices: list[tuple[str, int | None]] = [("fourier", None), ("minimax", 3), ("minimax", 9)]
        if function.taylor is not None:
            choices.append(("taylor", 3))
        if function.name in ("sigmoid", "tanh", "exp"):
            choices.append(("composite", None))
        for method, degree in choices:
            fit = default_fit(function.name, method, degree=degree)
            row: dict[str, Any] = {
                "function": function.name,
                "method": method,
                "interval": [fit.low, fit.high],
                "size": fit.terms if isinstance(fit, FourierFit) else getattr(fit, "degree", 0),
                "error": fit.error,
                "outside": RUNAWAY,
            }
            if isinstance(fit, FourierFit):
                row |= {"gain": fit.gain, "period": fit.period, "range": fit.range(), "outside": function.outside}
            table.append(row)
    return table


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m protocols.approximation", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON array")
    table = rows()
    if parser.parse_args().json:
        print(json.dumps(table, indent=1))
        return
    for row in table:
        low, high = row["interval"]
        unit, gain, outside = "degree", "", row["outside"]
        if row["method"] == "fourier":
            unit, gain = "terms", f"gain {row['gain']:.3g}"
            outside += f"; period {row['period']:.4g}, values {row['range'][0]:.3g} to {row['range'][1]:.3g}"
        print(
            f"{row['function']:<11}{row['method']:<10}{f'[{low:.4g}, {high:.4g}]':<18}{row['size']:>3} {unit:<8}"
            f"error {row['error']:.1e}  {gain:<11}{outside}"
        )


if __name__ == "__main__":
    main()
