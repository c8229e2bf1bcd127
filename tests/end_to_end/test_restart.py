"""Models outlive every process: kill -9 of parties and dealer, also in the middle of uploads, and predictions go on."""

from __future__ import annotations

import importlib.util
import json
import random
import shutil
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mpc.errors import NoSuchName, NotPermitted, PeerLost, ProgramError, TesseraError, UsageError
from nn import Linear, Model, Sequential
from parties import Client, LocalCluster, Settings
from parties.commands.command_line import main

PROGRAM = Path(__file__).with_name("crashing_server.py")
_spec = importlib.util.spec_from_file_location("crashing_server", PROGRAM)
crashing: Any = importlib.util.module_from_spec(_spec)
sys.modules["crashing_server"] = crashing
_spec.loader.exec_module(crashing)
Crash = crashing.Crash

IMAGE = np.array([[1.0, 1.0, 1.0]])
NAMES = ("dealer", "party0", "party1")
PATIENCE = 30.0
"""s in which servers that are up again have agreed."""


class Observed(LocalCluster):
    """Every server dies where it is told to."""

    def _program(self, name: str) -> list[str]:
        return [sys.executable, str(PROGRAM)]


@pytest.fixture(scope="module", params=["malicious"])
def cluster(request: pytest.FixtureRequest) -> Iterator[Observed]:
    settings = Settings(threads=1, peer_timeout=1.5, round_timeout=1.5)
    with Observed(2, security=request.param, clients=("company", "clinic"), settings=settings) as cluster:
        yield cluster


def model(scale: float, hidden: int = 1) -> Model:
    architecture = Sequential({"out": Linear(3, 2 * hidden)}).architecture((3,))
    return Model(architecture, {n: np.full(s, scale) for n, s in architecture.parameters.items()})


def upload(cluster: LocalCluster, scale: float, name: str = "m") -> None:
    with Client(cluster, name="company") as company:
        company.upload(model(scale), name)
        company.allow(name, "clinic")


def predict(client: Client, name: str = "m") -> float:
    """The scale of the version that is in use."""
    remote = client.model(name)
    result = client.reveal(remote(client.share(IMAGE, low=-1, high=1, name="images")))
    assert np.abs(result - result.flat[0]).max() < 1e-3, "a mixture"
    return float(result.flat[0]) / 4


def predicted(cluster: LocalCluster, name: str = "m") -> float:
    """Once the servers have agreed, which they do by themselves."""
    give_up = time.monotonic() + PATIENCE
    while True:
        try:
            with Client(cluster, name="clinic") as clinic:
                return round(predict(clinic, name), 2)
        except TesseraError:
            if time.monotonic() > give_up:
                raise
            time.sleep(0.1)


def kill(cluster: LocalCluster, *names: str) -> None:
    for name in names:
        cluster.processes[name].kill()
        cluster.processes[name].wait()


def start(cluster: LocalCluster, *names: str) -> None:
    for name in names:
        cluster.start_process(name, wait=False)
    for name in names:
        cluster._await_ready(name, time.monotonic() + 60)


def settled(cluster: LocalCluster) -> None:
    """One version everywhere, and on the disks nothing else."""
    give_up = time.monotonic() + PATIENCE
    while True:
        with Client(cluster, name="clinic") as clinic:
            entries = clinic.models()
        there = [{path.name for path in (cluster.data_path(p) / "models").iterdir()} for p in NAMES[1:]]
        if all(e.complete for e in entries) and all(
            files == {f"{e.version}.shares" for e in entries} for files in there
        ):
            return
        if time.monotonic() > give_up:
            raise AssertionError(f"not settled: {entries}, {there}")
        time.sleep(0.1)


@pytest.mark.parametrize(
    "killed",
    [*(pytest.param((name,), marks=pytest.mark.slow) for name in NAMES[:2]), ("party1",), NAMES],
    ids=" ".join,
)
def test_models_outlive_kill_9(cluster, killed):
    upload(cluster, 0.5)
    upload(cluster, 0.25, "other")
    kill(cluster, *killed)
    start(cluster, *killed)
    with Client(cluster, name="clinic") as clinic:
        assert predict(clinic) == pytest.approx(0.5, abs=1e-3)
        assert predict(clinic, "other") == pytest.approx(0.25, abs=1e-3)
    upload(cluster, 0.75)
    assert predicted(cluster) == 0.75
    settled(cluster)


