"""The simplest cheats, in semi-honest security, which promises nothing against them: wrong results, and no error.

So the cheats are real, and it is the MACs that stop them: the same ones, in malicious security, come to nothing.
"""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
from adversary import World, attack
from cases import Case, build
from strategies import STRATEGIES

from mpc.errors import MacCheckError
from mpc.rings import field
from mpc.security import Security

ATTEMPTS = 8
LARGE = 1 << 45


@pytest.fixture(scope="module")
def cases(secure: Any) -> dict[str, Case]:
    return {case.name: case for case in build(secure)}


@pytest.mark.parametrize("parties", [2, 3])
@pytest.mark.parametrize(
    "name",
    [
        "a constant added to a share",
        "the same error to all",
        "errors that cancel in an opening",
        "another's share as one's own",
        "different values to two honest parties",
        "different inputs to two parties",
        "a wrong share of an output",
        "a wrong share of a stored tensor",
    ],
)
def test_without_macs_nobody_notices(cases: dict[str, Case], name: str, parties: int) -> None:
    kind = STRATEGIES[name]
    parties = max(parties, kind.fewest)
    case = cases["stored_product" if kind.stored else "powers"]
    wrong = 0
    for number in range(ATTEMPTS):
        for security in Security:
            rng = random.Random(number)
            world = World(case, parties, frozenset({parties - 1} if kind.parties else ()), rng, security)
            strategy = kind(world)
            strategy.constant = lambda: LARGE  # type: ignore[method-assign]
            strategy.start()
            ending = attack(world, strategy)
            if security is Security.MALICIOUS:
                assert isinstance(ending.result, MacCheckError)
                continue
            assert isinstance(ending.result, list), ending.result
            assert not ending.failed
            differences = [
                np.abs(field.to_signed(field.subtract(array, wanted))).max()
                for array, wanted in zip(ending.result, case.wanted, strict=True)
            ]
            wrong += any(d > bound for d, bound in zip(differences, case.bounds, strict=True))
    assert wrong == ATTEMPTS
