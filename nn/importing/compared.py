"""Network and model on the same inputs: whoever differs is not returned.

Both are evaluated on the samples and on perturbed copies of them.  What was read is compared with the true functions in
place of approximations, where nothing but rounding may be between the two; then with the approximations, where the
tolerance counts; and at last a few inputs, or one that takes long, are computed as parties compute them, in fixed-point
numbers: those of the largest results.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping, Sequence
from typing import Protocol

import msgspec
import numpy as np

from mpc.errors import DiffersFromSource, RangeError, ShapeError, UsageError
from nn.activations import Approximated
from nn.calibrate import calibrate, chunks
from nn.importing.assumed import assumed
from nn.importing.blockers import INSTEAD, Blocker, refuse
from nn.importing.fixed import MOST_PRODUCTS, fixed_point_program, fixed_point_results, products, up_to
from nn.importing.samples import perturbed
from nn.layer import Array, Layer
from nn.model import Model
from protocols import PrecisionWarning, RangeWarning
from protocols.lowering.precision import LOST

SMALLER = (1, 2, 3)
"""Of inputs in a batch: a network that counts them may be another one for few."""

TOGETHER, FEW_PRODUCTS = 8, 1 << 22
"""Inputs that are computed in the parties' numbers, and so many products of theirs, if not of a single one."""

LIKELY = 4.0
"""What a few inputs lose, so many times as much may others: beyond the tolerance, and that is warned of."""

_FITTING = "give samples that it is for, normalised, or put a reshape or a BatchNorm before it"
_SCALED = (
    "scale inputs and weights so that values are neither far above nor far below 1, as a BatchNorm does, or give a"
    " larger tolerance="
)
_BOUNDED = (
    "bound values on the way, whose ranges grow from layer to layer: ReLU6, Hardtanh, Sigmoid or Tanh in the place of"
    " what has no bound, or smaller weights, or inputs in a smaller range"
)
_OF_A_LAYER = re.compile(r"layer '([^']+)': (.*)", re.DOTALL)
_CLOSER = "put a BatchNorm before it, so that its inputs are smaller, or give a larger tolerance="


class Source(Protocol):
    """The network that a model is to be, run on arrays."""

    kind: str
    """What it is called in sentences."""
    line: str
    """Where what it computes begins."""
    seen: str
    """What to do if the model is another function."""

    @property
    def rounding(self) -> float | None:
        """How far rounding may take what is the same function, in parts of its scale; None: as far as the tolerance."""

    def __call__(self, x: Array) -> Array:
        """Its results.  Raises ShapeError for inputs that it does not take."""

    def told_apart(self, x: Array) -> Sequence[int]:
        """Batch sizes that it may be another network for, as far as that can be seen."""

    def layers(self, x: Array, names: set[str]) -> Mapping[str, list[Array]]:
        """What the steps of these names give, call after call, where it has them too."""


def checked(
    model: Model,
    source: Source,
    samples: Array,
    tolerance: float,
    lines: Mapping[str, str],
    others: Array | None = None,
) -> Model:
    """The model with intervals that cover the samples, and its BatchNorms folded.

    ``lines``: of each layer, where the network has it.  ``others``: more inputs, if not the samples perturbed.  Raises
    DiffersFromSource.
    """
    others = perturbed(samples) if others is None else others
    inputs = [*chunks(samples), *chunks(others)]
    wanted = [source(x) for x in inputs]
    scale = max(float(np.abs(want).max(initial=0.0)) for want in wanted) or 1.0
    comparison = _Comparison(source, tolerance, scale, lines, np.concatenate([samples, others]))
    unbounded = [name for name, layer in model.architecture.layers.items() if _is_everywhere(layer)]
    try:
        comparison.check_same(model, inputs, wanted)
        try:
            return comparison.passed(model, samples, inputs, wanted, everywhere=True)
        except RangeError as error:
            if not unbounded:
                raise
            try:
                passed = comparison.passed(model, samples, inputs, wanted, everywhere=False)
            except RangeError:
                raise error from None
    except UsageError as error:
        raise (error if INSTEAD in str(error) else comparison.placed(model, error)) from None
    warnings.warn(
        f"layers {', '.join(map(repr, unbounded))}: where they are right on any input, values outgrow the numbers; so"
        " they hold on what the samples lead to, as check_ranges shows, and results for inputs beyond are wrong. To be"
        f" safe, {_BOUNDED}",
        RangeWarning,
        stacklevel=4,
    )
    return passed


def _is_everywhere(layer: Layer) -> bool:
    return isinstance(layer, Approximated) and layer.is_everywhere


class _OffError(Exception):
    """In the parties' numbers results are off by so much, which is more than may be."""

    def __init__(self, off: float) -> None:
        super().__init__()
        self.off = off


