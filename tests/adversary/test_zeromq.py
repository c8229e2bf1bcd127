"""Cheating over the real links: parties, dealer and clients as processes, of which some do not do what they should.

The cheats run the program in ``cheating_party.py``; the rest, and always party 0, are honest.  Whoever asked for the
run gets a typed error, in time, and never a result; the honest servers end the run; and the next one comes out right.
"""

from __future__ import annotations

import contextlib
import importlib.util
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mpc.errors import (
    CaughtCheating,
    InconsistentInputs,
    MacCheckError,
    PeerLost,
    ProtocolViolation,
    TesseraError,
)
from nn import Linear, Model, Sequential
from parties import Client, LocalCluster, Settings
from parties.messages.bindings import BoundProgram
from parties.messages.evidence import InputsSaid, digest_of

PROGRAM = Path(__file__).with_name("cheating_party.py")
_spec = importlib.util.spec_from_file_location("cheating_party", PROGRAM)
cheating: Any = importlib.util.module_from_spec(_spec)
sys.modules["cheating_party"] = cheating
_spec.loader.exec_module(cheating)
Step = cheating.Step

DEADLINE = 20.0
VALUES = np.array([0.5, -0.25, 0.75])
OPENINGS, COIN, COMMIT, SIGMA = 3, 3, 4, 5
"""Rounds of the program below, and those of its check."""
SIZE = VALUES.size


def program(x):
    return x * x * x * x


class Cheatable(LocalCluster):
    """All but party 0 run the program that may cheat."""

    def _program(self, name: str) -> list[str]:
        return super()._program(name) if name == "party0" else [sys.executable, str(PROGRAM)]

    @contextlib.contextmanager
    def cheating(self, *steps: Any) -> Iterator[None]:
        cheating.write_strategy(self.folder, steps)
        try:
            yield
        finally:
            cheating.write_strategy(self.folder, [])

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text(encoding="utf-8", errors="replace")


@pytest.fixture(scope="module")
def clusters() -> Iterator[Callable[..., Cheatable]]:
    running: dict[tuple[int, str], Cheatable] = {}

    def get(parties: int = 2, security: str = "malicious") -> Cheatable:
        key = parties, security
        if key not in running:
            settings = Settings(threads=1, peer_timeout=1.5, round_timeout=3)
            cluster = Cheatable(parties, security=security, clients=("clinic", "company"), settings=settings)
            cluster._verbose = True
            running[key] = cluster.__enter__()
            honest(running[key])
        return running[key]

    yield get
    for cluster in running.values():
        cluster.close()


def honest(cluster: LocalCluster) -> None:
    """A run that nobody disturbs comes out right, at the first attempt."""
    with Client(cluster) as client:
        result = client.reveal(program(client.share(VALUES, low=-1, high=1)))
        assert np.abs(result - VALUES**4).max() < 1e-3


def ends(
    cluster: Cheatable, action: Callable[[], object], error: type[TesseraError], *, noticed: bool = True
) -> TesseraError:
    """``action`` raises the error, in time; and the honest party ends all of it, and knows of a failed check."""
    before = len(cluster.log("party0"))
    started = time.monotonic()
    with pytest.raises(TesseraError) as caught:
        action()
    assert time.monotonic() - started < DEADLINE
    assert type(caught.value) is error, repr(caught.value)
    over = re.compile(r"run \w{8} is over; (\d+) in progress")
    while True:
        log = cluster.log("party0")[before:]
        left = over.findall(log)
        # Of another failure the client may be the first to tell it, by releasing the run.
        if left and left[-1] == "0" and ("failed" in log or error is not MacCheckError or not noticed):
            return caught.value
        assert time.monotonic() - started < DEADLINE, log
        time.sleep(0.01)


def reveal(cluster: LocalCluster) -> object:
    with Client(cluster) as client:
        return client.reveal(program(client.share(VALUES, low=-1, high=1)))


def of(act: str, round: int | None = None, member: str = "party1", **more: Any) -> Any:
    return Step(member, act, round=round, **more)


