"""The dealer's reading of a program: masks, and correlated randomness made from them.

Every party gets a fresh seed.  Its shares of the masks expand from it, one stream per node; so do the shares of
correlated values of all parties but the last, which receives corrections instead: the dealer's traffic is one element
per correlated value, and nothing for masks, or for products whose openings have masks that are made of them
(``mpc/loans.py``).  How a correlation is made from masks it says itself.  Corrections are made
one part of the program after the other (``mpc/schedule.py``), each when it is asked for.

With MACs (malicious security) the seeds also give shares of a key alpha that is made for this run alone, and the dealer
deals shares of alpha times every mask, stored masks included, and of alpha times every correlated value.  Security:
alpha is uniform, and any n - 1 parties' shares of it and of the MACs are uniform and independent of it.

The dealer sees a program, never data: it learns shapes, and must not collude with any party.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from dataclasses import field as dataclass_field
from itertools import chain
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from mpc.errors import ProgramError
from mpc.lazy import lazy
from mpc.operation import Stored
from mpc.pace import paced
from mpc.program import Program
from mpc.rings import Array, Buffer, PrimeField, Rings, field_of, known_rings
from mpc.rings.prg import Seed, fresh_seed
from mpc.security import Security
from mpc.tensor_type import Form, Shape, TensorType
from protocols.randomness.streams import (
    dealt_stream,
    kept_stream,
    key_share,
    key_stream,
    lent_stream,
    mask_stream,
    output_mac_stream,
    output_stream,
    own_mask_stream,
    stored_stream,
)
from protocols.readings.drawing import AS_IT_IS, Order
from protocols.readings.reveal import key_commitment


@dataclass(frozen=True, repr=False)
class Dealing:
    """What the dealer sends for one run; no repr, since all of it is secret."""

    seeds: tuple[Seed, ...]
    """To each party its own."""
    parts: Iterator[tuple[Buffer, ...]]
    """To the last party: of each part of the program a flat buffer for each tensor of ``Program.corrected``, in the
    order of the nodes; made when it is asked for, once."""
    input_seeds: tuple[tuple[Seed, ...], ...]
    """To the client, for each tensor that it sends: each party's stream of its mask."""
    output_masks: tuple[Buffer, ...]
    """To the client, per output: its mask.  Not the parties' streams: those would open their shares of the output."""
    output_mac_masks: tuple[Buffer, ...]
    """To the client, with MACs: the mask of each output's MAC."""
    key_commitments: tuple[bytes, ...]
    """To the client, with MACs: a commitment to each party's share of the key (``reveal.py``)."""

    @property
    def kept(self) -> tuple[Seed, ...]:
        """By party, the seed of the masks of what the run keeps, for the dealer to remember (``keep.py``)."""
        return tuple(map(kept_stream, self.seeds))

    @lazy
    def corrections(self) -> tuple[Buffer, ...]:
        """All parts in one, for who has room for them."""
        return tuple(chain.from_iterable(self.parts))

    def for_party(self, party: int, corrections: Sequence[Buffer] | None = None) -> list[bytes | Buffer]:
        """A party's part: its seed; for the last party, then ``corrections``, by default all there are."""
        seed = bytes(self.seeds[party])
        if party < len(self.seeds) - 1:
            return [seed]
        return [seed, *(self.corrections if corrections is None else corrections)]

    def for_client(self) -> list[bytes | Buffer]:
        """The client's part: seeds of each input's mask, joined; a mask per output; with MACs, a mask per output's MAC,
        and the commitments to the key, joined."""
        seeds = [b"".join(map(bytes, seeds)) for seeds in self.input_seeds]
        commitments = [b"".join(self.key_commitments)] if self.key_commitments else []
        return [*seeds, *self.output_masks, *self.output_mac_masks, *commitments]


