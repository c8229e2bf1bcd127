"""Multiplication, matrix multiplication and convolution of masked tensors: Beaver's formula for any bilinear map f.

For operands ``x = E + a`` and ``y = D + b`` with E and D public, the dealer deals fresh shares of ``f(a, b)``; then

    [f(x, y)]  =  f(E, [y])  +  ( f([a], D) + [f(a, b)] )          with [y] = D + [b].

When D is known before the inputs are (a stored weight), the bracket is computed offline, and one multiplication by the
party's own share of y is all that is left for the online phase; likewise with x and y exchanged.  With a public operand
there is nothing to deal.

When neither is known, the formula as it stands has two products of online values.  One will do: let w_i be the parties'
shares of one (``PartyContext.weight``), and let party i compute

    f(w_i E + a_i, D + b_i / w_i)  +  ( c_i - f(a_i, b_i / w_i) )  =  w_i f(E, D) + f(E, b_i) + f(a_i, D) + c_i

whose bracket is made offline.  Summed over the parties that is f(E, D) + f(E, b) + f(a, D) + f(a, b).  On MAC shares
w_i is the party's share of the key, and a_i, b_i, c_i are its shares of the MACs: the sum is alpha times as much.  A
w_i of zero, which a key share is with probability 1/p, has no inverse: it takes both products, as a ring without
inverses does.

Security: nothing is opened here.  Both masks were opened once, as tensors (``mask.py``), however many products they
enter; f(a, b) is dealt anew, as uniform shares, for each product.  With MACs, f(a, b) comes with shares of its MAC, and
the formula is linear in shares: on MAC shares it gives a share of the product's MAC.

Cost: no round; one dealt element per element of the *result* (a convolution is never dealt in its unrolled form); none
where the result is opened next, under a mask of which nobody takes a share (``mpc/loans.py``).
Source: Beaver, CRYPTO 1991; for matrices: Mohassel and Zhang, SecureML, IEEE S&P 2017; for convolutions: Wagh, Gupta
and Chandran, SecureNN, PETS 2019.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar, Literal, NamedTuple

from mpc.correlation import Correlation, Part
from mpc.errors import ShapeError
from mpc.operation import Operation, PartyContext, Value, register, require
from mpc.rings import Array, Ring, Rings
from mpc.tensor_type import Form, Shape, TensorType
from protocols.operations.linear import broadcast, numbers, window_output


class Bracket(NamedTuple):
    """What is left of the formula offline; ``known`` says which operand's public part it already contains."""

    share: Array
    known: Literal["x", "y", "neither"]

    def __repr__(self) -> str:
        return f"Bracket(..., {self.known!r})"


class Halved(NamedTuple):
    """What is left when neither operand is known: ``[c] - f([a], [b] / w)``, and ``[b] / w``."""

    share: Array
    y: Array

    def __repr__(self) -> str:
        return "Halved(...)"


