"""What tests of programs share: how to write one, run it in memory among parties, and bound what it may be off by.

Handed to tests as the fixture ``secure``, so that nothing has to be imported from one test module into another.
"""

from __future__ import annotations

import contextlib
import gc
import importlib.util
import logging
import math
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Before NumPy and torch are there: as many threads as cores in each of as many processes as cores get into each
# other's way, and what takes 2 ms takes 20.
os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, settings

import protocols  # noqa: F401 - makes the operations known
from mpc import fixed_point
from mpc.cost import cost
from mpc.objective import ANY, LATENCY, Objective
from mpc.operation import Input, PartyContext, Stored, Value
from mpc.program import Program
from mpc.program_format import Node
from mpc.rings import Rings, field, known_rings
from mpc.rings.prg import Seed
from mpc.security import Security
from mpc.tensor_type import Form, TensorType
from parties.host.log_quota import QuotaHandler
from protocols.lowering.plan import plan
from protocols.operations.fourier import EXTRA_BITS
from protocols.operations.polynomial import polynomial_slope
from protocols.operations.quotient import Quotient
from protocols.operations.truncation import Truncate
from protocols.readings.clear import clear
from protocols.readings.dealer import Dealing
from protocols.readings.memory import MemoryRun, MemoryStore, run_in_memory
from protocols.trace.secret_tensor import SecretTensor, graph_of, leaf

# What no test may depend on: a background job of a shell ignores SIGINT, one under nohup SIGHUP, and so would all
# processes started here.  A handler, unlike that, is not passed on; this process goes on heeding nothing.
for _number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM):
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, lambda *_: None)
# Servers under test flush what they write to the disk, which takes longer than all else that they do: where there is
# room in memory for their files, none waits for a disk.
_memory = Path("/dev/shm")
if "TMPDIR" not in os.environ and _memory.is_dir() and os.access(_memory, os.W_OK):
    _room = os.statvfs(_memory)
    if _room.f_bavail * _room.f_frsize > 4 << 30 and not _room.f_flag & os.ST_NOEXEC:
        os.environ["TMPDIR"] = tempfile.tempdir = str(_memory)
# And a service manager that waits for us is not to hear from servers under test.
for _name in ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"):
    os.environ.pop(_name, None)