def digest(part: Sequence[bytes | bytearray | memoryview | npt.NDArray[Any]]) -> str:
    """SHA-256 of what the dealer makes for a client, in hexadecimal.

    The dealer gives it to the parties, the client sends them that of what it was sent, and they compare: a client that
    was sent other masks than were dealt would mask another value than it means, which no MAC can show.  It tells the
    parties nothing where they lack 122 uniform bits of the part: a seed, or a mask of an output and one of its MAC.
    """
    state = hashlib.sha256(b"tessera client's part")
    for buffer in part:
        data = np.ascontiguousarray(buffer).tobytes() if isinstance(buffer, np.ndarray) else bytes(buffer)
        state.update(len(data).to_bytes(8, "little"))
        state.update(data)
    return state.hexdigest()


@dataclass(repr=False)
class StoredMasks:
    """The dealer's memory of one uploaded secret: the seeds of its masks."""

    seeds: tuple[Seed, ...]
    shapes: Mapping[str, Shape]
    _masks: dict[str, Array] = dataclass_field(default_factory=dict)

    @property
    def elements(self) -> int:
        """Of all masks."""
        return sum(map(prod, self.shapes.values()))

    @property
    def made(self) -> int:
        """Elements of masks that are in memory."""
        return sum(prod(self.shapes[tensor]) for tensor in list(self._masks))

    def make_all(self, field: PrimeField) -> None:
        """What a first run would have to."""
        for tensor in self.shapes:
            self.mask(tensor, field)

    def overwrite(self) -> None:
        """Masks are not in memory any more, as far as that is ours to say."""
        while self._masks:
            _, mask = self._masks.popitem()
            with contextlib.suppress(AttributeError, ValueError):
                # It is settled (`Ring.settled`).
                mask.flags.writeable = True
            with contextlib.suppress(ValueError, TypeError):
                mask[...] = 0

    def mask(self, tensor: str, field: PrimeField) -> Array:
        """The mask of a stored tensor, by the process's field: always the same, since it masks one value."""
        if tensor not in self._masks:
            streams = [stored_stream(seed, tensor) for seed in self.seeds]
            self._masks[tensor] = field.settled(field.sample_sum(streams, self.shapes[tensor]))
        return self._masks[tensor]


def deal(
    program: Program,
    parties: int,
    stored: Mapping[str, StoredMasks],
    security: Security = Security.SEMI_HONEST,
    seeds: Sequence[Seed] | None = None,
    rings: Rings | None = None,
    order: Order = AS_IT_IS,
) -> Dealing:
    """Correlated randomness for one run of ``program``.

    ``stored``: by slot, the masks of what is bound there; ProgramError names one that is missing or of another shape.
    ``order``: in which rows are drawn.  ``seeds`` are for tests alone: a run's seeds are fresh.
    """
    rings = known_rings() if rings is None else rings
    seeds = tuple(Seed(fresh_seed()) for _ in range(parties)) if seeds is None else tuple(seeds)
    malicious = security is Security.MALICIOUS
    for node in program.nodes:
        if isinstance(node.operation, Stored):
            _masks_of(node.operation, stored)
    outputs = [program.nodes[i].type for i in program.outputs]

    def sent(streams: Sequence[Seed], t: TensorType) -> Buffer:
        ring = rings[t.ring]
        return ring.buffer(ring.sample_sum(streams, t.shape))

    return Dealing(
        seeds=seeds,
        parts=correction_parts(program, stored, security, seeds, rings, order),
        input_seeds=tuple(tuple(mask_stream(seed, i) for seed in seeds) for i in program.supplied),
        output_masks=tuple(sent([output_stream(seed, k) for seed in seeds], t) for k, t in enumerate(outputs)),
        output_mac_masks=tuple(
            sent([output_mac_stream(seed, k) for seed in seeds], t) for k, t in enumerate(outputs if malicious else ())
        ),
        key_commitments=tuple(
            key_commitment(party, key_stream(seed)) for party, seed in enumerate(seeds if malicious else ())
        ),
    )


