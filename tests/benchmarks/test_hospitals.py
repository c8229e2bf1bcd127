"""``tessera train --example hospitals``: what ships, whose it is, and that shares learn what the clear learns."""

import argparse
import json

import numpy as np
import pytest

from benchmarks import hospitals, train
from benchmarks.hospitals import BATCH, HOSPITALS, KINDS, Lesions, Study, lesions, shuffled, spread
from mpc.errors import ConfigurationError
from nn.derm.reference import ASSETS

SAMPLES = ASSETS / "lesion" / "samples"


@pytest.fixture(scope="module")
def shipped():
    return lesions(None)


def test_what_ships(shipped):
    learn, test = shipped
    assert (learn.x.shape, test.x.shape) == ((5236, 147), (1512, 147))
    for some in shipped:
        assert -0.5 <= some.x.min() < some.x.max() <= 0.5
        assert np.array_equal(some.x * 256, np.round(some.x * 256)), "eight bits each"
    assert np.bincount(learn.kinds).tolist() == [160, 231, 510, 52, 430, 3783, 70]


def test_each_lesion_is_at_one_hospital_and_kinds_are_mixed_differently(shipped):
    learn, _ = shipped
    parts = spread(learn.kinds)
    assert len(parts) == len(HOSPITALS)
    assert sorted(np.concatenate(parts)) == list(range(len(learn.kinds)))
    shares = np.array([np.bincount(learn.kinds[mine], minlength=KINDS) for mine in parts]) / np.bincount(learn.kinds)
    assert (shares.max(0) > 0.5).sum() >= 4, "most of a kind is at one of them"


@pytest.mark.parametrize("hidden", [0, 5])
def test_a_step_goes_down_the_gradient(shipped, hidden):
    """Against differences of the loss."""
    learn, test = shipped
    study = Study([learn.at(np.arange(400))], test, 1, hidden)
    network, batch = study.fresh(), learn.at(np.arange(BATCH))
    weights = study.class_weights[batch.kinds]

    def loss():
        z = network.logits(batch.x)
        logs = z - np.log(np.exp(z).sum(1, keepdims=True))
        return -(weights * logs[np.arange(BATCH), batch.kinds]).mean()

    before = loss()
    for arrays, gradients in zip((network.weights, network.biases), network.gradients(batch), strict=True):
        for array, gradient in zip(arrays, gradients, strict=True):
            place = np.unravel_index(np.abs(gradient).argmax(), array.shape)
            array[place] += 1e-6
            assert gradient[place] == pytest.approx((loss() - before) / 1e-6, rel=1e-2)
            array[place] -= 1e-6
    network.train([batch] * 3)
    assert loss() < before


def test_orders_have_each_lesion_once_an_epoch():
    first, *rest = shuffled(2 * BATCH + 5, 2)
    assert len(first) == BATCH and len(rest) == 3
    assert len(set(np.concatenate([first, rest[0]]))) == 2 * BATCH


def test_a_file_that_is_none(tmp_path):
    with pytest.raises(ConfigurationError):
        lesions(tmp_path / "nothing.npz")


@pytest.mark.slow
@pytest.mark.parametrize(("security", "hidden"), [("semi-honest", "8"), ("malicious", "")])
def test_encrypted_is_as_good_as_pooled(shipped, security, hidden, capsys, monkeypatch):
    """Of a part of the lesions, over processes: the command, its lines, and what it finds."""
    learn, test = shipped
    some = np.random.default_rng(1).permutation(len(learn.kinds))[:640]
    few = Lesions(learn.x[some][:, :30], learn.kinds[some]), Lesions(test.x[:200, :30], test.kinds[:200])
    monkeypatch.setattr(hospitals, "lesions", lambda path, photographs: few)
    parser = argparse.ArgumentParser()
    train.command(parser.add_subparsers())
    options = parser.parse_args(
        [
            "train",
            "--example",
            "hospitals",
            "--quick",
            "--json",
            "--security",
            security,
            *(["--hidden", hidden] if hidden else []),
        ]
    )
    assert options.run(options) == 0
    *made, found = map(json.loads, capsys.readouterr().out.splitlines())
    assert [line["step"] for line in made] == sorted({line["step"] for line in made})
    scores = found["balanced_accuracy"]
    assert set(scores) == {*HOSPITALS, "federated", "pooled", "encrypted"}
    assert scores["encrypted"] == pytest.approx(scores["pooled"], abs=0.005)
    assert found["as_predicted"] and found["steps"] == made[-1]["step"] == 20


def test_features_of_photographs(tmp_path, monkeypatch):
    """Of those that ship, by a network without its last layer: a row each, in [0, 1], that depends on it."""
    torch = pytest.importorskip("torch")
    from benchmarks import lesion_features
    from nn.derm.dataset import listed

    found = listed(SAMPLES, ".jpg")[:3]
    files = [np.frombuffer(sample.path.read_bytes(), np.uint8) for sample in found]
    arrays = {"jpeg": np.concatenate(files), "offsets": np.cumsum([0, *map(len, files)])}
    arrays |= {"labels": np.array([s.label for s in found]), "ids": np.array([s.id for s in found])}
    path = tmp_path / "photographs.npz"
    np.savez(path, **{f"{split}_{name}": array for split in ("train", "test") for name, array in arrays.items()})
    torch.manual_seed(0)
    nn = torch.nn
    layers = nn.Conv2d(3, 16, 8, 8), nn.ReLU(), nn.Identity(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 7)
    monkeypatch.setattr(lesion_features, "pretrained", lambda: nn.Sequential(*layers))
    monkeypatch.setattr(lesion_features, "LARGEST", 0.5)
    learn, test = lesions(None, path)
    assert learn.x.shape == (3, 16) and np.array_equal(learn.x, test.x)
    assert 0.0 <= learn.x.min() <= learn.x.max() <= 1.0 and len(np.unique(learn.x, axis=0)) == 3
    assert learn.kinds.tolist() == [sample.label for sample in found]
