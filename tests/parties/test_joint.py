"""What is kept jointly: of all whose secrets it comes of, and used by nobody without the leave of each."""

from dataclasses import replace

import numpy as np
import pytest

from mpc.errors import NoSuchName, NotPermitted, PeerError, ProgramError, UsageError
from mpc.program import Program
from mpc.program_format import Keeping
from nn import Linear, Sequential
from nn.model import Description
from nn.stored import StoredType
from parties import DataSet
from parties.client.writing import Kept
from parties.messages.rules import Rule
from protocols.lowering.plan import plan
from protocols.trace.secret_tensor import graph_of

X = np.array([[0.5, -0.25], [0.25, 0.75]])
LINEAR = Sequential({"out": Linear(2, 1, bias=False)}).architecture((2,))


async def shared(site, make):
    """What the clinic has made, jointly, of the company's data; and which program that was."""
    async with site.client("company") as company, site.client() as clinic:
        await company.upload(DataSet({"x": X}, low=-1, high=1), "data")
        await company.allow("data", "clinic", schema=True)
        kept = make(await clinic.data("company/data"))
        program = clinic.digest(kept)
        await company.allow("data", "clinic", [program])
        await clinic.data("company/data")
        return await clinic.keep(kept, "result")


def squares(data):
    return Kept({"y": data["x"] * data["x"]}, joint=True)


async def test_nobody_reveals_it_alone(site):
    await shared(site, squares)
    await site.restart("dealer", "party0", "party1")
    async with site.client() as clinic, site.client("company") as company:
        mine, theirs = await clinic.data("result"), await company.data("clinic/result")
        for client, data, why in ((clinic, mine, "belongs to company as well"), (company, theirs, "its owner clinic")):
            with pytest.raises(NotPermitted, match=why):
                await client.reveal(data["y"])
        # Both have to allow it, each for itself; and of what both allow, that and nothing else.
        await clinic.allow("result", "company", [company.digest(theirs["y"])])
        theirs = await company.data("clinic/result")
        assert await company.reveal(theirs["y"]) == pytest.approx(X * X, abs=1e-3), "its own leave it needs not give"
        with pytest.raises(NotPermitted):
            await clinic.reveal(mine["y"])
        await company.allow("clinic/result", "clinic", [clinic.digest(mine["y"])])
        assert await clinic.reveal(mine["y"]) == pytest.approx(X * X, abs=1e-3)
        with pytest.raises(NotPermitted):
            await clinic.reveal(mine["y"] * 2.0)
        assert [rule.client for rule in await company.rules("clinic/result")] == ["clinic"]
        await company.allow("clinic/result", "clinic", [])
        with pytest.raises(NotPermitted):
            await clinic.reveal(mine["y"])


async def test_joint_owners_are_who_they_were_whatever_they_are_called(site):
    """Their names may be given to others, who have no say."""
    await shared(site, squares)
    company, clinic = map(site.cluster.client, ("company", "clinic"))
    for name in ("party0", "party1"):
        secrets = site.servers[name]._secrets
        joint = secrets.find(clinic, "result").record.descent
        assert joint.joint == (company.identity,)
        renamed = [replace(c, name={"company": "other"}.get(c.name, c.name)) for c in site.cluster.clients]
        assert list(secrets.rules.others(replace(site.cluster, clients=tuple(renamed)), "clinic/result", joint)) == [
            "other"
        ]
        gone = replace(site.cluster, clients=(clinic,))
        assert secrets.rules.others(gone, "clinic/result", joint) == {company.identity: {}}


async def test_what_is_made_of_it_is_joint_as_well(site):
    """And where that is to be so the rule on what is read is enough; else each has to allow that very program."""
    data = await shared(site, squares)
    async with site.client() as clinic, site.client("company") as company:
        data, x = await clinic.data("result"), (await clinic.data("company/data"))["x"]
        more = Kept({"y": (data["y"] + x * 0.5).within(-1, 1)}, joint=True)
        await company.allow("data", "clinic", [clinic.digest(more)])
        await clinic.data("company/data")
        again = await clinic.keep(more, "result")
        with pytest.raises(NotPermitted, match="belongs to company as well"):
            await clinic.reveal(again["y"])
        alone = {"y": again["y"] * 2.0}
        for kept in (alone, Kept(alone, joint=True)):
            with pytest.raises(NotPermitted, match="belongs to company as well"):
                await clinic.keep(kept, "other")
            await company.allow("clinic/result", "clinic", [clinic.digest(kept)])
            other = await clinic.keep(kept, "other")
            if kept is alone:
                assert await clinic.reveal(other["y"]) == pytest.approx(2 * X * X + X, abs=1e-2), "as was allowed"
            else:
                with pytest.raises(NotPermitted, match="belongs to company as well"):
                    await clinic.reveal(other["y"])