CHEATS: dict[str, tuple[int, list[Any], type[TesseraError]]] = {
    # Shares of what is opened.
    **{f"a bit of round {r}": (2, [of("flip", r, at=r)], CaughtCheating) for r in range(OPENINGS)},
    "a high bit": (2, [of("flip", 1, value=1 << 40)], CaughtCheating),
    "a constant": (2, [of("add", 0, value=12345)], CaughtCheating),
    "a constant in every round": (2, [of("add", r, at=1, value=7) for r in range(OPENINGS)], CaughtCheating),
    "constants that cancel": (2, [of("cancel", 0, value=99)], CaughtCheating),
    "constants that cancel across rounds": (
        2,
        [of("add", 1, value=99), of("add", 2, value=cheating.field.P - 99)],
        CaughtCheating,
    ),
    "constants of two cheats that cancel across their rounds": (
        3,
        [of("add", 0, value=5), of("add", 1, "party2", value=5)],
        CaughtCheating,
    ),
    "twice the share": (2, [of("double", 2)], CaughtCheating),
    "nothing but zeros": (2, [of("zero", 1)], CaughtCheating),
    "the share of another": (2, [of("copy", 1)], CaughtCheating),
    "the share of another of three": (3, [of("copy", 2, source="party0")], CaughtCheating),
    "an opening of the run before": (2, [of("replay", 1, value=1)], CaughtCheating),
    "an earlier opening": (2, [of("replay", 2, value=1)], CaughtCheating),
    # Different things for different peers.
    "equivocation in the first round": (3, [of("add", 0, to="party0", value=3)], CaughtCheating),
    "equivocation in the last round": (3, [of("flip", 2, to="party2")], CaughtCheating),
    "equivocation that cancels": (
        3,
        [of("add", 1, to="party0", value=3), of("add", 1, to="party2", value=cheating.field.P - 3)],
        CaughtCheating,
    ),
    "equivocation, and a lie about it": (
        3,
        [of("add", 2, to="party0"), of("add", message="transcript")],
        CaughtCheating,
    ),
    # The check itself.
    "another coin commitment": (2, [of("flip", 0, at=SIZE)], CaughtCheating),
    "the coin commitment of another": (2, [of("copy", 0, at=SIZE)], CaughtCheating),
    "commitment and coin of another": (2, [of("copy", 0, at=SIZE), of("copy", COIN)], CaughtCheating),
    "another hash": (2, [of("flip", COIN)], CaughtCheating),
    "another coin": (2, [of("flip", COIN, at=8)], CaughtCheating),
    "a coin for each": (3, [of("flip", COIN, at=8, to="party2")], CaughtCheating),
    "another sigma commitment": (2, [of("flip", COMMIT)], CaughtCheating),
    "the sigma commitment of another": (2, [of("copy", COMMIT)], CaughtCheating),
    "commitment and sigma of another": (2, [of("copy", COMMIT), of("copy", SIGMA)], CaughtCheating),
    "the sigma commitment of another of three": (3, [of("copy", COMMIT), of("copy", SIGMA)], CaughtCheating),
    "another sigma than committed to": (2, [of("add", SIGMA)], CaughtCheating),
    "another nonce": (2, [of("flip", SIGMA, at=1)], CaughtCheating),
    "a sigma for each": (3, [of("add", SIGMA, to="party0")], CaughtCheating),
    "a wrong sigma": (2, [of("add", message="sigma", value=17)], MacCheckError),
    "an error, and the sigma that its own key asks for": (
        2,
        [of("add", 0, value=5), of("own key", message="sigma", value=5)],
        CaughtCheating,
    ),
    "an error, and two cheats' sigmas for it": (
        3,
        [of("add", 0, value=5), *(of("own key", None, p, message="sigma", value=5) for p in ("party1", "party2"))],
        CaughtCheating,
    ),
    "the check of the run before": (2, [of("replay", r, value=r) for r in (COIN, COMMIT, SIGMA)], CaughtCheating),
    "another share of the key": (2, [of("add", message="key")], MacCheckError),
    # What goes to the client: the client alone can see it, and tells the servers.
    "another share of the result": (2, [of("add", message="Outputs")], MacCheckError),
    "a bit of the result": (3, [of("flip", None, "party2", message="Outputs", at=2)], MacCheckError),
    "another MAC": (2, [of("flip", message="Outputs", frame=1)], MacCheckError),
    "another key at the end": (2, [of("add", message="Outputs", frame=2)], MacCheckError),
    "twice the share of the key": (2, [of("double", message="Outputs", frame=2)], MacCheckError),
    "too few outputs": (2, [of("drop", message="Outputs", frame=2)], ProtocolViolation),
    "outputs in another order": (2, [of("swap", message="Outputs")], ProtocolViolation),
    "an output cut short": (2, [of("truncate", message="Outputs")], ProtocolViolation),
    "an output outside the field": (2, [of("unreduced", message="Outputs")], ProtocolViolation),
    # Form and order.
    **{f"round {r} cut short": (2, [of("truncate", r)], ProtocolViolation) for r in (0, 1, COIN, SIGMA)},
    "too long": (2, [of("lengthen", 1)], ProtocolViolation),
    "outside the field": (3, [of("unreduced", 1, to="party2")], ProtocolViolation),
    "no array": (2, [of("drop", 1)], ProtocolViolation),
    "an opening twice": (2, [of("again", 1)], ProtocolViolation),
    "a round that is over": (2, [of("behind", 2)], ProtocolViolation),
    "a round far ahead": (2, [of("far", 0)], ProtocolViolation),
    # Silence, when everybody else has spoken.
    "silence after the openings": (2, [of("silent", 1)], PeerLost),
    "silence to one of two": (3, [of("silent", 2, to="party0")], PeerLost),
    "silence before its sigma": (2, [of("silent", SIGMA)], PeerLost),
    # The dealer's links.
    "a seed": (2, [of("flip", None, "dealer", message="Dealt", to="party0")], MacCheckError),
    "the last party's seed": (3, [of("flip", None, "dealer", message="Dealt", to="party2", at=3)], MacCheckError),
    "a correction": (2, [of("add", None, "dealer", message="Dealt", to="party1", frame=1)], MacCheckError),
    "the last correction": (2, [of("flip", None, "dealer", message="Dealt", to="party1", frame=4)], MacCheckError),
    "a correction too few": (2, [of("drop", None, "dealer", message="Dealt", to="party1", frame=1)], ProtocolViolation),
    "another program's corrections": (2, [of("swap", None, "dealer", message="Dealt", to="party1")], ProtocolViolation),
    "a commitment to a share of the key": (
        2,
        [of("flip", None, "dealer", message="ClientMasks", frame=3)],
        ProtocolViolation,
    ),
    "a digest of the masks": (3, [of("digest", None, "dealer", message="Dealt", to="party0")], ProtocolViolation),
    "every digest of the masks": (2, [of("digest", None, "dealer", message="Dealt")], ProtocolViolation),
    "a seed of the client's mask": (2, [of("flip", None, "dealer", message="ClientMasks")], ProtocolViolation),
    "the mask of the result": (2, [of("add", None, "dealer", message="ClientMasks", frame=1)], ProtocolViolation),
    "the mask of the MAC": (2, [of("add", None, "dealer", message="ClientMasks", frame=2)], ProtocolViolation),
}


