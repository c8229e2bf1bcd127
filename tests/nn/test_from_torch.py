"""from_torch: modules and Python forwards come over as they are; what cannot is refused by name and reason."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn as tn
from torch.nn import functional as F

from mpc.errors import EncodingError, ShapeError, UnsupportedError
from nn import Activation, Linear, Sigmoid, from_torch
from nn.importing.torch_activation import FitActivation
from protocols.approximation import default_fit, fit

pytestmark = pytest.mark.filterwarnings("ignore::protocols.RangeWarning")


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def check(module, x, evaluate=None, **options):
    """torch, the exact plain model and, if asked, the parties agree; returns the model."""
    model = from_torch(module, **options)
    module.eval()
    want = module(x).detach().numpy()
    assert np.abs(model.plain(x.numpy(), exact=True) - want).max() < 1e-5
    if evaluate is not None:
        run = evaluate(model, x.double().numpy())
        assert np.abs(run.result - model.plain(x.numpy())).max() < 5e-3
    return model


class Residual(tn.Module):
    def __init__(self, channels):
        super().__init__()
        self.conv1 = tn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm1 = tn.BatchNorm2d(channels)
        self.conv2 = tn.Conv2d(channels, channels, 3, padding=1)
        self.act = tn.SiLU()

    def forward(self, x):
        y = self.act(self.norm1(self.conv1(x)))
        return x + self.conv2(y)


class Everything(tn.Module):
    """Most of what a forward can say."""

    def __init__(self):
        super().__init__()
        self.stem = tn.Conv2d(3, 4, 3, padding="same")
        self.blocks = tn.Sequential(Residual(4), Residual(4))
        self.drop = tn.Dropout(0.5)
        self.scale = tn.Parameter(torch.rand(4, 1, 1))
        self.matrix = tn.Parameter(torch.randn(8, 5) / 3)
        self.weight = tn.Parameter(torch.randn(6, 5) / 3)
        self.bias = tn.Parameter(torch.randn(6))
        self.register_buffer("offset", torch.linspace(-1, 1, 5))
        self.head = tn.Linear(6, 2)

    def forward(self, x):
        x = torch.tanh(self.stem(x))
        x = self.blocks(x) * self.scale
        x = F.avg_pool2d(x, 2)
        gate = torch.sigmoid(x.mean((2, 3), keepdim=True))
        y = (x * gate).mean(dim=[-2, -1])
        z = F.adaptive_avg_pool2d(x, 1).view(x.size(0), -1)
        x = torch.cat([y, z], dim=1)
        x = F.gelu(x @ self.matrix + self.offset)
        x = F.linear(x, self.weight, self.bias)
        x = F.dropout(x, 0.2, self.training)
        x = (2 - x / 4) * 0.5 + 1
        return self.head(self.drop(-x)).flatten(1) ** 2


def test_a_forward_with_most_of_what_there_is(evaluate):
    module = Everything()
    with torch.no_grad():
        for norm in (m for m in module.modules() if isinstance(m, tn.BatchNorm2d)):
            norm.running_mean.uniform_(-0.3, 0.3)
            norm.running_var.uniform_(0.5, 1.5)
    model = check(module, torch.rand(2, 3, 8, 8) * 2 - 1, evaluate)
    names = list(model.architecture.layers)
    assert "blocks.0.conv1" in names
    assert "blocks.0.norm1" not in names
    assert {"scale", "matrix", "offset", "stem.weight"} <= set(model.state_dict())


def test_dermatology_network(evaluate):
    net = tn.Sequential(
        tn.Conv2d(3, 16, 3, padding=1), tn.Sigmoid(), tn.AvgPool2d(2),
        tn.Conv2d(16, 32, 3, padding=1), tn.Sigmoid(), tn.AvgPool2d(2),
        tn.Flatten(), tn.Linear(1568, 64), tn.Sigmoid(), tn.Linear(64, 7),
    )  # fmt: skip
    x = torch.rand(2, 3, 28, 28) * 2 - 1
    for interval, rounds in ((None, 10), ((-8.0, 8.0), 8)):
        model = check(net, x, example_input=x[:1], interval=interval)
        assert model.architecture.input_shape == (3, 28, 28)
        for parties in (2, 3):
            run = evaluate(model, x.double().numpy(), parties)
            assert np.abs(run.result - net(x).detach().numpy()).max() < 0.01
            assert run.cost.online_rounds == rounds


@pytest.mark.parametrize(
    "forward",
    [
        lambda x: torch.flatten(x, 1),
        lambda x: x.flatten(start_dim=1),
        lambda x: x.view(x.shape[0], -1),
        lambda x: x.reshape((x.size()[0], 24)),
        lambda x: x.view(-1, 24),
        lambda x: x.permute(0, 3, 1, 2),
        lambda x: torch.permute(x, (0, 2, 1, 3)),
        lambda x: 1 - x,
        lambda x: torch.add(x, x),
        lambda x: x.add(1).mul(0.5).sub(x),
        lambda x: torch.pow(x, 3),
        lambda x: torch.square(x) - x**2,
        lambda x: F.softplus(x, 2.0),
        lambda x: F.gelu(x, approximate="tanh"),
        lambda x: F.silu(x),
        lambda x: torch.exp(x - 1),
        lambda x: torch.cos(x) + x.sin(),
        lambda x: x / (x + 3),
        lambda x: torch.matmul(x, x.permute(0, 1, 3, 2)),
        lambda x: torch.cat((x, x), -1),
        lambda x: torch.cat((x, x), axis=2),
        lambda x: x.flatten(1, 2),
        lambda x: torch.flatten(x, 2, 3),
        lambda x: F.avg_pool2d(x, 2, stride=1),
        lambda x: F.avg_pool2d(x, 2, padding=1, count_include_pad=False),
        lambda x: x.mean(2, True),
        lambda x: torch.mean(x, 1),
        lambda x: x.contiguous(),
        lambda x: x,
    ],
)
def test_functions(forward, evaluate):
    class Module(tn.Module):
        def forward(self, x):
            return forward(x)

    check(Module(), torch.rand(2, 2, 3, 4) * 2 - 1, evaluate)


@pytest.mark.parametrize(
    "forward",
    [
        lambda x: x.unsqueeze(1),
        lambda x: torch.squeeze(x.mean(1, keepdim=True), 1),
        lambda x: x.view(x.size(0), x.size(1), x.size(2) * 4),
        lambda x: x.view(2, 24),
    ],
)
def test_sizes_that_need_an_example(forward):
    class Module(tn.Module):
        def forward(self, x):
            return forward(x)

    x = torch.rand(2, 2, 3, 4)
    check(Module(), x, example_input=x)


@pytest.mark.parametrize("make", [lambda: tn.Linear(4, 3), lambda: tn.Sequential(tn.Linear(4, 3)), tn.Sigmoid])
def test_a_single_layer(make):
    check(make(), torch.rand(2, 4))


def test_batch_norm_variants(evaluate):
    net = tn.Sequential(
        tn.BatchNorm2d(3), tn.Conv2d(3, 2, 2, groups=1), tn.BatchNorm2d(2, affine=False), tn.Flatten(),
        tn.Linear(8, 4, bias=False), tn.BatchNorm1d(4), tn.Tanh(),
    )  # fmt: skip
    net.train()
    for _ in range(3):
        net(torch.rand(8, 3, 3, 3) * 2 - 1)
    model = from_torch(net)
    assert net.training
    assert [type(layer).__name__ for layer in model.architecture.layers.values()].count("BatchNorm2d") == 1
    check(net, torch.rand(4, 3, 3, 3), evaluate)


def test_a_module_used_twice_is_stored_once():
    class Module(tn.Module):
        def __init__(self):
            super().__init__()
            self.fc = tn.Linear(3, 3)
            self.norm = tn.BatchNorm1d(3)

        def forward(self, x):
            return self.norm(self.fc(torch.sigmoid(self.fc(x))))

    model = check(Module(), torch.rand(2, 3))
    assert set(model.stored_types()) == {"fc.weight", "fc.bias", "norm.scale", "norm.shift"}


def test_half_precision_and_tied_weights():
    net = tn.Sequential(tn.Linear(3, 3), tn.Sigmoid(), tn.Linear(3, 3))
    net[2].weight = net[0].weight
    model = from_torch(net.bfloat16())
    assert model.state_dict()["2.weight"].dtype == np.float64
    assert set(model.stored_types()) == {"0.weight", "0.bias", "2.bias"}


def test_interval_and_fits(evaluate):
    net = tn.Sequential(tn.Linear(3, 3), tn.Sigmoid())
    model = from_torch(net, interval=(-4.0, 4.0))
    assert model.architecture.layers["1"] == Sigmoid(interval=(-4.0, 4.0))
    made = fit(lambda x: x / (1 + x**2), -3.0, 3.0, 1e-3)
    model = check(tn.Sequential(tn.Linear(3, 3), FitActivation(made)), torch.rand(2, 3), evaluate)
    assert model.architecture.layers["1"] == Activation(made)
    polynomial = default_fit("sigmoid", "minimax", low=-4.0, high=4.0, degree=3)
    check(tn.Sequential(tn.Linear(3, 3), FitActivation(polynomial)), torch.rand(2, 3))


def test_the_shipped_activation_becomes_sigmoid():
    from nn.importing.torch_activation import FourierActivation

    model = from_torch(tn.Sequential(tn.Linear(3, 3), FourierActivation()))
    assert model.architecture.layers["1"] == Sigmoid(interval=(-8.0, 8.0))


def test_fit_activation_has_gradients():
    x = torch.linspace(-1, 1, 7, requires_grad=True)
    FitActivation(default_fit("sigmoid"))(x).sum().backward()
    want = (torch.sigmoid(x) * (1 - torch.sigmoid(x))).detach()
    assert (x.grad - want).abs().max() < 5e-3


class Branching(tn.Module):
    def forward(self, x):
        return x if x.sum() > 0 else -x


class TwoInputs(tn.Module):
    def forward(self, x, y):
        return x + y


class TwoOutputs(tn.Module):
    def forward(self, x):
        return x, x + 1


def net(layer):
    return tn.Sequential(tn.Sequential(tn.Linear(3, 3), layer))


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (net(tn.RReLU()), r"layer '0\.1' is RReLU: .*; instead: use ReLU"),
        (net(tn.MaxUnpool2d(2)), r"layer '0\.1' is MaxUnpool2d: .*; instead: use MaxPool2d"),
        (net(tn.MaxPool2d(2, return_indices=True)), r"layer '0\.1' is MaxPool2d: .*return_indices"),
        (net(tn.Softmin(1)), r"layer '0\.1' is Softmin: .*; instead: use Softmax"),
        (net(tn.LocalResponseNorm(3)), r"layer '0\.1' is LocalResponseNorm: it has no counterpart"),
        (net(tn.LSTM(3, 3)), r"layer '0\.1' is LSTM: "),
        (net(tn.BatchNorm1d(3, track_running_stats=False)), r"layer '0\.1' is BatchNorm1d: it keeps no statistics"),
        (net(tn.Flatten(0)), r"layer '0\.1' is Flatten: .*batch"),
        (Branching(), "forward of Branching cannot be traced"),
        (TwoInputs(), "more than one input"),
        (TwoOutputs(), "must return one tensor"),
        ("not a module", "str is not a"),
    ],
)
def test_what_cannot_be_converted_is_named(module, message):
    with pytest.raises(UnsupportedError, match=message) as caught:
        from_torch(module)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("forward", "message"),
    [
        (F.rrelu, "'rrelu' in forward of the model: .*; instead: use ReLU"),
        (lambda x: x.argmax(1), "'argmax' in forward of the model: .*; instead: use MaxPool2d"),
        (lambda x: F.interpolate(x, 2, mode="bilinear", antialias=True), "antialias is not supported"),
        (lambda x: x.amax(), "would mix|the batch too"),
        (lambda x: F.softmin(x, 1), "'softmin' in forward"),
        (lambda x: x.view(24, 2), "batch must stay first"),
        (lambda x: x.mean(), "would mix the images"),
        (lambda x: x.mean(0), "would mix its images"),
        (lambda x: torch.cat([x, x]), "would mix the images"),
        (lambda x: x**0.5, "whole powers"),
        (lambda x: x[:, 0], "'getitem'"),
        (lambda x: torch.add(x, x, alpha=2), "plain form"),
        (lambda x: x.unsqueeze(1), "give from_torch an example_input"),
        (lambda x: x.view(-1, x.size(3)), "give from_torch an example_input"),
        (lambda x: F.linear(x, x), "must be parameters"),
        (lambda x: torch.div(x, 0.7, rounding_mode="floor"), "plain form"),
        (lambda x: x**True, "whole powers"),
        (lambda x: x / 0, "in this order"),
        (lambda x: x + float("inf"), "not finite"),
        (lambda x: x * float("nan"), "not finite"),
        (lambda x: torch.fft.fft(x), "fft"),
        (lambda x: F.avg_pool2d(x, 2, nonsense=1), "nonsense|not supported|traced"),
    ],
)
def test_functions_that_cannot_be_converted_are_named(forward, message):
    class Module(tn.Module):
        def forward(self, x):
            return forward(x)

    with pytest.raises(UnsupportedError, match=message):
        from_torch(Module())


def test_weights_are_checked():
    module = tn.Sequential(tn.Linear(2, 2))
    with torch.no_grad():
        module[0].bias[1] = float("nan")
    with pytest.raises(EncodingError, match=r"0\.bias holds values that are not finite"):
        from_torch(module)
    with torch.no_grad():
        module[0].bias[1] = float("inf")
    with pytest.raises(EncodingError, match=r"0\.bias holds values that are not finite"):
        from_torch(module)
    module = tn.Sequential(tn.Linear(2, 2)).to(torch.complex64)
    with pytest.raises(EncodingError, match=r"0\.weight has dtype torch.complex64"):
        from_torch(module)


@pytest.mark.parametrize("where", ["", "0", "0.0"])
@pytest.mark.parametrize("before", [False, True])
def test_hooks_are_converted_or_refused(where, before):
    """Those of a module with a forward of its own are traced like that, the whole's too; a layer keeps none."""
    module = tn.Sequential(tn.Sequential(tn.Linear(2, 2)))
    hooked = module.get_submodule(where)
    if before:
        hooked.register_forward_pre_hook(lambda m, i: (i[0] * 2,))
    else:
        hooked.register_forward_hook(lambda m, i, o: o * 2)
    if where in ("", "0"):
        check(module, torch.rand(3, 2))
    else:
        with pytest.raises(UnsupportedError, match="hooks"):
            from_torch(module)


