"""What frameworks write as several steps, and what is one layer here, in fewer rounds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from nn import functional as f
from nn.activations import GELU, Polynomial, Tanh
from nn.architecture import Step
from nn.layer import Layer

_CUBE = (0.0, 0.0, 0.0, 1.0)
_ROOT, _CUBED = 0.7978845608028654, 0.044715
"""Of ``x / 2 (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3)))``: GPT-2's GELU, which torch calls ``tanh``."""


def fused(steps: Sequence[Step]) -> list[Step]:
    """The same network, with a ``GELU`` where its formula is written; steps that nothing takes any more are gone."""
    made = list(steps)
    for number, step in enumerate(steps):
        place = _gelu_of(steps, step)
        if place is not None:
            made[number] = Step(step.name, GELU(approximate="tanh"), (place,))
    return made if made == list(steps) else _taken(made, set(_all(steps)))


def _gelu_of(steps: Sequence[Step], step: Step) -> int | None:
    """The value whose GELU a step is, if it is one's."""
    if not isinstance(step.layer, f.Multiply) or len(step.inputs) != 2:
        return None
    for first, second in (step.inputs, step.inputs[::-1]):
        x = _before(steps, first, f.Affine(0.5, 0.0))
        slope = _before(steps, _before(steps, second, f.Affine(1.0, 1.0)), Tanh())
        cubic = _before(steps, slope, f.Affine(_ROOT, 0.0))
        if x is None or not cubic or not isinstance(steps[cubic - 1].layer, f.Add):
            continue
        for one, other in (steps[cubic - 1].inputs, steps[cubic - 1].inputs[::-1]):
            if one == x == _before(steps, _before(steps, other, f.Affine(_CUBED, 0.0)), Polynomial(_CUBE)):
                return x
    return None


def _before(steps: Sequence[Step], place: int | None, layer: Layer) -> int | None:
    """What this layer is applied to, if it is what gives the value there."""
    return steps[place - 1].inputs[0] if place and steps[place - 1].layer == layer else None


def _all(steps: Sequence[Step]) -> Iterator[int]:
    """Values that are taken, and the result."""
    yield len(steps)
    for step in steps:
        yield from step.inputs


def _taken(steps: Sequence[Step], before: set[int]) -> list[Step]:
    """Without those whose values were taken ``before``, and are not now."""
    needed = set[int]()
    for place in range(len(steps), 0, -1):
        if place == len(steps) or place in needed or place not in before:
            needed |= {place, *steps[place - 1].inputs}
    made, at = list[Step](), {0: 0}
    for place, step in enumerate(steps, 1):
        if place in needed:
            made.append(Step(step.name, step.layer, tuple(at[i] for i in step.inputs)))
            at[place] = len(made)
    return made
