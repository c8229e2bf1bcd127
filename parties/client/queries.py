"""What a client asks about models that lie on the parties: for one, which there are, and to remove one."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from math import prod
from typing import Any, NamedTuple

import msgspec

from mpc.errors import NoSuchName, NotPermitted, ProtocolViolation, UsageError, printable
from mpc.tensor_type import MAX_SIZE, Shape
from parties.client.switchboard import Switchboard
from parties.members.cluster import Cluster
from parties.messages.bindings import slot_of
from parties.messages.rules import Rule
from parties.messages.stored import (
    FindSecret,
    FoundDetails,
    FoundSecret,
    ListSecrets,
    RemoveSecret,
    SecretDetails,
    SecretInfo,
    SecretList,
    SecretRemoved,
)
from parties.wire.events import Delivery

_REPLACING = 2.0
"""s for which the parties may hold different versions of a model that is being replaced."""

_found = msgspec.msgpack.Decoder(FoundDetails)
_details = msgspec.msgpack.Decoder(SecretDetails)


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
    rules: tuple[Rule, ...]
    """Its owner's, that all these parties know; only those that concern us, if it is not ours."""
    others: Mapping[str, tuple[Rule, ...]]
    """Likewise of each to whom it belongs beside its owner, without whose leave nobody uses it."""
    unequal: bool
    """Whether some of these parties know others."""

    @property
    def slot(self) -> str:
        """``owner/name``."""
        return slot_of(self.owner, self.name)

    @property
    def allowed(self) -> Mapping[str, frozenset[str]]:
        """Programs by client (``policy``)."""
        clients = sorted({rule.client for rule in self.rules})
        return {client: frozenset(r.program for r in self.rules if r.client == client) for client in clients}

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
            "rules": [msgspec.to_builtins(rule) for rule in self.rules],
            "others": {other: [msgspec.to_builtins(rule) for rule in of] for other, of in self.others.items()},
        }


class Found(NamedTuple):
    """What the parties have under an owner's name."""

    owner: str
    version: str
    description: bytes
    allowed: Mapping[str, Rule]
    """Rules by which this client may use it, if it is another's, by identity."""
    parts: int
    """Of data, that have been drawn for it."""
    others: Mapping[str, Mapping[str, Rule]]
    """Likewise of each to whom it belongs beside its owner, as any party says."""
    made: str
    """The program that has made it, if it belongs to several."""


def sought(name: str) -> tuple[str, str]:
    """The owner, or nobody, and the name that ``owner/name`` or ``name`` says.  Raises UsageError."""
    if not isinstance(name, str):
        raise UsageError(f"what is stored has names: {type(name).__name__} is none")
    owner, slash, rest = name.rpartition("/")
    if slash and not owner:
        raise UsageError(f"{name!r} names nothing: write NAME or OWNER/NAME")
    return owner, rest


async def find_model(board: Switchboard, cluster: Cluster, client: str, name: str, patience: float) -> Found:
    """What is called so, as ``name`` or as ``owner/name``; of the rules, those that all parties know.

    A name alone is first of all this client's own; else that of whoever lets it use something of that name.

    Raises NotPermitted when there is none for us, and nobody is told whether it is not there or not allowed; UsageError
    when several owners have one, or it is not the same at all parties; PeerError.
    """
    parties, give_up = [party.name for party in cluster.parties], time.monotonic() + _REPLACING
    while True:
        answers, there, left = await _find(board, parties, name, patience)
        owners = {owner for at_one in answers for owner in at_one}
        owner = client if client in owners else min(owners, default="")
        found = [at_one.get(owner) for at_one in answers]
        if len({None if at_one is None else at_one[:3] for at_one in found}) == 1:
            break
        if time.monotonic() > give_up:
            raise UsageError(_unequal(name, owner, dict(zip(parties, found, strict=True))))
        # One that was just started again may have yet to hear what the others know.
        await asyncio.sleep(_REPLACING / 20)
    if owner != client and len(owners) > 1:
        which = " or ".join(slot_of(other, sought(name)[1]) for other in sorted(owners))
        raise UsageError(f"several owners have something called {name!r}: say which by writing {which}")
    known = [at_one for at_one in found if at_one is not None]
    if not known and left:
        raise NotPermitted(left_behind(left[0]))
    if not known:
        has = f"it has {', '.join(there)}" if there else "it has none yet"
        remedy = "upload it, or have its owner allow it (tessera allow)"
        raise NotPermitted(f"{parties[0]} has nothing called {name!r} for us: {has}; {remedy}")
    others = {other for at_one in known for other in at_one.others}
    return known[0]._replace(
        allowed=_common([at_one.allowed for at_one in known]),
        others={other: _common([at_one.others.get(other, {}) for at_one in known]) for other in others},
    )


