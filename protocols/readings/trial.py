"""A program at points that nobody could foresee: what its results are of the secrets, found out element by element.

Of `protocols.readings.explain`, which says what that is for and why it is right.
"""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from mpc import fixed_point
from mpc.operation import Input, Stored
from mpc.program import Program
from mpc.program_format import Node
from mpc.rings import FIELD, Array, Ring, field, known_rings
from mpc.rings.prg import Seed, fresh_seed
from mpc.tensor_type import TensorType
from protocols.operations import (
    assume,
    comparison,
    linear,
    one_hot,
    polynomial,
    quotient,
    truncated_product,
    truncation,
)
from protocols.readings.clear import clear_values

Reals = npt.NDArray[np.float64]

SMALL = 9
"""Rows: a number that is of no more is one of few people."""
_SHARE = 0.25
"""Of the rows, that are moved at a time."""
_TRIES = 4
"""Moves of the same rows, of which each has to leave a number where it is for these rows to be none of its own."""
_MOVES = 16
"""Of all rows: a bit, which turns at every other one, is taken for one that nothing moves once in 65,536 times."""
_LINES, _BEND = 8, 0.05
"""A number that bends by less than this part of how far it moves, on so many lines together, is nearly linear."""
_POINTS, _ROOM = 4, 8
"""At which it is looked whether numbers lie where they are declared to, but for so many units of rounding."""
_KEPT = 64
"""Numbers of all results together, of which the lines that they were on are kept, to look at their sums, too."""
SIGNS = (comparison.Comparison, one_hot.OneHot)
"""Operations that are another function on every other line."""


def results(program: Program) -> tuple[int, ...]:
    """Nodes of what is revealed, in order, and then of what is kept."""
    return (*program.outputs, *program.kept.values())


def sources(program: Program) -> tuple[frozenset[int], ...]:
    """Per node: the inputs and stored tensors, as nodes, that it depends on."""
    found: list[frozenset[int]] = []
    for i, node in enumerate(program.nodes):
        own = {i} if isinstance(node.operation, Input | Stored) else ()
        found.append(frozenset(own).union(*(found[j] for j in node.inputs)))
    return tuple(found)


def _as_read(program: Program) -> Program:
    """``program``, where rows are drawn with tensors that have just these."""
    drawn = [n.operation for n in program.nodes if isinstance(n.operation, Stored) and n.operation.rows]
    if not drawn:
        return program
    names = {operation: f"rows {number}" for number, operation in enumerate(dict.fromkeys(drawn))}

    def read(node: Node) -> Node:
        operation = node.operation
        if not isinstance(operation, Stored) or operation not in names:
            return node
        return msgspec.structs.replace(
            node, operation=msgspec.structs.replace(operation, rows=0, tensor=names[operation])
        )

    nodes = [read(node) for node in program.nodes]
    return Program(nodes, program.outputs, program.precision, program.objective, program.keeping)


class _Untried(Exception):  # noqa: N818 - says what happened
    """It takes too long, or cannot be computed so."""


class _Line(NamedTuple):
    """Results at three points that are as far apart; what lies in the slots is ``start`` at the first."""

    start: Mapping[int, Array]
    first: list[Array]
    second: list[Array]
    third: list[Array]


