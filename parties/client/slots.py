"""What a client knows of the secrets that its programs read: which version each stands for, and what it may do."""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from mpc.errors import UsageError
from mpc.operation import Stored
from mpc.program import Program
from parties.client.remote_data import RemoteData
from parties.client.remote_model import RemoteModel
from parties.messages.bindings import OWNER, Binding, BoundProgram, Leave
from parties.messages.rules import Rule
from parties.stored.joint import is_gone
from parties.stored.policy import ANY, PREDICT
from protocols.trace.mathematics import Node, Secret


@dataclass(frozen=True)
class _Known:
    owner: str
    version: str
    allowed: Mapping[str, Rule]
    """Rules by which this client may use it, if it is another's, by identity."""
    parts: int
    others: Mapping[str, Mapping[str, Rule]]
    """Likewise by whom else it belongs to."""
    made: str
    """The program that has made it, if that is known."""


_NONE = "0" * 64
"""By no rule that we know of: a server says why not."""


class Slots:
    """Binds the programs of one client.

    A leaf stands for the version that it was found or uploaded as, and for no later one; a leaf that was written by
    hand, for the latest that this client has found.
    """

    def __init__(self, client: str) -> None:
        self._client = client
        self._known: dict[str, _Known] = {}
        self._used_up: set[str] = set()
        """Rules, by identity, of which there was no run left."""
        self._versions: weakref.WeakKeyDictionary[Node, str] = weakref.WeakKeyDictionary()

    def note(
        self,
        secret: RemoteModel | RemoteData,
        allowed: Mapping[str, Rule] | None = None,
        others: Mapping[str, Mapping[str, Rule]] | None = None,
        made: str = "",
    ) -> None:
        """It is in use, and may be used so, as its owner says, and each other whose it is."""
        rules, joint = allowed or {}, {owner: {} for owner in secret.joint} if others is None else others
        self._known[secret.slot] = _Known(secret.owner, secret.version, rules, secret.parts, joint, made)
        self._used_up.difference_update(rules, *joint.values())
        for leaf in secret.leaves:
            self._versions[leaf.node] = secret.version

    def renew(self, secret: RemoteModel | RemoteData, version: str) -> None:
        """The leaves of ``secret`` stand for that version of it from now on: what was written of them is as good."""
        for leaf in secret.leaves:
            self._versions[leaf.node] = version

    def bind(self, program: Program, leaves: Iterable[Node], keep: str = "") -> BoundProgram:
        """``program``, whose ``leaves`` say which versions it was written for, and its result to be kept under a name.

        Raises UsageError for a secret that this client has not asked for, and for two versions of one.
        """
        versions: dict[str, str] = {}
        for leaf in leaves:
            if isinstance(leaf.operation, Secret) and isinstance(leaf.operation.source, Stored):
                slot = leaf.operation.source.slot
                if slot not in self._known:
                    raise UsageError(
                        f"this client does not know {slot!r}: ask for it with client.model(name) or client.data(name)"
                    )
                version = self._versions.get(leaf, self._known[slot].version)
                if versions.setdefault(slot, version) != version:
                    raise UsageError(f"a program reads one version of {slot!r}, not two: ask for it again")
        return self._bound(program, versions, keep)

    def bind_latest(self, program: Program, keep: str = "") -> BoundProgram:
        """Likewise, to the latest versions that this client has found."""
        return self._bound(program, {slot: self._known[slot].version for slot in program.slots}, keep)

    def _bound(self, program: Program, versions: Mapping[str, str], keep: str) -> BoundProgram:
        rules = {slot: self._rule(slot, program) for slot in program.slots}
        bindings = tuple(
            Binding(s, versions[s], rules[s], tuple(self._leave(s, program, rules))) for s in program.slots
        )
        return BoundProgram(program, bindings, self._client, keep)

    def _leave(self, slot: str, program: Program, rules: Mapping[str, str]) -> Iterator[Leave]:
        """Of all to whom it belongs beside its owner and us: by what they allow on it, or on what else is theirs.

        Of who is no client any more there is none: a server says so.
        """
        yield from self._of_each(self._known[slot].others, program, rules)

    def leave_after(self, program: Program, slot: str) -> tuple[Leave, ...]:
        """Of those to whom what it keeps belongs, for a run of it on that, in the place of what is in the slot."""
        rules, known = {s: self._rule(s, program) for s in program.slots}, self._known[slot].others
        return tuple(self._of_each({o: known.get(o, {}) for o in self.joint_after(program)}, program, rules))

    def _of_each(
        self, owners: Mapping[str, Mapping[str, Rule]], program: Program, rules: Mapping[str, str]
    ) -> Iterator[Leave]:
        for owner, allowed in sorted(owners.items()):
            if owner == self._client or is_gone(owner):
                continue
            agreed = [
                rules[s] for s in program.slots if self._known[s].owner == owner and self._is_for(s, rules[s], program)
            ]
            best = agreed[0] if agreed else self._best(allowed, program)
            yield Leave(owner, self._elsewhere(owner, program) if best == _NONE else best)

    def _elsewhere(self, owner: str, program: Program) -> str:
        """By which that joint owner allows the very program on what it reads and is theirs as well."""
        found = (self._best(self._known[slot].others.get(owner, {}), program, only=True) for slot in program.slots)
        return next((rule for rule in found if rule != _NONE), _NONE)

    def _is_for(self, slot: str, rule: str, program: Program) -> bool:
        """Whether it is one for that very program."""
        found = self._known[slot].allowed.get(rule)
        return found is not None and found.program == program.digest

    def made(self, slot: str) -> str | None:
        """Which program has made what is there, of what belongs to several."""
        return self._known[slot].made or None

    def is_joint(self, slot: str) -> bool:
        """Whether it belongs to others as well, as far as is known."""
        return bool(self._known[slot].others)

    def parts_after(self, program: Program) -> int:
        """Parts of data that have been drawn for what it keeps, once it has (``parties.stored.policy.descent``)."""
        if program.keeping.description and not program.drawn:
            return 0
        return max((self._known[slot].parts for slot in program.slots), default=0) + bool(program.drawn)

    def joint_after(self, program: Program) -> tuple[str, ...]:
        """To whom else belongs what it keeps."""
        if not program.keeping.joint:
            return ()
        known = [self._known[slot] for slot in program.slots]
        return tuple(sorted({name for each in known for name in (each.owner, *each.others)} - {self._client}))

    def use_up(self, bound: BoundProgram) -> None:
        """There is no run left of one of its rules: others come first, if there are any, until we are told anew."""
        self._used_up.update(rule for b in bound.bindings for rule in (b.rule, *(leave.rule for leave in b.others)))

    def _rule(self, slot: str, program: Program) -> str:
        """Of those that this client has, the best."""
        known = self._known[slot]
        return OWNER if known.owner == self._client else self._best(known.allowed, program)

    def _best(self, allowed: Mapping[str, Rule], program: Program, *, only: bool = False) -> str:
        """One that is not used up, is not counted, and says most plainly that this client may; ``only`` for itself."""
        plainly = (program.digest,) if only else (ANY, program.digest, PREDICT)
        fitting = [
            (identity in self._used_up, rule.limited, plainly.index(rule.program), identity)
            for identity, rule in allowed.items()
            if rule.program in plainly
        ]
        return min(fitting)[-1] if fitting else _NONE
