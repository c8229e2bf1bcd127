"""Dealing: masks from seeds, corrections for the last party alone, and stored masks that stay the same."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from mpc import field
from mpc.errors import ProgramError
from mpc.operation import operation
from mpc.prg import SEED_BYTES, Seed, elements_sum
from mpc.program import Expression, Program
from protocols.dealer import StoredMasks, deal
from protocols.randomness import dealt_stream, mask_stream, output_stream, stored_stream


def a_program(secure: Any) -> Any:
    x, y = secure.secret((2, 3)), secure.secret((3,))
    return secure.program((x * y + 1).sigmoid(interval=(-8, 8)), x**2)


@pytest.mark.parametrize("parties", [2, 3, 5])
def test_what_is_dealt_adds_up(secure: Any, parties: int) -> None:
    program = a_program(secure)
    seeds = secure.seeds(parties, 0)
    dealing = deal(program, parties, {}, seeds=seeds)
    shapes = [(i, k, s) for i, dealt in enumerate(program.dealt) for k, s in enumerate(dealt)]
    assert [c.shape for c in dealing.corrections] == [(int(np.prod(s)),) for _, _, s in shapes]
    masks = {
        i: elements_sum([mask_stream(s, i) for s in seeds], n.type.shape)
        for i, n in enumerate(program.nodes)
        if n.operation.opens or i in program.inputs
    }
    x, y = (masks[i] for i in program.inputs)
    for (i, k, shape), correction in zip(shapes, dealing.corrections, strict=True):
        others = elements_sum([dealt_stream(s, i, k) for s in seeds[:-1]], shape)
        value = field.add(correction.reshape(shape), others)
        name = program.nodes[i].operation.name
        if name == "multiply":
            assert np.array_equal(value, field.multiply(x, y))
        if name == "polynomial":
            assert np.array_equal(value, field.multiply(x, x))


def test_the_client_learns_the_masks_of_inputs_and_outputs(secure: Any) -> None:
    program = a_program(secure)
    seeds = secure.seeds(3, 1)
    dealing = deal(program, 3, {}, seeds=seeds)
    for i, streams in zip(program.inputs, dealing.input_seeds, strict=True):
        assert list(streams) == [mask_stream(s, i) for s in seeds]
    for k, mask in enumerate(dealing.output_masks):
        assert np.array_equal(mask, elements_sum([output_stream(s, k) for s in seeds], mask.shape))


def test_fresh_seeds_for_every_run(secure: Any) -> None:
    program = a_program(secure)
    runs = [deal(program, 2, {}) for _ in range(3)]
    keys = {bytes(seed) for run in runs for seed in run.seeds}
    assert len(keys) == 6
    assert len({c.tobytes() for run in runs for c in run.corrections}) == 3 * len(runs[0].corrections)


def test_streams_never_meet() -> None:
    seed = Seed(bytes(SEED_BYTES))
    streams = [mask_stream(seed, i) for i in range(30)] + [output_stream(seed, i) for i in range(30)]
    streams += [dealt_stream(seed, i, k) for i in range(30) for k in range(13)]
    streams += [stored_stream(seed, name) for name in ("", "node 1", "output 1", "0", "w", "w ")]
    assert len({bytes(s) for s in streams}) == len(streams)


def test_every_opening_has_a_mask_of_its_own(secure: Any) -> None:
    """Even two openings of the same tensor, which no honest planner would ask for."""
    x = secure.secret((2,)).truncate(8).expression
    twice = [Expression(operation("mask"), (x,)) for _ in range(2)]
    program = Program.of(twice)
    seeds = secure.seeds(2, 2)
    masks = [i for i, n in enumerate(program.nodes) if n.operation.opens]
    assert len(masks) == 2
    first, second = (elements_sum([mask_stream(s, i) for s in seeds], (2,)) for i in masks)
    assert not np.array_equal(first, second)


def test_masks_of_stored_tensors(secure: Any) -> None:
    seeds = tuple(secure.seeds(2, 3))
    stored = StoredMasks(seeds, {"w": (3,), "v": (3,)})
    assert np.array_equal(stored.mask("w"), elements_sum([stored_stream(s, "w") for s in seeds], (3,)))
    assert stored.mask("w") is stored.mask("w")
    assert not np.array_equal(stored.mask("w"), stored.mask("v"))
    program = secure.program(secure.secret((3,)) * secure.stored("w", (3,)))
    runs = [deal(program, 2, {"model": stored}) for _ in range(2)]
    assert runs[0].corrections[0].tobytes() != runs[1].corrections[0].tobytes()


def test_stores_that_are_not_there(secure: Any) -> None:
    program = secure.program(secure.secret((3,)) * secure.stored("w", (3,)))
    with pytest.raises(ProgramError, match="upload it again"):
        deal(program, 2, {})
    seeds = tuple(secure.seeds(2, 4))
    with pytest.raises(ProgramError, match="no tensor 'w'"):
        deal(program, 2, {"model": StoredMasks(seeds, {"w": (4,)})})
    with pytest.raises(ProgramError, match="no tensor 'w'"):
        deal(program, 2, {"model": StoredMasks(seeds, {})})


def test_no_secret_is_shown(secure: Any) -> None:
    seeds = tuple(secure.seeds(2, 5))
    for thing in (deal(a_program(secure), 2, {}, seeds=seeds), StoredMasks(seeds, {"w": (3,)}), seeds[0]):
        shown = repr(thing) + str(thing)
        assert "array" not in shown
        assert not any(bytes(s).hex() in shown or repr(bytes(s)) in shown for s in seeds)
