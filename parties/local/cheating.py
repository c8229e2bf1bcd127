"""A party that cheats, to be seen: in clusters of one process alone, whose owner holds everything anyway."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence

from mpc.errors import UsageError
from mpc.rings import Rings
from parties.messages.runs import Outputs
from parties.servers.party import PartyServer
from parties.wire.messages import Buffer, Message


@contextlib.contextmanager
def cheating(server: PartyServer, by: float, rings: Rings) -> Iterator[None]:
    """Meanwhile its share of each number of a result is ``by`` more than it should be; its MAC is what it was."""
    if not math.isfinite(by):
        raise UsageError(f"a cheat by {by} is none: give a finite number")
    endpoint = server.endpoint
    honest = endpoint.send

    def send(peer: str, message: Message, buffers: Sequence[Buffer] = (), *, copy: bool = False) -> int:
        run = server.jobs[message.run].party_run if isinstance(message, Outputs) else None
        changed = list(buffers)
        if run is not None:
            program = run.program
            # The last one tells of ranges, where a program is watched.
            for place, node in enumerate(program.outputs[: len(program.outputs) - program.flagged]):
                kind = program.nodes[node].type
                ring = rings[kind.ring]
                if ring.numbers:
                    share = ring.read(bytes(changed[place]), kind.shape)
                    more = ring.full(kind.shape, round(math.ldexp(by, kind.fraction_bits)))
                    changed[place] = ring.buffer(ring.add(share, more))
        return honest(peer, message, changed, copy=copy)

    endpoint.send = send  # type: ignore[method-assign]
    try:
        yield
    finally:
        endpoint.send = honest  # type: ignore[method-assign]
