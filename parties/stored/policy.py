"""Who may use a stored secret, and in which programs: said by its owner, enforced by every server by itself.

Whoever uploads a model or a data set owns it.  Nobody else may run anything on it until the owner allows it
(``client.allow``, ``tessera allow``), and what is allowed is a client and programs:

* ``"predict"``, of a model: the model as its owner described it, on one input, with nothing but its result revealed.  A
  server builds that program itself, from the description that it was given with the upload, and compares.  So a client
  cannot have weights revealed, or layers left out.  The input is the client's own, or a tensor of a data set, whose
  owner has a say of its own.
* a program's digest (64 hexadecimal digits, ``client.digest``): that one program, which the owner has looked at.
* ``"any"``: every program.  Whoever has this can have the weights, or the data, revealed.

The result of a program is revealed to the client who runs it, and to nobody else; or it is kept (``client.keep``), as a
data set of that client's, which is its own to reveal and to allow.  So to allow a program is to allow its result to be
revealed to that client.  A program that uses several secrets needs the leave of all their owners.

Each party checks before it prepares a run, and so does the dealer before it deals: one honest party is enough for
nothing to be revealed that its rules forbid, since without its share nobody learns anything.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from mpc.errors import NotPermitted, ProgramError, ProtocolViolation, TesseraError
from mpc.operation import Input, Stored
from mpc.program import Expression, Program
from nn.model import Description
from protocols.trace.secret_tensor import SecretTensor, program_of

PREDICT = "predict"
ANY = "any"
EVERYONE = "*"
"""Instead of a client's name: every client of the cluster file."""

_DIGEST = re.compile(r"[0-9a-f]{64}\Z")


def is_rule(program: str) -> bool:
    """Whether it names programs: ``"predict"``, ``"any"``, or a digest."""
    return program in (PREDICT, ANY) or _DIGEST.match(program) is not None


@dataclass(frozen=True)
class Policy:
    """What a server knows of who may use a secret; ``grants`` are programs by client."""

    name: str
    owner: str
    version: str
    description: bytes
    """Of the model, as its owner gave it."""
    grants: Mapping[str, frozenset[str]] = field(default_factory=dict)

    def of(self, client: str) -> frozenset[str]:
        """What ``client`` may run; not what being the owner allows."""
        return self.grants.get(client, frozenset()) | self.grants.get(EVERYONE, frozenset())

    def sees(self, client: str) -> bool:
        """Whether ``client`` may know that the secret is there, and its public description."""
        return client == self.owner or bool(self.of(client))

    def check(self, program: Program, client: str) -> None:
        """Raises NotPermitted if ``client`` may not run ``program``."""
        if client == self.owner:
            return
        allowed = self.of(client)
        if ANY in allowed or program.digest in allowed:
            return
        if PREDICT in allowed and predicts(program, self.version, self.description):
            return
        if not allowed:
            what = f"may not use {self.name!r}: its owner {self.owner} has to allow it (tessera allow)"
        elif PREDICT in allowed:
            what = f"may only have {self.name!r} predict, and this program does more or other than that"
        else:
            what = f"may not run this program on {self.name!r}: its owner {self.owner} has to allow it"
        raise NotPermitted(f"{client} {what}")


def check(program: Program, client: str, policy: Callable[[str], Policy | None]) -> None:
    """Raises NotPermitted if ``client`` may not use some secret of ``program`` in it, ProgramError for an unknown one.

    ``policy`` finds the rules of a version that is in use.  What has none is refused, not passed over: a version that
    is being uploaded may be in use, under rules that nobody looked at, by the time its tensors are loaded.
    """
    for version in program.slots:
        found = policy(version)
        if found is None:
            raise ProgramError(
                "a stored model or data set of this program is not in use here: ask for it again with"
                " client.model(name) or client.data(name), or upload it again"
            )
        found.check(program, client)


def permitted(encoded: memoryview, client: str, keep: str, policy: Callable[[str], Policy | None]) -> Program:
    """The program of a run of ``client``'s that keeps what it keeps under the name ``keep``.

    Raises ProgramError for what is none or reads a version that is not in use, NotPermitted, and ProtocolViolation for
    one that keeps nothing under a name, or something under none.
    """
    program = Program.decode(encoded)
    check(program, client, policy)
    if bool(program.kept) != bool(keep):
        raise ProtocolViolation(client, "sent a run that keeps something under no name, or nothing under one")
    return program


@functools.lru_cache(maxsize=256)
def _is_settled(description: bytes) -> bool:
    """Whether nothing is left to find out, which would take long, and lead to other digits here than at the client."""
    try:
        return Description.decode(description).architecture.is_settled
    except TesseraError:
        return False


@functools.lru_cache(maxsize=1024)
def _prediction(operation: Input | Stored, precision: int, version: str, description: bytes) -> str:
    """The digest of the program that is the model's prediction for such an input.  Raises TesseraError."""
    model = Description.decode(description)
    x = SecretTensor(Expression(operation), precision=precision)
    return program_of([model.forward(x, model.stored(version))]).digest


def predicts(program: Program, version: str, description: bytes) -> bool:
    """Whether ``program`` is what the described model does to one input: all of it, and nothing else."""
    operations = (node.operation for node in program.nodes)
    inputs = [o for o in operations if isinstance(o, Input) or (isinstance(o, Stored) and o.slot != version)]
    if len(inputs) != 1 or not _is_settled(description):
        return False
    try:
        return _prediction(inputs[0], program.precision, version, description) == program.digest
    except TesseraError:
        # The model does not take such an input: then the program is not its prediction.
        return False


def merged(grants: Mapping[str, frozenset[str]], client: str, programs: Iterable[str]) -> dict[str, frozenset[str]]:
    """``grants`` with those of ``client`` replaced by ``programs``; without any, it has none."""
    rest = {name: rules for name, rules in grants.items() if name != client}
    rules = frozenset(programs)
    return {**rest, client: rules} if rules else rest
