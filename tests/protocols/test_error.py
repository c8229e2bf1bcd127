"""What a result may be off by: a bound, of every program, against the same in float64, and not a loose one.

The same programs show that values are where their types say, on the way too, and that each node of mathematics is among
them.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tessera as ts
from mpc import fixed_point
from mpc.errors import RangeError
from mpc.operation import Input, registered
from mpc.rings import known_rings
from protocols.approximation import default_fit, fit_polynomial
from protocols.lowering.error import _RULES
from protocols.lowering.plan import lowered
from protocols.lowering.planner import usual_bits
from protocols.lowering.precision import watch_layers
from protocols.readings.clear import clear_values
from protocols.readings.memory import run_in_memory
from protocols.trace import mathematics as m
from protocols.trace.gradients import grad
from protocols.trace.normalised import normalised
from protocols.trace.secret_tensor import SecretTensor, concatenate, leaf

SHAPE = (1, 2, 4, 4)
SINE = fit_polynomial(np.sin, -1.0, 1.0, 5)


@dataclass
class Both:
    """A secret tensor, and what it means."""

    secret: SecretTensor
    real: Any


def convolved(x: Any, w: Any, padding: tuple[int, int], groups: int) -> Any:
    x = np.pad(x, ((0, 0), (0, 0), *((p, p) for p in padding)))
    windows = np.lib.stride_tricks.sliding_window_view(x, w.shape[2:], axis=(2, 3))
    per, of = x.shape[1] // groups, w.shape[0] // groups
    parts = [
        np.einsum("nchwij,ocij->nohw", windows[:, g * per : (g + 1) * per], w[g * of : (g + 1) * of])
        for g in range(groups)
    ]
    return np.concatenate(parts, axis=1)


def pooled(x: Any, kernel: tuple[int, int], padding: tuple[int, int]) -> Any:
    weight = np.full((1, 1, *kernel), 1 / (kernel[0] * kernel[1]))
    return np.concatenate([convolved(x[:, c : c + 1], weight, padding, 1) for c in range(x.shape[1])], axis=1)[
        :, :, :: kernel[0], :: kernel[1]
    ]


def scaled_to(x: SecretTensor, real: Any, low: float, high: float) -> tuple[SecretTensor, Any]:
    """Into the interval of a function, by public numbers."""
    width = x.type.high - x.type.low or 1.0
    factor = (high - low) / (2 * width)
    shift = (low + high) / 2 - factor * (x.type.low + x.type.high) / 2
    return (x * factor + shift).within(low, high), real * factor + shift


def function(name: str, low: float, high: float) -> Callable[[Both, Both, Any], tuple[SecretTensor, Any]]:
    exact = {"sigmoid": lambda v: 1 / (1 + np.exp(-v)), "exp": np.exp, "sin": np.sin, "reciprocal": np.reciprocal}[name]

    def applied(x: Both, y: Both, rng: Any) -> tuple[SecretTensor, Any]:
        secret, real = scaled_to(x.secret, x.real, low, high)
        return secret.apply(default_fit(name)), exact(real)

    return applied


def table(rng: Any, shape: tuple[int, ...]) -> Any:
    """Public numbers of some size, some of them negative."""
    return rng.uniform(-1, 1, shape) * 10.0 ** rng.uniform(-6, 6)


def with_table(
    operation: Callable[[Any, Any], Any], shape: tuple[int, ...]
) -> Callable[[Both, Both, Any], tuple[SecretTensor, Any]]:
    def applied(x: Both, y: Both, rng: Any) -> tuple[SecretTensor, Any]:
        public = table(rng, shape)
        return operation(x.secret, public), operation(x.real, public)

    return applied


def plain(operation: Callable[[Any, Any], Any]) -> Callable[[Both, Both, Any], tuple[SecretTensor, Any]]:
    """The same words for secrets and for arrays."""
    return lambda x, y, rng: (operation(x.secret, y.secret), operation(x.real, y.real))


def power(exponent: int) -> Callable[[Both, Both, Any], tuple[SecretTensor, Any]]:
    return lambda x, y, rng: (x.secret**exponent, x.real**exponent)


def polynomial(x: Both, y: Both, rng: Any) -> tuple[SecretTensor, Any]:
    coefficients = table(rng, (4,))
    secret, real = scaled_to(x.secret, x.real, -2.0, 2.0)
    return secret.polynomial(coefficients), np.polynomial.Polynomial(coefficients)(real)


def chebyshev(x: Both, y: Both, rng: Any) -> tuple[SecretTensor, Any]:
    coefficients = rng.uniform(-1, 1, 9)
    secret, real = scaled_to(x.secret, x.real, -1.0, 1.0)
    return secret.polynomial(coefficients), np.polynomial.Polynomial(coefficients)(real)


def fitted(x: Both, y: Both, rng: Any) -> tuple[SecretTensor, Any]:
    secret, real = scaled_to(x.secret, x.real, -1.0, 1.0)
    return secret.apply(SINE), np.sin(real)


def composite(x: Both, y: Both, rng: Any) -> tuple[SecretTensor, Any]:
    secret, real = scaled_to(x.secret, x.real, -4.0, 0.0)
    return secret.apply(default_fit("exp", "composite", -4.0, 0.0)), np.exp(real)


def over_orders(x: Both, y: Both, rng: Any) -> tuple[SecretTensor, Any]:
    secret, real = scaled_to(x.secret, x.real, -128.0, 400.0)
    return normalised(secret.within(1.0, 300.0), "sqrt"), np.sqrt(real)


def layer_norm(x: Both, y: Both, rng: Any) -> tuple[SecretTensor, Any]:
    secret, real = scaled_to(x.secret, x.real, -4.0, 4.0)
    centred = real - real.mean(axis=-1, keepdims=True)
    return secret.layer_norm(SHAPE[-1], eps=0.1), centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + 0.1)


def slope(x: Both, y: Both, rng: Any) -> tuple[SecretTensor, Any]:
    secret, real = scaled_to(x.secret, x.real, -8.0, 8.0)
    s = 1 / (1 + np.exp(-real))
    return grad(secret.sigmoid().sum(), secret), s * (1 - s)


STEPS: dict[str, Callable[[Both, Both, Any], tuple[SecretTensor, Any]]] = {
    "negate": plain(lambda x, y: -x),
    "add": plain(lambda x, y: x + y),
    "subtract": plain(lambda x, y: x - y),
    "multiply": plain(lambda x, y: x * y),
    "square": plain(lambda x, y: x * x),
    "by a scalar": with_table(lambda x, c: x * c, ()),
    "by numbers": with_table(lambda x, c: x * c, (4,)),
    "plus numbers": with_table(lambda x, c: x + c, (4, 1)),
    "divide": plain(lambda x, y: x / 7),
    "divide by much": plain(lambda x, y: x / 1_000_003),
    "divide by two": plain(lambda x, y: x / 64),
    "divide by a fraction": plain(lambda x, y: x / 0.37),
    "matmul": plain(lambda x, y: x @ y),
    "matmul by numbers": with_table(lambda x, c: x @ c, (4, 4)),
    "numbers matmul": with_table(lambda x, c: c @ x, (4, 4)),
    "conv2d": lambda x, y, rng: (
        x.secret.conv2d(y.secret.reshape(2, 1, 4, 4)[:, :, 1:, 1:], padding=1, groups=2),
        convolved(x.real, y.real.reshape(2, 1, 4, 4)[:, :, 1:, 1:], (1, 1), 2),
    ),
    "conv2d by numbers": lambda x, y, rng: (
        x.secret.conv2d(w := table(rng, (2, 2, 3, 3)), padding=1), convolved(x.real, w, (1, 1), 1),
    ),
    "sum": plain(lambda x, y: x + x.sum(axis=(1, 2), keepdims=True)),
    "mean": plain(lambda x, y: x - x.mean(axis=3, keepdims=True)),
    "cumsum": plain(lambda x, y: x.cumsum(2)),
    "var": plain(lambda x, y: x + x.var(axis=2, keepdims=True)),
    "avg_pool2d": lambda x, y, rng: (
        x.secret + x.secret.avg_pool2d((4, 2)).sum(axis=(2, 3), keepdims=True),
        x.real + pooled(x.real, (4, 2), (0, 0)).sum(axis=(2, 3), keepdims=True),
    ),
    "avg_pool2d of 3": lambda x, y, rng: (
        x.secret + x.secret[:, :, :3, :3].avg_pool2d(3), x.real + pooled(x.real[:, :, :3, :3], (3, 3), (0, 0)),
    ),
    "transpose": plain(lambda x, y: x.transpose(0, 1, 3, 2)),
    "reshape": plain(lambda x, y: x.reshape(2, 16).reshape(SHAPE)),
    "broadcast": plain(lambda x, y: np.broadcast_to(x[:, :, :1], SHAPE)),
    "index": plain(lambda x, y: x[:, ::-1]),
    "take": plain(lambda x, y: x[..., [3, 0, 0, 2]]),
    "pad": plain(lambda x, y: np.pad(x[..., 1:], ((0, 0), (0, 0), (0, 0), (0, 1)))),
    "concatenate": lambda x, y, rng: (
        concatenate([x.secret[:, :1], y.secret[:, 1:]], axis=1), np.concatenate([x.real[:, :1], y.real[:, 1:]], axis=1),
    ),
    "truncate": lambda x, y, rng: (x.secret.truncate(x.secret.type.fraction_bits - 5), x.real)
    if x.secret.type.fraction_bits > 11
    else (x.secret, x.real),
    "declare": lambda x, y, rng: (x.secret.within(x.secret.type.low / 2, x.secret.type.high), x.real)
    if x.real.min() > x.secret.type.low / 2
    else (x.secret, x.real),
    "relu": lambda x, y, rng: (x.secret.relu(), np.maximum(x.real, 0.0)),
    "maximum": plain(np.maximum),
    "sort": plain(lambda x, y: np.sort(x)),
    "max": plain(lambda x, y: x - np.max(x.reshape(1, 4, 8), -1).sum()),
    "clip": plain(lambda x, y: np.clip(x, 0.0, 0.25)),
    "abs": plain(lambda x, y: abs(x)),
    "max_pool2d": lambda x, y, rng: (
        x.secret - x.secret.max_pool2d((4, 2)).sum(axis=3, keepdims=True),
        x.real - x.real.reshape(*SHAPE[:2], 4, 2, 2).max(axis=(2, 4)).sum(axis=2)[:, :, None, None],
    ),
    "compare": lambda x, y, rng: (x.secret > 0.25, (x.real > 0.25) * 1.0),
    "equal": lambda x, y, rng: ((x.secret == y.secret).where(y.secret, x.secret), x.real),
    "one_hot": lambda x, y, rng: ((y.secret > 0).one_hot(2).sum(-1) * x.secret, x.real),
    "where": lambda x, y, rng: ((x.secret >= y.secret).where(x.secret, y.secret), np.maximum(x.real, y.real)),
    "sort by a network": lambda x, y, rng: (x.secret.sort(None).reshape(SHAPE), np.sort(x.real, None).reshape(SHAPE)),
    "cube": power(3),
    "seventh power": power(7),
    "polynomial": polynomial,
    "polynomial of high degree": chebyshev,
    "fit": fitted,
    "composite": composite,
    "sigmoid": function("sigmoid", -8, 8),
    "exp": function("exp", -8, 0),
    "sin": function("sin", -3.1, 3.1),
    "reciprocal": function("reciprocal", 0.5, 8),
    "over orders of magnitude": over_orders,
    "layer_norm": layer_norm,
    "masked": plain(lambda x, y: x._new(m.Masked()) if isinstance(x, SecretTensor) else x),
    "sloped": plain(lambda x, y: x._joined(m.Sloped(), x, y, y) if isinstance(x, SecretTensor) else x),
    "let through": lambda x, y, rng: (grad((x.secret.relu() * y.secret).sum(), x.secret), y.real * (x.real >= 0)),
    "slope": slope,
}  # fmt: skip
"""A step of a program: of secrets, and in float64; from and to `SHAPE`."""


def shared(rng: Any, shape: tuple[int, ...] = SHAPE, size: float | None = None) -> Both:
    size = 10.0 ** rng.uniform(-6, 6) if size is None else size
    low = size * rng.choice([-1.0, -0.5, 0.0, 0.5])
    real = rng.choice([rng.uniform(low, size, shape), rng.choice([low, size], shape)])
    return Both(leaf(Input(shape, usual_bits(low, size), low, size)), real)


def errors(secure: Any, result: SecretTensor, wanted: Any, leaves: list[Both], parties: int) -> Any:
    """What the parties' result is off by."""
    program = secure.program(result)
    types = [program.nodes[i].type for i in program.inputs]
    raw = {
        id(lowered(x.secret.node)): fixed_point.encode(x.real, x.secret.type.fraction_bits) for x in leaves
    }  # fmt: skip
    order = [x for x in program.order([lowered(result.node)]) if isinstance(x.operation, Input)]
    assert [x.type for x in order] == types
    inputs = [raw[id(x)] for x in order]
    for node, values in zip(program.nodes, clear_values(program, inputs), strict=True):
        real = fixed_point.decode(values, node.type.fraction_bits, known_rings()[node.type.ring])
        slack = 2.0**-45 * node.type.magnitude
        assert not real.size or node.type.low - slack <= real.min() <= real.max() <= node.type.high + slack, node
    run = run_in_memory(program, inputs, parties=parties)
    return np.abs(fixed_point.decode(run.outputs[0], result.type.fraction_bits) - wanted)


