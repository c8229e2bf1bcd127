"""``tessera train --example cnn``: a small convolutional network, trained whole, beside its twin."""

import argparse
import json

import numpy as np
import pytest

pytest.importorskip("torch")

from benchmarks import train, whole_network
from benchmarks.hospitals import KINDS, lesions
from benchmarks.whole_network import few, network, pictures


def test_of_each_kind_there_are_some():
    some, _ = lesions(None)
    found = few(some, 320)
    assert 300 <= len(found.kinds) <= 340
    shares = [np.bincount(each.kinds, minlength=KINDS) / len(each.kinds) for each in (some, found)]
    assert shares[1] == pytest.approx(shares[0], abs=0.01) and shares[1].min() > 0


def test_pictures_have_their_channels_first():
    some, _ = lesions(None)
    found = pictures(some)
    assert found.x.shape == (len(some.kinds), 3, 7, 7)
    assert np.array_equal(found.x[5, 2, 1, 3], some.x[5].reshape(7, 7, 3)[1, 3, 2])
    assert network(28).stored_shapes["fc1.weight"] == (1568, 64)


@pytest.mark.slow
def test_it_is_its_twin(capsys, monkeypatch):
    """The command, of few lesions, over processes."""
    monkeypatch.setattr(whole_network, "FEW", 96)
    parser = argparse.ArgumentParser()
    train.command(parser.add_subparsers())
    options = parser.parse_args(["train", "--example", "cnn", "--quick", "--json"])
    assert options.run(options) == 0
    *made, found = map(json.loads, capsys.readouterr().out.splitlines())
    assert found["loss_off"] < 1e-3 and found["weights_off"] < 1e-3 < found["moved"]
    assert found["as_predicted"] and found["steps"] == made[-1]["step"] == 6
