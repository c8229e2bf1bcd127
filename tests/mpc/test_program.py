"""Programs: what is written is what is read, and nothing a stranger writes gets past the check."""

from __future__ import annotations

import itertools
import math
import time
import tracemalloc
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpc.errors import ProgramError, TesseraError
from mpc.objective import ANY, LATENCY, TRAFFIC, Objective
from mpc.operation import Constant, Input, Operation, Stored, register, registered
from mpc.program import MAX_OPERANDS, Expression, Program
from mpc.program_format import FORMAT, MAX_BYTES, MAX_NODES
from mpc.rings.field import P
from mpc.security import Security
from mpc.tensor_type import MAX_SIZE
from protocols.lowering.plan import lowered, plan
from protocols.readings.clear import clear
from protocols.readings.memory import run_in_memory
from protocols.trace.mathematics import LetThrough, Multiply
from protocols.trace.random import Random
from protocols.trace.secret_tensor import concatenate, graph_of, leaf

Wire = dict[str, Any]
PUBLIC = {"shape": [2], "fraction_bits": 0, "low": 0.0, "high": 1.0, "form": 0, "gain": None}


def every_operation(secure: Any, objective: Objective = LATENCY, *, keep: bool = True) -> Program:
    x, w = secure.secret((1, 2, 6, 6)), secure.stored("w", (4, 1, 3, 3))
    y = x.conv2d(w, stride=2, padding=1, groups=2).avg_pool2d(2, 1) + 0.3
    z = y.sigmoid(interval=(-8, 8)).reshape(2, -1).T[1:5, ::-1]
    v = concatenate([z - 1, -z]).pad([(0, 1), (0, 0)]).broadcast_to((2, 9, 2)).labelled("powers")
    u = ((v**2).within(0, 1) ** 3).take([0, 8, 8], 1).cumsum(1).sum(axis=0).mean()
    places = secure.secret((2,), 0, 3, 0).one_hot(4)
    drawn = Random().bernoulli(0.5, (2,))
    at_once, through = z._joined(Multiply(at_once=True), z * z, z), z._joined(LetThrough(), z, z * z)
    mixed = Random().permutation(z)
    many = secure.secret((1,)) >= np.linspace(-3, 3, 64)
    results = [u, many, (z @ z.T).truncate(10), z > 0, z.relu(), through, places, drawn, mixed, at_once]
    return plan(graph_of(results, {"u": u} if keep else None), objective, checked=True)


def wire(program: Program) -> Wire:
    """What is sent, as plain lists and dictionaries."""
    return dict(msgspec.msgpack.decode(program.encode()))


def decode(data: Wire) -> Program:
    return Program.decode(msgspec.msgpack.encode(data))


def test_what_is_written_is_what_is_read(secure: Any) -> None:
    names = set()
    for objective, keep in itertools.product(
        (LATENCY, TRAFFIC, *(Objective(each, Security.MALICIOUS) for each in (ANY, 0))), (True, False)
    ):
        program = every_operation(secure, objective, keep=keep)
        again = Program.decode(program.encode())
        assert again.nodes == program.nodes
        assert again.outputs == program.outputs
        assert again.objective == objective
        assert again.encode() == program.encode()
        assert again.digest == program.digest
        assert len(again.digest) == 64
        names |= {n.operation.name for n in again.nodes}
    assert names >= set(registered()) - {
        "multiply",
        "divide",
        "polynomial",
        "raise",
    } - {"truncated_polynomial"}
    assert Program.decode(memoryview(program.encode())).digest == program.digest


