"""What ``client.train`` makes of what it is given: one data set is a list of it, and what is odd is refused by name."""

import math

import numpy as np
import pytest

from mpc.errors import UsageError
from nn import SGD, CrossEntropyLoss, Linear, Sequential
from parties import DataSet
from parties.client.remote_data import RemoteData
from parties.client.training_arguments import arguments
from parties.stored.data_set import DataDescription

NET = Sequential({"out": Linear(4, 3)})


def stored(name="data", rows=12, features=4, classes=3, **tensors):
    shapes = {"x": (rows, features), "y": (rows, classes), **tensors}
    data = DataSet({t: np.zeros(shape) for t, shape in shapes.items() if shape is not None}, low=0, high=1)
    return RemoteData(name, "clinic", "0" * 32, DataDescription.decode(data.describe()))


DATA = stored()
GIVEN = {"model": NET, "data": DATA, "loss": CrossEntropyLoss(), "optimizer": SGD(lr=0.125)}


def asked(options, **given):
    return arguments(**{**GIVEN, **given}, options={"batch": 6, **options})


def test_one_data_set_is_a_list_of_one():
    for data, validate in ((DATA, DATA), ([DATA], (DATA,))):
        found = asked({"validate": validate}, data=data)
        assert (found.data, found.validate, found.rows) == ((DATA,), (DATA,), (6,))


@pytest.mark.parametrize(
    ("given", "match"),
    [
        ({"data": []}, "no data"),
        ({"data": None}, "NoneType in data"),
        ({"data": "data"}, "str in data"),
        ({"data": [(np.zeros((2, 4)), np.zeros((2, 3)))]}, "tuple in data"),
        ({"data": DataSet({"x": [0.0]}, low=0, high=1)}, "DataSet in data is no data set that is stored"),
        ({"data": [DATA, DATA]}, "twice"),
        ({"data": stored(y=None)}, "are called x"),
        ({"data": stored(y=(5, 3))}, "other numbers of rows"),
        ({"model": None}, "NoneType is no network"),
        ({"loss": None}, "no loss"),
        ({"loss": CrossEntropyLoss}, "no loss"),
        ({"optimizer": SGD}, "no optimizer"),
    ],
)
def test_things_of_another_kind(given, match):
    with pytest.raises(UsageError, match=match):
        asked({}, **given)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"epoch": 2.0}, "no epoch: its options are epochs, batch"),
        *(({name: 2.5}, f"{name} is a whole number") for name in ("batch", "steps", "seed")),
        ({"batch": "6"}, "batch is a whole number"),
        ({"batch": 0}, "a batch of 0 rows"),
        ({"batch": 13}, "to 12, all there are"),
        *(({"epochs": epochs}, "epochs is a finite number") for epochs in (math.nan, math.inf, "1")),
        *(({"epochs": epochs}, "at least one") for epochs in (0, -1.0)),
        *(({"steps": steps}, "at least one") for steps in (0, -1)),
        *(({name: math.nan}, f"{name} is a finite number") for name in ("weights", "remembered", "logits")),
        *(({name: 0.0}, "above 0") for name in ("weights", "remembered", "logits")),
        ({"validate": [stored(features=5)]}, r"rows of x of 'data' are of shape \(5,\)"),
        ({"validate": [stored(classes=4)]}, r"rows of y of 'data' are of shape \(4,\)"),
        ({"validate": [stored(y=(12,))]}, "rows of y"),
        ({"validate": [stored(y=None)]}, "are called x"),
        ({"validate": "data"}, "str in validate"),
    ],
)
def test_options_that_make_no_sense(options, match):
    with pytest.raises(UsageError, match=match):
        asked(options)


def test_what_is_validated_has_classes():
    one = stored(classes=1)
    with pytest.raises(UsageError, match="two classes or more"):
        asked({"validate": one}, data=one)


def test_a_torch_module_is_to_be_imported():
    torch = pytest.importorskip("torch")
    with pytest.raises(UsageError, match=r"ts\.from_torch"):
        asked({}, model=torch.nn.Linear(4, 3))
    with pytest.raises(UsageError, match="no loss"):
        asked({}, loss=torch.nn.CrossEntropyLoss())


async def test_it_is_said_before_anything_runs(site):
    async with site.client() as clinic:
        data = await clinic.upload(DataSet({"x": np.zeros((4, 4))}, low=0, high=1), "data")
        with pytest.raises(UsageError, match="are called x"):
            await clinic.train(NET, data, CrossEntropyLoss(), SGD(lr=0.125), name="net")
        assert [entry.name for entry in await clinic.models()] == ["data"]
