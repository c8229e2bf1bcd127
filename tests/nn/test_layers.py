"""Layers and models: the parties' result, the plain reference and torch agree; descriptions are checked."""

from __future__ import annotations

import json

import msgspec
import numpy as np
import pytest
import torch
from torch.nn import functional as F

import nn
from mpc.errors import EncodingError, ShapeError, UnsupportedError, UsageError
from nn import (
    GELU,
    Activation,
    AdaptiveAvgPool2d,
    Add,
    Affine,
    Architecture,
    AvgPool2d,
    BatchNorm1d,
    BatchNorm2d,
    Concatenate,
    Conv2d,
    Description,
    Dropout,
    Flatten,
    Function,
    Identity,
    Linear,
    Matmul,
    Mean,
    Model,
    Multiply,
    Parameter,
    Permute,
    Polynomial,
    Reshape,
    Sequential,
    Sigmoid,
    SiLU,
    Softplus,
    Step,
    StoredType,
    Subtract,
    Tanh,
)
from nn.architecture import decode_architecture
from nn.layer import WeightArray
from protocols.approximation import fit


def random_model(layer, rng, input_shape=None, scale=0.5):
    """A model of one layer with random weights."""
    model = Model(Architecture((Step("it", layer, (0,)),), input_shape))
    weights = {name: rng.normal(0, scale, shape) for name, shape in model.architecture.parameters.items()}
    for name in weights:
        if name.endswith("running_var"):
            weights[name] = np.abs(weights[name]) + 0.2
    return model.load_state_dict(weights)


LAYERS = [
    (Linear(6, 4), (3, 6)),
    (Linear(6, 4, bias=False), (2, 5, 6)),
    (Conv2d(3, 4, 3), (2, 3, 6, 7)),
    (Conv2d(3, 4, 3, padding=1, stride=2), (2, 3, 7, 7)),
    (Conv2d(4, 6, (3, 2), padding=(2, 1), groups=2, bias=False), (1, 4, 6, 5)),
    (Conv2d(2, 3, 4, padding="same"), (2, 2, 5, 5)),
    (Conv2d(2, 3, (2, 3), padding="valid"), (2, 2, 5, 5)),
    (Conv2d(4, 4, 3, padding=1, groups=4), (1, 4, 5, 5)),
    (AvgPool2d(2), (2, 3, 6, 6)),
    (AvgPool2d(3, stride=2, padding=1), (2, 3, 7, 7)),
    (AvgPool2d(3, stride=2, padding=1, count_include_pad=False), (2, 3, 7, 7)),
    (AvgPool2d((2, 3)), (1, 2, 5, 7)),
    (AdaptiveAvgPool2d(1), (2, 3, 5, 4)),
    (BatchNorm1d(5), (4, 5)),
    (BatchNorm1d(5, affine=False), (4, 5, 3)),
    (BatchNorm2d(3), (2, 3, 4, 4)),
    (Flatten(), (2, 3, 4)),
    (Flatten(2), (2, 3, 4, 5)),
    (Identity(), (2, 3)),
    (Dropout(0.3), (2, 3)),
    (Affine(-0.3, 1.5), (2, 3)),
    (Affine(1.0, 0.25), (2, 3)),
    (Mean((1,)), (2, 3, 4)),
    (Mean((-1, -2), keepdim=True), (2, 3, 4, 5)),
    (Reshape((2, -1)), (3, 4, 5)),
    (Permute((0, 2, 1)), (3, 4, 5)),
    (Polynomial((0.1, 0.5, -0.25)), (3, 4)),
    (Sigmoid(), (3, 4)),
    (Sigmoid(method="minimax", interval=(-1.0, 1.0)), (3, 4)),
    (Tanh(interval=(-2.0, 2.0)), (3, 4)),
    (SiLU(), (3, 4)),
    (GELU(), (3, 4)),
    (GELU("tanh", interval=(-3.0, 3.0)), (3, 4)),
    (Softplus(), (3, 4)),
    (Softplus(beta=2.0), (3, 4)),
    (Softplus(beta=0.7, interval=(-4.0, 4.0)), (3, 4)),
    (Function("exp", interval=(-1.0, 1.0)), (3, 4)),
    (Function("sin"), (3, 4)),
]