class _Comparison:
    """What there is to say when they differ."""

    def __init__(
        self, source: Source, tolerance: float, scale: float, lines: Mapping[str, str], covered: Array
    ) -> None:
        self._covered = covered
        """By intervals, and by what is assumed."""
        self._source = source
        self._tolerance = tolerance
        self._scale = scale
        self._lines = lines

    def check_same(self, model: Model, inputs: list[Array], wanted: list[Array]) -> None:
        """That it is one function, and the model's but for approximations.  Raises DiffersFromSource."""
        source = self._source
        if not np.array_equal(source(inputs[0]), wanted[0], equal_nan=True):
            self.refuse_changing()
        same = self._tolerance if source.rounding is None else source.rounding
        for x, want in zip(inputs, wanted, strict=True):
            self._check_alone(x, want, same, [n for n in SMALLER if n < len(x)])
        self._check_alone(inputs[0], wanted[0], same, source.told_apart(inputs[0]))
        for x, want in zip(inputs, wanted, strict=True):
            if not _difference(model.plain(x, exact=True), want) <= same * self._scale:
                self.refuse(model, x, want, exact=True, allowed=same)

    def passed(
        self, model: Model, samples: Array, inputs: list[Array], wanted: list[Array], *, everywhere: bool
    ) -> Model:
        """The model, the same with approximations, and in fixed-point numbers; ``everywhere`` as in ``calibrate``.

        Raises DiffersFromSource, and what the model and ``calibrate`` raise.
        """
        calibrated, _ = calibrate(model, self._covered, everywhere=everywhere)
        folded = calibrated.fold()
        for x, want in zip(inputs, wanted, strict=True):
            if not _difference(folded.plain(x), want) <= self._tolerance * self._scale:
                self.refuse(calibrated, x, want, exact=False, allowed=self._tolerance)
        # Deep, perhaps: the worst case outgrows the field, or leaves few digits, and what samples lead to does not.
        for attempt in assumed(folded, self._covered):
            try:
                small = self._check_fixed_point(attempt, samples, wanted[0])
            except (RangeError, _OffError) as error:
                failed = error
                continue
            if not small:
                return attempt
            said = msgspec.structs.replace(attempt.interface, compared=True)
            return Model(attempt.architecture, attempt.weights, said)
        raise failed if isinstance(failed, RangeError) else self._lost(attempt, samples, wanted[0], failed.off)

    def _check_alone(self, x: Array, want: Array, same: float, sizes: Sequence[int]) -> None:
        """That results are the same in batches of other sizes, where it takes them: models are predicted with any."""
        for count in sizes:
            rows = np.arange(count) % len(x)
            try:
                few = self._source(x[rows])
            except ShapeError:
                continue
            # Who loses an axis of length 1 has other shapes, and no other numbers.
            those = want[rows]
            if few.size == those.size and not _difference(few.ravel(), those.ravel()) <= same * self._scale:
                reason = f"results for an input are others in a batch of {count} than in one of {len(x)}"
                remedy = "leave the batch's size and its other inputs out of what an input's results are"
                where = f"forward of {self._source.kind}"
                raise DiffersFromSource(str(Blocker(where, reason, remedy, self._source.line)))

    def _check_fixed_point(self, model: Model, samples: Array, want: Array) -> bool:
        """In the parties' numbers, for a few inputs; whether it is small enough for that.  Raises _OffError."""
        x, want = self._largest(model, samples, want)
        large = products(model, x) > MOST_PRODUCTS
        low, high = self._bounds(model, samples)
        try:
            if large:
                fixed_point_program(model, x.shape, low, high)
                return False
            results = fixed_point_results(model, x, low, high)
        except RangeError as error:
            raise self.placed(model, error, _BOUNDED) from None
        off = _difference(results.values, want)
        if not off <= self._tolerance * self._scale:
            raise _OffError(off)
        much = off > LOST * results.magnitude
        if much or off > self._tolerance / LIKELY * self._scale:
            than = "a thousandth of what they can be" if much else f"1/{LIKELY:g} of that, which others may exceed"
            warnings.warn(
                f"in fixed-point numbers, {self._results(off)}, more than {than}: {_SCALED}",
                PrecisionWarning,
                stacklevel=6,
            )
        return True

    def _largest(self, model: Model, samples: Array, want: Array) -> tuple[Array, Array]:
        """The samples of the largest results, as many as are soon computed, and those: of small ones, less is lost."""
        count = max(1, min(TOGETHER, FEW_PRODUCTS // max(1, products(model, samples[:1]))))
        order = np.argsort(-np.abs(want.reshape(len(want), -1)).max(1, initial=0.0), kind="stable")[:count]
        return samples[order], want[order]

    def _bounds(self, model: Model, samples: Array) -> tuple[float, float]:
        """Of inputs.  Raises RangeError for samples that are none."""
        low, high = float(samples.min()), float(samples.max())
        if model.interface.input is not None:
            said = model.interface.bounds()
            if not said[0] <= low <= high <= said[1]:
                raise RangeError(
                    f"samples from {low:g} to {high:g} are not inputs as the model says that it takes, in"
                    f" [{said[0]:g}, {said[1]:g}]"
                )
            low, high = said
        return (low, high) if low < high else (low - 1.0, high + 1.0)

    def _lost(self, model: Model, samples: Array, want: Array, off: float) -> DiffersFromSource:
        """What is wrong, with the first layer that loses it in the parties' numbers."""
        (x, _), (low, high) = self._largest(model, samples, want), self._bounds(model, samples)
        name, layer, by = "", "", ""
        for number, (step, value) in enumerate(zip(model.architecture.steps, model.values(x)[1:], strict=True)):
            reach = float(np.abs(value).max(initial=0.0))
            lost = _difference(fixed_point_results(up_to(model, number), x, low, high).values, value)
            name, layer, by = step.name, type(step.layer).__name__, f"by {lost:.2g} of {reach:.2g}"
            if not lost <= self._tolerance * reach:
                break
        reason = f"it is the first to differ in fixed-point numbers, {by}; {self._results(off)}"
        return DiffersFromSource(str(Blocker(f"layer {name!r} is {layer}", reason, _SCALED, self._lines.get(name, ""))))

    def _results(self, off: float) -> str:
        return (
            f"results of the model and of {self._source.kind} differ by {off:.2g} where they reach {self._scale:.2g}"
            f" (tolerance={self._tolerance:g} of that)"
        )

    def refuse_changing(self) -> None:
        reason = (
            "it gives different results for the same input: it draws random numbers, or keeps something between calls"
        )
        remedy = "leave that out in evaluation (self.training), or keep what was drawn as a buffer"
        where = f"forward of {self._source.kind}"
        raise DiffersFromSource(str(Blocker(where, reason, remedy, self._source.line)))

    def refuse(self, model: Model, x: Array, want: Array, *, exact: bool, allowed: float) -> None:
        """Raises DiffersFromSource, with the first layer that differs."""
        results = self._results(_difference(model.plain(x, exact), want))
        name, layer, by = self._first(model, x, exact, allowed)
        where = f"layer {name!r} is {layer}"
        reason = f"{by}; {results}"
        raise DiffersFromSource(
            str(Blocker(where, reason, self._source.seen if exact else _CLOSER, self._lines.get(name, "")))
        )

    def _first(self, model: Model, x: Array, exact: bool, allowed: float) -> tuple[str, str, str]:
        """The first layer whose values differ by more than ``allowed`` of their scale: name, kind, and by how much.

        Approximations are held against the true functions, all others against what the network's own layers give.
        """
        steps, before = model.architecture.steps, "the input"
        theirs = self._given(model, x) if exact else model.values(x, exact=True)[1:]
        for step, value, want in zip(steps, model.values(x, exact)[1:], theirs, strict=True):
            if want is None:
                continue
            off, reach = _difference(value, want), float(np.abs(want).max(initial=0.0))
            if not off <= allowed * reach:
                by = f"from {before} on, it is the first to differ: by {off:.2g} of {reach:.2g}"
                return step.name, type(step.layer).__name__, by
            before = f"layer {step.name!r}"
        return steps[-1].name, type(steps[-1].layer).__name__, "all layers before it are as they should be"

    def _given(self, model: Model, x: Array) -> list[Array | None]:
        """Of each step, what the network's layer of that name gives, call after call; None for all others."""
        given = self._source.layers(x, {step.name for step in model.architecture.steps})
        calls = {name: iter(values) for name, values in given.items()}
        return [next(calls.get(step.name, iter(())), None) for step in model.architecture.steps]

    def placed(self, model: Model, error: UsageError, remedy: str = _FITTING) -> UsageError:
        """A layer's error with its line in forward, and what to do."""
        found = _OF_A_LAYER.match(str(error))
        if found is None:
            return refuse(self._source.kind, [Blocker.of(self._source.kind, error, "", remedy)])
        name, reason = found.groups()
        where = f"layer {name!r} is {type(model.architecture.layers[name]).__name__}"
        said = [Blocker(where, reason, remedy, self._lines.get(name, ""), type(error))]
        return refuse(self._source.kind, said)


def _difference(a: Array, b: Array) -> float:
    """The largest; infinite where shapes differ, or a number is none."""
    if a.shape != b.shape:
        return float("inf")
    off = float(np.abs(a - b).max(initial=0.0))
    return off if np.isfinite(off) else float("inf")
