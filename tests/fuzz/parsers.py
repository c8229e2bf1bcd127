"""Everything that reads what others wrote, on a wire or in a file, with samples of what it should read."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import numpy as np
from PIL import Image

from benchmarks import records
from mpc.operation import Input
from mpc.program import Program
from nn import (
    ArrayInput,
    Classes,
    Column,
    Description,
    ImageInput,
    Interface,
    Label,
    Linear,
    Model,
    Sequential,
    TableInput,
)
from nn.architecture import decode_architecture, decode_json
from nn.derm import load_image
from nn.derm.model import derm_model
from nn.reading import open_file
from parties.members.cluster import Cluster
from parties.members.keys import KeyPair
from parties.messages import runs as run_messages
from parties.messages import stock as stock_messages  # noqa: F401 - the same
from parties.messages.bindings import Binding
from parties.messages.evidence import (
    BrokenWord,
    Contradiction,
    FailedCheck,
    InputsSaid,
    RunSubject,
    SigmaSaid,
    Statement,
    Vouched,
)
from parties.messages.failures import Fault
from parties.messages.rules import Known, Rule, RuleSet, known_in
from parties.messages.runs import Failed, Inputs, Opening, Prepare
from parties.messages.uploads import ChunksStored, TensorInfo, Upload, UploadBegin, UploadChunk, UploadSeed
from parties.operate.audit.files import files_of
from parties.operate.audit.log import AuditLog
from parties.operate.audit.verify import Walk
from parties.operate.audit.words import moment, sentence
from parties.operate.evidence import read as read_evidence
from parties.stored.data_set import DataDescription, DataSet
from parties.tally import Sent
from parties.wire.apart import Apart, Layout
from parties.wire.messages import Envelope, Hello, Ping, decode, encode, encode_envelope, encode_header
from protocols.lowering.plan import plan
from protocols.readings.mac_check import SIGMA_BYTES
from protocols.trace.secret_tensor import graph_of, leaf


@dataclass(frozen=True)
class Parser:
    """``parse`` raises nothing but ``TesseraError``, whatever it is given."""

    name: str
    parse: Callable[[bytes], object]
    samples: tuple[bytes, ...] = field(repr=False)


def _frames(data: bytes) -> object:
    """The first two bytes say where the envelope and the header end."""
    first, second = (*data[:2], 0, 0)[:2]
    rest = data[2:]
    return decode("peer", [rest[:first], rest[first : first + second], rest[first + second :]])


def _announced(data: bytes) -> object:
    """The first byte says where what is said of buffers ends; behind it is a small one."""
    end = 1 + (*data[:1], 0)[0]
    frames = [b"envelope", b"header", data[1:end], *filter(None, [data[end:]])]
    layout = Layout.read("peer", list(map(memoryview, frames)))
    return layout.together([memoryview(b"")] * len(layout.large))


def _announcement(lengths: list[int]) -> bytes:
    frames = Apart.of(Ping(3), [bytes(length) for length in lengths], Envelope(b"12345678", 7), bytes(16)).frames
    return bytes([len(frames[2])]) + b"".join(map(bytes, frames[2:]))


def _message(message: msgspec.Struct, payload: bytes = b"") -> bytes:
    envelope, header = encode_envelope(Envelope(b"12345678", 7)), encode_header(message)  # type: ignore[arg-type]
    return bytes([len(envelope), len(header)]) + envelope + header + payload


def _file(parse: Callable[[Path], object], suffix: str, mode: int = 0o600) -> Callable[[bytes], object]:
    def through_file(data: bytes) -> object:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"file{suffix}"
            path.touch(mode)
            path.write_bytes(data)
            return parse(path)

    return through_file


def _programs() -> tuple[bytes, ...]:
    x = leaf(Input((2, 3), 16, -1.0, 1.0))
    small = plan(graph_of([(x * x).sum() * 0.5]))
    model = derm_model().description
    image = leaf(Input((1, 3, 28, 28), 16, -1.0, 1.0))
    return small.encode(), plan(graph_of([model.forward(image, model.stored("0" * 32))])).encode()


def _pictures() -> tuple[bytes, ...]:
    pixels = np.arange(12 * 10 * 3, dtype=np.uint8).reshape(12, 10, 3)
    encoded = []
    for kind in ("PNG", "JPEG"):
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, kind)
        encoded.append(buffer.getvalue())
    return tuple(encoded)


def _answer(data: bytes) -> object:
    """What a client does with what a stranger's model says of itself: a picture goes in, a result comes out."""
    said = decode_json(data, Interface)
    if isinstance(said.input, ImageInput):
        values = said.input.prepare(np.full((9, 7, 3), 200, np.uint8))
        said.input.visible(values)
        assert values.shape == said.input.shape
        assert said.input.low <= values.min() <= values.max() <= said.input.high
    if said.output is not None:
        assert len(said.output.probabilities(np.zeros((1, len(said.output.labels))))[0]) == len(said.output.labels)
    return said