@pytest.mark.parametrize(("layer", "shape"), LAYERS, ids=lambda v: repr(v) if not isinstance(v, tuple) else "")
@pytest.mark.parametrize("parties", [2, 3])
def test_parties_compute_what_plain_says(layer, shape, parties, rng, evaluate):
    model = random_model(layer, rng)
    x = rng.uniform(-1, 1, shape)
    run = evaluate(model, x, parties)
    plain = model.plain(x)
    assert run.result.shape == plain.shape
    error = 0.0 if not hasattr(layer, "fit") else 2 * layer.fit.error
    assert np.abs(run.result - plain).max() <= 5e-4 + error


@pytest.mark.parametrize(("layer", "shape"), LAYERS[:16], ids=lambda v: repr(v) if not isinstance(v, tuple) else "")
def test_plain_is_torch(layer, shape, rng):
    model = random_model(layer, rng)
    x = rng.uniform(-1, 1, shape)
    kind = getattr(torch.nn, type(layer).__name__)
    options = {f: getattr(layer, f) for f in layer.__struct_fields__}
    module = kind(**options).double().eval()
    state = {name.removeprefix("it."): torch.from_numpy(w) for name, w in model.weights.items()}
    module.load_state_dict(state, strict=False)
    want = module(torch.from_numpy(x)).detach().numpy()
    assert np.abs(model.plain(x) - want).max() < 1e-9


@pytest.mark.parametrize(
    ("layer", "function"),
    [
        (Sigmoid(), torch.sigmoid),
        (Tanh(), torch.tanh),
        (SiLU(), F.silu),
        (GELU(), F.gelu),
        (GELU("tanh"), lambda x: F.gelu(x, approximate="tanh")),
        (Softplus(), F.softplus),
        (Softplus(beta=3.0, threshold=12.0), lambda x: F.softplus(x, 3.0, 12.0)),
    ],
)
def test_exact_is_torch_and_the_fit_is_near(layer, function, rng):
    low, high = layer.bounds
    x = rng.uniform(low, high, (50, 20))
    want = function(torch.from_numpy(x)).numpy()
    model = random_model(layer, rng)
    assert np.abs(model.plain(x, exact=True) - want).max() < 1e-9
    assert np.abs(model.plain(x) - want).max() < 1e-3


def test_activation_of_any_fit(rng, evaluate):
    made = fit(lambda x: np.exp(-(x**2)), -2.0, 2.0, 1e-3)
    model = random_model(Activation(made), rng)
    x = rng.uniform(-2, 2, (4, 5))
    run = evaluate(model, x, bound=2.0)
    assert np.abs(run.result - np.exp(-(x**2))).max() < 2e-3
    assert Description.decode(model.describe()).architecture.steps[0].layer == Activation(made)


def test_residuals_joins_and_parameters(rng, evaluate):
    steps = (
        Step("a", Linear(4, 4), (0,)),
        Step("act", Sigmoid(), (1,)),
        Step("add", Add(), (2, 0)),
        Step("gate", Multiply(), (3, 2)),
        Step("less", Subtract(), (4, 0)),
        Step("join", Concatenate(), (5, 3)),
        Step("table", Parameter((8, 3)), ()),
        Step("out", Matmul(), (6, 7)),
        Step("a", Linear(4, 4), (1,)),
        Step("offset", Parameter((3,)), ()),
        Step("sum", Add(), (8, 10)),
    )
    architecture = Architecture(steps)
    weights = {name: rng.normal(0, 0.5, shape) for name, shape in architecture.parameters.items()}
    assert set(weights) == {"a.weight", "a.bias", "table", "offset"}
    model = Model(architecture, weights)
    x = rng.uniform(-1, 1, (3, 4))
    run = evaluate(model, x, 3)
    assert np.abs(run.result - model.plain(x)).max() < 2e-3


