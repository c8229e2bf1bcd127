"""How an upload is cut: the elements of all its tensors, one behind the other in flat order, in pieces of one length.

Client and parties cut alike, so that a chunk is a number, and what a party has of an upload is a count: chunks come in
their order, without gaps.  A tensor's end is no chunk's end; many small tensors fill one chunk.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from math import prod

import numpy as np

from mpc.rings import Array, FieldRing
from mpc.rings.prg import Seed
from mpc.tensor_type import Shape
from protocols.readings.dealer import StoredMasks

RING = FieldRing()
"""What is stored lives in the field."""

CHUNK_ELEMENTS = 1 << 19
"""In a chunk, 4 MiB of payload; the last one may have fewer."""

WINDOW = 4
"""Chunks that a party may have been sent and not acknowledged; a party holds no more of an upload in memory.

16 MiB keep a link of 1 Gbit/s busy whose round trips take 0.1 s.
"""


@dataclass(frozen=True)
class Grid:
    """The chunks of one upload."""

    elements: int
    chunk_elements: int

    @classmethod
    def of(cls, shapes: Iterable[Shape]) -> Grid:
        """Of tensors of these shapes."""
        return cls(sum(map(prod, shapes)), CHUNK_ELEMENTS)

    @property
    def count(self) -> int:
        """Of chunks; none for tensors without elements."""
        return -(-self.elements // self.chunk_elements)

    def size(self, number: int) -> int:
        """Elements of a chunk, 1 at least."""
        return min(self.chunk_elements, self.elements - number * self.chunk_elements)

    def chunk_bytes(self, number: int) -> int:
        """Of a chunk's payload."""
        return RING.bytes_of(self.size(number))

    def bytes_of(self, chunks: int) -> int:
        """Of payload, in the first ``chunks`` chunks."""
        return RING.bytes_of(min(chunks * self.chunk_elements, self.elements))


def masked_chunks(tensors: Mapping[str, Array], seeds: tuple[Seed, ...], grid: Grid, first: int) -> Iterator[Array]:
    """``w - b`` chunk by chunk, from number ``first`` on.

    In memory are the mask of one tensor and one chunk; tensors that lie before ``first`` are not masked at all.
    """
    number, filled = first, 0
    chunk = RING.vector([(grid.size(first) if first < grid.count else 0,)])
    begins = 0
    for name, array in tensors.items():
        flat = np.ascontiguousarray(array).reshape(-1)
        at = number * grid.chunk_elements + filled - begins
        begins += flat.size
        if at >= flat.size:
            continue
        # An object of its own, which is forgotten with the tensor: the dealer's would keep every mask.
        mask = StoredMasks(seeds, {name: array.shape}).mask(name, RING).reshape(-1)
        while at < flat.size:
            size = min(chunk.size - filled, flat.size - at)
            RING.difference(flat[at : at + size], mask[at : at + size], chunk[filled : filled + size])
            at, filled = at + size, filled + size
            if filled == chunk.size:
                yield chunk
                number, filled = number + 1, 0
                # Another array each time: the transport still reads the one before.
                chunk = RING.vector([(grid.size(number) if number < grid.count else 0,)])
        del mask  # before the next one is made
