"""What users of other libraries write at first: it does what is meant, or says what to write instead."""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Callable, Iterator
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
    """All that is public of what ``tessera`` exports, but what comes from elsewhere."""
    for name in ts.__all__:
        value = getattr(ts, name)
        yield name, value
        for member, what in inspect.getmembers(value) if inspect.isclass(value) else []:
            own = any(member in vars(kind) for kind in value.__mro__ if kind.__module__.partition(".")[0] in OURS)
            if not member.startswith("_") and own and (callable(what) or isinstance(what, property)):
                yield f"{name}.{member}", what


def test_every_public_member_has_a_docstring() -> None:
    assert [name for name, what in members() if not (inspect.getdoc(what) or "").strip()] == []
    assert len(list(members())) > 300
