"""The dealer's reading of a program: masks, and correlated randomness made from them.

Every party gets a fresh seed.  Its shares of the masks expand from it, one stream per node; so do the shares of
correlated values of all parties but the last, which receives corrections instead: the dealer's traffic is one field
element per correlated value, and nothing for masks.

The dealer sees a program, never data: it learns shapes, and must not collude with any party.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from dataclasses import field as dataclass_field

from mpc import field
from mpc.errors import ProgramError
from mpc.field import FieldArray
from mpc.operation import Input, Stored
from mpc.prg import Seed, elements_sum, fresh_seed
from mpc.program import Program
from mpc.tensor_type import Form, Shape


def mask_stream(seed: Seed, node: int) -> Seed:
    """The stream from which a party's share of the mask of ``node`` expands."""
    return seed.derive(f"mask of node {node}")


def dealt_stream(seed: Seed, node: int, part: int) -> Seed:
    """The stream from which a party's share of the ``part``-th correlated tensor of ``node`` expands."""
    return seed.derive(f"dealt {part} of node {node}")


def output_stream(seed: Seed, output: int) -> Seed:
    """The stream from which a party's share of the mask of the ``output``-th output expands."""
    return seed.derive(f"mask of output {output}")


def stored_stream(seed: Seed, tensor: str) -> Seed:
    """The stream from which a party's share of the mask of a stored tensor expands."""
    return seed.derive(f"mask of stored {tensor}")


@dataclass(frozen=True, repr=False)
class Dealing:
    """What the dealer sends for one run; no repr, since all of it is secret."""

    seeds: tuple[Seed, ...]
    """To each party its own."""
    corrections: tuple[FieldArray, ...]
    """To the last party: a flat array per correlated tensor, in the order of the program."""
    input_seeds: tuple[tuple[Seed, ...], ...]
    """To the client, per input: each party's stream of the input's mask."""
    output_masks: tuple[FieldArray, ...]
    """To the client, per output: its mask.  Not the parties' streams: those would open their shares of the output."""


@dataclass(repr=False)
class StoredMasks:
    """The dealer's memory of one uploaded store: the seeds of its masks."""

    seeds: tuple[Seed, ...]
    shapes: Mapping[str, Shape]
    _masks: dict[str, FieldArray] = dataclass_field(default_factory=dict)

    def mask(self, tensor: str) -> FieldArray:
        """The mask of a stored tensor: always the same, since it masks one value."""
        if tensor not in self._masks:
            streams = [stored_stream(seed, tensor) for seed in self.seeds]
            self._masks[tensor] = elements_sum(streams, self.shapes[tensor])
        return self._masks[tensor]


def deal(
    program: Program, parties: int, stored: Mapping[str, StoredMasks], seeds: Sequence[Seed] | None = None
) -> Dealing:
    """Correlated randomness for one run of ``program``.

    ``stored`` maps the ids of stores to their masks; ProgramError names one that is not there or has another shape.
    ``seeds`` are for tests alone: a run's seeds are fresh.
    """
    seeds = tuple(Seed(fresh_seed()) for _ in range(parties)) if seeds is None else tuple(seeds)
    masks: dict[int, FieldArray] = {}
    public: dict[int, FieldArray] = {}
    corrections: list[FieldArray] = []
    for i, node in enumerate(program.nodes):
        operation = node.operation
        types = program.input_types(node)
        if node.type.form is Form.PUBLIC:
            public[i] = operation.clear(types, [public[j] for j in node.inputs])
        elif isinstance(operation, Stored):
            masks[i] = _stored_mask(operation, stored)
        elif isinstance(operation, Input) or operation.opens:
            masks[i] = elements_sum([mask_stream(seed, i) for seed in seeds], node.type.shape)
        elif node.type.form is Form.MASKED:
            masks[i] = operation.on_masks(
                types, [masks.get(j) for j in node.inputs], [public.get(j) for j in node.inputs]
            )
        elif program.dealt[i]:
            dealt = operation.deal(types, [masks[j] for j in node.inputs])
            for part, value in enumerate(dealt):
                others = elements_sum([dealt_stream(seed, i, part) for seed in seeds[:-1]], value.shape)
                corrections.append(field.subtract(value, others).reshape(-1))
    return Dealing(
        seeds=seeds,
        corrections=tuple(corrections),
        input_seeds=tuple(tuple(mask_stream(seed, i) for seed in seeds) for i in program.inputs),
        output_masks=tuple(
            elements_sum([output_stream(seed, k) for seed in seeds], program.nodes[i].type.shape)
            for k, i in enumerate(program.outputs)
        ),
    )


def _stored_mask(operation: Stored, stored: Mapping[str, StoredMasks]) -> FieldArray:
    masks = stored.get(operation.store)
    if masks is None:
        raise ProgramError(
            "the dealer does not know the stored model of this program: ask for it again with client.model(name),"
            " or upload it again"
        )
    if masks.shapes.get(operation.tensor) != operation.shape:
        raise ProgramError(f"the stored model has no tensor {operation.tensor!r} of shape {operation.shape}")
    return masks.mask(operation.tensor)
