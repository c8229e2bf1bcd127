"""Gradients against torch's, in float64: of each operation, of random graphs, and what they open."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from mpc import fixed_point
from mpc.errors import ShapeError, UnsupportedError
from protocols import PrecisionWarning
from protocols.readings.clear import clear
from protocols.trace.gradients import grad

Reals = Any


def revealed(secure: Any, tensors: Sequence[Any], arrays: Sequence[Reals], bits: int = 16) -> list[Reals]:
    """What a program reveals in the clear, of inputs in the order in which it takes them."""
    program = secure.program(*tensors)
    found = clear(program, [fixed_point.encode(a, bits) for a in arrays])
    return [
        fixed_point.decode(raw, program.nodes[i].type.fraction_bits)
        for raw, i in zip(found, program.outputs, strict=True)
    ]


def torchs(build: Callable[..., Any], arrays: Sequence[Reals], weights: Reals | None = None) -> list[Reals]:
    xs = [torch.tensor(a, requires_grad=True) for a in arrays]
    y = build(*xs)
    y = y if weights is None else (y * torch.tensor(weights)).sum()
    y.backward()
    return [np.zeros(x.shape) if x.grad is None else x.grad.numpy() for x in xs]


def compared(
    secure: Any,
    ours: Callable[..., Any],
    theirs: Callable[..., Any],
    shapes: Sequence[Any],
    low: float,
    high: float,
    error: float,
) -> None:
    arrays = [np.trunc(np.random.default_rng(i).uniform(low, high, s) * 2**16) / 2**16 for i, s in enumerate(shapes)]
    secrets = [secure.secret(a.shape, low, high) for a in arrays]
    y = ours(*secrets)
    weights = np.rint(np.random.default_rng(9).uniform(-1, 1, y.shape) * 16) / 16
    gradients = grad((y * weights).sum(), secrets)
    assert [g.shape for g in gradients] == [a.shape for a in arrays]
    for found, wanted in zip(_all(secure, gradients, secrets, arrays), torchs(theirs, arrays, weights), strict=True):
        assert np.abs(found - wanted).max() <= error, np.abs(found - wanted).max()


def _all(secure: Any, gradients: Sequence[Any], secrets: Sequence[Any], arrays: Sequence[Reals]) -> list[Reals]:
    """With every input in the program, in its order, whatever a gradient depends on."""
    return revealed(secure, [*secrets, *gradients], arrays)[len(secrets) :]


OPERATIONS: dict[str, tuple[Callable[..., Any], Callable[..., Any], Sequence[Any]]] = {
    "sums": (lambda x, y: x - y + (-x) / 3 + 1.5, lambda x, y: x - y + (-x) / 3 + 1.5, [(2, 3), (3,)]),
    "products": (lambda x, y: x * y * 0.5 + x * x, lambda x, y: x * y * 0.5 + x * x, [(2, 3), (2, 1)]),
    "matmul": (lambda x, y: x @ y, lambda x, y: x @ y, [(4, 3), (3, 2)]),
    "matmul of a batch": (lambda x, y: x @ y, lambda x, y: x @ y, [(2, 4, 3), (3, 2)]),
    "matmul of two batches": (lambda x, y: x @ y, lambda x, y: x @ y, [(2, 1, 4, 3), (5, 3, 2)]),
    "matmul of vectors": (lambda x, y: (x @ y) * y @ x, lambda x, y: (x @ y) * y @ x, [(3,), (3,)]),
    "matmul of a vector and a matrix": (lambda x, y: x @ y, lambda x, y: x @ y, [(3,), (3, 2)]),
    "matmul of a matrix and a vector": (lambda x, y: x @ y, lambda x, y: x @ y, [(2, 3), (3,)]),
    "reductions": (
        lambda x: x.sum(0) * x.mean(1, keepdims=True) + x.var(0) + x.cumsum(1)[0],
        lambda x: x.sum(0) * x.mean(1, keepdim=True) + x.var(0, correction=0) + x.cumsum(1)[0],
        [(3, 3)],
    ),
    "shapes": (
        lambda x: x.reshape(2, 6).transpose(1, 0).pad(((1, 2), (0, 1)))[None, 1:8:3, ::-1].broadcast_to((2, 3, 3)),
        lambda x: tf.pad(x.reshape(2, 6).T, (0, 1, 1, 2))[None, 1:8:3].flip(2).broadcast_to((2, 3, 3)),
        [(3, 4)],
    ),
    "slices": (lambda x: x[::-2, 1] * x[0, -1:], lambda x: x.flip(0)[::2, 1] * x[0, -1:], [(5, 3)]),
    "choices": (
        lambda x: x[[0, 2, 2]] * x.take([1, 1, 1, 1, 1, 0, 3], 0)[[0, 5, 6]],
        lambda x: x[[0, 2, 2]] * x[[1, 1, 1, 1, 1, 0, 3]][[0, 5, 6]],
        [(4, 2)],
    ),
    "joined": (
        lambda x, y: np.concatenate([x, y, x], 1) ** 2, lambda x, y: torch.cat([x, y, x], 1) ** 2, [(2, 1), (2, 3)]
    ),
    "polynomial": (lambda x: x**3 - 2 * x**2 + x, lambda x: x**3 - 2 * x**2 + x, [(5,)]),
    "relu": (lambda x: x.relu() * x, lambda x: x.relu() * x, [(20,)]),
    "abs": (lambda x: abs(x) * x, lambda x: abs(x) * x, [(20,)]),
    "larger and smaller": (
        lambda x, y: np.maximum(x, y) * np.minimum(x, 0.25) + y.maximum(x),
        lambda x, y: torch.maximum(x, y) * x.clamp(max=0.25) + torch.maximum(x, y),
        [(4, 5), (5,)],
    ),
    "clip": (lambda x: x.clip(-0.5, 0.25) * x, lambda x: x.clip(-0.5, 0.25) * x, [(20,)]),
    "where": (
        lambda x, y: np.where(x > y, x * y, y) + (x >= 0.5) * y,
        lambda x, y: torch.where(x > y, x * y, y) + (x >= 0.5) * y,
        [(20,), (20,)],
    ),
    "max": (lambda x: x.max(1) * x.min(0), lambda x: x.amax(1) * x.amin(0), [(6, 6)]),
    "sorted": (lambda x: x.sort(1) * np.arange(5.0), lambda x: x.sort(1)[0] * torch.arange(5.0), [(3, 5)]),
    "max pooling": (
        lambda x: x.max_pool2d(3, 2, 1) * x.relu().max_pool2d(2),
        lambda x: tf.max_pool2d(x, 3, 2, 1) * tf.max_pool2d(x.relu(), 2),
        [(2, 2, 6, 4)],
    ),
    "average pooling": (lambda x: x.avg_pool2d(2) ** 2, lambda x: tf.avg_pool2d(x, 2) ** 2, [(2, 2, 5, 4)]),
    "windows that overlap": (
        lambda x: x.avg_pool2d((3, 2), 2, 1) ** 2, lambda x: tf.avg_pool2d(x, (3, 2), 2, 1) ** 2, [(1, 2, 6, 5)]
    ),
    "conv2d": (
        lambda x, w: x.conv2d(w, padding=1), lambda x, w: tf.conv2d(x, w, padding=1), [(2, 3, 5, 4), (2, 3, 3, 3)]
    ),
    "conv2d with strides": (
        lambda x, w: x.conv2d(w, stride=(2, 3), padding=(2, 0)),
        lambda x, w: tf.conv2d(x, w, stride=(2, 3), padding=(2, 0)),
        [(2, 2, 6, 8), (3, 2, 2, 3)],
    ),
    "conv2d in groups": (
        lambda x, w: x.conv2d(w, stride=2, groups=2),
        lambda x, w: tf.conv2d(x, w, stride=2, groups=2),
        [(2, 4, 6, 5), (6, 2, 3, 2)],
    ),
    "public weights": (
        lambda x: x.conv2d(np.ones((2, 1, 2, 2))) @ np.eye(3, 2) - np.ones((1, 4)) @ x[0, 0, :, :1],
        lambda x: tf.conv2d(x, x.new_ones(2, 1, 2, 2)) @ torch.eye(3, 2).double() - x.new_ones(1, 4) @ x[0, 0, :, :1],
        [(1, 1, 4, 4)],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", OPERATIONS)
def test_operations(secure: Any, name: str) -> None:
    ours, theirs, shapes = OPERATIONS[name]
    compared(secure, ours, theirs, shapes, -1.0, 1.0, 2e-3)


FUNCTIONS: dict[str, tuple[Callable[..., Any], Callable[..., Any], float, float, float]] = {
    "sigmoid": (lambda x: x.sigmoid(), torch.sigmoid, -6.0, 6.0, 1e-3),
    "sigmoid of anything": (lambda x: x.sigmoid(), torch.sigmoid, -60.0, 60.0, 1e-3),
    "sigmoid that is opened": (lambda x: x.sigmoid() ** 2, lambda x: x.sigmoid() ** 2, -6.0, 6.0, 1e-3),
    "tanh": (lambda x: x.tanh(), torch.tanh, -6.0, 6.0, 3e-3),
    "erf": (lambda x: x.erf(), torch.erf, -3.0, 3.0, 3e-3),
    "exp": (lambda x: x.exp(), torch.exp, -8.0, 0.0, 1e-4),
    "exp over orders of magnitude": (lambda x: x.exp(), torch.exp, -30.0, 2.0, 8e-3),
    "log": (lambda x: x.log(), torch.log, 0.25, 1.0, 1e-2),
    "log over orders of magnitude": (lambda x: x.log(), torch.log, 0.125, 60.0, 2e-3),
    "sqrt": (lambda x: x.sqrt(), torch.sqrt, 0.25, 1.0, 3e-3),
    "sqrt over orders of magnitude": (lambda x: x.sqrt(), torch.sqrt, 0.125, 60.0, 2e-3),
    "rsqrt": (lambda x: x.rsqrt(), torch.rsqrt, 0.5, 8.0, 2e-3),
    "reciprocal": (lambda x: x.reciprocal(), torch.reciprocal, 0.5, 8.0, 2e-3),
    "reciprocal over orders of magnitude": (lambda x: 1 / x, torch.reciprocal, 0.25, 60.0, 4e-3),
    "quotient": (lambda x: (x * 0.5) / x.square(), lambda x: (x * 0.5) / x.square(), 1.0, 2.0, 4e-3),
    "power": (lambda x: x**1.5, lambda x: x**1.5, 0.5, 4.0, 4e-3),
    "sin and cos": (lambda x: x.sin() * x.cos(), lambda x: x.sin() * x.cos(), -3.0, 3.0, 1e-3),
    "silu": (lambda x: x.silu(), tf.silu, -6.0, 6.0, 3e-3),
    "gelu": (lambda x: x.gelu(), tf.gelu, -6.0, 6.0, 3e-3),
    "gelu of anything": (lambda x: x.gelu(), tf.gelu, -60.0, 60.0, 3e-3),
    "softplus": (lambda x: x.softplus(), tf.softplus, -6.0, 6.0, 1e-3),
    "mish": (lambda x: x.mish(), tf.mish, -6.0, 6.0, 3e-3),
    "elu": (lambda x: x.elu(0.5), lambda x: tf.elu(x, 0.5), -4.0, 4.0, 3e-3),
    "hardswish": (lambda x: x.hardswish(), tf.hardswish, -4.0, 4.0, 1e-3),
    "softsign": (lambda x: x.softsign(), tf.softsign, -4.0, 4.0, 4e-3),
    "logsigmoid": (lambda x: x.logsigmoid(), tf.logsigmoid, -6.0, 6.0, 1e-3),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions(secure: Any, name: str) -> None:
    ours, theirs, low, high, error = FUNCTIONS[name]
    compared(secure, ours, theirs, [(30,)], low, high, error)


SCALES = np.arange(1.0, 6.0) / 4
ALONG: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "softmax": (lambda x: x.softmax(1), lambda x: x.softmax(1)),
    "log_softmax": (lambda x: x.log_softmax(1), lambda x: x.log_softmax(1)),
    "logsumexp": (lambda x: x.logsumexp(1), lambda x: x.logsumexp(1)),
    "layer norm": (lambda x: x.layer_norm(5, eps=0.1), lambda x: tf.layer_norm(x, (5,), eps=0.1)),
    "rms norm": (lambda x: x.rms_norm(5, eps=0.1), lambda x: tf.rms_norm(x, (5,), eps=0.1)),
    "group norm": (
        lambda x: x.reshape(1, 5, 3).group_norm(1, SCALES, np.ones(5), eps=0.1),
        lambda x: tf.group_norm(x.reshape(1, 5, 3), 1, torch.tensor(SCALES), torch.ones(5).double(), 0.1),
    ),
    "batch norm": (lambda x: x.batch_norm(eps=0.1), lambda x: tf.batch_norm(x, None, None, training=True, eps=0.1)),
    "unit vectors": (lambda x: (x + 5.0).normalize(), lambda x: tf.normalize(x + 5.0)),
    "lengths": (lambda x: (x + 5.0).norm(axis=1), lambda x: (x + 5.0).norm(dim=1)),
    "deviations": (lambda x: x.std(0, ddof=1), lambda x: x.std(0)),
}  # fmt: skip


@pytest.mark.parametrize("name", ALONG)
def test_along_an_axis(secure: Any, name: str) -> None:
    compared(secure, *ALONG[name], [(3, 5)], -4.0, 4.0, 1e-3)


STEPS: dict[str, Callable[[Any, Any], Any]] = {
    "sum": lambda x, y: x + y * 0.5,
    "product": lambda x, y: x * y,
    "matmul": lambda x, y: x @ y.T @ y * 0.25,
    "transpose": lambda x, y: x.T @ x @ x.T if x.shape[0] == x.shape[1] else (x.T * 0.5).T,
    "mean": lambda x, y: x - x.mean(0),
    "rows": lambda x, y: x[[2, 0, 0]] * x[1:2],
    "square": lambda x, y: x**2 - x,
    "relu": lambda x, y: (x - 0.125).relu() - x * 0.25,
    "clip": lambda x, y: x.clip(-0.5, 0.75) + y * x,
    "sigmoid": lambda x, y: x.sigmoid() * y,
    "tanh": lambda x, y: x.tanh(),
    "softmax": lambda x, y: x.softmax(1) - y,
    "larger": lambda x, y: np.maximum(x, y) if not isinstance(x, torch.Tensor) else torch.maximum(x, y),
}
"""From and to (3, 4), the same words for secrets and for torch."""


@settings(max_examples=20)
@given(st.integers(0, 2**32 - 1), st.lists(st.sampled_from(sorted(STEPS)), min_size=1, max_size=5))
@pytest.mark.filterwarnings("ignore::tessera.PrecisionWarning")
def test_random_graphs(secure: Any, seed: int, steps: list[str]) -> None:
    """A chain of steps, each of the last result and of one before it, so that gradients come together again."""
    rng = np.random.default_rng(seed)
    choices = rng.integers(0, 2**16, len(steps))

    def built(x: Any, y: Any) -> Any:
        values = [x, y]
        for name, choice in zip(steps, choices, strict=True):
            z = STEPS[name](values[-1], values[choice % len(values)])
            # Sizes stay where the functions' intervals are.
            values.append(z * 0.5 if isinstance(z, torch.Tensor) else (z * 0.5).within(-8.0, 8.0))
        return sum(values[1:], values[0])

    compared(secure, built, built, [(3, 4), (3, 4)], -1.0, 1.0, 4e-3)


def test_weights_of_norms(secure: Any) -> None:
    compared(
        secure,
        lambda x, w, b: x.batch_norm(w, b, eps=0.25),
        lambda x, w, b: tf.batch_norm(x, None, None, w, b, training=True, eps=0.25),
        [(6, 3), (3,), (3,)],
        -1.0,
        1.0,
        1e-3,
    )


WEIGHTED: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "layer": (lambda x, w: x.layer_norm(4, w), lambda x, w: tf.layer_norm(x, (4,), w)),
    "rms": (lambda x, w: x.rms_norm(4, w, eps=1e-5), lambda x, w: tf.rms_norm(x, (4,), w, eps=1e-5)),
    "batch": (lambda x, w: x.batch_norm(w), lambda x, w: tf.batch_norm(x, None, None, w, training=True)),
    "group": (
        lambda x, w: x.reshape(1, 4, 4).group_norm(2, w),
        lambda x, w: tf.group_norm(x.reshape(1, 4, 4), 2, w),
    ),
}


@pytest.mark.parametrize("name", WEIGHTED)
def test_norms_with_weights_have_as_many_digits_as_without(secure: Any, name: str) -> None:
    """Of values in a small part of their range, and with torch's eps: what is divided by its norm is small by then."""

    def ours(x: Any, w: Any) -> Any:
        return WEIGHTED[name][0](x + x * 9.0 - x * 9.0, w)

    compared(secure, ours, WEIGHTED[name][1], [(4, 4), (4,)], -1.0, 1.0, 1e-4)


