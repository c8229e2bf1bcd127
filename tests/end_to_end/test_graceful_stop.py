"""SIGTERM: nothing new is begun, what is in progress ends or is failed in time, clients are told, exit code 0."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from mpc.errors import PeerError, PeerLost, PeerUnavailable
from nn.derm import load_image, samples
from nn.derm.model import derm_model
from parties import AsyncClient, Client, KeyPair, LocalCluster, Settings
from parties.commands.command_line import main, parser_for
from parties.servers.process import GRACE, READY, make_server
from protocols.trace.secret_tensor import SecretTensor

SERVERS = ("dealer", "party0", "party1")
SHORT = 1.5
"""s of grace where a test waits for its end."""
SLACK = 10.0
"""s that ending a process may take besides, on a busy machine."""


class GracefulCluster(LocalCluster):
    """Its servers can be started with another grace than the default."""

    def start_graceful(self, name: str, grace: float) -> None:
        """Start one of the servers again, with so much grace."""
        self.processes[name].kill()
        self.processes[name].communicate()
        role = ["dealer"] if name == "dealer" else ["party", name.removeprefix("party")]
        command = [*self._program(name), *role, "--cluster", str(self.path), "--key", str(self.key_path(name))]
        with (self.folder / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                [*command, "--grace", str(grace)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log
            )
        stdout = self.processes[name].stdout
        assert stdout is not None
        assert stdout.readline().strip() == READY.encode()


@pytest.fixture(scope="module")
def cluster() -> Iterator[GracefulCluster]:
    settings = Settings(threads=1, peer_timeout=1.5, round_timeout=20)
    with GracefulCluster(2, clients=("clinic", "company"), settings=settings) as running:
        yield running


@pytest.fixture
def client(cluster: GracefulCluster) -> Iterator[Client]:
    for name in SERVERS:
        if cluster.processes[name].poll() is not None:
            cluster.start_process(name)
    with Client(cluster) as connected:
        yield connected


def square(client: Client) -> SecretTensor:
    return client.share([1.0, -2.0], low=-4, high=4) ** 2


def ended(cluster: LocalCluster, name: str, within: float) -> int:
    """The exit code, once the process is over."""
    return cluster.processes[name].wait(within)


def in_time(process: subprocess.Popen[bytes], number: int = signal.SIGTERM) -> float:
    """Sends the signal; when that was."""
    process.send_signal(number)
    return time.monotonic()


def refusal(client: Client) -> PeerUnavailable:
    """Of a run: a signal may take a moment, and until then they are welcome."""
    deadline = time.monotonic() + SLACK
    while True:
        try:
            assert client.reveal(square(client)) == pytest.approx([1, 4], abs=1e-2)
        except PeerUnavailable as error:
            return error
        assert time.monotonic() < deadline


@pytest.mark.parametrize(
    ("number", "name"),
    [
        (signal.SIGTERM, "dealer"),
        (signal.SIGINT, "party1"),
        *(pytest.param(signal.SIGTERM, name, marks=pytest.mark.slow) for name in SERVERS[1:]),
        *(pytest.param(signal.SIGINT, name, marks=pytest.mark.slow) for name in SERVERS[:-1]),
    ],
)
def test_an_idle_server_ends_at_once(cluster: GracefulCluster, client: Client, name: str, number: int) -> None:
    """Of the grace nothing passes, however long it is: what there is besides a busy machine may take."""
    cluster.start_graceful(name, 60.0)
    with Client(cluster, name="company") as newcomer:
        assert newcomer.reveal(square(newcomer)) == pytest.approx([1, 4], abs=1e-2)
        in_time(cluster.processes[name], number)
        assert ended(cluster, name, 30.0) == 0


@pytest.mark.parametrize("name", [pytest.param("party0", marks=pytest.mark.slow), "party1"])
def test_a_run_in_progress_is_finished_and_nothing_new_is_begun(
    cluster: GracefulCluster, client: Client, name: str
) -> None:
    run = client.prepare(square(client))
    in_time(cluster.processes[name])
    refused = refusal(client)
    assert refused.peer == name
    assert "begins nothing new" in str(refused)
    with pytest.raises(PeerUnavailable, match="begins nothing new"):
        client.upload(derm_model(), "late")
    assert cluster.processes[name].poll() is None
    assert client.finish(run) == pytest.approx([1, 4], abs=1e-2)
    assert ended(cluster, name, SLACK) == 0


def test_a_large_prediction_survives_the_order_to_stop(cluster: GracefulCluster, client: Client) -> None:
    """The parties compute in threads, over several rounds, while the dealer and they are asked to stop."""
    model = derm_model()
    remote = client.upload(model, "derm")
    images = np.resize(np.stack([load_image(sample.path) for sample in samples()]), (32, 3, 28, 28))
    run = client.prepare(remote(client.share(images, low=-1, high=1)))
    found: list[object] = []
    online = threading.Thread(target=lambda: found.append(client.finish(run)))
    online.start()
    time.sleep(0.02)
    in_time(cluster.processes["party1"])
    in_time(cluster.processes["dealer"])
    online.join(GRACE)
    (logits,) = found
    assert np.abs(np.asarray(logits) - model.plain(images)).max() < 0.01
    assert ended(cluster, "party1", SLACK) == ended(cluster, "dealer", SLACK) == 0


@pytest.mark.slow
@pytest.mark.parametrize("name", ["party0", "party1"])
def test_what_does_not_end_in_time_is_failed_with_an_error_that_says_so(
    cluster: GracefulCluster, client: Client, name: str
) -> None:
    client.close()
    cluster.start_graceful(name, SHORT)
    with Client(cluster) as again:
        run = again.prepare(square(again))
        asked = in_time(cluster.processes[name])
        assert ended(cluster, name, SHORT + SLACK) == 0
        assert time.monotonic() - asked >= SHORT
        with pytest.raises(PeerLost, match=f"was stopped, and the run was not over within {SHORT:g} s") as caught:
            again.finish(run)
        assert caught.value.peer == name


def test_a_second_signal_ends_the_grace(cluster: GracefulCluster, client: Client) -> None:
    run = client.prepare(square(client))
    asked = in_time(cluster.processes["party0"])
    assert "begins nothing new" in str(refusal(client))
    assert cluster.processes["party0"].poll() is None
    in_time(cluster.processes["party0"])
    assert ended(cluster, "party0", SLACK) == 0
    assert time.monotonic() - asked < GRACE / 2
    with pytest.raises(PeerError):
        client.finish(run)


def test_a_dealer_that_leaves_deals_nothing_ahead(cluster: GracefulCluster, client: Client) -> None:
    """Its own process would be gone too soon for a request: this one is told to leave, and stays."""
    cluster.processes["dealer"].send_signal(signal.SIGTERM)
    assert ended(cluster, "dealer", GRACE) == 0

    async def scenario() -> None:
        keys = KeyPair.load(cluster.key_path("dealer"))
        dealer = make_server(cluster.cluster, cluster.cluster.dealer, keys, cluster.data_path("dealer"))
        serving = asyncio.create_task(dealer.serve())
        await dealer.listening.wait()
        async with AsyncClient(cluster.cluster, cluster.client_key("company")) as other:
            await other.reveal(other.share([1.0]) ** 2)
            await dealer.leave(GRACE)
            for ask in (other.stock(other.share([1.0]) ** 2, 1), other.reveal(other.share([1.0]) ** 2)):
                with pytest.raises(PeerUnavailable, match="begins nothing new") as caught:
                    await ask
                assert caught.value.peer == "dealer"
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)

    asyncio.run(scenario())


@pytest.mark.slow
def test_restarted_it_serves_as_before(cluster: GracefulCluster, client: Client) -> None:
    remote = client.upload(derm_model(), "kept")
    for name in SERVERS:
        in_time(cluster.processes[name])
    assert [ended(cluster, name, GRACE) for name in SERVERS] == [0, 0, 0]
    client.close()
    for name in SERVERS:
        cluster.start_process(name)
    with Client(cluster) as again:
        assert again.model("kept").version == remote.version
        assert again.reveal(square(again)) == pytest.approx([1, 4], abs=1e-2)


@pytest.mark.parametrize("grace", ["-1", "nan", "soon", "1e9"])
def test_a_grace_that_makes_no_sense(tmp_path: Path, grace: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["dealer", "--cluster", str(tmp_path / "cluster.toml"), "--grace", grace]) == 2
    assert "is not a number of seconds" in capsys.readouterr().err


def test_the_command_and_the_server_agree_on_the_default() -> None:
    assert parser_for(["dealer"]).parse_args(["dealer"]).grace == GRACE
