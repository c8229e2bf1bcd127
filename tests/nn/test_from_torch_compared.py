"""from_torch on samples: the model gives what its source gives, on them and near them, or there is no model."""

from __future__ import annotations

import copy
import threading
import warnings

import numpy as np
import pytest
import torch
from torch import nn as tn
from torch.nn import functional as F

from mpc.errors import DiffersFromSource, EncodingError, RangeError, ShapeError, UnsupportedError, UsageError
from nn import ArrayInput, Interface, Model, calibrate, from_torch
from nn.activations import Ranged
from nn.importing import compared
from nn.rectifiers import Assumed
from protocols import RangeWarning


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


class Net(tn.Module):
    """A network of one linear layer, with a buffer, and a forward that is given."""

    def __init__(self, forward, **parts):
        super().__init__()
        self.fc = tn.Linear(4, 4)
        self.register_buffer("std", torch.tensor([0.5, 0.2, 12.0, 40.0]))
        self.does = forward
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, x):
        return self.does(self, x)


def changed_under_another_name(net, x):
    h = net.fc(x)
    y = h
    y += 1
    return h * y


def activated_in_place(net, x):
    h = net.fc(x)
    return net.act(h) + h


def by_a_function_in_place(net, x):
    h = net.fc(x)
    F.silu(h, inplace=True)
    return h


def by_a_method(net, x):
    h = net.fc(x)
    h.mul_(2).add_(1)
    return h - net.fc(x)


def the_input_itself(net, x):
    x *= 0.5
    return net.fc(x) + x


def through_nothing(net, x):
    h = net.fc(x)
    g = F.dropout(h, 0.5, net.training)
    g += 1
    return h


def through_a_view(net, x):
    h = net.fc(x)
    v = h.view(-1, 2, 2)
    v += 1
    return h


def a_part(net, x):
    h = net.fc(x)
    h[:, 0] = 0
    return h


def only_tensors(net, x):
    h = net.fc(x)
    if isinstance(h, torch.Tensor):
        h = h * 2
    return h if torch.is_tensor(h) else h * 3


def any_of_several(net, x):
    h = net.fc(x)
    return h * 2 if isinstance(h, (list, torch.Tensor)) and not isinstance(h, tuple | dict) else h


def exactly_tensors(net, x):
    h = net.fc(x)
    return h * 2 if type(h) is torch.Tensor else h


def exactly_tensors_by_little(net, x):
    """Less than the tolerance, which is for approximations: here are none."""
    h = net.fc(x)
    return h * 1.001 if type(h) is torch.Tensor else h


def what_tensors_have_not(net, x):
    return net.fc(x.tensors if hasattr(x, "tensors") else x)


def normalised(net, x):
    return net.fc((x - net.std.mean()) / net.std)


def divided_by_computed_weights(net, x):
    return net.fc(x) / (net.fc.weight.exp().sum(1) + net.std)


def a_number_divided(net, x):
    return 2 / (net.fc(x) ** 2 + 2)


def facts_of_tensors(net, x):
    h = net.fc(x) + torch.ones(4, device=x.device)
    return h if x.grad_fn is not None or x.is_sparse else h * (2 if type(x).__name__ == "Tensor" else 3)


def written_into_another(net, x):
    h = net.fc(x)
    torch.mul(h, 2, out=h)
    return h


def caught(net, x):
    try:
        return net.fc(x) if x.mean(1) > 0 else x
    except Exception:  # noqa: BLE001 - as people do
        return x


def checked_for_its_size(net, x):
    if x.dim() != 2:
        raise ValueError("it takes (N, 4)")
    return net.fc(x)


def dropped_always(net, x):
    return F.dropout(net.fc(x), 0.5)


def drawn(net, x):
    return net.fc(x) + torch.randn(4)


def drawn_elsewhere(net, x):
    return net.fc(x) + float(np.random.default_rng().uniform())


def drawn_like(net, x):
    return net.fc(x) + torch.randn_like(x)


def a_new_layer(net, x):
    return tn.Linear(4, 4)(net.fc(x))


def a_new_dropout(net, x):
    return tn.Dropout(0.5)(net.fc(x))


def counted(net, x):
    net.std += 1
    return net.fc(x) * net.std


def kept(net, x):
    net.seen = getattr(net, "seen", 0.0) + 1.0
    return net.fc(x) * net.seen


