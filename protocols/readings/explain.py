"""What a program tells of secrets: the reading of an owner who is asked to let it run.

Whoever is revealed a copy of a secret, or a linear map of it, can read the secret or solve for it; so an owner has to
see such a result whatever way it is written.  Two looks, and what either of them sees counts:

* *By form*, node by node: what is linear in what is linear is linear.  Of any size, and never less than the truth for
  what is written plainly; but (x + 1)^2 - x^2, or a copy beside something harmless in one tensor, pass.
* *By trial*, of programs up to `MOST_TRIED` elements: results are polynomials of the secrets over the field, once a
  truncation by f bits is the exact product with 2^-f.  On a random line u + t v an element looks affine at t = 0, 1, 2
  without being so with a chance of about degree / 2^61 (Schwartz 1980, Zippel 1979).  Trigonometric series are taken as
  they are, at angles that are uniform then.  So each *element* of a result is found out by itself.

Neither is a proof of privacy, nor is there one of this kind: x + 0.001 x^2 is not linear, and x all the same.  What
bounds everything is how many numbers come out.
"""

from __future__ import annotations

import enum
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np

from mpc.operation import Input, Operation, Stored
from mpc.program import Program
from mpc.rings import FIELD, Array, Rings, field, known_rings
from mpc.rings.prg import Seed, fresh_seed
from mpc.tensor_type import TensorType
from protocols.operations import fourier, keep, linear, mask, polynomial, product, truncation

MOST_TRIED = 2**23
"""Elements of a program that is tried: about a second, and 64 MiB."""

_KEPT_AS_THEY_ARE = (
    linear.Reshape,
    linear.Transpose,
    linear.Broadcast,
    linear.Index,
    linear.Take,
    linear.Concatenate,
    linear.Pad,
    linear.Declare,
    linear.Negate,
    linear.Raise,
    mask.Mask,
    keep.Keep,
    truncation.Truncate,
)
_ELEMENTWISE = (linear.Add, linear.Subtract, linear.Divide, product.Multiply)


class Form(enum.IntEnum):
    """What a value is of the secrets, as far as its form goes; each is what is said of a tensor as a whole."""

    NOTHING = 0
    """It does not depend on them."""
    COPY = 1
    """Numbers of theirs, up to signs and rounding, and such as do not depend on them."""
    LINEAR = 2
    BENT = 3
    """Each number is a function of one number that is linear in them."""
    MIXED = 4


@dataclass(frozen=True)
class Telling:
    """What one result tells of the secrets that were asked about."""

    form: Form
    numbers: int
    """It has so many, all told."""
    copied: int
    """That are a number of the secrets, up to its sign and rounding."""
    linear: int
    """That depend on the secrets, and linearly; the copied ones among them."""
    tried: bool
    """Whether each was found out by itself; else all have the result's form."""


def results(program: Program) -> tuple[int, ...]:
    """Nodes of what is revealed, in order, and then of what is kept."""
    return (*program.outputs, *program.kept.values())


def telling(program: Program, slots: Collection[str]) -> tuple[Telling, ...]:
    """What each of the ``results`` tells of what lies in ``slots``, to who knows everything else that goes in."""
    forms = _forms(program, slots)
    tried = _trial(program, slots) if program.elements <= MOST_TRIED else {}
    found = []
    for i in results(program):
        form, size = forms[i], program.nodes[i].type.size
        copied, linear_ones = tried.get(i, (0, 0))
        if form is Form.COPY:
            copied = copied or size
        if Form.NOTHING < form <= Form.LINEAR:
            linear_ones = linear_ones or size
        found.append(Telling(form, size, copied, linear_ones, bool(tried)))
    return tuple(found)


def sources(program: Program) -> tuple[frozenset[int], ...]:
    """Per node: the inputs and stored tensors, as nodes, that it depends on."""
    found: list[frozenset[int]] = []
    for i, node in enumerate(program.nodes):
        own = {i} if isinstance(node.operation, Input | Stored) else ()
        found.append(frozenset(own).union(*(found[j] for j in node.inputs)))
    return tuple(found)


# -- by form -----------------------------------------------------------------------------------------------------------


def _forms(program: Program, slots: Collection[str]) -> list[Form]:
    forms: list[Form] = []
    for node in program.nodes:
        operation, inputs = node.operation, [forms[j] for j in node.inputs]
        if isinstance(operation, Stored):
            forms.append(Form.COPY if operation.slot in slots else Form.NOTHING)
        elif not any(inputs):
            forms.append(Form.NOTHING)
        else:
            # The same operand twice is one number still: x * x is a function of x.
            distinct = {j for j in node.inputs if forms[j]}
            forms.append(_form(operation, max(inputs), alone=len(distinct) == 1, both=all(inputs)))
    return forms