def test_the_digest_is_stable(secure: Any) -> None:
    """Written again by the same code, and with whatever kind of number: the same bytes."""
    assert every_operation(secure).digest == every_operation(secure).digest
    plain = plan(graph_of([leaf(Input((2, 3), 16, -4.0, 4.0)) * 2]))
    for kind in (int, np.float64, np.int64, np.float32):
        source: Any = Input(tuple(np.int64(n) for n in (2, 3)), 16, kind(-4), kind(4))
        program = plan(graph_of([leaf(source) * 2]))
        assert program.digest == plain.digest == Program.decode(program.encode()).digest
    other = plan(graph_of([leaf(Input((2, 3), 16, -4.0, 4.5)) * 2]))
    assert other.digest != plain.digest
    stored = [
        plan(graph_of([leaf(Stored((2,), 14, kind(-1), kind(1), "model", "w", kind(2)))]))
        for kind in (float, int, np.float64, np.int64)
    ]
    assert len({program.digest for program in stored}) == 1


def test_everything_that_is_written_is_part_of_the_digest(secure: Any) -> None:
    def digest(
        slot: str = "s", tensor: str = "t", gain: float | None = 2.0, label: str = "", precision: int = 16
    ) -> str:
        w = leaf(Stored((2,), 14, -1.0, 1.0, slot, tensor, gain), precision=precision)
        return str(secure.program(w.labelled(label) + secure.secret((2,))).digest)

    changes: list[dict[str, Any]] = [
        {}, {"slot": "x"}, {"tensor": "x"}, {"gain": 1.0}, {"gain": None}, {"label": "x"}, {"precision": 17},
    ]  # fmt: skip
    assert len({digest(**change) for change in changes}) == len(changes)


def test_slots_are_named_once_and_as_they_appear(secure: Any) -> None:
    b, a, c = (leaf(Stored((2,), 14, -1.0, 1.0, slot, "w")) for slot in ("b", "a", "c"))
    other = leaf(Stored((2,), 14, -1.0, 1.0, "b", "v"))
    assert secure.program(b + a + other, c + a).slots == ("b", "a", "c")
    assert secure.program(secure.secret((2,))).slots == ()


def test_elements_are_those_of_nodes_dealings_and_outputs(secure: Any) -> None:
    x, y = secure.secret((2, 3)), secure.secret((3, 5))
    assert secure.program(x).elements == 6 + 6
    # Three nodes, a dealt product, and two outputs.
    program = secure.program(x @ y, x)
    assert program.elements == (6 + 15 + 10) + 10 + (10 + 6)
    assert program.steps == ((3, program.elements - 16),)
    # 20 bits of each of 640 numbers, in three digits: 21 sums of three bits are a word.
    compared = secure.program(secure.secret((640,)) >= 0)
    tables = [node.type for node in compared.nodes if node.operation.name == "steps"]
    assert [t.shape for t in tables] == [(640, 3), (640, 3), (640, 8)]
    (first, _), (second, elements) = compared.steps
    assert (first, second) == (5, 2)
    assert elements == 31 + 640 + 4 * 640
    # Planes of 80 bytes are 10 words.
    compared = secure.program(secure.secret((640,)) >= 0, objective=TRAFFIC)
    (tables,) = (node.type for node in compared.nodes if node.operation.name == "tables")
    assert tables.size == tables.shape[0] * 80
    assert compared.steps[2][1] == 10 + 640 + 640
    assert compared.elements == sum(n for _, n in compared.steps) + 640


def test_outputs_are_bounded_even_where_they_are_empty(secure: Any) -> None:
    nodes = secure.program(secure.secret((0,))).nodes
    assert len(Program(nodes, [0] * MAX_NODES).outputs) == MAX_NODES
    with pytest.raises(ProgramError):
        Program(nodes, [0] * (MAX_NODES + 1))


def test_shared_subexpressions_are_written_once(secure: Any) -> None:
    x = secure.secret((2,))
    y = x * x
    program = plan(graph_of([y + y, y - 1, y]))
    assert [n.operation.name for n in program.nodes].count("multiply") == 1
    assert len(program.outputs) == 3


