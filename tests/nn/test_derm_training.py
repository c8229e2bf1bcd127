"""Data files, the choice of samples and the training script, on small synthetic data."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mpc.errors import ConfigurationError
from nn.derm import CLASS_CODES, load_split, train
from nn.derm.choose_samples import main as choose_main


def write_data(path: Path, count: int = 4, **changes: np.ndarray) -> Path:
    arrays: dict[str, np.ndarray] = {}
    generator = np.random.default_rng(0)
    for split in ("train", "val", "test"):
        total = count * len(CLASS_CODES)
        arrays[f"{split}_images"] = generator.integers(0, 256, (total, 28, 28, 3), dtype=np.uint8)
        arrays[f"{split}_labels"] = np.repeat(np.arange(7, dtype=np.uint8), count)[:, None]
        arrays[f"{split}_ids"] = np.array([f"ISIC_{split}_{k:04d}" for k in range(total)])
    np.savez_compressed(path, **(arrays | changes))
    return path


def test_load_split_reads_what_was_written(tmp_path: Path) -> None:
    split = load_split(write_data(tmp_path / "d.npz"), "val")
    assert split.images.shape == (28, 28, 28, 3)
    assert split.labels.dtype == np.int64
    assert split.labels.tolist() == [label for label in range(7) for _ in range(4)]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"test_images": np.zeros((28, 32, 32, 3), dtype=np.uint8)}, "test_images"),
        ({"test_images": np.zeros((28, 28, 28, 3))}, "test_images"),
        ({"test_labels": np.zeros((27, 1), dtype=np.uint8)}, "test_labels"),
        ({"test_labels": np.full((28, 1), 7, dtype=np.uint8)}, "0..6"),
        ({"test_labels": np.full((28, 1), 0.5)}, "test_labels"),
        ({"test_ids": np.arange(28)}, "test_ids"),
        ({"test_ids": np.array([object()] * 28)}, "pickled"),
    ],
)
def test_load_split_refuses_bad_arrays(tmp_path: Path, changes: dict[str, np.ndarray], words: str) -> None:
    path = write_data(tmp_path / "d.npz", **changes)
    with pytest.raises(ConfigurationError, match=words):
        load_split(path, "test")


def test_load_split_refuses_bad_files(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no data file"):
        load_split(tmp_path / "none.npz", "test")
    (tmp_path / "text.npz").write_text("hello")
    with pytest.raises(ConfigurationError, match="not a readable"):
        load_split(tmp_path / "text.npz", "test")
    np.savez(tmp_path / "other.npz", x=np.zeros(3))
    with pytest.raises(ConfigurationError, match="has no split"):
        load_split(tmp_path / "other.npz", "test")
    np.save(tmp_path / "bare.npy", np.zeros(3))
    with pytest.raises(ConfigurationError, match="not a readable"):
        load_split(tmp_path / "bare.npy", "test")
    with pytest.raises(ConfigurationError, match="no split 'all'"):
        load_split(tmp_path / "other.npz", "all")


def test_choosing_samples_is_repeatable(tmp_path: Path) -> None:
    data = write_data(tmp_path / "d.npz")
    for name in ("one", "two"):
        assert choose_main(["--data", str(data), "--out", str(tmp_path / name)]) == 0
    one, two = (sorted((tmp_path / name).iterdir()) for name in ("one", "two"))
    assert [path.name for path in one] == [path.name for path in two]
    assert len(one) == 15
    assert choose_main(["--data", str(tmp_path / "none"), "--out", str(tmp_path)]) == 3


@pytest.mark.slow
def test_training_runs_end_to_end_and_repeats(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write_data(tmp_path / "d.npz", count=20)
    counts = ("epochs", "finetune-epochs", "teachers", "teacher-epochs", "views")
    short = [part for name in counts for part in (f"--{name}", "1")]
    written = []
    for name in ("one", "two"):
        assert train.main(["--data", str(data), "--out", str(tmp_path / name), *short]) == 0
        written.append((tmp_path / name / "derm.safetensors").read_bytes())
    assert written[0] == written[1]
    assert "epoch 1/1" in capsys.readouterr().out
    assert "# Model card" in (tmp_path / "one" / "MODEL_CARD.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("extra", [["--epochs", "0"], ["--seed", "-1"], ["--views", "0"]])
def test_training_refuses_bad_options(tmp_path: Path, capsys: pytest.CaptureFixture[str], extra: list[str]) -> None:
    assert train.main(["--data", str(tmp_path / "d.npz"), "--out", str(tmp_path), *extra]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_training_without_data_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train.main(["--data", str(tmp_path / "d.npz"), "--out", str(tmp_path)]) == 3
    assert "no data file" in capsys.readouterr().err
