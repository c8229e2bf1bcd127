"""Dealing: masks from seeds, corrections for the last party alone, and stored masks that stay the same."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from mpc.errors import ProgramError
from mpc.objective import Objective
from mpc.operation import Input, Operation, Stored, registered
from mpc.program import Expression, Program
from mpc.rings import FieldRing, field, known_rings
from mpc.rings.prg import SEED_BYTES, Seed, elements_sum
from mpc.security import Security
from protocols.lowering.in_range import within
from protocols.lowering.intervals import assumptions, watched
from protocols.lowering.plan import lowered
from protocols.operations.mask import Mask
from protocols.randomness.source import PartyRandomness
from protocols.randomness.streams import (
    dealt_stream,
    key_share,
    key_stream,
    lent_stream,
    mask_stream,
    output_mac_stream,
    output_stream,
    stored_stream,
)
from protocols.readings.dealer import StoredMasks, deal, digest
from protocols.readings.memory import party_randomness
from protocols.readings.reveal import key_commitment
from protocols.trace.mathematics import Keep, Multiply, Node
from protocols.trace.random import Random
from protocols.trace.secret_tensor import SecretTensor


def a_program(secure: Any) -> Any:
    x, y = secure.secret((2, 3)), secure.secret((3,))
    return secure.program((x * y + 1).sigmoid(interval=(-8, 8)), x**2)


@pytest.mark.parametrize("parties", [2, 3, 5])
def test_what_is_dealt_adds_up(secure: Any, parties: int) -> None:
    program = a_program(secure)
    seeds = secure.seeds(parties, 0)
    dealing = deal(program, parties, {}, seeds=seeds)
    parts = program.corrected(Security.SEMI_HONEST)
    shapes = [(i, k, part.shape) for i, dealt in enumerate(parts) for k, part in enumerate(dealt)]
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
        if name == "fourier":
            # What the product lends is no mask that anybody drew: what is dealt is of the rest of it.
            (product,) = program.loans.lenders
            lent = elements_sum([lent_stream(s, product) for s in seeds], program.nodes[product].type.shape)
            (mask,) = program.loans.borrowers
            rest = field.subtract(field.multiply(x, y), lent)
            raised = program.nodes[mask].type.fraction_bits - program.nodes[product].type.fraction_bits
            (waves,) = program.correlations[i]
            (made,) = waves.make(known_rings(), [field.scale(rest, 1 << raised)])
            assert np.array_equal(value, made)
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
    streams += [lent_stream(seed, i) for i in range(30)]
    streams += [stored_stream(seed, name) for name in ("", "node 1", "output 1", "0", "w", "w ")]
    assert len({bytes(s) for s in streams}) == len(streams)


def test_every_opening_has_a_mask_of_its_own(secure: Any) -> None:
    """Even two openings of the same tensor, which no honest planner would ask for."""
    x = lowered(secure.secret((2,)).truncate(8).node)
    twice = [Expression(Mask(), (x,)) for _ in range(2)]
    program = Program.of(twice)
    seeds = secure.seeds(2, 2)
    masks = [i for i, n in enumerate(program.nodes) if n.operation.opens]
    assert len(masks) == 2
    first, second = (elements_sum([mask_stream(s, i) for s in seeds], (2,)) for i in masks)
    assert not np.array_equal(first, second)


def test_masks_of_stored_tensors(secure: Any) -> None:
    seeds = tuple(secure.seeds(2, 3))
    stored = StoredMasks(seeds, {"w": (3,), "v": (3,)})
    assert np.array_equal(stored.mask("w", FieldRing()), elements_sum([stored_stream(s, "w") for s in seeds], (3,)))
    assert stored.mask("w", FieldRing()) is stored.mask("w", FieldRing())
    assert not np.array_equal(stored.mask("w", FieldRing()), stored.mask("v", FieldRing()))
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


# -- MACs --------------------------------------------------------------------------------------------------------------


def every_dealt_operation(secure: Any) -> Any:
    """Every operation for which something is dealt, and every kind of mask; what is stored is checked as well."""
    x, image = secure.secret((3,), -1, 1), secure.secret((1, 1, 3, 3), -1, 1)
    w, kernel = secure.stored("w", (3, 2)), secure.stored("k", (1, 1, 2, 2))
    y = SecretTensor(Node(Keep("y"), ((x * x * x).node,)))
    v = (x @ w).assumed(-0.5, 0.5)
    outputs = (
        v, (y @ w).truncate(10), (x * y).polynomial([0.5, 1.0, -0.25]), x**3, (x * y) / 1000003,
        x.sigmoid(interval=(-8, 8)), image.conv2d(kernel), x > 0, x.relu(), secure.secret((2,), 0, 3, 0).one_hot(4),
        secure.secret((1,)) >= np.linspace(-3, 3, 64),
        Random().bernoulli(0.5, 3), Random().permutation(x), x._joined(Multiply(at_once=True), x * x * x * x, x),
    )  # fmt: skip
    objective = Objective(0, Security.MALICIOUS)
    results = [lowered(z.node, objective) for z in outputs]
    sources = [z for z in Program.order(results) if isinstance(z.operation, Input | Stored)]
    gated, _ = watched(results, [], assumptions(results), Security.MALICIOUS, gated=True)
    return Program.of(gated, [within(z, objective) for z in sources], objective=objective)


def shares_of(program: Any, dealing: Any, parties: int, security: Security) -> list[PartyRandomness]:
    return [party_randomness(dealing, program, i, security) for i in range(parties)]


def added(parts: list[Any]) -> Any:
    total = parts[0]
    for part in parts[1:]:
        total = field.add(total, part)
    return total


@pytest.mark.parametrize("parties", [2, 3, 5])
def test_every_mac_is_the_key_times_the_value(secure: Any, parties: int) -> None:
    program = every_dealt_operation(secure)
    dealing_operations = {n for n, kind in registered().items() if kind.correlations is not Operation.correlations}
    dealt = {n.operation.name for i, n in enumerate(program.nodes) if program.dealt[i]}
    # Of bits, which carry no MACs; and as for `Nonzero`, where results are revealed.
    assert dealt == dealing_operations - {"beyond", "beyonds", "steps", "signed", "sign", "sign_bits", "lifted", "zero"}
    stored = StoredMasks(tuple(secure.seeds(parties, 6)), {"w": (3, 2), "k": (1, 1, 2, 2)})
    seeds = secure.seeds(parties, 7)
    dealing = deal(program, parties, {"model": stored}, Security.MALICIOUS, seeds)
    randomness = shares_of(program, dealing, parties, Security.MALICIOUS)
    key = sum(key_share(r.key_stream) for r in randomness)
    masked = set()
    for i, node in enumerate(program.nodes):
        if program.keyed(i):
            name = node.operation.name
            masked.add(name)
            own = node.operation.tensor if name == "stored" else ""
            value = stored.mask(own, FieldRing()) if own else added([r.mask(i) for r in randomness])
            assert np.array_equal(added([r.mask_mac(i) for r in randomness]), field.scale(value, key))
        for value, mac in zip(
            zip(*(r.dealt(i) for r in randomness), strict=True),
            zip(*(r.dealt_macs(i) for r in randomness), strict=True),
            strict=True,
        ):
            assert np.array_equal(added(list(mac)), field.scale(added(list(value)), key))
    assert masked == {"input", "stored", "mask", "keep", "draw", "coefficients"}


def test_values_are_dealt_alike_in_both_modes(secure: Any) -> None:
    """From the same seeds: the MACs come on top."""
    program = every_dealt_operation(secure)
    stored = {"model": StoredMasks(tuple(secure.seeds(3, 6)), {"w": (3, 2), "k": (1, 1, 2, 2)})}
    seeds = secure.seeds(3, 8)
    plain = deal(program, 3, stored, seeds=seeds)
    macs = deal(program, 3, stored, Security.MALICIOUS, seeds)
    assert plain.input_seeds == macs.input_seeds
    assert all(np.array_equal(a, b) for a, b in zip(plain.output_masks, macs.output_masks, strict=True))
    assert plain.output_mac_masks == ()
    assert plain.key_commitments == ()
    one, two = shares_of(program, plain, 3, Security.SEMI_HONEST), shares_of(program, macs, 3, Security.MALICIOUS)
    for i in range(len(program.nodes)):
        for a, b in zip(one, two, strict=True):
            assert all(np.array_equal(x, y) for x, y in zip(a.dealt(i), b.dealt(i), strict=True))
    flat = [c for c, value in zip(macs.corrections, kinds(program), strict=True) if value]
    assert all(np.array_equal(a, b) for a, b in zip(plain.corrections, flat, strict=True))
    own = sum(map(program.keyed, range(len(program.nodes))))
    assert len(macs.corrections) == 2 * len(plain.corrections) + len(program.loans.lenders) + own


def kinds(program: Any) -> list[bool]:
    """Per correction of the malicious mode, whether it is of a value: per node values, the mask's MAC, their MACs."""
    values, all_ = (program.corrected(security) for security in (Security.SEMI_HONEST, Security.MALICIOUS))
    return [k < len(values[i]) for i, parts in enumerate(all_) for k in range(len(parts))]