def test_where_ranges_leave_few_digits_there_is_a_warning(secure: Any) -> None:
    """Of norms after each other, over a small eps; and none of one of them, or over a larger eps."""

    def through(norms: int, eps: float) -> Any:
        x, w = secure.secret((3, 4)), secure.secret((4,), -2.0, 2.0)
        hidden = x
        for _ in range(norms):
            hidden = hidden.layer_norm(4, w, eps=eps) + x
        return grad(hidden.sum(), x)

    with pytest.warns(PrecisionWarning, match=r"from the .* on, as far as ranges say"):
        through(3, 1e-5)
    with warnings.catch_warnings():
        warnings.simplefilter("error", PrecisionWarning)
        through(1, 1e-5)
        through(3, 0.1)


def test_slopes_over_orders_of_magnitude_are_multiplied_as_promised_or_warned_of(secure: Any) -> None:
    """Of log(x x) both factors may be large, as far as ranges say, and are not together."""
    real = np.rint(np.geomspace(2.0**-7, 100, 60) * 2**16) / 2**16
    x = secure.secret(real.shape, 2.0**-7, 100.0)
    with pytest.warns(PrecisionWarning, match="multiply, written in .* promise how large gradients are"):
        grad((x * x).log().sum(), x)
    with warnings.catch_warnings():
        warnings.simplefilter("error", PrecisionWarning)
        gradient = grad((x * x).log().sum(), x, within=257.0)
    (found,) = revealed(secure, [gradient], [real])
    assert (np.abs(found - 2 / real) * real).max() < 2e-4