def test_every_operation_has_a_rule() -> None:
    missing = {name for name, kind in registered().items() if kind not in _RULES and kind.__module__ != __name__}
    assert not missing, f"protocols/lowering/error.py has no rule for {missing}"


def test_every_node_of_mathematics_is_among_them() -> None:
    rng, found = np.random.default_rng(0), set[type]()
    for step in STEPS.values():
        x = step(shared(rng, size=1.0), shared(rng, size=1.0), rng)[0]
        found |= {type(node.operation) for node in m.written([x.node])}
    # What is assumed has a test of its own.
    # Keeping reveals nothing: it is the same value.  What is drawn is whatever it is.
    # So is the order of what is shuffled, which loses nothing: tests/protocols/test_shuffle.py.
    assert set(get_args(m.Mathematics)) - {m.Assume, m.Keep, m.Draw, m.Order, m.Shuffle} == found


@settings(max_examples=60)
@given(st.integers(0, 2**32 - 1), st.lists(st.sampled_from(sorted(STEPS)), min_size=1, max_size=5))
@pytest.mark.filterwarnings("ignore::tessera.PrecisionWarning")
def test_no_result_is_further_off(secure: Any, seed: int, steps: list[str]) -> None:
    rng = np.random.default_rng(seed)
    leaves = [shared(rng), shared(rng)]
    x = walked(rng, leaves, steps)
    for parties in (2, 3):
        off = errors(secure, x.secret, x.real, leaves, parties)
        assert off.max() <= x.secret.error.absolute, (steps, off.max() / x.secret.error.absolute)