@pytest.mark.slow
def test_stock_outlives_kill_9_and_goes_with_its_model(cluster):
    upload(cluster, 0.5)
    with Client(cluster, name="clinic") as clinic:
        result = clinic.model("m")(clinic.share(IMAGE, low=-1, high=1, name="images"))
        program = clinic.stock(result, 5, low_water=2).program
    for killed in (("party1",), ("dealer",), NAMES):
        kill(cluster, *killed)
        start(cluster, *killed)
        with Client(cluster, name="clinic") as clinic:
            assert predict(clinic) == pytest.approx(0.5, abs=1e-3)
            assert clinic.last_run.from_stock, f"after {killed}"
    # The dealer, started again, knows whose stock it is; a party that was down then learns it.
    upload(cluster, 0.25)
    with Client(cluster, name="clinic") as clinic:
        assert predict(clinic) == pytest.approx(0.25, abs=1e-3)
        assert not clinic.last_run.from_stock
    give_up = time.monotonic() + PATIENCE
    while any(fresh(cluster, name, program) for name in NAMES):
        assert time.monotonic() < give_up
        time.sleep(0.1)


@pytest.mark.slow
def test_stock_of_a_model_that_went_while_a_party_was_down(cluster):
    """What the dealer could not tell it then, it tells it when it is back."""
    upload(cluster, 0.5)
    with Client(cluster, name="clinic") as clinic:
        result = clinic.model("m")(clinic.share(IMAGE, low=-1, high=1, name="images"))
        program = clinic.stock(result, 2).program
    # It dies when it has the new version, and has not heard yet that the former one's stock goes.
    Crash("commit", "before").write(cluster.folder, "party0")
    with pytest.raises(TesseraError):
        upload(cluster, 0.25)
    cluster.processes["party0"].wait(PATIENCE)
    time.sleep(0.5)
    start(cluster, "party0")
    assert predicted(cluster) == 0.25
    give_up = time.monotonic() + PATIENCE
    while any(fresh(cluster, name, program) for name in NAMES):
        assert time.monotonic() < give_up
        time.sleep(0.1)


def fresh(cluster: LocalCluster, name: str, program: str) -> int:
    """Items of a program in stock, read from a copy."""
    from parties.members.keys import KeyPair
    from parties.stock.dealer_stock import DealerStock
    from parties.stock.ledger import PartyLedger

    copy = cluster.folder / "copy" / name
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(cluster.data_path(name), copy)
    keys, bond = KeyPair.load(cluster.key_path(name)), cluster.cluster.bond
    ledger = DealerStock(copy, keys, bond) if name == "dealer" else PartyLedger(copy, keys, name, bond)
    with ledger:
        return ledger.stock().get(program, 0)


BOTH = ("before", "after")
AT_A_PARTY = [Crash(what, when) for what in ("prepare", "VersionPrepared", "commit", "VersionReady") for when in BOTH]
AT_THE_DEALER = [
    *(Crash("UploadSeed", when, count) for count in (1, 2, 3) for when in BOTH),
    *(Crash("commit", when) for when in BOTH),
    *(Crash("VersionCommit", when, count) for count in (1, 2) for when in BOTH),
]
STAGES = [
    *((party, crash) for party in NAMES[1:] for crash in AT_A_PARTY),
    *(("dealer", crash) for crash in AT_THE_DEALER),
]


def crash_in_an_upload(cluster: Observed, member: str, where: Any, scale: float) -> float:
    """The member dies there and is started again: the former version or the new one, everywhere."""
    former = predicted(cluster)
    where.write(cluster.folder, member)
    complete = True
    try:
        upload(cluster, scale)
    except TesseraError:
        complete = False
    cluster.processes[member].wait(PATIENCE)
    assert cluster.processes[member].returncode == -9, f"it did not come to {where}"
    start(cluster, member)
    found = predicted(cluster)
    assert found == scale or (found == former and not complete)
    settled(cluster)
    return found


