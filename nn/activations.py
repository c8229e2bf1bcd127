"""Activations: functions evaluated by the parties through a fit.

Without options, those that have tails (Sigmoid, Tanh, SiLU, GELU, Softplus, Mish, and erf by name) are right on
whatever comes: in one round where the types tell that it lies in the middle, else in two, by comparison
(``protocols/approximation/tails.py``); so is exp.  All others are right on an interval.

Every named one takes the same options, keywords all: ``interval`` (low, high), where one round of approximation holds;
``method`` (``"fourier"``, the default; ``"minimax"``, ``"taylor"``, ``"composite"``); ``terms`` of a Fourier fit or
``degree`` of a polynomial.  Inputs outside an interval that is given go wrong: ``nn.calibrate`` chooses intervals from
samples, and ``check_ranges`` tells how far inputs go.
"""

from __future__ import annotations

import functools
from itertools import pairwise
from typing import Literal

import msgspec
import numpy as np

from mpc.errors import UnsupportedError
from nn.layer import Array, Arrays, Layer, Secrets, check_finite
from protocols.approximation import (
    FUNCTIONS,
    Fit,
    FourierFit,
    PiecewiseFit,
    PolynomialFit,
    RootFit,
    TailedFit,
    default_fit,
)
from protocols.approximation.defaults import make_fit
from protocols.approximation.pieces import check_pieces
from protocols.approximation.tails import EVERYWHERE, exponential, tailed
from protocols.operations.fourier import MAX_MULTIPLIER, MAX_TERMS
from protocols.trace.secret_tensor import SecretTensor

Interval = tuple[float, float]

MOST_PIECES = 16

MAX_BOUND = 2.0**20
"""Of an interval's ends."""

Method = Literal["fourier", "minimax", "taylor", "composite"]


class Ranged(Layer, frozen=True, kw_only=True):
    """A layer that is right only where its input stays inside an interval."""

    @property
    def bounds(self) -> Interval | None:
        """The interval, or None where any input will do."""
        raise NotImplementedError


class Approximated(Ranged, frozen=True, kw_only=True):
    """A named function through a fit.  Raises UnsupportedError for options that make no sense."""

    method: Method = "fourier"
    interval: Interval | None = None
    terms: int | None = None
    degree: int | None = None
    found: Fit | None = None
    """What these options lead to, where that is no fit that ships: others need not find it again, nor almost it."""
    rounding: float | None = None
    """By how much rounding may take values, where that is more than the fit errs by; None: the function's target."""

    def __post_init__(self) -> None:
        check_interval(self.interval)
        if self.found is not None:
            check_fit(self.found)
        for name in ("terms", "degree"):
            value = getattr(self, name)
            if value is not None and not 1 <= value <= MAX_TERMS:
                raise UnsupportedError(f"{name} is 1 to {MAX_TERMS}, not {value}")

    @property
    def function(self) -> str:
        """Its name in ``protocols.approximation.FUNCTIONS``."""
        raise NotImplementedError

    @property
    def fit(self) -> Fit:
        """The approximation that the parties evaluate."""
        return self._find() if self.found is None else self.found

    def _find(self) -> Fit:
        if self.is_everywhere:
            return tailed(self.function)
        return fit_of(self.function, self.method, self.interval, self.terms, self.degree)

    @property
    def is_everywhere(self) -> bool:
        """Whether it is right on any input."""
        return self._plain and FUNCTIONS[self.function].tails is not None

    @property
    def _plain(self) -> bool:
        return (self.method, self.interval, self.terms, self.degree, self.found) == ("fourier", *[None] * 4)

    @property
    def is_settled(self) -> bool:
        """Whether its fit ships, or is in it.  A search takes long, and ends with other digits on other machines."""
        return self.found is not None or self._ships

    @property
    def settled(self) -> Approximated:
        """With its fit in it, unless that ships."""
        return self if self.is_settled else msgspec.structs.replace(self, found=self.fit)

    def within(self, error: float | None) -> Approximated:
        """With the cheapest fit on its interval that errs by at most ``error``, by default by the function's target.

        Raises UnsupportedError, saying what is possible.
        """
        made = self._reaching(error)
        terms = made.terms if isinstance(made, FourierFit) else None
        return msgspec.structs.replace(self, terms=terms, found=made)

    def _reaching(self, error: float | None) -> Fit:
        return reaching(self.function, self.interval, error)

    @property
    def _ships(self) -> bool:
        known = FUNCTIONS[self.function]
        usual = self.interval in (None, (known.low, known.high))
        return self.method == "fourier" and usual and self.terms is None

    @property
    def bounds(self) -> Interval | None:
        return self.interval if self.interval is not None else fit_bounds(self.fit)

    def forward(self, *inputs: SecretTensor, weights: Secrets) -> SecretTensor:
        return inputs[0].apply(self.fit, target=self._target, function=self.function)

    @property
    def _target(self) -> float:
        return FUNCTIONS[self.function].target if self.rounding is None else self.rounding

    def plain(self, *inputs: Array, weights: Arrays, exact: bool = False) -> Array:
        return self.exact(inputs[0]) if exact else np.asarray(self.fit(inputs[0]))

    def exact(self, x: Array) -> Array:
        """The true function."""
        with np.errstate(all="ignore"):  # outside its domain a function is not finite, and that is the answer
            return np.asarray(FUNCTIONS[self.function].exact(x))


