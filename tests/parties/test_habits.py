"""What users of other libraries write at first: it does what is meant, or says what to write instead."""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import tessera as ts


@pytest.fixture(scope="module")
def client() -> Iterator[ts.Client]:
    with ts.MemoryCluster(parties=2) as cluster, ts.Client(cluster) as client:
        yield client


@pytest.fixture(scope="module")
def model() -> ts.Model:
    return ts.from_torch(torch.nn.Linear(3, 2))


def test_a_mapping_is_revealed_as_one(client: ts.Client) -> None:
    x = client.share([1.0, 2.0])
    found = client.reveal({"sum": x.sum(), "twice": 2 * x})
    assert list(found) == ["sum", "twice"]
    assert found["sum"] == pytest.approx(3.0)
    assert found["twice"] == pytest.approx([2.0, 4.0])
    assert [float(y) for y in client.reveal((x[0], x[1]))] == [1.0, 2.0]


def test_tensors_of_torch_are_arrays(client: ts.Client) -> None:
    assert client.reveal(client.share(torch.tensor([1.0, -2.5]))) == pytest.approx([1.0, -2.5])


def test_numbers_of_numpy_are_numbers(client: ts.Client) -> None:
    ends: dict[str, Any] = {"low": np.float32(-4), "high": np.int64(4)}
    assert client.reveal(client.share(np.int64(3), fraction_bits=np.int64(12), **ends)) == 3.0  # type: ignore[arg-type]
    assert client.reveal(client.share(np.array(3)).precise(np.uint8(12))) == 3.0  # type: ignore[arg-type]
    said = ts.Interface(ts.ArrayInput((np.int64(3),), np.float32(-1), np.float64(1)))  # type: ignore[arg-type]
    net = ts.Model(ts.Sequential(ts.nn.Linear(3, 2)), {"0.weight": np.ones((2, 3)), "0.bias": np.zeros(2)}, said)
    model = client.upload(net, "net")
    assert model.description.interface == ts.Interface(ts.ArrayInput((3,), -1.0, 1.0))
    chunks: dict[str, Any] = {"chunk": np.int64(2), "low": np.float64(-1), "high": np.int8(1)}
    assert client.predict(model, np.ones((3, 3)), **chunks) == pytest.approx(np.full((3, 2), 3), abs=1e-3)


def test_a_row_is_checked_by_column(client: ts.Client) -> None:
    columns = ts.TableInput((ts.Column("age", 0, 120), ts.Column("smokes", 0, 1)))
    weights = {"0.weight": np.eye(2), "0.bias": np.zeros(2)}
    model = client.upload(ts.Model(ts.Sequential(ts.nn.Linear(2, 2)), weights, ts.Interface(columns)), "table")
    assert client.predict(model, [[40, 1]])[0] == pytest.approx([40, 1], abs=1e-2)
    with pytest.raises(ts.EncodingError, match="row 1 of inputs: smokes is not within 0 to 1"):
        client.predict(model, [[40, 1], [1, 40]])
    assert client.predict(model, [[1, 40]], low=0, high=64)[0] == pytest.approx([1, 40], abs=1e-2)


def test_a_cluster_and_a_client_without_with() -> None:
    cluster = ts.MemoryCluster(parties=2).start()
    client = ts.Client(cluster).start()
    assert client.reveal(client.share(2.0)) == 2.0
    for _ in range(2):
        client.close()
        cluster.close()
    with pytest.raises(ts.UsageError, match=r"start\(\)"):
        client.reveal(client.share(2.0))
    with pytest.raises(ts.UsageError, match=r"start\(\)"):
        ts.Client(cluster)


def stored(client: ts.Client, model: ts.Model) -> ts.RemoteModel:
    """The same model, of inputs whose shape is known."""
    return client.upload(
        ts.Model(model.architecture, model.weights, ts.Interface(ts.ArrayInput((3,), -1, 1))), "stored"
    )