def doubled(x: Any, times: int) -> Any:
    for _ in range(times):
        x = x + x
    return x


def walked(rng: Any, leaves: list[Both], steps: list[str]) -> Both:
    """As many of the steps as are not refused."""
    x = leaves[0]
    for name in steps:
        with contextlib.suppress(RangeError):
            x = Both(*STEPS[name](x, leaves[1], rng))
    return x


LOOSER = {
    "var": 16, "composite": 16, "conv2d": 8, "conv2d by numbers": 8, "max_pool2d": 16, "reciprocal": 8,
    "over orders of magnitude": 32, "layer_norm": 32,
}  # fmt: skip
"""Sums of many, whose errors never all have one sign, and curves after curves."""


JUMPS = {"compare", "equal", "one_hot", "where", "let through"}
"""Where something is near to a threshold, the bound is that it may be on the other side."""


@pytest.mark.sampled(4)
@pytest.mark.parametrize("name", sorted(set(STEPS) - JUMPS))
@pytest.mark.filterwarnings("ignore::tessera.PrecisionWarning")
def test_of_one_operation_the_bound_is_nearly_reached(secure: Any, name: str) -> None:
    ratios = []
    for seed in range(5):
        rng = np.random.default_rng(seed)
        leaves = [shared(rng, size=10.0 ** (seed % 3 - 1)), shared(rng, size=1.0)]
        x = walked(rng, leaves, [name])
        off = errors(secure, x.secret, x.real, leaves, 2).max()
        assert off <= x.secret.error.absolute
        if off:
            ratios.append(x.secret.error.absolute / off)
    assert np.median(ratios) <= LOOSER.get(name, 4)


