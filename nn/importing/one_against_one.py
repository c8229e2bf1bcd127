"""Support vectors of several classes, each pair apart."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from nn.layer import Array


def one_against_one(dual: Array, counts: Sequence[int]) -> Array:
    """(pairs, vectors): of vectors in the order of their classes, whose coefficients are against each other class."""
    of = np.repeat(np.arange(len(counts)), counts)
    pairs = list(itertools.combinations(range(len(counts)), 2))
    weight = np.zeros((len(pairs), len(of)))
    for row, (first, second) in zip(weight, pairs, strict=True):
        row[of == first] = dual[second - 1, of == first]
        row[of == second] = dual[first, of == second]
    return weight
