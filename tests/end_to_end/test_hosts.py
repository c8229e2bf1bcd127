"""Every process on a host of its own, with slow, lossy and cut networks between them."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest

from benchmarks.network.emulation import UNSHAPED, EmulatedCluster, EmulatedNetwork
from mpc.cost import Link
from mpc.errors import PeerError, PeerUnavailable, TesseraError, UsageError
from nn.derm import load_image, samples
from nn.derm.model import derm_model
from parties import Client, PreparedRun, Settings
from protocols.trace.secret_tensor import SecretTensor

HOSTS = ("client", "dealer", "party0", "party1", "party2")
FAR = Link(20e-3, 100e6)
# Most of it waits for peers to be given up.
pytestmark = pytest.mark.slow
SETTINGS = Settings(threads=1, peer_timeout=1.5, round_timeout=20)
DEADLINE = SETTINGS.peer_timeout + 10.0
"""Seconds from a cut to the client's error: silence is noticed, told, and the way there may be long."""


@pytest.fixture(scope="module")
def network() -> Iterator[EmulatedNetwork]:
    try:
        emulated = EmulatedNetwork(HOSTS).__enter__()
    except UsageError as error:
        pytest.skip(str(error))
    try:
        yield emulated
    finally:
        emulated.__exit__()


@pytest.fixture(scope="module")
def cluster(network: EmulatedNetwork) -> Iterator[EmulatedCluster]:
    with EmulatedCluster(network, 3, settings=SETTINGS, verbose=True) as running:
        yield running


@pytest.fixture(scope="module")
def client(network: EmulatedNetwork, cluster: EmulatedCluster) -> Iterator[Client]:
    with network.hosts["client"].entered(), Client(cluster) as connected:
        yield connected


@pytest.fixture
def far(network: EmulatedNetwork) -> Iterator[EmulatedNetwork]:
    network.shape(FAR)
    yield network
    network.shape(UNSHAPED)


def fourth_power(client: Client) -> SecretTensor:
    """With an opening among the parties on the way."""
    return (client.share([1.0, -2.0], low=-4, high=4) ** 2) ** 2


def computes(client: Client) -> None:
    assert client.reveal(fourth_power(client)) == pytest.approx([1, 16], abs=1e-2)


def gets_through(client: Client) -> None:
    """At the second attempt at the latest: three losses in a row, or one on a busy machine, are silence enough."""
    try:
        computes(client)
    except PeerUnavailable:
        computes(client)


def is_over(cluster: EmulatedCluster, name: str, run: PreparedRun) -> bool:
    """Whether this process has forgotten the run, by its own log.

    Another one may be there yet: of a client that was cut off when it gave that up, until ``round_timeout``.
    """
    return f"run {run.run[:8]} is over;" in cluster.log_tail(name, lines=1_000_000)


def test_a_prediction_from_host_to_host(far: EmulatedNetwork, client: Client) -> None:
    model = derm_model()
    remote = client.upload(model, "derm")
    image = load_image(samples()[0].path)[None]
    far.report()
    logits = client.predict(remote, image)
    assert np.abs(logits - model.plain(image)).max() < 0.01
    report = client.last_run
    assert report is not None
    # It went over the emulated network, and took the time that its rounds take there.
    assert far.report()["bytes"] > 2 * report.online.bytes
    assert report.online.seconds > report.predicted.latency(FAR).online


def test_predictions_get_through_a_network_that_loses_packets(network: EmulatedNetwork, client: Client) -> None:
    network.shape(Link(5e-3, 100e6), loss=0.01)
    try:
        network.report()
        for _ in range(5):
            gets_through(client)
        assert network.report()["dropped"] > 0
    finally:
        network.shape(UNSHAPED)


def test_predictions_get_through_a_network_that_doubles_packets(network: EmulatedNetwork, client: Client) -> None:
    """Which is TCP's to sort out: nothing of ours comes twice, or is taken for a replay."""
    network.shape(Link(2e-3, 100e6), loss=0.005, twice=0.2)
    try:
        network.report()
        for _ in range(5):
            gets_through(client)
        report = network.report()
        assert report["doubled"] > 20
        assert report["dropped"] > 0
    finally:
        network.shape(UNSHAPED)


@pytest.mark.parametrize(
    ("a", "b"), [("party0", "party1"), ("client", "party2"), ("dealer", "party1"), ("client", "dealer")]
)
def test_a_cut_before_the_offline_phase_fails_in_time_and_healed_all_is_well(
    far: EmulatedNetwork, cluster: EmulatedCluster, client: Client, a: str, b: str
) -> None:
    computes(client)
    far.cut(a, b)
    try:
        fails_in_time(client, lambda: client.reveal(fourth_power(client)), a, b)
    finally:
        far.heal(a, b)
    next_run_works(client)


@pytest.mark.parametrize(("a", "b"), [("party0", "party1"), ("client", "party2")])
def test_a_cut_in_the_online_phase_ends_the_run_everywhere_in_time_and_healed_all_is_well(
    far: EmulatedNetwork, cluster: EmulatedCluster, client: Client, a: str, b: str
) -> None:
    parties = [name for name in HOSTS if name.startswith("party")]
    computes(client)
    run = client.prepare(fourth_power(client))
    far.cut(a, b)
    try:
        fails_in_time(client, lambda: client.finish(run), a, b)
    finally:
        far.heal(a, b)
    # Nobody keeps a run that cannot end.  Those that are told may be told late: their way was cut too.
    give_up = time.monotonic() + DEADLINE
    while not all(is_over(cluster, name, run) for name in parties) and time.monotonic() < give_up:
        time.sleep(0.1)
    assert [name for name in parties if not is_over(cluster, name, run)] == []
    next_run_works(client)


def test_the_dealer_is_not_missed_in_the_online_phase(far: EmulatedNetwork, client: Client) -> None:
    run = client.prepare(fourth_power(client))
    for name in HOSTS:
        if name != "dealer":
            far.cut("dealer", name)
    try:
        assert client.finish(run) == pytest.approx([1, 16], abs=1e-2)
    finally:
        for name in HOSTS:
            if name != "dealer":
                far.heal("dealer", name)
    next_run_works(client)


def test_a_short_cut_is_bridged(far: EmulatedNetwork, client: Client) -> None:
    """TCP sends again what was lost: the run takes longer, and is right."""
    run = client.prepare(fourth_power(client))
    far.cut("party0", "party1")
    threading.Timer(0.4, far.heal, ["party0", "party1"]).start()
    assert client.finish(run) == pytest.approx([1, 16], abs=1e-2)


def fails_in_time(client: Client, action, a: str, b: str) -> None:
    """With an error that names one of the two: who of them is to blame nobody can tell."""
    started = time.monotonic()
    with pytest.raises(PeerError) as caught:
        action()
    assert time.monotonic() - started < DEADLINE
    assert caught.value.peer in (a, b), caught.value


def next_run_works(client: Client) -> None:
    """Nobody is restarted; the first attempts may still meet connections that are being given up."""
    last: TesseraError | None = None
    give_up = time.monotonic() + 30
    while time.monotonic() < give_up:
        try:
            computes(client)
            return
        except TesseraError as error:
            last = error
            time.sleep(0.3)
    raise AssertionError(f"the cluster does not serve the next run: {last}")