def test_the_client_learns_masks_of_macs_and_commitments_to_the_key(secure: Any) -> None:
    program = a_program(secure)
    seeds = secure.seeds(3, 1)
    dealing = deal(program, 3, {}, Security.MALICIOUS, seeds)
    for k, mask in enumerate(dealing.output_mac_masks):
        assert np.array_equal(mask, elements_sum([output_mac_stream(s, k) for s in seeds], mask.shape))
        assert not np.array_equal(mask, dealing.output_masks[k])
    assert list(dealing.key_commitments) == [key_commitment(i, key_stream(s)) for i, s in enumerate(seeds)]
    told = b"".join(bytes(part) if isinstance(part, bytes) else part.tobytes() for part in dealing.for_client())
    for seed in seeds:
        assert bytes(key_stream(seed)) not in told


def test_the_digest_of_the_clients_part_shows_every_change(secure: Any) -> None:
    part = deal(a_program(secure), 2, {}, Security.MALICIOUS, secure.seeds(2, 1)).for_client()
    found = {digest(part), digest(part[:-1]), digest([*part, b""]), digest([part[1], part[0], *part[2:]])}
    for k, buffer in enumerate(part):
        data = bytearray(buffer.tobytes() if isinstance(buffer, np.ndarray) else buffer)
        for place in (0, len(data) - 1):
            changed = data.copy()
            changed[place] ^= 1
            found.add(digest([*part[:k], bytes(changed), *part[k + 1 :]]))
    assert len(found) == 4 + 2 * len(part)
    # The same bytes are the same part, in whatever they come.
    assert digest([memoryview(b.tobytes()) if isinstance(b, np.ndarray) else bytearray(b) for b in part]) == digest(
        part
    )


def test_streams_of_macs_never_meet_others() -> None:
    seed = Seed(bytes(SEED_BYTES))
    streams = [output_stream(seed, i) for i in range(30)] + [output_mac_stream(seed, i) for i in range(30)]
    streams += [key_stream(seed), *(mask_stream(seed, i) for i in range(30))]
    streams += [dealt_stream(seed, i, k) for i in range(30) for k in range(13)]
    assert len({bytes(s) for s in streams}) == len(streams)
