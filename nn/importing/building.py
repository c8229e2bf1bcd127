"""Steps of a model, from operations on tensors that have the batch anywhere: what front ends have in common."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mpc.tensor_type import Shape
from nn import activations as a
from nn import functional as f
from nn import layers as ly
from nn import lookups as lk
from nn import softmax as s
from nn.architecture import Step
from nn.choosing import Take
from nn.importing.batch_layout import Layout
from nn.importing.blockers import refused
from nn.importing.fusing import fused
from nn.inputs import Result
from nn.layer import Array, Layer
from nn.parts import Part
from nn.sampling import TopK

MASKED = 1e3
"""What a softmax's masked inputs are lowered by, in the place of more: e^-1000 is 0 in every digit."""
ROOTS = {0.5: "sqrt", -0.5: "rsqrt", -1.0: "reciprocal"}
"""Exponents, and the functions that they are."""
MOST_POWER = 7
NEARLY = 1e-6
"""Of exponents, which are rounded to float32."""

_OWN = re.compile(r"[^A-Za-z0-9_.\-]+")


@dataclass(frozen=True, slots=True)
class Tensor:
    """One that depends on the input: its place among the architecture's values."""

    place: int
    layout: Layout


@dataclass(frozen=True, slots=True, repr=False)
class Known:
    """One that depends on no input, for a batch of one, as the front end holds it; ``name`` if it is a weight."""

    values: Any
    name: str = ""

    def __repr__(self) -> str:
        """Without its numbers: it may be named in an error."""
        return f"weight {self.name!r}"