class Product(Operation, frozen=True):
    """A bilinear operation; subclasses say the map, the shape of the result and how many products are summed."""

    lends: ClassVar[bool] = True

    def multiplied(self, ring: Ring, x: Any, y: Any) -> Array:
        """The map, on arrays of the ring or on what ``_split`` makes of them."""
        raise NotImplementedError

    def _plus(self, ring: Ring, x: Any, y: Any, z: Array) -> Array:
        """``multiplied``, and ``z`` added."""
        return ring.add(self.multiplied(ring, x, y), z)

    def _split(self, ring: Ring, array: Array, side: Literal["x", "y"]) -> Any:
        """An operand in the form in which multiplying by it again and again is cheapest."""
        return array

    def _layout(self, side: Literal["x", "y"]) -> str:
        """What ``_split`` depends on besides the array.  Few values: each is kept once for every stored tensor."""
        return "array"

    def _shape(self, x: TensorType, y: TensorType) -> Shape:
        raise NotImplementedError

    def _inner(self, x: TensorType, y: TensorType) -> int:
        """How many elementary products each element of the result adds up."""
        return 1

    @property
    def _meets_zeros(self) -> bool:
        """Whether some results are of zeros that stand around an operand."""
        return False

    def result(self, *types: TensorType) -> TensorType:
        require(len(types) == 2, "takes two tensors")
        x, y = types
        require(x.ring == y.ring, "operands of a product live in one ring")
        numbers(x)
        local = Form.PUBLIC in (x.form, y.form)
        require(local or Form.SHARED not in (x.form, y.form), "operands are masked, or one of them is public")
        require(not (x.form is Form.PUBLIC and y.form is Form.PUBLIC), "a product needs a secret operand")
        shape, inner = self._shape(x, y), self._inner(x, y)
        bits = x.fraction_bits + y.fraction_bits
        form = max(x.form, y.form) if local else Form.SHARED
        if inner == 1:
            corners = [u * v for u in (x.low, x.high) for v in (y.low, y.high)]
            corners += [0.0] if self._meets_zeros else []
            return TensorType(shape, bits, min(corners), max(corners), form, ring=x.ring)
        growth = float(inner) if y.gain is None or not y.magnitude else min(inner, y.gain / y.magnitude)
        bound = x.magnitude * y.magnitude * growth
        return TensorType(shape, bits, -bound, bound, form, ring=x.ring)

    def correlations(self, *types: TensorType) -> tuple[Correlation, ...]:
        x, y = types
        if Form.PUBLIC in (x.form, y.form):
            return ()
        return (MaskProduct(self, x.shape, y.shape, self._shape(x, y), x.ring),)

    def on_masks(
        self, rings: Rings, types: Sequence[TensorType], masks: Sequence[Array | None], public: Sequence[Array | None]
    ) -> Array:
        ring = rings[types[0].ring]
        known = (public[i] if t.form is Form.PUBLIC else masks[i] for i, t in enumerate(types))
        return self.multiplied(ring, *(ring.or_zeros(part, t.shape) for part, t in zip(known, types, strict=True)))

    def prepare(
        self,
        party: PartyContext,
        types: Sequence[TensorType],
        inputs: Sequence[Value],
        dealt: Sequence[Array],
    ) -> Bracket | Halved | None:
        if not dealt:
            return None
        x, y = inputs
        ring = party.ring(types[0])
        if not y.pending:
            self._folded(party, y, types[1], "y")
            return Bracket(self._with_known_y(ring, types, inputs, dealt[0]), "y")
        if not x.pending:
            self._folded(party, x, types[0], "x")
            known_x = self._public(ring, x, types[0], "x")
            return Bracket(self._plus(ring, known_x, ring.or_zeros(y.share, types[1].shape), dealt[0]), "x")
        inverse = ring.inverse(party.weight)
        if inverse is None:
            return Bracket(dealt[0], "neither")
        scaled = ring.scale(ring.or_zeros(y.share, types[1].shape), inverse)
        own = self.multiplied(ring, ring.or_zeros(x.share, types[0].shape), scaled)
        return Halved(ring.subtract(dealt[0], own), scaled)

    def evaluate(
        self, party: PartyContext, types: Sequence[TensorType], inputs: Sequence[Value], prepared: Any
    ) -> Value:
        x, y = inputs
        ring = party.ring(types[0])
        if isinstance(prepared, Halved):
            weight = ring.full((), party.weight)
            public, share = (ring.or_zeros(part, types[0].shape) for part in (x.public, x.share))
            left = ring.multiply_add(public, weight, share)
            right = ring.add(ring.or_zeros(y.public, types[1].shape), prepared.y)
            return Value(None, self._plus(ring, left, right, prepared.share))
        if not isinstance(prepared, Bracket):
            return self._local(ring, types, x, y, prepared)
        bracket, known = prepared
        if known == "x":
            folded = self._folded(party, x, types[0], "x")
            return Value(None, self._plus(ring, folded, ring.or_zeros(y.public, types[1].shape), bracket))
        if known == "neither":
            bracket = self._with_known_y(ring, types, inputs, bracket)
        folded = self._folded(party, y, types[1], "y")
        return Value(None, self._plus(ring, ring.or_zeros(x.public, types[0].shape), folded, bracket))

    def clear(self, rings: Rings, types: Sequence[TensorType], inputs: Sequence[Array]) -> Array:
        return self.multiplied(rings[types[0].ring], *inputs)

    def _with_known_y(self, ring: Ring, types: Sequence[TensorType], inputs: Sequence[Value], dealt: Array) -> Array:
        x, y = inputs
        known_y = self._public(ring, y, types[1], "y")
        return self._plus(ring, ring.or_zeros(x.share, types[0].shape), known_y, dealt)

    def _local(self, ring: Ring, types: Sequence[TensorType], x: Value, y: Value, share: Array | None) -> Value:
        """One operand is public: the map is linear in the other, part by part."""
        known_y = types[1].form is Form.PUBLIC
        secret = x if known_y else y
        known = self._public(ring, y, types[1], "y") if known_y else self._public(ring, x, types[0], "x")

        def on(part: Array | None) -> Array | None:
            if part is None:
                return None
            return self.multiplied(ring, part, known) if known_y else self.multiplied(ring, known, part)

        return Value(on(secret.public), on(secret.share) if share is None else share)

    def _folded(self, party: PartyContext, value: Value, t: TensorType, side: Literal["x", "y"]) -> Any:
        """The split form of the party's share of an operand, kept: a stored weight is split once, not once a run."""
        key = f"folded as {self._layout(side)}"
        if key not in value.cache:
            value.cache[key] = self._fold(party, value, t, side)
        return value.cache[key]

    def _fold(self, party: PartyContext, value: Value, t: TensorType, side: Literal["x", "y"]) -> Any:
        return self._split(party.ring(t), party.fold(value, t), side)

    def _public(self, ring: Ring, value: Value, t: TensorType, side: Literal["x", "y"]) -> Any:
        """The split form of an operand's public part, kept likewise."""
        key = f"public as {self._layout(side)}"
        if key not in value.public_cache:
            value.public_cache[key] = self._split(ring, ring.or_zeros(value.public, t.shape), side)
        return value.public_cache[key]