class Sigmoid(Approximated, frozen=True):
    """1 / (1 + exp(-x))."""

    @property
    def function(self) -> str:
        return "sigmoid"


class Tanh(Approximated, frozen=True):
    """tanh(x)."""

    @property
    def function(self) -> str:
        return "tanh"


class SiLU(Approximated, frozen=True):
    """x sigmoid(x)."""

    @property
    def function(self) -> str:
        return "silu"


class GELU(Approximated, frozen=True):
    """x Phi(x); ``approximate="tanh"`` is torch's other form of it, at most 5e-4 away."""

    approximate: Literal["none", "tanh"] = "none"

    @property
    def function(self) -> str:
        return "gelu" if self.approximate == "none" else "gelu_tanh"


class Mish(Approximated, frozen=True):
    """x tanh(softplus(x))."""

    @property
    def function(self) -> str:
        return "mish"


class Softplus(Approximated, frozen=True):
    """log(1 + exp(beta x)) / beta; linear where ``beta x`` exceeds ``threshold``, as in torch."""

    beta: float = 1.0
    threshold: float = 20.0

    def __post_init__(self) -> None:
        check_finite("beta and threshold", self.beta, self.threshold)
        if not 2.0**-10 <= self.beta <= 2.0**10:
            raise UnsupportedError(f"beta is from 2^-10 to 2^10, not {self.beta}")
        if self.threshold < 10:
            raise UnsupportedError("a threshold below 10 makes softplus jump: raise it")
        super().__post_init__()

    @property
    def function(self) -> str:
        return "softplus"

    def _find(self) -> Fit:
        """Of the function at beta 1: its argument is ``beta x``."""
        if self.is_everywhere:
            return super()._find()
        return fit_of(self.function, self.method, self._scaled, self.terms, self.degree)

    def _reaching(self, error: float | None) -> Fit:
        return reaching(self.function, self._scaled, None if error is None else error * self.beta)

    @property
    def _scaled(self) -> Interval | None:
        return None if self.interval is None else (self.interval[0] * self.beta, self.interval[1] * self.beta)

    @property
    def bounds(self) -> Interval | None:
        bounds = fit_bounds(self.fit)
        if self.interval is not None or bounds is None:
            return self.interval
        return bounds[0] / self.beta, bounds[1] / self.beta

    def forward(self, *inputs: SecretTensor, weights: Secrets) -> SecretTensor:
        if self.beta == 1.0:
            return super().forward(*inputs, weights=weights)
        scaled = (inputs[0] * self.beta).apply(self.fit, target=self._target, function=self.function)
        return scaled * (1.0 / self.beta)

    def plain(self, *inputs: Array, weights: Arrays, exact: bool = False) -> Array:
        if exact:
            return self.exact(inputs[0])
        return np.asarray(self.fit(inputs[0] * self.beta) / self.beta)

    def exact(self, x: Array) -> Array:
        scaled = x * self.beta
        return np.where(scaled > self.threshold, x, np.logaddexp(0.0, scaled) / self.beta)


