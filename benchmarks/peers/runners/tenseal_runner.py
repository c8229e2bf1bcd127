"""TenSEAL: homomorphic encryption (CKKS), the other way to compute on data nobody may see.

A client encrypts, one server computes on ciphertexts, the client decrypts: online is all three, without the way between
them.  Nobody else takes part, so nobody has to be trusted not to collude; but the server knows the network's weights
(and one of the two matrices), and every result is approximate.  Sigmoid and exp are polynomials fitted to the interval.

The network: TenSEAL has no rotation of its own, and its convolution works on a first layer only.  So there is one slot
for each position that the second convolution computes, and the client sends a ciphertext for each input pixel that such
a position can see (8x8 of each colour, every second row and column of the image): from there to the first dense layer
everything happens within a slot.
"""

from __future__ import annotations

import multiprocessing
import os
import time
from importlib.metadata import version

import numpy as np
import tenseal as ts
from serving import Lacks, OverLimit, claim_stdout, peak_memory, serve

OUTER_BITS, SCALE_BITS = 45, 30
NETWORK_OUTER_BITS, NETWORK_SCALE_BITS = 48, 34
"""The network needs the precision: its first dense layer sums 6,000 products."""
FUNCTION_DEGREE, FUNCTION_LEVELS = 7, 4
NETWORK_LEVELS = 10
"""Four linear layers, and three cubic polynomials of two each."""
SEEN = 8
"""Rows (and columns) of the image that a position of the second convolution depends on, pooling before it included."""


class Runner:
    def __call__(self, request: dict) -> dict:
        if request["do"] == "open":
            with np.load(request["data"]) as arrays:
                arrays = dict(arrays)
            self.work = work(request["case"], arrays, request["limit"])
            result, seconds, sent = self.work()
            figures = {
                "online.bytes_per_party": sent,
                "online.rounds": 2,
                "max_abs_error": float(np.abs(result - arrays["expected"]).max()),
                "peak_memory": peak_memory(),
            }
            return {"figures": figures, "seconds": seconds, "version": version("tenseal")}
        return {"seconds": self.work()[1]}


def work(case: dict, arrays: dict, limit: float):
    """What is timed: a function that gives result, seconds, and bytes of the ciphertexts both ways."""
    kind = case["kind"]
    if case["held"]:
        raise Lacks("nothing stays at its server but ciphertexts, which are its client's")
    if case["activation"] == "relu":
        raise Lacks("it has no comparison, which the network needs")
    if kind == "multiply":
        context = make_context(8192, 1)
        return lambda: packed(context, 4096, [arrays["x"], arrays["y"]], lambda x, y: x * y)
    if kind in ("sigmoid", "exp"):
        context = make_context(8192, FUNCTION_LEVELS)
        middle, half = (case["high"] + case["low"]) / 2, (case["high"] - case["low"]) / 2
        exact = {"sigmoid": lambda x: 1 / (1 + np.exp(-x)), "exp": np.exp}[kind]
        fitted = np.polynomial.Chebyshev.interpolate(lambda t: exact(middle + half * t), FUNCTION_DEGREE)
        powers = fitted.convert(kind=np.polynomial.Polynomial).coef
        # An odd function has coefficients of 0 but for rounding, and TenSEAL leaves out what is exactly 0.
        powers = [float(c) if abs(c) > 1e-9 else 0.0 for c in powers]
        return lambda: packed(context, 4096, [(arrays["x"] - middle) / half], lambda x: x.polyval(powers))
    if kind == "matmul":
        matmul_row(arrays, limit)
    if kind == "cnn" and case["batch"] == 1:
        return Network(arrays)
    raise Lacks("it cannot sum the slots of one image among several: a batch takes as many single runs")


def make_context(degree: int, levels: int, outer: int = OUTER_BITS, scale: int = SCALE_BITS, rotations: bool = False):
    """128 bits of security by SEAL's own table, which refuses moduli that are too large for the degree."""
    moduli = [outer, *[scale] * levels, outer]
    context = ts.context(ts.SCHEME_TYPE.CKKS, degree, coeff_mod_bit_sizes=moduli, n_threads=1)
    context.global_scale = 2.0**scale
    if rotations:
        context.generate_galois_keys()
    return context


