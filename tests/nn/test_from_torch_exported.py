"""Networks that a trace of forward cannot follow come over by torch.export, or are refused: never a wrong number."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn as tn
from torch.nn import functional as F

from mpc.errors import UnsupportedError
from nn import from_torch
from nn.importing.aten import OPERATORS
from nn.importing.batch_layout import BATCHES, Layout
from nn.importing.export_graph import exported
from nn.importing.remedies import REMEDIES
from nn.model import Architecture, Model
from parties import Client, MemoryCluster


class Calls(tn.Module):
    """Two linear layers, and somebody's Python."""

    def __init__(self, of: Any) -> None:
        super().__init__()
        self.one, self.two = tn.Linear(6, 6), tn.Linear(6, 6, bias=False)
        self.mix = tn.Parameter(torch.randn(4, 4))
        self.register_buffer("place", torch.linspace(-1, 1, 4))
        self.of = of

    def forward(self, x):
        return self.of(self, x)


def heads(net, x):
    """Attention by hand: heads merged with the batch, and apart again."""
    n, t, c = x.shape
    q, k, v = (
        m(x).view(n, t, 2, c // 2).transpose(1, 2).reshape(n * 2, t, c // 2) for m in (net.one, net.two, net.one)
    )
    weights = torch.softmax(torch.bmm(q, k.transpose(1, 2)) / (c // 2) ** 0.5, -1)
    return torch.bmm(weights, v).view(n, 2, t, c // 2).transpose(1, 2).reshape(n, t, c)


def sequence_first(net, x):
    y = net.one(x.transpose(0, 1))
    return (y + net.place[:, None, None]).permute(1, 0, 2)


def windows(net, x):
    """Of 2 of 4 each, with the batch: (N, 4, 6) to (2 N, 2, 6)."""
    n = x.shape[0]
    parts = x.view(n, 2, 2, 6).view(-1, 2, 6)
    return net.two(parts).view(n, 2, 2, 6).flatten(1, 2)


def parts(net, x):
    a, b = x.chunk(2, dim=1)
    c, d = x.unbind(2)[:2]
    first = torch.cat([a, b.flip(1)], 1)[:, ::2, 1:]
    return torch.cat([first.flatten(1), torch.stack([c, d], 1)[:, 0], x[:, -1]], dim=1)


def sizes(net, x):
    """What a trace cannot know: loops over sizes, branches on them, arithmetic with them."""
    total = 0
    for i in range(x.shape[1] // 2):
        total = total + x[:, i] * (i + 1) / x.size(1)
    return net.one(total) if x.dim() == 3 else total


def of_constants(net, x):
    """A mask, made with the batch's size."""
    n, t, _ = x.shape
    scores = torch.matmul(net.one(x), net.two(x).transpose(1, 2))
    mask = torch.ones(n, t, t, dtype=torch.bool).tril()
    lowered = scores.masked_fill(~mask, float("-inf"))
    return torch.softmax(lowered, -1) @ x + torch.arange(t)[None, :, None].expand(n, t, 6) * 0.1


def attention(net, x):
    y = F.scaled_dot_product_attention(net.one(x), net.two(x), x, is_causal=True)
    return torch.where(net.place[:, None] > 0, y, x * 2)


def biased(net, x):
    """Attention with numbers that are added to scores, as relative positions are."""
    return F.scaled_dot_product_attention(net.one(x), x, x, attn_mask=net.mix) + F.scaled_dot_product_attention(
        x, net.two(x), x, attn_mask=net.place[:, None] >= net.place
    )


def numbers(net, x):
    y = 1 - x.neg().square() / 4 + torch.rsub(x, 0.5) - torch.sub(x, net.two(x), alpha=2)
    return (y**3 + y.pow(2)).mean((1, 2), keepdim=True) + x.sum(-1, keepdim=True) * net.place[:, None]


def filled(net, x):
    """With large numbers, that are numbers."""
    return torch.where(net.place[:, None] > 0, x, 3000.0) + x.masked_fill(net.place[:, None] > 0.9, -2000.0)


def norms(net, x):
    """Of what has the batch second, and of channels."""
    y = F.layer_norm(x.transpose(0, 1), (6,), net.two.weight[0], None) + F.rms_norm(x.transpose(0, 1), (6,))
    z = F.group_norm(x, 2, net.place, None) + F.instance_norm(x) * F.cosine_similarity(x, net.one(x), 2)[..., None]
    lengths = torch.linalg.vector_norm(y, dim=2, keepdim=True) + y.norm(1, 0)
    return z + (F.layer_norm(y, (6,), None, net.one.bias) * lengths).transpose(0, 1)


def bent(net, x):
    """Functions, of sequences with the batch second."""
    y = net.one(x).transpose(0, 1)
    y = F.elu(y, 0.7) + F.selu(y) + F.celu(y, 2.0) + F.mish(y) + F.logsigmoid(y) + torch.erf(y) + F.softsign(y)
    return y.transpose(0, 1)


def typed(net, x):
    """A branch that a proxy takes wrongly."""
    y = net.one(x)
    return y if isinstance(y, torch.Tensor) else x


def in_place(net, x):
    y = net.one(x)
    y.relu_()
    return y.add_(x)


def positions(net, x):
    """Of tokens, looked up at places that are no secret."""
    return net.one(x) + F.embedding(torch.arange(x.shape[1]).unsqueeze(0), net.two.weight)


RIGHT = [
    positions,
    heads,
    sequence_first,
    windows,
    parts,
    sizes,
    of_constants,
    attention,
    biased,
    numbers,
    filled,
    norms,
    bent,
    typed,
    in_place,
]


def both(net: tn.Module, x: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """What the model computes, and the network."""
    made = exported(net.eval(), x, OPERATORS, None)
    assert made is not None
    assert not made.blockers, made.blockers
    model = Model(Architecture(made.steps, tuple(x.shape[1:])), made.weights)
    with torch.no_grad():
        want = net(x.clone())
    return model.plain(x.numpy().astype(float), exact=True), want.numpy()


@pytest.mark.sampled(2)
@pytest.mark.parametrize("of", RIGHT, ids=lambda of: of.__name__)
@pytest.mark.filterwarnings("ignore")
def test_it_is_the_same_function(of: Any) -> None:
    torch.manual_seed(1)
    net, x = Calls(of), torch.rand(3, 4, 6) * 2 - 1
    got, want = both(net, x)
    assert got.shape == want.shape
    assert np.abs(got - want).max() <= 1e-5 * max(1.0, float(np.abs(want).max()))


@pytest.mark.filterwarnings("ignore")
def test_weights_are_called_as_the_module_calls_them() -> None:
    made = exported(Calls(heads).eval(), torch.rand(1, 4, 6), OPERATORS, None)
    assert made is not None
    assert {"one.weight", "one.bias", "two.weight"} <= set(made.weights)
    assert made.sources["two"].startswith("test_from_torch_exported.py:")


class Squeezed(tn.Module):
    """Of images, with everything that a small network of this kind has."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = tn.Sequential(tn.Conv2d(3, 4, 3, padding=1, bias=False), tn.BatchNorm2d(4), tn.ReLU6(inplace=True))
        self.act = tn.PReLU(4)
        self.se = tn.Sequential(tn.AdaptiveAvgPool2d(1), tn.Conv2d(4, 4, 1), tn.Hardsigmoid(inplace=True))
        self.shuffle = tn.PixelShuffle(2)
        self.head = tn.Linear(9, 2)

    def forward(self, x):
        y = F.max_pool2d(self.act(self.stem(x)), 2)
        if y.shape[-1] != 3:
            raise ValueError("images have 6 pixels")
        y = y * self.se(y)
        z = F.avg_pool2d(self.shuffle(y), 2)
        return {"logits": self.head(torch.flatten(z, start_dim=1))}


@pytest.mark.filterwarnings("ignore")
def test_a_network_of_images() -> None:
    torch.manual_seed(2)
    net, x = Squeezed().eval(), torch.rand(2, 3, 6, 6)
    with torch.no_grad():
        net.stem(torch.rand(16, 3, 6, 6))
    model = from_torch(net, x)
    with torch.no_grad():
        want = net(x)["logits"].numpy()
    assert np.abs(model.plain(x.numpy(), exact=True) - want).max() < 1e-5
    assert "stem.0.weight" in model.weights


MIXING = {
    "a mean over the batch": lambda net, x: x - x.mean(0, keepdim=True),
    "images beside each other": lambda net, x: x.transpose(0, 1).reshape(4, -1, 3),
    "images in one row": lambda net, x: x.reshape(1, -1),
    "products of images": lambda net, x: x.flatten(1) @ x.flatten(1).T,
    "one image": lambda net, x: x + x[:1],
    "turned around": lambda net, x: x.flip(0),
    "normalised over the batch": lambda net, x: torch.softmax(x, 0),
    "joined along the batch": lambda net, x: torch.cat([x, x], 0),
    "attention among images": lambda net, x: F.scaled_dot_product_attention(*[x.flatten(1)[None]] * 3)[0],
    "attention to images": lambda net, x: F.scaled_dot_product_attention(*[net.one(x).transpose(0, 1)] * 3).transpose(
        0, 1
    ),
    "a norm of images beside each other": lambda net, x: F.layer_norm(x[:, 0].T, (x.shape[0],)).T,
    "a norm over the batch": lambda net, x: x + x.norm(dim=0, keepdim=True),
    "cosines among images": lambda net, x: x * F.cosine_similarity(x, x + 1, 0),
    "the batch is last": lambda net, x: x.permute(1, 2, 0),
}
OTHERS = {
    "random": lambda net, x: x + torch.rand(6),
    "dropout in training": lambda net, x: F.dropout(x, 0.5),
    "whole numbers": lambda net, x: x.to(torch.int64) + x,
    "no result": lambda net, x: net.mix + 1,
    "sampled at secret places": lambda net, x: F.grid_sample(x[:, None], x[:, None, :, :2]),
    "weights from the input": lambda net, x: F.linear(net.one(x), x[0]),
    "filled with infinity": lambda net, x: x.masked_fill(net.place[:, None] > 0, float("-inf")).amax(1),
    "what the module keeps": lambda net, x: net.place.add_(1)[:, None] + x,
}


@pytest.mark.sampled(3)
@pytest.mark.parametrize("of", [*MIXING.values(), *OTHERS.values()], ids=[*MIXING, *OTHERS])
@pytest.mark.filterwarnings("ignore")
def test_what_would_be_another_function_is_refused(of: Any) -> None:
    made = exported(Calls(of).eval(), torch.rand(3, 4, 6), OPERATORS, None)
    assert made is None or made.blockers


@pytest.mark.parametrize("of", [lambda x: x[:, 0] if x.sum() > 0 else x[:, 1], lambda x: x.mean(0)], ids=["if", "mean"])
@pytest.mark.filterwarnings("ignore")
def test_it_is_said_why(of: Any) -> None:
    with pytest.raises(UnsupportedError, match=r"instead: "):
        from_torch(Calls(lambda net, x: of(x)), torch.rand(3, 4, 6))


def test_nothing_that_is_read_is_said_to_have_no_counterpart() -> None:
    """What a trace refuses and torch.export's program does not, needs sizes, and that is what is said."""
    names = {name.removeprefix("aten.") for name in OPERATORS} & set(REMEDIES)
    assert {"where", "chunk", "sqrt"} <= names
    for name in names:
        assert "samples" in REMEDIES[name][1], name
    with pytest.raises(UnsupportedError, match=r"'transpose' in forward of the model: .* samples"):
        from_torch(Calls(lambda net, x: net.one(x.transpose(0, 1))))


def misfits(net, x):
    """For more images than there are."""
    return net.one(x) if x.shape[0] < 9 else net.one(x) @ net.mix


@pytest.mark.filterwarnings("ignore")
def test_torch_logs_nothing_of_what_fails(caplog: Any) -> None:
    logger = logging.getLogger("torch._subclasses.fake_tensor")
    with caplog.at_level(logging.ERROR, logger.name), pytest.raises(UnsupportedError):
        logger.addHandler(caplog.handler)
        from_torch(Calls(misfits), torch.rand(3, 4, 6))
    logger.removeHandler(caplog.handler)
    assert not caplog.records
    assert not logger.disabled


sizes_of = st.lists(st.integers(1, 4), min_size=0, max_size=3)


@given(sizes_of, st.integers(1, 3), st.integers(1, 3), sizes_of, st.randoms(use_true_random=False))
@settings(max_examples=60)
def test_layouts_follow_permutations_and_reshapes(
    leading: list[int], before: int, after: int, trailing: list[int], choose: Any
) -> None:
    """Whatever the batch is, the model's tensor is made of the network's as its layout says."""
    prime, n = BATCHES[0], 2
    layout = Layout((*leading, before * prime * after, *trailing), len(leading), before, after)
    theirs = np.arange(np.prod([*leading, before * n * after, *trailing])).reshape(
        *leading, before * n * after, *trailing
    )

    def ours(tensor: Any, of: Layout) -> Any:
        shape = (*of.shape[: of.axis], of.before, n, of.after, *of.shape[of.axis + 1 :])
        apart = tensor.reshape(shape)
        return np.moveaxis(apart, of.axis + 1, 0).reshape(n, *of.inner)

    order = list(range(theirs.ndim))
    choose.shuffle(order)
    turned, dims = layout.permuted(order)
    assert np.array_equal(ours(theirs, layout).transpose(dims), ours(theirs.transpose(order), turned))
    small = tuple(size // prime * n if size % prime == 0 else size for size in turned.shape)
    split = (*turned.shape[: turned.axis], *((before, prime * after) if before > 1 else (prime * after,)))
    split = (*split, *turned.shape[turned.axis + 1 :])
    made = turned.reshaped(split, prime)
    again = theirs.transpose(order).reshape(small).reshape([s // prime * n if s % prime == 0 else s for s in split])
    assert np.array_equal(ours(again, made), ours(theirs.transpose(order), turned).reshape(n, *made.inner))


def a_token(net, x):
    """Of the network's own, before each sequence."""
    return net.one(torch.cat([net.two.weight[:1].expand(x.shape[0], 1, 6), x], 1))[:, 0:2]


def ones_beside(net, x):
    return torch.cat([net.one(x), torch.ones(x.shape[0], 4, 1)], 2)


@pytest.mark.parametrize("of", [a_token, ones_beside], ids=lambda of: of.__name__)
@pytest.mark.filterwarnings("ignore")
def test_what_is_expanded_to_the_batch_is_beside_each_of_it(of: Any) -> None:
    """With any batch, on shares, too."""
    torch.manual_seed(1)
    net = Calls(of).eval()
    model = from_torch(net, torch.rand(3, 4, 6) * 2 - 1)
    with MemoryCluster(parties=2) as cluster, Client(cluster) as client:
        remote = client.upload(model, "net")
        for count in (1, 2, 5):
            x = torch.rand(count, 4, 6) * 2 - 1
            with torch.no_grad():
                want = net(x).numpy()
            assert np.abs(model.plain(x.numpy(), exact=True) - want).max() < 1e-5
            assert np.abs(client.reveal(remote(client.share(x, low=-1, high=1))) - want).max() < 1e-3