# Where it is certain what has been decided.
CERTAIN = [
    *((party, Crash("prepare", "before"), False) for party in NAMES[1:]),
    *((party, Crash("commit", when), True) for party in NAMES[1:] for when in BOTH),
    ("dealer", Crash("UploadSeed", "before"), False),
    ("dealer", Crash("commit", "before"), False),
    ("dealer", Crash("commit", "after"), True),
    ("dealer", Crash("VersionCommit", "before"), True),
    ("dealer", Crash("VersionCommit", "before", 2), True),
]
FEW = [("party1", "prepare", "before"), ("party0", "commit", "before"), ("dealer", "commit", "after")]


def crash_at(cluster: Observed, stages: list[tuple[str, Any]]) -> None:
    """Before the dealer's decision the former version stays; afterwards it is the new one."""
    upload(cluster, 0.5)
    expected = {(member, where): new for member, where, new in CERTAIN}
    scale = 0.5
    for member, where in stages:
        former, tried = scale, 0.75 if scale == 0.5 else 0.5
        scale = crash_in_an_upload(cluster, member, where, tried)
        if (member, where) in expected:
            assert scale == (tried if expected[member, where] else former), f"at {where} of {member}"


@pytest.mark.slow
def test_killed_at_some_stages_of_an_upload(cluster):
    crash_at(cluster, [stage for stage in STAGES if (stage[0], stage[1].what, stage[1].when) in FEW])


@pytest.mark.slow
def test_killed_at_every_stage_of_an_upload(cluster):
    assert {(member, where) for member, where, _ in CERTAIN} <= set(STAGES)
    crash_at(cluster, STAGES)


def test_a_first_upload_that_fails_leaves_nothing(cluster):
    Crash("prepare", "after").write(cluster.folder, "party1")
    with pytest.raises(TesseraError):
        upload(cluster, 0.5, "first")
    cluster.processes["party1"].wait(PATIENCE)
    start(cluster, "party1")
    settled(cluster)
    with Client(cluster, name="clinic") as clinic, pytest.raises(NotPermitted, match="nothing called 'first'"):
        clinic.model("first")
    upload(cluster, 0.25, "first")
    assert predicted(cluster, "first") == 0.25


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 8))])
def test_killed_at_random_moments_of_uploads(cluster, seed):
    """A client goes on uploading; servers die whenever they do."""
    chance = random.Random(seed)
    upload(cluster, 0.5)
    for _ in range(4):
        started = threading.Event()
        tried = chance.choice([0.25, 0.75])
        former = predicted(cluster)

        def go(scale: float = tried, started: threading.Event = started) -> None:
            with Client(cluster, name="company") as company:
                started.set()
                company.upload(model(scale), "m")

        failures: list[TesseraError] = []

        def attempt(go: Any = go, failures: list[TesseraError] = failures) -> None:
            try:
                go()
            except TesseraError as error:
                failures.append(error)

        thread = threading.Thread(target=attempt)
        thread.start()
        assert started.wait(60)
        time.sleep(chance.uniform(0, 0.03))
        victims = chance.sample(NAMES, chance.choice([1, 1, 2, 3]))
        kill(cluster, *victims)
        start(cluster, *victims)
        thread.join(60)
        assert not thread.is_alive()
        found = predicted(cluster)
        assert found == tried or (found == former and failures)
        settled(cluster)


# -- removing --------------------------------------------------------------------------------------------------------


def command(cluster: LocalCluster, *arguments: str, key: str = "company") -> int:
    return main([*arguments, "--cluster", str(cluster.path), "--key", str(cluster.key_path(key))])


