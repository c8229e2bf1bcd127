"""What a run keeps is a stored tensor: of the value that was computed, under fresh masks, checked before it is kept."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpc import fixed_point
from mpc.cost import cost
from mpc.errors import MacCheckError, ProgramError, UnsupportedError
from mpc.operation import Value
from mpc.program import Expression, Program
from mpc.rings import FieldRing, field
from mpc.security import Security
from parties.stored.data_set import kept_types
from protocols.lowering.plan import lowered, plan
from protocols.operations.keep import Keep
from protocols.randomness.streams import stored_stream
from protocols.readings.clear import clear_values
from protocols.readings.dealer import StoredMasks, deal
from protocols.readings.memory import MemoryStore, run_in_memory
from protocols.trace.secret_tensor import SecretTensor, graph_of


def keeping(results):
    """The program that keeps these values under these names, and reveals nothing."""
    return plan(graph_of([], results))


BOTH = (Security.SEMI_HONEST, Security.MALICIOUS)


def kept_in(run, tensor):
    """The value that lies on the parties after a run, put together from what each has."""
    held = [party.kept for party in run.runs]
    publics = [tensors[tensor] for _, tensors in held]
    assert all(np.array_equal(public, publics[0]) for public in publics), "all parties have the same x - b"
    shares = [stored_stream(seed, tensor).elements(publics[0].shape) for seed, _ in held]
    dealt = StoredMasks(run.dealing.kept, {tensor: publics[0].shape}).mask(tensor, FieldRing())
    total = shares[0]
    for share in shares[1:]:
        total = field.add(total, share)
    assert np.array_equal(total, dealt), "and their shares of b are those of the dealer's"
    return field.add(publics[0], total)


@pytest.mark.parametrize("security", BOTH, ids=str)
@pytest.mark.parametrize("parties", [2, 3, 5])
def test_what_is_kept_is_what_was_computed(secure, parties, security):
    x, w = secure.secret((2, 3), -1, 1), secure.stored("w", (3, 2))
    program = keeping({"product": x @ w, "input": x, "scaled": x * 3 + 1, "stored": w, "curve": (x * x).sigmoid()})
    weights = fixed_point.encode(np.linspace(-1, 1, 6).reshape(3, 2), 14)
    raw = [fixed_point.encode(np.linspace(-1, 1, 6).reshape(2, 3), 16)]
    store = MemoryStore("model", {"w": weights}, parties)
    run = run_in_memory(program, raw, parties=parties, security=security, store=store)
    assert run.outputs == []
    exact = clear_values(program, raw, store.plain)
    bounds = secure.bound(program)
    for tensor, i in program.kept.items():
        off = np.abs(field.to_signed(field.subtract(kept_in(run, tensor), exact[i])))
        assert off.max() <= bounds[i], tensor


@given(data=st.data(), shape=st.sampled_from([(), (1,), (3,), (2, 3), (0, 2)]), parties=st.integers(2, 4))
def test_any_shape_and_value(secure, data, shape, parties):
    x = secure.secret(shape)
    count = int(np.prod(shape))
    values = data.draw(st.lists(st.floats(-4, 4), min_size=count, max_size=count))
    raw = fixed_point.encode(np.array(values).reshape(shape), 16)
    run = run_in_memory(keeping({"x": x}), [raw], parties=parties)
    assert np.array_equal(kept_in(run, "x"), raw)


@pytest.mark.parametrize("security", BOTH, ids=str)
def test_a_later_run_reads_it(secure, security):
    """With the seeds and openings of the first, as a stored tensor of the second."""
    x = secure.secret((4,), -1, 1)
    first = keeping({"y": x * x})
    raw = [fixed_point.encode([0.5, -1.0, 0.25, 1.0], 16)]
    run = run_in_memory(first, raw, parties=2, security=security)
    t = kept_types(first)["y"]
    y = t.source("later", "y")
    program = plan(graph_of([y * y]))
    store = MemoryStore("later", {"y": kept_in(run, "y")}, 2, run.dealing.kept)
    store.held = [
        {("later", "y"): Value(tensors["y"], stored_stream(seed, "y").elements((4,)))}
        for seed, tensors in (party.kept for party in run.runs)
    ]
    again = run_in_memory(program, [], parties=2, security=security, store=store)
    real = fixed_point.decode(again.outputs[0], program.nodes[program.outputs[0]].type.fraction_bits)
    assert real == pytest.approx(np.array([0.5, -1.0, 0.25, 1.0]) ** 4, abs=1e-3)


def test_its_masks_are_of_one_run(secure):
    program = keeping({"x": secure.secret((64,)), "y": secure.secret((64,))})
    zero = [np.zeros(64, np.uint64)] * 2
    seen = [party.kept[1] for party in (run_in_memory(program, zero, parties=2).runs[0] for _ in range(3))]
    arrays = [found[name] for found in seen for name in ("x", "y")]
    assert len({array.tobytes() for array in arrays}) == 6


@pytest.mark.parametrize("place", range(2))
def test_a_cheat_has_nothing_kept(secure, place):
    """In any round, a share that is off by one: nobody gets as far as to keep anything."""
    x = secure.secret((3,), -1, 1)
    program = keeping({"y": x * x * x})
    raw = [fixed_point.encode([0.5, -1.0, 0.25], 16)]
    assert program.rounds == 2

    def tamper(number, sender, receiver, buffer):
        changed = buffer.copy()
        if number == place and sender == 1:
            changed[0] = field.add(changed[:1], np.ones(1, np.uint64))[0]
        return changed

    with pytest.raises(MacCheckError):
        run_in_memory(program, raw, parties=2, security=Security.MALICIOUS, tamper=tamper)


def test_what_it_costs(secure):
    x = secure.secret((5,), -1, 1)
    without, kept = plan(graph_of([x * x])), keeping({"y": x * x})
    assert kept.rounds == without.rounds + 1
    first, second = (cost(program, 3, Security.SEMI_HONEST) for program in (without, kept))
    # Five elements to each of two parties, and none to the client.
    opened = [sum(layer.opened for layer in found.layers.values()) for found in (first, second)]
    assert opened[1] == opened[0] + 5
    assert len(deal(kept, 3, {}).corrections) == len(deal(without, 3, {}).corrections)


def test_programs_that_keep(secure):
    x = secure.secret((2,))
    program = keeping({"a": x, "b": x * 2})
    again = Program.decode(program.encode())
    assert (dict(again.kept), again.outputs, again.digest) == (dict(program.kept), (), program.digest)
    assert set(program.kept) == {"a", "b"}
    with pytest.raises(ProgramError, match="reveals or keeps at least one"):
        Program([n for n in program.nodes if not n.operation.kept_as], [])
    keep, other = (Expression(Keep("a"), (lowered(y.node),)) for y in (x, x * 3))
    with pytest.raises(ProgramError, match="two values under one name"):
        Program.of([], [keep, other])
    for name in ("", "x" * 201, "a\n"):
        with pytest.raises((ProgramError, UnsupportedError), match="short and printable"):
            keeping({name: x})
    types = kept_types(keeping({"s": SecretTensor(x.node)}))
    assert (types["s"].fraction_bits, types["s"].low, types["s"].high) == (16, -4.0, 4.0)