def make_ready(party: PartyContext, product: Product, value: Value, shape: Shape) -> None:
    """What a first product of something by a stored tensor would leave for the next ones is there from now on."""
    t = TensorType(shape, 0, 0.0, 0.0, Form.MASKED)
    product._folded(party, value, t, "y")
    product._public(party.ring(t), value, t, "y")


class MaskProduct(Correlation, frozen=True):
    """f(a, b): the ``product``'s map of two masks."""

    product: Product
    x: Shape
    y: Shape
    shape: Shape
    ring: str

    @property
    def operands(self) -> tuple[int, ...]:
        return (0, 1)

    @property
    def parts(self) -> tuple[Part, ...]:
        return (Part(self.shape, self.ring),)

    def make(self, rings: Rings, masks: Sequence[Array]) -> Sequence[Array]:
        return (self.product.multiplied(rings[self.ring], *masks),)


MAX_WORKSPACE = 2**27
"""Elements that one product may lay out besides its operands and its result."""


def _check_workspace(elements: int) -> None:
    if elements > MAX_WORKSPACE:
        raise ShapeError(f"a product that lays out {elements} elements at a time is over the limit of {MAX_WORKSPACE}")


@register
class Multiply(Product, frozen=True, tag="multiply"):
    """Elementwise, with broadcasting."""

    def multiplied(self, ring: Ring, x: Any, y: Any) -> Array:
        return ring.multiply(x, y)

    def _plus(self, ring: Ring, x: Any, y: Any, z: Array) -> Array:
        return ring.multiply_add(x, y, z)

    def _shape(self, x: TensorType, y: TensorType) -> Shape:
        return broadcast(x.shape, y.shape)


