"""What a program states of its results."""

from __future__ import annotations

from protocols.lowering.plan import lowered
from protocols.lowering.precision import ErrorBound, stated
from protocols.trace import mathematics as m


class Stated:
    """Base of ``SecretTensor``."""

    __slots__ = ()

    node: m.Node

    @property
    def error(self) -> ErrorBound:
        """What it is off by at most when it is revealed: ``absolute``, ``relative`` to its range; and mostly why.

        Followed through all operations from the rounding of what was shared, of truncations and constants, and from the
        errors of fits; found out when it is asked for.  Holds where values lie in their declared ranges and intervals.
        """
        return stated(lowered(self.node))
