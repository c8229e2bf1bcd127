"""Fixed seeds give the same bytes, release after release: what is dealt, opened and revealed, and by whom.

Two members of one run may be of different builds of one release, and stock outlives a restart: whoever changes a label
of a stream, the order of a program's nodes or a protocol's formula changes these digests, and says so in the changelog.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from operator import mul
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from mpc import fixed_point
from mpc.objective import ANY, LATENCY, TRAFFIC, Objective
from mpc.program import Program
from mpc.security import Security
from protocols.readings.memory import run_in_memory
from protocols.trace import mathematics as m
from protocols.trace.random import Random

Raw = npt.NDArray[np.uint64]

CASES: dict[str, tuple[Callable[..., Any], tuple[tuple[int, ...], ...]]] = {
    "linear": (lambda x, y: (x - y).sum(axis=0) * 0.5 + 1.25, ((3, 4), (3, 4))),
    "positions": (lambda x, y: (x[[2, 0]] + y.take([1, 1], 0)).cumsum(1), ((3, 4), (3, 4))),
    "shuffled": (lambda x, y: mul(*Random().permutation(x, y)), ((3, 4), (3, 4))),
    "multiply": (lambda x, y: x * y, ((3, 4), (4,))),
    "matmul": (lambda x, y: x @ y, ((3, 4), (4, 2))),
    "conv2d": (lambda x, w: x.conv2d(w, padding=1).avg_pool2d(2), ((1, 2, 4, 4), (3, 2, 3, 3))),
    "truncate": (lambda x, y: (x * y).truncate(12), ((5,), (5,))),
    "truncated product": (lambda x, y: x._joined(m.Multiply(at_once=True), (x * y) * (x * y), y), ((4,), (4,))),
    "polynomial": (lambda x: x.polynomial([0.5, -0.25, 0.125, 1.0]), ((6,),)),
    "powers": (lambda x: (x * 0.25) ** 9, ((6,),)),
    "fourier": (lambda x: x.sigmoid(), ((6,),)),
    "two layers": (lambda x, w: (x @ w).within(-8, 8).sigmoid() @ w.T, ((2, 3), (3, 5))),
}

COMPARED: dict[str, tuple[Objective, str, str]] = {
    "two rounds": (LATENCY, "036a9b0afa2b703f", "56b51645a146bc79"),
    "three rounds": (TRAFFIC, "c2925df7ad47c4e0", "04f4a8c8301424c5"),
    "with MACs": (Objective(ANY, Security.MALICIOUS), "c8b534394d7b41c1", "2ef7c947dec56e1b"),
    "with MACs and fewer bytes": (Objective(1000, Security.MALICIOUS), "be9d67ad81008566", "2230c6eaf60ca45f"),
}

KNOWN = {
    "linear, 2": "cdbb2e1fcf35911f",
    "linear, 3": "a206d1af35e61d1e",
    "positions, 2": "0bde208082cb7ff0",
    "positions, 3": "0a675f91bedd8590",
    "shuffled, 2": "f688c3193da67d19",
    "shuffled, 3": "f0c654113140dabe",
    "multiply, 2": "b3874f599c776de1",
    "multiply, 3": "461e43ed72ecdd19",
    "matmul, 2": "e48b6ea4adaf068e",
    "matmul, 3": "ca2efc0707ee38a9",
    "conv2d, 2": "52e33a8097a2945e",
    "conv2d, 3": "8cd2009c3a3a3e4b",
    "truncate, 2": "27488a40c2160f16",
    "truncate, 3": "a473d0d8cb37d23f",
    "truncated product, 2": "57a802a1d46604b2",
    "truncated product, 3": "d48fc40119124d86",
    "polynomial, 2": "cf553d11f14d2ea1",
    "polynomial, 3": "06a0cc6e08c774d4",
    "powers, 2": "db18d7fb5c102cca",
    "powers, 3": "c27e0a31e53f23bc",
    "fourier, 2": "7de70347286f20b9",
    "fourier, 3": "7fe59bb18e438aa4",
    "two layers, 2": "4df215301601de63",
    "two layers, 3": "5f3ca9aacd82d0c4",
}


def digest(buffers: Iterable[Raw]) -> str:
    state = hashlib.sha256()
    for buffer in buffers:
        state.update(np.ascontiguousarray(buffer).astype("<u8").tobytes())
    return state.hexdigest()[:16]


@pytest.mark.parametrize("parties", [2, 3])
@pytest.mark.parametrize("name", CASES)
def test_fixed_seeds_give_the_same_bytes(secure: Any, name: str, parties: int) -> None:
    build, shapes = CASES[name]
    program = secure.program(build(*(secure.secret(shape) for shape in shapes)))
    inputs = [fixed_point.encode(secure.draw(i, shape), 16) for i, shape in enumerate(shapes)]
    seeds = secure.seeds(parties, 7)
    seen = secure.watch(program, inputs, parties, seeds)
    strict = secure.watch(program, inputs, parties, seeds, security=Security.MALICIOUS)
    everything = [
        *seen.dealing.corrections,
        *strict.dealing.corrections,
        *seen.masked,
        *(buffer for sent in seen.sent for buffer in sent),
        *(array for shares in seen.shares for array in shares),
        *seen.outputs,
    ]
    assert digest(everything) == KNOWN[f"{name}, {parties}"]


def test_functions_with_tails_give_the_same_bytes(secure: Any) -> None:
    x = secure.secret((5,), -64.0, 64.0)
    program = secure.program(x.silu(), x.sigmoid())
    seen = secure.watch(program, [fixed_point.encode(secure.draw(1, (5,), -64.0, 64.0), 16)], 3, secure.seeds(3, 7))
    state = hashlib.sha256(
        b"".join(np.ascontiguousarray(a).tobytes() for a in (*seen.dealing.corrections, *seen.outputs))
    )
    assert state.hexdigest()[:16] == "48d7239be0a38843"


@pytest.mark.parametrize("name", COMPARED)
def test_comparisons_give_the_same_bytes(secure: Any, name: str) -> None:
    objective, known, cut = COMPARED[name]
    x, y = secure.secret((4,)), secure.secret((4,))
    program = secure.program((x > y) * y, (x * y).relu(), objective=objective)
    assert run_of(secure, program) == known
    # What is let through without its last bits.
    program = secure.program(((x > y) * y).truncate(10), (x * y).relu().truncate(20), objective=objective)
    assert run_of(secure, program) == cut


def run_of(secure: Any, program: Program) -> str:
    objective = program.objective
    inputs = [fixed_point.encode(secure.draw(i, (4,)), 16) for i in range(2)]
    run = run_in_memory(program, inputs, parties=3, seeds=secure.seeds(3, 7), security=objective.security)
    arrays = [*run.dealing.corrections, *run.masked, *run.outputs, *(a for shares in run.shares for a in shares[:2])]
    state = hashlib.sha256(b"".join(np.ascontiguousarray(a).tobytes() for a in arrays))
    return state.hexdigest()[:16]