def correction_parts(
    program: Program,
    stored: Mapping[str, StoredMasks],
    security: Security,
    seeds: Sequence[Seed],
    rings: Rings,
    order: Order,
) -> Iterator[tuple[Buffer, ...]]:
    """The corrections of each part of the program (`Dealing.parts`), wherever they are made.

    Masks are held from where they are made to where they are last taken: of a deep network few at a time.
    """
    malicious = security is Security.MALICIOUS
    key = sum(key_share(key_stream(seed)) for seed in seeds) if malicious else 0
    corrected, loans = program.corrected(security), program.loans
    masks: dict[int, Array] = {}
    lent: dict[int, Array] = {}
    """By node on the way to an opening, what will be its mask."""
    public: dict[int, Array] = {}
    to_take = Counter(j for node in program.nodes for j in node.inputs)

    def correct(i: int) -> Iterator[Buffer]:
        node, types = program.nodes[i], program.input_types(program.nodes[i])
        operation = node.operation
        dealt: list[Array] = []
        if node.type.form is Form.PUBLIC:
            public[i] = operation.clear(rings, types, [public[j] for j in node.inputs])
        elif isinstance(operation, Stored):
            masks[i] = _stored_mask(operation, stored, field_of(rings), order)
        elif i in loans.borrowers:
            masks[i] = lent[loans.carried[i]]
        elif i in loans.carried:
            carried = [lent[j] if j == loans.carried[i] else None for j in node.inputs]
            lent[i] = operation.on_masks(rings, types, carried, [None] * len(carried))
        elif operation.hides:
            streams = [own_mask_stream(seed, program, i) for seed in seeds]
            masks[i] = rings[node.type.ring].sample_sum(streams, node.type.shape)
        elif operation.settles:
            masks[i] = rings[node.type.ring].zeros(node.type.shape)
        elif node.type.form is Form.MASKED:
            masks[i] = operation.on_masks(
                rings, types, [masks.get(j) for j in node.inputs], [public.get(j) for j in node.inputs]
            )
        for correlation in program.correlations[i]:
            dealt.extend(correlation.make(rings, [masks[node.inputs[j]] for j in correlation.operands]))
        values = [(value, 1) for value in dealt]
        if i in loans.lenders:
            ring, streams = rings[node.type.ring], [lent_stream(seed, i) for seed in seeds]
            lent[i] = ring.sample_less(ring.reshape(dealt[0], node.type.shape), streams)
            values, dealt = [], [ring.sample_sum(streams, node.type.shape)] if malicious else []
        if malicious:
            own = [masks[i]] if program.keyed(i) else []
            # Of the node's mask first, as its parts are.
            values += [(value, key) for value in (*own, *dealt)]
        for k, ((value, factor), part) in enumerate(zip(values, corrected[i], strict=True)):
            ring, streams = rings[part.ring], [dealt_stream(seed, i, k) for seed in seeds[:-1]]
            yield ring.buffer(ring.sample_less(ring.reshape(value, part.shape), streams, factor)).reshape(-1)
        to_take.subtract(node.inputs)
        for j in {i, *node.inputs}:
            if not to_take[j]:
                masks.pop(j, None)
                lent.pop(j, None)
                public.pop(j, None)

    for nodes in program.schedule(security).parts:
        yield tuple(correction for i in paced(nodes) for correction in correct(i))


def _masks_of(operation: Stored, stored: Mapping[str, StoredMasks]) -> StoredMasks:
    """Those of what it reads.  Raises ProgramError."""
    masks = stored.get(operation.slot)
    if masks is None:
        raise ProgramError(
            "the dealer does not know the stored model of this program: ask for it again with client.model(name),"
            " or upload it again"
        )
    if masks.shapes.get(operation.tensor) != operation.whole:
        raise ProgramError(f"the stored model has no tensor {operation.tensor!r} of shape {operation.whole}")
    return masks


def _stored_mask(operation: Stored, stored: Mapping[str, StoredMasks], field: PrimeField, order: Order) -> Array:
    mask = _masks_of(operation, stored).mask(operation.tensor, field)
    return field.take(mask, order.positions(operation), 0) if operation.rows else mask