class Building:
    """Steps and weights, as far as a graph has been walked."""

    def __init__(self, batch: int) -> None:
        self.batch = batch
        """How many inputs the sizes of layouts are for."""
        self.steps: list[Step] = []
        self.weights: dict[str, Array] = {}
        self.sources: dict[str, str] = {}
        """Of each step, by its name: where the network has it."""
        self.origins: dict[str, str] = {}
        """Of weights, by name: which of the network's tensors each is."""
        self._names: set[str] = set()
        self._shared: dict[tuple[Layer, tuple[tuple[str, str], ...]], str] = {}
        """Names of layers, by the network's own weights that they have."""

    # -- what a front end says -----------------------------------------------------------------------------------------

    @property
    def shape(self) -> Shape:
        """Of what the operation at hand gives, for the batch that is looked at."""
        raise NotImplementedError

    @property
    def source(self) -> str:
        """Where the operation at hand is."""
        raise NotImplementedError

    def array(self, known: Known) -> Array:
        """Its numbers, float64.  Raises EncodingError for what is none."""
        raise NotImplementedError

    def origin(self, known: Known) -> str:
        """Which of the network's tensors its numbers are, in whatever layout; nothing if they were computed."""
        return known.name

    def named(self, weights: Mapping[str, Known]) -> str:
        """What a step with these weights is called, if nothing else is."""
        raise NotImplementedError

    # -- operands ------------------------------------------------------------------------------------------------------

    def tensor(self, value: Any) -> Tensor:
        """One that depends on the input.  Raises UnsupportedError."""
        if not isinstance(value, Tensor):
            raise refused("its first operand depends on no input", "compute it before")
        return value

    def plain(self, value: Any) -> Tensor:
        """The same with the batch first and alone, as layers of images want it."""
        tensor = self.tensor(value)
        if not tensor.layout.is_plain:
            raise refused("the batch is not its first dimension, alone", "keep the batch first where it is used")
        return tensor

    def known(self, value: Any) -> Known:
        """One that depends on no input.  Raises UnsupportedError."""
        if not isinstance(value, Known):
            raise refused("it computes weights from the input", "use matmul, + and * of two tensors")
        return value

    # -- steps ---------------------------------------------------------------------------------------------------------

    def add(self, layer: Layer, *inputs: Tensor, layout: Layout | None = None, **weights: Known | None) -> Tensor:
        """A step, named as the module whose weights it takes.

        ``layout``: of the result; else the first operand's, with the sizes of the operation's result.
        """
        held = {local: known for local, known in weights.items() if known is not None}
        owners = tuple((local, known.name) for local, known in held.items())
        name = self._shared.get((layer, owners), "") if owners and all(own for _, own in owners) else ""
        if not name:
            name = self.fresh(self.named(held))
            self._shared[layer, owners] = name
            arrays = {f"{name}.{local}": self.array(known) for local, known in held.items()}
            self.origins |= {f"{name}.{local}": self.origin(known) for local, known in held.items()}
        else:
            # A layer that is used again, as a cell is at each step, has its weights once.
            arrays = {}
        place = self.step(name, layer, [each.place for each in inputs], arrays)
        return Tensor(place, inputs[0].layout.resized(self.shape) if layout is None else layout)

    def parameter(self, known: Known, like: Layout) -> int:
        """The place of what depends on no input, so that it broadcasts with tensors of this layout."""
        array = self.array(known)
        missing = len(like.shape) - array.ndim
        if missing < 0:
            raise refused("it has more dimensions than the tensor that it meets", "reshape it before")
        whole, axis = like.before * like.after, like.axis - missing
        if axis >= 0 and self.batch > 1 and array.shape[axis] == self.batch * whole:
            array = self._of_one(array, axis, like)
        sizes = [*(1,) * missing, *array.shape]
        own = sizes[like.axis]
        if own not in (1, whole):
            raise refused("it differs from image to image of a batch", "use the same numbers for all images")
        parts = [n if own == whole else 1 for n in (like.before, like.after) if n != 1]
        inner = (*sizes[: like.axis], *parts, *sizes[like.axis + 1 :])
        shape = (1, *inner) if missing < like.axis + 1 or parts else tuple(array.shape)
        name = self.fresh(known.name or self.named({}))
        return self.step(name, f.Parameter(shape), [], {name: array.reshape(shape)})

    def _of_one(self, array: Array, axis: int, like: Layout) -> Array:
        """Numbers that are the same for every input of the batch: those of one."""
        shape = array.shape
        apart = array.reshape(*shape[:axis], like.before, self.batch, like.after, *shape[axis + 1 :])
        first = apart.take([0], axis + 1)
        if not (apart == first).all():
            raise refused("it differs from image to image of a batch", "use the same numbers for all images")
        return first.reshape(*shape[:axis], like.before * like.after, *shape[axis + 1 :])

    def reshaped(self, tensor: Tensor, shape: Shape) -> Tensor:
        """The same elements in the same order."""
        return self.laid_out(tensor, tensor.layout.reshaped(shape, self.batch))

    def laid_out(self, tensor: Tensor, layout: Layout) -> Tensor:
        """The same elements in the same order, with this layout."""
        if layout.inner == tensor.layout.inner:
            return Tensor(tensor.place, layout)
        return self.add(f.Reshape(layout.inner), tensor, layout=layout)

    def permuted(self, tensor: Tensor, order: Sequence[int]) -> Tensor:
        """Axes in another order."""
        layout, dims = tensor.layout.permuted(order)
        if dims == tuple(range(len(dims))):
            return Tensor(tensor.place, layout)
        return self.add(f.Permute(dims), tensor, layout=layout)

    def fresh(self, said: str) -> str:
        """A name that no step and no weight has."""
        name = plain = _OWN.sub("_", said).strip("_.") or "step"
        number = 1
        while name in self._names or any(taken.startswith(f"{name}.") for taken in self.weights):
            name, number = f"{plain}_{number}", number + 1
        self._names.add(name)
        return name

    def step(self, name: str, layer: Layer, inputs: list[int], weights: Mapping[str, Array]) -> int:
        """One more, under a name that is its own; its place."""
        self.sources.setdefault(name, self.source)
        self.weights.update(weights)
        self.steps.append(Step(name, layer, tuple(inputs)))  # type: ignore[arg-type]
        return len(self.steps)

    def ended(self, results: Sequence[tuple[str, Tensor]]) -> tuple[Result, ...]:
        """The last step gives the result, which has the batch first; of several, by their names, the parts of a row."""
        if len(results) > 1:
            rows = []
            for _, each in results:
                row = Layout((self.batch, math.prod(each.layout.inner)), 0, 1, 1)
                rows.append(self.laid_out(each, row).place)
            self.step(self.fresh("output"), f.Concatenate(1), rows, {})
            self.steps[:] = fused(self.steps)
            return tuple(Result(name, each.layout.inner) for name, each in results)
        ((_, result),) = results
        if result.place != len(self.steps) or not self.steps:
            self.step(self.fresh("output"), ly.Identity(), [result.place], {})
        self.steps[:] = fused(self.steps)
        return ()