def _common(rules: Sequence[Mapping[str, Rule]]) -> dict[str, Rule]:
    """By identity, those that all have."""
    return {identity: rules[0][identity] for identity in set.intersection(*map(set, rules))}


def _unequal(name: str, owner: str, found: Mapping[str, Found | None]) -> str:
    lacking = [party for party, at_one in found.items() if at_one is None]
    if lacking:
        return (
            f"{', '.join(lacking)} has no {name!r} for us, and other parties have: its owner {owner} must upload it"
            " again, which tells them all who may use it, too; or allow it again, if it was being allowed"
        )
    return f"the parties hold different versions of {name!r}: its owner {owner} must upload it again"


async def _find(
    board: Switchboard, parties: Sequence[str], name: str, patience: float
) -> tuple[list[dict[str, Found]], tuple[str, ...], list[str]]:
    """What each party has of that name, by owner; all that the first one has for us; and what of that name is left."""
    owner, name = sought(name)
    message = FindSecret(request=secrets.token_hex(16), name=name, owner=owner)
    answers = await board.ask(message, FoundSecret, parties, patience)
    found = []
    for party in parties:
        answer, buffers = answers[party].message, answers[party].buffers
        if not isinstance(answer, FoundSecret) or len(buffers) != len(answer.found):
            raise ProtocolViolation(party, "sent a secret without its description")
        try:
            details = [_found.decode(buffer) for buffer in buffers]
        except (msgspec.MsgspecError, UnicodeDecodeError):
            raise ProtocolViolation(party, "sent a secret with a description that makes no sense") from None
        found.append(
            {
                at_one.owner: Found(
                    at_one.owner,
                    at_one.version,
                    detail.description,
                    detail.allowed,
                    at_one.parts,
                    detail.others,
                    at_one.made,
                )
                for at_one, detail in zip(answer.found, details, strict=True)
            }
        )
    first = answers[parties[0]].message
    left = {slot for each in answers.values() if isinstance(each.message, FoundSecret) for slot in each.message.left}
    same = sorted(slot for slot in left if slot.partition("/")[2] == name and owner in ("", slot.partition("/")[0]))
    return found, first.there if isinstance(first, FoundSecret) else (), same


def left_behind(slot: str) -> str:
    """What has become of it, for people."""
    owner, _, name = slot.partition("/")
    return (
        f"{name!r} of {owner} was shared among other servers than there are now, and nobody can use it:"
        f" {owner} has to upload it again"
    )


