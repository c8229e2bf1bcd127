"""What an owner says about who may use its secrets: asked of all servers, changed, signed, and told to all of them."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Iterable, Sequence

from msgspec.structs import replace

from mpc.errors import NoSuchName, ProgramError, ProtocolViolation, UsageError
from parties.client.switchboard import Switchboard
from parties.members.cluster import Cluster, Member
from parties.members.keys import KeyPair
from parties.messages.rules import (
    EVERYONE,
    MOST_RULES,
    AllowUse,
    AskRules,
    Rule,
    RuleSet,
    RulesHeld,
    UseAllowed,
    replaced,
)
from parties.stored.policy import is_rule
from parties.stored.rule_tables import SignedRules
from parties.stored.rules import is_signed, newest, signed

_TRIES = 3
"""When another process of the same owner changes the same rules at the same moment."""

Change = Callable[[Sequence[Rule], int], Iterable[Rule]]
"""Rules to the rules that take their place, in the set of that number."""


class OwnRules:
    """The rules of one client; ``board`` has its connections.

    Args:
        patience: s that the servers may be silent for.
    """

    def __init__(self, board: Switchboard, cluster: Cluster, member: Member, keys: KeyPair, patience: float) -> None:
        self._board = board
        self._cluster = cluster
        self._member = member
        self._keys = keys
        self._patience = patience
        self._servers = [server.name for server in cluster.servers]
        self._changing = asyncio.Lock()

    async def of(self, name: str) -> tuple[Rule, ...]:
        """The newest of what is called so.  Raises PeerError."""
        held = _latest(self._cluster, list((await self._ask(name)).values()))
        return () if held is None else held.rules.rules

    async def allow(self, name: str, client: str, rules: Sequence[Rule]) -> None:
        """``client`` may do this, and nothing else, from now on; ``given`` of the rules is not looked at.

        Raises UsageError for what is no rule, NoSuchName for a client that is not there, ProgramError for too many,
        PeerError; some servers may have been told by then, and tell the others.
        """
        clients = {member.name for member in self._cluster.clients} | {EVERYONE}
        if client not in clients:
            raise NoSuchName(f"the cluster file lists no client called {client!r}")
        for rule in rules:
            if not is_rule(rule.program):
                raise UsageError(f"{rule.program!r} names no program: give predict, any, schema, or a program's digest")

        def change(former: Sequence[Rule], number: int) -> Iterable[Rule]:
            given = (replace(r, client=client, given=number) for r in rules)
            return replaced((rule for rule in former if rule.client in clients), client, given)

        await self._change(name, change)

    async def add(self, name: str, rule: Rule) -> None:
        """Its client may run its program, too, and so often; what else is allowed stays as it is.

        If it may already, just so often, it goes on counting; ``given`` of the rule is not looked at.
        """

        def change(former: Sequence[Rule], number: int) -> Iterable[Rule]:
            if any(replace(there, given=rule.given) == rule for there in former):
                return former
            others = (there for there in former if (there.client, there.program) != (rule.client, rule.program))
            return *others, replace(rule, given=number)

        await self._change(name, change)

    async def take_back(self, name: str, client: str, program: str) -> None:
        """``client`` may not run ``program``, if a rule of its own says that it may; the rest stays."""
        what = client, program
        if any((rule.client, rule.program) == what for rule in await self.of(name)):
            await self._change(name, lambda former, _: (r for r in former if (r.client, r.program) != what))

    async def clear(self, name: str) -> None:
        """Nobody may do anything with it any more.  Raises PeerError."""
        if any(held is not None and held.rules.rules for held in (await self._ask(name)).values()):
            await self._change(name, lambda _, __: ())

    async def spread(self, name: str) -> None:
        """To servers that lack the newest rules, or have them by a key that is ours no longer.  Raises PeerError."""
        answers = await self._ask(name)
        latest = _latest(self._cluster, list(answers.values()))
        if latest is not None and not is_signed(self._cluster, latest):
            await self._change(name, lambda former, _: former)
        elif latest is not None:
            await self._tell(latest, [server for server, held in answers.items() if held != latest])

    async def _change(self, name: str, change: Change) -> None:
        async with self._changing:
            await self._change_alone(name, change)

    async def _change_alone(self, name: str, change: Change) -> None:
        for _ in range(_TRIES):
            latest = _latest(self._cluster, list((await self._ask(name)).values()))
            former, number = ((), 1) if latest is None else (latest.rules.rules, latest.rules.number + 1)
            rules = tuple(change(former, number))
            if len(rules) > MOST_RULES:
                raise ProgramError(
                    f"there are {MOST_RULES} rules of {name!r} already: allow '*' instead of each client"
                )
            new = signed(self._keys, self._cluster, self._member, RuleSet(self._member.name, name, number, rules))
            if await self._tell(new, self._servers):
                return
        raise ProgramError(f"the rules of {name!r} are changed by another process all the time: try again")

    async def _ask(self, name: str) -> dict[str, SignedRules | None]:
        """What each server has."""
        message = AskRules(request=secrets.token_hex(16), name=name)
        answers = await self._board.ask(message, RulesHeld, self._servers, self._patience)
        held: dict[str, SignedRules | None] = dict.fromkeys(self._servers)
        for server, answer in answers.items():
            if not answer.buffers:
                continue
            try:
                encoded, signature = map(bytes, answer.buffers)
                rules = RuleSet.decode(encoded)
            except (ValueError, ProgramError):
                raise ProtocolViolation(server, "sent rules that make no sense") from None
            if (rules.owner, rules.name) != (self._member.name, name):
                raise ProtocolViolation(server, "sent other rules than it was asked for")
            held[server] = SignedRules(self._member.identity, rules, encoded, signature)
        return held

    async def _tell(self, new: SignedRules, servers: Sequence[str]) -> bool:
        """Whether these are the rules there now; False if they were changed meanwhile."""
        message = AllowUse(request=secrets.token_hex(16))
        answers = await self._board.ask(message, UseAllowed, servers, self._patience, new.payload)
        messages = [answer.message for answer in answers.values()]
        return all(isinstance(said, UseAllowed) and said.rules == new.digest for said in messages)


def _latest(cluster: Cluster, held: Sequence[SignedRules | None]) -> SignedRules | None:
    """The newest that we have signed.

    When there is none that was signed by the key that we have now, what all servers have alike: one of them is honest.
    """
    ours = newest(found for found in held if found is not None and is_signed(cluster, found))
    if ours is not None:
        return ours
    return held[0] if len({None if found is None else found.encoded for found in held}) == 1 else None
