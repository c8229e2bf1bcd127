"""Files that somebody names, of any size."""

from __future__ import annotations

from typing import BinaryIO

_PIECE = 1 << 20


def at_most(file: BinaryIO, most: int) -> bytes:
    """What is left of a file, but no more than ``most`` bytes, in as much memory as that takes.

    ``file.read(most)`` sets ``most`` aside, however little there is.
    """
    pieces = []
    while most > 0 and (piece := file.read(min(most, _PIECE))):
        pieces.append(piece)
        most -= len(piece)
    return b"".join(pieces)