class Function(Approximated, frozen=True):
    """One of the functions that torch has no layer for: exp, log, reciprocal, sin, cos, or any other by name."""

    name: str

    def __post_init__(self) -> None:
        if self.name not in FUNCTIONS:
            raise UnsupportedError(f"there is no function {self.name!r}: the known ones are {', '.join(FUNCTIONS)}")
        super().__post_init__()

    @property
    def function(self) -> str:
        return self.name

    @property
    def is_everywhere(self) -> bool:
        return super().is_everywhere or (self._plain and self.name == "exp")

    @property
    def bounds(self) -> Interval | None:
        return None if self.is_everywhere else super().bounds

    def forward(self, *inputs: SecretTensor, weights: Secrets) -> SecretTensor:
        if self.name != "exp" or not self.is_everywhere:
            return super().forward(*inputs, weights=weights)
        t = inputs[0].type
        return inputs[0].apply(_exp(t.low, t.high), target=FUNCTIONS["exp"].target)

    def plain(self, *inputs: Array, weights: Arrays, exact: bool = False) -> Array:
        (x,) = inputs
        if exact or self.name != "exp" or not self.is_everywhere or not x.size:
            return super().plain(x, weights=weights, exact=exact)
        return np.asarray(_exp(float(x.min()), float(x.max()))(x))


def _exp(low: float, high: float) -> Fit:
    """Of what ships, so that it is the same everywhere."""
    ships = FUNCTIONS["exp"]
    return default_fit("exp") if ships.low <= low and high <= ships.high else exponential(low, high)


class Polynomial(Ranged, frozen=True):
    """c0 + c1 x + c2 x^2 + ...: exact, one round where it fits.  ``interval`` is where x is assumed to lie."""

    coefficients: tuple[float, ...]
    interval: Interval | None = None

    def __post_init__(self) -> None:
        if not 1 <= len(self.coefficients) <= MAX_TERMS + 1:
            raise UnsupportedError(f"a polynomial has 1 to {MAX_TERMS + 1} coefficients")
        check_finite("coefficients", *self.coefficients)
        check_interval(self.interval)

    @property
    def bounds(self) -> Interval | None:
        return self.interval

    def forward(self, *inputs: SecretTensor, weights: Secrets) -> SecretTensor:
        x = inputs[0] if self.interval is None else inputs[0].assumed(*self.interval)
        return x.polynomial(self.coefficients)

    def plain(self, *inputs: Array, weights: Arrays, exact: bool = False) -> Array:
        return np.asarray(np.polynomial.polynomial.polyval(inputs[0], self.coefficients))


class Activation(Ranged, frozen=True):
    """Any fit made by ``protocols.approximation``, as a layer.  The fit is the function: ``exact`` changes nothing."""

    fit: Fit

    def __post_init__(self) -> None:
        check_fit(self.fit)

    @property
    def bounds(self) -> Interval | None:
        return fit_bounds(self.fit)

    def forward(self, *inputs: SecretTensor, weights: Secrets) -> SecretTensor:
        return inputs[0].apply(self.fit)

    def plain(self, *inputs: Array, weights: Arrays, exact: bool = False) -> Array:
        return np.asarray(self.fit(inputs[0]))


@functools.lru_cache(maxsize=256)
def fit_of(function: str, method: Method, interval: Interval | None, terms: int | None, degree: int | None) -> Fit:
    """The fit of a named function under a layer's options."""
    low, high = interval if interval is not None else (None, None)
    return default_fit(function, method, low=low, high=high, terms=terms, degree=degree)


