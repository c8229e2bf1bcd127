"""Who may use a stored secret, and in which programs: said by its owner, enforced by every server by itself.

Whoever uploads a model or a data set owns it.  Nobody else may run anything on it until the owner allows it
(``client.allow``, ``tessera allow``), and what is allowed is a client and programs:

* ``"predict"``, of a model: the model as its owner described it, on one input, with nothing but its result revealed.  A
  server builds that program itself, from the description that it was given with the upload, and compares.  So a client
  cannot have weights revealed, or layers left out.  The input is the client's own, or a tensor of a data set, whose
  owner has a say of its own.
* a program's digest (64 hexadecimal digits, ``client.digest``): that one program, which the owner has looked at.
* ``"any"``: every program.  Whoever has this can have the weights, or the data, revealed.
* ``"schema"``: none.  Whoever has this knows that the secret is there, and its public description, as who may run
  something does; it can write programs on it, and ask for leave to run them (`parties.messages.requests`).

A rule may say how often, too: runs in all, per day, per client (`parties.stored.gate` says when a run counts).

The result of a program is revealed to the client who runs it, and to nobody else; or it is kept (``client.keep``), as a
data set of that client's, which is its own to reveal and to allow.  So to allow a program is to allow its result to be
revealed to that client.  A program that uses several secrets needs the leave of all their owners.

*Joint owners.*  What a program keeps *jointly*, as it says itself, belongs to all whose secrets it reads, and to those
to whom these belong jointly.  It lies under a name of the client's who had it computed, who allows it like anything of
its own; and nobody uses it, this client included, without the leave of each of the others: by a rule of theirs on
``owner/name``, or by one for the very program, on something else that it reads and that is theirs, alone or jointly.
By which, a run says as well.
Since another puts things under that name, a rule of theirs on it is for what one program has made, which was there when
they gave it, and if it is a rule for a program, for what that makes of it in its place, as a training does: not for
what another program, which they let keep something jointly, would put there.

By whatever rule, none runs on another's secret that leaves open whether the client's inputs lie in their ranges, or
that gives results whether values are where it takes them to be or not (`protocols.lowering.in_range`, `.intervals`).

*What a digest fixes.*  The operations, constants and types; and of each slot, whose secret it is and what it is called
(`parties.messages.bindings`).  It does not fix versions: a rule outlasts uploads in the secret's place, as long as they
have the types that the program says.  So of its own secret an owner allows this program on all that it will upload
under the name; and of the others' it must reckon with any values that these owners put there, as it does with the
client's inputs.  Nobody else can put anything there.

*When it is checked.*  The client says which version it means in each slot, and by which very rule it may use it, limits
included; what is not in use under that very owner and name is refused, and so is a rule that is not given, or does not
cover the program.  Each party checks so when the program comes, and again in the look-up whose tensors it takes; the
dealer likewise in the look-up whose masks it deals for; and all of them whenever a rule or a version changes, for every
run that has not ended.  One honest party is enough for nothing to be revealed that its rules forbid, since without its
share nobody learns anything.
"""

from __future__ import annotations

import contextlib
import functools
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, NamedTuple, TypeVar

import msgspec

from mpc.errors import NotPermitted, ProgramError, ProtocolViolation, TesseraError
from mpc.objective import Objective
from mpc.operation import Input, Stored
from mpc.program import Program
from nn.model import Description
from nn.stored import StoredType
from parties.members.cluster import Cluster
from parties.messages.bindings import OWNER, Binding, BoundProgram, slot_of
from parties.messages.rules import EVERYONE, Grants, Rule
from parties.stored.data_set import DataDescription, is_data
from parties.stored.joint import without_leave
from parties.stored.record import UPLOADED, Descent
from protocols.lowering.in_range import to_check
from protocols.lowering.plan import plan
from protocols.readings.drawing import Order
from protocols.trace.secret_tensor import graph_of, leaf

PREDICT = "predict"
ANY = "any"
SCHEMA = "schema"

_DIGEST = re.compile(r"[0-9a-f]{64}\Z")

# As many as are kept decoded, which takes some ten times their bytes.
_DESCRIPTIONS = 32

Held = TypeVar("Held")


def is_rule(program: str) -> bool:
    """Whether it is what an owner can give: ``"predict"``, ``"any"``, ``"schema"``, or a digest."""
    return program in (PREDICT, ANY, SCHEMA) or _DIGEST.match(program) is not None


