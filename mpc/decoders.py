"""Decoders of msgspec, made by one thread at a time.

msgspec looks at the fields of a type when it first meets it, and lets other threads see what it has found before that
is complete: two threads that decode their first message of one type at the same moment end the process with a
segmentation fault (seen with 0.22, the program being decoded for two clients who ask a server that has just started).
A decoder that exists has all it needs.  So what is decoded in threads has its decoder from here.
"""

from __future__ import annotations

import functools
import threading
from typing import Any

import msgspec

from mpc.errors import ProgramError

Buffer = bytes | memoryview

_MAKING = threading.Lock()


def msgpack_decoder(kind: Any) -> msgspec.msgpack.Decoder[Any]:
    """The decoder of MessagePack for a type, or a union of types; the same one each time."""
    with _MAKING:
        return _msgpack(kind)


def from_msgpack(data: Buffer, kind: Any, complaint: str) -> Any:
    """What a stranger has sent, if it is of that kind; else ProgramError with the complaint, of whose data it says
    nothing."""
    try:
        return msgpack_decoder(kind).decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        raise ProgramError(complaint) from None


def json_decoder(kind: Any) -> msgspec.json.Decoder[Any]:
    """The decoder of JSON for a type, or a union of types; the same one each time."""
    with _MAKING:
        return _json(kind)


@functools.cache
def _msgpack(kind: Any) -> msgspec.msgpack.Decoder[Any]:
    return msgspec.msgpack.Decoder(kind)


@functools.cache
def _json(kind: Any) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(kind)