def a_slice(net, x):
    return net.layers[:2](net.fc(x))


def by_how_many(net, x):
    return net.fc(x) if x.shape[0] > 3 else net.fc(x) * 2


def divided_by_how_many(net, x):
    return net.fc(x) / x.shape[0]


def optional(net, x, mask=None):
    return net.fc(x) if mask is None else x


LAYERS = tn.Sequential(tn.Linear(4, 4), tn.Sigmoid(), tn.Linear(4, 2))
RIGHT = [
    (changed_under_another_name, {}),
    (activated_in_place, {"act": tn.SiLU(inplace=True)}),
    (by_a_function_in_place, {}),
    (by_a_method, {}),
    (the_input_itself, {}),
    (through_nothing, {}),
    (only_tensors, {}),
    (any_of_several, {}),
    (what_tensors_have_not, {}),
    (normalised, {}),
    (divided_by_computed_weights, {}),
    (a_number_divided, {}),
    (facts_of_tensors, {}),
    (a_slice, {"layers": LAYERS}),
    (optional, {}),
]
REFUSED = [
    (caught, "a branch or loop of forward: it must not branch or loop on a tensor's values"),
    (dropped_always, "at random in evaluation"),
    (drawn, "'randn' in forward: it draws random numbers"),
    (drawn_like, "'randn_like' in forward"),
    (a_new_layer, "it draws random numbers"),
    (a_new_dropout, "in training mode"),
    (counted, "changes the module's own"),
]
FOLLOWED_WITH_SAMPLES = [
    (through_a_view, "in place through another view"),
    (a_part, "'setitem' in forward"),
    (written_into_another, "into another tensor"),
    (checked_for_its_size, "sizes.*; instead: leave the check out"),
]
SEEN_ON_SAMPLES = [
    (exactly_tensors, DiffersFromSource, r"layer 'mul' is .* the first to differ|layer 'fc' is"),
    (exactly_tensors_by_little, DiffersFromSource, "what its forward does there"),
    (drawn_elsewhere, DiffersFromSource, "different results for the same input"),
    (by_how_many, DiffersFromSource, "are others in a batch of 1 than in one of"),
    (divided_by_how_many, DiffersFromSource, "are others in a batch of 1 than in one of"),
    (kept, DiffersFromSource, "different results|differ by"),
]


@pytest.mark.parametrize("sampled", [False, True])
@pytest.mark.parametrize(("forward", "parts"), RIGHT, ids=lambda v: getattr(v, "__name__", ""))
@pytest.mark.filterwarnings("ignore::protocols.RangeWarning")
def test_these_come_over_right(forward, parts, sampled):
    net, x = Net(forward, **parts).eval(), torch.rand(5, 4) * 2 - 1
    before = x.clone()
    model = from_torch(net, x) if sampled else from_torch(net, example_input=x)
    assert torch.equal(x, before)
    want = net(x.clone()).detach().numpy()
    assert np.abs(model.plain(before.numpy(), exact=True) - want).max() < 1e-5 * max(1, np.abs(want).max())


@pytest.mark.parametrize("sampled", [False, True])
@pytest.mark.parametrize(("forward", "message"), REFUSED, ids=lambda v: getattr(v, "__name__", ""))
def test_these_are_refused_by_name(forward, message, sampled):
    net = Net(forward).eval()
    before = copy.deepcopy(net.state_dict())
    with pytest.raises(UnsupportedError, match=message):
        from_torch(net, torch.rand(5, 4) if sampled else None)
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())


@pytest.mark.sampled(3)
@pytest.mark.parametrize(("forward", "message"), FOLLOWED_WITH_SAMPLES, ids=lambda v: getattr(v, "__name__", ""))
@pytest.mark.filterwarnings("ignore")
def test_these_come_over_once_sizes_are_known(forward, message):
    """By torch.export."""
    net, x = Net(forward).eval(), torch.rand(5, 4)
    with pytest.raises(UnsupportedError, match=message):
        from_torch(net)
    with torch.no_grad():
        want = net(x.clone()).numpy()
    assert np.abs(from_torch(net, x).plain(x.numpy(), exact=True) - want).max() < 1e-5