# -- what operators of all front ends are made of ----------------------------------------------------------------------


def part(graph: Building, tensor: Tensor, dim: int, start: int, step: int, count: int) -> Tensor:
    """``count`` elements of one dimension, every ``step``-th."""
    layout = tensor.layout
    slices = [(0, 1, n) for n in layout.inner]
    slices[layout.place(dim) - 1] = (start, step, count)
    made = sized(layout, dim, count)
    if made == layout and step == 1:
        return tensor
    return graph.add(Part(tuple(slices)), tensor, layout=made)


def taken(graph: Building, tensor: Tensor, dim: int, positions: Sequence[int]) -> Tensor:
    """What lies at these places of one dimension; negative ones count from its end."""
    size = tensor.layout.shape[dim]
    places = tuple(n % size if -size <= n < size else n for n in positions)
    made = sized(tensor.layout, dim, len(places))
    return graph.add(Take(tensor.layout.place(dim), places), tensor, layout=made)


def pads_of(layout: Layout, widths: Mapping[int, tuple[int, int]]) -> list[int]:
    """As ``Pad`` takes it, the last axis first: of axes of the model's tensor, how much before and after each."""
    return [n for place in range(len(layout.inner), min(widths) - 1, -1) for n in widths.get(place, (0, 0))]


def sized(layout: Layout, dim: int, size: int) -> Layout:
    """With another size of one dimension."""
    sizes = list(layout.shape)
    sizes[dim] = size
    return layout.resized(tuple(sizes))


def beside(graph: Building, x: Any, layout: Layout) -> Tensor:
    """An operand that goes with tensors of this layout."""
    if isinstance(x, Known):
        return Tensor(graph.parameter(x, layout), layout)
    tensor = graph.tensor(x)
    missing = len(layout.shape) - len(tensor.layout.shape)
    if missing > 0:
        own = tensor.layout
        tensor = graph.laid_out(tensor, own._replace(shape=(*(1,) * missing, *own.shape), axis=own.axis + missing))
    own = tensor.layout
    if (own.axis, own.before, own.after) != (layout.axis, layout.before, layout.after):
        raise refused("its operands have the batch in different places", "bring it to the same dimension before")
    return tensor


def widest(*operands: Any) -> Layout:
    """Of those that depend on the input, the one of most dimensions."""
    return max((each.layout for each in operands if isinstance(each, Tensor)), key=lambda layout: len(layout.shape))


def binary(graph: Building, layer: Layer, x: Any, y: Any, shape: Shape | None = None) -> Tensor:
    """Of two operands, one of which depends on the input; ``shape`` is the result's, if not the operation's."""
    layout = widest(x, y)
    made = layout.resized(graph.shape if shape is None else shape)
    return graph.add(layer, beside(graph, x, layout), beside(graph, y, layout), layout=made)


def affine(graph: Building, x: Tensor, scale: float, shift: float = 0.0) -> Tensor:
    """scale x + shift."""
    return x if (scale, shift) == (1.0, 0.0) else graph.add(f.Affine(scale, shift), x, layout=x.layout)


