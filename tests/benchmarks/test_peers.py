"""``tessera bench peers``: taking turns, limits, what is left behind, hand-over of inputs, installation."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from benchmarks import records
from benchmarks.peers import catalogue, comparison, installing, table
from benchmarks.peers.cases import CASES, Case
from benchmarks.peers.catalogue import RUNNERS, SYSTEMS, System
from benchmarks.peers.comparison import Comparison, Limits, Outcome
from benchmarks.peers.here import Here
from benchmarks.peers.runner import Failed, Lacks, OverLimit, Runner
from nn.derm.model import derm_model
from parties.commands.command_line import main

SMALL = Case("small", "multiply", "multiply 10", size=10, low=-8.0, high=8.0)
RELU = Case("few", "relu", "ReLU of 10", size=10, low=-8.0, high=8.0, held=True)
HELD = replace(SMALL, name="held", held=True)
LIMITS = Limits(repeat=3, limit=20.0, budget=10.0)

PEER = f"""
import sys, time
sys.path.insert(0, {str(RUNNERS)!r})
import serving

behaviour = sys.argv[1]

def handle(request):
    print("chatter on stdout")
    with open("requests", "a") as file:
        file.write(request["do"] + "\\n")
    if request["do"] == "open":
        if behaviour == "lacks":
            raise serving.Lacks("it has no such thing")
        if behaviour == "over":
            raise serving.OverLimit("a hundredth takes a minute")
        if behaviour == "raises":
            raise ValueError("it is broken")
        if behaviour == "dies":
            print("cannot go on", file=sys.stderr)
            sys.stderr.flush()
            import os
            os._exit(3)
        if behaviour == "hangs":
            time.sleep(600)
        import numpy
        with np.load(request["data"]) as arrays:
            error = float(abs(arrays["x"] * arrays["y"] - arrays["expected"]).max())
        figures = {{"online.bytes_per_party": 100, "online.rounds": 2, "max_abs_error": error}}
        return {{"figures": figures, "seconds": 5.0 if behaviour == "slow" else 0.5, "version": "1.0"}}
    return {{"seconds": 0.25, "offline_seconds": 0.125}}

import numpy as np
serving.serve(handle, serving.claim_stdout())
"""

PARTY = f"""
import os, sys, time
sys.path.insert(0, {str(RUNNERS)!r})
import serving

if sys.argv[1] == "runner":
    crew = serving.Crew(2, lambda rank: ["party"], lambda rank: {{"RANK": str(rank)}})
    def handle(request):
        return {{"answers": crew.ask(request)}}
else:
    def handle(request):
        if request["do"] == "die" and os.environ["RANK"] == "1":
            os._exit(9)
        if request["do"] in ("die", "hang"):
            time.sleep(600)
        return {{"rank": os.environ["RANK"], "pid": os.getpid()}}

serving.serve(handle, serving.claim_stdout())
"""


def system(name: str) -> System:
    return System(name, "fake", 2, "nothing", "everything")


@pytest.fixture
def start(tmp_path: Path) -> Callable[[System, Path], Runner]:
    """Makes runners of the fake peer; a system's name is its behaviour."""
    script = tmp_path / "peer.py"
    script.write_text(PEER)
    return lambda system, folder: Runner([sys.executable, script, system.name], folder)


@pytest.fixture
def crew(tmp_path: Path) -> Callable[[], Runner]:
    script = tmp_path / "crew.py"
    script.write_text(PARTY)
    return lambda: Runner([sys.executable, script, "runner"], tmp_path / "folder")


def compare(start: Callable[[System, Path], Runner], limits: Limits, *names: str) -> list[Outcome]:
    with Comparison(limits, Path("nowhere"), start) as made:
        return made.case(SMALL, [system(name) for name in names], lambda _: None)


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def gone(*pids: int) -> bool:
    deadline = time.monotonic() + 30
    while any(map(alive, pids)) and time.monotonic() < deadline:
        time.sleep(0.01)
    return not any(map(alive, pids))


