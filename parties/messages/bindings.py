"""What the slots of a program stand for in one run: said beside the program, and compared by all members.

A program reads stored secrets from slots, and a slot is called as the secret is: ``owner/name``.  So

* whoever writes the same computation on the same secrets gets the same digest, whichever versions are in use;
* secrets that swap places are another program;
* nothing but that owner's secret of that name can stand in the slot.  Were slots numbered, an owner who allows a
  digest would have to say of each number what may be there, or an accomplice could bind its own secret, made so that
  the result tells all, where another one was meant.  A name alone would do as little: it is free once its owner has
  removed it.

A *binding* says which version of the secret is meant, and by which rule this client may use it in this program: the
very rule, by its digest (`parties.messages.rules`), so that no two members mean another one, or another limit; and of
what belongs to several jointly, by which rule of each of the others.  The
client sends its bindings with the program, to the dealer and to every party, and each compares them with the versions
and rules that it has itself.  So it sends the name under which the result is to be kept, if it is.  The dealer's
``Dealt`` has the digest of all that; a party that was told otherwise ends the run before it uses what was dealt, and
the commitments of the MAC check hang on it.

Preprocessing is dealt for a *bound* program, since products are dealt for the masks of the versions; what ledgers call
a program is the digest of a bound one.  It is one client's: what a client has ordered nobody else can use, or use up by
preparing runs.  Rules and names of results do not count there.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Annotated, NamedTuple

import msgspec

from mpc.decoders import from_msgpack
from mpc.lazy import lazy
from mpc.program import Program
from parties.messages.fields import NAME, Digest, Id, Name
from protocols.lowering.intervals import is_gated

OWNER = "owner"
"""The rule of whoever the secret belongs to."""

Slot = Annotated[str, msgspec.Meta(pattern=rf"^{NAME}/{NAME}\Z")]


class Leave(NamedTuple):
    """Of somebody to whom a secret belongs as well, by that rule."""

    owner: Name
    rule: Digest


class Binding(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """``version`` of the secret that ``slot`` names, by ``rule``: the owner's, or one with that digest.

    ``others``: of all to whom it belongs beside its owner and whose run it is.
    """

    slot: Slot
    version: Id
    rule: Annotated[str, msgspec.Meta(pattern=r"^(owner|[0-9a-f]{64})\Z")]
    others: Annotated[tuple[Leave, ...], msgspec.Meta(max_length=1000)] = ()

    @property
    def words(self) -> tuple[str, ...]:
        """All it says; only the first of them has a slash."""
        return self.slot, self.version, self.rule, *(word for leave in self.others for word in leave)


Bindings = Annotated[tuple[Binding, ...], msgspec.Meta(max_length=1000)]
"""In the order of ``Program.slots``."""


def slot_of(owner: str, name: str) -> str:
    """The slot of what ``owner`` calls ``name``."""
    return f"{owner}/{name}"


@dataclass(frozen=True)
class BoundProgram:
    """A program, what is bound to each of its slots, in their order, and the name of the client whose run it is.

    ``keep``: the name under which its result is to lie, if it is kept.
    """

    program: Program
    bindings: tuple[Binding, ...]
    client: str
    keep: str = ""

    @lazy
    def digest(self) -> str:
        """SHA-256 of the client, the program and the versions in its slots: what preprocessing in stock is for."""
        parts = (part for b in self.bindings for part in (b.slot, b.version))
        return _sha256("bound program", self.client, self.program.digest, *parts)

    @lazy
    def bindings_digest(self) -> str:
        """SHA-256 of the bindings, rules included, and ``keep``: what members compare beside the program's digest."""
        return _sha256("bindings", self.keep, *(word for b in self.bindings for word in b.words))

    @property
    def own_slot(self) -> str:
        """Where its result is to lie."""
        return slot_of(self.client, self.keep)

    @lazy
    def chain_digest(self) -> str:
        """As ``digest``, whichever version there is where its result is to lie: what is dealt for a chain of runs."""
        parts = [part for b in self.beside for part in (b.slot, b.version)]
        return _sha256("chain of a bound program", self.client, self.program.digest, self.own_slot, *parts)

    @lazy
    def gated(self) -> bool:
        """Whether its results hang on all that it assumes (`is_gated`)."""
        return is_gated(self.program)

    def derive(self) -> BoundProgram:
        """Itself, once all that takes long to find out about it is known: call it from a thread."""
        program = self.program
        _ = self.digest, self.bindings_digest
        _ = program.rounds, program.inputs, program.slots, program.kept, program.drawn
        return self

    @property
    def versions(self) -> tuple[str, ...]:
        """All that it reads."""
        return tuple(binding.version for binding in self.bindings)

    @property
    def beside(self) -> tuple[Binding, ...]:
        """What is bound but to the slot where its result is to lie."""
        return tuple(binding for binding in self.bindings if binding.slot != self.own_slot)

    @property
    def by_slot(self) -> dict[str, str]:
        """Likewise, by slot."""
        return {binding.slot: binding.version for binding in self.bindings}

    def encode(self) -> bytes:
        """For who has to bind it again later, whatever becomes of its result; ``decode`` reads it."""
        return msgspec.msgpack.encode((self.program.encode(), self.bindings, self.client))

    @classmethod
    def decode(cls, data: bytes) -> BoundProgram:
        """Raises ProgramError."""
        complaint = "not a program and what is bound to it"
        program, bindings, client = from_msgpack(data, tuple[bytes, Bindings, Name], complaint)
        return cls(Program.decode(program), bindings, client)


def _sha256(*parts: str) -> str:
    # No part holds a line break.
    return hashlib.sha256("\n".join(("tessera", *parts)).encode()).hexdigest()