@pytest.mark.filterwarnings("ignore::tessera.PrecisionWarning")
def test_of_programs_the_bound_is_of_use(secure: Any) -> None:
    ratios = []
    # The jumps of these are those of comparisons.
    names = sorted(set(STEPS) - {"equal", "one_hot"})
    for seed in range(40):
        rng = np.random.default_rng(seed)
        leaves = [shared(rng), shared(rng)]
        x = walked(rng, leaves, [str(name) for name in rng.choice(names, rng.integers(2, 6))])
        off = errors(secure, x.secret, x.real, leaves, 2).max()
        if off:
            ratios.append(x.secret.error.absolute / off)
    assert np.median(ratios) <= 10


def test_whole_numbers_are_exact(secure: Any) -> None:
    x = leaf(Input((4,), 0, -1000.0, 1000.0))
    y = ((x * 3 - 7) * x).sum()
    assert (y.error.absolute, y.error.relative) == (0.0, 0.0)
    assert repr(y.error) == "<ErrorBound 0: exact>"
    assert leaf(Input((4,), 0, -1000.0, 1000.0), lost=0.5).error.absolute == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("build", "source"),
    [
        (lambda x, w: x, "what was shared with 16 fraction bits"),
        (lambda x, w: x @ w, "w, stored with 14 fraction bits"),
        (lambda x, w: x.truncate(5), "a truncation to 5 fraction bits"),
        (lambda x, w: x.sigmoid(), "the fit of a function"),
        (lambda x, w: x.labelled("act1").sigmoid(), "the fit of a function, in act1"),
        (lambda x, w: (x * 0.3).precise(6) * 0.3, "a public number that is rounded to"),
    ],
)
def test_a_bound_says_what_it_comes_of(secure: Any, build: Any, source: str) -> None:
    y = build(secure.secret((2, 4)), secure.stored("w", (4, 3)))
    assert source in y.error.source
    assert repr(y.error).endswith(f"of the range: mostly {y.error.source}>")
    assert y.error.relative == y.error.absolute / y.type.magnitude