def test_a_deep_program_needs_no_deep_stack(secure: Any) -> None:
    x = secure.secret(())
    y = x
    for _ in range(5000):
        y = -y
    assert len(Program.decode(plan(graph_of([y])).encode()).nodes) == 5001


def set_in(path: str, value: Any) -> Callable[[Wire], None]:
    def change(data: Any) -> None:
        *keys, last = path.split(".")
        for key in keys:
            data = data[int(key) if key.isdigit() else key]
        data[int(last) if last.isdigit() else last] = value

    return change


def small(secure: Any) -> Program:
    """0: input, 1: constant, 2: multiply, 3: mask, 4: index (after labels)."""
    x = secure.secret((2, 3)).labelled("layer")
    y = (x.truncate(8) * np.array([0.5, 0.25, 1.0])) ** 2
    return secure.program(y[:, 1:].sum())


FORGERIES = {
    "format": set_in("format", FORMAT - 1),
    "a format to come": set_in("format", FORMAT + 1),
    "no precision": lambda data: data.pop("precision"),
    "precision of another type": set_in("precision", "16"),
    "no fraction bits": set_in("precision", 0),
    "precision beyond the field": set_in("precision", 61),
    "no objective": lambda data: data.pop("objective"),
    "nothing about what is kept": lambda data: data.pop("keeping"),
    "jointly, of nothing that is kept": set_in("keeping", {"joint": True, "description": b""}),
    "kept as no bytes": set_in("keeping", {"joint": False, "description": "model"}),
    "rounds that are worth less than nothing": set_in("objective", {"round_bytes": -1, "security": "malicious"}),
    "rounds beyond any worth": set_in("objective", {"round_bytes": 2**60, "security": "malicious"}),
    "another security": set_in("objective", {"round_bytes": 1, "security": "none"}),
    "format type": set_in("format", "1"),
    "no nodes": set_in("nodes", []),
    "nodes that are no list": set_in("nodes", 3),
    "no outputs": set_in("outputs", []),
    "output that is not there": set_in("outputs", [10**6]),
    "negative output": set_in("outputs", [-1]),
    "outputs of another type": set_in("outputs", ["0"]),
    "cycle": set_in("nodes.1.inputs", [1]),
    "forward": set_in("nodes.1.inputs", [4]),
    "negative input": set_in("nodes.1.inputs", [-1]),
    "too few operands": set_in("nodes.1.inputs", []),
    "too many operands": set_in("nodes.1.inputs", [0, 0]),
    "operands of a source": set_in("nodes.0.inputs", [0]),
    "float index": set_in("nodes.1.inputs", [0.0]),
    "unknown operation": set_in("nodes.1.operation", {"type": "exec", "code": "1"}),
    "no operation": set_in("nodes.1.operation", None),
    "operation without a tag": set_in("nodes.1.operation", {}),
    "attribute too many": set_in("nodes.1.operation", {"type": "mask", "bits": 1}),
    "attribute missing": set_in("nodes.1.operation", {"type": "truncate"}),
    "attribute of another type": set_in("nodes.1.operation", {"type": "truncate", "bits": "8"}),
    "attribute a float": set_in("nodes.1.operation", {"type": "truncate", "bits": 8.0}),
    "attribute too large": set_in("nodes.1.operation", {"type": "truncate", "bits": 2**64 - 1}),
    "attribute negative": set_in("nodes.1.operation", {"type": "truncate", "bits": -(2**63)}),
    "declared shape": set_in("nodes.1.type.shape", [3, 2]),
    "declared bits": set_in("nodes.1.type.fraction_bits", 7),
    "declared range": set_in("nodes.1.type.high", 1.0),
    "NaN in a type": set_in("nodes.1.type.high", math.nan),
    "declared form": set_in("nodes.1.type.form", 1),
    "unknown form": set_in("nodes.1.type.form", 3),
    "forged gain": set_in("nodes.1.type.gain", 0.5),
    "NaN range": set_in("nodes.0.operation.low", math.nan),
    "infinite range": set_in("nodes.0.operation.high", math.inf),
    "range upside down": set_in("nodes.0.operation.low", 5.0),
    "range too large": set_in("nodes.0.operation.high", 2.0**50),
    "negative dimension": set_in("nodes.0.operation.shape", [-2, -3]),
    "huge dimension": set_in("nodes.0.operation.shape", [2**40]),
    "huge empty tensor": set_in("nodes.0.operation.shape", [2**62, 0]),
    "17 dimensions": set_in("nodes.0.operation.shape", [1] * 17),
    "10^5 huge dimensions": set_in("nodes.0.operation.shape", [2**63] * 10**5),
    "negative fraction bits": set_in("nodes.0.operation.fraction_bits", -1),
    "61 fraction bits": set_in("nodes.0.operation.fraction_bits", 61),
    "label with a newline": set_in("nodes.0.label", "a\nb"),
    "label with an escape": set_in("nodes.0.label", "\x1b[2J"),
    "long label": set_in("nodes.0.label", "a" * 201),
    "label of another type": set_in("nodes.0.label", 1),
    "unknown field": set_in("nodes.0.more", 1),
    "unknown field with an escape": set_in("nodes.0.\x1b[2J", 1),
    "unknown attribute with a newline": set_in("nodes.0.operation.a\nb", 1),
    "unknown field of the program": set_in("more", 1),
    "bare list": set_in("nodes.0", []),
}


