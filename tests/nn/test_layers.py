"""Layers and models: the parties' result, the plain reference and torch agree; descriptions are checked."""

from __future__ import annotations

import json

import msgspec
import numpy as np
import pytest
import torch
from torch.nn import functional as F

import nn
from mpc.errors import EncodingError, RangeError, ShapeError, UnsupportedError, UsageError
from mpc.operation import Input
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
    Mish,
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
from nn.activations import fit_error
from nn.architecture import decode_architecture
from nn.layer import WeightArray
from protocols.approximation import CompositeFit, PolynomialFit, fit
from protocols.trace.secret_tensor import leaf


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
    (AvgPool2d((3, 2), padding=(1, 0), count_include_pad=False), (1, 2, 5, 4)),
    (Conv2d(2, 3, (4, 3), padding="same"), (2, 2, 5, 5)),
    (Conv2d(2, 3, (3, 4), padding="same"), (2, 2, 5, 5)),
    (Conv2d(1, 2, 2), (33, 1, 3, 3)),  # more images than are unrolled at once
    (BatchNorm2d(3, eps=0.5), (2, 3, 4, 4)),
    (Flatten(1, 2), (2, 3, 4, 5)),
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


@pytest.mark.sampled(4)
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


@pytest.mark.parametrize(("layer", "shape"), LAYERS[:24], ids=lambda v: repr(v) if not isinstance(v, tuple) else "")
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
        (Mish(), F.mish),
        (Function("erf"), torch.erf),
    ],
)
def test_exact_is_torch_and_the_fit_is_near(layer, function, rng):
    assert layer.bounds is None
    x = np.concatenate([rng.uniform(-8, 8, (50, 20)), rng.uniform(-200, 200, (50, 20))])
    want = function(torch.from_numpy(x)).numpy()
    model = random_model(layer, rng)
    assert np.abs(model.plain(x, exact=True) - want).max() < 1e-9
    assert np.abs(model.plain(x) - want).max() < 1e-3


@pytest.mark.sampled(3)
@pytest.mark.parametrize("kind", [Sigmoid, GELU, lambda **o: GELU("tanh", **o), lambda **o: Function("exp", **o)])
def test_a_fit_is_the_one_that_was_asked_for(kind):
    """Fits are kept once they are made: by all that they depend on."""
    for _ in range(2):
        for interval in ((-1.0, 1.0), (-2.0, 2.0)):
            for n in (2, 5):
                polynomial = kind(method="minimax", degree=n, interval=interval)
                assert polynomial.fit.degree == n
                assert polynomial.bounds == interval
                wave = kind(terms=n, interval=interval)
                assert wave.fit.terms == n
                assert wave.bounds == interval


@pytest.mark.parametrize("beta", [0.5, 1.0, 3.0])
def test_softplus_is_linear_from_its_threshold_on(beta):
    x = torch.linspace(-30 / beta, 60 / beta, 1001, dtype=torch.float64)
    for threshold in (10.0, 12.0, 20.0):
        got = Softplus(beta, threshold).exact(x.numpy())
        assert np.abs(got - F.softplus(x, beta, threshold).numpy()).max() < 1e-12


@pytest.mark.parametrize(
    "layer",
    [
        Softplus(beta=2.0, interval=(-4.0, 4.0)),
        Softplus(beta=0.5, interval=(-16.0, 16.0)),
        Sigmoid(interval=(-8.0, 8.0)),
        SiLU(interval=(-3.0, 3.0)),
    ],
)
def test_the_error_is_that_of_the_layer(layer):
    low, high = layer.bounds
    x = np.linspace(low, high, 20_001)
    found = np.abs(layer.plain(x, weights={}) - layer.plain(x, weights={}, exact=True)).max()
    assert found == pytest.approx(fit_error(layer), rel=0.02)


def test_dimensions_of_a_batch_are_not_mixed(rng):
    for layer in (Mean((-2,)), Mean((-1, -2)), Concatenate(-2), Flatten(-2, -1), Flatten(1, -2)):
        model = random_model(layer, rng)
        with pytest.raises(ShapeError):
            model.cost((2, 3))
        with pytest.raises(ShapeError):
            model.plain(np.zeros((2, 3)))


