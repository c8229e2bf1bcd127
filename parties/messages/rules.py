"""What an owner allows with a secret of its own: rules, the numbered set of them, and the messages that carry it.

client --AskRules--> dealer and parties; each --RulesHeld--> client
client --AllowUse--> dealer and parties; each --UseAllowed--> client
server --RulesKnown--> servers           which sets it has; each answers with
server --NewerRules--> server            what it has of a higher number; also unasked, when an owner has just told it

A set is all that an owner allows on one name.  The owner's client makes it, numbers it one higher than any that a
server has, and signs it; so a server takes it from whoever brings it, and a former one from nobody
(`parties.stored.rules`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, ClassVar, NamedTuple

import msgspec

from mpc.decoders import from_msgpack
from mpc.errors import ProgramError
from parties.members.cluster import Role
from parties.messages.conversation import WRITTEN, RequestMessage
from parties.messages.fields import FROM_CLIENT, Digest, Name, Ruled
from parties.wire.messages import SERVERS, Message

EVERYONE = "*"
"""Instead of a client's name: every client of the cluster file."""

MOST_RULES = 1000
"""In one set."""

MAX_BYTES = 1 << 20
"""Of an encoded set."""

Who = Annotated[str, msgspec.Meta(pattern=r"^(\*|[A-Za-z0-9][A-Za-z0-9_.-]{0,63})\Z")]
Programs = Annotated[str, msgspec.Meta(pattern=r"^(predict|any|schema|[0-9a-f]{64})\Z")]
"""A word or a digest (`parties.stored.policy.is_rule`)."""
Number = Annotated[int, msgspec.Meta(ge=1, le=1 << 53)]


class Rule(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """``client`` may run ``program`` on a secret, and so often.

    ``given`` is the number of the set that it came with, and each limit begins with it: a rule that is given again is
    another one.  ``runs`` in all, and ``per_day`` of UTC, are of all clients that it names together, ``per_client`` of
    each of them.  ``made``: of what belongs to several, the program that has made what it is a rule for.
    """

    client: Who
    program: Programs
    given: Number
    runs: Number | None = None
    per_day: Number | None = None
    per_client: Number | None = None
    made: Digest | None = None

    @property
    def limited(self) -> bool:
        """Whether its runs are counted."""
        return any(limit is not None for limit in (self.runs, self.per_day, self.per_client))

    @property
    def limits(self) -> str:
        """In words; empty if there are none."""
        limits = ((self.runs, "in all"), (self.per_day, "a day"), (self.per_client, "for each client"))
        return ", ".join(f"{limit} run{'s' * (limit != 1)} {what}" for limit, what in limits if limit is not None)

    def __str__(self) -> str:
        return f"{self.program}, {self.limits}" if self.limited else self.program


class RuleSet(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All that the member ``owner`` allows on what it calls ``name``; without rules, nothing."""

    owner: Name
    name: Ruled
    number: Number
    rules: Annotated[tuple[Rule, ...], msgspec.Meta(max_length=MOST_RULES)] = ()

    def identity(self, rule: Rule) -> str:
        """Of one of these rules, in 64 hexadecimal digits: members that compare it compare all the rule says."""
        # Neither a name nor JSON holds a line break.
        parts = ("tessera", "rule", self.owner, self.name, msgspec.json.encode(rule).decode())
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()

    def by_client(self) -> dict[str, dict[str, Rule]]:
        """The rules by the client that they name, and their identity."""
        found: dict[str, dict[str, Rule]] = {}
        for rule in self.rules:
            found.setdefault(rule.client, {})[self.identity(rule)] = rule
        return found

    def encode(self) -> bytes:
        """For its owner to sign; ``decode`` reads it."""
        return msgspec.msgpack.encode(self)

    @classmethod
    def decode(cls, data: bytes | memoryview) -> RuleSet:
        """Raises ProgramError."""
        if len(data) > MAX_BYTES:
            raise ProgramError(f"rules of {len(data)} bytes; the limit is {MAX_BYTES}")
        rules: RuleSet = from_msgpack(data, cls, "these are no rules")
        return rules


Grants = Mapping[str, Mapping[str, Rule]]
"""Rules by client and identity."""


def replaced(rules: Iterable[Rule], client: str, by: Iterable[Rule]) -> tuple[Rule, ...]:
    """``rules`` with those of ``client`` replaced; by none, and it may do nothing any more."""
    return *(rule for rule in rules if rule.client != client), *by


class AskRules(RequestMessage, frozen=True):
    """Which rules of mine are there on ``name``?"""

    senders: ClassVar[frozenset[Role]] = FROM_CLIENT
    name: Ruled


class RulesHeld(RequestMessage, frozen=True):
    """Payload: the encoded set and its owner's signature, or nothing."""

    senders: ClassVar[frozenset[Role]] = SERVERS


class AllowUse(RequestMessage, frozen=True):
    """From now on these are the rules.  Payload: the encoded set, which is the sender's, and its signature."""

    senders: ClassVar[frozenset[Role]] = FROM_CLIENT
    weight: ClassVar[int] = WRITTEN


class UseAllowed(RequestMessage, frozen=True):
    """Durably in force: the set with this SHA-256, which is what was sent, or one that is newer."""

    senders: ClassVar[frozenset[Role]] = SERVERS
    rules: Digest


class Known(NamedTuple):
    """Of a set, what tells whether another is newer; ``owner`` is ``Member.identity``."""

    owner: str
    name: Ruled
    number: Number
    digest: Digest


Sets = Annotated[tuple[Known, ...], msgspec.Meta(max_length=1_000_000)]


def known_in(data: bytes | memoryview) -> Sequence[Known]:
    """The payload of ``RulesKnown``.  Raises ProgramError."""
    known: Sequence[Known] = from_msgpack(data, Sets, "these are not what rules are known by")
    return known


class RulesKnown(Message, frozen=True):
    """Payload: which sets the sender has, a MessagePack array of ``Known``."""

    senders: ClassVar[frozenset[Role]] = SERVERS


class NewerRules(Message, frozen=True):
    """Payload: encoded sets, each before its owner's signature."""

    senders: ClassVar[frozenset[Role]] = SERVERS