def linear(graph: Building, tensor: Tensor, weight: Known, bias: Known | None = None) -> Tensor:
    """x @ weight.T + bias, along the last dimension."""
    layout = tensor.layout
    if layout.axis == len(layout.shape) - 1:
        raise refused("it would mix the images of the batch", "keep the batch first")
    out, width = weight.values.shape
    made = layout.resized((*layout.shape[:-1], out))
    return graph.add(ly.Linear(width, out, bias is not None), tensor, layout=made, weight=weight, bias=bias)


def power_of(graph: Building, base: float, exponent: Tensor) -> Tensor:
    """base^x."""
    if base <= 0:
        raise refused(f"it is a power of {base:g}", "use a number above 0")
    power = affine(graph, exponent, math.log(base))
    return graph.add(a.Function("exp"), power, layout=power.layout)


def sign(graph: Building, tensor: Tensor) -> Tensor:
    """1, 0 and -1."""
    above, below = (graph.add(lk.Compare(kind, 0.0), tensor, layout=tensor.layout) for kind in ("gt", "lt"))
    return graph.add(f.Subtract(), above, below, layout=tensor.layout)


def log_sum(graph: Building, tensor: Tensor, dims: Sequence[int], *, keep: bool) -> Tensor:
    """Of exponentials along dimensions, one after the other: x less its log-softmax, anywhere."""
    for dim in dims:
        logs = graph.add(s.LogSoftmax(tensor.layout.place(dim)), tensor, layout=tensor.layout)
        first = [part(graph, each, dim, 0, 1, 1) for each in (tensor, logs)]
        tensor = graph.add(f.Subtract(), *first, layout=first[0].layout)
    return tensor if keep else graph.laid_out(tensor, dropped(tensor.layout, dims))


def one_hot(graph: Building, places: Tensor, count: int) -> Tensor:
    """A last dimension of bits."""
    layout = places.layout
    return graph.add(lk.OneHot(count), places, layout=layout.resized((*layout.shape, count)))


def embedded(graph: Building, hot: Tensor, table: Known) -> Tensor:
    """Rows of a matrix, in the place of one-hot vectors that are the last axis."""
    rows, width = table.values.shape
    made = hot.layout.resized((*hot.layout.shape[:-1], width))
    return graph.add(lk.Embedding(rows, width), hot, layout=made, weight=table)


def looked_up(graph: Building, table: Known, places: Tensor) -> Tensor:
    """Rows of a table, of any dimensions, at places along its first that depend on the input."""
    rows = table.values.reshape(len(table.values), -1)
    found = embedded(graph, one_hot(graph, places, len(rows)), Known(rows))
    return graph.laid_out(found, found.layout.resized((*places.layout.shape, *table.values.shape[1:])))


def gathered_at(graph: Building, x: Tensor, dim: int, places: Tensor) -> Tensor:
    """At secret places along one dimension, of all others alike: a product with one-hot vectors."""
    count = len(x.layout.shape)
    dim %= count
    if any(m != n for i, (m, n) in enumerate(zip(x.layout.shape, places.layout.shape, strict=True)) if i != dim):
        raise refused("its positions are not of the tensor's other sizes", "take as many along each other dimension")
    order = [*(i for i in range(count) if i != dim), dim]
    turned, asked = graph.permuted(x, order), graph.permuted(places, order)
    hot = one_hot(graph, asked, x.layout.shape[dim])
    column = graph.laid_out(turned, turned.layout.resized((*turned.layout.shape, 1)))
    found = graph.add(f.Matmul(), hot, column, layout=hot.layout.resized((*asked.layout.shape, 1)))
    return graph.permuted(graph.laid_out(found, asked.layout), [order.index(i) for i in range(count)])