@register
class Matmul(Product, frozen=True, tag="matmul"):
    """As ``numpy.matmul``: vectors, matrices and batches of them."""

    def multiplied(self, ring: Ring, x: Any, y: Any) -> Array:
        return ring.matmul(x, y)

    def _split(self, ring: Ring, array: Array, side: Literal["x", "y"]) -> Any:
        return ring.matrix(array)

    def _fold(self, party: PartyContext, value: Value, t: TensorType, side: Literal["x", "y"]) -> Any:
        if value.stream is None:
            return super()._fold(party, value, t, side)
        ring = party.ring(t)
        return ring.streamed(party.share_of(value.public, ring), value.stream, t.shape)

    def _layout(self, side: Literal["x", "y"]) -> str:
        return "limbs"

    def _shape(self, x: TensorType, y: TensorType) -> Shape:
        if not x.shape or not y.shape or x.shape[-1] != y.shape[-2 if len(y.shape) > 1 else 0]:
            raise ShapeError(f"shapes {x.shape} and {y.shape} do not go together in a matrix product")
        batch = broadcast(x.shape[:-2], y.shape[:-2])
        rows, columns = x.shape[-2:-1], y.shape[-1:] if len(y.shape) > 1 else ()
        # Small matrices are repeated to fill the batch; of two of them neither needs to be as large as the result.
        if math.prod(batch) > 1:
            _check_workspace(math.prod(batch) * x.shape[-1] * max(*rows, *columns, 1))
        return (*batch, *rows, *columns)

    def _inner(self, x: TensorType, y: TensorType) -> int:
        return x.shape[-1]


@register
class Conv2d(Product, frozen=True, tag="conv2d"):
    """Cross-correlation of (N, C, H, W) with (O, C / groups, kh, kw), zeros around, as in ``torch.nn.functional``."""

    stride: tuple[int, int]
    padding: tuple[int, int]
    groups: int

    def multiplied(self, ring: Ring, x: Any, y: Any) -> Array:
        return ring.conv2d(x, y, self.stride, self.padding, self.groups)

    def _split(self, ring: Ring, array: Array, side: Literal["x", "y"]) -> Any:
        return ring.kernel(array, self.groups) if side == "y" else array

    def _layout(self, side: Literal["x", "y"]) -> str:
        return f"kernel of {self.groups} groups" if side == "y" else "array"

    def _shape(self, x: TensorType, y: TensorType) -> Shape:
        if len(x.shape) != 4 or len(y.shape) != 4:
            raise ShapeError(f"conv2d takes (N, C, H, W) and (O, C / groups, kh, kw), not {x.shape} and {y.shape}")
        require(self.groups > 0, "a convolution has at least one group")
        if 0 in y.shape:
            raise ShapeError(f"convolution weights of shape {y.shape} are empty")
        channels, filters = x.shape[1], y.shape[0]
        if channels != y.shape[1] * self.groups or filters % self.groups:
            raise ShapeError(f"{channels} channels in {self.groups} groups do not go with weights of shape {y.shape}")
        kernel = (y.shape[2], y.shape[3])
        rows, columns = window_output(x.shape[2:], kernel, self.stride, self.padding)
        # One image at a time is padded and unrolled.
        _check_workspace(math.prod(n + 2 * p for n, p in zip(x.shape[2:], self.padding, strict=True)))
        _check_workspace(channels * math.prod(kernel) * rows * columns)
        return (x.shape[0], filters, rows, columns)

    def _inner(self, x: TensorType, y: TensorType) -> int:
        return math.prod(y.shape[1:])

    @property
    def _meets_zeros(self) -> bool:
        return any(self.padding)