@functools.lru_cache(maxsize=256)
def reaching(function: str, interval: Interval | None, error: float | None) -> Fit:
    """The cheapest fit of a named function that errs by at most ``error``, or by its target."""
    known = FUNCTIONS[function]
    low, high = interval if interval is not None else (known.low, known.high)
    return make_fit(known, low, high, error=error)


def fit_bounds(fit: Fit) -> Interval | None:
    """Where a fit holds; None: on any input."""
    everywhere = isinstance(fit, TailedFit) and fit.low <= -EVERYWHERE and fit.high >= EVERYWHERE
    return None if everywhere else (fit.low, fit.high)


def fit_error(layer: Ranged, within: Interval | None = None) -> float | None:
    """The largest error of a layer's approximation on its interval; None for one that is exact.

    ``within``: where inputs lie, for a function whose fit depends on that alone.
    """
    if isinstance(layer, Softplus):
        return layer.fit.error / layer.beta
    if isinstance(layer, Function) and layer.name == "exp" and layer.is_everywhere:
        return (default_fit("exp") if within is None else _exp(*within)).error
    return layer.fit.error if isinstance(layer, Approximated) else None


def check_interval(interval: Interval | None) -> None:
    """Raise UnsupportedError unless ``interval`` is None or a sensible one."""
    if interval is None:
        return
    check_finite("an interval", *interval)
    low, high = interval
    if not -MAX_BOUND <= low < high <= MAX_BOUND:
        raise UnsupportedError(f"[{low}, {high}] is not an interval within [{-MAX_BOUND:g}, {MAX_BOUND:g}]")


def check_fit(fit: Fit) -> None:
    """Raise UnsupportedError for a fit that nobody could have made: it may come from a stranger."""
    if isinstance(fit, TailedFit):
        _check_tails(fit)
        return
    check_interval((fit.low, fit.high))
    check_finite("a fit's error", fit.error)
    if isinstance(fit, FourierFit):
        check_finite("a fit's coefficients", fit.constant, *fit.cosines, *fit.sines)
        if not (1 <= fit.terms <= MAX_TERMS and 1 <= fit.multiplier <= MAX_MULTIPLIER and abs(fit.period_log2) <= 40):
            raise UnsupportedError("a Fourier fit with terms or period out of range")
    elif isinstance(fit, PolynomialFit):
        check_finite("a fit's coefficients", *fit.coefficients)
        if not 1 <= len(fit.coefficients) <= MAX_TERMS + 1:
            raise UnsupportedError(f"a polynomial has 1 to {MAX_TERMS + 1} coefficients")
    elif isinstance(fit, RootFit):
        if fit.low <= 0:
            raise UnsupportedError("a root of what may be 0")
        check_fit(fit.start)
        check_fit(fit.correction)
    elif isinstance(fit, PiecewiseFit):
        check_pieces(fit)
    else:
        if not 1 <= len(fit.stages) <= MAX_TERMS:
            raise UnsupportedError(f"a composite fit has 1 to {MAX_TERMS} stages")
        for stage in fit.stages:
            check_fit(stage)


def _check_tails(fit: TailedFit) -> None:
    """As ``check_fit``."""
    if not 1 <= len(fit.pieces) <= MOST_PIECES or len(fit.whole) > MOST_PIECES:
        raise UnsupportedError(f"a fit has 1 to {MOST_PIECES} pieces")
    for piece in fit.pieces:
        if isinstance(piece, FourierFit):
            check_fit(piece)
            continue
        check_finite("a fit's lines", piece.low, piece.high, piece.error, *piece.coefficients)
        if not (1 <= len(piece.coefficients) <= 2 and -EVERYWHERE <= piece.low <= piece.high <= EVERYWHERE):
            raise UnsupportedError("a fit's pieces are lines, or Fourier fits")
    for one in fit.whole:
        check_fit(one)
    check_finite("a fit's error", fit.error)
    for before, after in pairwise(fit.pieces):
        if not before.low <= after.low <= before.high <= after.high:
            raise UnsupportedError("a fit's pieces do not follow each other")