def test_images_of_other_channels(rng):
    for layer in (Conv2d(3, 2, 1), BatchNorm2d(3)):
        model = random_model(layer, rng)
        with pytest.raises(ShapeError, match=r"takes .*3"):
            model.plain(np.zeros((1, 2, 4, 4)))
        with pytest.raises(ShapeError):
            model.cost((1, 2, 4, 4))


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
            "act1": Sigmoid(interval=(-8.0, 8.0)),
            "pool1": AvgPool2d(2),
            "conv2": Conv2d(16, 32, 3, padding=1),
            "act2": Sigmoid(interval=(-8.0, 8.0)),
            "pool2": AvgPool2d(2),
            "flatten": Flatten(),
            "fc1": Linear(1568, 64),
            "act3": Sigmoid(interval=(-8.0, 8.0)),
            "fc2": Linear(64, 7),
        }
    )
    SAFE = Sequential({name: Sigmoid() if isinstance(layer, Sigmoid) else layer for name, layer in NET.layers})
    """Right on any input."""

    def model(self, rng, scale=1.0, net=NET):
        architecture = net.architecture((3, 28, 28))
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
        assert run.cost.online_rounds <= 8
        assert run.cost.online_bytes_per_party <= 230_000 * (parties - 1)
        assert run.cost.offline_bytes <= 3_500_000
        predicted = model.cost((1, 3, 28, 28), parties)
        assert predicted == run.cost

    def test_with_tails_any_input_is_right_in_ten_rounds(self, rng, evaluate):
        model = self.model(rng, 10.0, self.SAFE)
        x = rng.uniform(-1, 1, (1, 3, 28, 28))
        assert all(np.abs(model.values(x)[i]).max() > 10 for i in (1, 4))
        run = evaluate(model, x, 2)
        assert np.abs(run.result - model.plain(x, exact=True)).max() < 1e-2
        assert run.cost.online_rounds == 10
        assert model.cost((1, 3, 28, 28), 2) == run.cost

    def test_operations_are_counted_under_their_layers(self, rng):
        layers = self.model(rng).cost((1, 3, 28, 28)).layers
        assert set(layers) - {"", "range check", "interval check"} <= {name for name, _ in self.NET.layers}
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