def test_of_what_grows_without_end_nothing_is_stated(secure: Any) -> None:
    x, y = secure.secret((), 0.5, 1.0), secure.secret((), 1.0, 2.0)
    for _ in range(30):
        y = (y * (2 - x * y)).within(0.9, 2.1)
        y = (y**3).within(0.9, 2.1).sigmoid().within(0.4, 0.9) + 0.5
    assert y.error.relative > 0
    assert (y * 0).error.absolute < 1e-6


def test_a_bound_is_found_out_when_it_is_asked_for(secure: Any) -> None:
    """What layers lose is not looked at while they are written: that would be with each prediction."""
    y = secure.secret((4,)).labelled("layer") * 0.3
    assert lowered(y.node).loss is None
    assert y.error.absolute > 0
    assert lowered(y.node).loss is not None


class TestWarning:
    @pytest.mark.parametrize(
        ("build", "message"),
        [
            (lambda x: x * 1e-14, r"\*: .*a truncation to 7 fraction bits: keep more fraction bits"),
            (
                lambda x: (x * 1e3).within(0, 0.1),
                r"within: of values up to 0.1, .*what was shared with 16 .*: share with",
            ),
            (
                lambda x: (x * 16 - 8).sigmoid(method="minimax"),
                r"the function: .*the fit of a function: ask for a better fit",
            ),
            (lambda x: x.sin(terms=2, interval=(-4, 4)), r"the function: .*: ask for a better fit"),
        ],
    )
    def test_names_the_line_the_operation_and_what_helps(self, secure: Any, build: Any, message: str) -> None:
        x = secure.secret((3,), 0.0, 1.0)
        with pytest.warns(ts.PrecisionWarning, match=message) as caught:
            y = build(x)
        assert [w.filename for w in caught] == [__file__]
        # What is computed from it is no news.
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            y = y + 1
            y.sum()

    @pytest.mark.parametrize(
        "build",
        [
            lambda x: x.truncate(8),
            lambda x: (x * 1e-6) * x,
            lambda x: x**9,
            lambda x: x.sigmoid(),
            lambda x: x.sigmoid(method="taylor", degree=9),
            lambda x: x.var(),
            lambda x: x / 1_000_003,
            lambda x: x.precise(8) * 0.3,
            lambda x: x.precise(6).sigmoid(),
            lambda x: (x * 1e6).mean() * 1e-6,
            lambda x: (x.sum() - x[0] - x[1]) * x,
        ],
    )
    def test_does_not_come_of_the_ordinary(self, secure: Any, build: Any) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("error", ts.PrecisionWarning)
            build(secure.secret((3,), 0.0, 1.0))
            build(secure.secret((3,), 0.0, 1.0, 14))

    @pytest.mark.parametrize(
        ("build", "of"),
        [
            (lambda x: (x.sum() - 500.0).within(-1.0, 1.0), lambda x: x.sum() - 500.0),
            (lambda x: (x.mean() * 2000.0 - 1000.0).within(-2.0, 2.0), lambda x: x.mean() * 2000.0 - 1000.0),
            (lambda x: (doubled(x, 10) - 512.0).within(-1.0, 1.0), lambda x: 1024.0 * x - 512.0),
            (lambda x: ((x - 0.5) * 1000.0).tanh(), lambda x: np.tanh((x - 0.5) * 1000.0)),
            (lambda x: (x @ np.ones(1000) - 500.0).sigmoid(), lambda x: 1 / (1 + np.exp(500.0 - x.sum()))),
        ],
    )
    def test_comes_of_what_is_rounded_alike(self, secure: Any, build: Any, of: Any) -> None:
        """A thousand equal values are off by the same; and functions may be steep where values are."""
        real = np.full(1000, 0.5 + 0.49 * 2.0**-10)
        with pytest.warns(ts.PrecisionWarning):
            y = build(secure.secret((1000,), 0.0, 1.0, 10))
        (out,) = run_in_memory(secure.program(y), [fixed_point.encode(real, 10)]).outputs
        off = np.abs(fixed_point.decode(out, y.type.fraction_bits) - of(real)).max()
        assert 1e-3 * y.type.magnitude < off <= 2.5 * y.error.usual <= 2.5 * y.error.absolute

    @pytest.mark.parametrize(
        "build",
        [
            lambda a, b, c, d: (a * d - b * c).within(-1.0, 1.0),
            lambda a, b, c, d: (a**2 - b**2).within(-1.0, 1.0),
        ],
    )
    def test_comes_of_what_cancels(self, secure: Any, build: Any) -> None:
        given = [secure.secret((), 0.0, 1000.0) for _ in range(4)]
        with pytest.warns(ts.PrecisionWarning, match=r"within: of values up to 1, 0.0\d+ is lost"):
            build(*given)

    @pytest.mark.parametrize(
        ("function", "real"),
        [
            (lambda x: x.clip(1e-10, 2e-10), lambda x: np.clip(x, 1e-10, 2e-10)),
            (lambda x: 1 / x, lambda x: 1 / x),
            (lambda x: x.sqrt(), np.sqrt),
            (lambda x: x.rsqrt(), lambda x: 1 / np.sqrt(x)),
            (lambda x: x.log(), np.log),
            (lambda x: x * 3e9, lambda x: x * 3e9),
        ],
    )
    def test_values_as_small_as_the_field_is_fine_have_functions(self, secure: Any, function: Any, real: Any) -> None:
        """Products of values of a millionth: public numbers beside them have as many fraction bits as they have."""
        values = np.array([1e-5, 1.2e-5, 1.7e-5])
        x = secure.secret((3,), 1e-5, 1.8e-5, 30)
        y = function(x * x)
        (out,) = run_in_memory(secure.program(y), [fixed_point.encode(values, 30)]).outputs
        assert fixed_point.decode(out, y.type.fraction_bits) == pytest.approx(real(values**2), rel=1e-3)

    def test_comes_of_no_chain_of_secrets(self, secure: Any) -> None:
        """Ten steps of Newton's for 1 / x correct themselves, whatever a bound makes of them."""
        x = secure.secret((3,), 0.5, 1.0)
        y = 2.9 - 2 * x
        with warnings.catch_warnings():
            warnings.simplefilter("error", ts.PrecisionWarning)
            for _ in range(10):
                y = (y * (2 - x * y)).within(0.9, 2.1)
        assert y.error.absolute == pytest.approx(2.1 - 0.9)  # all that there is
        (program, real) = secure.program(y), np.array([0.5, 0.7, 1.0])
        (out,) = run_in_memory(program, [fixed_point.encode(real, 16)]).outputs
        assert fixed_point.decode(out, y.type.fraction_bits) == pytest.approx(1 / real, rel=1e-3)

    def test_names_a_layer(self, secure: Any) -> None:
        y = secure.secret((3,), 0.0, 1.0).labelled("act1").sin(terms=2, interval=(-4, 4)).labelled("")
        with pytest.warns(ts.PrecisionWarning, match="^act1: "):
            watch_layers(y.node)


