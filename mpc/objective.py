"""What a program is planned for: how many bytes a round is worth, and against whom it has to be secure."""

from __future__ import annotations

import msgspec

from mpc.security import Security

ANY = 2**53
"""Bytes: more than any program sends."""


class Objective(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where a protocol has variants, the one with fewer rounds is taken unless it costs so many bytes more for each.

    Bytes are those that are dealt and that are opened, to one other party, at the place where the choice is made.
    """

    round_bytes: int = ANY
    security: Security = Security.SEMI_HONEST
    """Without MACs some protocols are cheaper; what is planned for malicious security runs in either."""


LATENCY = Objective(20 << 20)
"""Rounds count, for parties far from each other: each is worth what a link carries in a second.  Without a bound a
layer of a million values would have 170 MB more dealt, and held, for the sake of one."""
STEPS = 4 << 20
"""What a round is worth, at most, of what is done again and again, as steps of training are: all of it is dealt in the
time that it takes."""
TRAFFIC = Objective(0)
"""Bytes do: for links that are narrow, or metered."""