def packed(context, slots: int, operands: list, evaluate):
    """An elementwise operation, as many elements to a ciphertext as there is room for."""
    began = time.perf_counter()
    results, sample = [], None
    for start in range(0, len(operands[0]), slots):
        inputs = [ts.ckks_vector(context, a[start : start + slots].tolist()) for a in operands]
        sample = inputs[0], evaluate(*inputs)
        results += sample[1].decrypt()
    seconds = time.perf_counter() - began
    count = -(-len(operands[0]) // slots)
    return np.array(results), seconds, count * (len(operands) * size(sample[0]) + size(sample[1]))


def size(ciphertext) -> int:
    return len(ciphertext.serialize())


def matmul_row(arrays: dict, limit: float) -> None:
    """One row of a product, to say how long all would take."""
    context = make_context(8192, 1, rotations=True)
    row, matrix = ts.ckks_vector(context, arrays["x"][0].tolist()), arrays["y"].tolist()
    began = time.perf_counter()
    row.mm(matrix)
    seconds, rows = time.perf_counter() - began, len(arrays["x"])
    if seconds * rows <= limit:
        raise Lacks("one row at a time is all this runner knows")
    raise OverLimit(
        f"over the limit of {limit:.0f} s: one of {rows} rows, by a matrix the server knows, takes {seconds:.1f} s"
    )


class Network:
    """The network on one image."""

    def __init__(self, arrays: dict) -> None:
        self.image = arrays["x"][0]
        self.weights = {name: arrays[name] for name in arrays if name.endswith(("weight", "bias"))}
        self.cubics = fitted_cubics(self.image, self.weights)
        self.context = make_context(16384, NETWORK_LEVELS, NETWORK_OUTER_BITS, NETWORK_SCALE_BITS, rotations=True)
        self.side = self.image.shape[1] // 2
        self.workers = max(1, len(os.sched_getaffinity(0)))

    def __call__(self):
        began = time.perf_counter()
        self.inputs = self.encrypted()
        self.hidden = self.convolutions()
        self.features = self.first_dense()
        logits = self.second_dense()
        result = [logit.decrypt()[0] for logit in logits]
        seconds = time.perf_counter() - began
        return np.array([result]), seconds, SEEN * SEEN * 3 * size(self.inputs[0, 0, 0]) + sum(map(size, logits))

    def encrypted(self) -> dict:
        """For each colour and each (row, column) seen: that pixel of all positions."""
        padded = np.pad(self.image, ((0, 0), (3, 3), (3, 3)))
        reach = 2 * self.side
        return {
            (c, i, j): ts.ckks_vector(self.context, padded[c, i : i + reach : 2, j : j + reach : 2].ravel().tolist())
            for c in range(3)
            for i in range(SEEN)
            for j in range(SEEN)
        }

    def parallel(self, method, count: int) -> list:
        """``method`` of 0 .. count - 1 on all cores; ciphertexts come back serialised."""
        global _network
        _network = self
        with multiprocessing.get_context("fork").Pool(self.workers) as pool:
            return pool.starmap(_call, [(method, i) for i in range(count)], chunksize=1)

    def convolutions(self) -> list:
        """Both, and the pooling between them: (32,) ciphertexts, after the second sigmoid."""
        parts = self.parallel("channel", len(self.weights["conv1.weight"]))
        sums = [self.load(part) for part in parts[0]]
        for others in parts[1:]:
            sums = [a + self.load(b) for a, b in zip(sums, others)]
        slope, scale = self.cubics[1]
        bias = self.weights["conv2.bias"] * scale
        return [cubic(a + float(b), slope) for a, b in zip(sums, bias)]

    def channel(self, c: int) -> list:
        """What channel ``c`` of the first convolution, pooled, gives to each channel of the second."""
        slope, scale = self.cubics[0]
        w, b = self.weights["conv1.weight"][c] * scale, float(self.weights["conv1.bias"][c] * scale)
        pixels = {}
        for i in range(SEEN - 2):
            for j in range(SEEN - 2):
                terms = (
                    (self.inputs[colour, i + k, j + m], float(w[colour, k, m]))
                    for colour in range(3)
                    for k in range(3)
                    for m in range(3)
                )
                pixels[i, j] = cubic(self.weighted(terms) + b, slope)
        pooled = {
            (i, j): pixels[2 * i, 2 * j]
            + pixels[2 * i, 2 * j + 1]
            + pixels[2 * i + 1, 2 * j]
            + pixels[2 * i + 1, 2 * j + 1]
            for i in range(3)
            for j in range(3)
        }
        kernel = self.weights["conv2.weight"][:, c] * self.cubics[1][1] / 4
        # Outside the image the second convolution sees zeros, not the sigmoid of zeros.
        inside = {(i, j): self.inside(i - 1, j - 1) for i in range(3) for j in range(3)}
        return [
            self.weighted((pooled[p], (float(k[p]) * inside[p]).tolist()) for p in pooled).serialize() for k in kernel
        ]

    def inside(self, down: int, right: int):
        """1 for positions whose neighbour is in the image, 0 for others."""
        rows, columns = np.indices((self.side, self.side))
        rows, columns = rows + down, columns + right
        return ((rows >= 0) & (rows < self.side) & (columns >= 0) & (columns < self.side)).astype(float).ravel()

    def first_dense(self) -> list:
        units = [self.load(unit) for unit in self.parallel("unit", len(self.weights["fc1.weight"]))]
        slope, _ = self.cubics[2]
        return [cubic(unit, slope) for unit in units]

    def unit(self, h: int) -> bytes:
        """One unit of the first dense layer, the pooling before it included: a sum over slots."""
        scale = self.cubics[2][1]
        w = self.weights["fc1.weight"][h].reshape(len(self.hidden), self.side // 2, self.side // 2)
        w = np.repeat(np.repeat(w, 2, axis=1), 2, axis=2) * scale / 4
        sums = self.weighted((v, k.ravel().tolist()) for v, k in zip(self.hidden, w)).sum()
        return (sums + float(self.weights["fc1.bias"][h] * scale)).serialize()

    def second_dense(self) -> list:
        weights, bias = self.weights["fc2.weight"], self.weights["fc2.bias"]
        return [total(v * float(k) for v, k in zip(self.features, w)) + float(b) for w, b in zip(weights, bias)]

    def weighted(self, terms):
        """A sum of products by public numbers, rescaled once and not at every product, which takes four times as long.

        TenSEAL rescales every product or none, and takes the scale for what it always is: products that are not
        rescaled are larger by that scale in its eyes.  Times its inverse, whose encoding is 1, and rescaled, they are
        right.
        """
        self.context.auto_rescale = False
        result = total(ciphertext * factor for ciphertext, factor in terms)
        self.context.auto_rescale = True
        return result * 2.0**-NETWORK_SCALE_BITS

    def load(self, data: bytes):
        return ts.ckks_vector_from(self.context, data)


_network: Network


def _call(method: str, index: int):
    return getattr(_network, method)(index)


def total(terms):
    terms = iter(terms)
    result = next(terms)
    for term in terms:
        result += term
    return result


def cubic(u, slope: float):
    """0.5 + slope u - u^3: sigmoid of x, where u is x times the scale that belongs to the slope."""
    return u * slope - (u * u) * u + 0.5


def fitted_cubics(image, weights: dict) -> list:
    """(slope, scale) for each sigmoid, fitted to the numbers that occur for this image: the best there could be."""
    found = []

    def activated(x):
        odd = np.linalg.lstsq(np.stack([x.ravel(), x.ravel() ** 3], axis=1), sigmoid(x).ravel() - 0.5, rcond=None)[0]
        scale = max(1e-3, -odd[1]) ** (1 / 3)
        found.append((float(odd[0] / scale), float(scale)))
        return sigmoid(x)

    x = image
    for name in ("conv1", "conv2"):
        windows = np.lib.stride_tricks.sliding_window_view(np.pad(x, ((0, 0), (1, 1), (1, 1))), (3, 3), axis=(1, 2))
        y = np.einsum("chwij,ocij->ohw", windows, weights[f"{name}.weight"], optimize=True)
        y = activated(y + weights[f"{name}.bias"][:, None, None])
        x = (y[:, ::2, ::2] + y[:, 1::2, ::2] + y[:, ::2, 1::2] + y[:, 1::2, 1::2]) / 4
    activated(weights["fc1.weight"] @ x.ravel() + weights["fc1.bias"])
    return found


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


if __name__ == "__main__":
    serve(Runner(), claim_stdout())