def product(graph: Building, x: Tensor, dim: int, *, keep: bool) -> Tensor:
    """Along a dimension, halves by halves."""
    while (size := x.layout.shape[dim]) > 1:
        half = size // 2
        one, other = (part(graph, x, dim, start, 1, half) for start in (0, half))
        made = graph.add(f.Multiply(), one, other, layout=one.layout)
        if size % 2:
            last = part(graph, x, dim, size - 1, 1, 1)
            joined = sized(x.layout, dim, half + 1)
            made = graph.add(f.Concatenate(x.layout.place(dim)), made, last, layout=joined)
        x = made
    return x if keep else graph.laid_out(x, dropped(x.layout, [dim]))


def powered(graph: Building, x: Tensor, exponent: float) -> Tensor:
    """x to a public power: whole ones to 7, halves to 7, and below 0 their reciprocals."""
    exponent = round(2 * exponent) / 2 if abs(2 * exponent - round(2 * exponent)) < NEARLY else exponent
    if exponent in ROOTS:
        return graph.add(a.Function(ROOTS[exponent]), x, layout=x.layout)
    if not (2 * exponent).is_integer() or not 0 < abs(exponent) <= MOST_POWER:
        raise refused(f"its exponent is {exponent:g}", f"use multiples of 1/2 from -{MOST_POWER} to {MOST_POWER}")
    whole, half = divmod(abs(exponent), 1.0)
    if exponent < 0:
        x, half = graph.add(a.Function("reciprocal"), x, layout=x.layout), half
    made = x if whole == 1 else graph.add(a.Polynomial((0.0,) * int(whole) + (1.0,)), x, layout=x.layout)
    if not half:
        return made
    root = graph.add(a.Function("sqrt"), x, layout=x.layout)
    return graph.add(f.Multiply(), made, root, layout=x.layout)


def ordered(graph: Building, x: Tensor, k: int, dim: int, *, smallest: bool, positions: bool) -> list[Tensor]:
    """The first ``k`` along a dimension, in order, and where they are, if anybody asks."""
    dim %= len(x.layout.shape)
    made = sized(x.layout, dim, 2 * k if positions else k)
    found = graph.add(TopK(x.layout.place(dim), k, smallest, positions), x, layout=made)
    return [part(graph, found, dim, i * k, 1, k) for i in range(2)] if positions else [found]


def reduced(layout: Layout, dims: Sequence[int]) -> Layout:
    """With a size of 1 in the place of these."""
    for dim in dims:
        layout = sized(layout, dim, 1)
    return layout


def dropped(layout: Layout, dims: Collection[int]) -> Layout:
    """Without these dimensions, of size 1."""
    count = len(layout.shape)
    gone = {dim % count for dim in dims}
    kept = tuple(n for i, n in enumerate(layout.shape) if i not in gone)
    return layout._replace(shape=kept, axis=layout.axis - sum(i < layout.axis for i in gone))


def over(graph: Building, layer: Layer, tensor: Tensor, dims: Sequence[int], *, keep: bool) -> Tensor:
    """Of a layer that keeps dimensions that it goes over, as sizes of 1; they are dropped unless all shall be kept."""
    made = graph.add(layer, tensor, layout=reduced(tensor.layout, dims))
    return made if keep else graph.laid_out(made, dropped(made.layout, dims))


def expanded(graph: Building, tensor: Tensor, shape: Shape, zeros: Known) -> Tensor:
    """Repeated along dimensions of size 1: a sum with zeros of that size, which is local."""
    tensor = beside(graph, tensor, Layout(shape, len(shape) - len(tensor.layout.shape) + tensor.layout.axis,
                                          tensor.layout.before, tensor.layout.after))  # fmt: skip
    layout = tensor.layout.resized(shape)
    if tensor.layout.shape == shape:
        return tensor
    if shape[layout.axis] != tensor.layout.shape[layout.axis]:
        raise refused("it repeats the batch", "keep the batch first, and one axis for each that is repeated")
    return graph.add(f.Add(), tensor, Tensor(graph.parameter(zeros, layout), layout), layout=layout)