@pytest.mark.sampled(5)
@pytest.mark.parametrize("name", CHEATS)
def test_a_cheat_gets_nothing(clusters, name):
    parties, steps, error = CHEATS[name]
    cluster = clusters(parties)
    with cluster.cheating(*steps):
        # What is wrong with the outputs the client alone can see.
        noticed = steps[0].message != "Outputs"
        raised = ends(cluster, lambda: reveal(cluster), error, noticed=noticed)
    # Of a silence, each blames the other: the cheat, too, waits for the next opening.
    if error is ProtocolViolation and steps[0].member != "dealer":
        assert raised.peer == steps[0].member
    honest(cluster)


def test_rounds_in_another_order(clusters):
    """Found out as two openings of one round or, if the first to come counts before that, by the check."""
    cluster = clusters(2)
    with cluster.cheating(of("ahead", 1)), pytest.raises((ProtocolViolation, CaughtCheating)):
        reveal(cluster)
    honest(cluster)


@pytest.mark.slow
def test_outputs_that_never_come(clusters):
    cluster = clusters(2)
    with cluster.cheating(of("silent", message="Outputs")), Client(cluster) as client:
        started = time.monotonic()
        with pytest.raises(PeerLost, match="sent no Outputs") as caught:
            client.reveal(program(client.share(VALUES, low=-1, high=1)))
        settings = cluster.cluster.settings
        assert time.monotonic() - started < (settings.round_timeout + settings.peer_timeout) * (SIGMA + 2) + 1
        assert caught.value.peer == "party1"
    honest(cluster)


