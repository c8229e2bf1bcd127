"""How an upload is cut: the elements of all its tensors, one behind the other in flat order, in pieces of one length.

Client and parties cut alike, so that a chunk is a number, and what a party has of an upload is a count: chunks come in
their order, without gaps.  A tensor's end is no chunk's end; many small tensors fill one chunk.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from math import prod

import numpy as np

from mpc.rings import Buffer, PrimeField
from mpc.rings.prg import Seed
from mpc.tensor_type import Shape
from protocols.randomness.streams import stored_stream

CHUNK_ELEMENTS = 1 << 19
"""In a chunk, 4 MiB of payload; the last one may have fewer."""

WINDOW = 4
"""Chunks that a party may have been sent and not acknowledged; a party holds no more of an upload in memory.

16 MiB keep a link of 1 Gbit/s busy whose round trips take 0.1 s.
"""


def stored_bytes(elements: int) -> int:
    """Of so many elements: what is stored lives in the field."""
    return elements * PrimeField.element_bits // 8


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

    @property
    def total_bytes(self) -> int:
        """Of payload, in all chunks."""
        return stored_bytes(self.elements)

    def size(self, number: int) -> int:
        """Elements of a chunk, 1 at least."""
        return min(self.chunk_elements, self.elements - number * self.chunk_elements)

    def chunk_bytes(self, number: int) -> int:
        """Of a chunk's payload."""
        return stored_bytes(self.size(number))

    def bytes_of(self, chunks: int) -> int:
        """Of payload, in the first ``chunks`` chunks."""
        return stored_bytes(min(chunks * self.chunk_elements, self.elements))


def masked_chunks(
    tensors: Mapping[str, Buffer], seeds: tuple[Seed, ...], grid: Grid, field: PrimeField
) -> Iterator[Buffer]:
    """``w - b`` chunk by chunk.  In memory are the mask of one tensor and one chunk."""
    number, filled = 0, 0

    def size_of(number: int) -> int:
        return grid.size(number) if number < grid.count else 0

    size = size_of(0)
    chunk = field.vector([(size,)])
    for name, array in tensors.items():
        flat, at = np.ascontiguousarray(array).reshape(-1), 0
        if not flat.size:
            continue
        mask = field.sample_sum([stored_stream(seed, name) for seed in seeds], (flat.size,))
        while at < flat.size:
            count = min(size - filled, flat.size - at)
            w = field.read(flat[at : at + count].data.cast("B"), (count,))
            _, part, _ = field.split(chunk, [(filled,), (count,), (size - filled - count,)])
            field.difference(w, field.index(mask, (slice(at, at + count),)), part)
            at, filled = at + count, filled + count
            if filled == size:
                yield field.buffer(chunk)
                number, filled = number + 1, 0
                # Another array each time: the transport still reads the one before.
                size = size_of(number)
                chunk = field.vector([(size,)])
        del mask  # before the next one is made