class Trial:
    """A program at points over the field that nobody could foresee.  Raises `_Untried` once the time is over."""

    def __init__(self, program: Program, deadline: float) -> None:
        self._program = _as_read(program)
        self._deadline = deadline
        self._rings = known_rings()
        self._start = self._uniform()
        self._reads = sources(self._program)
        self._needed = _needed(self._program)
        self._means = {i: self._meaning(self._program.nodes[i]) for i in self._needed if i not in self._start}
        self._orders: dict[frozenset[int], list[int]] = {}
        self._lines: dict[frozenset[str], list[_Line]] = {}

    @functools.cached_property
    def _still(self) -> list[Array]:
        """The values of all that is needed, where nothing has moved."""
        values = [self._start.get(i, np.zeros(0, np.uint64)) for i in range(len(self._program.nodes))]
        for i in self._needed:
            if i not in self._start:
                values[i] = self._value(i, values)
        return values

    def _uniform(self, slots: Collection[str] | None = None) -> dict[int, Array]:
        """Of what lies in these slots, or of all that goes in, by node; a tensor that is read twice has one value."""
        leaves, seed = {}, Seed(fresh_seed())
        for i, node in enumerate(self._program.nodes):
            operation = node.operation
            if isinstance(operation, Stored) and (slots is None or operation.slot in slots):
                label = f"{operation.slot} {operation.tensor}"
            elif (isinstance(operation, Input) or i in self._program.draws) and slots is None:
                label = f"input {i}"
            else:
                continue
            leaves[i] = self._rings[node.type.ring].sample(seed.derive(label), node.type.shape)
        return leaves

    def _on_a_line(self, slots: Collection[str]) -> _Line:
        """Through random values of what lies in the slots, with all else as it is."""
        start, step = self._uniform(slots), self._uniform(slots)
        there = {i: self._ring(i).add(start[i], v) for i, v in step.items()}
        beyond = {i: self._ring(i).add(there[i], v) for i, v in step.items()}
        return _Line(start, *map(self._results, (start, there, beyond)))

    def line(self, slots: Collection[str]) -> list[tuple[int, int]]:
        """Of each result, how many elements are copies of what lies in the slots, and how many linear in it."""
        # A series has few digits, and may have the same on one line; a sign, on every other one.
        signs = any(isinstance(node.operation, SIGNS) for node in self._program.nodes)
        lines, found = [self._on_a_line(slots) for _ in range(24 if signs else 3)], []
        for n, i in enumerate(results(self._program)):
            ring, shape = self._ring(i), self._program.nodes[i].type.shape
            straight, moves, copied = np.ones(shape, bool), np.zeros(shape, bool), np.zeros(shape, bool)
            for line in lines:
                secrets = [self._real(value, j) for j, value in line.start.items()]
                copied |= _copies(self._real(line.first[n], i), secrets)
                step = ring.subtract(line.second[n], line.first[n])
                straight &= step == ring.subtract(line.third[n], line.second[n])
                moves |= step != 0
            found.append((int(copied.sum()), int((straight & moves | copied).sum())))
        if sum(self._program.nodes[i].type.size for i in results(self._program)) <= _KEPT:
            self._lines[frozenset(slots)] = [line._replace(start={}) for line in lines]
        return found

    def nearly(self, slots: Collection[str]) -> list[int]:
        """Of each result, how many elements move with what lies in the slots, and all but straight."""
        rng, nodes = np.random.default_rng(), self._program.nodes
        known, ends = self._real_values(rng), [self._real_values(rng) for _ in range(2 * _LINES)]
        moves, bends = ([np.zeros(nodes[i].type.shape) for i in results(self._program)] for _ in range(2))
        for start, end in zip(ends[::2], ends[1::2], strict=True):
            middle = {key: (start[key] + end[key]) / 2 for key in start}
            sought = [{key: at[key] for key in at if key[0] in slots} for at in (start, middle, end)]
            points = [self._real_results({**known, **at}) for at in sought]
            for n, (a, b, c) in enumerate(zip(*points, strict=True)):
                moves[n] += np.abs(b - a) + np.abs(c - b)
                bends[n] += np.abs(c - 2 * b + a)
        return [int(((m > 0) & (b <= _BEND * m)).sum()) for m, b in zip(moves, bends, strict=True)]

    def _real_values(self, rng: np.random.Generator) -> dict[tuple[str, str], Reals]:
        """Of all that goes in, uniform in its range, by slot and tensor; of an input, by its node."""
        return {self._key(i): rng.uniform(t.low, t.high, t.shape) for i, t in self._sources()}

    def _sources(self) -> Iterator[tuple[int, TensorType]]:
        """Of all that goes in, its node and type."""
        for i, node in enumerate(self._program.nodes):
            if isinstance(node.operation, Input | Stored):
                yield i, node.type

    def _key(self, i: int) -> tuple[str, str]:
        operation = self._program.nodes[i].operation
        return (operation.slot, operation.tensor) if isinstance(operation, Stored) else ("", str(i))

    def astray(self) -> int:
        """How many numbers are declared to lie in a range that they leave, where all is where it is assumed to be."""
        rng, nodes = np.random.default_rng(), self._program.nodes
        left = {i: np.zeros(n.type.shape, bool) for i, n in enumerate(nodes) if self._declared(n)}
        for _ in range(_POINTS if left else 0):
            found, beyond = self._clear(self._real_values(rng)), list[bool]()
            for i, node in enumerate(nodes):
                beyond.append(any(beyond[j] for j in node.inputs))
                if not beyond[i] and (i in left or isinstance(node.operation, assume.Assume)):
                    t = node.type
                    real = fixed_point.decode(found[i], t.fraction_bits)
                    room = _ROOM * math.ldexp(1.0, -t.fraction_bits)
                    out = (real < t.low - room) | (real > t.high + room)
                    beyond[i] = isinstance(node.operation, assume.Assume) and bool(out.any())
                    if i in left:
                        left[i] |= out
        return sum(int(out.sum()) for out in left.values())

    def _declared(self, node: Node) -> bool:
        """Whether its range is what the program says, and not what follows from its operands'."""
        if isinstance(node.operation, linear.Declare):
            return True
        operands = (self._program.nodes[i].operation for i in node.inputs)
        return any(isinstance(each, linear.Declare) and each.gain is not None for each in operands)

    def _real_results(self, values: Mapping[tuple[str, str], Reals]) -> list[Reals]:
        found = self._clear(values)
        wanted = [(found[i], self._program.nodes[i].type) for i in results(self._program)]
        return [fixed_point.decode(value, t.fraction_bits, self._rings[t.ring]) for value, t in wanted]

    def _clear(self, values: Mapping[tuple[str, str], Reals]) -> list[Array]:
        """By the clear reading, and what is compared by its digits: a program may declare any range, and then they tell
        other bits of a secret than a sign, and several of them the secret."""
        self._check_time()
        encoded = {}
        for i, t in self._sources():
            if t.ring != FIELD or not t.fits(fixed_point.CAPACITY_BITS):
                raise _Untried
            encoded[self._key(i)] = fixed_point.encode(values[self._key(i)], t.fraction_bits)
        inputs = [encoded[self._key(i)] for i in self._program.inputs]
        nodes = self._program.nodes
        # What is drawn is the same at every point: it says nothing of anybody's secrets.
        drawn = [self._rings[nodes[i].type.ring].zeros(nodes[i].type.shape) for i in self._program.draws]
        return clear_values(self._program, inputs, encoded, self._rings, drawn, by_digits=True)

    def _check_time(self) -> None:
        if time.thread_time() > self._deadline:
            raise _Untried

    def combined(self, slots: Collection[str]) -> int:
        """As ``Examined.combined``.

        A sum c . f of the numbers f of all results bends along a line by c . d, where they bend by d.  So the c that do
        not, on more lines than there are numbers, are those with which it is linear, or does not depend on the secrets.
        """
        fields = [n for n, i in enumerate(results(self._program)) if self._program.nodes[i].type.ring == FIELD]
        steps, bends, numbers = list[Array](), list[Array](), 0
        known = iter(self._lines.get(frozenset(slots), ()))
        while len(bends) <= numbers:
            line = next(known, None) or self._on_a_line(slots)
            a, b, c = (_joined([at[n] for n in fields]) for at in (line.first, line.second, line.third))
            steps.append(field.subtract(b, a))
            bends.append(field.subtract(field.subtract(c, b), steps[-1]))
            numbers = len(a)
        straight = ~np.any(bends, axis=0)
        return _rank([*steps, *bends]) - _rank(bends) - _rank([step[straight] for step in steps])

    def crowds(self, slot: str, rows: int) -> list[int | None]:
        """As ``Examined.crowds``."""
        rng = np.random.default_rng()
        base = self._results({})
        depends = [np.zeros(a.shape, bool) for a in base]
        for _ in range(_MOVES):
            moved = self._moved(slot, np.ones(rows, bool))
            depends = [d | (a != b) for d, a, b in zip(depends, base, moved, strict=True)]
        unmoved = [np.zeros(a.shape, np.int64) for a in base]
        subsets = max(32, min(256, 2**25 // self._program.elements))
        for _ in range(subsets):
            subset = rng.random(rows) < _SHARE
            same = depends
            # A count may come out as it was by chance, where rows move to either side: not time after time.
            for _ in range(_TRIES):
                moved = self._moved(slot, subset)
                same = [s & (a == b) for s, a, b in zip(same, base, moved, strict=True)]
                if not any(s.any() for s in same):
                    break
            for count, s in zip(unmoved, same, strict=True):
                count += s
        # Each row is spared with a chance of 1 - share, so of k rows all are with that to the k.
        return [_crowd(float(count[d].max(initial=0)) / subsets) for count, d in zip(unmoved, depends, strict=True)]

    def _moved(self, slot: str, which: npt.NDArray[np.bool_]) -> list[Array]:
        """Results where these rows are elsewhere, of what has so many in ``slot``."""
        moved = {}
        for i, step in self._uniform((slot,)).items():
            if step.shape[:1] == which.shape:
                moved[i] = self._start[i].copy()
                moved[i][which] = self._ring(i).add(self._start[i], step)[which]
        return self._results(moved)

    def _results(self, moved: Mapping[int, Array]) -> list[Array]:
        """With these leaves elsewhere; what does not depend on them is computed once."""
        values = list(self._still)
        for i in self._after(frozenset(moved)):
            values[i] = moved[i] if i in moved else self._value(i, values)
        return [values[i] for i in results(self._program)]

    def _after(self, moved: frozenset[int]) -> list[int]:
        """What depends on these leaves, and is needed for a result: most of what watches over ranges is not."""
        if moved not in self._orders:
            self._orders[moved] = [i for i in self._needed if self._reads[i] & moved]
        return self._orders[moved]

    def _value(self, i: int, values: Sequence[Array]) -> Array:
        self._check_time()
        return self._means[i]([values[j] for j in self._program.nodes[i].inputs])

    def _meaning(self, node: Node) -> Callable[[list[Array]], Array]:
        """As the clear reading has it, but with an exact quotient for a truncation."""
        operation, types = node.operation, self._program.input_types(node)
        if isinstance(operation, truncation.Truncate):
            return functools.partial(_quotient, divisors=(2**operation.bits,))
        if isinstance(operation, quotient.Quotient):
            return functools.partial(_quotient, divisors=(operation.divisor,))
        if isinstance(operation, truncated_product.TruncatedMultiply):
            return functools.partial(_quotient, divisors=tuple(2**bits for bits in operation.bits))
        if isinstance(operation, polynomial.TruncatedPolynomial):
            cut = operation.bits
            types = (types[0].replace(fraction_bits=types[0].fraction_bits - cut),)
            exact = polynomial.Polynomial(operation.coefficients, operation.coefficient_bits)
            return lambda inputs: exact.clear(self._rings, types, [_shifted(inputs[0], cut)])
        return functools.partial(operation.clear, self._rings, types)

    def _ring(self, i: int) -> Ring:
        return self._rings[self._program.nodes[i].type.ring]

    def _real(self, x: Array, i: int) -> Array | None:
        """The real number itself, in the field: whatever its fraction bits."""
        t = self._program.nodes[i].type
        return _shifted(x, t.fraction_bits) if t.ring == FIELD else None


def _joined(arrays: list[Array]) -> Array:
    return np.concatenate([np.zeros(0, np.uint64), *(array.reshape(-1) for array in arrays)])


def _rank(rows: list[Array]) -> int:
    """Of a matrix over the field."""
    left, rank = np.array(rows), 0
    while (places := np.argwhere(left)).size:
        row, column = places[0]
        pivot = field.scale(left[row], pow(int(left[row, column]), -1, field.P))
        left = field.subtract(left, field.multiply(left[:, column : column + 1], pivot[None]))
        rank += 1
    return rank


def _needed(program: Program) -> list[int]:
    """The nodes that some result is computed of, in order."""
    found = set(results(program))
    for i in range(len(program.nodes) - 1, -1, -1):
        if i in found:
            found.update(program.nodes[i].inputs)
    return sorted(found)


def _quotient(inputs: list[Array], divisors: Sequence[int]) -> Array:
    """The product of what are exact quotients."""
    exact = [field.scale(x, pow(divisor, -1, field.P)) for x, divisor in zip(inputs, divisors, strict=True)]
    return functools.reduce(field.multiply, exact)


def _shifted(x: Array, bits: int) -> Array:
    """x / 2^bits, exactly."""
    return field.scale(x, pow(2, -bits, field.P))


def _copies(values: Array | None, secrets: list[Array | None]) -> npt.NDArray[np.bool_]:
    """Which values are a number of the secrets, up to signs."""
    if values is None:
        return np.zeros((), bool)
    known = [
        either.reshape(-1) for secret in secrets if secret is not None for either in (secret, field.negate(secret))
    ]
    return np.isin(values, np.concatenate(known)) if known else np.zeros((), bool)


def _crowd(spared: float) -> int | None:
    """Of how many rows something is that was not moved in this part of the trials."""
    if spared <= (1 - _SHARE) ** (SMALL + 0.5):
        return None
    return max(1, round(math.log(spared) / math.log(1 - _SHARE)))