@pytest.mark.parametrize(("forward", "kind", "message"), SEEN_ON_SAMPLES, ids=lambda v: getattr(v, "__name__", ""))
def test_what_tracing_cannot_see_samples_show(forward, kind, message):
    with pytest.raises(kind, match=message):
        from_torch(Net(forward), torch.rand(5, 4))


def test_hooks_of_the_whole():
    net = Net(lambda net, x: net.fc(x))
    net.register_forward_hook(lambda module, inputs, result: result * 3)
    net.register_forward_pre_hook(lambda module, inputs: (inputs[0] + 1,))
    x = torch.rand(5, 4)
    assert np.abs(from_torch(net, x).plain(x.numpy()) - net(x).detach().numpy()).max() < 1e-5


def test_the_callers_random_numbers_stay():
    net = Net(only_tensors)
    torch.manual_seed(5)
    want = torch.rand(1), np.random.get_state()[1].tolist()
    torch.manual_seed(5)
    from_torch(net, torch.ones(2, 4))
    assert (torch.rand(1), np.random.get_state()[1].tolist()) == want


def wide():
    net = tn.Sequential(tn.Linear(4, 8), tn.SiLU(), tn.Linear(8, 3))
    with torch.no_grad():
        net[0].weight.mul_(12)
    return net


def test_an_interval_that_samples_leave():
    """SiLU's default interval ends at 8: what lies beyond is covered, or refused with the layer's name."""
    net, x = wide(), torch.rand(64, 4) * 2 - 1
    assert net[0](x).abs().max() > 10
    try:
        model = from_torch(net, x)
    except (RangeError, DiffersFromSource) as error:
        assert "layer '1'" in str(error)
    else:
        want = net(x).detach().numpy()
        assert np.abs(model.plain(x.numpy()) - want).max() < 0.01 * np.abs(want).max()


def test_approximations_that_are_not_close_enough():
    net, x = tn.Sequential(tn.Linear(4, 8), tn.SiLU(), tn.Linear(8, 3)), torch.rand(64, 4) * 2 - 1
    assert isinstance(from_torch(net, x), Model)
    with pytest.raises(DiffersFromSource, match=r"layer '1' is SiLU: .*instead: .* \[forward of Sequential\]"):
        from_torch(net, x, tolerance=1e-7)
    with pytest.raises(DiffersFromSource, match=r"layer 'silu' is SiLU: .*\[test_from_torch_compared.py:\d+: "):
        from_torch(Net(lambda net, x: net.fc(F.silu(net.fc(x)))), X, tolerance=1e-7)


@pytest.mark.filterwarnings("ignore::protocols.RangeWarning")
def test_each_layer_that_is_not_shown_to_hold_is_warned_of():
    """Types that follow the network's own weights show some; of the others nobody knows without samples."""
    net = tn.Sequential(tn.Linear(4, 4), tn.Sigmoid(), tn.Linear(4, 4), tn.SiLU(), tn.Tanh())
    with torch.no_grad():
        net[2].weight.mul_(100)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        from_torch(net)  # all of these are right on any input
    within = {"interval": (-8.0, 8.0)}
    with pytest.warns(RangeWarning) as caught:
        from_torch(net, **within)
    assert [str(w.message).partition(":")[0] for w in caught] == [
        "layer '1' is Sigmoid", "layer '3' is SiLU", "layer '4' is Tanh"
    ]  # fmt: skip
    with pytest.warns(RangeWarning) as caught:
        from_torch(net, example_input=torch.zeros(1, 4), **within)
    assert [str(w.message).partition(":")[0] for w in caught] == ["layer '3' is SiLU", "layer '4' is Tanh"]
    assert all(w.filename == __file__ for w in caught)
    with pytest.warns(RangeWarning, match="layer '1'"):
        said = Interface(input=ArrayInput((4,), -1000.0, 1000.0))
        from_torch(net, example_input=torch.zeros(1, 4), interface=said, **within)
    with torch.no_grad():
        net[0].weight.mul_(1e-7)
    with pytest.warns(RangeWarning) as caught:
        from_torch(net, example_input=torch.zeros(1, 4), **within)
    assert {w.category for w in caught} == {RangeWarning}


@pytest.mark.filterwarnings("error")
def test_with_samples_nothing_is_warned_of():
    net = tn.Sequential(tn.Linear(4, 4), tn.Sigmoid(), tn.Linear(4, 4), tn.Tanh())
    from_torch(net, torch.rand(8, 4))


