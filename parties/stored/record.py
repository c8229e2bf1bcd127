"""What is known of a version of a stored secret but the secret itself.

`parties.stored.version_database` says where it is written.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Annotated

import msgspec

from mpc.errors import ProgramError
from mpc.tensor_type import MAX_SIZE, Shape
from parties.members.cluster import Cluster, Member
from parties.messages.evidence import Signature, Vouched
from parties.messages.fields import Count, Id, Name
from parties.messages.uploads import TensorInfo, Upload, UploadBegin


class Descent(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a version was made of, by runs: how many ``parts`` of data they have drawn one after the other
    (``protocols.readings.drawing``), none for a model that is kept by a run that draws nothing: with it a chain begins;
    which clients it belongs to beside its owner (``joint``: ``Member.identity``); and
    if it does, the digest of the program that has ``made`` it.
    """

    parts: Count = 0
    joint: Annotated[tuple[str, ...], msgspec.Meta(max_length=1000)] = ()
    made: str = ""


UPLOADED = Descent()
"""Of what its owner has uploaded."""


class Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A version of a model, as it is sealed in its row: all that is known of it but secrets."""

    version: Id
    name: Name
    owner: str
    """Who the owner is (``Member.identity``)."""
    owner_name: str
    circle: str
    """``Cluster.circle``: shares and masks are of no use among other servers."""
    tensors: tuple[TensorInfo, ...]
    when: Annotated[float, msgspec.Meta(ge=0)]
    """Seconds since 1970, by the clock of who has written this."""
    description: bytes = b""
    masked: str = ""
    """At a party: SHA-256 of w - b, of all tensors in their order; empty until all of it is there."""
    signature: Signature = b""
    """At a party: the owner's, of that (``PartsSaid``); of what a run has left there is none."""
    descent: Descent = UPLOADED

    @property
    def vouched(self) -> Vouched:
        """What a party has, and who says so."""
        return Vouched(self.masked, self.signature)

    @property
    def shapes(self) -> dict[str, Shape]:
        """By tensor."""
        return {tensor.name: tensor.shape for tensor in self.tensors}


def tensor_infos(shapes: Mapping[str, Shape]) -> tuple[TensorInfo, ...]:
    """Shapes by tensor, as a record has them."""
    return tuple(TensorInfo(name, shape) for name, shape in shapes.items())


def upload_shapes(message: Upload | UploadBegin) -> dict[str, Shape]:
    """Shapes by tensor; ProgramError for names that repeat or sizes beyond what a process agrees to hold."""
    shapes = {tensor.name: tensor.shape for tensor in message.tensors}
    # Empty axes count as 1: a tensor without elements may have no absurd lengths either.
    if sum(prod(max(n, 1) for n in shape) for shape in shapes.values()) > MAX_SIZE:
        raise ProgramError("an upload with too many elements")
    if len(shapes) != len(message.tensors):
        raise ProgramError("an upload with two tensors of one name")
    return shapes


def owner_of(cluster: Cluster, record: Record) -> Member | None:
    """The member a version belongs to; None if the cluster file does not list it, or has other servers now.

    Such a version is kept, in case the file is put right, but nobody can use it, and its name is free.
    """
    owner = cluster.client_who_is(record.owner)
    return owner if record.circle == cluster.circle else None
