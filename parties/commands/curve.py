"""Curves of a training in a terminal: a line of blocks, each as high as a value is among those that are shown."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

BLOCKS = "▁▂▃▄▅▆▇█"
WIDTH = 48


def curve(values: Sequence[float], width: int = WIDTH) -> str:
    """The values in up to ``width`` blocks, of means where there are more; from the lowest to the highest of them."""
    count = min(len(values), width)
    ends = [len(values) * i // count for i in range(count + 1)] if count else [0]
    means = [sum(values[a:b]) / (b - a) for a, b in pairwise(ends)]
    if not means:
        return ""
    low, span = min(means), max(means) - min(means)
    return "".join(BLOCKS[round((x - low) / span * (len(BLOCKS) - 1)) if span > 0 else 0] for x in means)