X = torch.rand(6, 4)


@pytest.mark.parametrize(
    "samples",
    [
        X,
        X.numpy(),
        X.tolist(),
        [X[:3], X[3:].numpy()],
        ((batch, torch.zeros(2)) for batch in X.split(2)),
        torch.utils.data.DataLoader(torch.utils.data.TensorDataset(X, torch.zeros(6)), batch_size=4),
    ],
    ids=["tensor", "array", "lists", "batches", "pairs", "loader"],
)
def test_samples_come_in_many_forms(samples):
    model = from_torch(tn.Sequential(tn.Linear(4, 2), tn.Sigmoid()), samples)
    assert model.architecture.input_shape == (4,)


@pytest.mark.parametrize(
    ("samples", "kind", "message"),
    [
        ([], ShapeError, "no samples"),
        (torch.zeros(0, 4), ShapeError, "a batch of inputs"),
        (torch.zeros(()), ShapeError, "a batch of inputs"),
        (torch.full((1, 4), float("nan")), EncodingError, "not finite"),
        (["a"], EncodingError, "real numbers"),
        ([torch.zeros(1, 4), torch.zeros(1, 5)], ShapeError, "not of one network"),
        (torch.zeros(2, 5), ShapeError, "does not take"),
        (7, ShapeError, "a batch of inputs"),
    ],
)
def test_samples_that_are_none(samples, kind, message):
    with pytest.raises(kind, match=message):
        from_torch(tn.Sequential(tn.Linear(4, 2)), samples)


def test_options_that_do_not_go_together():
    for options in ({"interval": (-1.0, 1.0)}, {"example_input": X}, {"tolerance": 0.0}, {"tolerance": 1}):
        with pytest.raises(UsageError, match=r"give them alone|a tolerance is"):
            from_torch(tn.Linear(4, 2), X, **options)


def test_low_precision_is_compared_as_what_it_means():
    """In float64: rounding of bfloat16 is no difference."""
    net = tn.Sequential(tn.Linear(4, 8), tn.Tanh(), tn.Linear(8, 2)).bfloat16()
    assert from_torch(net, X).weights["0.weight"].shape == (8, 4)


def test_a_forward_that_makes_numbers_of_its_own_type():
    net = Net(lambda net, x: net.fc(x) @ torch.eye(4))
    assert np.abs(from_torch(net, X).plain(X.numpy()) - net(X).detach().numpy()).max() < 1e-5


def remembering(net, x):
    net.seen = net.fc(x)
    return net.seen * 2


def test_what_cannot_be_copied_is_run_itself():
    net = Net(remembering, lock=threading.Lock()).train()
    from_torch(net)
    assert not hasattr(net, "seen")
    from_torch(net, X)
    assert type(net.seen) is torch.Tensor
    assert net.training
    assert net.fc.weight.dtype == torch.float32


def test_results_that_fixed_point_numbers_lose():
    net = tn.Sequential(tn.Linear(4, 4), tn.Tanh(), tn.Linear(4, 4))
    with torch.no_grad():
        net[2].weight.mul_(1e-6)
        net[2].bias.mul_(1e-6)
    with pytest.raises(DiffersFromSource, match="layer '2' is Linear: it is the first to differ in fixed-point"):
        from_torch(net, X)


def test_samples_are_inputs_as_the_model_says_that_it_takes():
    said = Interface(input=ArrayInput((4,), 0.0, 2.0))
    model = from_torch(tn.Linear(4, 2), X, interface=said)
    assert model.interface == Interface(input=ArrayInput((4,), 0.0, 2.0), compared=True)
    with pytest.raises(RangeError, match=r"samples from .* are not inputs"):
        from_torch(tn.Linear(4, 2), X - 1, interface=said)
    with pytest.raises(UnsupportedError, match="takes inputs of shape"):
        from_torch(tn.Linear(5, 2), torch.rand(2, 5), interface=said).describe()


def test_ranges_that_grow_beyond_the_numbers():
    """Nobody could run it: types cannot show that its values fit."""
    net = tn.Sequential(*(layer for _ in range(20) for layer in (tn.Linear(4, 4), tn.ReLU())))
    with torch.no_grad():
        for layer in net[::2]:
            layer.weight.mul_(256)
            layer.weight[:, ::2].mul_(-1)
    with pytest.raises(RangeError, match=r"layer '\d+' is \w+: .*; instead: bound values on the way"):
        from_torch(net, X)


