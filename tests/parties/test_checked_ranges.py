"""Whose values lie outside of the range that it has said is named, learns nothing, and costs nobody else anything."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from mpc.errors import InputOutOfRange, NotPermitted
from mpc.rings import field
from mpc.rings.field import P
from nn import Linear, Model, Sequential
from parties import DataSet
from parties.client.asking import Written
from parties.operate.audit import facts
from protocols.lowering.plan import plan
from protocols.trace.secret_tensor import graph_of

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
