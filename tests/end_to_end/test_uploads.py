"""Big uploads between real processes: killed in the middle they go on, and what is there is not sent again."""

from __future__ import annotations

import importlib.util
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mpc.rings.field import FieldArray
from nn import Linear, Model, Sequential
from parties import Client, LocalCluster, Settings
from parties.client.uploading import UploadProgress
from parties.messages.uploads import UploadChunk
from parties.stored import chunks
from parties.stored.chunks import WINDOW

PROGRAM = Path(__file__).with_name("uploading_member.py")
_spec = importlib.util.spec_from_file_location("uploading_member", PROGRAM)
member: Any = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(member)
Crash = member.crashing_server().Crash

PARTIES = ("party0", "party1")
NAMES = ("dealer", *PARTIES)
MIB = 1 << 20


class Observed(LocalCluster):
    """Every server dies where it is told to."""

    def _program(self, name: str) -> list[str]:
        return [sys.executable, str(PROGRAM), "server"]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Observed]:
    # A server takes seconds to start: as long as that an upload waits for it.
    settings = Settings(threads=1, peer_timeout=1.5, round_timeout=30)
    with Observed(2, clients=("company", "clinic"), settings=settings) as cluster:
        yield cluster


@pytest.fixture(autouse=True)
def small_chunks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if "cluster" in request.fixturenames:
        monkeypatch.setattr(chunks, "CHUNK_ELEMENTS", member.CHUNK_ELEMENTS)


def upload(cluster: LocalCluster, scale: float) -> tuple[dict[str, list[int]], UploadProgress]:
    """Which chunks were sent to whom, and what the end was."""
    sent: dict[str, list[int]] = {party: [] for party in PARTIES}
    said: list[UploadProgress] = []
    with Client(cluster, name="company") as company:
        send = company._client._board.send

        def counted(server: str, message: Any, payload: Any = ()) -> int:
            if isinstance(message, UploadChunk):
                sent[server].append(message.number)
            return int(send(server, message, payload))

        company._client._board.send = counted  # type: ignore[method-assign]
        company.upload(member.model(scale), "m", progress=said.append)
        result = company.reveal(company.model("m")(company.share([[1.0, 1.0, 1.0]], low=-1, high=1)))
    assert np.abs(result - 4 * scale).max() < 0.01
    return sent, said[-1]


def reviver(cluster: LocalCluster, name: str) -> threading.Thread:
    """Starts a server again when it has died."""

    def revive() -> None:
        cluster.processes[name].wait(60)
        cluster.start_process(name, wait=False)
        cluster._await_ready(name, time.monotonic() + 60)

    thread = threading.Thread(target=revive)
    thread.start()
    return thread


POINTS = [
    ("party0", "ChunksStored", "before", 3),
    ("party1", "ChunksStored", "after", 1),
    ("party1", "append", "after", 5),
    ("party1", "append", "before", 9),
    ("dealer", "UploadSeed", "after", 3),
    ("party0", "prepare", "before", 1),
]
FEW = [POINTS[3], POINTS[4]]


def killed(cluster: Observed, name: str, what: str, when: str, count: int) -> None:
    scale = 0.25 + POINTS.index((name, what, when, count)) / 16
    Crash(what, when, count).write(cluster.folder, name)
    thread = reviver(cluster, name)
    sent, _ = upload(cluster, scale)
    thread.join(60)
    assert not (cluster.folder / f"{name}.crash").exists(), "it did not come to that"
    for party, numbers in sent.items():
        assert sorted(set(numbers)) == list(range(member.CHUNKS)), party
        assert len(numbers) <= member.CHUNKS + WINDOW, f"chunks that {party} had were sent again"


@pytest.mark.parametrize(("name", "what", "when", "count"), FEW)
def test_a_server_killed_in_the_middle(cluster: Observed, name: str, what: str, when: str, count: int) -> None:
    """The same call goes on."""
    killed(cluster, name, what, when, count)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "what", "when", "count"), [point for point in POINTS if point not in FEW])
