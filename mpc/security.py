"""Against whom a run is secure: one word that client, dealer and parties of a cluster agree on."""

from __future__ import annotations

import enum


class Security(enum.StrEnum):
    """The adversary, who may hold up to n - 1 of the n parties, sees all that they see, and is no friend of the dealer.

    In both models it learns nothing.  What it may do differs.
    """

    SEMI_HONEST = "semi-honest"
    """It follows the protocol.  One that does not can make results wrong."""
    MALICIOUS = "malicious"
    """It sends whatever it likes.  Honest parties and clients get the right result, or ``MacCheckError`` (or another
    failure) and nobody learns anything: values carry SPDZ MACs, checked before a result leaves a party."""