@dataclass(frozen=True)
class Policy:
    """What a server knows of who may use a secret; ``grants`` are rules by client and identity."""

    name: str
    owner: str
    version: str
    description: bytes
    """Of the model or data set, as its owner gave it."""
    grants: Grants = field(default_factory=dict)
    descent: Descent = UPLOADED
    """What it was made of, by runs."""
    others: Mapping[str, Grants] = field(default_factory=dict)
    """What its joint owners allow beside the owner, by their names."""

    @property
    def slot(self) -> str:
        """Where programs read it."""
        return slot_of(self.owner, self.name)

    def of(self, client: str, other: str | None = None) -> Mapping[str, Rule]:
        """By which rules of its owner's, or of that joint owner's, ``client`` may use it; not what it may as owner."""
        grants = self.grants if other is None else self.others[other]
        return {**grants.get(EVERYONE, {}), **grants.get(client, {})}

    def sees(self, client: str) -> bool:
        """Whether ``client`` may know that the secret is there, and its public description."""
        return client == self.owner or client in self.others or bool(self.of(client))

    def check_rule(self, client: str, rule: str) -> Rule | None:
        """The rule by which ``client`` uses it; None for its owner's.  Raises NotPermitted if there is no such rule."""
        if rule == OWNER and client == self.owner:
            return None
        found = self.of(client).get(rule)
        if found is None:
            raise self._refused(client)
        return found

    def check(self, program: Program, client: str, rule: str) -> Rule | None:
        """As ``check_rule``; and the rule covers ``program``.  Raises ProgramError for other types."""
        found = self.check_rule(client, rule)
        if found is not None and not self.covers(found.program, program):
            raise self._refused(client)
        if found is not None:
            self.check_range(program, client, found)
        tensors = _tensors(self.description)
        for operation in (node.operation for node in program.nodes):
            if isinstance(operation, Stored) and operation.slot == self.slot:
                described = tensors.get(operation.tensor)
                if described is None or described.leaf(self.slot, operation.tensor) != whole(operation):
                    raise ProgramError(
                        f"the program reads {operation.tensor!r} of {self.name!r} as another than it is: ask for"
                        f" {self.name!r} again, and write the program anew"
                    )
        return found

    def check_range(self, program: Program, client: str, rule: Rule) -> None:
        """Who may predict may do so of inputs in the range that the model says.  Raises NotPermitted.

        What is out of it may tell of weights, by periodic activations, what no prediction is to tell.
        """
        if rule.program == PREDICT:
            low, high = _bounds(self.description)
            if not all(low <= operation.low and operation.high <= high for operation in _inputs(program, self.slot)):
                raise NotPermitted(
                    f"{client} may have {self.name!r} predict for inputs in [{low:g}, {high:g}]: share them with that"
                    " range, or have its owner say another (Interface(input=...), or tessera upload --range)"
                )

    def covers(self, allowed: str, program: Program) -> bool:
        """Whether a rule for that is one for this program."""
        if allowed == PREDICT:
            return predicts(program, self.slot, self.description)
        return allowed in (ANY, program.digest)

    def _refused(self, client: str) -> NotPermitted:
        allowed = {rule.program for rule in self.of(client).values()}
        if PREDICT in allowed:
            what = f"only have {self.name!r} predict, and this program does more or other than that"
        else:
            what, how = ("run this program on", "request") if allowed else ("use", "allow")
            what = f"not {what} {self.name!r}: its owner {self.owner} has to allow it (tessera {how})"
        return NotPermitted(f"{client} may {what}")


def not_in_use() -> ProgramError:
    """The error of a version that was removed or replaced, or never came into use."""
    return ProgramError(
        "a stored model or data set of this program is not in use here: ask for it again with client.model(name) or"
        " client.data(name), or upload it again"
    )


class InUse(NamedTuple, Generic[Held]):
    """One look-up of what a slot stands for now: who may use it, and what this server holds of it."""

    policy: Policy
    held: Held


LookUp = Callable[[str], InUse[Held] | None]
"""What is in use under the owner and the name that a slot says: one version, with the rules of that moment."""


