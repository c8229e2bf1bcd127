"""``tessera bench training``: each case is one that can be trained, and measured costs are those predicted."""

import json

import numpy as np
import pytest

from benchmarks.options import TRAINED
from benchmarks.peers import training as beside
from benchmarks.training import CASES
from mpc.errors import UsageError
from nn import SGD, CrossEntropyLoss
from nn.training import Recipe
from parties.client.remote_data import RemoteData
from parties.client.training import batches
from parties.commands.command_line import main
from parties.stored.data_set import DataDescription, DataSet


def test_an_unknown_case(capsys):
    assert tuple(CASES) == TRAINED
    assert main(["bench", "training", "other", "--json"]) == UsageError.exit_code
    assert "choose from softmax, sigmoid, mlp, cnn-sigmoid" in json.loads(capsys.readouterr().out)["message"]


def test_steps_by_another_system_take_that_system(tmp_path, capsys):
    assert (
        main(["bench", "training", "softmax", "--beside", "--folder", str(tmp_path), "--json"]) == UsageError.exit_code
    )
    assert "tessera bench peers --install crypten" in json.loads(capsys.readouterr().out)["message"]


@pytest.mark.parametrize("name", CASES)
def test_another_system_makes_the_same_network(name, monkeypatch, tmp_path):
    asked = []

    class Answers:
        def __init__(self, command, folder):
            pass

        def ask(self, request, limit):
            asked.append(request)
            return {"seconds": 2.0, "figures": {"online.rounds": 9, "online.bytes_per_party": 8}}

        def close(self):
            asked.append("closed")

    monkeypatch.setattr(beside, "Runner", Answers)
    x, y = np.zeros((2, 3)), np.zeros((2, 1))
    found = beside.steps(CASES[name].make(), x, y, 2, 1.0, tmp_path)
    assert found == {"system": "crypten", "seconds": 2.0, "rounds": 9, "bytes_per_party": 8}
    layers = asked[0]["case"]["layers"]
    assert layers[-1][0] == "linear" and layers[-1][-1] == CASES[name].classes
    assert len(layers) == len(CASES[name].make().layers)
    assert [request if isinstance(request, str) else request["do"] for request in asked[1:]] == ["run", "run", "closed"]


def test_a_step_leaves_the_fraction_bits_that_there_are():
    """Of weights, those of the rate and of what is remembered: then their masks follow from it, and none is opened."""
    case = CASES["softmax"]
    tensors = DataSet({"x": [[0.0] * 1280] * 96, "y": [[0.0] * 7] * 96}, low=0, high=1, fraction_bits=8)
    data = [RemoteData("data", "owner", "0" * 32, DataDescription.decode(tensors.describe()))]
    recipe = Recipe(case.architecture, CrossEntropyLoss(), SGD(lr=2.0**-8, momentum=0.5), weights=1.0, logits=2.0)
    description = recipe.described(batches(data, (32,), 1)[0])
    assert {name: t.fraction_bits for name, t in description.stored_types.items()} == {
        "out.weight": 37, "out.bias": 29, "out.weight.momentum": 29, "out.bias.momentum": 21
    }  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("security", ["semi-honest", "malicious"])
def test_what_is_measured_is_what_is_predicted(security, capsys):
    words = ["bench", "training", "softmax", "--steps", "3", "--repeat", "2", "--json", "--security", security]
    assert main(words) == 0
    (found,) = json.loads(capsys.readouterr().out)["cases"]
    assert found["as_predicted"] and found["steps"] == 3
    assert all(min(of.values()) > 0 for of in found["memory"].values())
    weights = 1280 * 7 + 7
    # A velocity each step, and both that are kept; and of the loss less than a tenth of it.
    if security == "semi-honest":
        assert 8 * weights * 5 / 3 < found["step"]["bytes_per_party"] < 8.8 * weights * 5 / 3
