"""What is compared: cases with inputs and expected results, handed to every system as the same ``.npz`` file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.models import Subject, derm
from mpc.errors import UsageError
from protocols.lowering.planner import FRACTION_BITS

Arrays = Mapping[str, npt.NDArray[np.float64]]

SEED = 7


@dataclass(frozen=True)
class Case:
    """One column of the comparison; ``kind`` is what the runners know."""

    name: str
    kind: str
    title: str
    size: int = 0
    """Elements of each operand; for a matrix product, the side."""
    shape: tuple[int, ...] = ()
    """Of the operand, where it is no vector or square matrix."""
    activation: str = "sigmoid"
    """Of a network."""
    batch: int = 0
    side: int = 0
    low: float = -1.0
    high: float = 1.0
    held: bool = False
    """Whether operands are at the parties before, as shares in the middle of a computation, and the result stays so."""

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for a runner."""
        return asdict(self)

    def subject(self) -> Subject:
        """The network of a ``cnn`` case."""
        return derm(self.side, rectified=self.activation == "relu")

    def arrays(self) -> Arrays:
        """Inputs, weights and ``expected``: float64, computed without approximations of any system.

        A network: ``x`` (N, 3, S, S), weights under torch's names.  An operation: ``x`` and, with two operands, ``y``.
        """
        if self.kind == "cnn":
            subject = self.subject()
            x = subject.inputs(self.batch)
            return {**subject.model.weights, "x": x, "expected": subject.model.plain(x, exact=True)}
        shape = self.shape or ((self.size, self.size) if self.kind == "matmul" else (self.size,))
        operands = 2 if self.kind in ("multiply", "matmul") else 1
        # Numbers that fixed point holds exactly: the error is the operation's own.
        unit, generator = 2.0**FRACTION_BITS, np.random.default_rng(SEED)
        ends = round(self.low * unit), round(self.high * unit)
        values = [generator.integers(*ends, shape, endpoint=True) / unit for _ in range(operands)]
        return {**dict(zip("xy", values, strict=False)), "expected": EXACT[self.kind](*values)}

    def save(self, path: Path) -> None:
        """Write ``arrays`` for the runners."""
        np.savez(path, **self.arrays())  # type: ignore[arg-type]


def _pooled(x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    n, channels, height, width = x.shape
    return np.asarray(x.reshape(n, channels, height // 2, 2, width // 2, 2).max(axis=(3, 5)))


def _softmax(x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    powers = np.exp(x - x.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


EXACT: dict[str, Callable[..., npt.NDArray[np.float64]]] = {
    "multiply": np.multiply,
    "matmul": np.matmul,
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "exp": np.exp,
    "relu": lambda x: np.maximum(x, 0),
    "max_pool2d": _pooled,
    "argmax": lambda x: np.argmax(x, axis=1).astype(np.float64),
    "softmax": _softmax,
}

CASES: dict[str, Case] = {
    case.name: case
    for case in (
        Case("cnn-28", "cnn", "CNN, 1 image 28x28", batch=1, side=28),
        Case("cnn-28-batch-32", "cnn", "CNN, 32 images 28x28", batch=32, side=28),
        Case("cnn-128", "cnn", "CNN, 1 image 128x128", batch=1, side=128),
        Case("cnn-relu", "cnn", "CNN with ReLU, 1 image 28x28", batch=1, side=28, activation="relu"),
        Case("cnn-relu-batch-32", "cnn", "CNN with ReLU, 32 images 28x28", batch=32, side=28, activation="relu"),
        Case("multiply-10k", "multiply", "multiply 10^4", size=10_000, low=-8.0, high=8.0),
        Case("multiply", "multiply", "multiply 10^6", size=1_000_000, low=-8.0, high=8.0),
        Case("multiply-held", "multiply", "multiply 10^6, at the parties", 1_000_000, low=-8.0, high=8.0, held=True),
        Case("matmul-128", "matmul", "matmul 128^3", size=128),
        Case("matmul", "matmul", "matmul 1024^3", size=1024),
        Case("matmul-held", "matmul", "matmul 1024^3, at the parties", size=1024, held=True),
        Case("sigmoid", "sigmoid", "sigmoid 10^5", size=100_000, low=-8.0, high=8.0),
        Case("exp", "exp", "exp 10^5 on [-4, 0]", size=100_000, low=-4.0, high=0.0),
        Case("relu", "relu", "ReLU of 10^5, at the parties", size=100_000, low=-8.0, high=8.0, held=True),
        Case(
            "max-pool", "max_pool2d", "max pooling 2x2 of 16x28x28, at the parties",
            shape=(1, 16, 28, 28), low=-8.0, high=8.0, held=True,
        ),
        Case("argmax", "argmax", "argmax of 100x7, at the parties", shape=(100, 7), low=-8.0, high=8.0, held=True),
        Case("softmax", "softmax", "softmax of 100x7, at the parties", shape=(100, 7), low=-8.0, high=8.0, held=True),
    )
}  # fmt: skip


def chosen(names: list[str] | None) -> list[Case]:
    """The cases of these names, by default all.  Raises UsageError for one that does not exist."""
    for name in names or ():
        if name not in CASES:
            raise UsageError(f"there is no case {name!r} to compare: the known ones are {', '.join(CASES)}")
    return [CASES[name] for name in names or CASES]
