"""``python -m protocols.approximation [--json]``: every function with interval, measured error, and what is outside."""

from __future__ import annotations

import argparse
import json
from typing import Any

from protocols.approximation.catalogue import FUNCTIONS
from protocols.approximation.defaults import default_fit
from protocols.approximation.fits import CompositeFit, FourierFit

RUNAWAY = "a polynomial: grows without bound outside"


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
            fourier = isinstance(fit, FourierFit)
            table.append(
                {
                    "function": function.name,
                    "method": method,
                    "interval": [fit.low, fit.high],
                    "size": fit.terms if isinstance(fit, FourierFit) else fit.degree,
                    "rounds": len(fit.stages) if isinstance(fit, CompositeFit) else 1,
                    "error": fit.error,
                    "outside": function.outside if fourier else RUNAWAY,
                }
            )
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
        print(
            f"{row['function']:<11}{row['method']:<10}[{low:g}, {high:g}]".ljust(40)
            + f"{row['size']:>3} {'terms ' if row['method'] == 'fourier' else 'degree'}"
            + f"  error {row['error']:.1e}  {row['outside']}"
        )


if __name__ == "__main__":
    main()
