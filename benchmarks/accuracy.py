"""``tessera bench accuracy``: what is lost to approximation and to fixed point, function by function and bit by bit.

Both parts run the parties' own code in this process (``protocols.readings.memory``): the numbers that come out are
those that processes would send, and nothing here is timed.  Seeds are fixed, so that a second run gives the same
figures.

Functions: every method of every named function that there is, on a dense grid over its interval, against the true
function; those with tails also on ranges of +-64 and +-2^20.  Network: the dermatology CNN by the fraction bits of its
input and of the computation; its weights keep the bits that they are uploaded with.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from rich.console import Console

from benchmarks.inference import test_images
from benchmarks.machine import machine
from benchmarks.models import Subject, derm
from benchmarks.records import Recorder, flatten
from benchmarks.report import Steps, kilobytes, plain_table, progress_bar, stdout_console
from benchmarks.session import Reals
from mpc import fixed_point
from mpc.cost import cost
from mpc.errors import EncodingError, RangeError, UnsupportedError, UsageError
from mpc.operation import Input
from mpc.program import Program
from mpc.rings.field import FieldArray
from mpc.rings.prg import SEED_BYTES, Seed
from nn.derm import samples
from protocols.approximation import FUNCTIONS, METHODS, Fit, Function, TailedFit, default_fit
from protocols.approximation.fits import dense_grid, fine_grid
from protocols.approximation.tails import tailed
from protocols.lowering.plan import plan
from protocols.lowering.planner import FRACTION_BITS
from protocols.readings.memory import MemoryStore, run_in_memory
from protocols.trace.secret_tensor import SecretTensor, graph_of, leaf

PARTIES = 2
"""Those of the other benchmarks' default."""
MANY = 64
"""Elements of which the cost of one is told: packed bits go 64 at a time."""
RANGES = (64.0, 2.0**20)
"""Of values on which functions with tails are tried."""
CHUNK = 108
"""Images in a run: so many that NumPy's calls do not count, and that a run's tensors fit a small machine."""
STORE = "model"


@dataclass(frozen=True)
class Approximation:
    """A named function by one of the library's methods, on an interval or, with tails, on a range."""

    function: Function
    method: str
    fit: Fit
    low: float
    high: float

    @property
    def case(self) -> dict[str, Any]:
        """What identifies its measurement."""
        size = {kind: getattr(self.fit, kind) for kind in ("terms", "degree") if hasattr(self.fit, kind)}
        return {
            "part": "approximation",
            "function": self.function.name,
            "method": self.method,
            "low": self.low,
            "high": self.high,
            "fraction_bits": FRACTION_BITS,
            **size,
        }

    def program(self, count: int) -> Program:
        """On ``count`` elements, as a layer of a model does it."""
        return self._applied(_input(count, FRACTION_BITS, self.low, self.high))

    def inner_program(self) -> Program:
        """On elements that are results themselves, and so have to be opened first; not the client's inputs."""
        half = FRACTION_BITS // 2
        product = _input(MANY, half, self.low, self.high) * _input(MANY, FRACTION_BITS - half, -1.0, 1.0)
        return self._applied(product.within(self.low, self.high))

    def _applied(self, x: SecretTensor) -> Program:
        return plan(graph_of([x.labelled(self.function.name).apply(self.fit, target=self.function.target)]))

    def figures(self) -> dict[str, Any]:
        """Errors over the interval, and the cost of one element.  Raises RangeError for what does not fit the field."""
        x = fine_grid(self.low, self.high) if isinstance(self.fit, TailedFit) else dense_grid(self.low, self.high)
        exact = self.function.exact(x)
        error = np.abs(_evaluated(self.program(x.size), x, FRACTION_BITS) - exact)
        spent = cost(self.inner_program(), PARTIES).layers[self.function.name]
        return {
            "max_error": float(error.max()),
            "rms_error": float(np.sqrt(np.mean(error**2))),
            "fit_error": float(np.abs(self.fit(x) - exact).max()),
            "rounds": spent.rounds,
            **{name: getattr(spent, name) / MANY for name in ("opened", "dealt", "opened_bytes", "dealt_bytes")},
        }


def _input(count: int, fraction_bits: int, low: float, high: float) -> SecretTensor:
    return leaf(Input((count,), fraction_bits, float(low), float(high)))


