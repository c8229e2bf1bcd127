"""Tokens, several inputs and several results: networks as people call them, and models that take the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn as tn
from torch.nn import functional as F

from mpc.errors import EncodingError, NoAnswer, ShapeError, UnsupportedError, UsageError
from nn import Interface, Model, NamedInput, SeveralInputs, TokenInput, from_torch
from nn.reading import open_file
from parties import Client, MemoryCluster
from protocols import PrecisionWarning

VOCABULARY, LENGTH = 11, 5


class Text(tn.Module):
    """A small transformer, on tokens: embeddings, positions, attention that leaves padding out, and a pooled result."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.places = tn.Embedding(VOCABULARY, 8, padding_idx=0), tn.Embedding(LENGTH, 8)
        self.norm, self.qkv = tn.LayerNorm(8), tn.Linear(8, 24)
        self.head = tn.Linear(8, 3)

    def forward(self, ids: torch.Tensor) -> dict[str, torch.Tensor]:
        n, t = ids.shape
        x = self.norm(self.words(ids) + self.places(torch.arange(t, device=ids.device)))
        q, k, v = self.qkv(x).view(n, t, 3, 2, 4).permute(2, 0, 3, 1, 4).unbind(0)
        padding = torch.zeros(n, 1, 1, t).masked_fill((ids == 0)[:, None, None], -50.0)
        y = F.scaled_dot_product_attention(q, k, v) + torch.softmax(q @ k.transpose(2, 3) / 2 + padding, -1) @ v
        state = x + y.transpose(1, 2).reshape(n, t, 8)
        return {"state": state, "logits": self.head(state[:, 0])}


class Beside(tn.Module):
    """An image, a row of numbers and a word."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.word, self.out = tn.Conv2d(1, 2, 3), tn.Embedding(4, 3), tn.Linear(2 + 2 + 3, 2)

    def forward(self, image: torch.Tensor, row: torch.Tensor, word: torch.Tensor) -> torch.Tensor:
        seen = self.conv(image).relu().mean((2, 3))
        return self.out(torch.cat([seen, row, self.word(word)[:, 0]], 1))


class Counted(tn.Module):
    """Places are counted from what is no padding, as in RoBERTa, in a shorter table than the words'."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.places, self.kinds = tn.Embedding(VOCABULARY, 8), tn.Embedding(7, 8), tn.Embedding(2, 8)
        self.register_buffer("kind", torch.zeros(1, 7, dtype=torch.int64))

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        mask = ids.ne(1).int()
        places = (torch.cumsum(mask, 1).type_as(mask) * mask).long() + 1
        kinds = torch.gather(self.kind.to(places.device).expand(len(places), -1), 1, places)
        return self.words(ids) + self.places(places) + self.kinds(kinds)


@pytest.mark.filterwarnings("ignore")
def test_places_that_are_counted() -> None:
    torch.manual_seed(0)
    net, ids = Counted().eval(), torch.randint(0, VOCABULARY, (12, LENGTH))
    model = from_torch(net, ids)
    assert model.interface.input == TokenInput((LENGTH,), VOCABULARY)
    with torch.no_grad():
        assert np.abs(model.plain(ids.numpy()) - net(ids).numpy()).max() < 1e-3


@pytest.fixture(scope="module")
def text() -> tuple[Text, Model, torch.Tensor]:
    torch.manual_seed(0)
    net = Text().eval()
    ids = torch.randint(0, VOCABULARY, (12, LENGTH))
    return net, from_torch(net, ids), ids


@pytest.mark.filterwarnings("ignore")
def test_tokens_are_asked_for_as_they_are(text: tuple[Text, Model, torch.Tensor], tmp_path: Path) -> None:
    net, model, ids = text
    assert model.interface.input == TokenInput((LENGTH,), VOCABULARY)
    with torch.no_grad():
        wanted = net(ids)
    for found in (model.plain(ids.numpy()), model.plain(model.interface.encoded(ids.numpy()))):
        named = model.interface.named(found)
        assert list(named) == ["state", "logits"]
        for name, values in named.items():
            assert np.abs(values - wanted[name].numpy()).max() < 1e-3
    with MemoryCluster(parties=2) as cluster, Client(cluster) as client:
        remote = client.upload(model, "text")
        found = client.predict(remote, ids.numpy()[:3])
        assert client.last_run is not None
        assert client.last_run.in_range
        assert np.abs(remote.description.interface.named(found)["logits"] - wanted["logits"][:3].numpy()).max() < 0.01
        with pytest.raises(EncodingError, match=r"inputs\[1, 2\] is no token: they are 0 to 10"):
            client.predict(remote, np.array([[0, 1, 2, 3, 4], [0, 1, 99, 3, 4]]))
    np.save(tmp_path / "x.npy", ids.numpy()[:2])
    opened = open_file(tmp_path / "x.npy", model.interface, model.description.input_shape)
    assert [each.values.shape for each in opened] == [(LENGTH, VOCABULARY)] * 2


