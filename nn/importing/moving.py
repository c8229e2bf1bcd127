"""Operations that move numbers to public places, whatever they are called: seen by what they make of places.

An operation that changes no number is run on the numbers' own places, for a whole batch.  If each input's results come
from its own numbers, from the same places, or from constants, it is a join and one selection, which is local.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from nn import functional as f
from nn.choosing import Take
from nn.importing.batch_layout import Layout
from nn.importing.blockers import refused
from nn.importing.building import Building, Known, Tensor

Places = NDArray[np.int64]
_FIRST = "keep the batch first, and take from each input alone, at places that are the same for all"


def moved(graph: Building, operands: Sequence[Tensor | Known], run: Callable[[list[Places]], Places]) -> Tensor:
    """What ``run`` makes of operands, given their places in the place of numbers.

    Raises UnsupportedError where it mixes inputs of a batch, or takes each from places of its own.
    """
    batch = graph.batch
    # Of constants each number once, whoever of the batch they are for.
    numbers = {
        i: np.unique(graph.array(e), return_inverse=True) for i, e in enumerate(operands) if isinstance(e, Known)
    }
    sizes = [
        math.prod(each.layout.inner) if isinstance(each, Tensor) else numbers[i][0].size
        for i, each in enumerate(operands)
    ]
    total, start, codes, rows = sum(sizes), 0, list[Places](), list[Tensor]()
    for i, (each, size) in enumerate(zip(operands, sizes, strict=True)):
        row = Layout((batch, size), 0, 1, 1)
        if isinstance(each, Tensor):
            places = np.arange(batch)[:, None] * total + np.arange(start, start + size)
            codes.append(_in_place(places, each.layout))
            rows.append(graph.laid_out(each, row))
        else:
            own, which = numbers[i]
            codes.append(-1 - start - which.reshape(tuple(each.values.shape)))
            name = graph.fresh(graph.named({}))
            rows.append(Tensor(graph.step(name, f.Parameter((1, size)), [], {name: own.reshape(1, -1)}), row))
        start += size
    found = np.asarray(run(codes))
    for axis in (i for i, n in enumerate(found.shape) if n == batch and found.size):
        turned = np.moveaxis(found, axis, 0).reshape(batch, -1)
        own = np.where(turned < 0, -1 - turned, turned - np.arange(batch)[:, None] * total)
        if (own == own[:1]).all() and own.min() >= 0 and own.max() < total:
            break
    else:
        raise refused("it takes from other inputs of the batch, or of each from other places", _FIRST)
    joined = rows[0]
    if len(rows) > 1:
        joined = graph.add(f.Concatenate(1), *rows, layout=Layout((batch, total), 0, 1, 1))
    positions = tuple(own[0].tolist())
    made = graph.add(Take(1, positions), joined, layout=Layout((batch, len(positions)), 0, 1, 1))
    return graph.laid_out(made, Layout(found.shape, axis, 1, 1))


def _in_place(places: Places, layout: Layout) -> Places:
    """(batch, places of one) as a tensor of this layout has them."""
    if (layout.before, layout.after) != (1, 1):
        raise refused("it has the batch together with other sizes in one dimension", _FIRST)
    others = [n for i, n in enumerate(layout.shape) if i != layout.axis]
    return np.moveaxis(places.reshape(len(places), *others), 0, layout.axis)