def found(bindings: Iterable[Binding], look_up: LookUp[Held]) -> dict[str, InUse[Held]]:
    """By slot, what is bound to it.  Raises ProgramError for a version that is not in use here under that slot.

    That is refused, not passed over: a version that is being uploaded may be in use, under rules that nobody looked
    at, by the time its tensors are loaded.
    """
    by_slot = {}
    for binding in bindings:
        in_use = look_up(binding.slot)
        if in_use is None or (in_use.policy.slot, in_use.policy.version) != (binding.slot, binding.version):
            raise not_in_use()
        by_slot[binding.slot] = in_use
    return by_slot


def order_of(bound: BoundProgram, by_slot: Mapping[str, InUse[Held]]) -> Order:
    """In which its rows are drawn: the next part of the data, after those that were drawn for what it reads."""
    versions = {binding.slot: binding.version for binding in bound.bindings if binding.slot in bound.program.drawn}
    return Order(versions, max((in_use.policy.descent.parts for in_use in by_slot.values()), default=0))


def descent(bound: BoundProgram, cluster: Cluster, look_up: LookUp[Held]) -> Descent:
    """Of what it keeps.  Raises ProgramError where what it reads is gone."""
    by_slot = found(bound.bindings, look_up)
    drawn, model = bool(bound.program.drawn), bool(bound.program.keeping.description)
    parts = 0 if model and not drawn else order_of(bound, by_slot).part + drawn
    if not bound.program.keeping.joint:
        return Descent(parts)
    names = {name for in_use in by_slot.values() for name in (in_use.policy.owner, *in_use.policy.others)}
    owners = [(cluster.client(name), name) for name in sorted(names - {bound.client})]
    # Who is no client any more has no name, but for its identity.
    joint = tuple(name if owner is None else owner.identity for owner, name in owners)
    return Descent(parts, joint, bound.program.digest if joint else "")


class Use(NamedTuple):
    """Of a limited rule, whose identity is ``rule``, by ``client`` on what is in ``slot``."""

    slot: str
    client: str
    rule: str
    limits: Rule


class Permit(NamedTuple, Generic[Held]):
    """What a client's run may use: by slot, what a server holds of it; which limited rules it uses up."""

    held: Mapping[str, Held]
    uses: Sequence[Use]
    order: Order
    """In which rows are drawn."""


def check(bound: BoundProgram, client: str, look_up: LookUp[Held]) -> Permit[Held]:
    """All that ``client`` has bound may be used in the program, and what is held of it is of the look-up that said so.

    Raises ProtocolViolation for bindings that do not go with the program, ProgramError for a version that is not in use
    or has other types, NotPermitted, also where it is left open whether what meets another's secret is in its range, or
    results are given whether values are where they are taken to be or not.
    """
    if tuple(binding.slot for binding in bound.bindings) != bound.program.slots:
        raise ProtocolViolation(client, "bound other slots than the program has")
    by_slot = found(bound.bindings, look_up)
    uses = []
    for binding in bound.bindings:
        limits = by_slot[binding.slot].policy.check(bound.program, client, binding.rule)
        if limits is not None and limits.limited:
            uses.append(Use(binding.slot, client, binding.rule, limits))
    policies = {slot: in_use.policy for slot, in_use in by_slot.items()}
    uses += _joint_uses(bound, client, policies)
    if any(policy.owner != client or policy.others for policy in policies.values()):
        _check_checked(bound.program, client, policies)
        _check_gated(bound, client)
    return Permit({slot: in_use.held for slot, in_use in by_slot.items()}, uses, order_of(bound, by_slot))


def _joint_uses(bound: BoundProgram, client: str, policies: Mapping[str, Policy]) -> list[Use]:
    """Each of its joint owners lets ``client`` use what is bound, by the rule that is; which limited ones it uses up.

    Either by a rule on it; or by one for this very program, on something of its own that the program reads: it has
    looked at all that the program reads.

    Raises NotPermitted; ProtocolViolation for leave of whom it does not belong to.
    """
    program, uses, agreed = bound.program, list[Use](), set[tuple[str, str]]()
    for binding in bound.bindings:
        own = policies[binding.slot].of(client).get(binding.rule)
        if own is not None and own.program == program.digest:
            agreed.add((policies[binding.slot].owner, binding.rule))
        for owner, identity in binding.others:
            joint = policies[binding.slot]
            theirs = joint.of(client, owner).get(identity) if owner in joint.others else None
            if theirs is not None and theirs.program == program.digest:
                agreed.add((owner, identity))
    for binding in bound.bindings:
        policy, given = policies[binding.slot], dict(binding.others)
        owners = sorted(policy.others.keys() - {client})
        for owner in owners:
            identity = given.get(owner, "")
            rule = policy.of(client, owner).get(identity)
            if rule is None and (owner, identity) in agreed:
                continue
            if rule is None or not policy.covers(rule.program, program):
                raise NotPermitted(without_leave(client, policy.slot, owner))
            policy.check_range(program, client, rule)
            if rule.limited:
                uses.append(Use(policy.slot, client, identity, rule))
        if [leave.owner for leave in binding.others] != owners:
            raise ProtocolViolation(client, "bound leave of others than whom it belongs to")
    return uses


