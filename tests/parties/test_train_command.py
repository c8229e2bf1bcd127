"""``tessera train``: a network of one's own learns from others' data, once they have allowed it."""

import argparse
import asyncio
import json

import numpy as np
import pytest

from benchmarks import train
from mpc.errors import UsageError
from nn import Linear, Model, Sequential
from nn.training import initial
from parties import DataSet
from parties.commands import training

pytestmark = pytest.mark.usefixtures("unhurried")


def parsed(*words):
    parser = argparse.ArgumentParser()
    train.command(parser.add_subparsers())
    return parser.parse_args(["train", *words])


@pytest.fixture
def network(tmp_path):
    architecture = Sequential({"out": Linear(4, 3)}).architecture((4,))
    path = tmp_path / "kinds.safetensors"
    Model(architecture, initial(architecture)).save(path)
    return path


async def test_it_asks_waits_and_learns(site, network, capsys):
    rng = np.random.default_rng(1)
    x = np.round(rng.uniform(-1, 1, (24, 4)) * 256) / 256
    y = np.eye(3)[x[:, :3].argmax(1)]
    tensors = DataSet({"x": x, "y": y}, ranges={"x": (-1, 1), "y": (0, 1)}, fraction_bits=8)
    async with site.client("company") as company:
        await company.upload(tensors, "data")
        await company.allow("data", "clinic", schema=True)

        async def decide():
            while not (asked := await company.requests()):  # noqa: ASYNC110 - nothing says so
                await asyncio.sleep(0.1)
            assert asked[0].why == "a study"
            await company.approve(asked[0].program)

        options = parsed(
            str(network), "--learn", "company/data", "--batch", "8", "--steps", "2", "--epochs", "2", "--lr", "0.1",
            "--why", "a study", "--json",
        )  # fmt: skip
        ahead = argparse.Namespace(**{**vars(options), "ahead": 2})
        code, _ = await asyncio.gather(training.train(site.client(), ahead), decide())
        options.why = None
        assert code == await training.train(site.client(), options) == 0
        dealt, *made, last = map(json.loads, capsys.readouterr().out.splitlines())
        assert dealt["in_stock"] == 2 and [line["step"] for line in made] == [2, 4, 6]
        assert not site.servers["dealer"].stock.stock(), "and both are used"
        assert (last["name"], last["steps"]) == ("kinds", 6)
        await company.allow("clinic/kinds", "clinic")
    async with site.client() as clinic:
        assert (await clinic.predict(await clinic.model("kinds"), x)).shape == (24, 3)


@pytest.mark.slow
async def test_rows_in_an_order_that_nobody_knows(site, network, capsys):
    """Mixed once, of everybody's leave; who trains on, or again, trains on the same."""
    rng = np.random.default_rng(1)
    async with site.client("company") as company:
        for name, count in (("a", 12), ("b", 6)):
            x = np.round(rng.uniform(-1, 1, (count, 4)) * 256) / 256
            rows = {"x": x, "y": np.eye(3)[x[:, :3].argmax(1)]}
            await company.upload(DataSet(rows, ranges={"x": (-1, 1), "y": (0, 1)}, fraction_bits=8), name)
            await company.allow(name, "clinic", schema=True)
        decided = set()

        async def decide():
            while len(decided) < 2:
                for asked in await company.requests():
                    if asked.program not in decided:
                        await company.approve(asked.program)
                        decided.add(asked.program)
                await asyncio.sleep(0.1)

        words = [
            str(network), "--learn", "company/a", "--learn", "company/b", "--batch", "6", "--steps", "1", "--lr", "0.1",
            "--order", "secret", "--why", "a study", "--json",
        ]  # fmt: skip
        code, _ = await asyncio.gather(training.train(site.client(), parsed(*words)), decide())
        assert code == 0 and len(decided) == 2
        *made, _ = map(json.loads, capsys.readouterr().out.splitlines())
        assert [line["step"] for line in made] == [1, 2, 3]
        async with site.client() as clinic:
            mixed = await clinic.data("kinds-rows")
            assert mixed.joint == ("company",) and mixed.description.tensors["x"].shape == (18, 4)
        again = training.train(site.client(), parsed(*words[:-3], "--epochs", "2"))
        assert await again == 0 and "in an order" not in capsys.readouterr().err


@pytest.mark.parametrize("words", [[], ["net.safetensors"], ["--learn", "a/b"]])
async def test_what_is_missing(site, words):
    with pytest.raises(UsageError, match="say what is to be trained"):
        await training.train(site.client(), parsed(*words))


def test_losses_that_can_be_said_are_there():
    assert tuple(training.LOSSES) == train.LOSSES


def test_an_example_is_all_there_is():
    options = parsed("--example", "hospitals", "net.safetensors")
    with pytest.raises(UsageError, match="data of its own"):
        options.run(options)