@pytest.mark.parametrize(
    "module",
    [
        tn.BatchNorm2d(2, eps=0.5),
        tn.AvgPool2d(2, stride=1),
        tn.AvgPool2d((3, 2), stride=(1, 2), padding=(1, 0)),
        tn.AvgPool2d(3, padding=1, count_include_pad=False),
        tn.Flatten(1, 2),
        tn.Flatten(2),
        tn.GELU(approximate="tanh"),
        tn.Softplus(beta=3.0),
        tn.Softplus(beta=0.5, threshold=10.0),
        tn.Conv2d(2, 4, (1, 2), stride=(2, 1), padding=(1, 0), groups=2, bias=False),
        tn.Conv2d(2, 2, 2, padding="same"),
    ],
    ids=repr,
)
def test_options_come_along(module):
    check(tn.Sequential(module), 40 * torch.rand(2, 2, 4, 6) - 20)


class Functional(tn.Module):
    """A convolution and a matrix product with the module's own weights, and these options."""

    def __init__(self, bias=True, **options):
        super().__init__()
        self.options = options
        self.kernel = tn.Parameter(torch.randn(4, 1, 2, 3))
        self.kernel_bias = tn.Parameter(torch.randn(4)) if bias else None
        self.weight = tn.Parameter(torch.randn(3, 4))
        self.bias = tn.Parameter(torch.randn(3)) if bias else None

    def forward(self, x):
        y = F.conv2d(x, self.kernel, self.kernel_bias, groups=2, **self.options)
        return F.linear(y.mean((2, 3)), self.weight, self.bias)


