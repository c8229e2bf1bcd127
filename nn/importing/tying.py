"""One tensor of a network that several of its layers have: stored once, as the table of words that is the output
projection, too.

What counts is that the network says so, by a tensor that it uses in several places.  Values that are merely equal are
not taken for one: that they are equal would be public.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import NamedTuple

import msgspec
import numpy as np

from nn.architecture import Architecture
from nn.layer import Layer, WeightArray
from nn.lookups import Embedding
from nn.model import Model, more_bits
from nn.stored import bits_of, gain_bits_of

ROOM = 28
"""Fraction bits of a shared weight, and bits of its gain: with this many, inputs of 16 fraction bits and up to 2^15 are
multiplied without a digit less, as modulo 2^61 - 1 results lie below 2^60."""


class _Use(NamedTuple):
    """A parameter, and what is stored of it by its layer, which may be laid out to go with the others'."""

    name: str
    owner: str
    layer: Layer
    array: WeightArray


def tied(model: Model, origins: Mapping[str, str]) -> Model:
    """The same model with each tensor of the network stored once, where one encoding is good enough for all its uses.

    ``origins``: of parameters of the model, which tensor of the network each is of.
    """
    groups: defaultdict[str, list[str]] = defaultdict(list)
    for name in model.architecture.parameters:
        if origin := origins.get(name):
            groups[origin].append(name)
    layers, found = dict[str, Layer](), dict[str, str]()
    more = more_bits(model.architecture.layers.values())
    for names in groups.values():
        if len(names) < 2:
            continue
        # A linear layer's has bounds for products, which a table does not need.
        found_here = (use for name in names if (use := _use(model, name)) is not None)
        uses = sorted(found_here, key=lambda use: use.array.contracted is None)
        held = list[_Use]()
        for use in uses:
            one = next((fitting for each in held if (fitting := _as(use, each, more)) is not None), None)
            if one is None:
                held.append(use)
            else:
                layer, found[use.name] = one
                layers[use.owner] = layer
    if not found:
        return model
    steps = tuple(
        msgspec.structs.replace(step, layer=layers.get(step.name, step.layer)) for step in model.architecture.steps
    )
    weights = {name: array for name, array in model.weights.items() if name not in found}
    return Model(Architecture(steps, model.architecture.input_shape, found), weights, model.interface)


def _use(model: Model, name: str) -> _Use | None:
    """None of a parameter that is no layer's, or of which something else is stored."""
    owner = model.architecture.owner(name)
    array = model.architecture.tensors_of(owner, model.weights).get(name)
    return None if array is None or name == owner else _Use(name, owner, model.architecture.layers[owner], array)


def _as(use: _Use, held: _Use, more: int) -> tuple[Layer, str] | None:
    """The layer that reads what ``held`` stores, and the name of that; None if it has to have its own."""
    layer, array = use.layer, use.array
    if isinstance(layer, Embedding) and not isinstance(held.layer, Embedding):
        layer = msgspec.structs.replace(layer, transposed=True)
        array = layer.tensors({"weight": array.values})["weight"]
    elif array.contracted != held.array.contracted or array.exact != held.array.exact:
        return None
    bits, own = (bits_of(each, more) for each in (array, held.array))
    if bits > own and held.array.contracted is not None and bits + gain_bits_of(held.array) > ROOM:
        return None
    return (layer, held.name) if np.array_equal(array.values, held.array.values) else None