def test_without_macs_the_simplest_of_these_goes_unnoticed(clusters):
    cluster = clusters(2, "semi-honest")
    with cluster.cheating(of("add", 0, value=1 << 30)):
        assert np.abs(reveal(cluster) - VALUES**4).max() > 1e-2
    with cluster.cheating(of("add", message="Outputs", value=1 << 55)):
        assert np.abs(reveal(cluster) - VALUES**4).max() > 1e-2
    honest(cluster)


# -- stored models ---------------------------------------------------------------------------------------------------


def linear() -> Model:
    architecture = Sequential({"out": Linear(3, 2)}).architecture((3,))
    return Model(architecture, {n: np.full(s, 0.5) for n, s in architecture.parameters.items()})


def predict(cluster: LocalCluster, *, cubed: bool) -> Any:
    """By a stored model; without the cube there is nothing for the parties to open to each other."""
    with Client(cluster) as client:
        y = client.model("m")(client.share([VALUES], low=-1, high=1))
        return client.reveal([y, y * y * y] if cubed else y)


def predicts(cluster: LocalCluster) -> None:
    wanted = linear().plain(np.array([VALUES]))
    y, cube = predict(cluster, cubed=True)
    assert np.abs(y - wanted).max() < 1e-3
    assert np.abs(cube - wanted**3).max() < 1e-3


@pytest.mark.parametrize("member", ["party1", "party2"])
@pytest.mark.parametrize("cubed", [True, False], ids=["noticed by the parties", "noticed by the client"])
def test_another_share_of_a_stored_tensor(clusters, member, cubed):
    cluster = clusters(3)
    with Client(cluster) as client:
        client.upload(linear(), "m")
    with cluster.cheating(of("add", None, member, message="stored")):
        ends(cluster, lambda: predict(cluster, cubed=cubed), MacCheckError, noticed=cubed)
    predicts(cluster)


def test_a_stored_tensor_masked_with_another_seed(clusters):
    """A party was sent another seed than the dealer's: what it holds is no share of the model's mask."""
    cluster = clusters(2)
    with cluster.cheating(of("flip", None, "dealer", message="UploadSeed", to="party1")), Client(cluster) as client:
        client.upload(linear(), "m")
    ends(cluster, lambda: predict(cluster, cubed=True), MacCheckError)
    with Client(cluster) as client:
        with (
            cluster.cheating(of("flip", None, "dealer", message="UploadSeed", to="clinic")),
            pytest.raises(ProtocolViolation, match="other masks than the dealer made"),
        ):
            client.upload(linear(), "m")
        client.upload(linear(), "m")
    predicts(cluster)


# -- material dealt ahead of time ------------------------------------------------------------------------------------


def stock(cluster: LocalCluster, count: int) -> None:
    with Client(cluster) as client:
        client.stock(program(client.share(VALUES, low=-1, high=1)), count)


@pytest.mark.sampled(3)
@pytest.mark.parametrize(
    ("step", "error"),
    [
        (of("flip", None, "dealer", message="StockItem", to="party0"), MacCheckError),
        (of("add", None, "dealer", message="StockItem", to="party1", frame=2), MacCheckError),
        (of("number", message="Agreed", to="party0"), ProtocolViolation),
        (of("number", message="Agreed", to="dealer"), ProtocolViolation),
        (of("silent", message="Agreed"), PeerLost),
    ],
    ids=[
        "another seed",
        "another correction",
        "another number",
        "another number to the dealer",
        "silent about its item",
    ],
)
def test_cheats_with_what_was_dealt_ahead_of_time(clusters, step, error):
    cluster = clusters(2)
    with cluster.cheating(step):
        stock(cluster, 4)
        # The other party may be the first to fail, and the client to release the run.
        ends(cluster, lambda: reveal(cluster), error, noticed=False)
    if step.to == "dealer":
        # It has seen that for itself, and leaves the stock alone until somebody has looked into it.
        with pytest.raises(ProtocolViolation, match="has used other items of the stock") as caught:
            stock(cluster, 1)
        assert caught.value.peer == "party1"
        cluster.start_process("dealer")
    honest(cluster)


