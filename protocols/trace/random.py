"""Secret random tensors, which nobody knows, by the distribution that is asked for.

All are made of uniform numbers (``protocols/operations/draw.py``), each used once, and of comparisons of them with
public thresholds; how far a distribution may be from the one that is asked for is stated as *total variation*, the
greatest difference of the probabilities of any event.  For differential privacy that adds to delta: what is (e, d)-
private with ideal noise is (e, d + (1 + exp e) V) with noise that is off by V.  There are no tails beyond the stated
ends, and their probability is in V.

Cost, of a sample among 16 parties, all that they and the dealer send and compute together (one thread, 1,000 samples at
once): 2 kB and 0.01 ms for a Bernoulli bit or a uniform number, 88 kB and 0.3 ms for a discrete Laplace number of scale
10, 65 kB and 0.5 ms for a Gaussian one; with MACs 2.6 kB and 0.03 ms, 1.3 MB and 3.5 ms, 5.5 MB and 6.5 ms.  The best
published takes 0.06 s and 11.6 MB (ePrint 2025/1025).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from mpc.errors import RangeError, ShapeError, UsageError
from protocols.operations.draw import MOST_DRAWN
from protocols.operations.shuffle import MOST_ROWS
from protocols.trace import mathematics as m
from protocols.trace.arguments import integers, numbers, real, whole
from protocols.trace.secret_tensor import SecretTensor
from protocols.trace.sizes import check_public

BITS = 52
"""Of a number that is compared with thresholds: a probability is off by 2^-53 at most."""

NEGLIGIBLE = 2.0**-43
"""Of a tail that is left out."""

WIDEST_GAUSSIAN = 256.0
WIDEST_LAPLACE = 2.0**20

Size = int | Sequence[int]


class Random:
    """What ``client.random`` offers; each call is a fresh draw, made in the run that reveals what depends on it."""

    def uniform(
        self, low: float = 0.0, high: float = 1.0, shape: Size = (), *, fraction_bits: int = 16
    ) -> SecretTensor:
        """Each of as many numbers from ``low`` on, below ``high``, equally likely (but for 2^-61), ``fraction_bits`` or
        more: exactly those with so many where high - low is a power of two, else rounded as a product is.  One round.

        Raises RangeError for a range with more than 2^58 of them.
        """
        fraction_bits = whole(fraction_bits, "fraction_bits")
        low, high = real(low, "an end of a range"), real(high, "an end of a range")
        width = high - low
        if not (math.isfinite(width) and width > 0):
            raise RangeError(f"[{low}, {high}) is not a range")
        bits = math.ceil(math.log2(width)) + fraction_bits
        if not 0 < bits <= MOST_DRAWN:
            raise RangeError(
                f"[{low:g}, {high:g}) with {fraction_bits} fraction bits: draws have 1 to {MOST_DRAWN} bits"
            )
        return _drawn(shape, bits) * (width / 2.0**bits) + low

    def bernoulli(self, p: npt.ArrayLike, shape: Size | None = None) -> SecretTensor:
        """1 with probability ``p``, public, a number or an array, else 0; of the shape of ``p``, or one that it
        broadcasts to.  Off by 2^-53 at most.  Comparing a draw takes two rounds after the first; p = 1/2 none.

        Raises RangeError for what is no probability.
        """
        chances = numbers(p)
        if not ((chances >= 0) & (chances <= 1)).all():
            raise RangeError("a probability is between 0 and 1")
        wanted = chances.shape if shape is None else _shape(shape)
        try:
            chances = np.broadcast_to(chances, wanted)
        except ValueError:
            raise ShapeError(f"chances of shape {chances.shape} do not broadcast to {wanted}") from None
        if (numbers(p) == 0.5).all():
            return _drawn(chances.shape, 1)
        check_public(chances)
        return _drawn(chances.shape, BITS) < np.rint(chances * 2.0**BITS)

    def discrete_laplace(self, scale: float, shape: Size = ()) -> SecretTensor:
        """Whole numbers x with probability in proportion to exp(-|x| / scale), up to about 30 scale; total variation
        below 2^-40.

        The difference of two geometric numbers, whose binary digits are independent: about 2 log2(30 scale)
        comparisons, of as many draws, at once.  Raises RangeError for a scale that is not in (0, 2^20].
        """
        scale = real(scale, "a scale")
        if not 0 < scale <= WIDEST_LAPLACE:
            raise RangeError(f"a scale above 0, up to {WIDEST_LAPLACE:g}")
        digits = laplace_digits(scale)
        bits = _drawn((*_shape(shape), 2, len(digits)), BITS) < np.array(digits)
        geometric = (bits * 2.0 ** np.arange(len(digits))).sum(-1)
        return geometric[..., 0] - geometric[..., 1]

    def discrete_gaussian(self, sigma: float, shape: Size = ()) -> SecretTensor:
        """Whole numbers x with probability in proportion to exp(-x^2 / (2 sigma^2)), up to about 8 sigma; total
        variation below 2^-40.

        A draw, and a comparison with each of about 16 sigma thresholds, which share their tables.  Raises RangeError
        for a sigma that is not in (0, 256]: scale what it is added to.
        """
        sigma = real(sigma, "a sigma")
        if not 0 < sigma <= WIDEST_GAUSSIAN:
            raise RangeError(f"a sigma above 0, up to {WIDEST_GAUSSIAN:g}: add noise to what is scaled down")
        thresholds = gaussian_thresholds(sigma)
        most = len(thresholds) // 2
        reached = (_drawn(_shape(shape), BITS).expand_dims(-1) >= np.array(thresholds)).sum(-1)
        return reached - float(most)

    def permutation(self, *tensors: SecretTensor) -> Any:
        """The rows of a tensor, along its first axis, in an order that nobody knows; of several, which have as many
        rows, all in the same one, as a tuple.  Exact; every order is equally likely, but for N^2 / 2^62 with N rows.

        No round where the tensor is an input or stored, one where it has been computed.  N^2 numbers are dealt, for all
        of them together, and one for each of theirs; with MACs twice that.  The dealer, who sees no data, knows the
        order.  See ``protocols/operations/shuffle.py``.

        Raises UsageError for what is no secret tensor, ShapeError for tensors without rows, or of different numbers of
        them, RangeError for more than 8,192 rows.
        """
        if not tensors or not all(isinstance(x, SecretTensor) for x in tensors):
            raise UsageError("permutation takes secret tensors, whose rows are to be shuffled alike")
        counts = {x.shape[0] if x.shape else 0 for x in tensors}
        if len(counts) > 1 or 0 in counts:
            shapes = ", ".join(str(x.shape) for x in tensors)
            raise ShapeError(
                f"tensors of shapes {shapes}: those that are shuffled alike have as many rows, one at least"
            )
        (rows,) = counts
        if rows > MOST_ROWS:
            raise RangeError(
                f"{rows:,} rows: up to {MOST_ROWS:,} are shuffled at a time, since what is dealt grows by the square;"
                " shuffle parts of them, each by itself"
            )
        order = m.Node(m.Order(rows))
        shuffled = tuple(SecretTensor(m.Node(m.Shuffle(), (x.node, order))) for x in tensors)
        return shuffled[0] if len(tensors) == 1 else shuffled


def laplace_digits(scale: float) -> list[float]:
    """Chances of a geometric number's digits, lowest first, as numbers of `BITS` bits.

    With q = exp(-1 / scale), digit j is 1 with probability q^(2^j) / (1 + q^(2^j)).
    """
    count = max(1, math.ceil(math.log2(-math.log(NEGLIGIBLE) * scale)))
    # exp(-y) / (1 + exp(-y)), which is 0 of a y that has no exponential.
    chances = [math.exp(-(2.0**j) / scale) for j in range(count)]
    return [float(round(2.0**BITS * chance / (1.0 + chance))) for chance in chances]


def gaussian_thresholds(sigma: float) -> list[float]:
    """Chances of being at most -most, ..., most - 1, as numbers of `BITS` bits."""
    most = max(1, math.ceil(sigma * math.sqrt(-2.0 * math.log(NEGLIGIBLE / 2.0))))
    weights = [math.exp(-0.5 * (x / sigma) * (x / sigma)) for x in range(-most, most + 1)]
    total = math.fsum(weights)
    lower = [math.fsum(weights[: k + 1]) / total for k in range(most)]
    # Symmetric, digit by digit.
    below = [float(round(part * 2.0**BITS)) for part in lower]
    return [*below, *(2.0**BITS - part for part in reversed(below))]


def _drawn(shape: Size, bits: int) -> SecretTensor:
    return SecretTensor(m.Node(m.Draw(_shape(shape), bits)))


def _shape(shape: Size) -> tuple[int, ...]:
    wanted = integers((shape,))
    if any(n < 0 for n in wanted):
        raise UsageError(f"{wanted} is not a shape")
    return wanted