class TestDermatologyShape:
    """What the issue asks of the dermatology CNN, with weights of two sizes."""

    NET = Sequential(
        {
            "conv1": Conv2d(3, 16, 3, padding=1),
            "act1": Sigmoid(),
            "pool1": AvgPool2d(2),
            "conv2": Conv2d(16, 32, 3, padding=1),
            "act2": Sigmoid(),
            "pool2": AvgPool2d(2),
            "flatten": Flatten(),
            "fc1": Linear(1568, 64),
            "act3": Sigmoid(),
            "fc2": Linear(64, 7),
        }
    )

    def model(self, rng, scale=1.0):
        architecture = self.NET.architecture((3, 28, 28))
        weights = {
            name: rng.uniform(-1, 1, shape) * scale / np.sqrt(np.prod(shape[1:]) or 1)
            for name, shape in architecture.parameters.items()
        }
        return Model(architecture, weights)

    @pytest.mark.parametrize("scale", [1.0, 4.0])
    @pytest.mark.parametrize("parties", [2, 3])
    def test_result_and_cost(self, rng, evaluate, scale, parties):
        model = self.model(rng, scale)
        x = rng.uniform(-1, 1, (1, 3, 28, 28))
        run = evaluate(model, x, parties)
        assert np.abs(run.result - model.plain(x)).max() < 5e-3
        assert run.cost.online_rounds <= 7
        assert run.cost.online_bytes_per_party <= 200_000 * (parties - 1)
        assert run.cost.offline_bytes <= 3_000_000
        predicted = model.cost((1, 3, 28, 28), parties)
        assert predicted == run.cost

    def test_operations_are_counted_under_their_layers(self, rng):
        layers = self.model(rng).cost((1, 3, 28, 28)).layers
        assert set(layers) - {""} <= {name for name, _ in self.NET.layers}
        assert layers["act1"].opened == 16 * 28 * 28
        assert layers["conv1"].opened == 0

    def test_text(self, rng):
        model = self.model(rng)
        assert "(fc1): Linear(in_features=1568, out_features=64)" in repr(model)
        assert "100,416" in model.summary((1, 3, 28, 28))
        assert model.plain(np.zeros((2, 3, 28, 28))).shape == (2, 7)

    def test_wrong_inputs(self, rng):
        model = self.model(rng)
        with pytest.raises(ShapeError, match=r"\(N, 3, 28, 28\), not \(3, 28, 28\)"):
            model.plain(np.zeros((3, 28, 28)))
        with pytest.raises(EncodingError, match="not finite"):
            model.plain(np.full((1, 3, 28, 28), np.nan))
        with pytest.raises(ShapeError):
            model.cost((1, 3, 27, 28))


class TestStored:
    def test_linear_is_stored_transposed(self, rng):
        model = random_model(Linear(6, 4), rng)
        assert model.stored_types()["it.weight"].shape == (6, 4)
        assert model.encode()["it.weight"].shape == (6, 4)

    def test_bounds_are_powers_of_two_and_hold(self, rng):
        for contracted in (None, (0,)):
            for scale in (1e-6, 1e-3, 0.3, 1.0, 77.0):
                values = rng.normal(0, scale, (9, 5))
                t = StoredType.of(WeightArray(values, contracted), "w")
                assert np.log2(t.high).is_integer()
                assert t.low == -t.high
                assert np.abs(values).max() <= t.high + 2.0**-t.fraction_bits
                if contracted:
                    assert np.abs(values).sum(axis=0).max() <= t.gain + 9 * 2.0**-t.fraction_bits
                t.encode(WeightArray(values, contracted), "w")

    def test_small_weights_keep_their_precision(self, rng, evaluate):
        model = random_model(Linear(50, 3), rng, scale=1e-3)
        x = rng.uniform(-1, 1, (2, 50))
        assert np.abs(evaluate(model, x).result - model.plain(x)).max() < 1e-5

    def test_a_weight_at_its_bound_encodes(self):
        w = WeightArray(np.array([[1.0 + 1e-9]]), (0,))
        StoredType.of(w, "w").encode(w, "w")

    def test_zeros(self, evaluate):
        model = Model(Sequential(Linear(2, 2)), {"0.weight": np.zeros((2, 2)), "0.bias": np.zeros(2)})
        assert np.abs(evaluate(model, np.ones((1, 2))).result).max() < 1e-4


