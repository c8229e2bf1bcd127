"""One tensor of a network in several places is stored once."""

from __future__ import annotations

import io
import json

import msgspec
import numpy as np
import pytest
import torch
from torch import nn as tn

from mpc.errors import EncodingError, UnsupportedError
from nn import Architecture, Embedding, Linear, Model, from_onnx, from_torch
from nn.architecture import Step
from nn.importing.fixed import up_to
from nn.model import Description

ROWS, WIDTH = 9, 4


class Words(tn.Module):
    """What it looks words up in says which come next, too."""

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.words, self.out = tn.Embedding(ROWS, WIDTH), tn.Linear(WIDTH, ROWS)
        self.words.weight.data *= scale
        self.out.weight = self.words.weight

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.out(torch.tanh(self.words(ids)))


def by_hand(rng: np.random.Generator) -> Model:
    steps = (Step("words", Embedding(ROWS, WIDTH, transposed=True), (0,)), Step("out", Linear(WIDTH, ROWS), (1,)))
    architecture = Architecture(steps, (2, ROWS), {"words.weight": "out.weight"})
    return Model(architecture, {n: rng.uniform(-1, 1, s) for n, s in architecture.parameters.items()})


def test_a_table_that_is_the_output_is_stored_once_and_read_in_both_places(rng, evaluate):
    model = by_hand(rng)
    assert {name: t.shape for name, t in model.stored_types().items()} == {
        "out.weight": (WIDTH, ROWS),
        "out.bias": (ROWS,),
    }
    x = np.eye(ROWS)[rng.integers(0, ROWS, (3, 2))]
    table = model.weights["out.weight"]
    want = x @ table @ table.T + model.weights["out.bias"]
    np.testing.assert_allclose(model.plain(x), want, atol=1e-12)
    # Each row of the table is found with an error of 2^-23, and inputs of the product are cut to 16 bits at the least.
    found = evaluate(model, x)
    np.testing.assert_allclose(found.result, want, atol=(WIDTH + 1) * 2.0**-15)
    # Of the one product the input is masked, of the other what was found; the table for neither.
    assert found.cost.online_rounds == evaluate(untied(model), x).cost.online_rounds
    assert sum(node.operation.tensor == "out.weight" for node in stored_of(found.program)) == 1


def untied(model: Model) -> Model:
    apart = msgspec.structs.replace(model.architecture, tied={})
    return Model(apart, model.state_dict())


def stored_of(program):
    return [node for node in program.nodes if hasattr(node.operation, "tensor")]


def test_torchs_tied_table_comes_over_as_one():
    net, ids = Words(), torch.arange(6).reshape(3, 2)
    model = from_torch(net, ids)
    (held,) = (name for name, t in model.stored_types().items() if len(t.shape) == 2)
    assert model.stored_types()[held].fraction_bits == 22  # the table's, of which the projection had 17
    assert len(model.architecture.tied) == 1
    with torch.no_grad():
        want = net.double()(ids).numpy()
    x = np.eye(ROWS)[ids.numpy()]
    np.testing.assert_allclose(model.plain(x, exact=True), want, atol=1e-6)
    # The first layers alone have it, too, where the one that it is stored for comes last.
    first = up_to(model, next(n for n, s in enumerate(model.architecture.steps) if isinstance(s.layer, Embedding)))
    np.testing.assert_array_equal(first.plain(x), model.values(x)[len(first.architecture.steps)])


def test_where_one_encoding_is_not_enough_there_are_two():
    # 22 fraction bits, and 2^8 of a sum of magnitudes: inputs of 2^15 would be cut.
    model = from_torch(Words(30.0), torch.arange(6).reshape(3, 2))
    assert not model.architecture.tied
    assert sorted(t.fraction_bits for t in model.stored_types().values() if len(t.shape) == 2) == [14, 22]


def test_equal_weights_that_are_not_one_are_two():
    net = tn.Sequential(tn.Linear(3, 3), tn.Sigmoid(), tn.Linear(3, 3))
    net[2].load_state_dict(net[0].state_dict())
    assert not from_torch(net).architecture.tied


def test_a_norm_is_not_folded_into_what_is_anothers_too():
    net = tn.Sequential(tn.Linear(3, 3), tn.Sigmoid(), tn.Linear(3, 3), tn.BatchNorm1d(3)).eval()
    net[2].weight = net[0].weight
    net[3].running_mean += 1.0
    model, x = from_torch(net), torch.randn(2, 3)
    assert model.architecture.tied == {"2.weight": "0.weight"}
    np.testing.assert_allclose(model.plain(x.numpy(), exact=True), net.double()(x.double()).detach(), atol=1e-6)


def test_an_initializer_of_onnx_that_is_used_twice():
    onnx = pytest.importorskip("onnx")
    weight = np.random.default_rng(1).uniform(-1, 1, (3, 3)).astype(np.float32)
    nodes = [
        onnx.helper.make_node("Gemm", ["x", "w"], ["y"], transB=1),
        onnx.helper.make_node("Sigmoid", ["y"], ["z"]),
        onnx.helper.make_node("Gemm", ["z", "w", "b"], ["r"], transB=1),
    ]
    takes, gives = (onnx.helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, ["N", 3]) for n in "xr")
    held = [onnx.numpy_helper.from_array(a, n) for n, a in (("w", weight), ("b", weight[0]))]
    graph = onnx.helper.make_graph(nodes, "g", [takes], [gives], held)
    file = io.BytesIO(onnx.helper.make_model(graph).SerializeToString())
    model = from_onnx(file.getvalue(), np.random.default_rng(2).uniform(-1, 1, (4, 3)))
    assert [t.shape for t in model.stored_types().values()].count((3, 3)) == 1


def test_weights_are_given_under_each_of_its_names_or_one(rng):
    model = by_hand(rng)
    table = model.weights["out.weight"]
    assert (model.state_dict()["words.weight"] == table).all()
    one = {"words.weight": table, "out.bias": model.weights["out.bias"]}
    for weights in (model.state_dict(), one):
        assert (Model(model.architecture, weights).weights["out.weight"] == table).all()
    with pytest.raises(EncodingError, match=r"words\.weight and out\.weight are one tensor"):
        model.load_state_dict({**model.state_dict(), "words.weight": table + 1})


@pytest.mark.parametrize(
    "tied",
    [
        {"words.weight": "words.weight"},
        {"words.weight": "out.bias"},
        {"words.weight": "out.other"},
        {"none.weight": "out.weight"},
        {"": ""},
        {"words.weight": "out.weight", "out.weight": "words.weight"},
    ],
)
def test_what_a_stranger_says_is_one_is_checked(rng, tied):
    said = json.loads(by_hand(rng).describe())
    said["architecture"]["tied"] = tied
    with pytest.raises(UnsupportedError):
        Description.decode(json.dumps(said).encode())
