"""Data sets: named secrets with an owner and rules of their own, as inputs of programs and of other owners' models."""

import json

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpc.errors import EncodingError, NotPermitted, TesseraError, UnsupportedError, UsageError
from nn import Linear, Model, Sequential
from parties import Client, DataSet, LocalCluster, RemoteData, RemoteModel, Settings
from parties.client.remote_data import remote
from parties.commands.command_line import main
from parties.stored.data_set import DataDescription, is_data

from .rules_given import NO_RULE, grants_of

X = np.linspace(-1, 1, 12).reshape(4, 3)


def model():
    architecture = Sequential({"out": Linear(3, 2)}).architecture((3,))
    return Model(architecture, {n: np.full(s, 0.5) for n, s in architecture.parameters.items()})


# -- what it is ----------------------------------------------------------------------------------------------------


def test_a_description_says_nothing_of_the_values():
    one, other = (DataSet({"x": values}, low=-2, high=2).describe() for values in (X, -X / 7))
    assert one == other
    found = DataDescription.decode(one)
    assert found.tensors["x"].shape == (4, 3)
    assert (found.tensors["x"].low, found.tensors["x"].high) == (-2, 2)
    assert "0.8" not in repr(DataSet({"x": X}, low=-1, high=1))


@pytest.mark.parametrize("values", [[1.5], [np.nan], [np.inf], [-1.01]])
def test_values_that_are_not_in_the_range(values):
    with pytest.raises(EncodingError, match="x"):
        DataSet({"x": values}, low=-1, high=1)


def test_each_tensor_may_have_a_range_of_its_own():
    ages, flags, scores = [18, 99.5], [0, 1], [-1, 0.5]
    tensors = {"age": ages, "flag": flags, "score": scores}
    found = DataSet(tensors, low=-1, high=1, ranges={"age": (0, 120), "flag": (0, 1)})
    types = DataDescription.decode(found.describe()).tensors
    assert {n: (t.low, t.high) for n, t in types.items()} == {"age": (0, 120), "flag": (0, 1), "score": (-1, 1)}
    for name in tensors:
        alone = DataSet({name: tensors[name]}, low=types[name].low, high=types[name].high)
        assert DataDescription.decode(alone.describe()).tensors[name] == types[name]
        assert (alone.encode()[name] == found.encode()[name]).all()
    assert list(DataSet({"age": ages}, ranges={"age": (0, 120)}).encode()) == ["age"]
    with pytest.raises(EncodingError, match="age"):
        DataSet(tensors, low=-1, high=200, ranges={"age": (0, 99)})


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({}, "the range of x, y is missing"),
        ({"low": 0}, "the range of x, y is missing"),
        ({"ranges": {"x": (0, 1)}}, "the range of y is missing"),
        ({"low": 0, "ranges": {"x": (0, 1)}}, "the range of y is missing"),
        ({"ranges": {"x": 1, "y": (0, 1)}}, "the range of x is no pair"),
        ({"ranges": {"x": (0, 1, 2), "y": (0, 1)}}, "the range of x is no pair"),
        ({"low": 0, "high": 1, "ranges": {"z": (0, 1)}}, "ranges names z, and the data set has x, y"),
    ],
)
def test_ranges_that_are_missing_or_of_nothing(given, sentence):
    with pytest.raises(UsageError, match=sentence):
        DataSet({"x": [1], "y": [1]}, **given)


def test_what_is_no_data_set(tmp_path):
    with pytest.raises(UsageError, match="at least one tensor"):
        DataSet({}, low=-1, high=1)
    with pytest.raises(UnsupportedError, match="short and printable"):
        DataSet({"x\n": X}, low=-1, high=1)
    (tmp_path / "text.npz").write_text("text")
    np.savez(tmp_path / "objects.npz", x=np.array([{}], dtype=object))
    np.save(tmp_path / "plain.npy", X)
    np.savez(tmp_path / "good.npz", x=X)
    whole = (tmp_path / "good.npz").read_bytes()
    (tmp_path / "cut.npz").write_bytes(whole[:-30])
    (tmp_path / "bent.npz").write_bytes(whole.replace(b"{'descr'", b"{'descr\n", 1))
    for name in ("text.npz", "objects.npz", "plain.npy", "none.npz", "cut.npz", "bent.npz"):
        with pytest.raises(UsageError, match="cannot be read as arrays"):
            DataSet.load(tmp_path / name, low=-1, high=1)


