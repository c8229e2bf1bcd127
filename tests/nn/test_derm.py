"""The shipped dermatology network: weights, samples, card and metrics belong together."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from mpc.errors import ConfigurationError
from nn.derm import CLASS_CODES, CLASS_NAMES, load_weights, samples
from nn.derm.metrics import accuracy, balanced_accuracy, confusion_matrix, recall
from nn.derm.reference import ASSETS, SHAPES, WEIGHTS
from protocols.approximation import default_fit

METRICS = json.loads((ASSETS / "metrics.json").read_text(encoding="utf-8"))


def test_weights_have_the_network_s_shapes_and_modest_sizes() -> None:
    weights = load_weights()
    assert {name: array.shape for name, array in weights.items()} == SHAPES
    for name, array in weights.items():
        assert array.dtype == np.float32
        assert np.abs(array).max() <= 8.0 or name.endswith("bias"), name
    assert np.abs(weights["fc1.weight"]).sum(axis=1).max() <= 128.0


def test_weights_are_those_the_metrics_describe() -> None:
    assert hashlib.sha256(WEIGHTS.read_bytes()).hexdigest() == METRICS["weights_sha256"]


def test_scores_match_the_confusion_matrix() -> None:
    for split in ("test", "val"):
        confusion = np.array(METRICS[split]["confusion_matrix"])
        assert confusion.sum() == METRICS["images"][split]
        assert accuracy(confusion) == pytest.approx(METRICS[split]["accuracy"], abs=1e-6)
        assert balanced_accuracy(confusion) == pytest.approx(METRICS[split]["balanced_accuracy"], abs=1e-6)
    # What the same network with ReLU reached in a quick run.
    assert METRICS["test"]["accuracy"] >= 0.65
    assert METRICS["test"]["balanced_accuracy"] >= 0.44


def test_the_series_is_the_sigmoid_where_test_images_need_it() -> None:
    """A few pre-activations leave the fitted interval; the series is still near the sigmoid there."""
    series = default_fit("sigmoid")
    for low_seen, high_seen in METRICS["pre_activations"]["test"].values():
        x = np.linspace(low_seen, high_seen, 2001)
        assert np.abs(series(x) - 1 / (1 + np.exp(-x))).max() < 0.02
    assert METRICS["test_exact_sigmoid"]["agreement"] == METRICS["images"]["test"]
    assert METRICS["test_exact_sigmoid"]["max_logit_difference"] < 0.01


def test_card_and_licence_say_what_they_must() -> None:
    card = (ASSETS / "MODEL_CARD.md").read_text(encoding="utf-8")
    for words in ("not for diagnosis", "CC BY-NC 4.0", "Balanced accuracy".lower(), "Confusion matrix"):
        assert words in card
    assert f"{METRICS['test']['accuracy']:.4f}" in card
    licence = (ASSETS / "LICENSE-data.md").read_text(encoding="utf-8")
    for words in ("CC BY-NC 4.0", "10.1038/sdata.2018.161", "1902.03368", "Changes made", "re-identify"):
        assert words in licence


def test_samples_are_two_per_class() -> None:
    shipped = samples()
    assert len(CLASS_CODES) == len(CLASS_NAMES) == 7
    assert Counter(sample.label for sample in shipped) == dict.fromkeys(range(7), 2)
    assert len({sample.id for sample in shipped}) == 14
    assert {path.name for path in (ASSETS / "samples").glob("*.png")} == {f"{sample.id}.png" for sample in shipped}


@pytest.mark.parametrize("damage", ["missing", "garbage", "shape", "dtype", "nan", "extra"])
def test_damaged_weights_are_one_clear_error(tmp_path: Path, damage: str) -> None:
    path, weights = tmp_path / "w.safetensors", dict(load_weights())
    if damage == "shape":
        weights["fc1.bias"] = np.zeros(63, dtype=np.float32)
    elif damage == "dtype":
        weights["fc1.bias"] = np.zeros(64)  # type: ignore[assignment]
    elif damage == "nan":
        weights["fc1.bias"] = np.full(64, np.nan, dtype=np.float32)
    elif damage == "extra":
        weights["fc3.bias"] = np.zeros(1, dtype=np.float32)
    if damage == "garbage":
        path.write_bytes(b"garbage")
    elif damage != "missing":
        save_file(weights, path)
    with pytest.raises(ConfigurationError, match=r"w\.safetensors"):
        load_weights(path)


def test_metrics_by_hand() -> None:
    confusion = confusion_matrix(np.array([0, 0, 0, 1]), np.array([0, 0, 1, 1]), 3)
    assert confusion.tolist() == [[2, 1, 0], [0, 1, 0], [0, 0, 0]]
    assert accuracy(confusion) == 0.75
    assert recall(confusion).tolist() == pytest.approx([2 / 3, 1.0, 0.0])
    assert balanced_accuracy(confusion) == pytest.approx(5 / 6)


def test_the_package_does_not_import_torch() -> None:
    code = "import sys, nn.derm; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
