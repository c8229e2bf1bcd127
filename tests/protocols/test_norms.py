"""Norms, and layers that divide by them, against float64: over orders of magnitude, at ends, of constant rows."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
import torch.nn.functional as tf

from mpc import fixed_point
from mpc.errors import RangeError, ShapeError, UnsupportedError
from mpc.objective import ANY, LATENCY, Objective
from mpc.security import Security
from protocols.readings.memory import run_in_memory

Reals = npt.NDArray[np.float64]
STRICT = Objective(ANY, Security.MALICIOUS)
WEIGHT, BIAS = np.linspace(-1.5, 2.0, 6), np.linspace(0.5, -0.25, 6)


def rows(bound: float, count: int, bits: int = 16) -> Reals:
    """Of many sizes, down to a few units, of zeros, constant ones, and one at both ends of the range."""
    rng = np.random.default_rng(count)
    x = rng.normal(size=(9, count))
    x *= (bound * np.array([1, 0.5, 0.1, 1e-2, 1e-3, 1e-4, 0, 0, 0]) / np.abs(x).max(axis=1))[:, None]
    x[6], x[7] = bound / 3, np.where(np.arange(count) % 2, bound, -bound)
    x[5] += bound / 5
    return np.clip(np.rint(x * 2.0**bits), -bound * 2.0**bits, bound * 2.0**bits) / 2.0**bits


def evaluated(secure: Any, y: Any, x: Reals, bits: int = 16, objective: Objective = LATENCY, parties: int = 2) -> Reals:
    program = secure.program(y, objective=objective)
    security = objective.security if objective is STRICT else Security.SEMI_HONEST
    (out,) = run_in_memory(program, [fixed_point.encode(x, bits)], parties=parties, security=security).outputs
    found = fixed_point.decode(out, y.type.fraction_bits)
    assert y.type.low <= found.min()
    assert found.max() <= y.type.high
    return np.asarray(found)


def close(secret: Any, found: Reals, wanted: Any, most: float) -> None:
    off = np.abs(found - np.asarray(wanted)).max()
    assert off <= min(most, secret.error.absolute), (off, secret.error)


@pytest.mark.sampled(3)
@pytest.mark.parametrize(("bound", "count"), [(8.0, 6), (8.0, 64), (64.0, 9), (0.5, 2)])
def test_rows_of_any_size_are_normed(secure: Any, bound: float, count: int) -> None:
    x = rows(bound, count)
    secret, real = secure.secret(x.shape, -bound, bound), torch.tensor(x)
    w, b = np.resize(WEIGHT, count), np.resize(BIAS, count)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        results = [
            (secret.layer_norm(count), tf.layer_norm(real, (count,)), 5e-5),
            (
                secret.layer_norm((count,), w, b, 1e-3),
                tf.layer_norm(real, (count,), *map(torch.tensor, (w, b)), 1e-3),
                5e-5,
            ),
            (secret.rms_norm(count, w), tf.rms_norm(real, (count,), torch.tensor(w), 2.0**-23), 1e-4),
            (secret.normalize(1), tf.normalize(real, dim=1), 2e-5),
            (secret.normalize(1, eps=0.5), tf.normalize(real, dim=1, eps=0.5), 2e-5),
            (np.linalg.norm(secret, axis=1), np.linalg.norm(x, axis=1), 2e-6 * bound * math.sqrt(count) + 2.0**-15),
            (np.std(secret, 1, ddof=1), np.std(x, 1, ddof=1), 2e-6 * bound * math.sqrt(count) + 2.0**-15),
        ]
    for one, wanted, most in results:
        close(one, evaluated(secure, one, x), wanted, most)


@pytest.mark.parametrize(("parties", "objective"), [(2, STRICT), (3, STRICT), (3, LATENCY)])
def test_parties_and_macs(secure: Any, parties: int, objective: Objective) -> None:
    x = rows(4.0, 6)
    for y, wanted in (
        (secure.secret(x.shape).layer_norm(6, WEIGHT), tf.layer_norm(torch.tensor(x), (6,), torch.tensor(WEIGHT))),
        (secure.secret(x.shape).norm(axis=1), np.linalg.norm(x, axis=1)),
    ):
        close(y, evaluated(secure, y, x, objective=objective, parties=parties), wanted, 5e-5)


@pytest.mark.parametrize("security", list(Security))
def test_rounds_and_bytes_are_as_predicted(secure: Any, security: Security) -> None:
    objective = STRICT if security is Security.MALICIOUS else LATENCY
    program = secure.program(secure.secret((9, 6)).layer_norm(6, WEIGHT, BIAS), objective=objective)
    secure.as_predicted(program, [fixed_point.encode(rows(4.0, 6), 16)], 2, security)


def test_weights_take_no_round(secure: Any) -> None:
    x, w = secure.secret((4, 8)), secure.stored("w", (8,), -2.0, 2.0, 22)
    assert secure.program(x.layer_norm(8, w)).rounds == secure.program(x.layer_norm(8)).rounds <= 6


CHANNELS: dict[str, tuple[Callable[[Any], Any], Callable[[torch.Tensor], torch.Tensor]]] = {
    "group": (
        lambda x: x.group_norm(3, WEIGHT, BIAS),
        lambda t: tf.group_norm(t, 3, torch.tensor(WEIGHT), torch.tensor(BIAS)),
    ),
    "one group": (lambda x: x.group_norm(1), lambda t: tf.group_norm(t, 1)),
    "a group each": (lambda x: x.group_norm(6, eps=0.1), lambda t: tf.group_norm(t, 6, eps=0.1)),
    "instance": (lambda x: x.instance_norm(WEIGHT), lambda t: tf.instance_norm(t, weight=torch.tensor(WEIGHT))),
    "two axes": (lambda x: x.layer_norm((5, 2)), lambda t: tf.layer_norm(t, (5, 2))),
    "of 1": (lambda x: x[..., :1].layer_norm(1), lambda t: tf.layer_norm(t[..., :1], (1,))),
    "unit along two": (lambda x: x.normalize((1, 3)), lambda t: t / t.norm(dim=(1, 3), keepdim=True)),
    "1": (lambda x: np.linalg.norm(x, 1, axis=2), lambda t: t.abs().sum(2)),
    "inf": (lambda x: np.linalg.norm(x, np.inf, axis=1, keepdims=True), lambda t: t.abs().amax(1, keepdim=True)),
    "least": (lambda x: x.norm(-np.inf, 1), lambda t: t.abs().amin(1)),
    "all": (np.linalg.norm, lambda t: t.norm()),
    "matrices": (lambda x: np.linalg.norm(x, "fro", (2, 3)), lambda t: t.norm(dim=(2, 3))),
}


@pytest.mark.parametrize("name", sorted(CHANNELS))
def test_axes_and_channels(secure: Any, name: str) -> None:
    x = np.rint(np.random.default_rng(3).uniform(-3, 3, (2, 6, 5, 2)) * 2**16) / 2**16
    ours, torchs = CHANNELS[name]
    y = ours(secure.secret(x.shape))
    wanted = torchs(torch.tensor(x)).numpy()
    assert y.shape == wanted.shape
    close(y, evaluated(secure, y, x), wanted, 5e-5)


def test_values_with_many_digits_and_of_a_product(secure: Any) -> None:
    x = rows(2.0, 6)
    y = ((secure.secret(x.shape, -2.0, 2.0) * 0.37 + 100.0) * 1.1).layer_norm(6)
    close(y, evaluated(secure, y, x), tf.layer_norm(torch.tensor((x * 0.37 + 100.0) * 1.1), (6,)), 5e-3)


def test_what_eps_is_lost_in_is_refused(secure: Any) -> None:
    with pytest.raises(RangeError, match="within"):
        secure.secret((2, 64), -(2.0**18), 2.0**18).layer_norm(64)
    x = secure.secret((2, 6))
    for wrong in (
        lambda: x.layer_norm(5), lambda: x.group_norm(4), lambda: x.instance_norm(),
        lambda: x.layer_norm(6, np.ones(5)), lambda: x[:, :0].norm(axis=1),
    ):  # fmt: skip
        with pytest.raises(ShapeError):
            wrong()
    for odd in (lambda: x.norm(3), lambda: x.layer_norm(6, eps=-1.0)):
        with pytest.raises(UnsupportedError):
            odd()