def approximations() -> Iterator[Approximation]:
    """All that the library has on the functions' own intervals, and on long ranges: by function, then by method."""
    for function in FUNCTIONS.values():
        for method in METHODS:
            try:
                fit = default_fit(function.name, method)
            except UnsupportedError:
                continue  # not every method is there for every function
            yield Approximation(function, method, fit, float(fit.low), float(fit.high))
        for end in RANGES if function.tails is not None else ():
            yield Approximation(function, "tails", tailed(function.name), -end, end)


def run(options: argparse.Namespace) -> int:
    """Measure and print; the exit code."""
    recorder = Recorder.of(options)
    if len(set(options.bits)) < len(options.bits):
        raise UsageError("--bits takes each number once")
    subject = derm()
    images, labels = test_images(options.data, options.images or len(samples()))
    images, labels = images[: options.images], labels[: options.images]
    found = list(approximations())
    chunks = -(-len(images) // CHUNK)
    with progress_bar("approximations", len(found) + chunks * len(options.bits)) as advance:
        functions = []
        for approximation in found:
            functions.append(_measured(approximation, recorder))
            advance()
        network = Network(subject, images, np.asarray(labels), "shipped" if options.data is None else options.data.name)
        rows = []
        for bits in options.bits:
            advance.describe(f"{bits} fraction bits")
            rows.append(network.row(bits, recorder, advance))
    summary = {"functions": functions, **network.about, "fraction_bits": rows, "machine": machine()}
    if options.json:
        recorder.print_json(summary)
    else:
        _print(summary)
    return recorder.finish()


def _measured(approximation: Approximation, recorder: Recorder) -> dict[str, Any]:
    try:
        figures = approximation.figures()
    except RangeError as error:
        return {**approximation.case, "does_not_fit": str(error)}
    recorder.add("accuracy", approximation.case, figures)
    return {**approximation.case, **figures}


class Network:
    """The dermatology CNN on these images: what it should answer, and what the parties do, by fraction bits."""

    def __init__(self, subject: Subject, images: Reals, labels: np.ndarray[Any, Any], data: str) -> None:
        self._subject, self._images, self._labels = subject, images, labels
        self._plain, self._exact = subject.model.plain(images), subject.model.plain(images, exact=True)
        self._store = MemoryStore(STORE, subject.model.encode(), PARTIES, _seeds(0))
        self.about = {
            "model": subject.name,
            "weights": subject.weights,
            "data": data,
            "images": len(images),
            "plain_accuracy": self._accuracy(self._plain),
        }

    def row(self, bits: int, recorder: Recorder, advance: Steps) -> dict[str, Any]:
        """Figures with so many fraction bits, or why that does not fit the field."""
        case = {"part": "model", "model": self._subject.name, "weights": self._subject.weights, "fraction_bits": bits}
        try:
            logits = self._logits(bits, advance)
        except (RangeError, EncodingError) as error:
            return {"fraction_bits": bits, "does_not_fit": str(error)}
        figures = self._figures(logits, bits)
        kept = {"data": self.about["data"], "images": self.about["images"]}
        recorder.add("accuracy", {**case, **kept}, flatten(figures))
        return {"fraction_bits": bits, **figures}

    def _program(self, count: int, bits: int) -> Program:
        return self._subject.model.description.program(
            (count, *self._subject.shape), low=self._subject.low, high=self._subject.high,
            fraction_bits=bits, precision=bits,
        )  # fmt: skip

    def _logits(self, bits: int, advance: Steps) -> Reals:
        programs: dict[int, Program] = {}
        logits = []
        for number, start in enumerate(range(0, len(self._images), CHUNK), start=1):
            chunk = self._images[start : start + CHUNK]
            if len(chunk) not in programs:
                programs[len(chunk)] = self._program(len(chunk), bits)
            logits.append(_evaluated(programs[len(chunk)], chunk, bits, self._store, number))
            advance()
        return np.concatenate(logits)

    def _figures(self, logits: Reals, bits: int) -> dict[str, Any]:
        """The agreement of all images, and the cost of one."""
        spent = cost(self._program(1, bits), PARTIES)
        difference = np.abs(logits - self._plain)
        return {
            "images": len(logits),
            "agree": _agreeing(logits, self._plain),
            "accuracy": self._accuracy(logits),
            "difference": float(difference.max()),
            "rms_difference": float(np.sqrt(np.mean(difference**2))),
            "exact": {
                "agree": _agreeing(logits, self._exact),
                "difference": float(np.abs(logits - self._exact).max()),
            },
            "online": {"rounds": spent.online_rounds, "bytes_per_party": spent.online_bytes_per_party},
            "offline": {"bytes": spent.offline_bytes},
        }

    def _accuracy(self, logits: Reals) -> float:
        return float((logits.argmax(axis=1) == self._labels).mean())


def _agreeing(logits: Reals, reference: Reals) -> int:
    return int((logits.argmax(axis=1) == reference.argmax(axis=1)).sum())


def _evaluated(
    program: Program, x: Reals, fraction_bits: int, store: MemoryStore | None = None, number: int = 0
) -> Reals:
    """The program's one output, evaluated by parties in this process; ``number`` tells runs with one store apart."""
    encoded: FieldArray = fixed_point.encode(x, fraction_bits, name="inputs")
    outputs = run_in_memory(program, [encoded], parties=PARTIES, store=store, seeds=_seeds(number + 1)).outputs
    return fixed_point.decode(outputs[0], program.nodes[program.outputs[0]].type.fraction_bits)


def _seeds(number: int) -> Sequence[Seed]:
    """Of the parties' masks.  Nothing here is secret, and known seeds make the rounding the same every time."""
    generator = np.random.default_rng(number)
    return [Seed(generator.bytes(SEED_BYTES)) for _ in range(PARTIES)]


def _print(summary: dict[str, Any]) -> None:
    console = stdout_console()
    console.print(
        f"Functions on their intervals, {FRACTION_BITS} fraction bits: errors against the true function, of the fit in"
        " float64 and of what the parties compute; cost of one element of a result"
    )
    table = plain_table(
        "function", "method", "size", "interval", "fit", "largest", "rms", "rounds", "opened", "dealt", "bytes"
    )  # fmt: skip
    for row in summary["functions"]:
        size = f"{row['terms']} terms" if "terms" in row else f"degree {row['degree']}" if "degree" in row else ""
        names = (row["function"], row["method"], size, f"[{row['low']:.4g}, {row['high']:.4g}]")
        if "does_not_fit" in row:
            table.add_row(*names, "does not fit")
            continue
        errors = [f"{row[name]:.1e}" for name in ("fit_error", "max_error", "rms_error")]
        spent = ("rounds", "opened", "dealt", "dealt_bytes")
        table.add_row(*names, *errors, *(f"{row[name]:.5g}" for name in spent))
    console.print(table)
    _print_network(console, summary)


def _print_network(console: Console, summary: dict[str, Any]) -> None:
    console.print(
        f"{summary['model']} (weights: {summary['weights']}), {summary['images']} images ({summary['data']}), by"
        " fraction bits: predictions that agree and logits' differences, to the same in float64 and to the exact"
        " sigmoid; cost of one image"
    )
    table = plain_table(
        "bits", "agree", "largest", "rms", "exact: agree", "largest", "accuracy", "rounds", "online, each", "offline"
    )
    for row in summary["fraction_bits"]:
        if "does_not_fit" in row:
            table.add_row(str(row["fraction_bits"]), "does not fit")
            continue
        table.add_row(
            str(row["fraction_bits"]), str(row["agree"]), f"{row['difference']:.1e}", f"{row['rms_difference']:.1e}",
            str(row["exact"]["agree"]), f"{row['exact']['difference']:.1e}", f"{row['accuracy']:.2%}",
            str(row["online"]["rounds"]), kilobytes(row["online"]["bytes_per_party"]),
            kilobytes(row["offline"]["bytes"]),
        )  # fmt: skip
    console.print(table)
    for row in (*summary["functions"], *summary["fraction_bits"]):
        if "does_not_fit" in row:
            name = f"{row['function']}, {row['method']}" if "function" in row else f"{row['fraction_bits']} bits"
            console.print(f"{name}: {row['does_not_fit']}")
    console.print(f"accuracy in float64 {summary['plain_accuracy']:.2%}.  Not for diagnosis.")