def test_dropout_by_bits_that_are_secret_or_public(secure: Any) -> None:
    x, bits = secure.secret((20,)), secure.secret((20,), 0.0, 1.0, 0)
    real = np.trunc(np.random.default_rng(1).uniform(-1, 1, 20) * 2**16) / 2**16
    kept = np.random.default_rng(2).integers(0, 2, 20)
    for mask in (bits, bits > 0, kept):
        gradient = grad(((x * mask * 2.0) ** 2).sum(), x)
        program = secure.program(x, bits, gradient)
        found = clear(program, [fixed_point.encode(real, 16), fixed_point.encode(kept, 0)])[-1]
        assert np.abs(fixed_point.decode(found, gradient.type.fraction_bits) - 8.0 * real * kept).max() < 1e-3


def test_an_embedding_at_secret_places(secure: Any) -> None:
    table, places = secure.secret((4, 3), -1.0, 1.0), secure.secret((6,), 0.0, 3.0, 0)
    rows, chosen = np.arange(12.0).reshape(4, 3) / 16 - 0.5, np.array([0, 2, 2, 3, 0, 2])
    gradient = grad((places.chosen_from(table) ** 2).sum(), table)
    program = secure.program(table, places, gradient)
    found = clear(program, [fixed_point.encode(rows, 16), fixed_point.encode(chosen, 0)])[-1]
    wanted = 2.0 * rows * np.bincount(chosen, minlength=4)[:, None]
    assert np.abs(fixed_point.decode(found, gradient.type.fraction_bits) - wanted).max() < 1e-3


def test_several_parameters_by_name_or_in_order(secure: Any) -> None:
    x, w = secure.secret((3, 2)), secure.secret((2,))
    loss = (x @ w).sum()
    assert grad(loss, w).shape == (2,)
    assert {k: g.shape for k, g in grad(loss, {"x": x, "w": w}).items()} == {"x": (3, 2), "w": (2,)}
    (of_inner,) = grad((y := x * 2.0).square().sum(), [y])
    assert of_inner.shape == (3, 2)


def test_what_has_no_gradient_is_refused_by_name_and_line(secure: Any) -> None:
    x, y = secure.secret((4,)), secure.secret((4,))
    with pytest.raises(ShapeError, match="one number"):
        grad(x, x)
    with pytest.raises(UnsupportedError, match="does not depend on parameter 1"):
        grad(x.sum(), [x, y])
    steps = (x >= 0).sum()
    with pytest.raises(UnsupportedError, match=r"through what has no gradient: compare, written in .*test_gradients"):
        grad(steps + y.sum(), {"rate": x, "other": y})
    with pytest.raises(UnsupportedError, match="compare of layer ranks"):
        grad(x.labelled("ranks").argmax(), x)
