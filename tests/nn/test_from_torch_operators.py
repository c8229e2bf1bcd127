"""Every operation that networks are made of, by torch.export, against torch in float64; many in one program."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn as tn
from torch.nn import functional as F

from nn.architecture import Architecture
from nn.importing.aten import OPERATORS
from nn.importing.export_graph import exported
from nn.inputs import Result
from nn.interface import Interface
from nn.model import Model

Of = Callable[[Any, torch.Tensor], torch.Tensor]

SEQUENCES: dict[str, Of] = {
    "einsum": lambda net, x: torch.einsum("ntc,nsc->nts", x, net.one(x)),
    "einsum with a weight": lambda net, x: torch.einsum("ntc,cd->ntd", x, net.one.weight),
    "repeat": lambda net, x: x.repeat(1, 2, 3),
    "repeat in front": lambda net, x: x[:, 0].repeat(1, 2),
    "repeat_interleave": lambda net, x: x.repeat_interleave(2, dim=1),
    "var": lambda net, x: x.var(-1, keepdim=True),
    "var of all": lambda net, x: x.var((1, 2), unbiased=False)[:, None],
    "std": lambda net, x: net.one(x).std(2),
    "var_mean": lambda net, x: torch.cat(torch.var_mean(x, 1, correction=0), 1),
    "logsumexp": lambda net, x: x.logsumexp(2),
    "logsumexp, kept": lambda net, x: torch.logsumexp(3 * x, 1, keepdim=True),
    "baddbmm": lambda net, x: torch.baddbmm(net.mix, x, x.transpose(1, 2), beta=0.5, alpha=2),
    "addbmm-like": lambda net, x: torch.addcmul(x, x, net.one(x), value=0.5),
    "addcdiv": lambda net, x: torch.addcdiv(x, x, net.place[:, None].abs() + 1.0),
    "lerp": lambda net, x: torch.lerp(x, net.one(x), 0.3),
    "a causal mask": lambda net, x: F.scaled_dot_product_attention(
        x, net.one(x), x, attn_mask=torch.full((4, 4), float("-inf")).triu(1)
    ),
    "cumsum": lambda net, x: x.cumsum(1),
    "gather, public": lambda net, x: x.gather(1, torch.tensor([[[2], [0]]]).expand(x.shape[0], 2, 6)),
    "gather, secret": lambda net, x: x.gather(2, net.one(x).argmax(2, keepdim=True)),
    "gather of a table, secret": lambda net, x: net.place.expand(len(x), 4).gather(1, x.argmax(1)),
    "topk": lambda net, x: torch.cat([each.to(x) for each in x.topk(3, 1)], 1),
    "the smallest of a sequence": lambda net, x: net.one(x).topk(2, largest=False).values,
    "where the largest are": lambda net, x: x.gather(2, x.topk(2, 2).indices),
    "sort": lambda net, x: x.sort(1).values,
    "sort, from the largest on": lambda net, x: torch.sort(x, stable=True, dim=2, descending=True)[0],
    "argsort": lambda net, x: x.argsort(2).to(x),
    "gather of several": lambda net, x: x.gather(1, torch.stack([x.argmax(1), x.argmin(1)], 1)),
    "looked up": lambda net, x: net.table(x[:, :, 0].mul(2).add(3).to(torch.int64)),
    "indexed": lambda net, x: net.table.weight[x.argmax(2)],
    "index_select": lambda net, x: torch.index_select(x, 2, torch.tensor([5, 0, 0])),
    "one_hot": lambda net, x: F.one_hot(x.argmax(2), 6).to(x.dtype) * x,
    "where": lambda net, x: torch.where(x > net.one(x), x, -x),
    "where, of numbers": lambda net, x: torch.where(x.abs() <= 0.5, 1.0, x),
    "masked_fill": lambda net, x: x.masked_fill(x < 0.1, -2.0),
    "logical": lambda net, x: ((x > 0) & ~(net.one(x) > 0) | (x < -0.5)).to(x.dtype),
    "xor, eq, ne": lambda net, x: ((x > 0) ^ (net.one(x) >= 0)).float().to(x.dtype) + (x != x[:, :1]).to(x.dtype),
    "bool of numbers": lambda net, x: F.relu(x).bool().to(x.dtype),
    "argmax": lambda net, x: x.argmax(1).to(x.dtype),
    "positions of min": lambda net, x: sum(x.min(2)).to(x.dtype),
    "sign": lambda net, x: torch.sign(x),
    "prod": lambda net, x: x.prod(1),
    "max of two": lambda net, x: torch.maximum(x, net.one(x)) + x.clamp(min=net.place[:, None]),
    "unfold": lambda net, x: x.unfold(1, 3, 1),
    "narrow, movedim": lambda net, x: x.narrow(2, 1, 3).movedim(1, 2).swapaxes(1, 2),
    "tril": lambda net, x: torch.tril(x @ x.transpose(1, 2)),
    "put into a part": lambda net, x: net.put(x),
    "expand": lambda net, x: x[:, :1].expand(-1, 4, -1) + x,
    "unbind, stack": lambda net, x: torch.stack(x.unbind(1)[::-1], 1),
    "tensor_split": lambda net, x: torch.tensor_split(x, 3, 2)[1],
    "2 ** x": lambda net, x: 2**x + torch.exp2(x) + torch.expm1(x),
    "log1p": lambda net, x: torch.log1p(x.square()) + torch.log2(x.square() + 1.5),
    "softmin": lambda net, x: F.softmin(x, 2),
    "softmax over heads": lambda net, x: torch.softmax(x.view(-1, 4, 2, 3).transpose(1, 2), -1).flatten(1),
    "cosine": lambda net, x: F.cosine_similarity(x, net.one(x), dim=2),
    "normalize": lambda net, x: F.normalize(x + 2, dim=2),
    "glu": lambda net, x: F.glu(x, 2),
    "roll": lambda net, x: torch.roll(x, (1, 2), (1, 2)),
    "tanhshrink": lambda net, x: F.tanhshrink(x) + F.hardshrink(x) + F.softshrink(x),
    "batch second": lambda net, x: net.one(x.transpose(0, 1)).logsumexp(2).transpose(0, 1),
    "an LSTM": lambda net, x: net.lstm(x)[0],
    "a cell": lambda net, x: net.steps(x),
}
PLACES: dict[str, Of] = {
    "a mask that is added": lambda net, x: (
        (x @ x.transpose(1, 2) + torch.full((4, 4), float("-inf")).triu(1)).softmax(-1) @ x
    ),
    "scaled sums of products": lambda net, x: torch.addmm(net.place[:1], x[:, 0], net.one.weight, beta=0.5, alpha=2),
    "bilinear": lambda net, x: F.bilinear(x, net.one(x), net.one.weight.reshape(1, 6, 6).repeat(2, 1, 1)),
    "any, all": lambda net, x: ((x > 0.5).any(1) & ~(x > -0.5).all(1)).to(x.dtype),
    "diagonal": lambda net, x: x.diagonal(1, 1, 2),
    "at places of two dimensions": lambda net, x: x[:, [0, 3, 1], [5, 0, 5]],
    "scatter": lambda net, x: torch.zeros_like(x).scatter(
        1, torch.tensor([[[2], [0]]]).expand(len(x), 2, 6), net.one(x)[:, :2]
    ),
    "put at places": lambda net, x: net.put_at(x),
    "powers of halves": lambda net, x: (x.square() + 0.5) ** 1.5 + (x.square() + 0.5) ** -2,
}
"""What masks, and what is at public places."""
IMAGES: dict[str, Of] = {
    "pixel_shuffle": lambda net, x: F.pixel_shuffle(x, 2),
    "pixel_unshuffle": lambda net, x: F.pixel_unshuffle(x, 2),
    "channel_shuffle": lambda net, x: F.channel_shuffle(x, 2),
    "interpolate, nearest": lambda net, x: F.interpolate(x, scale_factor=2),
    "interpolate, bilinear": lambda net, x: F.interpolate(x, size=(5, 7), mode="bilinear", align_corners=True),
    "interpolate, bicubic": lambda net, x: F.interpolate(x, scale_factor=1.5, mode="bicubic"),
    "pads": lambda net, x: F.pad(x, (1, 2, 0, 1), mode="reflect") * F.pad(x, (1, 2, 1, 0), value=0.5),
    "circular": lambda net, x: F.pad(x, (1, 1, 2, 2), mode="circular"),
    "ceil_mode": lambda net, x: F.max_pool2d(x, 3, 2, ceil_mode=True) + F.avg_pool2d(x, 3, 2, ceil_mode=True),
    "adaptive": lambda net, x: F.adaptive_avg_pool2d(x, (3, 5)) * F.adaptive_max_pool2d(x, (3, 5)),
    "dilation": lambda net, x: F.conv2d(x, net.kernel, padding=2, dilation=2),
    "transposed": lambda net, x: net.up(x),
    "transposed, of volumes": lambda net, x: F.conv_transpose3d(
        x.unsqueeze(2).repeat(1, 1, 2, 1, 1), net.kernel.reshape(4, 1, 3, 3, 3), stride=2, padding=(0, 1, 1), groups=2
    ),
    "unfold": lambda net, x: F.unfold(x, 3, stride=2, padding=1),
    "unfold, by a module": lambda net, x: tn.Unfold((2, 3), (2, 1), (0, 1), (1, 2))(x),
    "fold": lambda net, x: F.fold(F.unfold(x, 3) * 0.5, (8, 8), 3),
    "fold of patches": lambda net, x: F.fold(F.unfold(x, 4, stride=4).tanh(), (8, 8), 4, stride=4),
    "fold, wide": lambda net, x: F.fold(F.unfold(x, (2, 3), (2, 1), (1, 2), 3), (8, 8), (2, 3), (2, 1), (1, 2), 3),
    **{
        f"grid_sample, {mode}, {around}, {corners}": lambda net, x, mode=mode, around=around, corners=corners: (
            F.grid_sample(x, net.grid.expand(len(x), 3, 5, 2), mode, around, corners)
        )
        for mode, around, corners in (
            ("bilinear", "zeros", False), ("bilinear", "border", True), ("bilinear", "reflection", False),
            ("bilinear", "reflection", True), ("nearest", "zeros", True), ("nearest", "reflection", False),
        )
    },
    "of rows": lambda net, x: F.conv1d(x.flatten(2), net.kernel[:, :, 0], stride=2),
    "of rows, pools": lambda net, x: F.max_pool1d(x.flatten(2), 4) + F.avg_pool1d(x.flatten(2), 4),
    "volumes": lambda net, x: F.conv3d(x.unsqueeze(2).repeat(1, 1, 3, 1, 1), net.kernel[:, :, None], padding=(1, 0, 0)),
    "volumes, pools": lambda net, x: F.max_pool3d(x.unsqueeze(1), 2) + F.avg_pool3d(x.unsqueeze(1), 2),
    "group_norm": lambda net, x: F.group_norm(x, 2) + F.instance_norm(x),
    "batch_norm": lambda net, x: F.batch_norm(x, net.mean, net.spread),
    "hardswish": lambda net, x: F.hardswish(x) + F.hardsigmoid(x) + F.relu6(x) + F.leaky_relu(x, 0.2),
    "attention to channels": lambda net, x: x * torch.sigmoid(x.mean((2, 3), keepdim=True)),
    "windows": lambda net, x: x.view(-1, 4, 2, 4, 2, 4).permute(0, 2, 4, 3, 5, 1).reshape(-1, 16, 4).softmax(-1).view(
        -1, 4, 16, 4
    ),
    "drop path in evaluation": lambda net, x: F.dropout(x, 0.5, training=net.training),
}  # fmt: skip


class Sequences(tn.Module):
    def __init__(self, of: dict[str, Of]) -> None:
        super().__init__()
        self.table_of = of
        self.one, self.table = tn.Linear(6, 6), tn.Embedding(7, 5)
        self.lstm, self.cell = tn.LSTM(6, 3, batch_first=True, bidirectional=True), tn.GRUCell(6, 3)
        self.mix = tn.Parameter(torch.randn(4, 4))
        self.register_buffer("place", torch.linspace(-1, 1, 4))

    def put_at(self, x: torch.Tensor) -> torch.Tensor:
        y = x.clone()
        y[:, [1, 2], [3, 0]] = self.one(x)[:, 0, :2]
        return y

    def put(self, x: torch.Tensor) -> torch.Tensor:
        y = x.clone()
        y[:, 1:3, ::2] = 0.25
        y[:, 0] = y[:, 3]
        return y

    def steps(self, x: torch.Tensor) -> torch.Tensor:
        state = x.new_zeros(x.shape[0], 3)
        for t in range(x.shape[1]):
            state = self.cell(x[:, t], state)
        return state

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        return {name: of(self, x) for name, of in self.table_of.items()}


class Images(tn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up = tn.ConvTranspose2d(4, 2, 3, stride=2, padding=1, output_padding=1)
        self.kernel = tn.Parameter(torch.randn(3, 4, 3, 3))
        self.register_buffer("mean", torch.randn(4))
        self.register_buffer("grid", torch.rand(1, 3, 5, 2) * 4 - 2)
        self.register_buffer("spread", torch.rand(4) + 0.5)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        return {name: of(self, x) for name, of in IMAGES.items()}


def results(net: tn.Module, x: torch.Tensor, names: list[str]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """By name, what the model gives and what torch does."""
    torch.manual_seed(0)
    made = exported(net.double().eval(), x, OPERATORS, None)
    assert made is not None
    assert not made.blockers, "\n".join(map(str, made.blockers))
    model = Model(Architecture(made.steps, tuple(x.shape[1:])), made.weights)
    said = Interface(results=tuple(Result(name, each.shape) for name, each in zip(names, made.results, strict=True)))
    found = said.named(model.plain(x.numpy(), exact=True))
    with torch.no_grad():
        wanted = net(x)
    return {name: (found[name], wanted[name].numpy()) for name in names}


@pytest.fixture(scope="module")
def compared() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    torch.manual_seed(3)
    rows = torch.rand(3, 4, 6, dtype=torch.float64) * 2 - 1
    of_rows = results(Sequences(SEQUENCES), rows, list(SEQUENCES)) | results(Sequences(PLACES), rows, list(PLACES))
    return of_rows | results(Images(), torch.rand(2, 4, 8, 8, dtype=torch.float64) * 2 - 1, list(IMAGES))


@pytest.mark.sampled(4)
@pytest.mark.parametrize("name", [*SEQUENCES, *PLACES, *IMAGES])
@pytest.mark.filterwarnings("ignore")
def test_it_is_what_torch_gives(name: str, compared: dict[str, tuple[np.ndarray, np.ndarray]]) -> None:
    found, wanted = compared[name]
    assert found.shape == wanted.shape
    np.testing.assert_allclose(found, wanted, atol=1e-9, rtol=1e-7)