def test_tessera_models_and_rm(cluster, capsys):
    upload(cluster, 0.5, "derm")
    assert command(cluster, "models", "--json", key="clinic") == 0
    listed = {entry["name"]: entry for entry in json.loads(capsys.readouterr().out)["models"]}
    entry = listed["derm"]
    assert (entry["owner"], entry["parameters"], entry["complete"]) == ("company", 8, True)
    assert sorted(entry["shapes"].values()) == [[2], [3, 2]] or sorted(entry["shapes"].values()) == [[2], [2, 3]]
    assert entry["held_by"] == ["party0", "party1"]
    assert entry["stored_bytes"] > 64
    assert command(cluster, "models", key="clinic") == 0
    assert "derm" in capsys.readouterr().out
    assert command(cluster, "rm", "derm", key="clinic") == NoSuchName.exit_code
    assert "nobody has anything of yours called 'derm'" in capsys.readouterr().err
    assert command(cluster, "rm", "derm") == 0
    assert "derm is removed" in capsys.readouterr().out
    assert command(cluster, "rm", "derm", "--json") == NoSuchName.exit_code
    assert "nobody has anything of yours called 'derm'" in capsys.readouterr().err
    settled(cluster)
    with Client(cluster, name="clinic") as clinic:
        assert "derm" not in {entry.name for entry in clinic.models()}
        clinic.upload(model(0.5), "derm")
        clinic.remove("derm")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("member", "where"),
    [("dealer", Crash("remove", "before")), ("dealer", Crash("remove", "after")), ("party1", Crash("drop", "before"))],
    ids=str,
)
def test_killed_while_removing(cluster, member, where):
    """Gone from where the dealer says so; and removing again finishes the job."""
    upload(cluster, 0.5, "derm")
    where.write(cluster.folder, member)
    with Client(cluster, name="company") as company, pytest.raises(TesseraError):
        company.remove("derm")
    cluster.processes[member].wait(PATIENCE)
    start(cluster, member)
    with Client(cluster, name="company") as company:
        if where == Crash("remove", "before"):
            assert predict(company, "derm") == pytest.approx(0.5, abs=1e-3)
            company.remove("derm")
        # What the dealer says is gone, the parties drop by themselves.
        give_up = time.monotonic() + PATIENCE
        while "derm" in {entry.name for entry in company.models()}:
            assert time.monotonic() < give_up
            time.sleep(0.1)
    settled(cluster)


# -- old copies ------------------------------------------------------------------------------------------------------


def stop(cluster: LocalCluster, *names: str) -> None:
    for name in names:
        cluster.processes[name].terminate()
        cluster.processes[name].wait(60)


@pytest.mark.slow
@pytest.mark.parametrize("member", ["party0", "dealer"])
def test_an_old_copy_of_a_folder(cluster, member):
    """Versions never mix: runs end with a typed error until the owner uploads again."""
    upload(cluster, 0.5)
    stop(cluster, member)
    old = cluster.folder / f"{member}.old"
    shutil.copytree(cluster.data_path(member), old)
    start(cluster, member)
    upload(cluster, 0.25)
    with Client(cluster, name="clinic") as clinic:
        remote = clinic.model("m")
        assert predict(clinic) == pytest.approx(0.25, abs=1e-3)
        stop(cluster, member)
        shutil.rmtree(cluster.data_path(member))
        old.rename(cluster.data_path(member))
        start(cluster, member)
        image = remote(clinic.share(IMAGE, low=-1, high=1))
        with pytest.raises(ProgramError, match="upload it again"):
            try:
                clinic.reveal(image)
            except PeerLost:
                # A busy machine: others heard only then that it had been started again.
                clinic.reveal(image)
    if member == "party0":
        # The coordinator may have had it dropped by now.
        sentence = r"different versions|party0 has no 'm' for us"
        with Client(cluster, name="clinic") as clinic, pytest.raises(UsageError, match=sentence):
            clinic.model("m")
    upload(cluster, 0.75)
    assert predicted(cluster) == 0.75
    settled(cluster)


@pytest.mark.slow
def test_a_damaged_file_is_named_and_other_models_go_on(cluster):
    upload(cluster, 0.5)
    upload(cluster, 0.25, "other")
    with Client(cluster, name="clinic") as clinic:
        (version,) = (entry.version for entry in clinic.models() if entry.name == "m")
    kill(cluster, "party1")
    path = cluster.data_path("party1") / "models" / f"{version}.shares"
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    start(cluster, "party1")
    with Client(cluster, name="clinic") as clinic:
        assert predict(clinic, "other") == pytest.approx(0.25, abs=1e-3)
        with pytest.raises(TesseraError, match=rf"party1.*{version}\.shares is damaged.*upload it again"):
            predict(clinic)
        assert predict(clinic, "other") == pytest.approx(0.25, abs=1e-3)
    upload(cluster, 0.75)
    assert predicted(cluster) == 0.75