@pytest.mark.parametrize(
    "options", [{}, {"stride": 2}, {"padding": (0, 2)}, {"stride": (1, 2), "padding": 1}, {"dilation": 2}]
)
@pytest.mark.parametrize("bias", [True, False])
def test_options_of_functions_come_along(bias, options):
    check(Functional(bias, **options), torch.rand(2, 2, 5, 6))


ACTIVATIONS = [tn.Sigmoid, tn.Tanh, tn.SiLU, tn.GELU, tn.Softplus]
FUNCTIONS = [torch.sigmoid, torch.tanh, F.silu, F.gelu, F.softplus, torch.exp]


def _name(activation):
    return getattr(activation, "__name__", type(activation).__name__)


@pytest.mark.parametrize("activation", [*(kind() for kind in ACTIVATIONS), *FUNCTIONS], ids=_name)
def test_the_interval_is_every_activations(activation):
    class Module(tn.Module):
        def __init__(self):
            super().__init__()
            if isinstance(activation, tn.Module):
                self.act = activation

        def forward(self, x):
            return activation(x)

    (layer,) = from_torch(Module(), interval=(-3.0, 2.0)).architecture.layers.values()
    # Of what has no layer in torch, the default's interval: it may have poles.
    assert layer.interval == (None if activation is torch.exp else (-3.0, 2.0))


