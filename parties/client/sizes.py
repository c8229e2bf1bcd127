"""What no member would take: refused by the client before memory is spent on it, or anything is sent."""

from __future__ import annotations

import numpy.typing as npt

from mpc.cost import largest_message
from mpc.errors import UsageError
from mpc.program import Program
from mpc.security import Security
from parties.members.cluster import Cluster
from parties.messages.stock import MAX_COUNT
from protocols.trace.arguments import whole
from protocols.trace.sizes import count_of

_ADVICE = "or raise max_message_mb, and memory_mb, in everybody's cluster file"


def check_values(cluster: Cluster, values: npt.ArrayLike, name: str) -> None:
    """Raises UsageError for more numbers than one message takes."""
    count, most = count_of(values), cluster.max_message_bytes // 8
    if count > most:
        raise UsageError(
            f"{name} has {count:,} numbers, and one run takes {most:,} at most: share parts of it, {_ADVICE}"
        )


def check_stock(count: int, low_water: int) -> None:
    """Raises UsageError for a number of runs, or a mark, that no dealer takes."""
    if not 1 <= whole(count, "count") <= MAX_COUNT or not 0 <= whole(low_water, "low_water") <= count:
        raise UsageError(f"count is 1 to {MAX_COUNT}, and a low-water mark not above it")


def check_messages(cluster: Cluster, program: Program) -> None:
    """Raises UsageError for a program in whose run somebody would send a larger message than is taken."""
    security: Security = cluster.settings.security
    largest, most = largest_message(program, security), cluster.max_message_bytes
    if largest > most:
        raise UsageError(
            f"a message of this run would have {largest / (1 << 20):,.0f} MiB, and members take {most >> 20:,}: share,"
            f" reveal or keep less in one run, {_ADVICE}"
        )