@given(st.binary(max_size=200))
def test_descriptions_of_strangers(data):
    with pytest.raises(UnsupportedError):
        DataDescription.decode(data)
    assert not is_data(data)


@pytest.mark.parametrize(
    "change",
    [
        {"data": 2},
        {"data": None},
        {"more": 1},
        {"tensors": {"": {"shape": [1], "fraction_bits": 16, "low": -1.0, "high": 1.0}}},
        {"tensors": {"x": {"shape": [-1], "fraction_bits": 16, "low": -1.0, "high": 1.0}}},
        {"tensors": {"x": {"shape": [1 << 40, 1 << 40], "fraction_bits": 16, "low": -1.0, "high": 1.0}}},
        {"tensors": {"x": {"shape": [1], "fraction_bits": 99, "low": -1.0, "high": 1.0}}},
        {"tensors": {"x": {"shape": [1], "fraction_bits": 16, "low": 1.0, "high": -1.0}}},
    ],
    ids=str,
)
def test_forged_descriptions(change):
    good = json.loads(DataSet({"x": X}, low=-1, high=1).describe())
    DataDescription.decode(json.dumps(good).encode())
    with pytest.raises(UnsupportedError):
        DataDescription.decode(json.dumps({**good, **change}).encode())


def test_models_and_data_sets_are_told_apart():
    assert isinstance(remote("m", "a", "0" * 32, model().describe()), RemoteModel)
    assert isinstance(remote("d", "a", "0" * 32, DataSet({"x": X}, low=-1, high=1).describe()), RemoteData)
    with pytest.raises(TesseraError):
        remote("n", "a", "0" * 32, msgspec.json.encode({}))


# -- on the parties ------------------------------------------------------------------------------------------------


async def test_computing_on_a_data_set(site):
    async with site.client() as clinic:
        stored = await clinic.upload(DataSet({"x": X, "y": [0.25]}, low=-1, high=1), "trial")
        assert isinstance(stored, RemoteData)
        found = await clinic.data("trial")
        assert (found.owner, list(found), "y" in found) == ("clinic", ["x", "y"], True)
        values = await clinic.reveal([found["x"] * 2 + found["y"], (found["x"] * found["x"]).mean()])
        assert values[0] == pytest.approx(X * 2 + 0.25, abs=1e-3)
        assert values[1] == pytest.approx((X * X).mean(), abs=1e-3)
        with pytest.raises(UsageError, match="no tensor 'z': it has x, y"):
            found["z"]
        with pytest.raises(UsageError, match="is a data set, and no model"):
            await clinic.model("trial")
        await clinic.upload(model(), "m")
        with pytest.raises(UsageError, match="is a model, and no data set"):
            await clinic.data("m")
        assert {entry.name: entry.shapes for entry in await clinic.models()}["trial"] == {"x": (4, 3), "y": (1,)}


async def test_it_outlives_restarts(site):
    async with site.client() as clinic:
        await clinic.upload(DataSet({"x": X}, low=-1, high=1), "trial")
    await site.restart("dealer", "party0", "party1")
    async with site.client() as clinic:
        assert await clinic.reveal((await clinic.data("trial"))["x"] * 1) == pytest.approx(X, abs=1e-3)
        await clinic.remove("trial")
        with pytest.raises(NotPermitted, match="nothing called"):
            await clinic.data("trial")


async def test_a_model_and_data_of_two_owners(site):
    """The clinic runs the company's model on its own data: the company says who predicts, the clinic who reads."""
    async with site.client() as clinic, site.client("company") as company:
        await company.upload(model(), "m")
        await clinic.upload(DataSet({"x": X}, low=-1, high=1), "trial")
        await company.allow("m", "clinic")
        data, m = await clinic.data("trial"), await clinic.model("m")
        assert await clinic.reveal(m(data["x"])) == pytest.approx(model().plain(X), abs=1e-3)
        for forbidden in (m(data["x"]) * 2, m(data["x"] * 2), m._stored["out.weight"] * 1):
            with pytest.raises(NotPermitted, match="may only have 'm' predict"):
                await clinic.reveal(forbidden)
        # The owner of the model does not read the data by owning the model.
        with pytest.raises(NotPermitted, match="nothing called 'trial' for us"):
            await company.data("trial")


