"""The messages between a party's head and its workers, over direct links (`parties.wire.direct`).

            head   --Settle--> worker      which cluster this is, and of which party
            worker --Settled--> head       where it can be dialled by other parties' workers
            head   --Hold--> worker        its shares of a version's tensors; kept until
            head   --Drop--> worker        the version is not in use any more: overwritten with zeros
            head   --Take--> worker        prepare a run: program and what was dealt
            worker --Taken--> head         prepared; the key of its links, and doors for who dials it
            head   --More--> worker        what was dealt for the run's next part
            worker --Made--> head          that is prepared
            head   --Meet--> worker        the other parties' workers of this run
            worker --Met--> head           links to all of them stand
            head   --Start--> worker       the client's masked inputs: go
            worker --Advanced--> head      so many depths are evaluated
            worker --ToSign--> head        sign this (MACs alone)
            head   --Signed--> worker
            worker --Finished--> head      what the client is sent, and what is kept
            worker --Broken--> head        the run has failed there
            head   --Over--> worker        forget the run
            worker --Beat--> head          once a second

Of what is dealt ahead of time (`parties.stock.shelf`), under names that the head makes for items (``run``):

            head   --Keep--> worker        collect a piece of an item, and keep it, sealed
            worker --Kept--> head          it is on the worker's shelf, durably
            head   --Look--> worker        what lies on its shelf?
            worker --Lying--> head
            head   --Sweep--> worker       remove these from it

Of a dealer, which deals under names that it makes for that (``run``):

            head   --HoldSeeds--> worker   of the masks of a version; kept until ``Drop``
            head   --Deal--> worker        make the corrections of a program: their first part
            head   --More--> worker        the next one
            worker --PartDealt--> head     who collects it will have it
            worker --PartDealt--> party    to who collects it: the last party, or its worker
            worker --Delivered--> head     the last one has been collected
            worker --Broken--> head        it cannot be made
            head   --Over--> worker        forget it

No member may send any of them: who is no worker of the receiver's own, or its head, is not heard.
"""

from __future__ import annotations

from typing import Annotated, ClassVar

import msgspec

from parties.members.cluster import Role
from parties.messages.evidence import AnySaid, Evidence, RunSubject, Signature, Statement
from parties.messages.failures import Fault
from parties.messages.fields import Count, Id, Name, Seconds, Text
from parties.messages.runs import Address, Door, LinkPublic, LinkSecret, Source
from parties.tally import Sent
from parties.wire.messages import Message

BEAT = 1.0
"""s between two signs of a worker's life."""

ABOUT = b"tessera worker"
"""What a link between a head and a worker is for (`parties.wire.direct.LinkKey.agreed`)."""


class WorkerMessage(Message, frozen=True):
    """Base of these."""

    senders: ClassVar[frozenset[Role]] = frozenset()


class WorkerRun(WorkerMessage, frozen=True):
    """Base of those about one run."""

    run: Id


class Settle(WorkerMessage, frozen=True):
    """Payload: the cluster file.  ``member``: whose worker the receiver is."""

    member: Name


class Settled(WorkerMessage, frozen=True):
    """Ready for runs; ``host`` and ``process``: the name of its machine and its number there, for the operator.

    ``shelf``: which one it has, if any; ``trouble``: why it has none, where it should.
    """

    address: Address
    process: Count
    host: Annotated[str, msgspec.Meta(max_length=255)]
    shelf: Annotated[str, msgspec.Meta(pattern=r"^([0-9a-f]{32})?\Z")] = ""
    trouble: Text = ""


