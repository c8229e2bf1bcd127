"""``tessera upload``: the shipped model, or other weights for it, from the command line; nothing half done."""

from __future__ import annotations

import json
import time
import tomllib
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file

from mpc.errors import ConfigurationError, EncodingError, NoSuchName, ShapeError
from nn import ArrayInput, Classes, Flatten, ImageInput, Interface, Label, Linear, Model, Sequential
from nn.derm import load_image, samples
from nn.derm.dataset import CLASSES
from nn.derm.lesion.model import lesion_model, shown
from nn.derm.lesion.photographs import INPUT
from nn.derm.model import NOTICE, derm_model
from nn.derm.reference import load_weights
from parties import Client, LocalCluster, Settings
from parties.commands import chosen
from parties.commands.command_line import main

PYPROJECT = Path(__file__).parents[2] / "pyproject.toml"


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    with LocalCluster(2, clients=("company", "clinic"), settings=Settings(threads=1)) as running:
        yield running


@pytest.fixture(autouse=True)
def _declared(monkeypatch: pytest.MonkeyPatch) -> None:
    """The models that this checkout declares, whatever was installed when."""
    declared = tomllib.loads(PYPROJECT.read_text())["project"]["entry-points"]["tessera.models"]
    found = [EntryPoint(name, value, chosen.GROUP) for name, value in declared.items()]
    monkeypatch.setattr(chosen, "entry_points", lambda group: found if group == chosen.GROUP else [])


def tessera(cluster: LocalCluster, client: str, *arguments: object) -> int:
    rest = ["--cluster", cluster.path, "--key", cluster.key_path(client)]
    return main([str(word) for word in (*arguments, *rest)])


def predicted(cluster: LocalCluster, name: str, client: str = "company") -> np.ndarray:
    with Client(cluster, cluster.client_key(client)) as connected:
        return connected.predict(connected.model(name), load_image(samples()[0].path)[None])


def test_the_model_that_ships(cluster: LocalCluster, capsys: pytest.CaptureFixture[str]) -> None:
    assert tessera(cluster, "company", "upload", "derm", "--name", "shipped", "--json") == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["name"], said["owner"], said["uploaded"]) == ("shipped", "company", True)
    wanted = derm_model().plain(load_image(samples()[0].path)[None])
    assert np.abs(predicted(cluster, "shipped") - wanted).max() < 0.01
    with Client(cluster, cluster.client_key("company")) as client:
        assert client.model("shipped").version == said["version"]