@pytest.mark.parametrize("name", FORGERIES)
def test_forgeries_are_refused(secure: Any, name: str) -> None:
    data = wire(small(secure))
    assert decode(data).digest == small(secure).digest
    FORGERIES[name](data)
    with pytest.raises(ProgramError) as caught:
        decode(data)
    assert len(str(caught.value)) < 1000
    assert str(caught.value).isprintable()


def source(**attributes: Any) -> Wire:
    return {"type": "input", "shape": [2], "fraction_bits": 0, "low": 0.0, "high": 1.0} | attributes


def node(op: Wire, inputs: list[int], **changes: Any) -> Wire:
    return {"operation": op, "inputs": inputs, "type": PUBLIC | {"form": 1} | changes, "label": ""}


OBJECTIVE = msgspec.to_builtins(LATENCY)
KEEPING = {"joint": False, "description": b""}


def wired(nodes: list[Wire], outputs: list[int]) -> Wire:
    return {
        "format": FORMAT,
        "nodes": nodes,
        "outputs": outputs,
        "precision": 16,
        "objective": OBJECTIVE,
        "keeping": KEEPING,
    }


@pytest.mark.parametrize(
    ("shape", "data"),
    [
        ([2], b""),
        ([2], bytes(8)),
        ([2], bytes(24)),
        ([2], b"\xff" * 16),
        ([2**28], bytes(16)),
        ([2], bytes(8) + b"\2" * 8),
    ],
)
def test_constants_are_checked(shape: list[int], data: bytes) -> None:
    constant = node({**source(shape=shape), "type": "constant", "data": data}, [], form=0, shape=shape)
    with pytest.raises(ProgramError):
        decode(wired([node(source(), []), constant], [0]))


@pytest.mark.parametrize(
    ("low", "high", "elements"),
    [(1.0, 2.0, (1, 0)), (0.0, 1.0, (1, 2)), (0.0, 1.0, (1, P - 1)), (0.0, 1.0, (1, P)), (0.0, 1.0, (P, 0))],
)
def test_constants_are_in_their_range_and_in_the_field(low: float, high: float, elements: tuple[int, int]) -> None:
    def read(*values: int) -> Program:
        data = b"".join(n.to_bytes(8, "little") for n in values)
        ends = {"low": low, "high": high}
        constant = node({**source(**ends), "type": "constant", "data": data}, [], form=0, **ends)
        return decode(wired([node(source(), []), constant], [0]))

    assert len(read(1, 1).nodes) == 2
    with pytest.raises(ProgramError, match="constant has"):
        read(*elements)


