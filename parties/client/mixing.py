"""The rows of several data sets in one, in an order that nobody knows: batches drawn of it tell of no owner."""

from __future__ import annotations

from mpc.errors import UsageError
from parties.client.training_arguments import Rows, X, Y, data_sets, split
from parties.client.writing import Kept
from protocols.trace.random import Random
from protocols.trace.secret_tensor import concatenate


def mixed(data: Rows) -> Kept:
    """``x`` and ``y`` of all rows of ``data``, shuffled alike (``Random.permutation``): to be kept, jointly with all
    whose they are, and trained on by who would otherwise know of each row in a batch whose it is, and which.

    ``client.request(mixed(data), why)`` asks the owners, and ``client.keep(mixed(data), name)`` makes it: a round, in
    which all rows are opened under new masks.  Raises UsageError for no data sets, or such as nothing can learn from;
    ShapeError where their rows do not go together, RangeError for more than 8,192 of them.
    """
    found = data_sets("data", data)
    if not found:
        raise UsageError("there is no data to mix: give the data sets, as client.data(name) has found them")
    split(found, len(found))
    together = (concatenate([each[tensor] for each in found]) for tensor in (X, Y))
    x, y = Random().permutation(*together)
    return Kept({X: x, Y: y}, joint=True)
