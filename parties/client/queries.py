"""What a client asks about models that lie on the parties: for one, which there are, and to remove one."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from math import prod
from typing import Any, NamedTuple

import msgspec

from mpc.errors import NoSuchName, NotPermitted, ProtocolViolation, UsageError
from mpc.tensor_type import MAX_SIZE, Shape
from parties.client.switchboard import Switchboard
from parties.cluster import Cluster
from parties.messages.stored import (
    AllowUse,
    FindSecret,
    FoundSecret,
    ListSecrets,
    RemoveSecret,
    SecretInfo,
    SecretList,
    SecretRemoved,
    UseAllowed,
)
from parties.messages.uploads import TensorInfo
from parties.stored.policy import EVERYONE, is_rule
from parties.wire.events import Delivery

_REPLACING = 2.0
"""s for which the parties may hold different versions of a model that is being replaced."""

_tensors = msgspec.msgpack.Decoder(tuple[TensorInfo, ...])


@dataclass(frozen=True)
class ModelEntry:
    """One version of a model, as the parties list it."""

    name: str
    owner: str
    """The client's name in the cluster file."""
    version: str
    """32 hexadecimal digits, another for every upload."""
    shapes: Mapping[str, Shape]
    """By tensor."""
    when: datetime
    """When its upload was complete, by the clock of the first party that lists it."""
    stored_bytes: int
    """On one party's disk."""
    held_by: tuple[str, ...]
    """Parties that have this version in use."""
    complete: bool
    """Whether all parties do; else runs of it are refused until its owner uploads it again."""
    allowed: Mapping[str, frozenset[str]]
    """Programs by client, that all these parties allow (``policy``); only what concerns us, if not ours."""

    @property
    def parameters(self) -> int:
        """Elements of all tensors."""
        return sum(map(prod, self.shapes.values()))

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "name": self.name,
            "owner": self.owner,
            "version": self.version,
            "uploaded": self.when.isoformat(timespec="seconds"),
            "parameters": self.parameters,
            "shapes": {name: list(shape) for name, shape in self.shapes.items()},
            "stored_bytes": self.stored_bytes,
            "held_by": list(self.held_by),
            "complete": self.complete,
            "allowed": {client: sorted(programs) for client, programs in sorted(self.allowed.items())},
        }


class Found(NamedTuple):
    """What the parties have under a name; an empty version says that there is nothing."""

    version: str
    owner: str
    description: bytes
    allowed: frozenset[str]
    """Rules by which this client may use it, if it is another's."""
    names: tuple[str, ...]
    """All that this client may know of."""


async def find_model(board: Switchboard, cluster: Cluster, name: str, patience: float) -> Found:
    """What is called so; of the rules, those that all parties know.

    Raises NotPermitted when there is none for us, and nobody is told whether it is not there or not allowed; UsageError
    when it is not the same at all parties; PeerError.
    """
    parties = [party.name for party in cluster.parties]
    give_up = time.monotonic() + _REPLACING
    while True:
        found = await _find(board, parties, name, patience)
        if all(answer[:3] == found[0][:3] for answer in found):
            break
        if time.monotonic() > give_up:
            raise UsageError(f"the parties hold different versions of {name!r}: its owner must upload it again")
        # One that was just started again may have yet to hear what the others know.
        await asyncio.sleep(_REPLACING / 20)
    first = found[0]
    if not first.version:
        known = f"it has {', '.join(first.names)}" if first.names else "it has none yet"
        remedy = "upload it, or have its owner allow it (tessera allow)"
        raise NotPermitted(f"{parties[0]} has nothing called {name!r} for us: {known}; {remedy}")
    return first._replace(allowed=frozenset.intersection(*(answer.allowed for answer in found)))


async def _find(board: Switchboard, parties: Sequence[str], name: str, patience: float) -> list[Found]:
    """At each party."""
    request = secrets.token_hex(16)
    with board.conversation(request, parties) as conversation:
        for party in parties:
            board.send(party, FindSecret(request=request, name=name))
        found = await conversation.take(FoundSecret, parties, patience)
    answers = []
    for party in parties:
        message, buffers = found[party].message, found[party].buffers
        if not isinstance(message, FoundSecret) or len(buffers) != 1:
            raise ProtocolViolation(party, "sent a model without its description")
        answers.append(Found(message.version, message.owner, bytes(buffers[0]), message.allowed, message.names))
    return answers