class Block(tn.Module):
    """As the blocks of a ResNet are, with SiLU in the place of ReLU."""

    def __init__(self, channels):
        super().__init__()
        self.conv1, self.bn1 = tn.Conv2d(channels, channels, 3, padding=1, bias=False), tn.BatchNorm2d(channels)
        self.conv2, self.bn2 = tn.Conv2d(channels, channels, 3, padding=1, bias=False), tn.BatchNorm2d(channels)
        self.act = tn.SiLU(inplace=True)

    def forward(self, x):
        identity = x
        out = self.act(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        out += identity
        return self.act(out)


def residual():
    net = tn.Sequential(
        tn.Conv2d(1, 4, 3), tn.BatchNorm2d(4), tn.SiLU(), Block(4), Block(4),
        tn.AdaptiveAvgPool2d(1), tn.Flatten(), tn.Linear(4, 3),
    )  # fmt: skip
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, tn.BatchNorm2d):
                module.running_mean.uniform_(-0.3, 0.3)
                module.running_var.uniform_(0.08, 0.1)
    return net.eval()


def test_a_deep_network_is_warned_of():
    """Activations grow from block to block, and leave an interval that was given for all of them."""
    net, x = residual(), torch.rand(8, 1, 8, 8) * 2 - 1
    want = net(x).detach().numpy()
    safe = from_torch(net, example_input=x).plain(x.numpy())
    assert np.abs(safe - want).max() < 1e-3 * np.abs(want).max()
    with pytest.warns(RangeWarning) as caught:
        loose = from_torch(net, example_input=x, interval=(-8.0, 8.0))
    assert {"3.act", "4.act"} <= {str(w.message).split("'")[1] for w in caught}
    assert np.abs(loose.plain(x.numpy()) - want).max() > 0.1 * np.abs(want).max()


@pytest.mark.slow
def test_a_deep_network_is_calibrated():
    net, x = residual(), torch.rand(8, 1, 8, 8) * 2 - 1
    want = net(x).detach().numpy()
    assert np.abs(from_torch(net, x).plain(x.numpy()) - want).max() < 1e-3 * np.abs(want).max()
    with torch.no_grad():
        net[4].bn1.weight.mul_(1e6)
    with pytest.raises(
        RangeError, match=r"layer '4\.conv\d' is Conv2d: .*; instead: .* \[test_from_torch_compared.py:\d+: "
    ):
        from_torch(net, x)


def test_a_calibrated_network_is_right_beyond_its_samples(monkeypatch):
    """Unless what it can be outgrows the numbers: then ranges are assumed, and watched; or, where they cannot be, it
    holds on what the samples lead to, and that is said."""
    torch.manual_seed(0)
    net = tn.Sequential(tn.Linear(4, 8), tn.SiLU(), tn.Linear(8, 8), tn.Tanh(), tn.Linear(8, 2))
    x = torch.rand(16, 4) * 2 - 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = from_torch(net, x)
    assert all(layer.bounds is None for layer in model.architecture.layers.values() if isinstance(layer, Ranged))
    far = 1000 * x
    assert np.abs(model.plain(far.numpy()) - net(far).detach().numpy()).max() < 1e-3
    short, _ = calibrate(model, x.numpy())
    assert np.abs(short.plain(far.numpy()) - net(far).detach().numpy()).max() > 1

    deep = tn.Sequential(*(layer for _ in range(24) for layer in (tn.Linear(32, 32), tn.SiLU())))
    x = torch.rand(4, 32) * 2 - 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        watched = from_torch(deep, x)
    assert sum(isinstance(layer, Assumed) for layer in watched.architecture.layers.values()) == 24
    assert all(layer.bounds is None for layer in watched.architecture.layers.values() if isinstance(layer, Ranged))
    monkeypatch.setattr(compared, "assumed", lambda model, _: [model])
    with pytest.warns(RangeWarning, match="layers '1', '3', .* values outgrow the numbers") as caught:
        model = from_torch(deep, x)
    assert caught[0].filename == __file__
    assert np.abs(model.plain(x.numpy()) - deep(x).detach().numpy()).max() < 1e-3
    assert all(layer.bounds for layer in model.architecture.layers.values() if isinstance(layer, Ranged))