def _check_checked(program: Program, client: str, policies: Mapping[str, Policy]) -> None:
    sources = {i: n.operation for i, n in enumerate(program.nodes) if isinstance(n.operation, Input | Stored)}
    weights = {slot for slot, policy in policies.items() if not _is_data(policy.description)}
    needed = to_check([(o, isinstance(o, Stored) and o.slot in weights) for o in sources.values()])
    if any(needs and i not in program.checked for i, needs in zip(sources, needed, strict=True)):
        raise NotPermitted(
            f"{client} may not run a program in which nobody checks whether what meets another's secret lies in its"
            " range: write it anew with this release"
        )


def _check_gated(bound: BoundProgram, client: str) -> None:
    if not bound.gated:
        raise NotPermitted(
            f"{client} may not run a program on another's secret whose results are given whether values are where it"
            " takes them to be or not: write it anew with this release"
        )


def check_still(bound: BoundProgram, client: str, look_up: LookUp[Held]) -> None:
    """What was checked once still holds: the same versions are in use, and the same rules in force.

    Raises ProgramError, NotPermitted.  Quick: a rule that is the same covers the program as it did.
    """
    by_slot = found(bound.bindings, look_up)
    for binding in bound.bindings:
        by_slot[binding.slot].policy.check_rule(client, binding.rule)
    _joint_uses(bound, client, {slot: in_use.policy for slot, in_use in by_slot.items()})


def whole(operation: Stored) -> Stored:
    """What is read of a stored tensor, as if all of its rows were."""
    return msgspec.structs.replace(operation, shape=operation.whole, rows=0)


@functools.lru_cache(maxsize=_DESCRIPTIONS)
def _tensors(description: bytes) -> Mapping[str, StoredType]:
    """Of a model or a data set; none, of what is neither."""
    with contextlib.suppress(TesseraError):
        return Description.decode(description).stored_types
    with contextlib.suppress(TesseraError):
        return DataDescription.decode(description).tensors
    return {}


@functools.lru_cache(maxsize=_DESCRIPTIONS)
def _is_settled(description: bytes) -> bool:
    """Whether nothing is left to find out, which would take long, and lead to other digits here than at the client."""
    try:
        return Description.decode(description).architecture.is_settled
    except TesseraError:
        return False


@functools.lru_cache(maxsize=8 * _DESCRIPTIONS)
def _prediction(operation: Input | Stored, precision: int, objective: Objective, slot: str, description: bytes) -> str:
    """The digest of the program that is the model's prediction for such an input.  Raises TesseraError."""
    model = Description.decode(description)
    x = leaf(operation, precision=precision)
    return plan(graph_of([model.forward(x, model.stored(slot))]), objective, checked=True).digest


def _inputs(program: Program, slot: str) -> list[Input | Stored]:
    """All secrets that it reads besides what is in ``slot``."""
    operations = (node.operation for node in program.nodes)
    return [o for o in operations if isinstance(o, Input) or (isinstance(o, Stored) and o.slot != slot)]


@functools.lru_cache(maxsize=_DESCRIPTIONS)
def _is_data(description: bytes) -> bool:
    return is_data(description)


@functools.lru_cache(maxsize=_DESCRIPTIONS)
def _bounds(description: bytes) -> tuple[float, float]:
    """The range of a model's inputs; of what is none, nothing."""
    try:
        return Description.decode(description).interface.bounds()
    except TesseraError:
        return math.inf, -math.inf


def predicts(program: Program, slot: str, description: bytes) -> bool:
    """Whether ``program`` is what the described model does to one input: all of it, and nothing else."""
    inputs = _inputs(program, slot)
    if len(inputs) != 1 or not _is_settled(description):
        return False
    try:
        return _prediction(inputs[0], program.precision, program.objective, slot, description) == program.digest
    except TesseraError:
        # The model does not take such an input: then the program is not its prediction.
        return False