def _form(operation: Operation, form: Form, *, alone: bool, both: bool) -> Form:
    """Of the result, when ``form`` is the most mixed of the operands; ``alone`` if one of them depends on secrets, and
    ``both`` if none is known."""
    if isinstance(operation, _KEPT_AS_THEY_ARE):
        return form
    if isinstance(operation, polynomial.Polynomial | polynomial.TruncatedPolynomial):
        return max(form, Form.BENT if any(operation.coefficients[2:]) else Form.LINEAR)
    if isinstance(operation, fourier.Fourier):
        return max(form, Form.BENT)
    if isinstance(operation, product.Product) and both:
        return max(form, Form.BENT) if isinstance(operation, product.Multiply) and alone else Form.MIXED
    if form <= Form.LINEAR:
        # What is not known here is taken for linear, too: better a line too many than one too few.
        return Form.LINEAR
    return form if isinstance(operation, _ELEMENTWISE) and alone else Form.MIXED


# -- by trial ----------------------------------------------------------------------------------------------------------


def _trial(program: Program, slots: Collection[str]) -> dict[int, tuple[int, int]]:
    """Of each result, how many elements are copies of secrets, and how many linear in them."""
    rings, seed = known_rings(), Seed(fresh_seed())
    start, step = (_leaves(program, slots, rings, seed.derive(label)) for label in ("start", "step"))
    known = _leaves(program, (), rings, seed.derive("known"))
    points: list[list[Array]] = []
    leaves = {**known, **start}
    for _ in range(3):
        points.append(_values(program, leaves, rings))
        leaves = {**leaves, **{i: rings[program.nodes[i].type.ring].add(leaves[i], step[i]) for i in step}}
    secrets = [_scaled(start[i], program.nodes[i].type) for i in start]
    found = {}
    for i in results(program):
        t = program.nodes[i].type
        ring = rings[t.ring]
        first, second = (ring.subtract(points[k + 1][i], points[k][i]) for k in (0, 1))
        affine = (np.asarray(first) != 0) & (np.asarray(first) == np.asarray(second))
        found[i] = _copies(_scaled(points[0][i], t), secrets) if t.ring == FIELD else 0, int(affine.sum())
    return found


def _leaves(program: Program, slots: Collection[str], rings: Rings, seed: Seed) -> dict[int, Array]:
    """Uniform values of what lies in these slots; without slots, of all that goes in.

    A tensor that a program reads in two places has one value.
    """
    leaves = {}
    for i, node in enumerate(program.nodes):
        operation, ring = node.operation, rings[node.type.ring]
        if isinstance(operation, Stored) and (not slots or operation.slot in slots):
            named = seed.derive(f"{operation.slot} {operation.tensor}")
            leaves[i] = ring.sample(named, node.type.shape)
        elif isinstance(operation, Input) and not slots:
            leaves[i] = ring.sample(seed.derive(f"input {i}"), node.type.shape)
    return leaves


def _values(program: Program, leaves: Mapping[int, Array], rings: Rings) -> list[Array]:
    """Of every node: as the clear reading, with exact quotients for truncations."""
    values: list[Array] = []
    for i, node in enumerate(program.nodes):
        if i in leaves:
            values.append(leaves[i])
            continue
        operation, types, inputs = node.operation, program.input_types(node), [values[j] for j in node.inputs]
        if isinstance(operation, truncation.Truncate):
            values.append(_shifted(inputs[0], operation.bits))
            continue
        if isinstance(operation, polynomial.TruncatedPolynomial):
            inputs = [_shifted(inputs[0], operation.bits)]
            types = (types[0].replace(fraction_bits=types[0].fraction_bits - operation.bits),)
            operation = polynomial.Polynomial(operation.coefficients, operation.coefficient_bits)
        values.append(operation.clear(rings, types, inputs))
    return values


def _shifted(x: Array, bits: int) -> Array:
    """x / 2^bits, exactly."""
    return field.scale(x, pow(2, -bits, field.P))


def _scaled(x: Array, t: TensorType) -> Array:
    """As many fraction bits as there are: the real number itself, in the field."""
    return _shifted(x, t.fraction_bits)


def _copies(values: Array, secrets: list[Array]) -> int:
    same = np.zeros(values.shape, bool)
    for secret in secrets:
        for either in (secret, field.negate(secret)):
            same |= np.isin(values, either)
    return int(same.sum())