@settings(max_examples=40)
@given(st.integers(0, 2**32 - 1), st.lists(st.sampled_from(sorted(set(STEPS) - JUMPS)), min_size=1, max_size=5))
def test_what_is_seen_is_warned_of(secure: Any, seed: int, steps: list[str]) -> None:
    """Nothing is off by more than a thousandth of its range that nobody was warned of, nor by much more than usual."""
    rng = np.random.default_rng(seed)
    leaves = [shared(rng), shared(rng)]
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        x = walked(rng, leaves, steps)
    off = errors(secure, x.secret, x.real, leaves, 2).max()
    assert off <= 2.5 * x.secret.error.usual
    assert any(issubclass(each.category, ts.PrecisionWarning) for each in said) or off <= 1e-3 * x.secret.type.magnitude


@pytest.mark.parametrize(
    "build",
    [
        lambda x: ((x * 1e6).exp(interval=(-8, 0)) * x).mean(),
        lambda x: x.truncate(0),
        lambda x: (x * 1e6).within(0.0, 1.0),
        lambda x: x.within(0.0, 1e-7) * 1.0,
        lambda x: (x - 1e-7).within(0.0, 1e-7),
    ],
)
def test_where_nothing_is_left_is_an_error(secure: Any, build: Any) -> None:
    with pytest.raises(RangeError, match="nothing is left of values up to"):
        build(secure.secret((3,), 0.0, 0.25))
