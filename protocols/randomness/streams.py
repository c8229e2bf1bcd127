"""A party's randomness of one run: what it expands from its seed, and what the last party is sent instead.

Every purpose has a stream of its own, derived from the seed by a label, so that nothing is expanded twice.  Shares of
masks expand at every party.  Shares of values that the dealer computes from masks (correlated tensors, and all MACs)
expand at every party but the last, which is sent the *corrections* that make the shares add up.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np

from mpc.errors import ProgramError
from mpc.program import Program
from mpc.rings import field
from mpc.rings.field import FieldArray
from mpc.rings.prg import Seed
from mpc.security import Security


def mask_stream(seed: Seed, node: int) -> Seed:
    """The stream from which a party's share of the mask of ``node`` expands."""
    return seed.derive(f"mask of node {node}")


def kept_stream(seed: Seed) -> Seed:
    """The seed, of a party's, of the masks of all that a run keeps: from then on that of a stored version."""
    return seed.derive("masks of what is kept")


def own_mask_stream(seed: Seed, program: Program, node: int) -> Seed:
    """The stream from which a party's share of the node's own mask expands in a run of this seed."""
    tensor = program.nodes[node].operation.kept_as
    return stored_stream(kept_stream(seed), tensor) if tensor else mask_stream(seed, node)


def dealt_stream(seed: Seed, node: int, part: int) -> Seed:
    """The stream of a party's share of the ``part``-th tensor of ``node`` that the last party has a correction for."""
    return seed.derive(f"dealt {part} of node {node}")


def output_stream(seed: Seed, output: int) -> Seed:
    """The stream from which a party's share of the mask of the ``output``-th output expands."""
    return seed.derive(f"mask of output {output}")


def output_mac_stream(seed: Seed, output: int) -> Seed:
    """The stream from which a party's share of the mask of the MAC of the ``output``-th output expands."""
    return seed.derive(f"mask of the MAC of output {output}")


def stored_stream(seed: Seed, tensor: str) -> Seed:
    """The stream from which a party's share of the mask of a stored tensor expands."""
    return seed.derive(f"mask of stored {tensor}")


def key_stream(seed: Seed) -> Seed:
    """The stream from which a party's share of the run's MAC key expands; told to the client in the end."""
    return seed.derive("share of the MAC key")


def key_share(stream: Seed) -> int:
    """A party's share of the run's MAC key."""
    return int(stream.elements(1)[0])


class Randomness:
    """One party's shares of everything dealt for a run, by node; each is asked for once."""

    def __init__(
        self,
        program: Program,
        security: Security,
        *,
        party: int,
        parties: int,
        seed: Seed,
        corrections: Sequence[FieldArray],
    ) -> None:
        """``corrections``: flat arrays in the program's order for the last party, nothing for the others.

        Raises ProgramError when they do not go with the program.
        """
        self._program = program
        self._seed = seed
        self._shapes = program.corrected(security)
        self._corrections = self._by_node(corrections) if party == parties - 1 else None
        if self._corrections is None and corrections:
            raise ProgramError("only the last party takes corrections")

    def __repr__(self) -> str:
        return "Randomness(...)"

    def _by_node(self, corrections: Sequence[FieldArray]) -> list[list[FieldArray]]:
        if len(corrections) != sum(map(len, self._shapes)):
            raise ProgramError(
                f"{len(corrections)} corrections, but the program needs {sum(map(len, self._shapes))}:"
                " dealer and parties must agree on the program and on the security"
            )
        flat = iter(corrections)
        by_node = []
        for shapes in self._shapes:
            arrays = []
            for shape in shapes:
                array = next(flat)
                if array.dtype != np.uint64 or array.size != prod(shape) or not field.is_reduced(array):
                    raise ProgramError("a correction of the wrong size, or with a number outside the field")
                arrays.append(array.reshape(shape))
            by_node.append(arrays)
        return by_node

    @property
    def key_stream(self) -> Seed:
        """The stream of this party's share of the run's MAC key."""
        return key_stream(self._seed)

    def mask(self, node: int) -> FieldArray:
        """Of the node's own mask."""
        return own_mask_stream(self._seed, self._program, node).elements(self._program.nodes[node].type.shape)

    @property
    def kept_stream(self) -> Seed:
        """The seed of this party's shares of the masks of what the run keeps."""
        return kept_stream(self._seed)

    def dealt(self, node: int) -> list[FieldArray]:
        """Of the node's correlated tensors."""
        return self._parts(node, 0, len(self._program.dealt[node]))

    def mask_mac(self, node: int) -> FieldArray:
        """Of the MAC of the node's own mask."""
        first = len(self._program.dealt[node])
        return self._parts(node, first, first + 1)[0]

    def dealt_macs(self, node: int) -> list[FieldArray]:
        """Of the MACs of the node's correlated tensors."""
        count = len(self._program.dealt[node])
        end = len(self._shapes[node])
        return self._parts(node, end - count, end)

    def output_mask(self, output: int) -> FieldArray:
        """Of an output's mask, which the client alone knows."""
        return output_stream(self._seed, output).elements(self._output_shape(output))

    def output_mac_mask(self, output: int) -> FieldArray:
        """Of the mask of an output's MAC, which the client alone knows."""
        return output_mac_stream(self._seed, output).elements(self._output_shape(output))

    def _output_shape(self, output: int) -> tuple[int, ...]:
        return self._program.nodes[self._program.outputs[output]].type.shape

    def _parts(self, node: int, start: int, end: int) -> list[FieldArray]:
        if self._corrections is not None:
            return self._corrections[node][start:end]
        shapes = self._shapes[node][start:end]
        return [dealt_stream(self._seed, node, start + k).elements(shape) for k, shape in enumerate(shapes)]