def test_public_values_are_not_outputs() -> None:
    constant = node({**source(), "type": "constant", "data": bytes(16)}, [], form=0)
    with pytest.raises(ProgramError, match="nothing to reveal"):
        decode(wired([constant], [0]))


@pytest.mark.parametrize("name", ["\n", "a" * 1000, "\x1b"])
def test_names_of_stored_tensors_are_printable(name: str) -> None:
    def read(slot: str, tensor: str) -> Program:
        return decode(wired([node({**source(), "type": "stored", "slot": slot, "tensor": tensor}, [])], [0]))

    assert read("s", "w").slots == ("s",)
    for names in ((name, "w"), ("s", name), ("", "w")):
        with pytest.raises(ProgramError, match="stored tensor"):
            read(*names)


def bomb(kind: str) -> Wire:
    zero = {"low": 0.0, "high": 0.0}
    nodes = [node(source(shape=[1, 1, 1, 1], **zero), [], shape=[1, 1, 1, 1], **zero)]
    outputs = [0]
    if kind == "concatenate":
        size = 1
        for i in range(60):
            size *= 2
            nodes.append(node({"type": "concatenate", "axis": 0}, [i, i], shape=[size, 1, 1, 1], **zero))
    elif kind == "broadcast":
        shape = [2**16, 2**16, 1, 1]
        nodes.append(node({"type": "broadcast", "shape": shape}, [0], shape=shape, **zero))
    elif kind == "pad":
        shape = [2**20, 2**20, 1, 1]
        widths = [[n - 1, 0] for n in shape]
        nodes.append(node({"type": "pad", "widths": widths}, [0], shape=shape, **zero))
    elif kind == "convolution":
        pad = {"stride": [1, 1], "padding": [2**20, 2**20], "groups": 1}
        nodes.append(node({"type": "conv2d", **pad}, [0, 0], shape=[1, 1, 2**21 + 1, 2**21 + 1], **zero))
    elif kind == "outputs":
        shape = [2**20, 1, 1, 1]
        nodes = [node(source(shape=shape, **zero), [], shape=shape, **zero)]
        outputs = [0] * MAX_NODES
    elif kind == "operands":
        empty = [0, 1, 1, 1]
        nodes = [node(source(shape=empty, **zero), [], shape=empty, **zero)]
        joined = node({"type": "concatenate", "axis": 0}, [0] * MAX_NODES, shape=empty, **zero)
        nodes += [joined] * (MAX_OPERANDS // MAX_NODES + 1)
    elif kind == "operands of one":
        nodes.append(node({"type": "concatenate", "axis": 0}, [0] * 10**6, shape=[10**6, 1, 1, 1], **zero))
    elif kind == "nodes":
        nodes *= MAX_NODES + 1
    elif kind == "dealt":
        shape = [2**26, 1, 1, 1]
        nodes = [node(source(shape=shape, **zero), [], shape=shape, **zero)]
        power = {"type": "polynomial", "coefficients": [0] * 32 + [1], "coefficient_bits": 0}
        nodes.append(node(power, [0], shape=shape, form=2, **zero))
    return wired(nodes, outputs)


@pytest.mark.parametrize(
    "kind",
    ["concatenate", "broadcast", "pad", "convolution", "outputs", "operands", "operands of one", "nodes", "dealt"],
)
def test_bombs_are_refused_before_anything_is_allocated(kind: str) -> None:
    data = msgspec.msgpack.encode(bomb(kind))
    tracemalloc.start()
    start = time.process_time()
    with pytest.raises(ProgramError):
        Program.decode(data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert time.process_time() - start < 10
    assert peak < 100 * 2**20


def test_a_header_that_promises_too_much() -> None:
    """Lengths on the wire are not believed before the items are there."""
    for data in (b"\x83\xa6format\x01\xa5nodes\xdd\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff", b"\xc6\xff\xff\xff\xff"):
        with pytest.raises(ProgramError):
            Program.decode(data)
    with pytest.raises(ProgramError):
        Program.decode(b"\x91" * 100_000)
    with pytest.raises(ProgramError, match="limit"):
        Program.decode(memoryview(bytes(MAX_BYTES + 1)))


def up_to_four(items: st.SearchStrategy[Any]) -> st.SearchStrategy[tuple[Any, ...]]:
    return st.lists(items, max_size=4).map(tuple)


_ORIGINAL: list[bytes] = []


def changed_bytes_never_raise_anything_else(secure: Any, data: st.DataObject) -> None:
    if not _ORIGINAL:
        _ORIGINAL.extend([every_operation(secure).encode(), small(secure).encode()])
    encoded = bytearray(data.draw(st.sampled_from(_ORIGINAL)))
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(encoded) - 1))
        match data.draw(st.sampled_from(["flip", "set", "drop", "insert", "cut"])):
            case "flip":
                encoded[place] ^= 1 << data.draw(st.integers(0, 7))
            case "set":
                encoded[place] = data.draw(st.sampled_from([0, 1, 0x7F, 0x80, 0x90, 0xC0, 0xCB, 0xCF, 0xD3, 0xFF]))
            case "drop":
                del encoded[place]
            case "insert":
                encoded.insert(place, data.draw(st.integers(0, 255)))
            case "cut":
                del encoded[max(place, len(encoded) - 20) :]
    try:
        program = Program.decode(bytes(encoded))
    except ProgramError as error:
        assert len(str(error)) < 2000
    else:
        assert program.elements <= MAX_SIZE


