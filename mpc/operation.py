"""What a protocol is: one class that says everything about one operation of a program.

The system has a single interactive step, the *opening* of a masked tensor (``protocols/operations/mask.py``): for a
tensor ``x`` the dealer picks a uniform mask ``a``, the parties open ``E = x - a``, and from then on everyone knows
``E`` and holds a share of ``a``.  What follows is local: linear operations act on ``E`` and on the shares alike, and
every non-linear operation (products, powers, truncation, polynomials, Fourier series) is a local formula in ``E``, the
shares of ``a`` and *correlated* shares of functions of ``a`` which the dealer, who knows ``a``, dealt ahead of time.

So a subclass says, side by side:

* ``result``: shape, fraction bits and range of the result (and rejects operands that do not go together);
* ``correlations``: what it needs from the source of randomness, made from the masks (``mpc/correlation.py``);
* ``prepare`` and ``evaluate``: what a party does, before and after the inputs are there;
* ``clear``: what it means on plain numbers, exactly, in fixed point;
* ``tolerance``: how far, in units of the last place, the parties' result may lie from ``clear``.

Costs need no method of their own: an opening costs its elements, a correlation one element for the last party.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, NamedTuple, Protocol, TypeVar

import msgspec

from mpc import fixed_point
from mpc.correlation import Correlation
from mpc.errors import ProgramError
from mpc.rings import FIELD, Array, Ring, Rings, known_rings
from mpc.rings.prg import Seed
from mpc.tensor_type import MAX_SIZE, Form, RingName, Shape, TensorType, exactly

MAX_NAME = 200
"""Characters of the name of a slot or of a stored tensor."""


class Value:
    """A tensor as one party holds it: ``x = public + sum over parties of share``.

    ``None`` stands for zero.  While preparing (offline), a value that depends on the run's inputs is *pending*: its
    public part is not known yet, nor is the share unless its form is masked.
    """

    __slots__ = ("beside", "cache", "pending", "public", "public_cache", "share")

    def __init__(self, public: Array | None, share: Array | None, *, pending: bool = False) -> None:
        self.public = public
        self.share = share
        self.pending = pending
        self.cache: dict[str, Any] = {}
        """What protocols derive from a value that outlives a run (limbs of a weight share), by their own keys."""
        self.public_cache: dict[str, Any] = {}
        """What they derive from its public part alone."""
        self.beside: dict[str, Any] | None = None
        """What the first of two readings of a run has derived from what was opened, and leaves for the other."""

    @property
    def stream(self) -> Seed | None:
        """What the share is expanded from, where it is not kept."""
        return None

    def with_share(self, share: Array) -> Value:
        """The same public part beside another share, of the value's MAC; what is derived from the former is shared."""
        value = Value(self.public, share, pending=self.pending)
        value.public_cache = self.public_cache
        return value

    def once(self, key: str, derived: Callable[[], Any]) -> Any:
        """What is ``derived`` from what was opened: where there are two readings, by the first, and forgotten after."""
        if self.beside is None:
            return derived()
        found = self.beside.pop(key, None)
        if found is None:
            found = self.beside[key] = derived()
        return found

    def __repr__(self) -> str:
        parts = [n for n, p in (("public", self.public), ("share", self.share)) if p is not None]
        return f"<Value: {' + '.join(parts) or 'zero'}{', pending' if self.pending else ''}>"