async def list_models(board: Switchboard, cluster: Cluster, patience: float) -> tuple[list[ModelEntry], list[str]]:
    """What each party lists, by owner, name and version; and what is left of former servers.  Raises PeerError."""
    parties = [party.name for party in cluster.parties]
    listed = await board.ask(ListSecrets(request=secrets.token_hex(16)), SecretList, parties, patience)
    found: dict[tuple[str, str, str], list[_Listed]] = {}
    left = {slot for each in listed.values() if isinstance(each.message, SecretList) for slot in each.message.left}
    for party in parties:
        for one in _read(party, listed[party]):
            found.setdefault((one.info.name, one.info.owner, one.info.version), []).append(one)
    entries = []
    for (name, owner, version), seen in sorted(found.items()):
        _, info, shapes, _ = seen[0]
        for other in seen:
            if other.shapes != shapes:
                raise ProtocolViolation(other.party, f"lists {name!r} with other tensors than {seen[0].party}")
        owners = sorted({of for one in seen for of in one.rules})
        rules = {of: [set(one.rules.get(of, {}).items()) for one in seen] for of in owners}
        common = {of: set.intersection(*known) for of, known in rules.items()}
        entries.append(
            ModelEntry(
                name=name,
                owner=owner,
                version=version,
                shapes=shapes,
                when=datetime.fromtimestamp(info.when, UTC),
                stored_bytes=max(one.info.stored_bytes for one in seen),
                held_by=tuple(one.party for one in seen),
                complete=len(seen) == len(parties),
                rules=_sorted(common.pop(owner, set())),
                others={of: _sorted(theirs) for of, theirs in common.items()},
                unequal=any(known != rules[of][0] for of in owners for known in rules[of]),
            )
        )
    return entries, sorted(left - {entry.slot for entry in entries})


def _sorted(rules: Iterable[tuple[str, Rule]]) -> tuple[Rule, ...]:
    return tuple(rule for _, rule in sorted(rules, key=lambda of: (of[1].client, str(of[1]), of[0])))


class _Listed(NamedTuple):
    """By one party."""

    party: str
    info: SecretInfo
    shapes: dict[str, Shape]
    rules: dict[str, dict[str, Rule]]
    """By whose word they are, the owner's or another's to whom it belongs, and by identity."""


def _read(party: str, delivery: Delivery) -> list[_Listed]:
    """One party's list.  Raises ProtocolViolation."""
    message, buffers = delivery.message, delivery.buffers
    if not isinstance(message, SecretList) or len(buffers) != len(message.secrets):
        raise ProtocolViolation(party, "listed secrets without their tensors")
    if len({(info.owner, info.name) for info in message.secrets}) != len(message.secrets):
        raise ProtocolViolation(party, "listed a secret twice")
    return [_listed(party, info, buffer) for info, buffer in zip(message.secrets, buffers, strict=True)]


def _listed(party: str, info: SecretInfo, buffer: memoryview) -> _Listed:
    senseless = ProtocolViolation(party, "listed a secret with tensors that make no sense")
    try:
        details = _details.decode(buffer)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise senseless from None
    shapes = {tensor.name: tensor.shape for tensor in details.tensors}
    size = sum(prod(max(n, 1) for n in shape) for shape in shapes.values())
    if len(shapes) != len(details.tensors) or size > MAX_SIZE:
        raise senseless
    rules = {
        printable(owner): {identity: rule for of_client in grants.values() for identity, rule in of_client.items()}
        for owner, grants in {**details.others, info.owner: details.allowed}.items()
    }
    return _Listed(party, info, shapes, rules)


async def remove_model(board: Switchboard, cluster: Cluster, name: str, patience: float) -> None:
    """Remove a model of this client's everywhere.

    The coordinator first: from then on it is gone, and a party that is not reached drops it when it next asks.
    Raises NoSuchName if nobody has one of that name of ours, PeerError.
    """
    parties = [party.name for party in cluster.parties]
    found = await _ask(board, [cluster.coordinator.name], name, patience)
    found |= await _ask(board, parties, name, patience)
    if not found:
        raise NoSuchName(f"nobody has anything of yours called {name!r}: `tessera models` lists what there is")


async def _ask(board: Switchboard, servers: Sequence[str], name: str, patience: float) -> bool:
    """Whether any of them had it."""
    message = RemoveSecret(request=secrets.token_hex(16), name=name)
    answers = await board.ask(message, SecretRemoved, servers, patience)
    return any(isinstance(answer.message, SecretRemoved) and answer.message.found for answer in answers.values())
