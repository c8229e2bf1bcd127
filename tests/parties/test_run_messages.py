"""Messages of runs and uploads: who may send them, what they may hold, and the errors they carry."""

from __future__ import annotations

import dataclasses

import pytest

from mpc import errors
from mpc.errors import PeerError, PeerLost, ProtocolViolation, RemoteError, TesseraError
from parties.members.cluster import Role
from parties.messages import runs as run_messages
from parties.messages import uploads as upload_messages
from parties.messages.bindings import Binding
from parties.messages.conversation import RequestFailed
from parties.messages.failures import Fault, error_of, fault_of
from parties.messages.runs import Failed, Outputs, Prepare, RunMessage
from parties.messages.stored import FindSecret
from parties.messages.uploads import TensorInfo, Upload, UploadFailed, VersionMessage
from parties.tally import Sent
from parties.wire.messages import Message, decode_header, encode_header

RUN, CLIENT, DEALER, PARTY = "0123456789abcdef" * 2, Role.CLIENT, Role.DEALER, Role.PARTY

SENDERS = {
    "Prepare": {CLIENT},
    "Dealt": {DEALER},
    "DealtPart": {DEALER},
    "Evaluated": {PARTY},
    "ClientMasks": {DEALER},
    "Placed": {PARTY},
    "Ready": {PARTY},
    "Inputs": {CLIENT},
    "Opening": {PARTY},
    "Disputed": {PARTY},
    "Outputs": {PARTY},
    "Failed": {CLIENT, DEALER, PARTY},
    "Release": {CLIENT},
    "Upload": {CLIENT},
    "UploadSeed": {DEALER},
    "UploadBegin": {CLIENT},
    "UploadChunk": {CLIENT},
    "UploadSigned": {CLIENT},
    "ChunksStored": {PARTY},
    "VersionReady": {PARTY},
    "VersionDropped": {CLIENT, DEALER},
    "UploadFailed": {DEALER, PARTY},
    "VersionPrepared": {PARTY},
    "VersionCommit": {DEALER},
    "VersionsHeld": {PARTY},
}


def test_who_may_send_what() -> None:
    kinds = {
        kind.__name__: set(kind.senders)
        for module in (run_messages, upload_messages)
        for kind in vars(module).values()
        if isinstance(kind, type) and issubclass(kind, Message) and kind.__module__ == module.__name__
        if kind not in (RunMessage, VersionMessage)
    }
    assert kinds == SENDERS


@pytest.mark.parametrize(
    "message",
    [
        Prepare(run=RUN),
        Prepare(run=RUN, bindings=(Binding("company/derm-2.1", RUN, "ab" * 32), Binding("a/b", RUN, "owner"))),
        Outputs(run=RUN, rounds=3, offline={}, online={"p": Sent(2, 8)}, compute_seconds={"fc": 0.5}, wait_seconds=0.1),
        Upload(version=RUN, name="derm-2.1", tensors=(TensorInfo("w", (3, 0)), TensorInfo("b", ())), content="ab" * 32),
        Upload(version=RUN, name="without-weights", tensors=(), content="ab" * 32),
        FindSecret(request=RUN, name="derm"),
    ],
    ids=lambda m: type(m).__name__,
)
def test_there_and_back(message: Message) -> None:
    assert decode_header("party0", encode_header(message)) == message


