"""``tessera jobs``, and ``tessera train`` that leaves: what goes on, how far it is, and its end."""

import argparse
import json

import numpy as np
import pytest

from benchmarks import train
from mpc.errors import NoSuchName, UsageError
from nn import Linear, Model, Sequential
from nn.training import initial
from parties import DataSet
from parties.commands import jobs, training
from parties.commands.curve import curve


def parsed(*words):
    parser = argparse.ArgumentParser()
    jobs.add_arguments(parser)
    return parser.parse_args(words)


def to_train(*words):
    parser = argparse.ArgumentParser()
    train.command(parser.add_subparsers())
    return parser.parse_args(["train", *words])


async def test_what_was_left_is_found_followed_and_stopped(site, tmp_path, capsys):
    rng = np.random.default_rng(1)
    x = np.round(rng.uniform(-1, 1, (24, 4)) * 256) / 256
    tensors = DataSet({"x": x, "y": np.eye(3)[x[:, :3].argmax(1)]}, ranges={"x": (-1, 1), "y": (0, 1)}, fraction_bits=8)
    architecture = Sequential({"out": Linear(4, 3)}).architecture((4,))
    Model(architecture, initial(architecture)).save(tmp_path / "kinds.safetensors")
    async with site.client() as clinic:
        await clinic.upload(tensors, "data")

    async def learn(epochs, *words):
        return await training.train(
            site.client(),
            to_train(
                str(tmp_path / "kinds.safetensors"), "--learn", "data", "--batch", "8", "--steps", "1",
                "--epochs", str(epochs), "--losses", "--check", "data", *words,
            ),
        )  # fmt: skip

    assert await learn(1, "--leave") == 0
    assert "go on by themselves" in capsys.readouterr().err
    assert await jobs.jobs(site.client(), parsed("kinds", "--follow", "--json")) == 0
    *made, last = map(json.loads, capsys.readouterr().out.splitlines())
    assert [line["step"] for line in made] == [1, 2, 3] and all(0 <= line["accuracy"] <= 1 for line in made)
    assert (last["name"], last["state"], last["step"]) == ("clinic/kinds", "done", 3)
    assert await jobs.jobs(site.client(), parsed("kinds")) == 0
    shown = capsys.readouterr().out.splitlines()
    assert shown[0].startswith("loss ") and shown[1].startswith("balanced ") and "done, 3 of 3 steps" in shown[2]
    assert await learn(40, "--leave") == 0
    assert await training.train(site.client(), to_train("--stop", "kinds")) == 0
    assert "does not go on" in capsys.readouterr().out
    assert await jobs.jobs(site.client(), parsed()) == 0
    now, before = capsys.readouterr().out.splitlines()
    assert "stopped" in now and "done, 3 of 3 steps" in before
    with pytest.raises(NoSuchName, match="there is no training"):
        await jobs.jobs(site.client(), parsed("nothing"))
    with pytest.raises(UsageError, match="say which"):
        await jobs.jobs(site.client(), parsed("--stop"))


def test_a_curve_goes_from_the_lowest_to_the_highest():
    assert curve([3.0, 2.0, 1.0]) == "█▅▁" and curve([1.0]) == "▁" and curve([]) == ""
    assert len(curve(list(range(1000)), 10)) == 10
