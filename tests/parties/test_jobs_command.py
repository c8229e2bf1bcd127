"""``tessera jobs``, and ``tessera train`` that leaves: what goes on, how far it is, and its end."""

import argparse
import io
import json
import re

import numpy as np
import pytest
from rich.console import Console

from benchmarks import train
from mpc.errors import NoSuchName, UsageError
from nn import Linear, Model, Sequential
from nn.training import initial
from parties import DataSet
from parties.client.progress import Progress
from parties.commands import jobs, training
from parties.commands.curve import curve, plot
from parties.commands.training_bar import TrainingBar

pytestmark = pytest.mark.usefixtures("unhurried")


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
    assert await jobs.jobs(site.client(), parsed("kinds", "--resume")) == 0
    capsys.readouterr()
    assert await jobs.jobs(site.client(), parsed("kinds", "--stop")) == 0
    assert await jobs.jobs(site.client(), parsed()) == 0
    resumed, *_ = capsys.readouterr().out.splitlines()[-3:]
    async with site.client() as clinic:
        last = await clinic.job("kinds")
        made = [*await last.before(), *await last.progress()]
        assert [each.step for each in made] == list(range(1, len(made) + 1)) and len(made) >= 3
        assert all(each.loss is not None for each in made)
    assert "of 120 steps" in resumed and "of 120 steps" in now and resumed[:8] != now[:8]
    with pytest.raises(UsageError, match=r"resume that|all of its steps"):
        await jobs.jobs(site.client(), parsed(before[:8], "--resume"))
    for words in (["--stop"], ["--resume"], ["kinds", "--stop", "--resume"], ["kinds", "--page"]):
        with pytest.raises(UsageError, match=r"say which|not both|without a name"):
            await jobs.jobs(site.client(), parsed(*words))


def test_a_curve_goes_from_the_lowest_to_the_highest():
    assert curve([3.0, 2.0, 1.0]) == "█▅▁" and curve([1.0]) == "▁" and curve([]) == ""
    assert len(curve(list(range(1000)), 10)) == 10
    assert plot([0.0, 1.0], 1, 1) == ["⡈"] and plot([], 2, 2) == ["⠀⠀"] * 2
    assert plot(list(range(8)), 4, 2) == ["⠀⠀⡠⠊", "⡠⠊⠀⠀"]


def test_a_bar_in_a_terminal_has_the_curve_below_it():
    console = Console(file=io.StringIO(), force_terminal=True, width=100)
    made = [Progress(step, 80, step / 8, float(step), None, loss=1 / step) for step in range(1, 11)]
    with TrainingBar(80, 0, console=console) as bar:
        bar.show(made)
        bar._bar.refresh()
    said = re.sub(r"\x1b\[[^a-zA-Z]*[a-zA-Z]", "", console.file.getvalue())
    assert "epoch 1.25" in said and "10/80 steps" in said and "loss" in said and "0.1000" in said and "⠁" in said
    console = Console(file=io.StringIO(), width=100)
    with TrainingBar(80, 0, console=console) as bar:
        bar.show(made)
    assert console.file.getvalue().strip() == "" and not bar.live