# The same examples in each run, and as long as they take on a machine that does much else.
settings.register_profile("alike", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("alike")

# A collection goes over ten thousand tests and all that they import: a fifth of all processor time went there.
gc.set_threshold(20_000, 10, 100)

# Servers and commands that tests start are forks of one process that has imported.
_nursery: Any = importlib.util.module_from_spec(
    _spec := importlib.util.spec_from_file_location("nursery", Path(__file__).with_name("nursery.py"))  # type: ignore[arg-type]
)
_spec.loader.exec_module(_nursery)  # type: ignore[union-attr]
subprocess.Popen = _nursery.Forked  # type: ignore[misc]

Reals = npt.NDArray[np.float64]
Raw = npt.NDArray[np.uint64]

# A sandbox of its own needs rights that containers do not give; no requests of the browser's own.
CHROMIUM = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


WAITING = ("end_to_end", "tessera", "network", "benchmarks", "adversary", "parties")
"""Folders of tests that wait: for processes, for peers that are silent.  Those whose files take longest come first."""


def pytest_configure(config: pytest.Config) -> None:
    # By default files with many tests go first.  Those with few take longer.
    config.option.loadscopereorder = False
    if hasattr(config, "workerinput"):
        if [Path(argument).resolve() for argument in config.args] == [Path(__file__).parent]:
            _rewrite_share(
                config, int(config.workerinput["workerid"].removeprefix("gw")), config.workerinput["workercount"]
            )
    elif getattr(config.option, "numprocesses", None):
        # Where there are no compiled kernels yet, it compiles them while the workers collect.
        _nursery.start()


def _rewrite_share(config: Any, number: int, count: int) -> None:
    """Each worker imports every file of tests, and where none has been before, rewriting their asserts takes 8 s: of
    each worker, unless each leaves what is its share on the disk, for all.

    With what is pytest's own: should it be called otherwise some day, each does everything.
    """
    from _pytest.assertion import rewrite

    if sys.dont_write_bytecode:
        return
    with contextlib.suppress(AttributeError, TypeError):
        state = config.stash[rewrite.assertstate_key]
        for path in sorted(Path(__file__).parent.rglob("test_*.py"))[number::count]:
            folder = rewrite.get_cache_dir(path)
            compiled = folder / (path.stem + rewrite.PYC_TAIL)
            if rewrite.try_makedirs(folder) and rewrite._read_pyc(path, compiled) is None:
                stat, code = rewrite._rewrite_test(path, config)
                rewrite._write_pyc(state, code, stat, compiled)


def pytest_collection_finish(session: pytest.Session) -> None:
    gc.freeze()
    if hasattr(session.config, "workerinput"):
        _nursery.warm_up()


def pytest_unconfigure() -> None:
    _nursery.close()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Before pytest leaves out what is not asked for."""
    _mark_sampled(items)
    _take_turns(items)


def _mark_sampled(items: Sequence[pytest.Item]) -> None:
    """Of a matrix that is ``sampled(n)`` all cases but every n-th are slow."""
    seen = Counter[str]()
    for item in items:
        mark = item.get_closest_marker("sampled")
        if mark is not None:
            test = item.nodeid.partition("[")[0]
            if seen[test] % mark.args[0]:
                item.add_marker(pytest.mark.slow)
            seen[test] += 1


def _take_turns(items: list[pytest.Item]) -> None:
    """Files that wait and files that compute, in turns: or workers wait at first, and have no core each at the end."""
    ranks = {name: rank for rank, name in enumerate(WAITING)}
    files = list(dict.fromkeys(item.path for item in items))
    waiting = sorted((path for path in files if path.parent.name in ranks), key=lambda path: ranks[path.parent.name])
    computing = [path for path in files if path.parent.name not in ranks]
    turn = {path: number / len(group) for group in (waiting, computing) for number, path in enumerate(group)}
    items.sort(key=lambda item: turn[item.path])


@dataclass(frozen=True)
class Seen:
    """Everything that left a process in one run."""

    dealing: Dealing
    masked: list[Raw]
    sent: list[list[Raw]]
    """By round, by party."""
    shares: list[list[Raw]]
    """By party, by output."""
    outputs: list[Raw]


class Secure:
    """Helpers to write and run programs."""

    @staticmethod
    def secret(shape: tuple[int, ...], low: float = -4.0, high: float = 4.0, bits: int = 16) -> SecretTensor:
        return leaf(Input(shape, bits, low, high))

    @staticmethod
    def stored(name: str, shape: tuple[int, ...], low: float = -1.0, high: float = 1.0, bits: int = 14) -> SecretTensor:
        return leaf(Stored(shape, bits, low, high, "model", name))

    @staticmethod
    def program(*tensors: SecretTensor, objective: Objective = LATENCY, checked: bool = False) -> Program:
        """The program, as another process would have read it."""
        program = plan(graph_of(tensors), objective, checked=checked)
        again = Program.decode(program.encode())
        assert again.digest == program.digest
        return again

    @staticmethod
    def draw(seed: int, shape: tuple[int, ...], low: float = -4.0, high: float = 4.0, bits: int = 16) -> Reals:
        """Values that have an exact encoding: uniform, ends of the range, zero and single units mixed."""
        rng = np.random.default_rng(seed)
        special = np.array([low, high, 0.0, 2.0**-bits, -(2.0**-bits)])
        special = special[(special >= low) & (special <= high)]
        values = rng.uniform(low, high, shape)
        values = np.where(rng.random(shape) < 0.4, rng.choice(special, shape), values)
        return np.asarray(np.trunc(values * 2.0**bits) * 2.0**-bits)

    def check(
        self,
        build: Callable[..., SecretTensor],
        *arrays: Reals,
        reference: Callable[..., Any] | None = None,
        error: float = 0.0,
        low: float = -4.0,
        high: float = 4.0,
        bits: int = 16,
        parties: Sequence[int] = (2, 3, 5),
    ) -> Program:
        """Parties and clear reading agree within the tolerances; the clear reading and NumPy within ``error``."""
        tensors = [self.secret(a.shape, low, high, bits) for a in arrays]
        result = build(*tensors)
        wanted = np.asarray((reference or build)(*arrays))
        assert result.shape == wanted.shape
        program = self.program(result)
        # Inputs that the result does not depend on are not part of the program.
        used = [program.nodes[i] for i in program.inputs]
        encoded = [fixed_point.encode(a, bits) for a in arrays]
        if len(used) != len(arrays):
            encoded = encoded[: len(used)]
        exact = clear(program, encoded)[0]
        assert exact.shape == wanted.shape
        unit = 2.0**-result.type.fraction_bits
        plain = fixed_point.decode(exact, result.type.fraction_bits)
        if plain.size:
            assert np.abs(plain - wanted).max() <= error, np.abs(plain - wanted).max()
        bound = self.bound(program)[program.outputs[0]]
        runs = [(count, Security.SEMI_HONEST) for count in parties] + [(2, Security.MALICIOUS), (3, Security.MALICIOUS)]
        strict = self.program(result, objective=Objective(ANY, Security.MALICIOUS))
        for count, security in runs:
            planned = strict if security is Security.MALICIOUS else program
            run = run_in_memory(planned, encoded, parties=count, security=security)
            (out,) = run.outputs
            assert out.shape == wanted.shape
            assert field.is_reduced(out)
            difference = np.abs(field.to_signed(field.subtract(out, exact)))
            assert not difference.size or difference.max() <= bound, (difference.max(), bound)
            if plain.size:
                real = fixed_point.decode(out, result.type.fraction_bits)
                assert real.min() >= result.type.low - bound * unit
                assert real.max() <= result.type.high + bound * unit
        return program

    @staticmethod
    def divided(operation: Truncate | Quotient, x: npt.NDArray[np.int64], mask: Raw) -> npt.NDArray[np.int64]:
        """What two parties reconstruct of raw values, the masks being these."""
        bits = operation.bits if isinstance(operation, Truncate) else 0
        large = isinstance(operation, Quotient) and operation.divisor > 2**39
        limit = (2**58 if large else 2**59 - 2**39) * 2.0**-bits
        types = (TensorType(x.shape, bits, -limit, limit, Form.MASKED),)
        operation.result(*types)
        opened = field.subtract(field.from_signed(x), mask)
        (correlation,) = operation.correlations(*types)
        dealt = correlation.make(known_rings(), [mask])
        rng = np.random.default_rng(0)
        first = [rng.integers(0, field.P, d.shape, dtype=np.uint64) for d in dealt]
        second = [field.subtract(d, s) for d, s in zip(dealt, first, strict=True)]
        total = field.zeros(x.shape)
        for index, shares in enumerate((first, second)):
            context = PartyContext(index, 2)
            value = operation.evaluate(context, types, [Value(opened, None)], shares)
            total = field.add(total, context.fold(value, types[0]))
        return np.asarray(field.to_signed(total))

    @staticmethod
    def bound(program: Program) -> list[float]:
        """Per node: how far, in units of its last place, the parties may be from the clear reading."""
        bounds: list[float] = []
        for node in program.nodes:
            types = program.input_types(node)
            bounds.append(_bound(node, types, [bounds[j] for j in node.inputs]))
        return bounds

    @staticmethod
    def store(tensors: dict[str, Raw], parties: int) -> MemoryStore:
        return MemoryStore("model", tensors, parties)

    @staticmethod
    def seeds(parties: int, number: int) -> list[Seed]:
        """Seeds for the ``number``-th of many runs that come out alike each time."""
        root = Seed(bytes(range(16))).derive(f"run {number}")
        return [root.derive(f"party {i}") for i in range(parties)]

    @staticmethod
    def watch(
        program: Program,
        inputs: Sequence[Raw],
        parties: int,
        seeds: Sequence[Seed],
        store: MemoryStore | None = None,
        security: Security = Security.SEMI_HONEST,
    ) -> Seen:
        """One run with these seeds, and everything that was sent in it."""
        sent: list[list[Raw]] = []

        def listen(number: int, sender: int, receiver: int, buffer: Raw) -> Raw:
            if len(sent) <= number:
                sent.append([np.empty(0, np.uint64)] * parties)
            sent[number][sender] = buffer.copy()
            return buffer

        run = run_in_memory(
            program, inputs, parties=parties, store=store, security=security, tamper=listen, seeds=seeds
        )
        return Seen(run.dealing, run.masked, sent, run.shares, run.outputs)

    @staticmethod
    def opened_bits(program: Program, sent: Sequence[Raw], count: int) -> Any:
        """What two parties open of ``count`` numbers in a round, of packed bits or of packed small numbers: a row of
        bits for each."""
        if sent[0].dtype == np.uint8:
            planes = (sent[0] ^ sent[1]).reshape(-1, (count + 7) // 8)
            return np.unpackbits(planes, axis=1, count=count, bitorder="little").T
        (name,) = {n.type.ring for n in program.nodes if n.operation.name == "weighed"}
        bits = int(name.removeprefix("mod")).bit_length() - 1
        opened, places = known_rings()[name].add(*sent), np.arange(64 // bits * bits, dtype=np.uint64)
        return (opened.reshape(-1, 1) >> places & np.uint64(1)).reshape(-1, bits)[:count].astype(np.uint8)

    @staticmethod
    def as_predicted(
        program: Program,
        inputs: Sequence[Raw],
        parties: int = 2,
        security: Security = Security.SEMI_HONEST,
        store: MemoryStore | None = None,
    ) -> MemoryRun:
        """One run, of which rounds, bytes that each party sends, and bytes dealt are what is predicted."""
        sent: dict[tuple[int, int], int] = {}

        def listen(number: int, sender: int, receiver: int, vector: Any) -> Any:
            # A round has a vector for each ring.
            sent[number, sender] = sent.get((number, sender), 0) + vector.nbytes
            return vector

        run = run_in_memory(program, inputs, parties=parties, store=store, security=security, tamper=listen)
        predicted = cost(program, parties, security)
        assert predicted.online_rounds == len({number for number, _ in sent}) + 1
        assert predicted.offline_dealer_bytes[-1] == 16 + sum(part.nbytes for part in run.dealing.corrections)
        opened = {sum(count for (_, sender), count in sent.items() if sender == party) for party in range(parties)}
        assert opened == {predicted.online_bytes_per_party - predicted.online_output_bytes}
        return run


def _bound(node: Node, types: tuple[TensorType, ...], errors: list[float]) -> float:
    operation: Any = node.operation
    own = operation.tolerance(*types)
    match operation.name:
        case "add" | "subtract":
            return sum(errors)
        case "raise":
            return errors[0] * 2.0**operation.bits
        case "sum":
            return errors[0] * math.prod(types[0].shape[a] for a in operation.axes)
        case "sum_pool2d":
            return errors[0] * math.prod(operation.kernel)
        case "multiply" | "matmul" | "conv2d":
            x, y = types
            raw_x, raw_y = x.magnitude * 2.0**x.fraction_bits, y.magnitude * 2.0**y.fraction_bits
            return operation._inner(x, y) * (raw_x * errors[1] + raw_y * errors[0] + errors[0] * errors[1])
        case "gate":
            return errors[0]
        case "truncate":
            return errors[0] * 2.0**-operation.bits + own + (1 if errors[0] else 0)
        case "quotient":
            return errors[0] / operation.divisor + own + (1 if errors[0] else 0)
        case "truncated_multiply":
            cut = [e * 2.0**-bits + (1 if e and bits else 0) for e, bits in zip(errors, operation.bits, strict=True)]
            raw = [t.magnitude * 2.0 ** (t.fraction_bits - b) for t, b in zip(types, operation.bits, strict=True)]
            return own + cut[0] * (raw[1] + 1) + (raw[0] + cut[0] + 1) * cut[1]
        case "running_sum":
            return errors[0] * types[0].shape[operation.axis]
        case "polynomial" | "truncated_polynomial":
            x = types[0]
            real = errors[0] * 2.0**-x.fraction_bits
            coefficients = [c * 2.0**-operation.coefficient_bits for c in operation.coefficients]
            unit = 2.0 ** -(x.fraction_bits - getattr(operation, "bits", 0))
            slope = polynomial_slope(coefficients, x.low - real - unit, x.high + real + unit)
            return slope * (real + (unit if errors[0] else 0)) * 2.0**node.type.fraction_bits + own
        case "fourier":
            gain = sum(abs(c) for c in (*operation.cosines, *operation.sines)) * 2.0 ** -(
                operation.public_bits + EXTRA_BITS
            )
            turns = errors[0] * operation.multiplier * 2.0**-operation.period_bits
            return gain * operation.terms * 2 * math.pi * turns * 2.0**node.type.fraction_bits + own
    return max(errors, default=0.0) + own


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """Weights that torch draws are the same in each run, and whatever has run before: torch begins with any seed."""
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _log_of_a_command_ends_with_it() -> Iterator[None]:
    """A server's command that a test has called here logs to an stderr that is closed by then."""
    yield
    root = logging.getLogger()
    root.handlers[:] = [handler for handler in root.handlers if not isinstance(handler, QuotaHandler)]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A headless Chromium that is there; none is downloaded."""
    from playwright.sync_api import sync_playwright

    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        # CI says that there has to be one.
        (pytest.fail if os.environ.get("TESSERA_REQUIRE_BROWSER") else pytest.skip)("no Chromium is installed")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=found, args=CHROMIUM)
        yield chromium
        chromium.close()


@pytest.fixture(scope="session")
def secure() -> Secure:
    return Secure()


@pytest.fixture(scope="session")
def opaque() -> Rings:
    """Rings whose arrays nobody else can look into."""
    spec = importlib.util.spec_from_file_location("opaque", Path(__file__).with_name("opaque.py"))
    module = importlib.util.module_from_spec(spec)  # type: ignore[arg-type]
    spec.loader.exec_module(module)  # type: ignore[union-attr]
    rings: Rings = module.RINGS
    return rings