def test_a_server_killed_at_other_points(cluster: Observed, name: str, what: str, when: str, count: int) -> None:
    killed(cluster, name, what, when, count)


def client_killed(cluster: Observed, at: int, scale: float, *, also: tuple[str, ...] = ()) -> None:
    """After ``at`` chunks; ``also`` servers are killed then, and all are started again."""
    command = [sys.executable, str(PROGRAM), "client", str(cluster.path), str(cluster.key_path("company"))]
    process = subprocess.run([*command, str(scale), str(at)], timeout=120, check=False)
    assert process.returncode == -signal.SIGKILL
    for name in also:
        cluster.processes[name].kill()
        cluster.processes[name].wait()
    for name in also:
        cluster.start_process(name, wait=False)
        cluster._await_ready(name, time.monotonic() + 60)
    sent, end = upload(cluster, scale)
    assert end.resumed >= at * member.CHUNK_ELEMENTS * 8
    for numbers in sent.values():
        assert numbers[0] >= at
        assert len(numbers) == len(set(numbers)) <= member.CHUNKS - at
    for party in PARTIES:
        assert not list((cluster.data_path(party) / "uploads").iterdir())


def test_a_client_killed_in_the_middle(cluster: Observed) -> None:
    client_killed(cluster, 100, 0.375)


@pytest.mark.slow
@pytest.mark.parametrize(("at", "also"), [(1, ()), (60, ("dealer",)), (150, NAMES)])
def test_a_client_and_servers_killed(cluster: Observed, at: int, also: tuple[str, ...]) -> None:
    client_killed(cluster, at, 0.5 + at / 1000, also=also)


# -- memory ----------------------------------------------------------------------------------------------------------


class Encoded:
    """A model whose tensors are there already, so that what is measured is the upload."""

    def __init__(self, model: Model) -> None:
        self._tensors, self._description = model.encode(), model.describe()

    def encode(self) -> Mapping[str, FieldArray]:
        return self._tensors

    def describe(self) -> bytes:
        return self._description

    @property
    def size(self) -> int:
        """Bytes to each party."""
        return sum(array.nbytes for array in self._tensors.values())


def memory(process: int | str, what: str) -> int:
    """``VmRSS`` or, since `forget_peak`, ``VmHWM`` in bytes."""
    status = Path(f"/proc/{process}/status").read_text(encoding="ascii")
    return next(1024 * int(line.split()[1]) for line in status.splitlines() if line.startswith(what))


def forget_peak(process: int | str) -> None:
    Path(f"/proc/{process}/clear_refs").write_text("5", encoding="ascii")


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peaks of memory are measured on Linux alone")
def test_memory_does_not_grow_with_the_model() -> None:
    """200 MB of weights: at a party a window and a few chunks, at the client one tensor's mask and as much.

    Half of a server's memory is less than they take, so they are not made ready for a first prediction.
    """
    layers = {f"fc{i}": Linear(1600, 1600) for i in range(10)}
    architecture = Sequential(layers).architecture((1600,))
    rng = np.random.default_rng(1)
    big = Encoded(Model(architecture, {n: rng.normal(0, 0.01, s) for n, s in architecture.parameters.items()}))
    assert big.size > 200_000_000
    with (
        LocalCluster(2, clients=("company",), settings=Settings(threads=1, memory_mb=300)) as cluster,
        Client(cluster, name="company") as company,
    ):
        processes = {name: cluster.processes[name].pid for name in NAMES}
        before = {"client": memory("self", "VmRSS")}
        before.update({name: memory(pid, "VmRSS") for name, pid in processes.items()})
        for process in ("self", *processes.values()):
            forget_peak(process)
        company.upload(big, "m")
        grown = {"client": memory("self", "VmHWM") - before["client"]}
        grown.update({name: memory(pid, "VmHWM") - before[name] for name, pid in processes.items()})
        assert [entry.parameters for entry in company.models()] == [big.size // 8]
    # Whoever held w - b as a whole, or every mask, would have 195 MiB of it.
    assert max(grown.values()) < 128 * MIB, grown
    assert grown["dealer"] < 16 * MIB