def test_a_polynomial_declares_its_interval():
    """What is not declared has to fit the field as if it could be anything the input can be."""
    x = leaf(Input((3,), 16, -8.0, 8.0))
    for interval, largest in ((None, 64.0), ((-1.0, 2.0), 4.0), ((-100.0, 2.0), 64.0)):
        y = Polynomial((0.0, 0.0, 1.0), interval=interval).forward(x, weights={})
        assert largest <= y.type.high < 1.05 * largest
    with pytest.raises(RangeError, match="cannot lie in"):
        Polynomial((0.0, 1.0), interval=(9.0, 10.0)).forward(x, weights={})


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

    def test_a_norm_that_is_used_twice_is_not_folded(self, rng):
        steps = (
            Step("a", Linear(3, 3), (0,)),
            Step("norm", BatchNorm1d(3), (1,)),
            Step("b", Linear(3, 3), (2,)),
            Step("norm", BatchNorm1d(3), (3,)),
        )
        architecture = Architecture(steps, (3,))
        model = Model(architecture, {n: rng.uniform(0.2, 1, s) for n, s in architecture.parameters.items()})
        assert model.fold().architecture == architecture

    @pytest.mark.parametrize(
        ("before", "norm", "shape"),
        [
            (Linear(3, 4), BatchNorm1d(4), (3,)),
            (Linear(3, 4), BatchNorm1d(5), (5, 3)),
            (Linear(3, 5), BatchNorm1d(5), (5, 3)),
            (Conv2d(2, 4, 1), BatchNorm2d(4), (2, 3, 3)),
        ],
    )
    def test_a_norm_is_folded_where_its_channels_are_the_outputs(self, before, norm, shape, rng):
        architecture = Sequential({"before": before, "norm": norm}).architecture(shape)
        model = Model(architecture, {n: rng.uniform(0.2, 1, s) for n, s in architecture.parameters.items()})
        folded = model.fold()
        x = rng.uniform(-1, 1, (2, *shape))
        assert np.abs(folded.plain(x) - model.plain(x)).max() < 1e-9
        assert len(folded.architecture.steps) == (2 if len(shape) == 2 else 1)
        assert folded.architecture.input_shape == shape

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
            {"type": "Polynomial", "coefficients": [0.0, 1.0], "interval": [1, -1]},
            {"type": "Polynomial", "coefficients": [0.0, 1.0], "interval": [0, 2**21]},
            {"type": "Polynomial", "coefficients": [0.0] * 1000},
            {"type": "Function", "name": "system"},
            {"type": "Reshape", "shape": [-1, -1]},
            {"type": "Flatten", "start_dim": 0},
            {"type": "Sigmoid", "interval": [-(2**21), 0]},
            {"type": "Sigmoid", "interval": [0, 2**21]},
            {"type": "Function", "name": "exp", "interval": [1, 0]},
            {"type": "Softplus", "interval": [1, 0]},
            {"type": "Softplus", "threshold": 9.0},
            {"type": "Softplus", "beta": 2.0**-11},
            {"type": "Softplus", "beta": 2.0**11},
            {"type": "Conv2d", "in_channels": 3, "out_channels": 4, "kernel_size": 1, "groups": 2},
            {"type": "Conv2d", "in_channels": 4, "out_channels": 3, "kernel_size": 1, "groups": 2},
            {"type": "AvgPool2d", "kernel_size": 3, "padding": 2},
            {"type": "AvgPool2d", "kernel_size": [4, 3], "padding": [2, 2]},
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
            (Step("a" * 201, Identity(), (0,)),),
            tuple(Step(f"layer{n}", Linear(2**14, 2**14, bias=False), (n,)) for n in range(5)),
            (Step("a", Linear(2, 2), (0,)), Step("a", Linear(2, 3), (1,))),
        ],
    )
    def test_steps_that_do_not_go_together(self, steps):
        with pytest.raises(UnsupportedError):
            Architecture(steps)

    def test_an_input_has_as_many_dimensions_as_a_tensor_can_have(self):
        steps = (Step("a", Identity(), (0,)),)
        assert Architecture(steps, (1,) * 15).input_shape == (1,) * 15
        with pytest.raises(UnsupportedError):
            Architecture(steps, (1,) * 16)  # the batch is one more

    def test_a_stranger_writes_nothing_to_the_terminal(self):
        with pytest.raises(UnsupportedError) as caught:
            decode_architecture(b'{"steps": [], "\\u001b[2J": 1}')
        assert str(caught.value).isprintable()

    @pytest.mark.parametrize(
        "change",
        [{"gain": -1.0}, {"gain": None, "high": -2.0}, {"shape": [2, 3, 4]}, {"fraction_bits": -1}],
    )
    def test_types_of_stored_tensors_are_checked(self, rng, change):
        described = json.loads(random_model(Linear(3, 2), rng).describe())
        described["tensors"]["it.weight"] |= change
        with pytest.raises(UnsupportedError):
            Description.decode(json.dumps(described).encode())

    def test_a_fit_that_nobody_made(self):
        made = fit(np.sin, -1.0, 1.0, 1e-3)
        infinite = float("inf")
        for change in (
            {"multiplier": 0},
            {"multiplier": 64},
            {"period_log2": 10**6},
            {"low": 2.0},
            {"sines": (infinite,)},
            {"cosines": (infinite,)},
            {"constant": infinite},
            {"error": infinite},
            {"sines": (0.1,) * 33},
            {"cosines": (), "sines": ()},
        ):
            with pytest.raises(UnsupportedError):
                Activation(msgspec.structs.replace(made, **change))
        polynomial = PolynomialFit((0.0, 1.0), -1.0, 1.0, 0.1)
        chain = CompositeFit((polynomial, polynomial), -1.0, 1.0, 0.1)
        assert Activation(chain).bounds == (-1.0, 1.0)
        for change in ({"coefficients": (0.0, infinite)}, {"coefficients": ()}, {"coefficients": (0.1,) * 34}):
            wrong = msgspec.structs.replace(polynomial, **change)
            for each in (wrong, msgspec.structs.replace(chain, stages=(polynomial, wrong))):
                with pytest.raises(UnsupportedError):
                    Activation(each)
        with pytest.raises(UnsupportedError):
            Activation(msgspec.structs.replace(chain, stages=()))


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

    def test_other_weights_are_another_description(self, rng):
        model = random_model(Linear(3, 2), rng)
        before = model.description
        stored = model.encode()
        model.load_state_dict({name: 8 * w for name, w in model.weights.items()})
        assert model.description != before
        assert not np.array_equal(model.encode()["it.weight"], stored["it.weight"])

    def test_what_torch_counts_is_no_weight(self):
        model = Model(Sequential({"norm": BatchNorm1d(2)}))
        weights = {name: np.ones(2) for name in model.architecture.parameters}
        assert (
            model.load_state_dict(weights | {"norm.num_batches_tracked": np.array(7)}).weights.keys() == weights.keys()
        )

    def test_a_program_takes_the_range_that_was_asked_for(self, rng):
        description = random_model(Linear(3, 2), rng).description
        program = description.program((4, 3), low=-0.25, high=3.0, fraction_bits=12, precision=10)
        (given,) = (program.nodes[i].type for i in program.inputs)
        assert (given.shape, given.low, given.high, given.fraction_bits) == ((4, 3), -0.25, 3.0, 12)
        assert program.precision == 10

    def test_a_result_belongs_to_no_layer(self, rng):
        description = random_model(Linear(3, 2), rng).description
        x = description.stored("m")["it.weight"].T
        assert description.forward(x, description.stored("m")).label == ""

    def test_what_is_settled_keeps_its_input(self):
        architecture = Sequential({"act": Sigmoid(interval=(-2.0, 2.0))}).architecture((3,))
        assert architecture.settled != architecture
        assert architecture.settled.input_shape == (3,)

    def test_missing_stored_tensor(self, rng):
        model = random_model(Linear(2, 2), rng)
        stored = model.description.stored("m")
        del stored["it.bias"]
        with pytest.raises(UsageError, match=r"it\.bias"):
            model.forward(next(iter(stored.values())), stored)

    def test_the_public_face(self):
        for name in nn.__all__:
            assert hasattr(nn, name), name