def test_a_failed_check_destroys_what_was_dealt(clusters):
    cluster = clusters(2)
    stock(cluster, 2)
    with cluster.cheating(of("add", message="sigma", value=17)):
        ends(cluster, lambda: reveal(cluster), MacCheckError)
    with Client(cluster) as client:
        x = client.share(VALUES, low=-1, high=1)
        assert np.abs(client.reveal(program(x)) - VALUES**4).max() < 1e-3
        assert not client.last_run.from_stock
        assert client.stock(program(x), 1).in_stock == 1
        client.reveal(program(x))
        assert client.last_run.from_stock


# -- clients ---------------------------------------------------------------------------------------------------------


def told(client: Client, change: Callable[[str, Any, Any], tuple[Any, Any]]) -> None:
    """The client sends ``change(party, message, buffers)`` in place of its inputs."""
    board = client._client._board
    send = board.send

    def instead(server: str, message: Any, payload: Any = ()) -> int:
        if type(message).__name__ == "Inputs":
            message, payload = change(server, message, payload)
        return send(server, message, payload)

    board.send = instead


@pytest.mark.parametrize("unsigned", [False, True])
@pytest.mark.parametrize("parties", [2, 3])
def test_a_client_that_tells_two_parties_different_inputs(clusters, parties, unsigned):
    cluster = clusters(parties)

    def reveal() -> None:
        with Client(cluster, name="company") as client:
            x = program(client.share(VALUES, low=-1, high=1))
            bound = BoundProgram(client._client._written(x).program, (), "company")

            def change(server: str, message: Any, payload: Any) -> tuple[Any, Any]:
                if server != "party1":
                    return message, payload
                other = [cheating.field.add(a, np.array([1], np.uint64)) for a in payload]
                of = cluster.cluster.terms, message.run, bound.program.digest, bound.bindings_digest
                signature = client._client._sign(InputsSaid(*of, digest_of(other)))
                return message if unsigned else cheating.msgspec.structs.replace(message, signature=signature), other

            told(client, change)
            client.reveal(x)

    raised = ends(cluster, reveal, ProtocolViolation if unsigned else InconsistentInputs)
    assert raised.peer == "company"
    honest(cluster)


@pytest.mark.parametrize("whom", [("party0",), ("party0", "party1")])
def test_a_client_that_gives_another_digest_of_its_masks(clusters, whom):
    cluster = clusters(2)

    def reveal() -> None:
        with Client(cluster, name="company") as client:
            told(client, lambda s, m, p: (cheating.msgspec.structs.replace(m, masks="0" * 64) if s in whom else m, p))
            client.reveal(program(client.share(VALUES, low=-1, high=1)))

    raised = ends(cluster, reveal, ProtocolViolation)
    assert raised.peer == "company"
    honest(cluster)


SCRIPT = """
import sys
from mpc.errors import TesseraError
from parties import Client
try:
    with Client({path!r}, {key!r}) as client:
        x = client.share([0.5, -0.25, 0.75], low=-1, high=1)
        print(client.reveal(x * x * x * x))
except TesseraError as error:
    print(error, file=sys.stderr)
    sys.exit(error.exit_code)
"""


SNIPPET = str(Path(__file__).parents[1] / "snippet.py")


def test_exit_code_of_a_process_that_was_cheated(clusters):
    cluster = clusters(2)
    script = SCRIPT.format(path=str(cluster.path), key=str(cluster.key_path("clinic")))
    with cluster.cheating(of("add", message="sigma", value=17)):
        process = subprocess.run([sys.executable, SNIPPET, script], capture_output=True, text=True, timeout=30)
    assert (process.returncode, process.stdout) == (12, "")
    assert "cheated" in process.stderr
    honest(cluster)