def test_fit_activation_is_its_fit():
    for name in ("gelu", "exp", "sigmoid"):
        made = default_fit(name)
        x = torch.linspace(made.low - 5, made.high + 5, 501, dtype=torch.float64)
        assert np.abs(FitActivation(made)(x).numpy() - made(x.numpy())).max() < 1e-9
    composite = default_fit("exp", "composite", low=-4.0, high=0.0)
    x = torch.linspace(-4.0, 0.0, 101, dtype=torch.float64)
    assert np.abs(FitActivation(composite)(x).numpy() - composite(x.numpy())).max() < 1e-9


def test_a_batch_that_does_not_stay_first():
    class Module(tn.Module):
        def forward(self, x):
            return x.unsqueeze(0)

    with pytest.raises(UnsupportedError, match="batch must stay first"):
        from_torch(Module(), example_input=torch.zeros(2, 3))


def test_a_bias_that_is_computed():
    class Module(tn.Module):
        def __init__(self):
            super().__init__()
            self.weight = tn.Parameter(torch.randn(3, 3))

        def forward(self, x):
            return F.linear(x, self.weight, x)

    with pytest.raises(UnsupportedError, match="must be parameters"):
        from_torch(Module())


def test_an_example_of_the_wrong_shape():
    with pytest.raises(ShapeError, match="does not take inputs of shape"):
        from_torch(tn.Sequential(tn.Linear(2, 2)), example_input=torch.zeros(1, 3))


def test_a_state_dict_loads_without_torch_names_changing():
    module = tn.Sequential(tn.Linear(2, 3))
    model = from_torch(module)
    assert model.architecture.layers["0"] == Linear(2, 3)
    model.load_state_dict({name: t.numpy() for name, t in module.state_dict().items()})


def test_importing_nn_does_not_import_torch():
    code = "import sys, nn; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
