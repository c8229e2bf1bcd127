"""How many fraction bits the state of a training has: as many as let a step open least, and of these, the most.

Of a weight that is opened, after its velocity is, a step takes those that its products have room for, beside what it is
multiplied by: with more, it would be truncated for them, and opened a third time.  Of one that is not opened itself, it
takes those of its gradient and of the rate together: so is a first layer's, if its data has few digits.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import NamedTuple

from mpc.errors import RangeError
from mpc.operation import Stored
from mpc.program import Program
from protocols.lowering.precision import PrecisionWarning
from protocols.operations.truncation import Truncate

CHOICES = (20, 22, 23, 24, 26)
"""Of fraction bits of weights that are opened; and of what is tried first."""
NEARLY = 1.01
"""Opening so many times the least, weights have more bits rather."""
ROOM = 50
"""Of a weight that is not opened."""

Digits = Mapping[str, int]


class Tried(NamedTuple):
    """Of a step with some digits: its program, and the fraction bits of the gradients, by name."""

    program: Program
    gradients: Digits

    @property
    def cost(self) -> tuple[int, int]:
        """Rounds, and bytes of what is opened; but for new weights, which the next step opens."""
        return self.program.rounds, sum(node.type.bytes for node in self.program.nodes if node.operation.opens)


Try = Callable[[Digits], Tried]


def chosen(weights: Mapping[str, str | None], velocity_bits: int, rate_bits: int, tried: Try) -> dict[str, int]:
    """Of each of ``weights``, which name the slots of their velocities, and of each velocity.

    Raises RangeError where no choice fits the field.
    """

    def of(bits: int, derived: Digits) -> dict[str, int]:
        found = dict.fromkeys(weights, bits) | {slot: velocity_bits for slot in weights.values() if slot}
        for name, raw in derived.items():
            found[name] = raw + rate_bits
            if slot := weights[name]:
                found[slot] = raw
        return found

    def fits(digits: Digits) -> Tried | None:
        try:
            return tried(digits)
        except RangeError:
            return None

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PrecisionWarning)
        gradients = tried(of(CHOICES[0], {})).gradients
        derived = {name: max(bits, velocity_bits) for name, bits in gradients.items()}
        derived = {name: bits for name, bits in derived.items() if bits + rate_bits <= ROOM}
        while derived and (step := fits(of(CHOICES[0], derived))) and (cut := _truncated(step.program) & set(derived)):
            derived = {name: bits for name, bits in derived.items() if name not in cut}
        steps = {bits: step for bits in CHOICES if (step := fits(of(bits, derived)))}
        if steps:
            rounds, least = min(step.cost for step in steps.values())
            best = max(bits for bits, step in steps.items() if step.cost <= (rounds, int(NEARLY * least)))
            opened = fits(of(best, {}))
            if opened is None or steps[best].program.rounds <= opened.program.rounds:
                return of(best, derived)
        else:
            best = CHOICES[0]
        return of(best, {})


def _truncated(program: Program) -> set[str]:
    """What is stored, and truncated before it is used."""
    sources = (program.nodes[node.inputs[0]] for node in program.nodes if isinstance(node.operation, Truncate))
    masked = (program.nodes[x.inputs[0]] if x.inputs else x for x in sources)
    return {x.operation.tensor for x in masked if isinstance(x.operation, Stored)}
