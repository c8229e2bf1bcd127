"""What is assumed of a model that the worst case of its types does not let fit, step by step: as little as will do."""

from __future__ import annotations

from collections.abc import Iterator

from nn import activations as a
from nn import rectifiers as r
from nn.architecture import Step
from nn.assuming import assuming
from nn.functional import Add
from nn.layer import Array
from nn.model import Model
from nn.norms import CosineSimilarity, GroupNorm, InstanceNorm, LayerNorm, Norm, Normalize, RMSNorm

_NORMS = LayerNorm, RMSNorm, GroupNorm, InstanceNorm, Norm, Normalize, CosineSimilarity
_UNBOUNDED = (
    a.SiLU, a.GELU, a.Mish, a.Softplus, r.LeakyReLU, r.PReLU, r.Hardswish, r.ELU, r.SELU, r.CELU,
)  # fmt: skip
"""Whose results grow with what they take, which they open: it is assumed of that, for no opening and no round."""


def assumed(model: Model, samples: Array) -> Iterator[Model]:
    """The model; the same where ReLU assumes what samples lead to, which costs least; where what norms take is assumed,
    of which there is little; and where all is that has no bound of its own.
    """
    yield model
    if any(isinstance(step.layer, r.ReLU) for step in model.architecture.steps):
        model = assuming(model, samples)
        yield model
    for names in (_normed, _grown):
        if after := names(model.architecture.steps):
            model = assuming(model, samples, after=after)
            yield model


def _normed(steps: tuple[Step, ...]) -> list[str]:
    """The steps whose results norms take, which square and add them up; in a transformer they are all that goes on."""
    values = {value for step in steps if isinstance(step.layer, _NORMS) for value in step.inputs}
    return [steps[value - 1].name for value in sorted(values) if value]


def _grown(steps: tuple[Step, ...]) -> list[str]:
    """Those without a bound of which nothing is assumed yet: sums, and what activations take."""
    done = {step.inputs[0] for step in steps if isinstance(step.layer, r.Assumed)}
    sums = {place for place, step in enumerate(steps, 1) if isinstance(step.layer, Add)}
    taken = {value for step in steps if isinstance(step.layer, _UNBOUNDED) for value in step.inputs if value}
    return [
        steps[value - 1].name
        for value in sorted((sums | taken) - done)
        if not isinstance(steps[value - 1].layer, r.Assumed)
    ]