class TestFold:
    def test_batch_norms_disappear_and_nothing_changes(self, rng, evaluate):
        net = Sequential(
            {
                "conv": Conv2d(2, 4, 3, bias=False),
                "norm": BatchNorm2d(4),
                "act": Sigmoid(),
                "lone": BatchNorm2d(4),
                "flat": Flatten(),
                "fc": Linear(36, 5),
                "norm1": BatchNorm1d(5),
            }
        )
        weights = {name: rng.uniform(0.2, 1, s) for name, s in net.architecture().parameters.items()}
        model = Model(net, weights)
        folded = model.fold()
        assert list(folded.architecture.layers) == ["conv", "act", "lone", "flat", "fc"]
        x = rng.uniform(-1, 1, (3, 2, 5, 5))
        assert np.abs(folded.plain(x, exact=True) - model.plain(x, exact=True)).max() < 1e-9
        run = evaluate(folded, x)
        assert np.abs(run.result - folded.plain(x)).max() < 1e-2

    def test_a_result_used_elsewhere_is_not_folded(self, rng):
        steps = (
            Step("fc", Linear(3, 3), (0,)),
            Step("norm", BatchNorm1d(3), (1,)),
            Step("add", Add(), (1, 2)),
        )
        architecture = Architecture(steps)
        model = Model(architecture, {n: rng.uniform(0.2, 1, s) for n, s in architecture.parameters.items()})
        assert model.fold().architecture == architecture


class TestDescription:
    def test_round_trip(self, rng):
        model = random_model(Conv2d(3, 4, 3, padding="same"), rng, (3, 8, 8))
        description = Description.decode(model.describe())
        assert description == model.description
        assert description.cost((1, 3, 8, 8)) == model.cost((1, 3, 8, 8))
        assert b"weight" in model.describe()

    @pytest.mark.parametrize(
        "change",
        [
            lambda d: d | {"extra": 1},
            lambda d: d | {"format": 2},
            lambda d: d | {"tensors": {}},
            lambda d: d | {"tensors": d["tensors"] | {"other": d["tensors"]["it.bias"]}},
            lambda d: d | {"architecture": {"steps": []}},
            lambda d: d | {"architecture": d["architecture"] | {"input_shape": [-1]}},
            lambda d: d | {"tensors": d["tensors"] | {"it.bias": d["tensors"]["it.bias"] | {"fraction_bits": 99}}},
        ],
    )
    def test_what_is_wrong_is_refused(self, rng, change):
        model = random_model(Linear(3, 2), rng)
        data = json.dumps(change(json.loads(model.describe()))).encode()
        with pytest.raises(UnsupportedError):
            Description.decode(data)

    @pytest.mark.parametrize(
        "layer",
        [
            {"type": "Linear", "in_features": 10**12, "out_features": 1},
            {"type": "Linear", "in_features": -3, "out_features": 1},
            {"type": "Linear", "in_features": 2**24, "out_features": 2**24},
            {"type": "Linear", "in_features": 3, "out_features": 1, "unknown": 1},
            {"type": "Conv2d", "in_channels": 3, "out_channels": 3, "kernel_size": [1, 2, 3]},
            {"type": "Conv2d", "in_channels": 3, "out_channels": 3, "kernel_size": 3, "padding": "wide"},
            {"type": "os.system"},
            {"type": "BatchNorm"},
            {"type": "Sigmoid", "interval": [3, -3]},
            {"type": "Sigmoid", "interval": [-1e300, 1e300]},
            {"type": "Sigmoid", "terms": 10**9},
            {"type": "Polynomial", "coefficients": []},
            {"type": "Polynomial", "coefficients": [0.0] * 1000},
            {"type": "Function", "name": "system"},
            {"type": "Reshape", "shape": [-1, -1]},
            {"type": "Flatten", "start_dim": 0},
        ],
    )
    def test_arguments_out_of_bounds_are_refused(self, layer):
        data = json.dumps({"steps": [{"name": "a", "layer": layer, "inputs": [0]}]}).encode()
        with pytest.raises(UnsupportedError):
            decode_architecture(data)

    @pytest.mark.parametrize("data", [b"", b"{", b"[]", b"\xff\xfe", b"[" * 100_000, b'{"steps": [1e999]}'])
    def test_garbage_is_refused(self, data):
        with pytest.raises(UnsupportedError):
            decode_architecture(data)
        with pytest.raises(UnsupportedError):
            Description.decode(data)

    @pytest.mark.parametrize(
        "steps",
        [
            (),
            (Step("a", Identity(), (1,)),),
            (Step("a", Identity(), (0, 0)),),
            (Step("a", Concatenate(), ()),),
            (Step("a\n", Identity(), (0,)),),
            (Step("", Identity(), (0,)),),
            (Step("a", Linear(2, 2), (0,)), Step("a", Linear(2, 3), (1,))),
        ],
    )
    def test_steps_that_do_not_go_together(self, steps):
        with pytest.raises(UnsupportedError):
            Architecture(steps)

    def test_a_fit_that_nobody_made(self):
        made = fit(np.sin, -1.0, 1.0, 1e-3)
        for change in ({"multiplier": 0}, {"period_log2": 10**6}, {"low": 2.0}, {"sines": (float("inf"),)}):
            with pytest.raises(UnsupportedError):
                Activation(msgspec.structs.replace(made, **change))