def test_figures_of_a_peer(start: Callable[[System, Path], Runner]) -> None:
    (outcome,) = compare(start, LIMITS, "works")
    assert (outcome.status, outcome.version, outcome.cold) == ("measured", "1.0", False)
    assert outcome.figures == {
        "online.seconds": {"median": 0.25, "min": 0.25, "max": 0.25, "count": 3},
        "offline.seconds": {"median": 0.125, "min": 0.125, "max": 0.125, "count": 3},
        "online.bytes_per_party": 100,
        "online.rounds": 2,
        "max_abs_error": 0.0,
    }


def test_systems_take_turns_after_warm_up(start: Callable[[System, Path], Runner]) -> None:
    steps: list[str] = []
    with Comparison(LIMITS, Path("nowhere"), start) as made:
        made.case(SMALL, [system("one"), system("two")], steps.append)
        assert (made._folder / "one" / "requests").read_text().split() == ["open", *["run"] * 5]
    runs = [step.removeprefix("small: ") for step in steps if not step.endswith("prepares")]
    assert runs == ["one", "two"] * (comparison.WARM_UP + LIMITS.repeat)


def test_a_slow_system_runs_only_once(start: Callable[[System, Path], Runner]) -> None:
    (outcome,) = compare(start, Limits(3, 20.0, 1.0), "slow")
    assert outcome.cold
    assert outcome.figures["online.seconds"] == {"median": 5.0, "min": 5.0, "max": 5.0, "count": 1}
    (outcome,) = compare(start, Limits(10, 20.0, 0.5), "works")
    assert outcome.figures["online.seconds"] == {"median": 0.25, "min": 0.25, "max": 0.25, "count": 2}


def test_what_goes_wrong_is_told_and_the_others_go_on(start: Callable[[System, Path], Runner]) -> None:
    names = ("lacks", "over", "raises", "dies", "works")
    outcomes = compare(start, LIMITS, *names)
    told = {outcome.system.name: (outcome.status, outcome.reason) for outcome in outcomes}
    assert told["lacks"] == ("lacks", "it has no such thing")
    assert told["over"] == ("over the limit", "a hundredth takes a minute")
    assert told["raises"] == ("failed", "ValueError: it is broken")
    assert told["dies"] == ("failed", "its process ended with code 3: cannot go on")
    assert told["works"] == ("measured", "")
    assert all(not outcome.figures for outcome in outcomes[:-1])


def test_a_system_starts_anew_for_the_next_case(start: Callable[[System, Path], Runner]) -> None:
    with Comparison(LIMITS, Path("nowhere"), start) as made:
        for _ in range(2):
            dying, working = made.case(SMALL, [system("dies"), system("works")], lambda _: None)
            assert dying.reason == "its process ended with code 3: cannot go on"
            assert working.status == "measured"
            assert not made._workers


def test_beyond_the_limit_nothing_is_left(start: Callable[[System, Path], Runner], tmp_path: Path) -> None:
    runner = start(system("hangs"), tmp_path / "hangs")
    began = time.monotonic()
    with pytest.raises(OverLimit, match="over the limit of 1 s"):
        runner.ask({"do": "open"}, 1.0)
    runner.close()
    assert time.monotonic() - began < 30
    assert gone(runner.pid)
    runner.close()


def test_a_party_that_dies_is_named_and_the_others_end(crew: Callable[[], Runner]) -> None:
    runner = crew()
    answers = runner.ask({"do": "run"}, 20.0)["answers"]
    assert [answer["rank"] for answer in answers] == ["0", "1"]
    with pytest.raises(Failed, match="party 1 ended with code 9"):
        runner.ask({"do": "die"}, 20.0)
    runner.close()
    assert gone(runner.pid, *(answer["pid"] for answer in answers))


@pytest.mark.parametrize("request_", ["run", "hang"])
def test_parties_end_with_whoever_started_them(crew: Callable[[], Runner], request_: str, tmp_path: Path) -> None:
    runner = crew()
    answers = runner.ask({"do": "run"}, 20.0)["answers"]
    if request_ == "hang":
        with pytest.raises(OverLimit):
            runner.ask({"do": "hang"}, 0.2)
    stdin = runner._process.stdin
    assert stdin is not None
    stdin.close()  # as the kernel does when we are killed
    assert gone(*(answer["pid"] for answer in answers))
    runner._process.wait(30)
    runner.close()