@settings(max_examples=100)
@given(st.data())
def test_changed_bytes_never_raise_anything_else(secure: Any, data: st.DataObject) -> None:
    changed_bytes_never_raise_anything_else(secure, data)


@pytest.mark.slow
@settings(max_examples=400)
@given(st.data())
def test_changed_bytes_never_raise_anything_else_at_length(secure: Any, data: st.DataObject) -> None:
    changed_bytes_never_raise_anything_else(secure, data)


numbers = st.integers(-(2**63), 2**64 - 1) | st.sampled_from([0, 1, -1, 2, 16, 60, 61, 2**31, 2**32, 2**63])
values = st.recursive(
    st.none() | st.booleans() | numbers | st.floats() | st.text(max_size=3) | st.binary(max_size=9),
    lambda inner: st.lists(inner, max_size=4),
    max_leaves=6,
)


def changed_attributes_never_raise_anything_else(secure: Any, data: st.DataObject) -> None:
    """Values of any kind in any place of a program that is well-formed otherwise."""
    if not _ORIGINAL:
        _ORIGINAL.extend([every_operation(secure).encode(), small(secure).encode()])
    tree = msgspec.msgpack.decode(data.draw(st.sampled_from(_ORIGINAL)))
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.sampled_from(tree["nodes"]))
        where = data.draw(st.sampled_from(["operation", "type", "inputs", "label"]))
        if where in ("operation", "type") and isinstance(place[where], dict) and place[where]:
            key = data.draw(st.sampled_from(sorted(place[where])))
            place[where][key] = data.draw(values | st.lists(numbers, max_size=6))
        else:
            place[where] = data.draw(values)
    try:
        program = decode(tree)
    except ProgramError as error:
        assert len(str(error)) < 2000
    else:
        assert program.elements <= MAX_SIZE


@settings(max_examples=150)
@given(st.data())
def test_changed_attributes_never_raise_anything_else(secure: Any, data: st.DataObject) -> None:
    changed_attributes_never_raise_anything_else(secure, data)


@pytest.mark.slow
@settings(max_examples=600)
@given(st.data())
def test_changed_attributes_never_raise_anything_else_at_length(secure: Any, data: st.DataObject) -> None:
    changed_attributes_never_raise_anything_else(secure, data)