async def test_leave_that_is_taken_back_ends_what_was_prepared_by_it(site):
    await shared(site, squares)
    async with site.client() as clinic, site.client("company") as company:
        y = (await clinic.data("result"))["y"]
        await company.allow("clinic/result", "clinic", [clinic.digest(y)])
        prepared = await clinic.prepare(y)
        await company.allow("clinic/result", "clinic", [])
        with pytest.raises((NotPermitted, PeerError)):
            await clinic.finish(prepared)


async def test_inputs_of_a_prediction_by_a_joint_owner_s_leave_are_in_its_range(site):
    await shared(site, weights)
    async with site.client() as clinic, site.client("company") as company:
        await company.allow("clinic/result", "clinic")
        model = await clinic.model("result")
        with pytest.raises(NotPermitted, match="for inputs in"):
            await clinic.predict(model, 2 * X, low=-2, high=2)


def described(kept):
    types = {"out.weight": StoredType((2, 1), kept["out.weight"].type.fraction_bits, -1.0, 1.0)}
    beside = {"seen": StoredType((1,), kept["seen"].type.fraction_bits, -2.0, 2.0)}
    return Description(LINEAR, types, training=beside)


def weights(data):
    kept = {
        "out.weight": data["x"][:1].reshape(2, 1).within(-1, 1),
        "seen": data["x"].sum().reshape(1).assumed(-2, 2),
    }
    return Kept(kept, joint=True, description=described(kept))


async def test_a_model_that_is_kept_predicts_by_the_leave_of_each(site):
    model = await shared(site, weights)
    assert model["seen"].shape == (1,)
    async with site.client() as clinic, site.client("company") as company:
        model = await clinic.model("result")
        with pytest.raises(NotPermitted, match="belongs to company as well"):
            await clinic.predict(model, X)
        await company.allow("clinic/result", "clinic")
        assert await clinic.predict(model, X) == pytest.approx(X @ X[:1].T, abs=1e-3)
        with pytest.raises(NotPermitted):
            await clinic.reveal(model["out.weight"])
        with pytest.raises(NotPermitted):
            await clinic.reveal(model["seen"])


@pytest.mark.slow
async def test_with_macs_as_without(strict):
    await test_nobody_reveals_it_alone(strict)
    await test_a_model_that_is_kept_predicts_by_the_leave_of_each(strict)


async def test_who_is_no_joint_owner_allows_nothing(site):
    async with site.client() as clinic, site.client("company") as company:
        await clinic.upload(DataSet({"x": X}, low=-1, high=1), "own")
        with pytest.raises(NoSuchName, match="not yours as well"):
            await company.allow("clinic/own", "company", ["any"])
        # A client of its own make says it all the same.
        await company._own_rules.allow("clinic/own", "company", [Rule("company", "any", 1)])
        with pytest.raises(NotPermitted):
            await company.data("clinic/own")
        await clinic.allow("own", "company", schema=True)
        with pytest.raises(NoSuchName, match="not yours as well"):
            await company.allow("clinic/own", "company", ["any"])
        with pytest.raises(NotPermitted):
            await company.reveal((await company.data("clinic/own"))["x"])
        with pytest.raises(UsageError, match="is held by clinic"):
            await company.allow("clinic/own", "company", schema=True)


async def test_a_program_that_says_another_model_than_it_keeps(site):
    async with site.client() as clinic:
        data = await clinic.upload(DataSet({"x": X}, low=-1, high=1), "own")
        right = weights(data)
        with pytest.raises(ProgramError, match="other tensors"):
            await clinic.keep(Kept({"out.weight": right["out.weight"]}, description=described(right)), "m")


def test_it_is_part_of_the_program(secure):
    x = secure.stored("x", (2,))
    digests = {plan(graph_of([], {"y": x * x}, keeping)).digest for keeping in (Keeping(), Keeping(joint=True))}
    assert len(digests) == 2
    program = plan(graph_of([], {"y": x * x}, Keeping(joint=True)))
    assert Program.decode(program.encode()).keeping.joint
    with pytest.raises(ProgramError, match="keeps none"):
        plan(graph_of([x * x], {}, Keeping(joint=True)))


async def test_show_is_loud_about_what_belongs_to_others_as_well(site):
    """Who is asked for leave reads what would be told of it, though it lies under the name of who asks."""
    await shared(site, squares)
    async with site.client() as clinic, site.client("company") as company:
        mine, seen = await clinic.data("result"), await company.data("clinic/result")
        assert mine.joint and seen.joint
        for client, data in ((clinic, mine), (company, seen)):
            shown = str(await client.show(data["y"] * 2.0, "clinic"))
            assert "4 of its numbers are LINEAR in clinic/result" in shown
        own = await clinic.upload(DataSet({"y": X}, low=-1, high=1), "own")
        assert not own.joint and not (await clinic.data("own")).joint
        assert "!!" not in str(await clinic.show(own["y"]))