TABLE = TableInput((Column("age", 0.0, 120.0), Column("bmi", 10.0, 60.0)))


def _array() -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.array([[40.0, 22.5]]))
    return buffer.getvalue()


def _saved() -> bytes:
    net = Sequential({"out": Linear(2, 1)}).architecture((2,))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "net.safetensors"
        Model(net, {"out.weight": np.ones((1, 2)), "out.bias": np.zeros(1)}, Interface(TABLE)).save(path)
        return path.read_bytes()


INTERFACES = (
    Interface(TABLE, Classes((Label("a"),))),
    derm_model().interface,
    Interface(ArrayInput((4,), -2.0, 2.0), Classes((Label("a"), Label("b", "B")), "sigmoid"), "Careful."),
    Interface(
        ImageInput(
            40,
            60,
            channels="BGR",
            crop=0.875,
            resampling="bilinear",
            mean=(0.485, 0.456, 0.406),
            std=(0.229, 0.224, 0.225),
        )
    ),
    Interface(ImageInput(8, 8, channels="L", crop=None, resampling="lanczos"), Classes((Label("a"),), "none")),
)


def _cluster() -> bytes:
    keys = [KeyPair.generate().public for _ in range(4)]
    return (
        Cluster.build(
            "skin",
            dealer=("10.0.0.1:7000", keys[0]),
            parties=[("a", "10.0.0.2:7001", keys[1]), ("b", "10.0.0.3:7001", keys[2])],
            clients=[("clinic", keys[3])],
        )
        .dumps()
        .encode()
    )


def _key() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "key"
        KeyPair.generate().save(path)
        return path.read_bytes()


CLUSTER = Cluster.build(
    "skin",
    dealer=("10.0.0.1:7000", KeyPair.generate().public),
    parties=[(name, f"10.0.0.2:700{name}", KeyPair.generate().public) for name in "12"],
)


def _audit_log() -> bytes:
    """Of somebody else: who shows us a log may have signed anything."""
    with tempfile.TemporaryDirectory() as folder:
        AuditLog(folder, KeyPair.generate(), CLUSTER.dealer, CLUSTER).close()
        (path,) = files_of(Path(folder))
        return path.read_bytes()


def _look_at_log(path: Path) -> object:
    return [sentence(entry.what) + moment(entry.when) for entry, _ in Walk(path, (CLUSTER,))]


RUN = "0123456789abcdef" * 2
DESCRIPTION = derm_model().description.encode()

RULES = RuleSet("company", "m", 3, (Rule("*", "predict", 2, runs=5, per_client=2), Rule("clinic", "f" * 64, 3)))

RECORD = records.Record("inference", {"batch": 1}, {"online.seconds": 0.5}).encode().encode()

