"""Whose values lie outside of the range that it has said is named, learns nothing, and costs nobody else anything."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mpc.errors import InputOutOfRange, NoAnswer, NotPermitted
from mpc.operation import Stored
from mpc.program import Program
from mpc.rings import field
from mpc.rings.field import P
from nn import Linear, Model, Sequential, Sigmoid
from nn.derm import samples
from nn.derm.model import derm_model
from parties import AsyncClient, DataSet
from parties.client.explanation import explained
from parties.client.writing import Written
from parties.commands import predict as command
from parties.operate.audit import facts
from parties.pages import prediction
from protocols import RangeWarning
from protocols.lowering.plan import plan
from protocols.trace.secret_tensor import graph_of, leaf

from .test_audit import facts_of, written

UNIT = 2**16
OUTSIDE = {
    "just above": UNIT + 1,
    "just below": -UNIT - 1,
    "far above": 2**40,
    "far below": -(2**59),
    "where the field wraps": P // 2,
    "what twice itself wraps": (P + 1) // 2,
}
RIGHT = [[0.25, -1.0, 1.0]]


def model() -> Model:
    architecture = Sequential({"out": Linear(3, 2)}).architecture((3,))
    return Model(architecture, {n: np.full(s, 0.5) for n, s in architecture.parameters.items()})


class Hostile(DataSet):
    """Its owner stores something else than it says."""

    def __init__(self, value: int) -> None:
        super().__init__({"x": RIGHT}, low=-1, high=1)
        self._elements["x"][0, 1] = value % P


@pytest.mark.sampled(3)
async def test_a_client_whose_input_is_out_of_range_is_named(every: Any) -> None:
    site = every
    async with site.client("company") as company, site.client() as clinic:
        await company.upload(model(), "m")
        await company.allow("m", "clinic")
        remote = await clinic.model("m")
        waiting = await company.prepare(company.share([0.5]) * 3)
        for value in OUTSIDE.values():
            x = clinic.share(RIGHT, low=-1, high=1)
            clinic._secrets[x.node] = field.from_signed(np.array([[0, 0, UNIT]]))
            clinic._secrets[x.node][0, 1] = value % P
            with pytest.raises(InputOutOfRange) as caught:
                await clinic.reveal(remote(x))
            assert caught.value.peer == "clinic"
        # An honest run goes on, this client's as well as another's.
        found = await clinic.reveal(remote(clinic.share(RIGHT, low=-1, high=1)))
        assert found == pytest.approx(model().plain(RIGHT), abs=1e-3)
        assert await company.finish(waiting) == pytest.approx([1.5], abs=1e-3)
        await written(site)
    for party in site.cluster.parties:
        outcomes = [run.outcome for run in facts_of(site, party.name, facts.Run) if run.client == "clinic"]
        assert outcomes == ["InputOutOfRange"] * len(OUTSIDE) + ["ok"]


async def test_an_owner_whose_data_are_out_of_range_is_named_where_another_s_secret_meets_them(either: Any) -> None:
    site = either
    async with site.client("company") as company, site.client() as clinic:
        await company.upload(model(), "m")
        await company.allow("m", "clinic")
        remote = await clinic.model("m")
        for value in (UNIT + 1, P // 2):
            data = await clinic.upload(Hostile(value), "d")
            with pytest.raises(InputOutOfRange) as caught:
                await clinic.reveal(remote(data["x"]))
            assert caught.value.peer == "clinic"
        data = await clinic.upload(DataSet({"x": RIGHT}, low=-1, high=1), "d")
        assert await clinic.reveal(remote(data["x"])) == pytest.approx(model().plain(RIGHT), abs=1e-3)


async def test_a_client_that_leaves_out_the_check_gets_nowhere(either: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    site = either
    async with site.client("company") as company, site.client() as clinic:
        await company.upload(model(), "m")
        await company.allow("m", "clinic", ["predict", "any"])
        remote = await clinic.model("m")
        honest = clinic._written

        def hostile(result: Any) -> Written:
            return Written(plan(graph_of([result]), clinic._objective), honest(result).leaves)

        monkeypatch.setattr(clinic, "_written", hostile)
        with pytest.raises(NotPermitted, match=r"nobody checks|may only"):
            await clinic.reveal(remote(clinic.share(RIGHT, low=-1, high=1)))


async def test_of_a_model_that_says_so_nothing_beyond_is_predicted(site: Any) -> None:
    async with site.client("company") as company, site.client() as clinic:
        await company.upload(model(), "m")
        await company.allow("m", "clinic")
        remote = await clinic.model("m")
        with pytest.raises(NotPermitted, match=r"predict for inputs in \[-1, 1\]"):
            await clinic.reveal(remote(clinic.share(RIGHT)))
        with pytest.raises(NotPermitted, match=r"predict for inputs in \[-1, 1\]"):
            await clinic.predict(remote, RIGHT, low=-2, high=2)


def wide() -> Model:
    """Of three numbers, that leave its interval together."""
    layers = {"in": Linear(3, 2), "act": Sigmoid(interval=(-8.0, 8.0)), "out": Linear(2, 1)}
    architecture = Sequential(layers).architecture((3,))
    return Model(architecture, {n: np.full(s, 4.0) for n, s in architecture.parameters.items()})


INSIDE, BEYOND = [0.25, 0.5, -0.25], [1.0, 1.0, 1.0]


async def test_a_result_on_the_way_to_which_a_value_left_its_interval_is_nobody_s(either: Any) -> None:
    async with either.client() as client:
        remote = await client.upload(wide(), "m")
        right = wide().plain([INSIDE])
        assert np.abs(await client.predict(remote, [INSIDE]) - right).max() < 1e-2
        assert client.last_run.in_range is True
        assert client.last_run.online.rounds == client.last_run.predicted.online_rounds
        for attempt in (
            lambda: client.predict(remote, [BEYOND]),
            lambda: client.predict(remote, [BEYOND, BEYOND], chunk=1),
            lambda: client.reveal(remote(client.share([BEYOND], low=-1, high=1))),
            lambda: client.reveal(remote(client.share([INSIDE, BEYOND], low=-1, high=1)).sum()),
        ):
            with pytest.raises(NoAnswer, match="no answer: a value left the interval"):
                await attempt()
            assert client.last_run.in_range is False
            assert client.last_run.to_dict()["in_range"] is False
        for chunk in (None, 1, 2):
            with pytest.warns(RangeWarning, match="no answer to samples 1, which are NaN"):
                values = await client.predict(remote, [INSIDE, BEYOND, INSIDE], chunk=chunk)
            assert client.last_run.unanswered == (1,)
            assert np.isnan(values[:, 0]).tolist() == [False, True, False]
            assert np.abs(values[::2] - right).max() < 1e-2
        await client.reveal(client.share([20.0]).sigmoid(interval=(-8, 8)))
        assert client.last_run.in_range is None
        with pytest.warns(RangeWarning, match="^in this run a value left"):
            assert await client.reveal(client.share([20.0]).assumed(-8, 8)) == pytest.approx([20.0])


async def test_nor_is_it_kept_in_the_place_of_what_was(either: Any) -> None:
    site = either
    async with site.client() as client:
        remote = await client.upload(wide(), "m")
        kept = await client.keep({"y": remote(client.share([INSIDE], low=-1, high=1))}, "kept")
        with pytest.raises(NoAnswer, match="nothing was kept"):
            await client.keep({"y": remote(client.share([BEYOND], low=-1, high=1))}, "kept")
        again = await client.data("kept")
        assert again.version == kept.version
        assert np.abs(await client.reveal(again["y"]) - wide().plain([INSIDE])).max() < 1e-2
        await written(site)
    for party in site.cluster.parties:
        assert "NoAnswer" in [run.outcome for run in facts_of(site, party.name, facts.Run)]


@pytest.mark.sampled(3)
@pytest.mark.parametrize("rule", ["any", "digest"])
async def test_a_client_that_leaves_out_the_gate_gets_nowhere(either: Any, rule: str) -> None:
    """By whatever rule; and by a digest, after it was shown so."""
    site = either
    async with site.client("company") as company, site.client() as clinic:
        await company.upload(wide(), "m")
        await company.allow("m", "clinic")
        y = (await clinic.model("m"))(clinic.share([BEYOND], low=-1, high=1))
        honest = clinic._written(y)
        nodes = list(honest.program.nodes)
        forged = Program(
            nodes,
            [nodes[i].inputs[0] if nodes[i].operation.gates else i for i in honest.program.outputs],
            honest.program.precision,
            honest.program.objective,
        )
        clinic._written = lambda result: Written(forged, honest.leaves)
        await company.allow("m", "clinic", ["predict", forged.digest if rule == "digest" else rule])
        with pytest.raises(NotPermitted, match=r"whether values are where it takes them|may only"):
            await clinic.reveal(y)
    said = str(explained(forged, "clinic", ["company/m"]))
    assert "!! values are taken to lie in ranges, and results given whether they do or not" in said
    assert "then nothing of it" in str(explained(honest.program, "clinic", ["company/m"]))


def test_a_program_that_declares_what_is_not_so_is_shown_loudly() -> None:
    x = leaf(Stored((4,), 16, -2.0, 2.0, "company/d", "x"))
    program = plan(graph_of([x.within(1.0, 1.5) > 1.25]))
    assert "4 numbers on the way leave the range that is declared" in str(explained(program, "clinic"))
    assert "that is declared" not in str(explained(plan(graph_of([x.relu() > 1.25])), "clinic"))


async def test_the_command_and_the_page_do_not_answer_then(site: Any, tmp_path: Path, capsys: Any) -> None:
    striped = tmp_path / "striped.png"
    Image.fromarray(np.repeat(np.tile(np.uint8([0, 255]), (28, 14))[..., None], 3, axis=2)).save(striped)
    async with site.client() as owner:
        await owner.upload(derm_model(), "derm")
        options = argparse.Namespace(files=[samples()[0].path], model="derm", json=True, turned=False)
        client = AsyncClient(site.cluster, site.keys["company"], transport=site.transport)
        await owner.allow("derm", "company")
        assert await command.predict(client, options) == 0
        (answer,) = json.loads(capsys.readouterr().out)["predictions"]
        assert answer["class"]
        for as_json in (True, False):
            client = AsyncClient(site.cluster, site.keys["company"], transport=site.transport)
            options = argparse.Namespace(files=[striped], model="derm", json=as_json, turned=False)
            assert await command.predict(client, options) == NoAnswer.exit_code
            said = capsys.readouterr().out
            assert "no answer" in said
            assert "class" not in (json.loads(said)["predictions"][0] if as_json else {})
        # One among others costs these nothing.
        client = AsyncClient(site.cluster, site.keys["company"], transport=site.transport)
        options = argparse.Namespace(files=[samples()[0].path, striped], model="derm", json=True, turned=False)
        assert await command.predict(client, options) == NoAnswer.exit_code
        said = json.loads(capsys.readouterr().out)
        assert (said["error"], said["code"]) == ("NoAnswer", NoAnswer.exit_code)
        assert said["advice"]
        assert ["class" in one for one in said["predictions"]] == [True, False]
        assert said["run"]["unanswered"] == [1]
        with pytest.raises(NoAnswer, match="left the interval"):
            async for step in prediction.predict(owner, "derm", striped.read_bytes()):
                assert step["step"] != "answered"