@pytest.mark.filterwarnings("ignore")
def test_two_tokens_in_one_place_have_no_answer(text: tuple[Text, Model, torch.Tensor]) -> None:
    _, model, ids = text
    bits = model.interface.encoded(ids.numpy()[:1])
    bits[0, 1] = 1.0
    with MemoryCluster(parties=2) as cluster, Client(cluster) as client:
        remote = client.upload(model, "text")
        x = client.share(bits, low=0, high=1, fraction_bits=0)
        with pytest.raises(NoAnswer):
            client.reveal(remote(x))


@pytest.mark.filterwarnings("ignore")
def test_several_inputs_by_name() -> None:
    torch.manual_seed(1)
    net = Beside().eval()
    given = {"word": torch.randint(0, 4, (6, 1)), "image": torch.rand(6, 1, 6, 6), "row": torch.rand(6, 2) * 8 - 4}
    model = from_torch(net, given)
    assert isinstance(model.interface.input, SeveralInputs)
    assert [each.name for each in model.interface.input.inputs] == ["image", "row", "word"]
    with torch.no_grad():
        wanted = net(**given).numpy()
    arrays = {name: each.numpy() for name, each in given.items()}
    assert np.abs(model.plain(arrays) - wanted).max() < 1e-3
    with MemoryCluster(parties=2) as cluster, Client(cluster) as client:
        remote = client.upload(model, "beside")
        found = client.predict(remote, {name: each[:4] for name, each in arrays.items()}, chunk=3)
        assert np.abs(found - wanted[:4]).max() < 0.01
        with pytest.raises(ShapeError, match="takes inputs called image, row, word"):
            client.predict(remote, {"image": arrays["image"]})
        with pytest.raises(EncodingError, match="row is not within -4 to 4"):
            client.predict(remote, arrays | {"row": arrays["row"] * 2 + 9})
    with pytest.raises(UsageError, match="by the names of forward's inputs, which has no 'picture'"):
        from_torch(net, {"picture": given["image"]})


def test_what_is_said_of_inputs_is_checked() -> None:
    for make in (
        lambda: TokenInput((0,), 4),
        lambda: TokenInput((4,), 2**40),
        lambda: SeveralInputs(()),
        lambda: SeveralInputs((NamedInput("a", TokenInput((1,), 2)),) * 2),
        lambda: NamedInput("", TokenInput((1,), 2)),
    ):
        with pytest.raises(UnsupportedError):
            make()
    with pytest.raises(ShapeError, match="tokens of shape"):
        TokenInput((3,), 4).encode(np.zeros((2, 4), int))
    with pytest.raises(EncodingError, match="whole numbers"):
        TokenInput((2,), 4).encode(np.array([[0.5, 1.0]]))
    with pytest.raises(UsageError, match="has one input, without a name"):
        Interface().encoded({"a": [1.0]})


def test_a_cell_has_its_weights_once() -> None:
    class Steps(tn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell = tn.LSTMCell(2, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            state = x.new_zeros(x.shape[0], 3), x.new_zeros(x.shape[0], 3)
            for t in range(x.shape[1]):
                state = self.cell(x[:, t], state)
            return state[0]

    torch.manual_seed(0)
    model = from_torch(Steps().eval(), torch.rand(4, 5, 2))
    assert sum(w.size for w in model.weights.values()) <= 12 * (2 + 3 + 2) + 12


@pytest.mark.filterwarnings("ignore:.*deprecated", "ignore::UserWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize("static", [False, True])
def test_weights_of_eight_bits(static: bool) -> None:
    """Held to the network's own steps, which is said."""
    from torch.ao import quantization as q

    torch.manual_seed(0)
    net: tn.Module = tn.Sequential(tn.Conv2d(1, 3, 3), tn.ReLU(), tn.Flatten(), tn.Linear(48, 4)).eval()
    x = torch.rand(16, 1, 6, 6) * 2 - 1
    if static:
        net = tn.Sequential(q.QuantStub(), net, q.DeQuantStub()).eval()
        net.qconfig = q.get_default_qconfig("fbgemm")  # type: ignore[assignment]
        net = q.prepare(q.fuse_modules(net, [["1.0", "1.1"]]))
        net(x)
        net = q.convert(net)
    else:
        net = q.quantize_dynamic(net, {tn.Linear}, dtype=torch.qint8)
    with pytest.warns(PrecisionWarning, match=r"rounds in . layers to numbers of 8 bits"):
        model = from_torch(net, x)
    with torch.no_grad():
        wanted = net(x).numpy()
    assert np.abs(model.plain(x.numpy()) - wanted).max() < 0.03 * np.abs(wanted).max()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_weights_of_sixteen_bits(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    net = tn.Sequential(tn.Linear(4, 3), tn.ReLU(), tn.Linear(3, 2)).to(dtype).eval()
    x = torch.rand(8, 4) * 2 - 1
    model = from_torch(net, x)
    with torch.no_grad():
        wanted = net.double()(x.double()).numpy()
    assert np.abs(model.plain(x.numpy()) - wanted).max() < 1e-3