@pytest.mark.parametrize(
    "message",
    [
        Prepare(run=RUN[:-1]),
        Prepare(run=RUN.upper()),
        Prepare(run=RUN + "\n"),
        Prepare(run="../../etc/passwd"),
        Prepare(run=RUN, bindings=(Binding("derm", RUN, "any"),)),
        Prepare(run=RUN, bindings=(Binding("company/derm/2", RUN, "any"),)),
        Prepare(run=RUN, bindings=(Binding("company/derm\n", RUN, "any"),)),
        Prepare(run=RUN, bindings=(Binding("company/derm", RUN[1:], "any"),)),
        Prepare(run=RUN, bindings=(Binding("company/derm", RUN, "all"),)),
        Prepare(run=RUN, bindings=(Binding("company/derm", RUN, "any"),) * 1001),
        FindSecret(request=RUN, name="../derm"),
        FindSecret(request=RUN, name="derm\x1b[2J"),
        Upload(version=RUN, name="", tensors=(), content="ab" * 32),
        Upload(version=RUN, name="m", tensors=(TensorInfo("w", (-1,)),), content="ab" * 32),
        Upload(version=RUN, name="m", tensors=(TensorInfo("w" * 201, (1,)),), content="ab" * 32),
        Upload(version=RUN, name="m", tensors=(TensorInfo("w", (1,) * 17),), content="ab" * 32),
        Outputs(run=RUN, rounds=-1, offline={}, online={}, compute_seconds={}, wait_seconds=0.0),
        Outputs(run=RUN, rounds=1, offline={}, online={"p": Sent(-1, 0)}, compute_seconds={}, wait_seconds=0.0),
        Outputs(run=RUN, rounds=1, offline={"a>b": Sent()}, online={}, compute_seconds={}, wait_seconds=0.0),
        Failed(run=RUN, fault=Fault("PeerLost", "p" * 65, "")),
        Failed(run=RUN, fault=Fault("PeerLost", "", "x" * 2001)),
    ],
    ids=range(21),
)
def test_what_a_message_may_not_hold(message: Message) -> None:
    with pytest.raises(ProtocolViolation, match="malformed header") as caught:
        decode_header("party0", encode_header(message))
    assert caught.value.peer == "party0"


PEER_ERRORS = [
    kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, PeerError) and kind is not PeerError
]


FAILURES = [(Failed, "run"), (UploadFailed, "version"), (RequestFailed, "request")]


@pytest.mark.parametrize("kind", PEER_ERRORS)
@pytest.mark.parametrize(("message", "conversation"), FAILURES)
def test_an_error_keeps_its_kind_and_who_is_at_fault(kind, message, conversation) -> None:
    told = message(**{conversation: RUN}, fault=fault_of(kind("party1", "went away")))
    assert told.conversation == RUN
    error = error_of(told.failure, "party0")
    assert type(error) is kind
    assert error.peer == "party1"
    assert str(error) == "party1: went away (noticed by party0)"
    assert error.exit_code == kind.exit_code


def test_a_peer_that_reports_itself_is_not_named_twice() -> None:
    assert str(error_of(fault_of(RemoteError("party0", "busy")), "party0")) == "party0: busy"


def test_errors_that_are_nobodys_fault() -> None:
    assert str(error_of(fault_of(errors.ProgramError("too long")), "party0")) == "party0 says: too long"
    assert type(error_of(fault_of(errors.MacCheckError("cheated")), "party0")) is errors.MacCheckError
    assert type(error_of(fault_of(TesseraError("busy")), "party0")) is RemoteError


def test_a_liars_words_are_only_words() -> None:
    for name in ("SystemExit", "UsageError", "__class__", ""):
        error = error_of(Fault(name, "party1", "a\nb\x1b[31mc"), "party0")
        assert type(error) is RemoteError
        assert str(error) == "party1: a b [31mc (noticed by party0)"
    lost = error_of(Fault("PeerLost", "p\x1b[2J", ""), "party0")
    assert isinstance(lost, PeerLost)
    assert lost.peer == "p [2J"


def test_a_long_reason_is_cut() -> None:
    message = Failed(run=RUN, fault=fault_of(TesseraError("x" * 5000)))
    assert len(message.fault.reason) == 2000
    assert decode_header("party0", encode_header(message)) == message


def test_deliveries_show_no_payload() -> None:
    from parties.members.cluster import Member
    from parties.wire.events import Delivery

    delivery = Delivery(Member("p", PARTY, 0, None, "k"), Prepare(run=RUN), [memoryview(b"secret")])
    assert "buffers" not in repr(delivery)
    assert [f.name for f in dataclasses.fields(delivery) if not f.repr] == ["buffers"]
