"""Curves of a training in a terminal: a line of blocks, or some of dots, from the lowest value to the highest."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

BLOCKS = "▁▂▃▄▅▆▇█"
WIDTH = 48
_DOTS = (0x01, 0x02, 0x04, 0x40), (0x08, 0x10, 0x20, 0x80)
"""Of a Braille character, left and right, from above: 2 by 4 of them."""
_BRAILLE = 0x2800


def curve(values: Sequence[float], width: int = WIDTH) -> str:
    """The values in up to ``width`` blocks, of means where there are more."""
    return "".join(BLOCKS[height] for height in _heights(values, width, len(BLOCKS)))


def plot(values: Sequence[float], width: int = WIDTH, height: int = 4) -> list[str]:
    """Likewise, a point each, in lines of ``width`` Braille characters: 2 points by 4 of each of them."""
    cells = [[0] * width for _ in range(height)]
    for column, level in enumerate(_heights(values, 2 * width, 4 * height)):
        row, dot = divmod(4 * height - 1 - level, 4)
        cells[row][column // 2] |= _DOTS[column % 2][dot]
    return ["".join(chr(_BRAILLE + dots) for dots in row) for row in cells]


def _heights(values: Sequence[float], width: int, levels: int) -> list[int]:
    """Of up to ``width`` means, each from 0 to ``levels`` - 1."""
    count = min(len(values), width)
    ends = [len(values) * i // count for i in range(count + 1)] if count else []
    means = [sum(values[a:b]) / (b - a) for a, b in pairwise(ends)]
    if not means:
        return []
    low, span = min(means), max(means) - min(means)
    return [round((x - low) / span * (levels - 1)) if span > 0 else 0 for x in means]
