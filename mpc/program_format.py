"""How a program goes over a wire: MessagePack, nodes in their order, each by itself.

Whoever reads one may rest between nodes (`mpc.pace`), and knows how many there are before it has looked at any.  Of
operations and types many are alike, in large programs above all: they are decoded, and encoded, once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Annotated, Generic, NamedTuple, TypeVar, Union

import msgspec

from mpc.decoders import msgpack_decoder
from mpc.errors import ProgramError, printable
from mpc.objective import Objective
from mpc.operation import Operation, registered
from mpc.pace import paced
from mpc.tensor_type import TensorType

FORMAT = 2
MAX_NODES = 20_000
MAX_BYTES = 256 * 2**20
MAX_DESCRIPTION = 16 * 2**20

_SHORT = 256
"""Bytes of an operation or a type, encoded, of which others may be alike."""

Decoded = TypeVar("Decoded")


class Node(msgspec.Struct, frozen=True, gc=False):
    """One operation of a program; ``inputs`` are indices of earlier nodes, ``label`` names the layer it belongs to."""

    operation: Operation
    inputs: tuple[int, ...]
    type: TensorType
    label: str = ""


_Indices = Annotated[tuple[int, ...], msgspec.Meta(max_length=MAX_NODES)]


class _WireNode(msgspec.Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    operation: msgspec.Raw
    """An `Operation`."""
    inputs: _Indices
    type: msgspec.Raw
    """A `TensorType`."""
    label: str


class Keeping(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """As what the values that a program keeps are kept.

    ``joint``: as belonging to all together whose secrets it reads, and not to who runs it alone.  ``description``: of
    what they are the tensors of, for who stores them; else they are a data set.
    """

    joint: bool = False
    description: Annotated[bytes, msgspec.Meta(max_length=MAX_DESCRIPTION)] = b""


DATA = Keeping()


class _WireProgram(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    format: int
    nodes: Annotated[list[msgspec.Raw], msgspec.Meta(max_length=MAX_NODES)]
    """Each a `_WireNode`."""
    outputs: _Indices
    precision: int
    objective: Objective
    keeping: Keeping


_HEAD = b"\x86" + msgspec.msgpack.encode("format") + msgspec.msgpack.encode(FORMAT) + msgspec.msgpack.encode("nodes")
"""Of every encoded program: a map of six, whose second entry is the nodes."""


def nodes_announced(data: bytes | memoryview) -> int:
    """How many nodes an encoded program has, by its first bytes: what may be had of a stranger's before decoding it.

    Raises ProgramError for what does not begin like a program of this release, and beyond the limits.
    """
    if len(data) > MAX_BYTES:
        raise ProgramError(f"a program of {len(data)} bytes is over the limit of {MAX_BYTES}")
    array = bytes(data[len(_HEAD) : len(_HEAD) + 5])
    if bytes(data[: len(_HEAD)]) != _HEAD or not array:
        raise ProgramError("not a program: both sides need the same version")
    if array[0] >> 4 == 0x9:
        nodes = array[0] & 0xF
    else:
        width = {0xDC: 2, 0xDD: 4}.get(array[0], 0)
        nodes = int.from_bytes(array[1 : 1 + width], "big")
    if not 0 < nodes <= MAX_NODES:
        raise ProgramError(f"a program has 1 to {MAX_NODES} nodes, not {nodes}")
    return nodes


class Contents(NamedTuple):
    """What an encoded program holds, of which nothing has been checked."""

    nodes: list[Node]
    outputs: tuple[int, ...]
    precision: int
    objective: Objective
    keeping: Keeping


def encode(
    nodes: Sequence[Node], outputs: tuple[int, ...], precision: int, objective: Objective, keeping: Keeping
) -> bytes:
    """The same bytes for the same program."""
    encoded = msgspec.msgpack.encode
    known: dict[int, msgspec.Raw] = {}

    def part(of: Operation | TensorType) -> msgspec.Raw:
        # By identity: who reads a program has one object for all that are alike.
        found = known.get(id(of))
        if found is None:
            found = known[id(of)] = msgspec.Raw(encoded(of))
        return found

    wire = (_WireNode(part(n.operation), n.inputs, part(n.type), n.label) for n in paced(nodes))
    raw = [msgspec.Raw(encoded(node)) for node in wire]
    return encoded(_WireProgram(FORMAT, raw, outputs, precision, objective, keeping))


def decode(data: bytes | memoryview) -> Contents:
    """Read what a stranger has sent.  Raises ProgramError; runs nothing of what it reads."""
    if len(data) > MAX_BYTES:
        raise ProgramError(f"a program of {len(data)} bytes is over the limit of {MAX_BYTES}")
    kinds = tuple(registered().values())
    operation = _Once[Operation](msgpack_decoder(Union[kinds]).decode)  # noqa: UP007 - a union made at run time
    of_type = _Once[TensorType](msgpack_decoder(TensorType).decode)
    node = msgpack_decoder(_WireNode).decode
    try:
        wire: _WireProgram = msgpack_decoder(_WireProgram).decode(data)
        if wire.format != FORMAT:
            raise ProgramError(f"program format {wire.format} is not {FORMAT}: both sides need the same version")
        wire_nodes: Iterable[_WireNode] = map(node, paced(wire.nodes))
        nodes = [Node(operation(n.operation), n.inputs, of_type(n.type), n.label) for n in wire_nodes]
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ProgramError(f"not a program: {printable(str(error))}") from None
    return Contents(nodes, wire.outputs, wire.precision, wire.objective, wire.keeping)


class _Once(Generic[Decoded]):
    """Decodes what is short once for all that are alike."""

    def __init__(self, decode: Callable[[bytes | memoryview], Decoded]) -> None:
        self._decode = decode
        self._known: dict[bytes, Decoded] = {}

    def __call__(self, raw: msgspec.Raw) -> Decoded:
        data = memoryview(raw)
        if len(data) > _SHORT:
            return self._decode(data)
        key = bytes(data)
        known = self._known.get(key)
        if known is None:
            known = self._known[key] = self._decode(key)
        return known