class PartyContext:
    """Who evaluates, and on which shares: of values, or of their MACs.

    All that tells the two apart is the party's share of one, its ``unit``.  Of values it is 1 at the first party and 0
    elsewhere, so that the first carries public parts.  The MAC of x is alpha x for a secret key alpha, so of MACs the
    unit is the party's share of alpha; and since every protocol is linear in shares once values are opened, evaluating
    it on MAC shares with that unit gives shares of the result's MAC (Damgard, Pastro, Smart and Zakarias, CRYPTO 2012).

    ``weight`` is another share of one, for formulas that divide by it: of values n at the first of n parties and -1
    elsewhere, zero nowhere.  Of MACs it is the unit, which is zero with probability 1/p.
    """

    __slots__ = ("index", "parties", "rings", "unit", "weight")

    def __init__(self, index: int, parties: int, unit: int | None = None, rings: Rings | None = None) -> None:
        self.index = index
        self.parties = parties
        self.unit = int(index == 0) if unit is None else unit
        self.weight = (parties if index == 0 else -1) if unit is None else unit
        self.rings = known_rings() if rings is None else rings
        """What this process computes with."""

    def __repr__(self) -> str:
        return f"<PartyContext of party {self.index} of {self.parties}>"  # the unit may be a key's share

    def ring(self, t: TensorType) -> Ring:
        return self.rings[t.ring]

    def share_of(self, public: Array | None, ring: Ring) -> Array | None:
        """The party's share of a public value; None stands for zero."""
        if public is None or self.unit == 0:
            return None
        return public if self.unit == 1 else ring.scale(public, self.unit)

    def fold(self, value: Value, t: TensorType) -> Array:
        """The party's additive share of the whole value, of type ``t``, public part included."""
        ring = self.ring(t)
        known, own = self.share_of(value.public, ring), value.share
        if known is None or own is None:
            part = own if known is None else known
            return ring.or_zeros(part, t.shape)
        return ring.add(known, own)