OF = RunSubject("f" * 64, RUN, "e" * 64, "d" * 64, RUN, 7)
_INPUTS = [Statement("clinic", InputsSaid("f" * 64, RUN, "e" * 64, "d" * 64, digit * 64), bytes(64)) for digit in "12"]
_SIGMAS = [Statement(name, SigmaSaid(OF, bytes(32), bytes(SIGMA_BYTES)), bytes(64)) for name in ("party0", "party1")]
EVIDENCE = Contradiction(*_INPUTS), BrokenWord(_SIGMAS[0]), FailedCheck(tuple(_SIGMAS))

PARSERS = {
    parser.name: parser
    for parser in (
        Parser(
            "frames",
            _frames,
            (
                _message(Hello("0.1.0", "f" * 64, 1)),
                _message(Ping(3)),
                _message(Prepare(run=RUN, bindings=(Binding("company/derm", RUN, "f" * 64),)), b"program"),
                _message(Inputs(run=RUN, masks="", signature=bytes(64))),
                _message(Opening(run=RUN, round=2), bytes(16)),
                _message(Opening(run=RUN, round=0, inputs=Vouched("f" * 64)), bytes(16)),
                _message(Failed(run=RUN, fault=Fault("PeerLost", "party1", "silent"))),
                _message(Upload(version=RUN, name="m", tensors=(TensorInfo("w", (2, 3)),), content="f" * 64), b"what"),
                _message(UploadSeed(version=RUN, continued=RUN, masks="f" * 64), bytes(16)),
                _message(
                    UploadBegin(version=RUN, name="m", tensors=(TensorInfo("w", (2,)),), masks="f" * 64, attempt=RUN)
                ),
                _message(UploadChunk(version=RUN, attempt=RUN, number=1), bytes(16)),
                _message(ChunksStored(version=RUN, attempt=RUN, chunks=2)),
                _message(
                    run_messages.Outputs(
                        run=RUN,
                        rounds=7,
                        offline={"b": Sent(1, 8)},
                        online={},
                        compute_seconds={"conv": 0.1},
                        wait_seconds=0.2,
                    )
                ),
            ),
        ),
        Parser("announcement", _announced, (_announcement([1 << 20]), _announcement([1 << 20, 5]))),
        Parser("program", Program.decode, _programs()),
        Parser("rules", lambda data: RuleSet.decode(data).by_client(), (RULES.encode(),)),
        Parser("known rules", known_in, (msgspec.msgpack.encode([Known("k" * 80, "m", 3, "f" * 64)]),)),
        Parser("description", Description.decode, (DESCRIPTION,)),
        Parser("interface", _answer, tuple(msgspec.json.encode(said) for said in INTERFACES)),
        Parser("data set", DataDescription.decode, (DataSet({"x": [0.5, 1.0]}, low=-1, high=1).describe(),)),
        Parser("architecture", decode_architecture, (msgspec.json.encode(derm_model().architecture),)),
        Parser("audit log", _file(_look_at_log, ".jsonl"), (_audit_log(),)),
        Parser("cluster", _file(Cluster.load, ".toml"), (_cluster(),)),
        Parser("key", _file(KeyPair.load, ".key"), (_key(),)),
        Parser("evidence", _file(read_evidence, ".json"), tuple(map(msgspec.json.encode, EVIDENCE))),
        Parser("image", _file(load_image, ".png"), _pictures()),
        Parser("table", _file(TABLE.load, ".csv"), (b"age,bmi\n40,22.5\n", b'bmi,who,"age"\r\n1e1,x,0\r\n')),
        Parser("array", _file(lambda path: open_file(path, Interface(TABLE), (2,)), ".npy"), (_array(),)),
        Parser("saved model", _file(Model.load, ".safetensors"), (_saved(),)),
        Parser(
            "records", _file(records.read, ".jsonl"), (records.Record("b", {"n": 1}, {"s": 0.5}).encode().encode(),)
        ),
    )
}

__all__ = ["PARSERS", "Parser", "encode"]
