"""``tessera bench gpu``: all operations on torch's tensors on a device, bit for bit beside the processor's, and what
arithmetic and a network take on it.

Dealer and both parties compute in this process, one after the other: one card is enough.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any, NamedTuple

import numpy as np

from benchmarks.computing import calibrated
from benchmarks.machine import machine
from benchmarks.models import Subject, subject
from benchmarks.operations import OPERATIONS
from benchmarks.records import Recorder, flatten, spread
from benchmarks.report import milliseconds, plain_table, progress_bar, stdout_console
from mpc import fixed_point
from mpc.errors import NotAsPromised, TesseraError
from mpc.objective import ANY, TRAFFIC, Objective
from mpc.operation import Input
from mpc.program import Program
from mpc.rings import Buffer, Rings, bits_of, field_of, known_rings
from mpc.rings.devices import memory_errors, memory_on, rings_on
from mpc.rings.digits import entries
from mpc.rings.prg import Seed
from mpc.security import Security
from protocols.lowering.plan import plan
from protocols.lowering.planner import FRACTION_BITS
from protocols.readings.memory import run_in_memory
from protocols.trace.secret_tensor import SecretTensor, graph_of, leaf

PARTIES = 2
SIZE = 300
"""Elements of operands that are compared, about."""
OBJECTIVES = (Objective(ANY), TRAFFIC, Objective(ANY, Security.MALICIOUS), Objective(0, Security.MALICIOUS))
WIDTHS = (5, 5, 5, 5)
"""Digits of a comparison in two rounds."""


class Selection(NamedTuple):
    """What compares, beside ``benchmarks.operations``."""

    secret: Callable[[SecretTensor], SecretTensor]
    low: float = -8.0
    high: float = 8.0


SELECTIONS = {
    "relu": Selection(lambda x: x.relu()),
    "sign": Selection(lambda x: x.sign()),
    "equal": Selection(lambda x: x == 0.5),
    "max": Selection(lambda x: x.reshape(-1, 4).max(axis=1)),
    "argmax": Selection(lambda x: x.reshape(-1, 4).argmax(axis=1)),
    "sort": Selection(lambda x: x.reshape(-1, 4).sort(axis=1)),
    "softmax": Selection(lambda x: x.reshape(-1, 4).softmax(axis=1)),
    "quotient": Selection(lambda x: x / 7),
    "clip": Selection(lambda x: x.clip(-1, 1)),
    "assumed": Selection(lambda x: (x * x).assumed(0, 64)),
}


def run(options: argparse.Namespace) -> int:
    """Compare, measure and print; the exit code.  Raises NotAsPromised where a bit is not what it is to be,
    MemoryError where the device has not enough.
    """
    with memory_errors():
        return _run(options)


def _run(options: argparse.Namespace) -> int:
    recorder = Recorder.of(options)
    rings, chosen = rings_on(options.device), subject(options)
    programs = _programs()
    with progress_bar("comparing", len(programs)) as advance:
        wrong = []
        for name, program in programs:
            wrong += [] if _same(program, rings) else [name]
            advance()
    if wrong:
        names = ", ".join(sorted(set(wrong)))
        raise NotAsPromised(f"{_name(options.device)} computes other bits than the processor: {names}")
    arithmetic = _arithmetic(rings, options.part, options.repeat)
    network = {str(batch): _network(chosen, batch, rings) for batch in options.batches}
    memory = memory_on(options.device)
    summary: dict[str, Any] = {
        "device": _name(options.device), "card": options.device.partition(":")[0] == "cuda", "compared": len(programs),
        "arithmetic": arithmetic, "model": chosen.name, "network": network, "machine": machine(),
        # Of its memory what is free, and could not be overwritten.
        "not_wiped_bytes": 0 if memory is None else memory.wipe(),
    }  # fmt: skip
    case = {"device": summary["device"], "part": options.part, "model": chosen.name}
    recorder.add("gpu", case, flatten(summary, "arithmetic", "network"))
    if options.json:
        recorder.print_json(summary)
    else:
        _print(summary)
    return recorder.finish()


def _name(device: str) -> str:
    """Of the card."""
    import torch

    return torch.cuda.get_device_name(device) if torch.device(device).type == "cuda" else device


# What is compared ---------------------------------------------------------------------------------------------------


def _programs() -> list[tuple[str, Program]]:
    """All operations, by each objective that makes another program of them."""
    made: dict[bytes, tuple[str, Program]] = {}
    for name, operation in OPERATIONS.items():
        shapes = operation.shapes(SIZE)
        secrets = [leaf(Input(shape, FRACTION_BITS, operation.low, operation.high)) for shape in shapes]
        made.update(_planned(name, operation.secret(*secrets)))
    for name, selection in SELECTIONS.items():
        x = leaf(Input((SIZE,), FRACTION_BITS, selection.low, selection.high))
        made.update(_planned(name, selection.secret(x)))
    return list(made.values())


def _planned(name: str, result: SecretTensor) -> dict[bytes, tuple[str, Program]]:
    programs = [plan(graph_of([result]), objective, checked=True) for objective in OBJECTIVES]
    return {program.encode(): (name, program) for program in programs}


def _same(program: Program, rings: Rings) -> bool:
    try:
        return _everything(program, rings) == _everything(program, known_rings())
    except TesseraError:
        return False


def _everything(program: Program, rings: Rings) -> list[bytes]:
    """What is dealt, sent and revealed in a run whose seeds are known, but for the coins of a check."""
    field, generator = field_of(rings), np.random.default_rng(1)
    types = [program.nodes[i].type for i in program.inputs]
    raw = [fixed_point.encode(generator.uniform(t.low, t.high, t.shape), t.fraction_bits) for t in types]
    inputs = [field.from_signed(field_of(known_rings()).to_signed(x)) for x in raw]
    seen: list[bytes] = []

    def listen(number: int, sender: int, receiver: int, buffer: Buffer) -> Buffer:
        # Behind the first opening come commitments to coins, where there are MACs.
        if program.objective.security is Security.SEMI_HONEST:
            seen.append(buffer.tobytes())
        return buffer

    seeds = [Seed(bytes([i] * 16)) for i in range(PARTIES)]
    found = run_in_memory(
        program, inputs, parties=PARTIES, security=program.objective.security, seeds=seeds, tamper=listen, rings=rings
    )
    outputs = [
        rings[program.nodes[i].type.ring].buffer(y).tobytes()
        for i, y in zip(program.outputs, found.outputs, strict=True)
    ]
    return [*(buffer.tobytes() for buffer in found.dealing.corrections), *seen, *outputs]


# What is measured ---------------------------------------------------------------------------------------------------


def _arithmetic(rings: Rings, part: int, repeat: int) -> dict[str, dict[str, float]]:
    """Seconds of each."""
    field, bits = field_of(rings), bits_of(rings)
    count, side = 10**8 // part, math.isqrt(2048**2 // part)
    values, relus = field.sample(Seed(bytes(16)), (count,)), field.sample(Seed(bytes(16)), (10**7 // part,))
    square, half = (field.sample(Seed(bytes([1] * 16)), (n, n)) for n in (side, side // 2))
    tables = bits.sample(Seed(bytes([2] * 16)), (entries(WIDTHS), -(-(10**7 // part) // 8)))
    host = np.zeros(count, np.uint64)
    cases: dict[str, Callable[[], object]] = {
        f"{count:,} products": lambda: field.multiply(values, values),
        f"{side}^3": lambda: field.matmul(square, square),
        f"{side // 2}^3": lambda: field.matmul(half, half),
        f"second step of {10**7 // part:,} ReLUs": lambda: field.packed_look_up(relus, 8, WIDTHS, tables, 1, 1, False),
        f"{8 * count:,} bytes there": lambda: field.read(host.data.cast("B"), (count,)),
        f"{8 * count:,} bytes back": lambda: field.buffer(values),
    }
    found: dict[str, dict[str, float]] = {}
    with progress_bar("measuring", len(cases)) as advance:
        for name, action in cases.items():
            found[name] = spread([_seconds(action, field) for _ in range(repeat + 1)][1:])
            advance()
    return found


def _seconds(action: Callable[[], object], field: Any) -> float:
    """Until it is done: what is looked at has been computed."""
    one = field.full((1,), 1)
    field.is_zero(one)
    started = time.perf_counter()
    action()
    field.is_zero(one)
    return time.perf_counter() - started


def _network(chosen: Subject, batch: int, rings: Rings) -> dict[str, float]:
    """Seconds of dealing, and of a party before and after inputs come; weights are there."""
    program = chosen.program(batch, Security.SEMI_HONEST)
    calibrated(chosen.model, program, PARTIES, Security.SEMI_HONEST, rings)  # kernels are compiled
    return asdict(calibrated(chosen.model, program, PARTIES, Security.SEMI_HONEST, rings))


def _print(summary: dict[str, Any]) -> None:
    console = stdout_console()
    console.print(f"{summary['compared']} programs on {summary['device']}: the same bits as on the processor")
    if not summary["card"]:
        console.print("Times are of torch on the processor, to try this command: they say nothing of a card's.")
    elif summary["not_wiped_bytes"]:
        console.print(f"[bold red]{summary['not_wiped_bytes']:,} bytes of its memory are free and not overwritten[/]")
    table = plain_table(summary["device"], "median")
    for name, times in summary["arithmetic"].items():
        table.add_row(name, milliseconds(times["median"]))
    console.print(table)
    table = plain_table(f"{summary['model']}, inputs", "dealing", "before inputs", "online, of a party")
    for batch, times in summary["network"].items():
        table.add_row(batch, *(milliseconds(times[part]) for part in ("dealing", "preparing", "online")))
    console.print(table)