@pytest.mark.slow
def test_a_killed_comparison_leaves_no_processes(tmp_path: Path) -> None:
    (tmp_path / "peer.py").write_text(PEER)
    program = f"""
import sys, time
from pathlib import Path
from benchmarks.peers.here import Here
from benchmarks.peers.runner import Runner
runner = Runner([sys.executable, {str(tmp_path / "peer.py")!r}, "hangs"], Path({str(tmp_path / "folder")!r}))
print(runner.pid, flush=True)
runner.ask({{"do": "open"}}, 600.0)
"""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as driver:
        assert driver.stdout is not None
        pid = int(driver.stdout.readline())
        assert alive(pid)
        driver.send_signal(signal.SIGKILL)
    assert gone(pid)


@pytest.mark.parametrize("answer", ["no JSON", "[1, 2]"])
def test_an_answer_that_is_none(tmp_path: Path, answer: str) -> None:
    runner = Runner([sys.executable, "-c", f"input(); print({answer!r}, flush=True); input()"], tmp_path / "folder")
    with pytest.raises(Failed, match="it answered something that is"):
        runner.ask({"do": "open"}, 20.0)
    runner.close()


def test_nothing_of_this_environment_reaches_a_peer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "/somewhere")
    program = "import json, os; input(); print(json.dumps({'path': os.environ.get('PYTHONPATH'), 'cwd': os.getcwd()}))"
    runner = Runner([sys.executable, "-c", program], tmp_path / "folder")
    assert runner.ask({"do": "open"}, 20.0) == {"path": None, "cwd": str(tmp_path / "folder")}
    runner.close()
    assert (tmp_path / "folder").stat().st_mode & 0o777 == 0o700


def test_the_network_is_handed_over_as_it_is(tmp_path: Path) -> None:
    case = CASES["cnn-28"]
    case.save(tmp_path / "case.npz")
    model = derm_model()
    with np.load(tmp_path / "case.npz") as arrays:
        assert set(arrays) == {*model.weights, "x", "expected"}
        for name, weights in model.weights.items():
            assert (arrays[name] == weights).all()
        assert arrays["x"].shape == (1, 3, 28, 28)
        assert np.abs(arrays["x"]).max() <= 1
        assert np.allclose(arrays["expected"], model.plain(arrays["x"], exact=True), atol=1e-12)