class Operation(msgspec.Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    """Base of every operation; its fields are its attributes, its tag is its name on the wire."""

    opens: ClassVar[bool] = False
    """Whether parties communicate: of ``Mask``, ``Keep``, ``Draw``, ``Residue``, and what ``settles``, alone."""
    bare: ClassVar[bool] = False
    """Whether it opens what it computes, without a mask: what is uniform by itself, or ``settles``."""
    hides: ClassVar[bool] = False
    """Whether its result has a mask of its own, rather than none or one made from its operands' masks."""
    supplied: ClassVar[bool] = False
    """Whether the client sends it, masked: true of ``Input``, and of what follows from one for who knows it."""
    authenticated: ClassVar[bool] = True
    """Whether a mask of its own has a MAC: not where nothing but correlations is made of the mask."""
    lends: ClassVar[bool] = False
    """Whether its result is what parties compute of what they have, and shares of the one tensor of its correlations
    added, if it has one (``mpc/loans.py``)."""
    carries: ClassVar[bool] = False
    """Whether it is a one-to-one map of each operand that is as large as its result, the others given."""
    borrows: ClassVar[bool] = False
    """Whether it opens its operand, under a mask that may be any that is uniform."""
    flags: ClassVar[bool] = False
    """Whether its result, revealed, is a bit that is said beside the results of a program: 0, or else uniform."""
    gates: ClassVar[bool] = False
    """Whether its result is its first operand where its second one is 0, and else uniform."""
    settles: ClassVar[bool] = False
    """Whether what it opens, ``bare``, has to be 0 for the run to have a result."""
    checks: ClassVar[bool] = False
    """Whether that is 0 if its first operand, somebody's secret, lies in its range."""
    counts: ClassVar[bool] = False
    """Whether its result is 0 where values are where they are assumed to be, and else uniform."""
    blinds: ClassVar[bool] = False
    """Whether its result is nobody's, to hide one result of an operation that is ``bare``, ``flags``, ``gates`` or
    ``counts``."""
    inner: ClassVar[bool] = False
    """Whether its result tells of masks, and not of values alone: then nobody sees it, opened or not, and it is taken
    by none but operations that say so."""
    takes_inner: ClassVar[range] = range(0)
    """Which operands may be such results, as they are, or opened."""
    varies: ClassVar[bool] = False
    """Whether what it is part of depends on what a program is planned for: where a protocol has variants."""

    @property
    def name(self) -> str:
        return str(type(self).__struct_config__.tag)

    @property
    def kept_as(self) -> str:
        """The name of the stored tensor that its result becomes; empty if it is not kept."""
        return ""

    def result(self, *types: TensorType) -> TensorType:
        """The type of the result.

        Raises ProgramError, ShapeError or RangeError when the operands do not go together.
        """
        raise NotImplementedError

    def takes_share(self, operand: int) -> bool:
        """Whether a party takes its share of that operand, and not only what is opened of it."""
        return True

    def check_operands(self, operands: Sequence[Operand]) -> None:
        """Raise ProgramError where more has to be true of the operands than their types say."""

    def correlations(self, *types: TensorType) -> tuple[Correlation, ...]:
        """What the source of randomness has to make of the operands' masks for this operation."""
        return ()

    def on_masks(
        self, rings: Rings, types: Sequence[TensorType], masks: Sequence[Array | None], public: Sequence[Array | None]
    ) -> Array:
        """The mask of a masked result that needs no opening, from the operands' masks and public operands.

        Linear in the masks, so the dealer calls it on masks in the clear and each party on its shares of them.
        """
        raise NotImplementedError

    def prepare(
        self,
        party: PartyContext,
        types: Sequence[TensorType],
        inputs: Sequence[Value],
        dealt: Sequence[Array],
    ) -> Any:
        """A party, offline: whatever can be computed before the inputs arrive; handed to ``evaluate``.

        ``dealt``: shares of the parts of its correlations, one after the other.

        Of a masked result, ``evaluate`` is handed the party's share of its mask (``on_masks``) instead.
        """
        return dealt or None

    def evaluate(
        self, party: PartyContext, types: Sequence[TensorType], inputs: Sequence[Value], prepared: Any
    ) -> Value:
        """A party, online: the result, without communication."""
        raise NotImplementedError

    def clear(self, rings: Rings, types: Sequence[TensorType], inputs: Sequence[Array]) -> Array:
        """The exact fixed-point meaning, on plain elements."""
        raise NotImplementedError

    def tolerance(self, *types: TensorType) -> float:
        """Largest distance of the parties' result from ``clear``, in units of the last place."""
        return 0.0


class Placed(Protocol):
    """A node of a program."""

    @property
    def operation(self) -> Operation: ...
    @property
    def inputs(self) -> tuple[int, ...]: ...
    @property
    def type(self) -> TensorType: ...


class Operand(NamedTuple):
    """The node ``number`` of a program, as an operation sees it that takes its result."""

    nodes: Sequence[Placed]
    number: int

    @property
    def operation(self) -> Operation:
        return self.nodes[self.number].operation

    @property
    def type(self) -> TensorType:
        return self.nodes[self.number].type

    @property
    def inputs(self) -> tuple[Operand, ...]:
        return tuple(Operand(self.nodes, i) for i in self.nodes[self.number].inputs)


class Linear(Operation, frozen=True):
    """An operation linear in all its operands: the same map acts on public parts, shares, masks and plain values."""

    def apply(self, ring: Ring, *arrays: Array) -> Array:
        raise NotImplementedError

    def _on_part(self, rings: Rings, types: Sequence[TensorType], parts: Sequence[Array | None]) -> Array | None:
        if all(part is None for part in parts):
            return None
        ring = rings[types[0].ring]
        return self.apply(ring, *(ring.or_zeros(p, t.shape) for p, t in zip(parts, types, strict=True)))

    def on_masks(
        self, rings: Rings, types: Sequence[TensorType], masks: Sequence[Array | None], public: Sequence[Array | None]
    ) -> Array:
        part = self._on_part(rings, types, masks)
        return rings[types[0].ring].or_zeros(part, self.result(*types).shape)

    def evaluate(
        self, party: PartyContext, types: Sequence[TensorType], inputs: Sequence[Value], prepared: Any
    ) -> Value:
        public = self._on_part(party.rings, types, [value.public for value in inputs])
        share = prepared if prepared is not None else self._on_part(party.rings, types, [v.share for v in inputs])
        return Value(public, share)

    def clear(self, rings: Rings, types: Sequence[TensorType], inputs: Sequence[Array]) -> Array:
        return self.apply(rings[types[0].ring], *inputs)


class Source(Operation, frozen=True):
    """A leaf of a program: where a value comes from."""

    shape: Shape
    fraction_bits: int
    low: float
    high: float

    def __post_init__(self) -> None:
        exactly(self, "low", "high")

    def _type(self, types: tuple[TensorType, ...], form: Form, ring: str, gain: float | None = None) -> TensorType:
        require(not types, "a source has no operands")
        declared = TensorType(self.shape, self.fraction_bits, self.low, self.high, form, gain, ring).check()
        # Values are encoded by rounding, so one at an end of its range may come to lie beyond it.
        low, high = (fixed_point.nearest(end, self.fraction_bits) for end in (self.low, self.high))
        return declared.replace(low=min(self.low, low), high=max(self.high, high)).check()


class Input(Source, frozen=True, tag="input"):
    """A client's secret for this run.

    The client learns the mask ``a`` from the dealer and sends ``E = x - a`` to every party: uniform, whatever x is.
    No round among the parties.
    """

    hides: ClassVar[bool] = True
    supplied: ClassVar[bool] = True
    ring: RingName = FIELD

    def result(self, *types: TensorType) -> TensorType:
        return self._type(types, Form.MASKED, self.ring)


class Stored(Source, frozen=True, tag="stored"):
    """The ``tensor`` of what is bound to ``slot``: a secret that stays on the parties, masked once, at its upload.

    What is stored lives in the field.

    A program does not say which version of the secret that is: whoever runs it says so beside it, so a program over a
    new version is the same program.  The mask B of a version's tensor is never used for another value; each run deals
    fresh products with the same B.

    ``rows``, if there are any: of so many rows of the tensor these are drawn, other ones by the next run.  Which, the
    versions that are bound say (``protocols.readings.drawing``): the same program goes through all of them.
    """

    hides: ClassVar[bool] = True
    slot: str
    tensor: str
    gain: float | None = None
    rows: int = 0

    def __post_init__(self) -> None:
        exactly(self, "low", "high", "gain")

    @property
    def whole(self) -> Shape:
        """The shape of the tensor that is stored."""
        return (self.rows, *self.shape[1:]) if self.rows else self.shape

    def result(self, *types: TensorType) -> TensorType:
        for name in (self.slot, self.tensor):
            require(len(name) <= MAX_NAME and name.isprintable(), "names of stored tensors are short and printable")
        require(bool(self.slot), "a stored tensor is of a slot that has a name")
        if self.rows:
            require(
                bool(self.shape) and 0 < self.shape[0] <= self.rows <= MAX_SIZE, "draws some of the rows that there are"
            )
        return self._type(types, Form.MASKED, FIELD, self.gain)


class Constant(Source, frozen=True, tag="constant"):
    """A public tensor, part of the program: elements as they go over a wire."""

    data: bytes
    ring: RingName = FIELD

    def result(self, *types: TensorType) -> TensorType:
        constant, rings = self._type(types, Form.PUBLIC, self.ring), known_rings()
        if len(self.data) != constant.bytes:
            raise ProgramError(f"a constant of shape {self.shape} has {len(self.data)} bytes of data")
        ring, values = rings[self.ring], self.array(rings)
        if not ring.holds(values, self.shape):
            raise ProgramError(f"a constant has an element outside the {ring.name}")
        if values.size:
            real = fixed_point.decode(values, self.fraction_bits, ring)
            if real.min() < self.low or real.max() > self.high:
                raise ProgramError(f"a constant has values outside its range [{self.low}, {self.high}]")
        return constant

    def array(self, rings: Rings | None = None) -> Array:
        return (known_rings() if rings is None else rings)[self.ring].read(self.data, self.shape)

    def evaluate(
        self, party: PartyContext, types: Sequence[TensorType], inputs: Sequence[Value], prepared: Any
    ) -> Value:
        return Value(self.array(party.rings), None)

    def clear(self, rings: Rings, types: Sequence[TensorType], inputs: Sequence[Array]) -> Array:
        return self.array(rings)


_REGISTRY: dict[str, type[Operation]] = {}
_Class = TypeVar("_Class", bound=type[Operation])


def register(operation: _Class) -> _Class:
    """Class decorator: make an operation known to programs, under its tag."""
    name = operation.__struct_config__.tag
    if not isinstance(name, str) or name in _REGISTRY:
        raise ValueError(f"{operation.__name__} needs a tag of its own, not {name!r}")
    _REGISTRY[name] = operation
    return operation


for _source in (Input, Stored, Constant):
    register(_source)


def registered() -> dict[str, type[Operation]]:
    """Every known operation by name: what a program may be made of when it is decoded."""
    return dict(_REGISTRY)


def require(condition: bool, message: str) -> None:
    """Raise ProgramError with ``message`` unless ``condition`` holds: for typing rules."""
    if not condition:
        raise ProgramError(message)