class Tensor(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Of a version: its public part, and a share, as far as there are such; each a buffer of the payload."""

    name: Annotated[str, msgspec.Meta(max_length=200)]
    shape: tuple[Count, ...]
    public: bool
    share: bool


class Hold(WorkerMessage, frozen=True):
    """Payload: the buffers of these tensors, in order; there may be more of the version in other messages."""

    version: Id
    tensors: tuple[Tensor, ...]


class Drop(WorkerMessage, frozen=True):
    """Of what ``Hold`` has brought."""

    version: Id


class Place(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where the pieces of an item lie, of which head (``owner``), by what ``label`` and under which key they open."""

    shelf: Id
    owner: Id
    name: Id
    label: tuple[str, ...]
    key: LinkSecret

    def __repr__(self) -> str:
        return f"Place({self.shelf[:8]}/{self.name[:8]})"


class Keep(WorkerRun, frozen=True):
    """Collect that piece, of so many bytes, from ``source``, and keep it at that place.

    For a run of that client's, who has ``held`` bytes on that shelf.
    """

    place: Place
    piece: Count
    source: Source
    size: Count
    client: Name
    held: Count


class Kept(WorkerRun, frozen=True):
    """It is there."""


class Look(WorkerMessage, frozen=True):
    """What lies there of that head's?"""

    owner: Id


class Lying(WorkerMessage, frozen=True):
    """Payload: their names, 16 bytes each, joined."""


class Sweep(WorkerMessage, frozen=True):
    """Payload likewise: these are not wanted."""

    owner: Id


class Take(WorkerRun, frozen=True):
    """Payload: the program, then what was dealt for its first part.

    ``client``: on whose behalf; ``inputs``: whether there are inputs of its own (not in a training job).  ``versions``
    by slot; ``drawn`` and ``part``: the order of rows (`protocols.readings.drawing`).  ``parts``: what is said of what
    is stored.  ``source``: from where what was dealt beside the seed is to be collected;
    ``place``: or where it lies, if it was dealt ahead of time.
    """

    client: Name
    inputs: bool
    of: RunSubject
    versions: dict[str, Id]
    drawn: dict[str, str]
    part: Count
    parts: tuple[Statement, ...]
    expected: Seconds
    source: Source | None
    place: Place | None


class HoldSeeds(WorkerMessage, frozen=True):
    """Payload: each party's seed of the masks of a version, joined; ``shapes``: of its tensors."""

    version: Id
    shapes: dict[str, tuple[Count, ...]]


class Deal(WorkerRun, frozen=True):
    """Payload: the program, and each party's seed, joined, which nothing else is dealt of.  ``source``: where it
    will be collected.

    ``client``: in whose turn, ``patient``: however long that takes to come.  ``versions`` by slot; ``drawn`` and
    ``part`` as ``Take`` says; ``expected``: s that a part takes.
    """

    client: Name
    versions: dict[str, Id]
    drawn: dict[str, str]
    part: Count
    expected: Seconds
    patient: bool
    source: Source


class PartDealt(WorkerRun, frozen=True):
    """Payload: the corrections of that part; to the head nothing."""


class Delivered(WorkerRun, frozen=True):
    """Nothing is left of the dealing."""


class Taken(WorkerRun, frozen=True):
    """``doors``: by index of the parties that dial this worker."""

    seconds: Seconds
    key: LinkPublic
    doors: dict[int, Door]


class More(WorkerRun, frozen=True):
    """Payload: what was dealt for the next part; to a dealer's worker none."""


class Made(WorkerRun, frozen=True):
    """The next part is prepared."""


class Meeting(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The worker of another party, as its head has vouched for it."""

    index: Count
    key: LinkPublic
    address: Address
    door: bytes


class Meet(WorkerRun, frozen=True):
    """All of them."""

    others: tuple[Meeting, ...]


class Met(WorkerRun, frozen=True):
    """The inputs may come."""


class Start(WorkerRun, frozen=True):
    """Payload: the masked inputs; ``signature``: the client's, of them."""

    signature: Signature


class Advanced(WorkerRun, frozen=True):
    """As ``Evaluated`` says to the dealer."""

    depths: Count


class ToSign(WorkerRun, frozen=True):
    """In the head's name."""

    said: AnySaid


class Signed(WorkerRun, frozen=True):
    """What was asked for."""

    signature: Signature


class Finished(WorkerRun, frozen=True):
    """Payload: the outputs; where something is kept, the seed of its masks and these tensors."""

    rounds: Count
    seconds: dict[str, float]
    waited: Seconds
    sent: dict[Name, Sent]
    outputs: Count
    kept: dict[str, tuple[Count, ...]]


class Broken(WorkerRun, frozen=True):
    """``evidence``: of what is wrong."""

    fault: Fault
    evidence: Evidence | None = None


class Over(WorkerRun, frozen=True):
    """Whatever was made for it is to be forgotten."""


class Beat(WorkerMessage, frozen=True):
    """Still here."""