INSTEAD: dict[str, tuple[Callable[[ts.Client, ts.Model], Any], str]] = {
    "upload a module": (lambda c, m: c.upload(torch.nn.Linear(3, 2), "m"), "ts.from_torch"),  # type: ignore[call-overload]
    "upload an array": (lambda c, m: c.upload(np.ones(3), "m"), "ts.DataSet"),  # type: ignore[call-overload]
    "upload a mapping": (lambda c, m: c.upload({"x": [1.0]}, "m"), "ts.DataSet"),  # type: ignore[call-overload]
    "upload a tensor": (lambda c, m: c.upload(torch.ones(3), "m"), "ts.DataSet"),  # type: ignore[call-overload]
    "reveal a number": (lambda c, m: c.reveal(3), "int is no secret tensor"),  # type: ignore[call-overload]
    "reveal nothing": (lambda c, m: c.reveal([]), "at least one"),
    "reveal some numbers": (lambda c, m: c.reveal([c.share(1.0), 2.0]), "float is no secret"),  # type: ignore[list-item]
    "reveal a text": (lambda c, m: c.reveal("x"), "str is no secret tensor"),  # type: ignore[call-overload]
    "reveal what is revealed": (lambda c, m: c.reveal(np.ones(2)), "ndarray is no secret"),  # type: ignore[call-overload]
    "predict by name": (lambda c, m: c.predict("m", np.ones((1, 3))), r"client\.model"),  # type: ignore[arg-type]
    "predict by a model": (lambda c, m: c.predict(m, np.ones((1, 3))), r"client\.model"),  # type: ignore[arg-type]
    "call a model": (lambda c, m: m(np.ones((1, 3))), r"client\.upload"),
    "call a stored model": (lambda c, m: c.upload(m, "m")(np.ones((1, 3))), r"client\.share"),  # type: ignore[arg-type]
    "predict by a file": (
        lambda c, m: c.predict(stored(c, m), "x.npy"),
        r"np\.load\(path\).*tessera predict takes files",
    ),
    "predict by a path": (lambda c, m: c.predict(stored(c, m), Path("x.jpg")), r"image_input\.load\(path\)\[None\]"),  # type: ignore[arg-type]
    "predict one input": (lambda c, m: c.predict(stored(c, m), np.ones(3)), r"write x\[None\]"),
    "predict nothing": (lambda c, m: c.predict(stored(c, m), np.ones((0, 3))), "at least one"),
    "predict in no range": (lambda c, m: c.predict(stored(c, m), np.ones((1, 3)), low=2, high=1), "the lower first"),
    "predict in half chunks": (lambda c, m: c.predict(stored(c, m), np.ones((4, 3)), chunk=1.5), "number, not 1.5"),  # type: ignore[arg-type]
    "share with half bits": (lambda c, m: c.share(1, fraction_bits=1.5), "a whole number, not 1.5"),  # type: ignore[arg-type]
    "share with no bits": (lambda c, m: c.share(1, fraction_bits=True), "a whole number, not True"),
    "share in no range": (lambda c, m: c.share(1, low=2, high=1), "the lower first"),
    "compute with half bits": (lambda c, m: c.share(1).precise(12.5), "a whole number, not 12.5"),  # type: ignore[arg-type]
    "stock half a run": (lambda c, m: c.stock(c.share(1), 1.5), "a whole number, not 1.5"),  # type: ignore[arg-type]
    "stock a text": (lambda c, m: c.stock(c.share(1), 2, low_water="1"), "a whole number, not '1'"),  # type: ignore[arg-type]
    "keep a tensor": (lambda c, m: c.keep(c.share(1), "k"), "nothing to keep, by name"),  # type: ignore[arg-type]
    "keep a list": (lambda c, m: c.keep([c.share(1)], "k"), "nothing to keep, by name"),  # type: ignore[arg-type]
    "upload under a number": (lambda c, m: c.upload(m, 5), "5 is not a name"),  # type: ignore[call-overload]
    "a model by number": (lambda c, m: c.model(5), "int is none"),  # type: ignore[arg-type]
    "a data set without names": (lambda c, m: ts.DataSet(np.ones(3), low=0, high=1), r"ts\.DataSet\(\{'x'"),  # type: ignore[arg-type]
    "a model of a module": (lambda c, m: ts.Model(torch.nn.Linear(3, 2)), r"ts\.from_torch"),  # type: ignore[arg-type]
    "weights without names": (lambda c, m: ts.Model(ts.Sequential(ts.nn.Linear(3, 2)), [1]), r"net\.state_dict"),  # type: ignore[arg-type]
    "half a party": (lambda c, m: ts.MemoryCluster(2.5), "a whole number, not 2.5"),  # type: ignore[arg-type]
    "share a text": (lambda c, m: c.share("a"), "real numbers"),
    "share nothing": (lambda c, m: c.share(None), "real numbers"),  # type: ignore[arg-type]
    "share rows": (lambda c, m: c.share([1, [2]]), "different lengths"),  # type: ignore[list-item]
    "share complex numbers": (lambda c, m: c.share(1 + 2j), "real numbers"),
    "share what torch differentiates": (lambda c, m: c.share(torch.ones(2, requires_grad=True)), "detach"),
    "share a secret": (lambda c, m: c.share(c.share(1.0)), "a secret has no value"),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("name", INSTEAD)
def test_what_to_write_instead(client: ts.Client, model: ts.Model, name: str) -> None:
    write, sentence = INSTEAD[name]
    with pytest.raises(ts.UsageError, match=sentence) as caught:
        write(client, model)
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(not hasattr(os, "fork") or sys.platform == "darwin", reason="needs fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_client_in_a_forked_process_says_so(client: ts.Client) -> None:
    x = client.share(1.0)
    child = os.fork()
    if child == 0:
        try:
            client.reveal(x)
        except ts.UsageError as error:
            client.close()  # of no effect, and no waiting
            os._exit(7 if "forked" in str(error) else 1)
        finally:
            os._exit(2)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 7
    assert client.reveal(x) == 1.0


OURS = {"mpc", "protocols", "nn", "parties", "tessera"}


def members() -> Iterator[tuple[str, object]]:
    """All that is public of what ``tessera`` and ``tessera.nn`` export, but what comes from elsewhere."""
    exported = [(name, getattr(ts, name)) for name in ts.__all__]
    for name, value in [*exported, *((f"nn.{name}", getattr(ts.nn, name)) for name in ts.nn.__all__)]:
        yield name, value
        for member, what in inspect.getmembers(value) if inspect.isclass(value) else []:
            own = any(member in vars(kind) for kind in value.__mro__ if kind.__module__.partition(".")[0] in OURS)
            if not member.startswith("_") and own and (callable(what) or isinstance(what, property)):
                yield f"{name}.{member}", what


def test_every_public_member_has_a_docstring() -> None:
    assert [name for name, what in members() if not (inspect.getdoc(what) or "").strip()] == []
    assert len(list(members())) > 300