@pytest.mark.slow
def test_the_lesion_network_predicts_a_photograph(
    cluster: LocalCluster, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert tessera(cluster, "company", "upload", "lesion") == 0
    capsys.readouterr()
    sample = shown()[2]
    larger = tmp_path / "photograph.png"
    with Image.open(sample.path) as picture:
        picture.resize((640, 480)).save(larger)
    assert tessera(cluster, "company", "predict", sample.path, larger, "--model", "lesion", "--json") == 0
    said = json.loads(capsys.readouterr().out)
    wanted = CLASSES.probabilities(lesion_model().plain(INPUT.load(sample.path)[None]))[0]
    assert np.abs(np.array(said["predictions"][0]["probabilities"]) - wanted).max() < 0.01
    assert said["notice"] == NOTICE
    assert len(said["predictions"][1]["probabilities"]) == 7


def test_a_photograph_in_four_quarter_turns(cluster: LocalCluster, capsys: pytest.CaptureFixture[str]) -> None:
    assert tessera(cluster, "company", "upload", "derm", "--name", "turned") == 0
    capsys.readouterr()
    few = samples()[2:4]
    asked = ("predict", *(sample.path for sample in few), "--model", "turned", "--json")
    said = []
    for words in ((), ("--turned",)):
        assert tessera(cluster, "company", *asked, *words) == 0
        said.append(json.loads(capsys.readouterr().out))
    for one, other, sample in zip(*(each["predictions"] for each in said), few, strict=True):
        turns = np.stack([np.rot90(load_image(sample.path), k, (1, 2)) for k in range(4)])
        wanted = CLASSES.probabilities(derm_model().plain(turns).mean(0, keepdims=True))[0]
        assert np.abs(np.array(other["probabilities"]) - wanted).max() < 0.01
        assert np.abs(np.array(one["probabilities"]) - wanted).max() > 0.01
        assert other["input"] == str(sample.path)
    assert said[1]["run"]["online"]["bytes_per_party"] > 3 * said[0]["run"]["online"]["bytes_per_party"]


def test_what_has_no_turns_is_not_turned(
    cluster: LocalCluster, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    net = Sequential({"flat": Flatten(), "out": Linear(8, 2)})
    weights = {"out.weight": np.ones((2, 8)), "out.bias": np.zeros(2)}
    for says in (ImageInput(height=2, width=4, channels="L"), ArrayInput((2, 4), -1.0, 1.0)):
        Model(net, weights, Interface(says)).save(tmp_path / "wide.safetensors")
        assert tessera(cluster, "company", "upload", tmp_path / "wide.safetensors", "--name", "wide") == 0
        np.save(tmp_path / "x.npy", np.zeros(says.shape))
        assert tessera(cluster, "company", "predict", tmp_path / "x.npy", "--model", "wide", "--turned") == 2
        assert "--turned is for models of photographs as high as wide" in capsys.readouterr().err


def test_weights_of_ones_own(cluster: LocalCluster, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights = {name: array * np.float32(0.8) for name, array in load_weights().items()}
    less = tmp_path / "less.safetensors"
    save_file(weights, less)
    assert tessera(cluster, "company", "upload", "derm", "--name", "less", "--weights", less) == 0
    assert "less is stored" in capsys.readouterr().out
    wanted = derm_model(less).plain(load_image(samples()[0].path)[None])
    assert np.abs(predicted(cluster, "less") - wanted).max() < 0.01
    assert np.abs(wanted - derm_model().plain(load_image(samples()[0].path)[None])).max() > 0.1


def test_only_if_it_is_missing(cluster: LocalCluster, capsys: pytest.CaptureFixture[str]) -> None:
    def upload(client: str) -> dict[str, object]:
        assert tessera(cluster, client, "upload", "derm", "--name", "once", "--if-missing", "--json") == 0
        said: dict[str, object] = json.loads(capsys.readouterr().out)
        return said

    first, second = upload("company"), upload("company")
    assert first["uploaded"] is True
    assert first["resumed_bytes"] == 0
    assert first["bytes"] == 8 * sum(array.size for array in derm_model().encode().values())
    assert second == {**first, "uploaded": False, "bytes": 0}
    # Somebody else's, once we may use it; and our own before it.
    assert tessera(cluster, "company", "allow", "once", "clinic") == 0
    capsys.readouterr()
    assert upload("clinic") == {**second, "allowed": [{"client": "clinic", "program": "predict", "given": 1}]}
    assert tessera(cluster, "clinic", "upload", "derm", "--name", "once") == 0
    capsys.readouterr()
    third = upload("clinic")
    assert (third["owner"], third["uploaded"], third["allowed"]) == ("clinic", False, [])


def test_rules_are_shown_as_they_are(cluster: LocalCluster, capsys: pytest.CaptureFixture[str]) -> None:
    """Also after an upload, by whichever command; in words and as JSON."""

    def said(*arguments: object) -> str:
        assert tessera(cluster, "company", *arguments) == 0
        return capsys.readouterr().out

    assert "nobody but company may use it until `tessera allow` says so" in said("upload", "derm", "--name", "shown")
    often = ("--runs", 30, "--per-day", 20, "--per-client", 10)
    sentence = "predict, 30 runs in all, 20 runs a day, 10 runs for each client"
    assert f"every client may run on shown: {sentence}" in said("allow", "shown", "*", *often)
    assert "clinic may run on shown: any" in said("allow", "shown", "clinic", "--program", "any")
    rules = [
        {"client": "*", "program": "predict", "given": 1, "runs": 30, "per_day": 20, "per_client": 10},
        {"client": "clinic", "program": "any", "given": 2},
    ]
    again = said("upload", "derm", "--name", "shown")
    assert f"may use it: every client ({sentence}); clinic (any)" in again
    assert "nobody but" not in again
    assert json.loads(said("upload", "derm", "--name", "shown", "--json"))["allowed"] == rules
    assert json.loads(said("upload", "derm", "--name", "shown", "--if-missing", "--json"))["allowed"] == rules
    (entry,) = (e for e in json.loads(said("models", "--json"))["models"] if e["name"] == "shown")
    assert entry["rules"] == rules
    table = said("models")
    (row,) = (row for row in table.splitlines() if row.startswith("shown"))
    assert row.endswith(f"every client ({sentence}); clinic (any)")
    assert json.loads(said("allow", "shown", "*", "--runs", 5, "--json"))["runs"] == 5
    assert "every client may run on shown: nothing" in said("allow", "shown", "*", "--nothing")
    assert tessera(cluster, "company", "allow", "shown", "*", "--nothing", "--runs", 3) == 2
    assert tessera(cluster, "company", "allow", "shown", "*", "--runs", 0) == 2


@pytest.mark.parametrize("content", [None, b"", b"rubbish", "other"])
def test_a_file_that_is_no_such_model_is_refused_before_anything_is_sent(
    cluster: LocalCluster, tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes | str | None
) -> None:
    path = tmp_path / "weights.safetensors"
    if content == "other":
        save_file({"conv1.weight": np.zeros((2, 2), np.float32)}, path)
    elif isinstance(content, bytes):
        path.write_bytes(content)
    assert tessera(cluster, "company", "upload", "derm", "--name", "bad", "--weights", path) == 3
    assert "weights.safetensors" in capsys.readouterr().err
    with Client(cluster, cluster.client_key("company")) as client:
        assert "bad" not in {entry.name for entry in client.models()}


def test_a_name_that_is_none(cluster: LocalCluster, capsys: pytest.CaptureFixture[str]) -> None:
    assert tessera(cluster, "company", "upload", "derm", "--name", "../derm") == 2
    assert "name" in capsys.readouterr().err


# -- which model ---------------------------------------------------------------------------------------------------


def test_models_of_installed_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    assert chosen.installed_model("derm", None).describe() == derm_model().describe()
    with pytest.raises(NoSuchName, match="no installed package brings a model 'other': there are derm"):
        chosen.installed_model("other", None)
    broken = EntryPoint("broken", "no.such.package:model", chosen.GROUP)
    monkeypatch.setattr(chosen, "entry_points", lambda group: [broken, EntryPoint("b", "x:y", group)])
    with pytest.raises(ConfigurationError, match="'broken' cannot be loaded"):
        chosen.installed_model("broken", None)
    with pytest.raises(NoSuchName, match="there are b, broken"):
        chosen.installed_model("derm", None)


# -- predictions of any model --------------------------------------------------------------------------------------


def toy(interface: Interface) -> Model:
    """(N, 1, 2, 2) to (N, 2): the sum of all, and its negative."""
    net = Sequential({"flat": Flatten(), "out": Linear(4, 2)}).architecture((1, 2, 2))
    return Model(net, {"out.weight": np.array([[1.0] * 4, [-1.0] * 4]), "out.bias": np.zeros(2)}, interface)


GREY = ImageInput(2, 2, channels="L", mean=(0.0,), std=(1.0,))
YES_OR_NO = Classes((Label("bright"), Label("dark")))


@pytest.fixture
def white(tmp_path: Path) -> Path:
    Image.new("RGB", (5, 9), "white").save(tmp_path / "white.png")
    return tmp_path / "white.png"


def uploaded(cluster: LocalCluster, model: Model) -> None:
    with Client(cluster, cluster.client_key("company")) as client:
        client.upload(model, "toy")


def test_any_model_that_says_what_it_takes_and_gives(
    cluster: LocalCluster, white: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    uploaded(cluster, toy(Interface(GREY, YES_OR_NO, "A toy.")))
    assert tessera(cluster, "company", "predict", white, white, "--model", "toy") == 0
    said = capsys.readouterr()
    assert said.out == f"{white}: bright (100%)\n" * 2
    assert said.err.endswith("A toy.\n")
    assert tessera(cluster, "company", "predict", white, "--model", "toy", "--json") == 0
    (found,) = json.loads(capsys.readouterr().out)["predictions"]
    assert found["class"] == "bright"
    assert found["probabilities"] == pytest.approx([1 / (1 + np.exp(-8)), 1 / (1 + np.exp(8))], abs=1e-4)


def test_a_model_that_does_not_say_what_its_results_are(
    cluster: LocalCluster, white: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    uploaded(cluster, toy(Interface(GREY)))
    assert tessera(cluster, "company", "predict", white, "--model", "toy", "--json") == 0
    (found,) = json.loads(capsys.readouterr().out)["predictions"]
    assert found.pop("values") == pytest.approx([4, -4], abs=1e-3)
    assert found == {"input": str(white), "row": 0, "warnings": found["warnings"]}
    assert tessera(cluster, "company", "predict", white, "--model", "toy") == 0
    assert capsys.readouterr().out.startswith(f"{white}: [")


@pytest.mark.parametrize(
    ("interface", "code", "complaint"),
    [
        (Interface(), 2, "does not say how a photograph becomes its input: give it an array (.npy)"),
        (Interface(ArrayInput((1, 2, 2), 0, 1)), 2, "takes arrays, not photographs"),
        (Interface(GREY, Classes((Label("only"),))), ShapeError.exit_code, "not 1 classes per input"),
    ],
)
def test_a_model_that_photographs_are_not_for(
    cluster: LocalCluster,
    white: Path,
    capsys: pytest.CaptureFixture[str],
    interface: Interface,
    code: int,
    complaint: str,
) -> None:
    uploaded(cluster, toy(interface))
    assert tessera(cluster, "company", "predict", white, "--model", "toy") == code
    assert complaint in capsys.readouterr().err


def test_which_model_is_meant(cluster: LocalCluster, white: Path, capsys: pytest.CaptureFixture[str]) -> None:
    uploaded(cluster, toy(Interface(GREY, YES_OR_NO)))
    with Client(cluster, cluster.client_key("company")) as client:
        client.upload(toy(Interface(GREY, YES_OR_NO)), "second")
        names = ", ".join(sorted(entry.slot for entry in client.models()))
    assert tessera(cluster, "company", "predict", white) == 2
    assert f"say which model with --model: there are {names}" in capsys.readouterr().err


def test_the_described_range_is_shared_with(cluster: LocalCluster) -> None:
    uploaded(cluster, toy(Interface(ArrayInput((1, 2, 2), 0.0, 8.0))))
    with Client(cluster, cluster.client_key("company")) as client:
        values = client.predict(client.model("toy"), np.full((1, 1, 2, 2), 7.0))
        assert values[0] == pytest.approx([28, -28], abs=1e-2)
        with pytest.raises(EncodingError):
            client.predict(client.model("toy"), np.full((1, 1, 2, 2), -1.0))


def test_owners_ask_who_did_what_and_operators_look_themselves(
    cluster: LocalCluster, capsys: pytest.CaptureFixture[str]
) -> None:
    assert tessera(cluster, "company", "upload", "derm", "--name", "watched", "--json") == 0
    capsys.readouterr()
    deadline = time.monotonic() + 30
    shown: set[str] = set()
    while shown != {"dealer", "party0", "party1"} and time.monotonic() < deadline:
        assert tessera(cluster, "company", "audit", "mine", "--since", "1h", "--json") == 0
        said = json.loads(capsys.readouterr().out)
        assert said["client"] == "company"
        shown = {entry["server"] for entry in said["entries"] if "company/watched is version" in entry["text"]}
    assert shown == {"dealer", "party0", "party1"}
    assert tessera(cluster, "clinic", "audit", "mine") == 0
    assert "watched" not in capsys.readouterr().out
    # Beside servers that run.
    logs = [str(cluster.data_path(name)) for name in ("dealer", "party0")]
    for command in (["verify", logs[0], "--with", logs[1]], ["compare", *logs]):
        assert main(["audit", *command, "--cluster", str(cluster.path)]) == 0
    assert main(["audit", "show", logs[0], "--secret", "watched"]) == 0
    assert "company/watched is version" in capsys.readouterr().out