def test_the_rectified_network_is_the_same_but_for_its_activations() -> None:
    arrays = CASES["cnn-relu"].arrays()
    shipped = CASES["cnn-28"].arrays()
    assert all((arrays[name] == shipped[name]).all() for name in shipped if name != "expected")
    x = torch.from_numpy(arrays["x"])
    for layer in ("conv1", "conv2"):
        w, b = (torch.from_numpy(arrays[f"{layer}.{part}"]) for part in ("weight", "bias"))
        x = functional.avg_pool2d(functional.relu(functional.conv2d(x, w, b, padding=w.shape[-1] // 2)), 2)
    w, b, v, c = (
        torch.from_numpy(arrays[f"{layer}.{part}"]) for layer in ("fc1", "fc2") for part in ("weight", "bias")
    )
    assert np.allclose(
        arrays["expected"], functional.linear(functional.relu(functional.linear(x.flatten(1), w, b)), v, c), atol=1e-9
    )


def test_operands_are_what_fixed_point_holds() -> None:
    arrays = CASES["exp"].arrays()
    assert set(arrays) == {"x", "expected"}
    assert (arrays["x"] * 2**16 == np.round(arrays["x"] * 2**16)).all()
    assert -4 <= arrays["x"].min() < arrays["x"].max() <= 0
    arrays = CASES["matmul"].arrays()
    assert arrays["expected"].shape == (1024, 1024)
    assert CASES["cnn-28-batch-32"].arrays()["expected"].shape == (32, 7)
    pooled = CASES["max-pool"].arrays()
    assert pooled["expected"].shape == (1, 16, 14, 14)
    assert pooled["expected"][0, 3, 5, 7] == pooled["x"][0, 3, 10:12, 14:16].max()
    assert np.allclose(CASES["softmax"].arrays()["expected"].sum(axis=1), 1)
    assert (CASES["argmax"].arrays()["expected"] == CASES["softmax"].arrays()["expected"].argmax(axis=1)).all()
    assert (CASES["relu"].arrays()["expected"] >= 0).all()
    large = CASES["cnn-128"].arrays()
    assert large["x"].shape == (1, 3, 128, 128)
    assert large["fc1.weight"].shape == (64, 32 * 32 * 32)


def test_the_enlarged_network_stays_within_the_interval_of_its_activations() -> None:
    case = CASES["cnn-128"]
    arrays, model = case.arrays(), case.subject().model
    assert np.abs(model.plain(arrays["x"]) - arrays["expected"]).max() < 0.01


def test_requirements_are_pinned_and_packaged() -> None:
    files = sorted(installing.REQUIREMENTS.glob("*.txt"))
    assert {file.name.partition(".")[0] for file in files} == set(installing.PEERS)
    for file in files:
        lines = [line for line in file.read_text().splitlines() if line and not line.startswith("#")]
        for line in lines:
            assert re.fullmatch(r"[A-Za-z0-9_.-]+==[0-9][0-9a-z.]*", line), line


@pytest.mark.slow
def test_what_a_system_lacks_is_said_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = Case("other", "sine", "sine of 10", size=10)
    monkeypatch.setitem(CASES, other.name, other)
    monkeypatch.setattr(Case, "arrays", lambda _: {"x": np.zeros(10), "expected": np.zeros(10)})
    here = Here(SYSTEMS["tessera"], 20.0)
    try:
        with pytest.raises(Lacks, match="it has no sine"):
            here.ask({"do": "open", "case": other.to_dict()}, 20.0)
    finally:
        here.close()


def test_every_system_has_its_runner_and_says_what_it_is() -> None:
    for peer in SYSTEMS.values():
        assert peer.protects
        assert peer.online
        if peer.peer != "tessera":
            assert catalogue.script(peer).is_file()
            assert peer.peer in installing.PEERS


def test_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    commands: list[list[str]] = []

    def recorded(command: list[str], **options: Any) -> None:
        commands.append(command)
        if "spu.txt" in command[-1]:
            raise subprocess.CalledProcessError(1, command)
        if command[1:3] == ["-m", "venv"]:
            (Path(command[-1]) / "bin").mkdir(parents=True)
            (Path(command[-1]) / "bin" / "python").touch()

    monkeypatch.setattr(subprocess, "run", recorded)
    folder = tmp_path / "peers"
    assert main(["bench", "peers", "--install", "crypten", "spu", "--folder", str(folder)]) == 1
    assert installing.installed("crypten", folder)
    assert not installing.installed("spu", folder)
    assert "tessera: spu not installed" in capfd.readouterr().err
    alone = next(command for command in commands if command[-1].endswith("crypten.alone.txt"))
    assert "--no-deps" in alone
    assert main(["bench", "peers", "--install", "sharemind", "--folder", str(folder)]) == 2
    assert "the known ones are crypten" in capfd.readouterr().err


def outcome(name: str, case: Case, seconds: float, rounds: int) -> Outcome:
    made = Outcome(SYSTEMS[name], case, version="1")
    times = {"seconds": seconds, "offline_seconds": seconds, "evaluation_seconds": seconds}
    made.figures = {"online.bytes_per_party": 10 * rounds, "online.rounds": rounds, "max_abs_error": 0.5}
    made.count(times if name == "tessera" else {"seconds": seconds})
    made.close()
    return made


def test_table_and_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def measured(self: Comparison, case: Case, systems: list[System], step: Callable[[str], None]) -> list[Outcome]:
        lacking = Outcome(SYSTEMS["mpyc"], case)
        lacking.fail(Lacks("it has no sigmoid"))
        return [outcome("tessera", case, 0.01, 7), outcome("crypten", case, 0.2, 70), lacking]

    monkeypatch.setattr(Comparison, "case", measured)
    file = tmp_path / "peers.jsonl"
    assert main(["bench", "peers", "--cases", "cnn-28", "--json", "--out", str(file)]) == 0
    summary = json.loads(capsys.readouterr().out)
    tessera, crypten, mpyc = summary["results"]
    assert (tessera["system"], tessera["case"], tessera["status"]) == ("tessera", "cnn-28", "measured")
    assert crypten["to_tessera"] == pytest.approx(
        {"online.seconds": 20, "online.bytes_per_party": 10, "online.rounds": 10}
    )
    assert (mpyc["status"], mpyc["reason"], mpyc["figures"]) == ("lacks", "it has no sigmoid", {})
    kept = records.read(file)
    assert [record.case["system"] for record in kept] == ["tessera", "crypten", "mpyc"]
    assert kept[2].about["reason"] == "it has no sigmoid"
    assert kept[1].about["protects"] == SYSTEMS["crypten"].protects

    assert main(["bench", "peers", "--cases", "cnn-28", "--against", str(file)]) == 0
    printed = capsys.readouterr()
    assert "200 ms 20x" in printed.out
    assert "cnn-28, mpyc: it has no sigmoid" in printed.out
    assert "0 figures got worse" in printed.err


def test_a_peer_that_is_not_installed_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--systems", "mpyc", "--cases", "exp", "--folder", str(tmp_path), "--json"]
    assert main(["bench", "peers", *arguments]) == 0
    (result,) = json.loads(capsys.readouterr().out)["results"]
    assert result["status"] == "not installed"
    assert "tessera bench peers --install mpyc" in result["reason"]


@pytest.mark.parametrize("option", ["--cases", "--systems"])
def test_unknown_names(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "peers", option, "other"]) == 2
    assert "the known ones are" in capsys.readouterr().err


@pytest.mark.parametrize(
    "case",
    [*(pytest.param(c, marks=pytest.mark.slow) for c in (SMALL, HELD, RELU)), CASES["cnn-28"]],
    ids=lambda c: c.name,
)
def test_tessera_itself(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, case: Case) -> None:
    monkeypatch.setitem(CASES, case.name, case)
    with Comparison(Limits(2, 60.0, 10.0), tmp_path) as made:
        (measured,) = made.case(case, [SYSTEMS["tessera"]], lambda _: None)
    assert (measured.status, measured.reason) == ("measured", "")
    for figure in ("online.seconds", "offline.seconds", "evaluation.seconds"):
        spread = measured.figures[figure]
        assert isinstance(spread, dict)
        assert 0 < spread["median"] < 10
    if case is HELD:  # both operands are opened under their masks, then one element of the result
        assert measured.figures["online.rounds"] == 2
        assert measured.figures["online.bytes_per_party"] == 2 * 8 * case.size + 8
        assert measured.figures["online.client_bytes"] == 0
        assert table.value(measured.figures["max_abs_error"]) == 0
    elif case is RELU:
        assert measured.figures["online.client_bytes"] == 0
        assert table.value(measured.figures["max_abs_error"]) < 2**-16
    elif case is not SMALL:
        predicted = derm_model().cost((1, 3, 28, 28), 2)
        assert measured.figures["online.rounds"] == predicted.online_rounds
        assert measured.figures["online.bytes_per_party"] == predicted.online_bytes_per_party
        assert table.value(measured.figures["max_abs_error"]) < 0.01


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, peer in SYSTEMS.items() if peer.peer != "tessera"])
def test_a_real_peer(name: str) -> None:
    peer = SYSTEMS[name]
    if not installing.installed(peer.peer, installing.FOLDER):
        pytest.skip(f"{peer.peer} is not installed: tessera bench peers --install {peer.peer}")
    case = Case("few", "multiply", "multiply 1000", size=1000, low=-8.0, high=8.0)
    with Comparison(Limits(2, 120.0, 10.0), installing.FOLDER) as made:
        (outcome,) = made.case(case, [peer], lambda _: None)
    assert (outcome.status, outcome.reason) == ("measured", "")
    assert table.value(outcome.figures["max_abs_error"]) < 0.01
    assert table.value(outcome.figures["online.bytes_per_party"]) > 1000
