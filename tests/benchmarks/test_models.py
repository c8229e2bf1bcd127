"""Networks to measure: the dermatology CNN for other sides, and modules from the user's own files."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.models import SHIPPED, derm, lesion, torch_subject
from benchmarks.models import subject as chosen
from benchmarks.shipped import LESION
from mpc.errors import UsageError
from mpc.security import Security
from nn.derm import load_image, samples
from nn.derm.lesion.model import lesion_model, shown
from nn.derm.model import derm_model


def test_derm_as_it_ships() -> None:
    subject = derm(28)
    assert (subject.weights, subject.shape) == (SHIPPED, (3, 28, 28))
    images = subject.inputs(20)
    shipped = samples()
    for i in (0, 1, 19):
        assert np.array_equal(images[i], load_image(shipped[i % len(shipped)].path))
    assert subject.cost(2, 3, Security.MALICIOUS) == derm_model().cost((2, 3, 28, 28), 3, Security.MALICIOUS)


def test_the_lesion_network_as_it_ships() -> None:
    subject = lesion()
    assert (subject.weights, subject.shape) == (SHIPPED, (3, 128, 128))
    images = subject.inputs(15)
    for i in (0, 13, 14):
        assert np.array_equal(images[i], LESION.input.load(shown()[i % 14].path))
    assert subject.cost(1, 3, Security.SEMI_HONEST) == lesion_model().cost((1, 3, 128, 128), 3)
    options = Namespace(torch=None, model="lesion", side=28, shape=None, range=None, samples=None)
    with pytest.raises(UsageError, match="128x128"):
        chosen(options)


@pytest.mark.parametrize("side", [4, 30, 64])
def test_derm_for_other_sides(side: int) -> None:
    subject, shipped = derm(side), derm_model()
    assert subject.shape == (3, side, side)
    assert subject.model.weights["fc1.weight"].shape == (64, 32 * (side // 4) ** 2)
    assert np.array_equal(subject.model.weights["conv2.weight"], shipped.weights["conv2.weight"])
    images = subject.inputs(2)
    assert images.shape == (2, 3, side, side)
    assert images[:, :, 0, 0] == pytest.approx(derm().inputs(2)[:, :, 0, 0])
    assert subject.model.plain(images).shape == (2, 7)
    # Two of the same name cost the same: the bounds of random weights are public.
    assert subject.cost(1, 2, Security.SEMI_HONEST) == derm(side).cost(1, 2, Security.SEMI_HONEST)


def test_chunks_are_the_inputs() -> None:
    subject = derm()
    assert [len(chunk) for chunk in subject.chunks(7, 3)] == [3, 3, 1]
    assert sum(len(chunk) for chunk in subject.chunks(2, 10)) == 2


@pytest.mark.parametrize(
    ("source", "name", "sentence"),
    [
        ("net = 3", "net", "neither a torch.nn.Module nor does it make one"),
        ("def net(): return 3", "net", "neither a torch.nn.Module nor does it make one"),
        ("def net(x): return 3", "net", "cannot be called without arguments"),
        ("net = 3", "other", "nothing called 'other'"),
        ("import nowhere_to_be_found", "net", "ModuleNotFoundError"),
        ("net = (", "net", "SyntaxError"),
    ],
)
def test_files_that_hold_no_network(source: str, name: str, sentence: str, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    path = tmp_path / "mine.py"
    path.write_text(source)
    with pytest.raises(UsageError, match=sentence):
        torch_subject(f"{path}:{name}", (3,))


def test_a_file_sees_its_neighbours_and_a_class_will_do(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    (tmp_path / "sizes_beside.py").write_text("WIDTH = 5")
    path = tmp_path / "mine.py"
    path.write_text(
        "from torch import nn\nfrom sizes_beside import WIDTH\n"
        "class Net(nn.Sequential):\n    def __init__(self):\n        super().__init__(nn.Linear(WIDTH, 2))\n"
    )
    first, second = (torch_subject(f"{path}:Net", (5,), -2.0, 3.0) for _ in range(2))
    assert first.model.state_dict().keys() == {"0.weight", "0.bias"}
    assert np.array_equal(first.model.weights["0.weight"], second.model.weights["0.weight"])
    inputs = first.inputs(50)
    assert inputs.shape == (50, 5)
    assert -2 <= inputs.min() < 0 < inputs.max() <= 3


DEEP = """
from torch import nn
def net():
    layers = [nn.Flatten()]
    for _ in range(14):
        layer = nn.Linear(16, 16, bias=False)
        nn.init.orthogonal_(layer.weight, 1.3)
        layers += [layer, nn.ReLU()]
    return nn.Sequential(*layers)
tokens = nn.Sequential(nn.Embedding(9, 4), nn.Flatten(), nn.Linear(12, 2))
"""


def test_what_a_deep_network_leads_to_is_assumed(tmp_path: Path) -> None:
    """Or nothing would be predicted of it: its worst case does not fit."""
    pytest.importorskip("torch")
    (tmp_path / "deep.py").write_text(DEEP)
    place = f"{tmp_path / 'deep.py'}:net"
    for objective in ("latency", "traffic"):
        assert torch_subject(place, (4, 4)).cost(1, 2, Security.SEMI_HONEST, objective).online_rounds > 28
    np.save(tmp_path / "x.npy", np.full((3, 4, 4), 0.5))
    given = torch_subject(place, None, samples=tmp_path / "x.npy")
    assert given.shape == (4, 4)
    assert np.array_equal(given.inputs(4), np.full((4, 4, 4), 0.5))
    with pytest.raises(UsageError, match="give --range"):
        torch_subject(place, None, 0.75, 1.0, samples=tmp_path / "x.npy")


def test_tokens(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    (tmp_path / "deep.py").write_text(DEEP)
    np.save(tmp_path / "ids.npy", np.array([[1, 2, 3], [8, 0, 4]]))
    subject = torch_subject(f"{tmp_path / 'deep.py'}:tokens", None, samples=tmp_path / "ids.npy")
    assert (subject.shape, subject.low, subject.high) == ((3, 9), 0.0, 1.0)
    assert subject.cost(1, 2, Security.SEMI_HONEST).online_rounds > 1
    assert subject.inputs(2)[1, 0, 8] == 1.0


@pytest.mark.parametrize("content", [b"nothing", None], ids=["no array", "missing"])
def test_samples_that_are_none(content: bytes | None, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    (tmp_path / "deep.py").write_text(DEEP)
    if content:
        (tmp_path / "x.npy").write_bytes(content)
    with pytest.raises(UsageError, match="cannot be read as an array"):
        torch_subject(f"{tmp_path / 'deep.py'}:tokens", None, samples=tmp_path / "x.npy")
