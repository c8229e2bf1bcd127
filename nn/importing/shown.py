"""Which activations' inputs are known to stay where their approximations hold, without a single sample."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

from mpc.errors import UsageError
from mpc.operation import Input
from nn.activations import Interval, Ranged
from nn.model import Model
from protocols.trace.secret_tensor import SecretTensor, leaf


def unshown(model: Model, again: str) -> Iterator[str]:
    """What to say of each layer whose interval cannot be shown to hold, for inputs in the model's range.

    ``again``: the call that would choose intervals.
    """
    low, high = model.interface.bounds()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of these inputs nobody has said that there are any
        known = _known_ranges(model, low, high)
    for name, layer in model.architecture.layers.items():
        bounds = layer.bounds if isinstance(layer, Ranged) else None
        if bounds is None:
            continue
        found = known.get(name)
        if found is not None and bounds[0] <= found[0] and found[1] <= bounds[1]:
            continue
        lie = "nothing shows where its inputs lie"
        if found is not None:
            lie = f"its inputs may lie in [{found[0]:g}, {found[1]:g}]"
        yield (
            f"layer {name!r} is {type(layer).__name__}: it is approximated on [{bounds[0]:g}, {bounds[1]:g}], and {lie}"
            f" for inputs of the network in [{low:g}, {high:g}]; results for values outside are wrong. Give samples,"
            f" {again}, and intervals are chosen to cover them"
        )


def _known_ranges(model: Model, low: float, high: float) -> dict[str, Interval]:
    """By layer, of all its uses, as far as types tell; layers that were not come to are missing."""
    architecture, found = model.architecture, dict[str, Interval]()
    if architecture.input_shape is None:
        return found
    values: list[SecretTensor] = [leaf(Input((1, *architecture.input_shape), model.interface.fraction_bits, low, high))]
    try:
        stored = model.description.stored("model")
        for step in architecture.steps:
            inputs = [values[i] for i in step.inputs]
            if isinstance(step.layer, Ranged):
                lows, highs = zip(*((x.type.low, x.type.high) for x in inputs), strict=True)
                before = found.get(step.name, (lows[0], highs[0]))
                found[step.name] = min(before[0], *lows), max(before[1], *highs)
            values.append(step.layer.forward(*inputs, weights=architecture.weights_of(step.name, step.layer, stored)))
    except UsageError:
        # What comes after cannot be shown to fit at all; whoever runs it with other ranges is told then.
        used = {step.name for step in architecture.steps[len(values) - 1 :]}
        return {name: interval for name, interval in found.items() if name not in used}
    return found