def programs_that_pass_the_check_run(secure: Any, data: st.DataObject) -> None:
    """Random operations with random attributes: refused with a typed error, or evaluated to the declared shape."""
    small_numbers = st.integers(-2, 5)
    pair = st.tuples(st.integers(0, 3), st.integers(0, 3))
    attributes: dict[str, Any] = {
        "add": {}, "subtract": {}, "negate": {}, "multiply": {}, "matmul": {}, "mask": {},
        "keep": {"tensor": st.uuids().map(str)},
        "raise": {"bits": small_numbers}, "divide": {"bits": small_numbers}, "truncate": {"bits": small_numbers},
        "declare": {"low": st.just(-8.0), "high": st.just(8.0)},
        "sum": {"axes": st.lists(st.integers(0, 3), max_size=3).map(tuple), "keepdims": st.booleans()},
        "reshape": {"shape": up_to_four(st.integers(0, 4))},
        "transpose": {"axes": st.permutations(range(4)).map(tuple) | st.permutations(range(2)).map(tuple)},
        "broadcast": {"shape": up_to_four(st.integers(0, 4))},
        "index": {"slices": up_to_four(st.tuples(st.integers(0, 3), st.integers(-3, 3), st.integers(0, 4)))},
        "concatenate": {"axis": small_numbers},
        "pad": {"widths": up_to_four(pair)},
        "sum_pool2d": {"kernel": pair, "stride": pair, "padding": pair},
        "conv2d": {"stride": pair, "padding": pair, "groups": st.integers(0, 3)},
        "polynomial": {"coefficients": up_to_four(small_numbers), "coefficient_bits": small_numbers},
    }  # fmt: skip
    shapes = up_to_four(st.integers(0, 3)) | st.just((1, 2, 3, 3)) | st.just((2, 1, 2, 2))
    pool = [Expression(Input(data.draw(shapes), 4, -2.0, 2.0)) for _ in range(2)]
    for _ in range(6):
        name = data.draw(st.sampled_from(sorted(attributes)))
        drawn = {key: data.draw(strategy) for key, strategy in attributes[name].items()}
        operands = data.draw(st.lists(st.sampled_from(pool), min_size=1, max_size=2))
        try:
            pool.append(Expression(registered()[name](**drawn), tuple(operands)))
        except TesseraError:
            continue
        except (TypeError, ValueError, LookupError, ArithmeticError):
            continue  # what Program._check turns into ProgramError
    program = Program.decode(Program.of([pool[-1]]).encode())
    rng = np.random.default_rng(0)
    inputs = [rng.integers(0, 32, program.nodes[i].type.shape, dtype=np.uint64) for i in program.inputs]
    (output,) = run_in_memory(program, inputs, parties=2).outputs
    assert output.shape == pool[-1].type.shape
    if secure.bound(program)[program.outputs[0]] == 0:
        assert np.array_equal(output, clear(program, inputs)[0])


@settings(max_examples=100)
@given(st.data())
def test_programs_that_pass_the_check_run(secure: Any, data: st.DataObject) -> None:
    programs_that_pass_the_check_run(secure, data)


@pytest.mark.slow
@settings(max_examples=300)
@given(st.data())
def test_programs_that_pass_the_check_run_at_length(secure: Any, data: st.DataObject) -> None:
    programs_that_pass_the_check_run(secure, data)


def test_registration() -> None:
    with pytest.raises(ValueError, match="tag"):
        register(Input)
    assert registered()["stored"] is Stored
    assert issubclass(registered()["mask"], Operation)
    assert Constant((0,), 0, 0.0, 0.0, b"").array().shape == (0,)


def test_repr_says_what_it_does(secure: Any) -> None:
    assert "rounds" in repr(small(secure))
    assert repr(lowered(secure.secret((2,)).node)).startswith("<input: 2 in [-4, 4]")
