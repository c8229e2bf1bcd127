"""``tessera bench strangers`` on the command line; the measurements themselves are in ``benchmarks.strangers.bench``.

Imported by every ``tessera`` command, the servers' too: nothing here loads kernels or tables.
"""

from __future__ import annotations

import argparse
from typing import Any

from benchmarks.options import add_party_arguments, add_record_arguments, positive
from mpc.security import Security

BOTH = "both"


def add_strangers(benches: Any) -> None:
    """Add ``strangers`` to the benchmarks."""
    parser = benches.add_parser("strangers", help="predictions while strangers or other members attack the servers")
    parser.add_argument(
        "attacks", nargs="*", metavar="ATTACK",
        help="'no key', 'wrong key', garbage, 'replayed handshake', slow-loris, 'connection flood', 'held connections',"
        " 'giant frames', 'streamed frames'; by two other clients: 'heavy programs', 'heavy orders', 'dealt alone',"
        " 'long descriptions', 'flood of rules', 'delayed uploads', 'flood of pings', 'logged lines', 'all names',"
        " 'burnt stock'; by a party: 'early openings', 'false ids'; in files that a client is given: 'pictures to"
        " predict', 'pictures to the page' (default: all)",
    )  # fmt: skip
    parser.add_argument(
        "--security", choices=(*map(str, Security), BOTH), default=str(Security.SEMI_HONEST), metavar="S",
        help=f"{', '.join(Security)} or {BOTH} (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--seconds", type=positive, default=4, metavar="S", help="of each block, attacked or quiet (default: 4)"
    )
    parser.add_argument(
        "--pairs", type=positive, default=3, metavar="N", help="of quiet and attacked blocks (default: 3)"
    )
    parser.add_argument(
        "--rate", type=positive, default=250, metavar="N",
        help="connections that strangers open per second (default: 250)",
    )  # fmt: skip
    parser.add_argument(
        "--connections", type=positive, default=500, metavar="N", help="at a time, at most (default: 500)"
    )
    add_party_arguments(parser)
    add_record_arguments(parser)
    parser.set_defaults(run=_strangers)


def _strangers(options: argparse.Namespace) -> int:
    from benchmarks.strangers.bench import run

    return run(options)