async def list_models(board: Switchboard, cluster: Cluster, patience: float) -> list[ModelEntry]:
    """What each party lists, by name and version.  Raises PeerError."""
    parties = [party.name for party in cluster.parties]
    request = secrets.token_hex(16)
    with board.conversation(request, parties) as conversation:
        for party in parties:
            board.send(party, ListSecrets(request=request))
        listed = await conversation.take(SecretList, parties, patience)
    found: dict[tuple[str, str], list[tuple[str, SecretInfo, dict[str, Shape]]]] = {}
    for party in parties:
        for info, shapes in _read(party, listed[party]):
            found.setdefault((info.name, info.version), []).append((party, info, shapes))
    entries = []
    for (name, version), seen in sorted(found.items()):
        _, info, shapes = seen[0]
        for party, other, also in seen:
            if (other.owner, also) != (info.owner, shapes):
                raise ProtocolViolation(party, f"lists {name!r} with another owner or other tensors than {seen[0][0]}")
        entries.append(
            ModelEntry(
                name=name,
                owner=info.owner,
                version=version,
                shapes=shapes,
                when=datetime.fromtimestamp(info.when, UTC),
                stored_bytes=max(other.stored_bytes for _, other, _ in seen),
                held_by=tuple(party for party, _, _ in seen),
                complete=len(seen) == len(parties),
                allowed=_common([other.allowed for _, other, _ in seen]),
            )
        )
    return entries


def _common(rules: Sequence[Mapping[str, frozenset[str]]]) -> dict[str, frozenset[str]]:
    """What all of them allow."""
    common = {client: frozenset.intersection(*(r.get(client, frozenset()) for r in rules)) for client in rules[0]}
    return {client: programs for client, programs in common.items() if programs}


def _read(party: str, delivery: Delivery) -> list[tuple[SecretInfo, dict[str, Shape]]]:
    """One party's list.  Raises ProtocolViolation."""
    message, buffers = delivery.message, delivery.buffers
    if not isinstance(message, SecretList) or len(buffers) != len(message.secrets):
        raise ProtocolViolation(party, "listed models without their tensors")
    if len({info.name for info in message.secrets}) != len(message.secrets):
        raise ProtocolViolation(party, "listed a model twice")
    return [(info, _shapes(party, buffer)) for info, buffer in zip(message.secrets, buffers, strict=True)]


def _shapes(party: str, buffer: memoryview) -> dict[str, Shape]:
    try:
        tensors = _tensors.decode(buffer)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise ProtocolViolation(party, "listed a model with tensors that make no sense") from None
    shapes = {tensor.name: tensor.shape for tensor in tensors}
    if len(shapes) != len(tensors) or sum(prod(max(n, 1) for n in shape) for shape in shapes.values()) > MAX_SIZE:
        raise ProtocolViolation(party, "listed a model with tensors that make no sense")
    return shapes


async def remove_model(board: Switchboard, cluster: Cluster, name: str, patience: float) -> None:
    """Remove a model of this client's everywhere.

    The coordinator first: from then on it is gone, and a party that is not reached drops it when it next asks.
    Raises NameTaken for another client's, NoSuchName if nobody has one of that name, PeerError.
    """
    parties = [party.name for party in cluster.parties]
    found = await _ask(board, [cluster.coordinator.name], name, patience)
    found |= await _ask(board, parties, name, patience)
    if not found:
        raise NoSuchName(f"nobody has anything called {name!r}: `tessera models` lists what there is")


async def allow_use(
    board: Switchboard, cluster: Cluster, name: str, client: str, programs: Sequence[str], patience: float
) -> None:
    """Tell every server what a client may run on a model of this client's.

    Raises UsageError for what is no rule, NoSuchName for a client or a model that is not there, NameTaken when it is
    another client's, PeerError; some servers may have been told by then: more is then refused than the owner wants,
    never less.
    """
    if client != EVERYONE and not any(client == member.name for member in cluster.clients):
        raise NoSuchName(f"the cluster file lists no client called {client!r}")
    for program in programs:
        if not is_rule(program):
            raise UsageError(f"{program!r} names no program: give predict, any, schema, or a program's digest")
    servers, request = [server.name for server in cluster.servers], secrets.token_hex(16)
    with board.conversation(request, servers) as conversation:
        for server in servers:
            board.send(server, AllowUse(request=request, name=name, client=client, programs=tuple(programs)))
        await conversation.take(UseAllowed, servers, patience)


async def _ask(board: Switchboard, servers: Sequence[str], name: str, patience: float) -> bool:
    """Whether any of them had it."""
    request = secrets.token_hex(16)
    with board.conversation(request, servers) as conversation:
        for server in servers:
            board.send(server, RemoveSecret(request=request, name=name))
        answers = await conversation.take(SecretRemoved, servers, patience)
    return any(isinstance(answer.message, SecretRemoved) and answer.message.found for answer in answers.values())