class TestModel:
    def test_weights_are_checked(self):
        model = Model(Sequential(Linear(2, 3)))
        good = {"0.weight": np.ones((3, 2)), "0.bias": np.ones(3)}
        with pytest.raises(UsageError, match="load_state_dict"):
            model.plain(np.ones((1, 2)))
        with pytest.raises(UsageError, match=r"lack 0\.bias"):
            model.load_state_dict({"0.weight": np.ones((3, 2))})
        with pytest.raises(UsageError, match="unknown other"):
            model.load_state_dict(good | {"other": np.ones(3)})
        with pytest.raises(ShapeError, match=r"0\.weight has shape"):
            model.load_state_dict(good | {"0.weight": np.ones((2, 3))})
        with pytest.raises(EncodingError, match=r"0\.bias holds values that are not finite"):
            model.load_state_dict(good | {"0.bias": np.full(3, np.inf)})
        with pytest.raises(EncodingError, match=r"0\.bias"):
            model.load_state_dict(good | {"0.bias": np.ones(3, complex)})
        assert model.load_state_dict(good).plain(np.ones((1, 2))).tolist() == [[3.0, 3.0, 3.0]]

    def test_errors_name_the_layer(self, rng):
        model = Model(Sequential({"first": Linear(2, 3), "second": Linear(4, 1)}))
        model.load_state_dict({n: np.ones(s) for n, s in model.architecture.parameters.items()})
        with pytest.raises(ShapeError, match="layer 'second'"):
            model.plain(np.ones((1, 2)))
        with pytest.raises(ShapeError, match="layer 'second'"):
            model.cost((1, 2))

    def test_nested_sequential_names(self):
        net = Sequential({"features": Sequential(Linear(2, 3), Sigmoid()), "out": Linear(3, 1)})
        assert list(net.architecture().layers) == ["features.0", "features.1", "out"]

    def test_missing_stored_tensor(self, rng):
        model = random_model(Linear(2, 2), rng)
        stored = model.description.stored("m")
        del stored["it.bias"]
        with pytest.raises(UsageError, match=r"it\.bias"):
            model.forward(next(iter(stored.values())), stored)

    def test_the_public_face(self):
        for name in nn.__all__:
            assert hasattr(nn, name), name
