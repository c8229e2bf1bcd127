"""Arguments that are no numbers where numbers belong: errors of a kind that says so."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from mpc.errors import RangeError, UnsupportedError
from protocols.trace.random import Random

RANDOM = Random()
WRONG: dict[str, Callable[[Any], Any]] = {
    "the end of a range": lambda x: x.within("a", 3),
    "no end": lambda x: x.within(None, 3),
    "what is assumed": lambda x: x.assumed([1], 3),
    "a truth value": lambda x: x.within(True, 3),
    "an interval of one": lambda x: x.sigmoid(interval=5),
    "an interval of three": lambda x: x.sigmoid(interval=(1, 2, 3)),
    "an interval of words": lambda x: x.tanh(interval=("1", "2")),
    "eps": lambda x: x.layer_norm(3, eps="a"),
    "eps of several": lambda x: x.rms_norm(3, eps=[1, 2]),
    "a draw's end": lambda x: RANDOM.uniform("a", 1),
    "a scale": lambda x: RANDOM.discrete_laplace([1.0, 2.0]),
    "a sigma": lambda x: RANDOM.discrete_gaussian(None),
    "a base": lambda x: "2" ** x,
    "a base of several": lambda x: np.array([2.0, 3.0]) ** x,
    "a base below 0": lambda x: (-2.0) ** x,
    "the base 0": lambda x: 0**x,
}


@pytest.mark.parametrize("name", WRONG)
def test_no_number_is_an_error_that_says_so(secure: Any, name: str) -> None:
    with pytest.raises((UnsupportedError, RangeError), match=r"number|interval"):
        WRONG[name](secure.secret((2, 3)))


def test_numbers_of_any_kind_are_numbers(secure: Any) -> None:
    x = secure.secret((2, 3))
    assert x.within(np.float32(-1), np.int64(1)).type.high == 1.0
    assert x.sigmoid(interval=[np.float64(-4), 4]).shape == (2, 3)


@pytest.mark.parametrize("base", [2, 0.5, 10.0, 1.0])
def test_powers_of_public_numbers(secure: Any, base: float) -> None:
    x = np.array([-3.5, -1.0, 0.0, 0.25, 4.0])
    for build in (lambda s: base**s, lambda s: np.power(base, s)):
        secure.check(build, x, error=2e-3 * max(base**4, base**-4), parties=(2,))
