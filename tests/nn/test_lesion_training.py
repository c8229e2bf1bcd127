"""The lesion network before it ships: data files, the start from ImageNet, training that goes on, and the import."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F

from mpc.errors import ConfigurationError
from nn.derm import CLASS_CODES
from nn.derm.choose_samples import main as choose_main
from nn.derm.lesion import fit, refine, train
from nn.derm.lesion.importing import imported, inputs, write
from nn.derm.lesion.measure import fitted, ranges, walked
from nn.derm.lesion.network import Block, folded, network, pretrained
from nn.derm.lesion.photographs import INPUT, asked, balanced, load_files, load_photographs
from nn.derm.metrics import calibration_error
from nn.model import Model
from nn.rectifiers import Assumed

WIDTH = 0.13


def jpeg(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG")
    return file.getvalue()


def write_data(path: Path, side: int = 128, **changes: np.ndarray) -> Path:
    arrays: dict[str, np.ndarray] = {}
    generator = np.random.default_rng(0)
    for split in ("train", "val", "test"):
        few = generator.integers(0, 256, (2 * len(CLASS_CODES), side, side, 3), dtype=np.uint8)
        files = [jpeg(pixels) for pixels in few]
        arrays[f"{split}_jpeg"] = np.frombuffer(b"".join(files), np.uint8)
        arrays[f"{split}_offsets"] = np.cumsum([0, *map(len, files)])
        arrays[f"{split}_labels"] = np.repeat(np.arange(7, dtype=np.uint8), 2)[:, None]
        arrays[f"{split}_ids"] = np.array([f"ISIC_{split}_{k:04d}" for k in range(len(few))])
    np.savez(path, **(arrays | changes))
    return path


def random_net(seed: int = 0) -> nn.Sequential:
    """A narrow network, whose statistics are those of what it has seen."""
    torch.manual_seed(seed)
    net = network(WIDTH)
    for layer in net.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = 0.5
    with torch.no_grad():
        for _ in range(6):
            net(torch.rand(8, 3, 64, 64) * 2 - 1)
    return net.eval()


def some_photographs(count: int, side: int = 64, seed: int = 0) -> fit.Photographs:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (count, 3, side, side), dtype=torch.uint8, generator=generator)
    return fit.Photographs(images, torch.arange(count) % 7)


def test_photographs_are_read_and_balanced(tmp_path: Path) -> None:
    split = load_photographs(write_data(tmp_path / "d.npz"), "val")
    assert split.images.shape == (14, 128, 128, 3)
    assert split.labels.tolist() == [label for label in range(7) for _ in range(2)]
    light = balanced(split.images)
    assert light.shape == (14, 3, 128, 128)
    illuminant = ((light / 255) ** 6).mean(axis=(2, 3)) ** (1 / 6)
    assert np.abs(illuminant - 0.7).max() < 0.02


def test_what_is_measured_is_what_a_client_asks(tmp_path: Path) -> None:
    path = write_data(tmp_path / "d.npz")
    measured = asked(load_photographs(path, "test").images)
    files, _, _ = load_files(path, "test")
    for file, values in zip(files, measured, strict=True):
        assert np.array_equal(values, INPUT.examine(file).values.astype(np.float32))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"test_offsets": np.array([0, 5])}, "test_offsets"),
        ({"test_jpeg": np.zeros(40, np.uint8), "test_offsets": np.array([0, 20, 40])}, "no JPEGs"),
        ({"test_labels": np.full((14, 1), 7, np.uint8)}, "0..6"),
        ({"test_ids": np.arange(14)}, "test_ids"),
    ],
)
def test_bad_files_of_photographs_are_refused(tmp_path: Path, changes: dict[str, np.ndarray], words: str) -> None:
    path = write_data(tmp_path / "d.npz", **changes)
    with pytest.raises(ConfigurationError, match=words):
        load_photographs(path, "test")


def test_photographs_of_another_size_are_refused(tmp_path: Path) -> None:
    path = write_data(tmp_path / "d.npz", side=64)
    with pytest.raises(ConfigurationError, match="128x128"):
        load_photographs(path, "train")
    with pytest.raises(ConfigurationError, match="no split 'all'"):
        load_photographs(path, "all")


def test_samples_are_chosen_as_the_files_they_are(tmp_path: Path) -> None:
    path = write_data(tmp_path / "d.npz")
    assert choose_main(["--data", str(path), "--out", str(tmp_path / "out"), "--photographs"]) == 0
    found = sorted((tmp_path / "out").glob("*.jpg"))
    assert len(found) == 14
    with np.load(path) as arrays:
        assert found[0].read_bytes() == arrays["test_jpeg"].tobytes()[: arrays["test_offsets"][1]]


def test_turned_kernels_are_tensorflows_padding_turned(tmp_path: Path) -> None:
    torch.manual_seed(0)
    theirs = network().eval()
    torch.save(theirs.state_dict(), tmp_path / "weights.pth")
    ours = pretrained(tmp_path / "weights.pth").eval()
    ours.classes.load_state_dict(theirs.classes.state_dict())  # type: ignore[union-attr]

    def behind(conv: nn.Module, given: tuple[torch.Tensor]) -> torch.Tensor:
        """TensorFlow's "SAME" of an even side: the odd zero comes last."""
        assert isinstance(conv, nn.Conv2d)
        total = conv.kernel_size[0] - conv.stride[0]
        return F.pad(given[0], (total // 2, total - total // 2) * 2)

    for layer in theirs.modules():
        if isinstance(layer, nn.Conv2d) and layer.kernel_size[0] > 1:
            layer.padding = (0, 0)
            layer.register_forward_pre_hook(behind)
    x = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.allclose(ours(x.flip(2, 3)), theirs(x), atol=1e-5)


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    (tmp_path / "text.pth").write_text("hello")
    torch.save(network(WIDTH).state_dict(), tmp_path / "narrow.pth")
    for name, words in (("text.pth", "cannot be read"), ("narrow.pth", "other weights"), ("none.pth", "cannot be")):
        with pytest.raises(ConfigurationError, match=words):
            pretrained(tmp_path / name)


@pytest.mark.slow
def test_training_goes_on_where_it_was(tmp_path: Path) -> None:
    train_on, val = some_photographs(16, side=32), some_photographs(7, side=32, seed=1)
    recipe = fit.Recipe(epochs=3, small_epochs=1, small_side=32, batch=8, candidates=2)
    (tmp_path / "whole").mkdir()
    (tmp_path / "parts").mkdir()
    lines: list[str] = []

    def stop(line: str) -> None:
        lines.append(line)
        if line.startswith("epoch 3"):
            raise KeyboardInterrupt

    nets = []
    with pytest.raises(KeyboardInterrupt):
        fit.fine_tune(random_net(), train_on, val, recipe, 1, tmp_path / "parts", stop)
    for name in ("whole", "parts"):
        torch.manual_seed(99)
        nets.append(fit.fine_tune(random_net(), train_on, val, recipe, 1, tmp_path / name, lines.append))
    assert "goes on after epoch 2" in lines
    (whole, after, score), (parts, *again) = nets
    assert [after, score] == again
    assert after in (2, 3)
    for (name, one), two in zip(whole.state_dict().items(), parts.state_dict().values(), strict=True):
        assert torch.equal(one, two), name
    with pytest.raises(ConfigurationError, match="other training"):
        fit.fine_tune(random_net(), train_on, val, recipe, 2, tmp_path / "whole", lines.append)
    start = random_net().state_dict()
    assert torch.equal(whole.state_dict()["stem.0.weight"], start["stem.0.weight"])
    assert not torch.equal(whole.state_dict()["classes.weight"], start["classes.weight"])


def test_a_mean_of_weights_has_statistics_of_its_own() -> None:
    nets = [random_net(), random_net(1)]
    before = [copy.deepcopy(net.state_dict()) for net in nets]
    photographs = some_photographs(40)
    means = [train.averaged(nets, photographs, 3) for _ in range(2)]
    assert all(torch.equal(nets[i].state_dict()[name], value) for i in range(2) for name, value in before[i].items())
    (one, other), first = (mean.state_dict() for mean in means), dict(means[0].named_modules())
    for name, value in one.items():
        assert torch.equal(value, other[name])
        middle = (before[0][name] + before[1][name]) / 2
        kept = ("running" not in name and not name.endswith("tracked")) or name.startswith(
            ("stem", "blocks.0", "blocks.1.")
        )
        assert torch.allclose(value.float(), middle.float()) == kept, name
    assert not means[0].training
    assert {layer.momentum for layer in first.values() if isinstance(layer, nn.BatchNorm2d)} == {0.5}


def test_temperature_is_what_logits_were_multiplied_by() -> None:
    generator = np.random.default_rng(0)
    logits = generator.normal(size=(4000, 7)) * 2
    powers = np.exp(logits)
    chances = (powers / powers.sum(1, keepdims=True)).cumsum(1)
    labels = (chances < generator.uniform(size=(len(logits), 1))).sum(1)
    assert abs(fitted(torch.from_numpy(logits * 3), torch.from_numpy(labels)).temperature - 3) < 0.3


def test_calibration_error() -> None:
    sure = np.repeat([[0.8, 0.2]], 10, 0)
    truth = np.array([0] * 8 + [1] * 2)
    assert calibration_error(sure, truth, alike=False) == pytest.approx(0.0, abs=1e-12)
    assert calibration_error(sure, truth, alike=True) == pytest.approx(0.3)


def test_what_is_imported_is_the_network(tmp_path: Path, evaluate: Callable[..., Any]) -> None:
    net = random_net()
    plain = folded(net)
    assert not any(isinstance(layer, nn.BatchNorm2d) for layer in plain.modules())
    photographs = some_photographs(5)
    x = inputs(photographs.images)
    with torch.no_grad():
        whole, rounded = net(torch.from_numpy(x).float()).numpy(), plain(torch.from_numpy(x).float()).numpy()
    assert np.abs(rounded - whole).max() < 0.01 * np.abs(whole).max()
    assert torch.equal(walked(plain, photographs.asked.inputs)[0], fit.answers(plain, photographs.asked.inputs))
    model = imported(plain, photographs.images)
    write(model, tmp_path / "net.safetensors")
    loaded = Model.load(tmp_path / "net.safetensors")
    assert np.abs(loaded.plain(x) - rounded).max() < 1e-4
    blocks = sum(isinstance(layer, Block) for layer in net.modules())
    places = [step for step in loaded.architecture.steps if isinstance(step.layer, Assumed)]
    assert len(places) == blocks + 1
    assert ranges(loaded, {"val": walked(plain, photographs.asked.inputs)[1]})["out_of_range"] == {"val": 0}
    run = evaluate(Model(loaded.architecture, loaded.weights), x[:1])  # which says nothing of 128x128
    assert run.program.flagged
    assert np.abs(run.result - rounded[:1]).max() < 0.01 * np.abs(rounded).max()


def test_a_range_that_is_left_is_counted() -> None:
    plain = folded(random_net())
    photographs = some_photographs(4)
    model = imported(plain, photographs.images)
    with torch.no_grad():
        plain.stem[0].weight.mul_(64)  # type: ignore[index,union-attr,operator]
    found = ranges(model, {"val": walked(plain, photographs.asked.inputs)[1]})
    assert found["out_of_range"]["val"] == 4
    assert all(row["val"] >= 0 for row in found["ranges"].values())


@pytest.mark.slow
def test_training_runs_end_to_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    torch.save(network().state_dict(), tmp_path / "start.pth")
    short = fit.Recipe(epochs=1, small_epochs=0, batch=7, candidates=1)
    monkeypatch.setattr(train, "CYCLES", (short, short))
    monkeypatch.setattr(train, "REFINEMENT", refine.Refinement(views=2, epochs=2, batch=7))
    measured: dict[str, fit.Asked] = {}
    measure = train.measure
    monkeypatch.setattr(train, "measure", lambda *given: measured.update(given[-1]) or measure(*given))
    data = write_data(tmp_path / "d.npz")
    arguments = ["--data", str(data), "--out", str(tmp_path / "out"), "--imagenet", str(tmp_path / "start.pth")]
    assert train.main(arguments) == 0
    assert "# Model card" in (tmp_path / "out" / "MODEL_CARD.md").read_text(encoding="utf-8")
    model = Model.load(tmp_path / "out" / "lesion.safetensors")
    assert model.plain(np.zeros((1, 3, 128, 128))).shape == (1, 7)
    for split in ("val", "test"):
        assert np.array_equal(measured[split].inputs.numpy(), asked(load_photographs(data, split).images))
    again = ["--data", str(data), "--out", str(tmp_path / "again"), "--cycles", str(tmp_path / "out" / "cycles")]
    assert train.main(again) == 0
    one, other = ((tmp_path / name / "lesion.safetensors").read_bytes() for name in ("out", "again"))
    assert one == other


@pytest.mark.slow
def test_later_blocks_alone_are_refined() -> None:
    net = folded(random_net())
    before = copy.deepcopy(net.state_dict())
    photographs = some_photographs(14, side=32)
    recipe = refine.Refinement(views=1, epochs=2, batch=7, rate=3e-3, averaging=0.5)
    found = refine.refine(net, photographs, photographs.asked, recipe, 1, lambda line: None)
    assert len(found.losses) == 3
    assert found.losses[found.epoch] == min(found.losses)
    turned = fit.answers(found.net, photographs.asked.inputs).mean(0)
    assert fitted(turned, photographs.labels).loss == pytest.approx(min(found.losses), abs=0.01)  # kept in float16
    assert found.epoch > 0
    for name, value in found.net.state_dict().items():
        layer = found.net.get_submodule(name.rpartition(".")[0])
        stays = name.startswith("stem") or (name.startswith("blocks.") and int(name.split(".")[1]) < 8)
        stays |= isinstance(layer, nn.Conv2d) and layer.groups > 1
        assert torch.equal(value, before[name]) == stays, name
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


@pytest.mark.parametrize("stride", [1, 2])
def test_gradients_of_kernels_that_stay(stride: int) -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(3, 3, 5, stride, 2, groups=3)
    plain = nn.Sequential(nn.ReLU(), nn.Sequential(nn.Sequential(conv)), *(nn.ReLU() for _ in range(4)))
    _, later = refine.parted(plain, 0)
    found = []
    for net in (conv, later.blocks):
        x = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(1), requires_grad=True)
        y = net(x)
        y.square().sum().backward()
        found.append((y.detach(), x.grad))
    for one, other in zip(*found, strict=True):
        assert torch.allclose(one, other, atol=1e-5)


def test_a_folder_without_cycles_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write_data(tmp_path / "d.npz")
    arguments = ["--data", str(data), "--out", str(tmp_path / "out"), "--cycles", str(tmp_path)]
    assert train.main(arguments) == ConfigurationError.exit_code
    assert "of training before" in capsys.readouterr().err


@pytest.mark.parametrize("extra", [["--seed", "-1"]])
def test_training_refuses_bad_options(tmp_path: Path, capsys: pytest.CaptureFixture[str], extra: list[str]) -> None:
    assert train.main(["--data", str(tmp_path / "d.npz"), "--out", str(tmp_path), *extra]) == 2
    assert capsys.readouterr().err.count("\n") == 1
