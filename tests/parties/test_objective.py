"""``--objective``: what predict, deal and clinic plan for, and by which links where nothing is said."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import pytest

from mpc.cost import Link, Wanted, objective_of
from mpc.errors import UsageError
from mpc.objective import STEPS, Objective
from mpc.security import Security
from nn import Linear, Model, ReLU, Sequential
from nn.interface import ArrayInput, Interface
from parties import Client, LocalCluster, Settings
from parties.client.writing import Kept
from parties.commands.command_line import main, whole_parser
from parties.commands.objective import CITIES, HERE, LINKS, chosen_objective
from parties.members.cluster import Cluster
from parties.members.keys import KeyPair

MEASURED = {
    "cluster": "lesions",
    "client": "clinic",
    "servers": [{"name": "dealer", "role": "dealer"}, *({"name": f"party{i}", "role": "party"} for i in range(2))],
    "links": [
        {"from": a, "to": b, "round_trip_seconds": trip, "bytes_per_second": rate}
        for a, b, trip, rate in (
            ("party0", "party1", 0.08, 50e6), ("dealer", "party1", 0.02, 10e6), ("clinic", "party0", 0.5, 1e6)
        )
    ],
}  # fmt: skip
OF_THESE = Link(0.08, 80e6)


def cluster_of(host: str) -> Cluster:
    keys = [KeyPair.generate().public for _ in range(3)]
    parties = [(f"party{i}", f"{host}:{9000 + i}", keys[i]) for i in range(2)]
    return Cluster.build("lesions", dealer=(f"{host}:8999", keys[2]), parties=parties)


def asked(folder: Path, *words: str) -> argparse.Namespace:
    return whole_parser().parse_args([*words, "--cluster", str(folder / "cluster.toml")])


@pytest.mark.parametrize("command", ["predict x.npy", "deal --count 1", "clinic"])
@pytest.mark.parametrize(
    ("host", "measured", "said", "wanted"),
    [
        ("127.0.0.1", False, None, HERE),
        ("[::1]", False, None, HERE),
        ("paris.example", False, None, CITIES),
        ("paris.example", True, None, OF_THESE),
        ("127.0.0.1", True, "latency", "latency"),
        ("127.0.0.1", True, "traffic", "traffic"),
        ("127.0.0.1", True, LINKS, OF_THESE),
    ],
)
def test_what_is_planned_for(
    tmp_path: Path, command: str, host: str, measured: bool, said: str | None, wanted: Wanted
) -> None:
    if measured:
        (tmp_path / LINKS).write_text(json.dumps(MEASURED))
    words = () if said is None else ("--objective", str(tmp_path / said) if said == LINKS else said)
    assert chosen_objective(asked(tmp_path, *command.split(), *words), cluster_of(host)) == wanted


def test_commands_without_a_choice(tmp_path: Path) -> None:
    assert chosen_objective(asked(tmp_path, "models"), cluster_of("paris.example")) == "latency"


@pytest.mark.parametrize("given", [True, False])
def test_what_is_no_report_of_links(tmp_path: Path, given: bool) -> None:
    (tmp_path / LINKS).write_text("{}")
    words = ("--objective", str(tmp_path / LINKS)) if given else ()
    with pytest.raises(UsageError, match="is not what tessera check --json prints"):
        chosen_objective(asked(tmp_path, "predict", "x.npy", *words), cluster_of("127.0.0.1"))


@pytest.mark.slow
def test_what_is_dealt_ahead_is_used_by_who_plans_alike(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A layer of 4,000 ReLUs: fewer bytes and a round more where bytes count."""
    generator = np.random.default_rng(1)
    architecture = Sequential({"wide": Linear(4, 4000), "act": ReLU(), "out": Linear(4000, 2)}).architecture((4,))
    weights = {n: generator.uniform(-0.02, 0.02, shape) for n, shape in architecture.parameters.items()}
    model = Model(architecture, weights, Interface(ArrayInput((4,), -1.0, 1.0)))
    np.save(tmp_path / "x.npy", np.linspace(-1, 1, 4))
    with LocalCluster(2, settings=Settings(threads=1)) as cluster:
        with Client(cluster) as client:
            client.upload(model, "wide")

        def run(command: str, *words: str) -> dict[str, dict[str, dict[str, int]]]:
            place = ["--cluster", str(cluster.path), "--key", str(cluster.key_path(cluster.cluster.clients[0].name))]
            assert main([*command.split(), *words, *place, "--json"]) == 0
            found: dict[str, dict[str, dict[str, int]]] = json.loads(capsys.readouterr().out)
            return found

        file = str(tmp_path / "x.npy")
        fast, narrow, here = (
            run("predict", file, *words)["run"]
            for words in (("--objective", "latency"), ("--objective", "traffic"), ())
        )
        assert narrow["offline"]["bytes"] < fast["offline"]["bytes"] / 3
        assert narrow["online"]["rounds"] == fast["online"]["rounds"] + 1
        assert here["offline"]["bytes"] == narrow["offline"]["bytes"]
        run("deal --count 1", "--objective", "latency")
        assert run("predict", file)["run"]["offline"]["from_stock"] is False
        assert run("predict", file, "--objective", "latency")["run"]["offline"]["from_stock"] is True


@pytest.mark.parametrize("security", Security)
def test_a_round_of_a_step_of_training_is_worth_less_unless_links_are_named(security: Security) -> None:
    step, once = Kept({}, steps=True), Kept({})
    fewest, named = (objective_of(wanted, security) for wanted in ("latency", OF_THESE))
    assert step.objective(fewest) == Objective(STEPS, security) != fewest
    assert [once.objective(fewest), step.objective(named)] == [fewest, named]
    assert step.objective(objective_of("traffic", security)).round_bytes == 0