async def test_only_the_program_that_the_owner_has_looked_at(site):
    async with site.client() as clinic, site.client("company") as company:
        data = await clinic.upload(DataSet({"x": X}, low=-1, high=1), "trial")
        with pytest.raises(UsageError, match=r"name the programs that may read it by client\.digest"):
            await clinic.allow("trial", "company")
        mean = data["x"].mean()
        await clinic.allow("trial", "company", [clinic.digest(mean)])
        found = await company.data("trial")
        assert company.digest(found["x"].mean()) == clinic.digest(mean)
        assert await company.reveal(found["x"].mean()) == pytest.approx(X.mean(), abs=1e-3)
        for forbidden in (found["x"] * 1, found["x"].sum(), found["x"].mean() * 2):
            with pytest.raises(NotPermitted):
                await company.reveal(forbidden)
        # The same program on another version.
        await clinic.upload(DataSet({"x": X / 2}, low=-1, high=1), "trial")
        assert await company.reveal((await company.data("trial"))["x"].mean()) == pytest.approx(X.mean() / 2, abs=1e-3)
        # Of values in another range it is another program.
        await clinic.upload(DataSet({"x": X / 2}, low=-0.75, high=1), "trial")
        with pytest.raises(NotPermitted):
            await company.reveal((await company.data("trial"))["x"].mean())


async def test_a_model_of_the_askers_own_is_no_way_to_read_data(site):
    """As if "predict" on a data set meant any model: the identity would reveal it."""
    async with site.client() as clinic, site.client("company") as company:
        data = await clinic.upload(DataSet({"x": X}, low=-1, high=1), "trial")
        await clinic.allow("trial", "company", ["0" * 64])
        architecture = Sequential({"out": Linear(3, 3)}).architecture((3,))
        identity = Model(architecture, {"out.weight": np.eye(3), "out.bias": np.zeros(3)})
        own = await company.upload(identity, "identity")
        with pytest.raises(NotPermitted, match="may not run this program on 'trial'"):
            await company.reveal(own((await company.data("trial"))["x"]))
        # A server that is asked to note "predict" for a data set lets nobody do anything for it.
        for server in ("dealer", "party0", "party1"):
            held = site.servers[server]
            policy = (held._coordinator if server == "dealer" else held._secrets).look_up(data.slot).policy
            grants = grants_of({"company": {"predict"}})
            allowed = type(policy)(policy.name, policy.owner, policy.version, policy.description, grants)
            for rule in (*grants["company"], NO_RULE, "owner"):
                with pytest.raises(NotPermitted):
                    asked_for = company._written(own((await company.data("trial"))["x"])).program
                    allowed.check(asked_for, "company", rule)


def test_the_command_line(tmp_path, capsys):
    np.savez(tmp_path / "x.npz", images=X)
    with LocalCluster(2, settings=Settings(threads=1)) as cluster:
        common = ("--cluster", str(cluster.path), "--key", str(cluster.key_path("client")), "--json")
        upload = ("upload", str(tmp_path / "x.npz"), "--name", "trial")
        for extra, complaint in (
            ((), "needs --range LOW HIGH"),
            (("--range", "-0.5", "0.5"), "images"),
            (("--range", "-1", "1", "--weights", "w.safetensors"), "--weights does not go with a data set"),
        ):
            assert main([*upload, *extra, *common]) == 2
            assert complaint in capsys.readouterr().err
        assert main([*upload, "--range", "-1", "1", *common]) == 0
        assert json.loads(capsys.readouterr().out)["bytes"] == 8 * X.size
        with Client(cluster) as client:
            assert client.reveal(client.data("trial")["images"] * 2) == pytest.approx(2 * X, abs=1e-3)


async def test_a_result_that_is_kept_and_who_may_have_it_revealed(site):
    """A result is its owner's, who may keep it under a name and allow others to compute on it, or to see it."""
    async with site.client() as clinic, site.client("company") as company:
        data = await clinic.upload(DataSet({"x": X}, low=-1, high=1), "trial")
        result = await clinic.reveal(data["x"].mean(axis=0))
        await clinic.upload(DataSet({"mean": result}, low=-1, high=1), "result")
        with pytest.raises(NotPermitted, match="nothing called 'result' for us"):
            await company.data("result")
        await clinic.allow("result", "company", ["any"])
        kept = await company.data("result")
        assert await company.reveal(kept["mean"]) == pytest.approx(X.mean(axis=0), abs=1e-3)
